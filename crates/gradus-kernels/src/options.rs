//! Options of the operations, and the process-wide choice of implementation.

use std::sync::atomic::{AtomicU8, Ordering};

use burn::backend::DispatchDevice;
use burn::tensor::{DType, Device};

/// Stride, padding, dilation and groups of a two-dimensional convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2dOptions {
    /// Step between output pixels, `[vertical, horizontal]`; default 1.
    pub stride: [usize; 2],
    /// Zeros around the image, `[[top, bottom], [left, right]]`; default 0. TensorFlow's "same" padding is asymmetric.
    pub padding: [[usize; 2]; 2],
    /// Step between kernel taps, `[vertical, horizontal]`; default 1.
    pub dilation: [usize; 2],
    /// Number of groups the channels are cut into; default 1, and the number of channels in a depthwise convolution.
    pub groups: usize,
}

impl Default for Conv2dOptions {
    fn default() -> Self {
        Self {
            stride: [1; 2],
            padding: [[0; 2]; 2],
            dilation: [1; 2],
            groups: 1,
        }
    }
}

impl Conv2dOptions {
    /// The same stride in both directions and the same padding on all four sides.
    ///
    /// ```
    /// use gradus_kernels::Conv2dOptions;
    /// let options = Conv2dOptions::symmetric(2, 1);
    /// assert_eq!(options.stride, [2, 2]);
    /// assert_eq!(options.padding, [[1, 1], [1, 1]]);
    /// ```
    #[must_use]
    pub fn symmetric(stride: usize, padding: usize) -> Self {
        Self {
            stride: [stride; 2],
            padding: [[padding; 2]; 2],
            ..Self::default()
        }
    }
}

/// Windows of a two-dimensional maximum; pairs are `[vertical, horizontal]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPool2dOptions {
    /// Pixels of a window.
    pub kernel: [usize; 2],
    /// Step between windows.
    pub stride: [usize; 2],
    /// Pixels around the image on either side, which are never the maximum; at most half the kernel.
    pub padding: [usize; 2],
    /// Whether a last window that reaches beyond the padded image counts (PyTorch's `ceil_mode`).
    pub ceil_mode: bool,
}

impl MaxPool2dOptions {
    /// Square windows with the same stride in both directions, without padding or ceiling mode.
    #[must_use]
    pub fn square(kernel: usize, stride: usize) -> Self {
        Self {
            kernel: [kernel; 2],
            stride: [stride; 2],
            padding: [0; 2],
            ceil_mode: false,
        }
    }
}

/// Element-wise function fused behind a normalisation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// The identity.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`, as in MobileNet.
    Relu6,
}

impl Activation {
    /// Lower and upper bound that the activation clamps to; its gradient is 1 strictly between them and 0 elsewhere.
    pub(crate) fn bounds(self) -> [f32; 2] {
        match self {
            Self::None => [f32::NEG_INFINITY, f32::INFINITY],
            Self::Relu => [0.0, f32::INFINITY],
            Self::Relu6 => [0.0, 6.0],
        }
    }
}

/// Which code runs the operations of this crate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Implementation {
    /// This crate's kernels where they apply (`f32` on Flex), plain Burn operations elsewhere.
    #[default]
    Own,
    /// Plain Burn operations everywhere, to compare against.
    Stock,
}

static IMPLEMENTATION: AtomicU8 = AtomicU8::new(0);

/// Chooses the implementation for the whole process; the default is [`Implementation::Own`].
pub fn set_implementation(implementation: Implementation) {
    IMPLEMENTATION.store(u8::from(implementation == Implementation::Stock), Ordering::Relaxed);
}

/// The implementation chosen for the process.
#[must_use]
pub fn implementation() -> Implementation {
    if IMPLEMENTATION.load(Ordering::Relaxed) == 0 {
        Implementation::Own
    } else {
        Implementation::Stock
    }
}

/// Whether this crate's kernels serve tensors of these data types on this device.
pub(crate) fn own_kernels_apply(device: &Device, dtypes: &[DType]) -> bool {
    if implementation() == Implementation::Stock || dtypes.iter().any(|dtype| *dtype != DType::F32) {
        return false;
    }
    // The other variants exist only when their Burn features are on.
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(device) => matches!(&**device, DispatchDevice::Flex(_)),
        #[allow(unreachable_patterns)]
        _ => false,
    }
}
