//! Networks: a trunk (one of the [`backbones`]), [`pooling`] and an embedding [`head`].
//!
//! ```
//! use gradus::models::{BackboneConfig, Mode, ModelConfig};
//! use gradus::tensor::{Device, Tensor};
//!
//! let config = ModelConfig { width: 64, ..ModelConfig::default() };
//! let device = Device::default();
//! let network = config.init(1, &device)?;
//! let embeddings = network.forward(Tensor::ones([2, 3, 32, 32], &device), Mode::Evaluate);
//! assert_eq!(embeddings.dims(), [2, 64]);
//! # Ok::<(), gradus::models::ModelError>(())
//! ```

pub mod activations;
pub mod backbones;
pub mod convolutions;
pub mod embedder;
pub mod graph;
pub mod head;
pub mod layer_norm;
pub mod layers;
pub mod pooling;
pub mod positions;
pub mod running;
pub mod transformer;
pub mod weights;

pub use backbones::{BACKBONES, BackboneConfig, BackboneInfo, Family, IMAGENET_NORMALISATION, Normalisation, Weights};
pub use convolutions::{Convolution, convolutions};
pub use embedder::{Embedder, HeadStart, ModelConfig};
pub use head::{Head, HeadConfig};
pub use layers::Mode;
pub use pooling::Pooling;
pub use weights::{WeightsInfo, read_info};

/// Why a network could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The configuration asks for something that cannot be.
    #[error("{0}")]
    Config(String),
    /// A file of weights is unreadable or belongs to another network.
    #[error("{0}")]
    Weights(String),
}
