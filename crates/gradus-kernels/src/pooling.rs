//! Maximum over windows of image planes, with the place of each maximum kept in one byte for the backward pass.

use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::geometry::Geometry;
use crate::memory::{Output, SharedPointer, tensor, values, with_scratch};
use crate::options::{MaxPool2dOptions, own_kernels_apply};
use crate::partition::Partition;
use crate::phases::{Layout, SLACK};
use crate::simd::{Lanes, multiversion};
use crate::stock;

/// The operation on primitives.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Pooling: Backend {
    fn max_pool(x: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self>;
}

/// Maximum over windows: `y[n, c, i, j] = max over p, q of x[n, c, i stride + p - padding, j stride + q - padding]`.
///
/// Padding is never the maximum, not-a-number always is; of equal values the first gets the gradient. For the backward
/// pass one byte per output is kept, and not the input.
///
/// # Shapes
/// - `x`: `[images, channels, height, width]`
/// - returns `[images, channels, output height, output width]`, of sizes `(size + 2 padding - kernel) / stride + 1`,
///   rounded down, or up in ceiling mode, where no window may begin in the padding behind the image.
///
/// # Panics
/// If the kernel or stride is 0, the padding more than half the kernel, or the kernel larger than the padded image.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use gradus_kernels::{MaxPool2dOptions, max_pool2d};
///
/// let x = Tensor::<4>::from_data([[[[1.0f32, 5.0], [3.0, 2.0]]]], &Device::flex());
/// let y = max_pool2d(x, &MaxPool2dOptions::square(2, 2));
/// assert_eq!(y.into_data().try_to_vec::<f32>(), Ok(vec![5.0]));
/// ```
#[must_use]
pub fn max_pool2d(x: Tensor<4>, options: &MaxPool2dOptions) -> Tensor<4> {
    let geometry = geometry(x.dims(), options);
    // The place of the maximum is kept in one byte.
    if geometry.taps() > 256 || !own_kernels_apply(&x.device(), &[x.dtype()]) {
        return stock::max_pool2d(x, options);
    }
    Tensor::from_dispatch(Dispatch::max_pool(x.into_dispatch(), geometry))
}

/// The windows as those of a depthwise convolution.
fn geometry(shape: [usize; 4], options: &MaxPool2dOptions) -> Geometry {
    let [images, channels, height, width] = shape;
    let MaxPool2dOptions {
        kernel,
        stride,
        padding,
        ceil_mode,
    } = *options;
    let input = [height, width];
    let mut output = [0; 2];
    for axis in 0..2 {
        assert!(
            kernel[axis] > 0 && stride[axis] > 0 && 2 * padding[axis] <= kernel[axis],
            "max_pool2d: kernel and stride must be at least 1 and the padding at most half the kernel, found {options:?}"
        );
        let padded = input[axis] + 2 * padding[axis];
        assert!(
            kernel[axis] <= padded,
            "max_pool2d: a kernel of {} pixels does not fit a padded image of {padded} pixels (images {shape:?}, \
             {options:?})",
            kernel[axis]
        );
        let rest = padded - kernel[axis];
        output[axis] = if ceil_mode {
            let size = rest.div_ceil(stride[axis]) + 1;
            size - usize::from((size - 1) * stride[axis] >= input[axis] + padding[axis])
        } else {
            rest / stride[axis] + 1
        };
    }
    Geometry {
        images,
        channels,
        input,
        outputs: channels,
        output,
        kernel,
        stride,
        before: padding,
        dilation: [1; 2],
        groups: channels,
    }
}

/// Floats that [`maxima`] takes at a time.
const BLOCK: usize = 16;

/// `best[i] = max over t of source[shifts[t] + i]` and, if they are asked for, the places of the first maxima:
/// `places[i]` is the tap, or what it was where the maximum is that of the first tap or is negative infinity.
///
/// # Safety
/// `best` and `places` must have `length` floats plus [`SLACK`], `source` the same behind each shift; `places` may be
/// dangling if it is not asked for.
#[inline(always)]
unsafe fn maxima_body<L: Lanes>(
    best: *mut f32,
    places: *mut f32,
    source: *const f32,
    shifts: &[usize],
    length: usize,
    with_places: bool,
) {
    // Loops over arrays of constant length, which the compiler turns into compares and blends of the instruction set
    // that it is allowed here; the trait of vectors has neither.
    let _ = L::WIDTH;
    let mut i = 0;
    while i < length {
        // SAFETY: a block from `i` ends within the slack; an array of floats has the alignment of a float.
        unsafe {
            let load = |shift: usize| source.add(shift + i).cast::<[f32; BLOCK]>().read();
            let mut largest = load(shifts[0]);
            if with_places {
                let mut place = places.add(i).cast::<[f32; BLOCK]>().read();
                for (tap, shift) in shifts.iter().enumerate().skip(1) {
                    let candidates = load(*shift);
                    let tap = tap as f32;
                    for lane in 0..BLOCK {
                        let candidate = candidates[lane];
                        let larger = candidate > largest[lane] || candidate.is_nan();
                        largest[lane] = if larger { candidate } else { largest[lane] };
                        place[lane] = if larger { tap } else { place[lane] };
                    }
                }
                places.add(i).cast::<[f32; BLOCK]>().write(place);
            } else {
                for shift in &shifts[1..] {
                    let candidates = load(*shift);
                    for lane in 0..BLOCK {
                        let candidate = candidates[lane];
                        let larger = candidate > largest[lane] || candidate.is_nan();
                        largest[lane] = if larger { candidate } else { largest[lane] };
                    }
                }
            }
            best.add(i).cast::<[f32; BLOCK]>().write(largest);
        }
        i += BLOCK;
    }
}

multiversion! {
    /// See [`maxima_body`].
    unsafe fn maxima = maxima_body(
        best: *mut f32, places: *mut f32, source: *const f32, shifts: &[usize], length: usize, with_places: bool,
    )
}

/// For each output, on a line of widened rows, the first tap that does not lie in the padding.
fn first_taps(geometry: &Geometry, layout: &Layout) -> Vec<f32> {
    let mut line = vec![0.0; layout.line + SLACK];
    let first = |axis: usize, output: usize| geometry.before[axis].saturating_sub(output * geometry.stride[axis]);
    for row in 0..geometry.output[0] {
        for column in 0..geometry.output[1] {
            let tap = first(0, row) * geometry.kernel[1] + first(1, column);
            line[row * layout.width + column] = tap as f32;
        }
    }
    line
}

/// Maxima `[images, channels, output pixels]` and, if they are asked for, the tap that each was found at.
fn forward(geometry: &Geometry, x: &[f32], with_places: bool) -> (Vec<f32>, Vec<u8>) {
    let length = geometry.images * geometry.channels * geometry.output_pixels();
    let mut places = vec![0u8; if with_places { length } else { 0 }];
    if length == 0 {
        return (Vec::new(), places);
    }
    let layout = Layout::new(geometry);
    let initial = if with_places {
        first_taps(geometry, &layout)
    } else {
        Vec::new()
    };
    let (input_pixels, output_pixels, width) = (geometry.input_pixels(), geometry.output_pixels(), geometry.output[1]);
    let (phases_length, line_length) = (layout.phases.len() * layout.phase, layout.line + SLACK);
    let mut result = Output::new(length);
    let (target, place_target) = (result.pointer(), SharedPointer::new(&mut places));
    Partition::new(geometry.images, geometry.channels).for_each(|_, images, channels| {
        with_scratch(phases_length + 2 * line_length, |scratch| {
            let (phases, scratch) = scratch.split_at_mut(phases_length);
            let (best, place) = scratch.split_at_mut(line_length);
            // Whatever is not a pixel is never the maximum.
            phases.fill(f32::NEG_INFINITY);
            for image in images {
                for channel in channels.clone() {
                    let plane = image * geometry.channels + channel;
                    layout.deal(geometry, &x[plane * input_pixels..][..input_pixels], phases);
                    if with_places {
                        place.copy_from_slice(&initial);
                    }
                    // SAFETY: the lines and the phases have slack behind them, and every shift leaves the line within
                    // its phase. The plane of the output is written by this task only, and completely.
                    unsafe {
                        maxima(
                            best.as_mut_ptr(),
                            place.as_mut_ptr(),
                            phases.as_ptr(),
                            &layout.shifts,
                            layout.line,
                            with_places,
                        );
                        layout.narrow(geometry, best, target.at(plane * output_pixels));
                        if with_places {
                            for row in 0..geometry.output[0] {
                                let places = place_target.at(plane * output_pixels + row * width);
                                for (column, tap) in place[row * layout.width..][..width].iter().enumerate() {
                                    places.add(column).write(*tap as u8);
                                }
                            }
                        }
                    }
                }
            }
        });
    });
    // SAFETY: the chunks cover all images and channels.
    (unsafe { result.finish() }, places)
}

/// Gradient of the input: each output's gradient, added at the place of its maximum.
fn backward(geometry: &Geometry, places: &[u8], gradient: &[f32]) -> Vec<f32> {
    let (input_pixels, output_pixels) = (geometry.input_pixels(), geometry.output_pixels());
    let ([rows, columns], width) = (geometry.output, geometry.input[1]);
    // Where the taps lie, from the first of a window on.
    let mut taps = [0usize; 256];
    for (tap, offset) in taps.iter_mut().enumerate().take(geometry.taps()) {
        *offset = tap / geometry.kernel[1] * width + tap % geometry.kernel[1];
    }
    let corner = geometry.before[0] * width + geometry.before[1];
    let mut result = Output::new(geometry.images * geometry.channels * input_pixels);
    let target = result.pointer();
    Partition::new(geometry.images, geometry.channels).for_each(|_, images, channels| {
        for image in images {
            for channel in channels.clone() {
                let plane = image * geometry.channels + channel;
                // SAFETY: the plane lies within the result, belongs to this task, and is set before it is read.
                let sums = unsafe {
                    let start = target.at(plane * input_pixels);
                    start.write_bytes(0, input_pixels);
                    std::slice::from_raw_parts_mut(start, input_pixels)
                };
                let outputs = plane * output_pixels..(plane + 1) * output_pixels;
                let (gradient, places) = (&gradient[outputs.clone()], &places[outputs]);
                for row in 0..rows {
                    let gradient = &gradient[row * columns..][..columns];
                    let places = &places[row * columns..][..columns];
                    // A window may begin in the padding: only with its tap's offset is the position one of the plane.
                    let mut start = (row * geometry.stride[0] * width).wrapping_sub(corner);
                    for (gradient, place) in gradient.iter().zip(places) {
                        sums[start.wrapping_add(taps[usize::from(*place)])] += gradient;
                        start = start.wrapping_add(geometry.stride[1]);
                    }
                }
            }
        }
    });
    // SAFETY: the chunks cover all images and channels.
    unsafe { result.finish() }
}

fn pool(x: &FlexTensor, geometry: &Geometry, with_places: bool) -> (FlexTensor, Vec<u8>) {
    let x = x.to_contiguous();
    let (output, places) = forward(geometry, values(&x), with_places);
    (tensor(output, &geometry.output_shape()), places)
}

impl Pooling for Flex {
    fn max_pool(x: FlexTensor, geometry: Geometry) -> FlexTensor {
        pool(&x, &geometry, false).0
    }
}

/// Backward pass; the state is where the maxima were found.
#[derive(Debug)]
struct MaxPool;

impl Backward<Flex, 1> for MaxPool {
    type State = (Arc<Vec<u8>>, Geometry);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (places, geometry) = ops.state;
        let [Some(node)] = ops.parents else { return };
        let result = backward(&geometry, &places, values(&gradient));
        grads.register::<Flex>(node.id, tensor(result, &geometry.input_shape()));
    }
}

impl<C: CheckpointStrategy> Pooling for Autodiff<Flex, C> {
    fn max_pool(x: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self> {
        match MaxPool.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (output, places) = pool(&x.into_primitive(), &geometry, true);
                prepared.finish((Arc::new(places), geometry), output)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(pool(&x.into_primitive(), &geometry, false).0),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use super::*;

    /// Values of few steps, so that windows have several equal maxima.
    fn random(shape: [usize; 4], seed: u64, device: &Device) -> Tensor<4> {
        let mut state = seed | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) % 13) as f32 - 6.0
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn values_of(tensor: Tensor<4>) -> Vec<f32> {
        tensor.into_data().try_to_vec::<f32>().unwrap()
    }

    /// Output and input gradient are those of Burn, with and without autodiff; sums of small integers are exact.
    fn check(shape: [usize; 4], options: &MaxPool2dOptions) {
        let device = Device::flex().autodiff();
        type Operation = fn(Tensor<4>, &MaxPool2dOptions) -> Tensor<4>;
        let [own, expected] = [max_pool2d as Operation, stock::max_pool2d].map(|operation| {
            let x = random(shape, 3, &device).require_grad();
            let y = operation(x.clone(), options);
            let factor = random(y.dims(), 5, &device);
            let gradients = (y.clone() * factor).sum().backward();
            (y.dims(), values_of(y), values_of(x.grad(&gradients).unwrap()))
        });
        assert_eq!(own, expected, "{shape:?} {options:?}");
        let plain = max_pool2d(random(shape, 3, &Device::flex()), options);
        assert_eq!(values_of(plain), own.1, "without autodiff: {shape:?} {options:?}");
    }

    #[test]
    fn pooling_of_the_backbones_agrees_with_burn() {
        let stem = MaxPool2dOptions {
            padding: [1; 2],
            ..MaxPool2dOptions::square(3, 2)
        };
        let fire = MaxPool2dOptions {
            ceil_mode: true,
            ..MaxPool2dOptions::square(3, 2)
        };
        for size in [1, 2, 7, 16, 33, 56] {
            check([3, 5, size, size + 1], &stem);
            if size > 2 {
                check([20, 3, size, size + 1], &fire);
                check([3, 5, size, size + 2], &MaxPool2dOptions::square(2, 2));
            }
            check([2, 3, size, size], &MaxPool2dOptions::square(1, 2));
        }
        check([1, 1, 40, 40], &MaxPool2dOptions::square(17, 3));
    }

    #[test]
    fn infinities_and_not_a_number_are_maxima_of_their_place() {
        let device = Device::flex().autodiff();
        let options = MaxPool2dOptions {
            padding: [1; 2],
            ..MaxPool2dOptions::square(3, 2)
        };
        for value in [f32::NEG_INFINITY, f32::NAN, f32::INFINITY] {
            let x = Tensor::<4>::from_data(TensorData::new(vec![value; 9], [1, 1, 3, 3]), &device).require_grad();
            let y = max_pool2d(x.clone(), &options);
            let gradients = y.clone().sum().backward();
            assert!(
                values_of(y).iter().all(|found| found.total_cmp(&value).is_eq()),
                "{value}"
            );
            let total: f32 = values_of(x.grad(&gradients).unwrap()).iter().sum();
            assert_eq!(total, 4.0, "the gradient of each window arrives somewhere: {value}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pooling_agrees_with_burn(
            images in prop_oneof![1usize..=3, Just(33usize)],
            channels in 1usize..=4,
            size in [1usize..=14, 1usize..=19],
            kernel in [1usize..=5, 1usize..=5],
            stride in [1usize..=4, 1usize..=4],
            padding in [0usize..=2, 0usize..=2],
            ceil_mode in any::<bool>(),
        ) {
            let padding = [padding[0].min(kernel[0] / 2), padding[1].min(kernel[1] / 2)];
            prop_assume!((0..2).all(|axis| kernel[axis] <= size[axis] + 2 * padding[axis]));
            let options = MaxPool2dOptions { kernel, stride, padding, ceil_mode };
            check([images, channels, size[0], size[1]], &options);
        }
    }
}
