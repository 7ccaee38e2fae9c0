//! Four convolution blocks that double their channels: a small network for images of 64 pixels and more.
//!
//! The blocks are those of [`conv4`](super::conv4); only the channels differ.

use serde::{Deserialize, Serialize};

use super::{BackboneInfo, BackboneOptions, IMAGENET_NORMALISATION, Refused};

/// Its line in the registry.
pub const INFO: BackboneInfo = BackboneInfo {
    name: "convnet",
    paper: "the blocks of conv4 (Snell et al., 2017), channels doubled from block to block as in VGG (Simonyan and Zisserman, 2014)",
    default_size: 64,
    minimum_size: 16,
    size_step: 1,
    feature_width: 256,
    normalisation: IMAGENET_NORMALISATION,
    families: &[],
    weights: &[],
};

/// Options of the network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConvnetConfig {
    /// Channels of the first block; default 32. Every further block has twice those of the one before.
    pub channels: usize,
}

impl Default for ConvnetConfig {
    fn default() -> Self {
        Self { channels: 32 }
    }
}

impl BackboneOptions for ConvnetConfig {
    fn check(&self, _info: &BackboneInfo) -> Result<(), Refused> {
        if (8..=256).contains(&self.channels) {
            return Ok(());
        }
        Err(Refused::new("channels", "from 8 to 256", self.channels))
    }
}

impl ConvnetConfig {
    /// Channels of each block: 32, 64, 128, 256 by default.
    #[must_use]
    pub fn widths(&self) -> [usize; 4] {
        [0, 1, 2, 3].map(|block| self.channels << block)
    }
}
