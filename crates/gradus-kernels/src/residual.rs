//! The end of a residual block: frozen batch normalisation of the branch, the sum with the shortcut, the activation.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;

use crate::extension::Kernels;
use crate::memory::{Output, SharedPointer, overwrite, tensor, values};
use crate::normalization::{self, Planes, check_parameters, coefficient, walk};
use crate::options::{Activation, own_kernels_apply};
use crate::simd::{Lanes, multiversion};
use crate::stock;

/// The operations on primitives.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Residuals: Backend {
    fn add_activated(x: FloatTensor<Self>, residual: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self>;

    fn scale_shift_add(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        residual: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;
}

fn check_shapes(name: &str, x: &Tensor<4>, residual: &Tensor<4>) {
    let (shape, other) = (x.dims(), residual.dims());
    assert!(
        shape == other,
        "{name}: expected a residual of the shape of the branch, {shape:?}, found {other:?}"
    );
}

/// Sum and activation in one pass: `activation(x + residual)`.
///
/// # Shapes
/// Both `[images, channels, height, width]`, as is what it returns.
///
/// Only the output is kept for the backward pass, and an `x` that nobody else holds is overwritten.
///
/// # Panics
/// If the shapes, devices or data types differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use gradus_kernels::{Activation, add};
///
/// let device = Device::flex();
/// let x = Tensor::<4>::from_data([[[[1.0f32, -2.0]]]], &device);
/// let y = add(x, Tensor::ones([1, 1, 1, 2], &device), Activation::Relu);
/// assert_eq!(y.into_data().try_to_vec::<f32>(), Ok(vec![2.0, 0.0]));
/// ```
#[must_use]
pub fn add(x: Tensor<4>, residual: Tensor<4>, activation: Activation) -> Tensor<4> {
    check_shapes("add", &x, &residual);
    if !own_kernels_apply(&x.device(), &[x.dtype(), residual.dtype()]) {
        return stock::add(x, residual, activation);
    }
    Tensor::from_dispatch(Dispatch::add_activated(
        x.into_dispatch(),
        residual.into_dispatch(),
        activation,
    ))
}

/// Frozen batch normalisation, sum and activation in one pass: `activation(x scale[c] + shift[c] + residual)`.
///
/// # Shapes
/// - `x`, `residual`: `[images, channels, height, width]`
/// - `scale`, `shift`: `[channels]`
/// - returns the shape of `x`
///
/// If autodiff tracks neither `scale` nor `shift`, only the output is kept for the backward pass, and an `x` that
/// nobody else holds is overwritten; else this is [`scale_shift`](crate::scale_shift), then [`add`].
///
/// # Panics
/// If the shapes, devices or data types do not fit.
#[must_use]
pub fn scale_shift_add(
    x: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    residual: Tensor<4>,
    activation: Activation,
) -> Tensor<4> {
    check_parameters("scale_shift_add", &x, [&scale, &shift]);
    check_shapes("scale_shift_add", &x, &residual);
    let dtypes = [x.dtype(), scale.dtype(), shift.dtype(), residual.dtype()];
    if !own_kernels_apply(&x.device(), &dtypes) {
        return stock::scale_shift_add(x, scale, shift, residual, activation);
    }
    Tensor::from_dispatch(Dispatch::scale_shift_add(
        x.into_dispatch(),
        scale.into_dispatch(),
        shift.into_dispatch(),
        residual.into_dispatch(),
        activation,
    ))
}

/// `target = clamp(source * scale + shift + residual)`.
///
/// # Safety
/// Source, residual and target must have `length` floats, the coefficients too if `spread`, else one.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn affine_add_body<L: Lanes>(
    target: *mut f32,
    source: *const f32,
    residual: *const f32,
    scale: *const f32,
    shift: *const f32,
    length: usize,
    [low, high]: [f32; 2],
    spread: bool,
) {
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn step<L: Lanes, const SPREAD: bool>(
        i: usize,
        target: *mut f32,
        source: *const f32,
        residual: *const f32,
        scale: *const f32,
        shift: *const f32,
        low: f32,
        high: f32,
    ) {
        // SAFETY: `i` plus the width lies within the run.
        unsafe {
            let (scale, shift) = (coefficient::<L, SPREAD>(scale, i), coefficient::<L, SPREAD>(shift, i));
            let value = L::load(source.add(i))
                .mul_add(scale, shift)
                .add(L::load(residual.add(i)));
            value.clamp(L::splat(low), L::splat(high)).store(target.add(i));
        }
    }
    // SAFETY: this function's contract.
    unsafe {
        if spread {
            const SPREAD: bool = true;
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, target, source, residual, scale, shift, low, high)
            );
        } else {
            const SPREAD: bool = false;
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, target, source, residual, scale, shift, low, high)
            );
        }
    }
}

multiversion! {
    /// See [`affine_add_body`].
    unsafe fn affine_add = affine_add_body(
        target: *mut f32, source: *const f32, residual: *const f32, scale: *const f32, shift: *const f32,
        length: usize, bounds: [f32; 2], spread: bool,
    )
}

/// With `g` the gradient where the output lies strictly between the bounds and 0 elsewhere: `sum = g`,
/// `branch = g * scale`.
///
/// # Safety
/// As for [`affine_add_body`]; `sum` may be the gradient itself.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn split_gradient_body<L: Lanes>(
    sum: *mut f32,
    branch: *mut f32,
    gradient: *const f32,
    output: *const f32,
    scale: *const f32,
    length: usize,
    [low, high]: [f32; 2],
    spread: bool,
) {
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn step<L: Lanes, const SPREAD: bool>(
        i: usize,
        sum: *mut f32,
        branch: *mut f32,
        gradient: *const f32,
        output: *const f32,
        scale: *const f32,
        low: f32,
        high: f32,
    ) {
        // SAFETY: `i` plus the width lies within the run.
        unsafe {
            let probe = L::load(output.add(i));
            let g = L::load(gradient.add(i)).where_between(probe, L::splat(low), L::splat(high));
            g.store(sum.add(i));
            g.mul(coefficient::<L, SPREAD>(scale, i)).store(branch.add(i));
        }
    }
    // SAFETY: this function's contract.
    unsafe {
        if spread {
            const SPREAD: bool = true;
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, sum, branch, gradient, output, scale, low, high)
            );
        } else {
            const SPREAD: bool = false;
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, sum, branch, gradient, output, scale, low, high)
            );
        }
    }
}

multiversion! {
    /// See [`split_gradient_body`].
    unsafe fn split_gradient = split_gradient_body(
        sum: *mut f32, branch: *mut f32, gradient: *const f32, output: *const f32, scale: *const f32, length: usize,
        bounds: [f32; 2], spread: bool,
    )
}

fn forward(x: FlexTensor, scale: &[f32], shift: &[f32], residual: FlexTensor, activation: Activation) -> FlexTensor {
    let planes = Planes::new(x.shape().dims());
    let residual = residual.to_contiguous();
    let addend = values(&residual);
    let (scale, shift) = (planes.spread(scale), planes.spread(shift));
    let spread = planes.is_spread();
    // SAFETY: the runs cover all elements, each written right after it has been read. If the residual shares the
    // storage of `x`, that storage has two owners and is not overwritten.
    unsafe {
        overwrite(x, |source, target| {
            planes.for_each_run_in_parallel(|offset, at, length| {
                let addend = addend[offset..][..length].as_ptr();
                let (scale, shift) = (scale.0[at..].as_ptr(), shift.0[at..].as_ptr());
                affine_add(
                    target.at(offset),
                    source.at(offset),
                    addend,
                    scale,
                    shift,
                    length,
                    activation.bounds(),
                    spread,
                );
            });
        })
    }
}

fn sum(x: FlexTensor, residual: FlexTensor, activation: Activation) -> FlexTensor {
    let [_, channels, ..]: [usize; 4] = x.shape().dims();
    forward(x, &vec![1.0; channels], &vec![0.0; channels], residual, activation)
}

impl Residuals for Flex {
    fn add_activated(x: FlexTensor, residual: FlexTensor, activation: Activation) -> FlexTensor {
        sum(x, residual, activation)
    }

    fn scale_shift_add(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        residual: FlexTensor,
        activation: Activation,
    ) -> FlexTensor {
        let (scale, shift) = (scale.to_contiguous(), shift.to_contiguous());
        forward(x, values(&scale), values(&shift), residual, activation)
    }
}

/// Backward pass of both operations; parents are the branch and the shortcut.
#[derive(Debug)]
struct Residual;

/// What the operations keep.
#[derive(Clone, Debug)]
struct State {
    /// Tells what the activation let pass; none without one.
    output: Option<FlexTensor>,
    /// None is 1.
    scale: Option<FlexTensor>,
    activation: Activation,
}

/// `g` and `g * scale`, with `g` the gradient that passes the activation.
fn split(
    gradient: FlexTensor,
    output: Option<&[f32]>,
    scale: &[f32],
    activation: Activation,
) -> (FlexTensor, FlexTensor) {
    let shape = gradient.shape().to_vec();
    let planes = Planes::new(gradient.shape().dims());
    let mut branch = Output::new(shape.iter().product());
    let target = branch.pointer();
    let sum = match output {
        Some(output) => {
            let (scale, spread) = (planes.spread(scale), planes.is_spread());
            // SAFETY: the runs cover all elements of both targets, each written right after its gradient has been read.
            unsafe {
                overwrite(gradient, |source, sum| {
                    planes.for_each_run_in_parallel(|offset, at, length| {
                        split_gradient(
                            sum.at(offset),
                            target.at(offset),
                            source.at(offset),
                            output[offset..][..length].as_ptr(),
                            scale.0[at..].as_ptr(),
                            length,
                            activation.bounds(),
                            spread,
                        );
                    });
                })
            }
        }
        None => {
            let gradient = gradient.to_contiguous();
            let source = SharedPointer::source(values(&gradient));
            // SAFETY: both have as many floats as the planes.
            unsafe { normalization::propagate_frozen(planes, None, source, target, scale, activation) };
            gradient
        }
    };
    // SAFETY: either way all elements have been written.
    (sum, tensor(unsafe { branch.finish() }, &shape))
}

/// The gradient that passes the activation.
fn masked(gradient: FlexTensor, output: Option<&[f32]>, activation: Activation) -> FlexTensor {
    let Some(output) = output else { return gradient };
    let planes = Planes::new(gradient.shape().dims());
    let ones = vec![1.0; planes.channels];
    // SAFETY: all elements are written, each right after it has been read.
    unsafe {
        overwrite(gradient, |source, target| {
            normalization::propagate_frozen(planes, Some(output), source, target, &ones, activation);
        })
    }
}

impl Backward<Flex, 2> for Residual {
    type State = State;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let State {
            output,
            scale,
            activation,
        } = ops.state;
        let output = output.map(|output| output.to_contiguous());
        let output = output.as_ref().map(values);
        let [branch_node, shortcut_node] = ops.parents;
        let (shortcut, branch) = match scale {
            Some(scale) if branch_node.is_some() => split(gradient, output, values(&scale), activation),
            _ => {
                let gradient = masked(gradient, output, activation);
                (gradient.clone(), gradient)
            }
        };
        if let Some(node) = branch_node {
            grads.register::<Flex>(node.id, branch);
        }
        if let Some(node) = shortcut_node {
            grads.register::<Flex>(node.id, shortcut);
        }
    }
}

type Tracked = FloatTensor<Autodiff<Flex>>;

fn with_autodiff<C: CheckpointStrategy>(
    x: Tracked,
    coefficients: Option<[FlexTensor; 2]>,
    residual: Tracked,
    activation: Activation,
) -> Tracked {
    let prepared = Residual.prepare::<C>([x.node(), residual.node()]);
    let forward = |x: Tracked, residual: Tracked| {
        let (x, residual) = (x.into_primitive(), residual.into_primitive());
        match &coefficients {
            Some([scale, shift]) => forward(x, values(scale), values(shift), residual, activation),
            None => sum(x, residual, activation),
        }
    };
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let output = forward(x, residual);
            let kept = (activation != Activation::None).then(|| output.clone());
            let state = State {
                output: kept,
                scale: coefficients.map(|[scale, _]| scale),
                activation,
            };
            prepared.finish(state, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(forward(x, residual)),
    }
}

impl<C: CheckpointStrategy> Residuals for Autodiff<Flex, C> {
    fn add_activated(x: Tracked, residual: Tracked, activation: Activation) -> Tracked {
        with_autodiff::<C>(x, None, residual, activation)
    }

    fn scale_shift_add(
        x: Tracked,
        scale: Tracked,
        shift: Tracked,
        residual: Tracked,
        activation: Activation,
    ) -> Tracked {
        if scale.is_tracked() || shift.is_tracked() {
            let branch = <Self as Kernels>::scale_shift(x, scale, shift, Activation::None);
            return with_autodiff::<C>(branch, None, residual, activation);
        }
        let coefficients = [scale, shift].map(|tensor| tensor.into_primitive().to_contiguous());
        with_autodiff::<C>(x, Some(coefficients), residual, activation)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};
    use proptest::prelude::*;

    use super::*;

    fn random<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
        let mut state = seed | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 22) as f32 - 2.0) * 3.0
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Outputs and gradients of an operation on tensors of which the chosen are tracked.
    fn results(
        operation: impl Fn(Tensor<4>, Tensor<1>, Tensor<1>, Tensor<4>) -> Tensor<4>,
        shape: [usize; 4],
        tracked: [bool; 4],
    ) -> Vec<Option<Vec<f32>>> {
        let device = Device::flex().autodiff();
        let channels = shape[1];
        fn leaf<const D: usize>(tensor: Tensor<D>, tracked: bool) -> Tensor<D> {
            if tracked { tensor.require_grad() } else { tensor }
        }
        let x = leaf(random(shape, 1, &device), tracked[0]);
        let scale = leaf(random([channels], 2, &device), tracked[1]);
        let shift = leaf(random([channels], 3, &device), tracked[2]);
        let residual = leaf(random(shape, 4, &device), tracked[3]);
        let y = operation(x.clone(), scale.clone(), shift.clone(), residual.clone());
        let gradients = (y.clone() * random(shape, 5, &device)).sum().backward();
        fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
            tensor.into_data().try_to_vec::<f32>().unwrap()
        }
        vec![
            Some(host(y)),
            x.grad(&gradients).map(host),
            scale.grad(&gradients).map(host),
            shift.grad(&gradients).map(host),
            residual.grad(&gradients).map(host),
        ]
    }

    /// `summed` is how many values the gradient of a coefficient is the sum of: they may cancel, and rounding is relative
    /// to what they are, not to what is left.
    #[track_caller]
    fn assert_alike(what: &str, own: &[Option<Vec<f32>>], expected: &[Option<Vec<f32>>], summed: usize) {
        for (index, (own, expected)) in own.iter().zip(expected).enumerate() {
            assert_eq!(own.is_some(), expected.is_some(), "{what}: result {index} is there");
            let (Some(own), Some(expected)) = (own, expected) else {
                continue;
            };
            assert_eq!(own.len(), expected.len());
            let least = if [2, 3].contains(&index) {
                (summed as f32).sqrt()
            } else {
                1.0
            };
            let size = expected.iter().fold(least, |size, value| size.max(value.abs()));
            for (own, expected) in own.iter().zip(expected) {
                assert!(
                    (own - expected).abs() <= 1e-5 * size,
                    "{what}: result {index}: {own}, expected {expected}"
                );
            }
        }
    }

    const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];

    fn check(shape: [usize; 4], activation: Activation) {
        let summed = shape[0] * shape[2] * shape[3];
        for tracked in [
            [true, false, false, true],
            [true, false, false, false],
            [false, false, false, true],
            [true, true, true, true],
            [true, false, true, false],
        ] {
            let what = format!("{shape:?} {activation:?} {tracked:?}");
            let own = results(|x, a, b, r| scale_shift_add(x, a, b, r, activation), shape, tracked);
            let expected = results(
                |x, a, b, r| stock::scale_shift_add(x, a, b, r, activation),
                shape,
                tracked,
            );
            assert_alike(&format!("scale_shift_add {what}"), &own, &expected, summed);
            if tracked[0] || tracked[3] {
                let own = results(|x, _, _, r| add(x, r, activation), shape, tracked);
                let expected = results(|x, _, _, r| stock::add(x, r, activation), shape, tracked);
                assert_alike(&format!("add {what}"), &own, &expected, summed);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn residual_sums_agree_with_burn(
            images in prop_oneof![1usize..=4, 30usize..=40],
            channels in 1usize..=5,
            height in prop_oneof![1usize..=4, 7usize..=12],
            width in 1usize..=13,
            which in 0usize..3,
        ) {
            check([images, channels, height, width], ACTIVATIONS[which]);
        }
    }

    #[test]
    fn a_tensor_may_be_added_to_itself_and_is_not_overwritten_while_others_hold_it() {
        let device = Device::flex().autodiff();
        let x = random([2, 3, 9, 9], 7, &device).require_grad();
        let before = x.clone().into_data();
        let y = add(x.clone(), x.clone(), Activation::Relu);
        let expected = before.clone().try_to_vec::<f32>().unwrap();
        let doubled: Vec<f32> = expected.iter().map(|value| (2.0 * value).max(0.0)).collect();
        assert_eq!(y.clone().into_data().try_to_vec::<f32>().unwrap(), doubled);
        let gradients = y.sum().backward();
        let gradient = x.grad(&gradients).unwrap().into_data().try_to_vec::<f32>().unwrap();
        let slopes: Vec<f32> = expected
            .iter()
            .map(|value| if *value > 0.0 { 2.0 } else { 0.0 })
            .collect();
        assert_eq!(gradient, slopes);
        assert_eq!(x.into_data(), before);
    }
}
