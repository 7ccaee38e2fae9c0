//! The network that `train-step` and `infer` measure, its images, and how much arithmetic it is.

use gradus::device::DeviceChoice;
use gradus::kernels::{Implementation, set_implementation, use_threads};
use gradus::models::{BackboneConfig, Embedder, HeadStart, ModelConfig, convolutions};
use gradus::tensor::{Device, Tensor, TensorData};

use super::measure;
use crate::arguments::{BenchNetwork, Kernels};
use crate::failure::Failure;

/// Width of the embedding, as in most of the literature.
pub(super) const WIDTH: usize = 512;

/// A network with random weights and a batch of random images.
pub(super) struct Network {
    pub(super) embedder: Embedder,
    pub(super) device: Device,
    /// `[batch, 3, size, size]`
    pub(super) images: Tensor<4>,
    pub(super) threads: usize,
    /// Multiply-adds for one image: of the first convolution, of all of them, of the head.
    pub(super) first: u64,
    pub(super) convolutions: u64,
    pub(super) head: u64,
}

impl Network {
    /// Builds it: average pooling, linear head, batch normalisation that is not trained.
    pub(super) fn new(arguments: &BenchNetwork, trained: bool) -> Result<Self, Failure> {
        let BenchNetwork { size, batch, .. } = *arguments;
        let backbone =
            BackboneConfig::by_name(&arguments.model).map_err(|error| Failure::new(format!("--model: {error}")))?;
        measure::at_least_one(&[("--batch", batch)])?;
        let smallest = backbone.info().minimum_size;
        if size < smallest {
            return Err(Failure::new(format!(
                "--size is {size}, but {} takes images of at least {smallest} pixels",
                arguments.model
            )));
        }
        backbone.check_size(size)?;
        let threads = use_threads(arguments.threads).map_err(|error| Failure::new(format!("--threads: {error}")))?;
        set_implementation(match arguments.kernels {
            Kernels::Own => Implementation::Own,
            Kernels::Stock => Implementation::Stock,
        });
        let mut device = DeviceChoice::Cpu.resolve().map_err(Failure::new)?;
        if trained {
            device = device.autodiff();
        }
        let config = ModelConfig {
            backbone,
            normalise_features: false,
            width: WIDTH,
            initial: HeadStart::Random,
            freeze_batch_norm: true,
            ..ModelConfig::default()
        };
        let embedder = config.init(arguments.seed, &device)?.with_fixed_scales();
        let layers: Vec<u64> = convolutions(&embedder, size)
            .iter()
            .map(gradus::models::Convolution::multiply_adds)
            .collect();
        let values = measure::normal_values(batch * 3 * size * size, arguments.seed, 0);
        Ok(Self {
            images: Tensor::from_data(TensorData::new(values, [batch, 3, size, size]), &device),
            threads,
            first: layers.first().copied().unwrap_or(0),
            convolutions: layers.iter().sum(),
            head: (embedder.feature_width() * WIDTH) as u64,
            embedder,
            device,
        })
    }
}
