//! Depthwise convolution: each channel has its own kernels. Direct, without a matrix product.
//!
//! A plane is dealt to the phases of the stride (`phases.rs`); then output `i` of the whole plane, seen as one line, is
//! the sum over taps of `weight * phase[shift + i]`. Both gradients are loops of the same shape over the same layout.

use crate::geometry::Geometry;
use crate::memory::{Output, SharedPointer, with_scratch};
use crate::partition::Partition;
use crate::phases::{Layout, SLACK};
use crate::simd::{Lanes, multiversion};

/// `target[i] = sum over t of weights[t] * source[shifts[t] + i]` for `i` in `0..length`, rounded up to [`SLACK`].
///
/// # Safety
/// `target` must have `length` floats plus [`SLACK`], `source` the same behind each shift, and `weights` as many as
/// there are shifts.
#[inline(always)]
unsafe fn correlate_body<L: Lanes>(
    target: *mut f32,
    source: *const f32,
    shifts: &[usize],
    weights: *const f32,
    length: usize,
) {
    /// The same with the number of taps known, so that their weights stay in registers.
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The loops run over several arrays of constant length, to be unrolled.
    unsafe fn fixed<L: Lanes, const TAPS: usize>(
        target: *mut f32,
        source: *const f32,
        shifts: &[usize],
        weights: *const f32,
        length: usize,
    ) {
        // SAFETY: the contract of `correlate_body`.
        unsafe {
            let factors: [L; TAPS] = std::array::from_fn(|tap| L::splat(*weights.add(tap)));
            let sources: [*const f32; TAPS] = std::array::from_fn(|tap| source.add(shifts[tap]));
            let mut i = 0;
            while i < length {
                let mut first = factors[0].mul(L::load(sources[0].add(i)));
                let mut second = factors[0].mul(L::load(sources[0].add(i + L::WIDTH)));
                for tap in 1..TAPS {
                    first = factors[tap].mul_add(L::load(sources[tap].add(i)), first);
                    second = factors[tap].mul_add(L::load(sources[tap].add(i + L::WIDTH)), second);
                }
                first.store(target.add(i));
                second.store(target.add(i + L::WIDTH));
                i += 2 * L::WIDTH;
            }
        }
    }
    // SAFETY: the contract of this function; the matched lengths are the numbers of taps.
    unsafe {
        match shifts.len() {
            1 => fixed::<L, 1>(target, source, shifts, weights, length),
            2 => fixed::<L, 2>(target, source, shifts, weights, length),
            4 => fixed::<L, 4>(target, source, shifts, weights, length),
            9 => fixed::<L, 9>(target, source, shifts, weights, length),
            _ => {
                let mut i = 0;
                while i < length {
                    let mut sum = L::splat(0.0);
                    for (tap, shift) in shifts.iter().enumerate() {
                        sum = L::splat(*weights.add(tap)).mul_add(L::load(source.add(shift + i)), sum);
                    }
                    sum.store(target.add(i));
                    i += L::WIDTH;
                }
            }
        }
    }
}

multiversion! {
    /// See [`correlate_body`].
    unsafe fn correlate = correlate_body(
        target: *mut f32, source: *const f32, shifts: &[usize], weights: *const f32, length: usize,
    )
}

/// `sums[t] += sum over i in 0..length of left[i] * right[shifts[t] + i]`; `left` must be zero behind `length`.
///
/// # Safety
/// `left` must have `length` floats plus [`SLACK`], `right` the same behind each shift, all of them finite, and `sums`
/// as many as there are shifts.
#[inline(always)]
unsafe fn dot_products_body<L: Lanes>(
    sums: *mut f32,
    left: *const f32,
    right: *const f32,
    shifts: &[usize],
    length: usize,
) {
    #[inline(always)]
    #[allow(clippy::needless_range_loop)] // The loops run over several arrays of constant length, to be unrolled.
    unsafe fn fixed<L: Lanes, const TAPS: usize>(
        sums: *mut f32,
        left: *const f32,
        right: *const f32,
        shifts: &[usize],
        length: usize,
    ) {
        // SAFETY: the contract of `dot_products_body`.
        unsafe {
            let sources: [*const f32; TAPS] = std::array::from_fn(|tap| right.add(shifts[tap]));
            let mut totals = [L::splat(0.0); TAPS];
            let mut i = 0;
            while i < length {
                let value = L::load(left.add(i));
                for tap in 0..TAPS {
                    totals[tap] = value.mul_add(L::load(sources[tap].add(i)), totals[tap]);
                }
                i += L::WIDTH;
            }
            for (tap, total) in totals.into_iter().enumerate() {
                *sums.add(tap) += total.sum();
            }
        }
    }
    // SAFETY: the contract of this function.
    unsafe {
        let mut tap = 0;
        while tap < shifts.len() {
            let rest = &shifts[tap..];
            let sums = sums.add(tap);
            tap += match rest.len() {
                9.. => {
                    fixed::<L, 9>(sums, left, right, rest, length);
                    9
                }
                4.. => {
                    fixed::<L, 4>(sums, left, right, rest, length);
                    4
                }
                _ => {
                    fixed::<L, 1>(sums, left, right, rest, length);
                    1
                }
            };
        }
    }
}

multiversion! {
    /// See [`dot_products_body`].
    unsafe fn dot_products = dot_products_body(
        sums: *mut f32, left: *const f32, right: *const f32, shifts: &[usize], length: usize,
    )
}

/// Output of the convolution, `[images, outputs, output pixels]`.
pub(crate) fn forward(geometry: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let layout = Layout::new(geometry);
    let (taps, multiplier) = (geometry.taps(), geometry.group_outputs());
    let (input_pixels, output_pixels) = (geometry.input_pixels(), geometry.output_pixels());
    let phases_length = layout.phases.len() * layout.phase;
    let mut result = Output::new(geometry.images * geometry.outputs * output_pixels);
    let target = result.pointer();
    Partition::new(geometry.images, geometry.channels).for_each(|_, images, channels| {
        with_scratch(phases_length + layout.line + 2 * SLACK, |scratch| {
            scratch.fill(0.0);
            let (phases, line) = scratch.split_at_mut(phases_length);
            for image in images {
                for channel in channels.clone() {
                    let plane = (image * geometry.channels + channel) * input_pixels;
                    layout.deal(geometry, &x[plane..][..input_pixels], phases);
                    for output in channel * multiplier..(channel + 1) * multiplier {
                        let weights = &weight[output * taps..][..taps];
                        let shift = bias.map_or(0.0, |bias| bias[output]);
                        let plane = (image * geometry.outputs + output) * output_pixels;
                        // SAFETY: the line and the phases have slack behind them; every shift leaves the line within
                        // its phase. The plane of the output is written by this task only.
                        unsafe {
                            correlate(
                                line.as_mut_ptr(),
                                phases.as_ptr(),
                                &layout.shifts,
                                weights.as_ptr(),
                                layout.line,
                            );
                            narrow(geometry, &layout, line, target, plane, shift);
                        }
                    }
                }
            }
        });
    });
    // SAFETY: the chunks cover all images and channels.
    unsafe { result.finish() }
}

/// Copies the outputs out of a line of widened rows, adding the bias.
///
/// # Safety
/// The plane that begins at `plane` must lie within the target and be written by no other thread.
unsafe fn narrow(geometry: &Geometry, layout: &Layout, line: &[f32], target: SharedPointer, plane: usize, bias: f32) {
    if bias == 0.0 {
        // SAFETY: the caller's contract.
        return unsafe { layout.narrow(geometry, line, target.at(plane)) };
    }
    let width = geometry.output[1];
    for row in 0..geometry.output[0] {
        for (column, value) in line[row * layout.width..][..width].iter().enumerate() {
            // SAFETY: the caller's contract.
            unsafe { target.at(plane + row * width + column).write(value + bias) };
        }
    }
}

/// Gradients of the input and of the weight, in one pass over the planes; the input's is computed if the weight is
/// given, the weight's if the input is.
pub(crate) fn gradients(
    geometry: &Geometry,
    weight: Option<&[f32]>,
    gradient: &[f32],
    x: Option<&[f32]>,
) -> (Option<Vec<f32>>, Option<Vec<f32>>) {
    let layout = Layout::new(geometry);
    let (taps, multiplier) = (geometry.taps(), geometry.group_outputs());
    let (input_pixels, output_pixels) = (geometry.input_pixels(), geometry.output_pixels());
    let phases_length = layout.phases.len() * layout.phase;
    // Zeros before the line, for pixels that the first outputs do not reach, and behind it.
    let margin = layout.reach;
    let line_length = margin + layout.pixels.max(layout.line) + 2 * SLACK;
    let partition = Partition::new(geometry.images, geometry.channels);
    let chunks = partition.image_chunks();
    let length = geometry.outputs * taps;
    let mut partial = vec![0.0; if x.is_some() { chunks * length } else { 0 }];
    let sums = SharedPointer::new(&mut partial);
    let mut result = Output::new(if weight.is_some() {
        geometry.images * geometry.channels * input_pixels
    } else {
        0
    });
    let target = result.pointer();
    // The taps of each phase, for the input gradient: the weights' order, and where the line is read.
    let phase_taps: Vec<(Vec<usize>, Vec<usize>)> = layout
        .phases
        .iter()
        .map(|phase| phase.iter().map(|(tap, shift)| (*tap, margin - shift)).unzip())
        .collect();
    partition.for_each(|chunk, images, channels| {
        with_scratch(3 * phases_length + line_length + taps + 2 * SLACK, |scratch| {
            scratch.fill(0.0);
            let (phases, scratch) = scratch.split_at_mut(phases_length);
            let (line, scratch) = scratch.split_at_mut(line_length);
            let (ordered, scratch) = scratch.split_at_mut(taps);
            let (sum, one) = scratch.split_at_mut(phases_length + SLACK);
            for image in images {
                for channel in channels.clone() {
                    let input_plane = (image * geometry.channels + channel) * input_pixels;
                    if let Some(x) = x {
                        layout.deal(geometry, &x[input_plane..][..input_pixels], phases);
                    }
                    for output in channel * multiplier..(channel + 1) * multiplier {
                        let plane = (image * geometry.outputs + output) * output_pixels;
                        layout.widen(geometry, &gradient[plane..][..output_pixels], &mut line[margin..]);
                        if x.is_some() {
                            // SAFETY: the partial sums of this chunk's images and channels belong to this task; the
                            // line is followed by zeros, and the phases by slack that is zero or another phase.
                            unsafe {
                                let sums = sums.at(chunk * length + output * taps);
                                let line = line[margin..].as_ptr();
                                dot_products(sums, line, phases.as_ptr(), &layout.shifts, layout.line);
                            }
                        }
                        if let Some(weight) = weight {
                            let first = output == channel * multiplier;
                            for (index, (order, shifts)) in phase_taps.iter().enumerate() {
                                let start = index * layout.phase;
                                for (ordered, tap) in ordered.iter_mut().zip(order) {
                                    *ordered = weight[output * taps + tap];
                                }
                                let into = if first { &mut sum[start..] } else { &mut one[start..] };
                                // SAFETY: a phase is followed by slack, and so is the line behind each shift. A phase
                                // without taps has no shifts and is set to zero.
                                unsafe {
                                    correlate(
                                        into.as_mut_ptr(),
                                        line.as_ptr(),
                                        shifts,
                                        ordered.as_ptr(),
                                        layout.pixels,
                                    );
                                }
                            }
                            if !first {
                                for (sum, one) in sum.iter_mut().zip(&*one) {
                                    *sum += one;
                                }
                            }
                        }
                    }
                    if weight.is_some() {
                        // SAFETY: in bounds, and written by this task only.
                        unsafe { layout.collect(geometry, sum, target.at(input_plane)) };
                    }
                }
            }
        });
    });
    let weight_gradient = x.is_some().then(|| {
        let mut total = vec![0.0; length];
        for chunk in partial.chunks_exact(length) {
            for (total, part) in total.iter_mut().zip(chunk) {
                *total += part;
            }
        }
        total
    });
    // SAFETY: the chunks cover all images and channels.
    let input_gradient = weight.is_some().then(|| unsafe { result.finish() });
    (input_gradient, weight_gradient)
}
