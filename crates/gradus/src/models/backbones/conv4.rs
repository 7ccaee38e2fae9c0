//! Four convolution blocks: the small network of few-shot learning, for images of 32 to 105 pixels.

use gradus_kernels::{Activation, MaxPool2dOptions, max_pool2d};
use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::{Backbone, BackboneInfo, BackboneOptions, IMAGENET_NORMALISATION, Refused};
use crate::models::layers::{Builder, ConvNorm, ConvSpec, Mode};
use crate::tensor::{Module, Tensor};

/// Its line in the registry.
pub const INFO: BackboneInfo = BackboneInfo {
    name: "conv4",
    paper: "Snell et al., Prototypical Networks for Few-shot Learning, 2017",
    default_size: 64,
    minimum_size: 16,
    size_step: 1,
    feature_width: 64,
    normalisation: IMAGENET_NORMALISATION,
    families: &[],
    weights: &[],
};

/// Options of [`Conv4`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Conv4Config {
    /// Channels of every block; default 64, the paper's.
    pub channels: usize,
}

impl Default for Conv4Config {
    fn default() -> Self {
        Self { channels: 64 }
    }
}

impl BackboneOptions for Conv4Config {
    fn check(&self, _info: &BackboneInfo) -> Result<(), Refused> {
        if (8..=1024).contains(&self.channels) {
            return Ok(());
        }
        Err(Refused::new("channels", "from 8 to 1024", self.channels))
    }
}

impl Conv4Config {
    /// Channels of each block.
    #[must_use]
    pub fn widths(&self) -> [usize; 4] {
        [self.channels; 4]
    }
}

/// Four times 3x3 convolution, batch normalisation, ReLU and 2x2 maximum. Snell et al., 2017.
#[derive(Module, Debug)]
pub struct Conv4 {
    layers: Vec<ConvNorm>,
    channels: usize,
}

impl Conv4 {
    /// Builds the network from the channels of each block.
    #[must_use]
    pub fn new(channels: [usize; 4], builder: &Builder<'_>) -> Self {
        let layer = |index: usize| {
            let input = if index == 0 { 3 } else { channels[index - 1] };
            builder.conv_norm(&format!("layers.{index}"), ConvSpec::new(input, channels[index], 3))
        };
        Self {
            layers: (0..4).map(layer).collect(),
            channels: channels[3],
        }
    }
}

impl Backbone for Conv4 {
    fn blocks(&self) -> usize {
        self.layers.len()
    }

    fn width(&self) -> usize {
        self.channels
    }

    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        max_pool2d(
            self.layers[index].forward(x, mode, Activation::Relu),
            &MaxPool2dOptions::square(2, 2),
        )
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        self.layers.iter().fold(images, |x, layer| {
            let x = layer.graph(graph, x, Activation::Relu);
            graph.max_pool(x, 2, 2, [0; 4])
        })
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        super::number_after(name, "layers.")
    }
}
