//! Which convolutions a network consists of, in the order in which an image meets them.
//!
//! They are seen in one pass of one image rather than listed by each backbone: what a layer works on depends on every layer
//! before it, and a second description of the networks could be wrong.

use std::cell::RefCell;

use gradus_kernels::Conv2dOptions;

use super::embedder::Embedder;
use super::layers::Mode;
use crate::tensor::{Module, Tensor};

/// A convolution as a network uses it, for one image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Convolution {
    /// Channels in.
    pub input: usize,
    /// Channels out.
    pub output: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Height and width before it.
    pub size: [usize; 2],
    /// Height and width behind it.
    pub output_size: [usize; 2],
    /// Stride, padding, groups.
    pub options: Conv2dOptions,
}

impl Convolution {
    /// Multiply-adds for one image, zeros around it included.
    #[must_use]
    pub fn multiply_adds(&self) -> u64 {
        let each = self.input / self.options.groups * self.kernel * self.kernel;
        (self.output * self.output_size[0] * self.output_size[1] * each) as u64
    }
}

thread_local! {
    /// Convolutions seen on this thread, while somebody wants to know.
    static SEEN: RefCell<Option<Vec<Convolution>>> = const { RefCell::new(None) };
}

/// Tells of a convolution; made only when somebody wants to know.
pub(super) fn tell(convolution: impl FnOnce() -> Convolution) {
    SEEN.with_borrow_mut(|seen| {
        if let Some(seen) = seen {
            seen.push(convolution());
        }
    });
}

/// The convolutions of a network for images of a size, first to last. Linear layers over positions and tokens count as convolutions
/// of 1x1 pixels; the products inside self-attention are none.
///
/// ```
/// use gradus::models::{BackboneConfig, ModelConfig, convolutions};
/// use gradus::tensor::Device;
///
/// let backbone = BackboneConfig::by_name("resnet18")?;
/// let network = ModelConfig { backbone, ..ModelConfig::default() }.init(1, &Device::default())?;
/// let layers = convolutions(&network, 64);
/// assert_eq!((layers.len(), layers[0].kernel, layers[0].output_size), (20, 7, [32, 32]));
/// # Ok::<(), gradus::models::ModelError>(())
/// ```
///
/// # Panics
/// If images of this size have no pixel left somewhere in the network.
#[must_use]
pub fn convolutions(network: &Embedder, size: usize) -> Vec<Convolution> {
    let device = network
        .devices()
        .first()
        .map(|device| device.clone().without_autodiff());
    let image = Tensor::<4>::zeros([1, 3, size, size], &device.unwrap_or_default());
    SEEN.with_borrow_mut(|seen| *seen = Some(Vec::new()));
    let _ = network.valid().features(image, Mode::Evaluate);
    SEEN.with_borrow_mut(Option::take).unwrap_or_default()
}
