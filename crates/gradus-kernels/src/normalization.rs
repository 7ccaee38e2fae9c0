//! Batch normalisation and its activation, fused.
//!
//! Planes of many pixels are walked one by one with their channel's coefficients; where planes are small, so that
//! vectors would run half empty, the coefficients are spread to one per pixel and whole images are walked instead.

use std::ops::Range;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::extension::Kernels;
use crate::memory::{SharedPointer, with_scratch};
use crate::options::{Activation, own_kernels_apply};
use crate::partition::Partition;
use crate::simd::{Lanes, multiversion};
use crate::stock;

/// Pixels from which planes are walked one by one.
const LARGE_PLANE: usize = 64;

pub(crate) fn check_parameters(name: &str, x: &Tensor<4>, parameters: [&Tensor<1>; 2]) {
    let [_, channels, _, _] = x.dims();
    for parameter in parameters {
        let [length] = parameter.dims();
        assert!(
            length == channels,
            "{name}: expected one coefficient for each of {channels} channels, found {length}"
        );
    }
}

/// Frozen batch normalisation and activation in one pass: `activation(x scale[c] + shift[c])`.
///
/// # Shapes
/// - `x`: `[images, channels, height, width]`
/// - `scale`, `shift`: `[channels]`
/// - returns the shape of `x`
///
/// If autodiff tracks neither `scale` nor `shift`, only the output is kept for the backward pass, and an input that
/// nobody else holds is overwritten.
///
/// # Panics
/// If the lengths do not fit, or the tensors' devices or data types differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use gradus_kernels::{Activation, scale_shift};
///
/// let device = Device::flex();
/// let x = Tensor::<4>::from_data([[[[1.0f32, -2.0]]]], &device);
/// let coefficient = |value: f32| Tensor::<1>::from_data([value], &device);
/// let y = scale_shift(x, coefficient(3.0), coefficient(1.0), Activation::Relu);
/// assert_eq!(y.into_data().try_to_vec::<f32>(), Ok(vec![4.0, 0.0]));
/// ```
#[must_use]
pub fn scale_shift(x: Tensor<4>, scale: Tensor<1>, shift: Tensor<1>, activation: Activation) -> Tensor<4> {
    check_parameters("scale_shift", &x, [&scale, &shift]);
    if !own_kernels_apply(&x.device(), &[x.dtype(), scale.dtype(), shift.dtype()]) {
        return stock::scale_shift(x, scale, shift, activation);
    }
    Tensor::from_dispatch(Dispatch::scale_shift(
        x.into_dispatch(),
        scale.into_dispatch(),
        shift.into_dispatch(),
        activation,
    ))
}

/// Training batch normalisation (Ioffe and Szegedy 2015) and activation:
/// `activation((x - mean[c]) / sqrt(variance[c] + epsilon) weight[c] + bias[c])`.
///
/// Returns the output and the batch's mean and biased variance, which carry no autodiff; gradients flow through the
/// statistics into `x` all the same.
///
/// # Shapes
/// - `x`: `[images, channels, height, width]`
/// - `weight`, `bias`, mean and variance: `[channels]`
///
/// # Panics
/// If the lengths do not fit, or the tensors' devices or data types differ.
#[must_use]
pub fn batch_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    activation: Activation,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    check_parameters("batch_norm", &x, [&weight, &bias]);
    if !own_kernels_apply(&x.device(), &[x.dtype(), weight.dtype(), bias.dtype()]) {
        return stock::batch_norm(x, weight, bias, epsilon, activation);
    }
    let (output, mean, variance) = Dispatch::batch_norm(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        epsilon,
        activation,
    );
    let statistic = |tensor| Tensor::from_dispatch(tensor).without_autodiff();
    (Tensor::from_dispatch(output), statistic(mean), statistic(variance))
}

/// Sizes of the normalised tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planes {
    pub(crate) images: usize,
    pub(crate) channels: usize,
    pub(crate) pixels: usize,
}

/// Coefficients as the vector loops read them: one per channel, or one per channel and pixel.
pub(crate) struct Coefficients(pub(crate) Vec<f32>);

impl Planes {
    pub(crate) fn new([images, channels, height, width]: [usize; 4]) -> Self {
        Self {
            images,
            channels,
            pixels: height * width,
        }
    }

    pub(crate) fn is_spread(&self) -> bool {
        self.pixels < LARGE_PLANE
    }

    /// Values per channel.
    fn count(&self) -> f64 {
        (self.images * self.pixels) as f64
    }

    pub(crate) fn spread(&self, coefficients: &[f32]) -> Coefficients {
        let repeat = if self.is_spread() { self.pixels } else { 1 };
        Coefficients(
            coefficients
                .iter()
                .flat_map(|value| std::iter::repeat_n(*value, repeat))
                .collect(),
        )
    }

    /// Calls `visit(offset of the run, offset of its coefficients, length)` for each run of a task.
    fn for_each_run(&self, images: Range<usize>, channels: Range<usize>, mut visit: impl FnMut(usize, usize, usize)) {
        for image in images {
            let start = |channel: usize| (image * self.channels + channel) * self.pixels;
            if self.is_spread() {
                visit(
                    start(channels.start),
                    channels.start * self.pixels,
                    channels.len() * self.pixels,
                );
            } else {
                for channel in channels.clone() {
                    visit(start(channel), channel, self.pixels);
                }
            }
        }
    }

    pub(crate) fn for_each_run_in_parallel(&self, visit: impl Fn(usize, usize, usize) + Sync) {
        Partition::new(self.images, self.channels)
            .for_each(|_, images, channels| self.for_each_run(images, channels, &visit));
    }

    /// Sums two quantities over images and pixels, per channel.
    ///
    /// `accumulate(offset, coefficient offset, length, first sums, second sums)` adds a run's quantities to one sum per
    /// value of the run where the coefficients are spread, and to a single sum elsewhere.
    fn sums(&self, accumulate: impl Fn(usize, usize, usize, *mut f32, *mut f32) + Sync) -> (Vec<f64>, Vec<f64>) {
        let partition = Partition::new(self.images, self.channels);
        let row = 2 * self.channels;
        let mut partial = vec![0.0f64; partition.image_chunks() * row];
        let target = SharedPointer::new(&mut partial);
        let width = if self.is_spread() {
            partition.channels_per_chunk() * self.pixels
        } else {
            1
        };
        partition.for_each(|chunk, images, channels| {
            // SAFETY: this chunk's sums of these channels belong to this task.
            let add = |channel: usize, first: f64, second: f64| unsafe {
                *target.at(chunk * row + channel) += first;
                *target.at(chunk * row + self.channels + channel) += second;
            };
            with_scratch(2 * width, |scratch| {
                scratch.fill(0.0);
                let (first, second) = scratch.split_at_mut(width);
                self.for_each_run(images, channels.clone(), |offset, coefficient, length| {
                    accumulate(offset, coefficient, length, first.as_mut_ptr(), second.as_mut_ptr());
                    if !self.is_spread() {
                        add(coefficient, f64::from(first[0]), f64::from(second[0]));
                        (first[0], second[0]) = (0.0, 0.0);
                    }
                });
                if self.is_spread() {
                    let total = |sums: &[f32]| sums.iter().map(|value| f64::from(*value)).sum::<f64>();
                    let planes = first.chunks_exact(self.pixels).zip(second.chunks_exact(self.pixels));
                    for (channel, (first, second)) in channels.zip(planes) {
                        add(channel, total(first), total(second));
                    }
                }
            });
        });
        let mut sums = vec![0.0; row];
        for chunk in partial.chunks_exact(row.max(1)) {
            for (sum, part) in sums.iter_mut().zip(chunk) {
                *sum += part;
            }
        }
        let second = sums.split_off(self.channels);
        (sums, second)
    }
}

/// Coefficient `i` of a run: one per value, or the same for all.
///
/// # Safety
/// The coefficients must reach to `i` plus the vector's width, or be at least one.
#[inline(always)]
pub(crate) unsafe fn coefficient<L: Lanes, const SPREAD: bool>(coefficients: *const f32, i: usize) -> L {
    // SAFETY: the caller's contract.
    unsafe {
        if SPREAD {
            L::load(coefficients.add(i))
        } else {
            L::splat(*coefficients)
        }
    }
}

/// Walks a run in vectors and what is left in single floats: `$step::<L, SPREAD>(i)` by macro, since closures cannot be
/// generic.
macro_rules! walk {
    ($lanes:ident, $length:expr, $i:ident, $step:ident::<_, $spread:ident>($($argument:expr),*)) => {{
        let mut $i = 0;
        while $i + $lanes::WIDTH <= $length {
            $step::<$lanes, $spread>($($argument),*);
            $i += $lanes::WIDTH;
        }
        while $i < $length {
            $step::<f32, $spread>($($argument),*);
            $i += 1;
        }
    }};
}
pub(crate) use walk;

/// `target = clamp(source * scale + shift)`.
///
/// # Safety
/// Source and target must have `length` floats, the coefficients too if `spread`, else one.
#[inline(always)]
unsafe fn affine_body<L: Lanes>(
    target: *mut f32,
    source: *const f32,
    scale: *const f32,
    shift: *const f32,
    length: usize,
    [low, high]: [f32; 2],
    spread: bool,
) {
    #[inline(always)]
    unsafe fn step<L: Lanes, const SPREAD: bool>(
        i: usize,
        target: *mut f32,
        source: *const f32,
        scale: *const f32,
        shift: *const f32,
        low: f32,
        high: f32,
    ) {
        // SAFETY: `i` plus the width lies within the run.
        unsafe {
            let (scale, shift) = (coefficient::<L, SPREAD>(scale, i), coefficient::<L, SPREAD>(shift, i));
            let value = L::load(source.add(i)).mul_add(scale, shift);
            value.clamp(L::splat(low), L::splat(high)).store(target.add(i));
        }
    }
    #[inline(always)]
    unsafe fn run<L: Lanes, const SPREAD: bool>(
        target: *mut f32,
        source: *const f32,
        scale: *const f32,
        shift: *const f32,
        length: usize,
        low: f32,
        high: f32,
    ) {
        // SAFETY: the contract of `affine_body`.
        unsafe {
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, target, source, scale, shift, low, high)
            )
        }
    }
    // SAFETY: this function's contract.
    unsafe {
        if spread {
            run::<L, true>(target, source, scale, shift, length, low, high);
        } else {
            run::<L, false>(target, source, scale, shift, length, low, high);
        }
    }
}

multiversion! {
    /// See [`affine_body`].
    unsafe fn affine = affine_body(
        target: *mut f32, source: *const f32, scale: *const f32, shift: *const f32, length: usize, bounds: [f32; 2],
        spread: bool,
    )
}

/// Adds `x - centre` to the first sums and its square to the second.
///
/// # Safety
/// As for [`affine_body`]; the sums are as many as the coefficients.
#[inline(always)]
unsafe fn moments_body<L: Lanes>(
    source: *const f32,
    centre: *const f32,
    first: *mut f32,
    second: *mut f32,
    length: usize,
    spread: bool,
) {
    #[inline(always)]
    unsafe fn step<L: Lanes, const SPREAD: bool>(
        i: usize,
        source: *const f32,
        centre: *const f32,
        first: *mut f32,
        second: *mut f32,
    ) {
        // SAFETY: `i` plus the width lies within the run.
        unsafe {
            let value = L::load(source.add(i)).sub(L::load(centre.add(i)));
            L::load(first.add(i)).add(value).store(first.add(i));
            value.mul_add(value, L::load(second.add(i))).store(second.add(i));
        }
    }
    const SPREAD: bool = true;
    // SAFETY: this function's contract.
    unsafe {
        if spread {
            walk!(L, length, i, step::<_, SPREAD>(i, source, centre, first, second));
            return;
        }
        // Two vectors at a time hide the latency of the additions.
        let vector = L::splat(*centre);
        let mut sums = [L::splat(0.0); 4];
        let mut i = 0;
        while i + 2 * L::WIDTH <= length {
            let one = L::load(source.add(i)).sub(vector);
            let two = L::load(source.add(i + L::WIDTH)).sub(vector);
            sums = [
                sums[0].add(one),
                sums[1].add(two),
                one.mul_add(one, sums[2]),
                two.mul_add(two, sums[3]),
            ];
            i += 2 * L::WIDTH;
        }
        let (mut sum, mut squares) = (sums[0].add(sums[1]).sum(), sums[2].add(sums[3]).sum());
        while i < length {
            let value = *source.add(i) - *centre;
            sum += value;
            squares += value * value;
            i += 1;
        }
        *first += sum;
        *second += squares;
    }
}

multiversion! {
    /// See [`moments_body`].
    unsafe fn moments = moments_body(
        source: *const f32, centre: *const f32, first: *mut f32, second: *mut f32, length: usize, spread: bool,
    )
}

/// With `g` the gradient where the activation let `x * scale + shift` pass and 0 elsewhere: adds `g` to the first sums
/// and `g * (x - centre)` to the second.
///
/// # Safety
/// As for [`moments_body`].
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn gradient_sums_body<L: Lanes>(
    gradient: *const f32,
    source: *const f32,
    [scale, shift, centre]: [*const f32; 3],
    first: *mut f32,
    second: *mut f32,
    length: usize,
    [low, high]: [f32; 2],
    spread: bool,
) {
    /// `g` and `x - centre` at `i`.
    #[inline(always)]
    unsafe fn terms<L: Lanes, const SPREAD: bool>(
        i: usize,
        gradient: *const f32,
        source: *const f32,
        [scale, shift, centre]: [*const f32; 3],
        low: f32,
        high: f32,
    ) -> (L, L) {
        // SAFETY: `i` plus the width lies within the run.
        unsafe {
            let x = L::load(source.add(i));
            let value = x.mul_add(coefficient::<L, SPREAD>(scale, i), coefficient::<L, SPREAD>(shift, i));
            let g = L::load(gradient.add(i)).where_between(value, L::splat(low), L::splat(high));
            (g, x.sub(coefficient::<L, SPREAD>(centre, i)))
        }
    }
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    unsafe fn step<L: Lanes, const SPREAD: bool>(
        i: usize,
        gradient: *const f32,
        source: *const f32,
        coefficients: [*const f32; 3],
        first: *mut f32,
        second: *mut f32,
        low: f32,
        high: f32,
    ) {
        // SAFETY: `i` plus the width lies within the run.
        unsafe {
            let (g, x) = terms::<L, SPREAD>(i, gradient, source, coefficients, low, high);
            L::load(first.add(i)).add(g).store(first.add(i));
            g.mul_add(x, L::load(second.add(i))).store(second.add(i));
        }
    }
    const SPREAD: bool = true;
    let coefficients = [scale, shift, centre];
    // SAFETY: this function's contract.
    unsafe {
        if spread {
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, gradient, source, coefficients, first, second, low, high)
            );
            return;
        }
        let mut sums = [L::splat(0.0); 4];
        let mut i = 0;
        while i + 2 * L::WIDTH <= length {
            let (g, x) = terms::<L, false>(i, gradient, source, coefficients, low, high);
            let (h, y) = terms::<L, false>(i + L::WIDTH, gradient, source, coefficients, low, high);
            sums = [
                sums[0].add(g),
                sums[1].add(h),
                g.mul_add(x, sums[2]),
                h.mul_add(y, sums[3]),
            ];
            i += 2 * L::WIDTH;
        }
        let (mut sum, mut products) = (sums[0].add(sums[1]).sum(), sums[2].add(sums[3]).sum());
        while i < length {
            let (g, x) = terms::<f32, false>(i, gradient, source, coefficients, low, high);
            sum += g;
            products += g * x;
            i += 1;
        }
        *first += sum;
        *second += products;
    }
}

multiversion! {
    /// See [`gradient_sums_body`].
    unsafe fn gradient_sums = gradient_sums_body(
        gradient: *const f32, source: *const f32, coefficients: [*const f32; 3], first: *mut f32, second: *mut f32,
        length: usize, bounds: [f32; 2], spread: bool,
    )
}

/// `target = g scale + x slope + constant`, with `g` as in [`gradient_sums_body`].
///
/// # Safety
/// As for [`affine_body`]; the target may be the gradient itself.
#[inline(always)]
unsafe fn gradient_through_body<L: Lanes>(
    target: *mut f32,
    gradient: *const f32,
    source: *const f32,
    coefficients: [*const f32; 4],
    length: usize,
    [low, high]: [f32; 2],
    spread: bool,
) {
    #[inline(always)]
    unsafe fn step<L: Lanes, const SPREAD: bool>(
        i: usize,
        target: *mut f32,
        gradient: *const f32,
        source: *const f32,
        [scale, shift, slope, constant]: [*const f32; 4],
        low: f32,
        high: f32,
    ) {
        // SAFETY: `i` plus the width lies within the run.
        unsafe {
            let x = L::load(source.add(i));
            let scale = coefficient::<L, SPREAD>(scale, i);
            let value = x.mul_add(scale, coefficient::<L, SPREAD>(shift, i));
            let g = L::load(gradient.add(i)).where_between(value, L::splat(low), L::splat(high));
            let rest = x.mul_add(
                coefficient::<L, SPREAD>(slope, i),
                coefficient::<L, SPREAD>(constant, i),
            );
            g.mul_add(scale, rest).store(target.add(i));
        }
    }
    #[inline(always)]
    unsafe fn run<L: Lanes, const SPREAD: bool>(
        target: *mut f32,
        gradient: *const f32,
        source: *const f32,
        coefficients: [*const f32; 4],
        length: usize,
        low: f32,
        high: f32,
    ) {
        // SAFETY: the contract of `gradient_through_body`.
        unsafe {
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, target, gradient, source, coefficients, low, high)
            )
        }
    }
    // SAFETY: this function's contract.
    unsafe {
        if spread {
            run::<L, true>(target, gradient, source, coefficients, length, low, high);
        } else {
            run::<L, false>(target, gradient, source, coefficients, length, low, high);
        }
    }
}

multiversion! {
    /// See [`gradient_through_body`].
    unsafe fn gradient_through = gradient_through_body(
        target: *mut f32, gradient: *const f32, source: *const f32, coefficients: [*const f32; 4], length: usize,
        bounds: [f32; 2], spread: bool,
    )
}

/// `target = gradient * scale` where the output lies strictly between the bounds, 0 elsewhere.
///
/// # Safety
/// As for [`affine_body`]; the target may be the gradient itself.
#[inline(always)]
unsafe fn frozen_gradient_body<L: Lanes>(
    target: *mut f32,
    gradient: *const f32,
    output: *const f32,
    scale: *const f32,
    length: usize,
    [low, high]: [f32; 2],
    spread: bool,
) {
    #[inline(always)]
    unsafe fn step<L: Lanes, const SPREAD: bool>(
        i: usize,
        target: *mut f32,
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
            g.mul(coefficient::<L, SPREAD>(scale, i)).store(target.add(i));
        }
    }
    #[inline(always)]
    unsafe fn run<L: Lanes, const SPREAD: bool>(
        target: *mut f32,
        gradient: *const f32,
        output: *const f32,
        scale: *const f32,
        length: usize,
        low: f32,
        high: f32,
    ) {
        // SAFETY: the contract of `frozen_gradient_body`.
        unsafe {
            walk!(
                L,
                length,
                i,
                step::<_, SPREAD>(i, target, gradient, output, scale, low, high)
            )
        }
    }
    // SAFETY: this function's contract.
    unsafe {
        if spread {
            run::<L, true>(target, gradient, output, scale, length, low, high);
        } else {
            run::<L, false>(target, gradient, output, scale, length, low, high);
        }
    }
}

multiversion! {
    /// See [`frozen_gradient_body`].
    unsafe fn frozen_gradient = frozen_gradient_body(
        target: *mut f32, gradient: *const f32, output: *const f32, scale: *const f32, length: usize,
        bounds: [f32; 2], spread: bool,
    )
}

/// Writes `activation(x scale + shift)` to the target, which may be the source.
///
/// # Safety
/// Source and target must have as many floats as the planes.
pub(crate) unsafe fn apply(
    planes: Planes,
    source: SharedPointer,
    target: SharedPointer,
    scale: &[f32],
    shift: &[f32],
    activation: Activation,
) {
    let (scale, shift) = (planes.spread(scale), planes.spread(shift));
    planes.for_each_run_in_parallel(|offset, at, length| {
        // SAFETY: runs are disjoint and lie within the planes; their coefficients within the spread ones.
        unsafe {
            affine(
                target.at(offset),
                source.at(offset),
                scale.0[at..].as_ptr(),
                shift.0[at..].as_ptr(),
                length,
                activation.bounds(),
                planes.is_spread(),
            );
        }
    });
}

/// Mean and biased variance of each channel; zeros for an empty batch.
pub(crate) fn statistics(planes: Planes, x: &[f32]) -> (Vec<f64>, Vec<f64>) {
    if planes.count() == 0.0 {
        return (vec![0.0; planes.channels], vec![0.0; planes.channels]);
    }
    // Sums are taken around the first image's mean: the difference of a mean of squares and a squared mean would lose
    // the variance of channels that lie far from zero.
    let centre: Vec<f32> = x[..planes.channels * planes.pixels]
        .chunks_exact(planes.pixels)
        .map(|plane| (plane.iter().map(|value| f64::from(*value)).sum::<f64>() / planes.pixels as f64) as f32)
        .collect();
    let spread = planes.spread(&centre);
    let (first, second) = planes.sums(|offset, at, length, first, second| {
        // SAFETY: the run lies within `x`, its centres within the spread ones; the sums are as many.
        unsafe {
            moments(
                x[offset..][..length].as_ptr(),
                spread.0[at..].as_ptr(),
                first,
                second,
                length,
                planes.is_spread(),
            );
        }
    });
    let offsets: Vec<f64> = first.iter().map(|sum| sum / planes.count()).collect();
    let mean = offsets
        .iter()
        .zip(&centre)
        .map(|(offset, centre)| offset + f64::from(*centre))
        .collect();
    let variance = offsets
        .iter()
        .zip(&second)
        // `max` would turn not-a-number into 0.
        .map(|(offset, second)| second / planes.count() - offset * offset)
        .map(|variance| if variance < 0.0 { 0.0 } else { variance })
        .collect();
    (mean, variance)
}

/// Scale and shift per channel that normalise by these statistics.
pub(crate) fn fold(mean: &[f32], variance: &[f32], weight: &[f32], bias: &[f32], epsilon: f64) -> (Vec<f32>, Vec<f32>) {
    let fold_one = |channel: usize| {
        let scale = f64::from(weight[channel]) / (f64::from(variance[channel]) + epsilon).sqrt();
        (
            scale as f32,
            (f64::from(bias[channel]) - f64::from(mean[channel]) * scale) as f32,
        )
    };
    (0..mean.len()).map(fold_one).unzip()
}

/// Sums over images and pixels, per channel, of the gradient that passes the activation, and of its product with
/// `x - centre`.
pub(crate) fn gradient_moments(
    planes: Planes,
    x: &[f32],
    gradient: &[f32],
    [scale, shift, centre]: [&[f32]; 3],
    activation: Activation,
) -> (Vec<f64>, Vec<f64>) {
    let coefficients = [scale, shift, centre].map(|values| planes.spread(values));
    planes.sums(|offset, at, length, first, second| {
        // SAFETY: the run lies within both slices, its coefficients within the spread ones; the sums are as many.
        unsafe {
            gradient_sums(
                gradient[offset..][..length].as_ptr(),
                x[offset..][..length].as_ptr(),
                [0, 1, 2].map(|which| coefficients[which].0[at..].as_ptr()),
                first,
                second,
                length,
                activation.bounds(),
                planes.is_spread(),
            );
        }
    })
}

/// Writes `g scale + x slope + constant` to the target, which may be the gradient; `g` is the gradient that passes
/// the activation. The coefficients are scale, shift, slope and constant.
///
/// # Safety
/// Gradient and target must have as many floats as the planes.
pub(crate) unsafe fn propagate(
    planes: Planes,
    x: &[f32],
    gradient: SharedPointer,
    target: SharedPointer,
    coefficients: [&[f32]; 4],
    activation: Activation,
) {
    let coefficients = coefficients.map(|values| planes.spread(values));
    planes.for_each_run_in_parallel(|offset, at, length| {
        // SAFETY: runs are disjoint and lie within the planes; their coefficients within the spread ones.
        unsafe {
            gradient_through(
                target.at(offset),
                gradient.at(offset),
                x[offset..][..length].as_ptr(),
                [0, 1, 2, 3].map(|which| coefficients[which].0[at..].as_ptr()),
                length,
                activation.bounds(),
                planes.is_spread(),
            );
        }
    });
}

/// Writes `gradient * scale`, where the output shows that the activation let the input pass, to the target, which may
/// be the gradient. Without an output nothing is held back.
///
/// # Safety
/// Gradient and target must have as many floats as the planes.
pub(crate) unsafe fn propagate_frozen(
    planes: Planes,
    output: Option<&[f32]>,
    gradient: SharedPointer,
    target: SharedPointer,
    scale: &[f32],
    activation: Activation,
) {
    let scale = planes.spread(scale);
    let zeros = planes.spread(&vec![0.0; planes.channels]);
    planes.for_each_run_in_parallel(|offset, at, length| {
        // SAFETY: runs are disjoint and lie within the planes; their coefficients within the spread ones.
        unsafe {
            let (target, gradient) = (target.at(offset), gradient.at(offset));
            let (scale, spread) = (scale.0[at..].as_ptr(), planes.is_spread());
            match output {
                Some(output) => {
                    let output = output[offset..][..length].as_ptr();
                    frozen_gradient(target, gradient, output, scale, length, activation.bounds(), spread);
                }
                None => {
                    let bounds = Activation::None.bounds();
                    affine(target, gradient, scale, zeros.0[at..].as_ptr(), length, bounds, spread);
                }
            }
        }
    });
}
