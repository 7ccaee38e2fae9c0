//! The optimiser's step, the average of parameters and the norm of gradients, in one pass over a parameter each.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::memory::{SharedPointer, tensor, values};
use crate::options::own_kernels_apply;
use crate::simd::{Lanes, multiversion};
use crate::stock;

/// Elements of one task.
const CHUNK: usize = 1 << 15;

/// The numbers of one AdamW step (Loshchilov and Hutter 2019), corrections of the start included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWStep {
    /// Decay of the mean of gradients.
    pub first_decay: f64,
    /// Decay of the mean of squared gradients.
    pub second_decay: f64,
    /// What the mean of squared gradients is divided by: `1 - second_decay^step`.
    pub second_correction: f64,
    /// Added to the root of the mean of squared gradients.
    pub epsilon: f64,
    /// What the parameter is multiplied with: `1 - rate * weight decay`.
    pub shrinkage: f64,
    /// What the direction is multiplied with: `rate / (1 - first_decay^step)`.
    pub pace: f64,
    /// Bound on each entry of the gradient; infinity is none.
    pub limit: f64,
}

/// The operations on primitives; neither carries autodiff.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Updates: Backend {
    fn adamw_update(
        value: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        factor: FloatTensor<Self>,
        step: AdamWStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn moving_average(average: FloatTensor<Self>, current: FloatTensor<Self>, share: f64) -> FloatTensor<Self>;

    fn squared_sum(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// One AdamW step, in one pass over the parameter. With `g = clamp(gradient, -limit, limit) * factor`:
/// `first = b1 first + (1 - b1) g`, `second = b2 second + (1 - b2) g²`,
/// `value = shrinkage value - pace first / (sqrt(second / second_correction) + epsilon)`.
///
/// Returns value, first and second mean, which carry no autodiff. Tensors that nobody else holds are overwritten. The
/// roundings are those of the same operations one by one.
///
/// # Shapes
/// All `[entries]`, but `factor` `[1]`.
///
/// # Panics
/// If the lengths, devices or data types differ.
#[must_use]
pub fn adamw_update(
    [value, gradient, first, second]: [Tensor<1>; 4],
    factor: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let [length] = value.dims();
    for (name, other) in [
        ("gradient", &gradient),
        ("first mean", &first),
        ("second mean", &second),
    ] {
        let [found] = other.dims();
        assert!(
            found == length,
            "adamw_update: expected a {name} of {length} entries as the parameter has, found {found}"
        );
    }
    let dtypes = [&value, &gradient, &first, &second, &factor].map(Tensor::dtype);
    let [value, gradient, first, second, factor] =
        [value, gradient, first, second, factor].map(Tensor::without_autodiff);
    if !own_kernels_apply(&value.device(), &dtypes) {
        return stock::adamw_update([value, gradient, first, second], factor, step);
    }
    let (value, first, second) = Dispatch::adamw_update(
        value.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        factor.into_dispatch(),
        step,
    );
    [value, first, second].map(Tensor::from_dispatch)
}

/// `average + share (current - average)` in one pass, without autodiff; an average that nobody else holds is overwritten. The
/// roundings are those of the same operations one by one.
///
/// # Shapes
/// Both and the result `[entries]`.
///
/// # Panics
/// If the lengths, devices or data types differ.
#[must_use]
pub fn moving_average(average: Tensor<1>, current: Tensor<1>, share: f64) -> Tensor<1> {
    let ([length], [found]) = (average.dims(), current.dims());
    assert!(
        found == length,
        "moving_average: expected {length} current entries as the average has, found {found}"
    );
    let dtypes = [average.dtype(), current.dtype()];
    let (average, current) = (average.without_autodiff(), current.without_autodiff());
    if !own_kernels_apply(&average.device(), &dtypes) {
        return stock::moving_average(average, current, share);
    }
    Tensor::from_dispatch(Dispatch::moving_average(
        average.into_dispatch(),
        current.into_dispatch(),
        share,
    ))
}

/// The sum of squares `[1]` of a vector, without autodiff; added up in double precision in blocks of fixed size.
#[must_use]
pub fn squared_sum(x: Tensor<1>) -> Tensor<1> {
    let x = x.without_autodiff();
    if !own_kernels_apply(&x.device(), &[x.dtype()]) {
        return stock::squared_sum(x);
    }
    Tensor::from_dispatch(Dispatch::squared_sum(x.into_dispatch()))
}

/// [`AdamWStep`] in single precision, with the complements of the decays.
#[derive(Clone, Copy)]
struct Step {
    first: [f32; 2],
    second: [f32; 2],
    second_correction: f32,
    epsilon: f32,
    shrinkage: f32,
    pace: f32,
    limit: f32,
    factor: f32,
}

/// The formula of [`adamw_update`], on a piece. No fused multiply-add: the roundings shall be those of single operations.
///
/// # Safety
/// All pointers must have `length` floats; none may overlap another.
#[inline(always)]
unsafe fn adamw_body<L: Lanes>(
    value: *mut f32,
    first: *mut f32,
    second: *mut f32,
    gradient: *const f32,
    length: usize,
    step: Step,
) {
    // A plain loop, compiled for the instruction set that is allowed here.
    let _ = L::WIDTH;
    // SAFETY: the contract of this function.
    let (values, firsts, seconds, gradients) = unsafe {
        (
            std::slice::from_raw_parts_mut(value, length),
            std::slice::from_raw_parts_mut(first, length),
            std::slice::from_raw_parts_mut(second, length),
            std::slice::from_raw_parts(gradient, length),
        )
    };
    for (((value, first), second), gradient) in values.iter_mut().zip(firsts).zip(seconds).zip(gradients) {
        let raised = if *gradient < -step.limit {
            -step.limit
        } else {
            *gradient
        };
        let bounded = if raised > step.limit { step.limit } else { raised };
        let gradient = bounded * step.factor;
        *first = *first * step.first[0] + gradient * step.first[1];
        *second = *second * step.second[0] + gradient * gradient * step.second[1];
        let denominator = (*second / step.second_correction).sqrt() + step.epsilon;
        *value = *value * step.shrinkage - *first / denominator * step.pace;
    }
}

multiversion! {
    /// See [`adamw_body`].
    unsafe fn adamw = adamw_body(
        value: *mut f32, first: *mut f32, second: *mut f32, gradient: *const f32, length: usize, step: Step,
    )
}

/// A row-major tensor that nobody else holds: the given one if it is that, else a copy.
fn owned(given: FlexTensor) -> FlexTensor {
    let mut contiguous = given.to_contiguous();
    drop(given);
    let length = contiguous.layout().num_elements();
    let whole = contiguous.layout().start_offset() == 0
        && contiguous
            .try_storage_mut::<f32>()
            .is_some_and(|storage| storage.len() == length);
    if whole {
        contiguous
    } else {
        tensor(values(&contiguous).to_vec(), &[length])
    }
}

impl Updates for Flex {
    fn adamw_update(
        value: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        factor: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (gradient, factor) = (gradient.to_contiguous(), factor.to_contiguous());
        let [mut value, mut first, mut second] = [value, first, second].map(owned);
        let step = Step {
            first: [step.first_decay as f32, (1.0 - step.first_decay) as f32],
            second: [step.second_decay as f32, (1.0 - step.second_decay) as f32],
            second_correction: step.second_correction as f32,
            epsilon: step.epsilon as f32,
            shrinkage: step.shrinkage as f32,
            pace: step.pace as f32,
            limit: step.limit as f32,
            factor: values(&factor)[0],
        };
        let gradient = values(&gradient);
        let [values, firsts, seconds] =
            [&mut value, &mut first, &mut second].map(|tensor| SharedPointer::new(tensor.storage_mut::<f32>()));
        let piece = |chunk: usize| {
            let start = chunk * CHUNK;
            let gradient = &gradient[start..(start + CHUNK).min(gradient.len())];
            // SAFETY: the chunks are disjoint and lie within the tensors, which are as long as the gradient and own
            // their storage.
            unsafe {
                adamw(
                    values.at(start),
                    firsts.at(start),
                    seconds.at(start),
                    gradient.as_ptr(),
                    gradient.len(),
                    step,
                );
            }
        };
        let chunks = gradient.len().div_ceil(CHUNK);
        if chunks > 1 {
            (0..chunks).into_par_iter().for_each(piece);
        } else {
            (0..chunks).for_each(piece);
        }
        (value, first, second)
    }

    fn moving_average(average: FlexTensor, current: FlexTensor, share: f64) -> FlexTensor {
        let (mut average, current) = (owned(average), current.to_contiguous());
        let (share, current) = (share as f32, values(&current));
        let piece = |(averages, current): (&mut [f32], &[f32])| {
            for (average, current) in averages.iter_mut().zip(current) {
                *average += (current - *average) * share;
            }
        };
        let averages: &mut [f32] = average.storage_mut::<f32>();
        if current.len() > CHUNK {
            averages
                .par_chunks_mut(CHUNK)
                .zip(current.par_chunks(CHUNK))
                .for_each(piece);
        } else {
            piece((averages, current));
        }
        average
    }

    fn squared_sum(x: FlexTensor) -> FlexTensor {
        let x = x.to_contiguous();
        let square = |chunk: &[f32]| {
            // Sixteen sums, so that additions need not wait for one another.
            let mut sums = [0.0f64; 16];
            let (blocks, rest) = chunk.as_chunks::<16>();
            for block in blocks {
                for (sum, value) in sums.iter_mut().zip(block) {
                    *sum += f64::from(*value) * f64::from(*value);
                }
            }
            for (sum, value) in sums.iter_mut().zip(rest) {
                *sum += f64::from(*value) * f64::from(*value);
            }
            sums.iter().sum::<f64>()
        };
        let parts: Vec<f64> = values(&x).par_chunks(CHUNK).map(square).collect();
        tensor(vec![parts.iter().sum::<f64>() as f32], &[1])
    }
}

type Tracked<C> = FloatTensor<Autodiff<Flex, C>>;

// The public functions leave autodiff first; these serve the trait.
impl<C: CheckpointStrategy> Updates for Autodiff<Flex, C> {
    fn adamw_update(
        value: Tracked<C>,
        gradient: Tracked<C>,
        first: Tracked<C>,
        second: Tracked<C>,
        factor: Tracked<C>,
        step: AdamWStep,
    ) -> (Tracked<C>, Tracked<C>, Tracked<C>) {
        let [value, gradient, first, second, factor] =
            [value, gradient, first, second, factor].map(Tracked::<C>::into_primitive);
        let (value, first, second) = <Flex as Updates>::adamw_update(value, gradient, first, second, factor, step);
        (
            Tracked::<C>::new(value),
            Tracked::<C>::new(first),
            Tracked::<C>::new(second),
        )
    }

    fn moving_average(average: Tracked<C>, current: Tracked<C>, share: f64) -> Tracked<C> {
        let (average, current) = (average.into_primitive(), current.into_primitive());
        Tracked::<C>::new(<Flex as Updates>::moving_average(average, current, share))
    }

    fn squared_sum(x: Tracked<C>) -> Tracked<C> {
        Tracked::<C>::new(<Flex as Updates>::squared_sum(x.into_primitive()))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn random(length: usize, seed: u64, size: f32) -> Tensor<1> {
        let mut state = seed | 1;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * size
        };
        let values: Vec<f32> = (0..length).map(|_| next()).collect();
        Tensor::from_data(TensorData::new(values, [length]), &Device::flex())
    }

    fn host(tensor: Tensor<1>) -> Vec<f32> {
        tensor.into_data().try_to_vec::<f32>().unwrap()
    }

    /// Every bit as Burn's operations one by one, several steps long, around the size of a task.
    #[test]
    fn adamw_rounds_as_burn_does() {
        for length in [1, 7, 1000, CHUNK - 1, 2 * CHUNK + 5] {
            type Operation = fn([Tensor<1>; 4], Tensor<1>, AdamWStep) -> [Tensor<1>; 3];
            let [own, expected] = [adamw_update as Operation, stock::adamw_update].map(|operation| {
                let (mut value, mut first, mut second) =
                    (random(length, 1, 1.0), random(length, 0, 0.0), random(length, 0, 0.0));
                for step in 1..=4 {
                    let gradient = random(length, 10 + step, 0.3);
                    let numbers = AdamWStep {
                        first_decay: 0.9,
                        second_decay: 0.999,
                        second_correction: 1.0 - 0.999f64.powi(step as i32),
                        epsilon: 1e-8,
                        shrinkage: 1.0 - 1e-3,
                        pace: 1e-2 / (1.0 - 0.9f64.powi(step as i32)),
                        limit: if step == 2 { 0.1 } else { f64::INFINITY },
                    };
                    let factor = Tensor::from_data([if step == 3 { 0.37f32 } else { 1.0 }], &Device::flex());
                    [value, first, second] = operation([value, gradient, first, second], factor, numbers);
                }
                [value, first, second].map(host)
            });
            assert!(own == expected, "{length} entries");
        }
    }

    #[test]
    fn the_average_rounds_as_burn_does_and_leaves_what_others_hold() {
        for length in [1, 9, CHUNK, 2 * CHUNK + 3] {
            let (average, current) = (random(length, 1, 1.0), random(length, 2, 1.0));
            let before = host(average.clone());
            let own = host(moving_average(average.clone(), current.clone(), 0.037));
            assert!(host(average.clone()) == before, "{length} entries: overwritten");
            assert!(own == host(stock::moving_average(average.clone(), current, 0.037)));
            assert!(own != before);
            assert!(host(moving_average(average.clone(), average, 0.5)) == before);
        }
    }

    #[test]
    fn what_others_hold_is_not_overwritten() {
        let value = random(100, 1, 1.0);
        let step = AdamWStep {
            first_decay: 0.9,
            second_decay: 0.999,
            second_correction: 1e-3,
            epsilon: 1e-8,
            shrinkage: 1.0,
            pace: 0.1,
            limit: f64::INFINITY,
        };
        let (first, second) = (random(100, 2, 1.0), random(100, 3, 1.0).abs());
        let before = [&value, &first, &second].map(|tensor| host(tensor.clone()));
        let gradient = random(100, 4, 1.0);
        let factor = Tensor::ones([1], &Device::flex());
        let inputs = [value.clone(), gradient, first.clone(), second.clone()];
        let [new, ..] = adamw_update(inputs, factor, step);
        assert_ne!(host(new), before[0]);
        assert_eq!([value, first, second].map(host), before);
    }

    #[test]
    fn squared_sums_agree_with_double_precision() {
        for length in [1, 16, 333, 3 * CHUNK + 17] {
            let x = random(length, 5, 2.0);
            let expected: f64 = host(x.clone()).iter().map(|value| f64::from(*value).powi(2)).sum();
            let found = f64::from(host(squared_sum(x))[0]);
            assert!(
                (found - expected).abs() <= 1e-6 * expected,
                "{found}, expected {expected}"
            );
        }
    }
}
