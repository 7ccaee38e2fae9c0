//! Two-dimensional convolution.

use burn::backend::Dispatch;
use burn::tensor::Tensor;
use rayon::prelude::*;

use crate::extension::Kernels;
use crate::geometry::Geometry;
use crate::options::{Conv2dOptions, own_kernels_apply};
use crate::{dense, depthwise, direct, stock, winograd};

/// Two-dimensional convolution (cross-correlation, as in every deep-learning framework):
/// `y[n, o, i, j] = bias[o] + sum over c, p, q of weight[o, c, p, q] * x[n, c, i stride + p dilation - top, ...]`.
///
/// # Shapes
/// - `images`: `[n, channels, height, width]`
/// - `weight`: `[outputs, channels / groups, kernel height, kernel width]`
/// - `bias`: `[outputs]`
/// - returns `[n, outputs, output height, output width]`
///
/// # Panics
/// If the shapes and options do not fit together, or the tensors' devices or data types differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use gradus_kernels::{Conv2dOptions, conv2d};
///
/// let images = Tensor::<4>::ones([1, 1, 3, 3], &Device::flex());
/// let weight = Tensor::<4>::ones([1, 1, 3, 3], &Device::flex());
/// let output = conv2d(images, weight, None, &Conv2dOptions::symmetric(2, 1));
/// assert_eq!(output.dims(), [1, 1, 2, 2]);
/// assert_eq!(output.sum().into_scalar::<f32>(), 16.0);
/// ```
#[must_use]
pub fn conv2d(images: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>, options: &Conv2dOptions) -> Tensor<4> {
    let geometry = Geometry::new(images.dims(), weight.dims(), options);
    if let Some(bias) = &bias {
        let [length] = bias.dims();
        assert!(
            length == geometry.outputs,
            "conv2d: expected a bias of {} values, one per output, found {length}",
            geometry.outputs
        );
    }
    let mut dtypes = vec![images.dtype(), weight.dtype()];
    dtypes.extend(bias.as_ref().map(Tensor::dtype));
    if !own_kernels_apply(&images.device(), &dtypes) {
        return stock::conv2d(images, weight, bias, options);
    }
    let (images, weight) = (images.into_dispatch(), weight.into_dispatch());
    Tensor::from_dispatch(match bias {
        None => Dispatch::convolution(images, weight, geometry),
        Some(bias) => Dispatch::convolution_with_bias(images, weight, bias.into_dispatch(), geometry),
    })
}

/// Output of the convolution.
pub(crate) fn forward(geometry: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    #[cfg(all(test, target_arch = "x86_64"))]
    // Tests lower the width of vectors, which must not happen in the middle of an operation.
    let _same_width = crate::simd::tests::in_progress();
    if geometry.is_depthwise() {
        depthwise::forward(geometry, x, weight, bias)
    } else if winograd::applies(geometry) {
        winograd::forward(geometry, x, weight, bias)
    } else if direct::applies(geometry) {
        direct::forward(geometry, x, weight, bias)
    } else {
        dense::forward(geometry, x, weight, bias)
    }
}

/// Gradients of the input and of the weight. The input's is computed if the weight is given, the weight's if the input
/// is.
pub(crate) fn gradients(
    geometry: &Geometry,
    x: Option<&[f32]>,
    weight: Option<&[f32]>,
    gradient: &[f32],
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    #[cfg(all(test, target_arch = "x86_64"))]
    // Tests lower the width of vectors, which must not happen in the middle of an operation.
    let _same_width = crate::simd::tests::in_progress();
    if geometry.is_depthwise() {
        return depthwise::gradients(geometry, weight, gradient, x);
    }
    let input_gradient = if winograd::applies(geometry) {
        winograd::input_gradient
    } else if direct::applies_to_input_gradient(geometry) {
        direct::input_gradient
    } else {
        dense::input_gradient
    };
    let weight_gradient = if winograd::applies(geometry) {
        winograd::weight_gradient
    } else if direct::applies(geometry) {
        direct::weight_gradient
    } else {
        dense::weight_gradient
    };
    (
        weight.map(|weight| input_gradient(geometry, weight, gradient)),
        x.map(|x| weight_gradient(geometry, x, gradient)),
    )
}

/// Gradient of the bias: the sum over images and pixels.
pub(crate) fn bias_gradient(geometry: &Geometry, gradient: &[f32]) -> Vec<f32> {
    let (outputs, pixels) = (geometry.outputs, geometry.output_pixels());
    (0..outputs)
        .into_par_iter()
        .map(|output| {
            let planes = (0..geometry.images).map(|image| &gradient[(image * outputs + output) * pixels..][..pixels]);
            planes.map(|plane| f64::from(plane.iter().sum::<f32>())).sum::<f64>() as f32
        })
        .collect()
}
