//! Convolution as matrix products, for dense and grouped kernels of any size (im2col): pointwise kernels, and what
//! `winograd` and `direct` do not serve.
//!
//! Each task takes one image, or several where images are so small that one would leave the matrix product with too
//! few columns, and runs a single-threaded product while the columns are still in its core's cache.

use gemm::Parallelism;
use rayon::prelude::*;

use crate::geometry::Geometry;
use crate::memory::{Output, SharedPointer, with_scratch};

/// Columns that a matrix product should have at least.
const COLUMNS: usize = 512;
/// Pixels from which a pointwise convolution works on the image in place instead of gathering several.
const DIRECT_PIXELS: usize = 128;
/// Most bytes that the partial sums of a weight gradient may take together, where at least four fit.
const PARTIAL_BYTES: usize = 64 << 20;

/// A matrix in memory: first element, step between rows, step between columns.
#[derive(Clone, Copy)]
pub(crate) struct Matrix(pub(crate) *const f32, pub(crate) usize, pub(crate) usize);

/// `target = left right`, or `target += left right`, where `target` is row-major with `row` floats between rows.
///
/// # Safety
/// The three matrices must lie within their allocations, and `target` must not overlap the others or be written by
/// another thread.
pub(crate) unsafe fn multiply(
    [m, n, k]: [usize; 3],
    target: *mut f32,
    row: usize,
    accumulate: bool,
    left: Matrix,
    right: Matrix,
    parallelism: Parallelism,
) {
    // SAFETY: the caller's contract; strides of matrices in memory fit `isize`.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            target,
            1,
            row as isize,
            accumulate,
            left.0,
            left.2 as isize,
            left.1 as isize,
            right.0,
            right.2 as isize,
            right.1 as isize,
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Threads for the product of one task: all of them when there is no other task.
fn parallelism(tasks: usize) -> Parallelism {
    if tasks == 1 {
        Parallelism::Rayon(0)
    } else {
        Parallelism::None
    }
}

/// Images that one task takes at a time; depends on shapes only, so that results do not depend on threads.
fn images_per_task(geometry: &Geometry) -> usize {
    let pixels = geometry.output_pixels();
    if geometry.is_pointwise() && pixels >= DIRECT_PIXELS {
        return 1;
    }
    COLUMNS.div_ceil(pixels).min(geometry.images.div_ceil(4)).max(1)
}

/// Output columns `first..last` whose input column `column * stride + tap - before` lies within the image.
fn valid_range(size: usize, output: usize, stride: usize, tap: usize, before: usize) -> (usize, usize) {
    let first = before.saturating_sub(tap).div_ceil(stride).min(output);
    let last = if size + before > tap {
        ((size + before - tap - 1) / stride + 1).min(output)
    } else {
        0
    };
    (first, last.max(first))
}

/// Calls `visit(row of the column matrix, output row, input row, first, last, first input column)` for each kernel tap
/// and output row; outputs outside `first..last` see padding, and so does the whole row without an input row.
fn for_each_row(
    geometry: &Geometry,
    channels: usize,
    mut visit: impl FnMut(usize, usize, Option<usize>, usize, usize, usize),
) {
    let [kernel_height, kernel_width] = geometry.kernel;
    for channel in 0..channels {
        for vertical in 0..kernel_height {
            for horizontal in 0..kernel_width {
                let row = (channel * kernel_height + vertical) * kernel_width + horizontal;
                let tap = horizontal * geometry.dilation[1];
                let (first, last) = valid_range(
                    geometry.input[1],
                    geometry.output[1],
                    geometry.stride[1],
                    tap,
                    geometry.before[1],
                );
                // When the range is empty the start is unused and may lie in the padding.
                let start = (first * geometry.stride[1] + tap).saturating_sub(geometry.before[1]);
                for y in 0..geometry.output[0] {
                    let padded = y * geometry.stride[0] + vertical * geometry.dilation[0];
                    let source = padded
                        .checked_sub(geometry.before[0])
                        .filter(|y| *y < geometry.input[0]);
                    let source = source.filter(|_| first < last).map(|y| channel * geometry.input[0] + y);
                    visit(row, y, source, first, last, start);
                }
            }
        }
    }
}

/// Writes the columns of one image's channels: `columns[tap][offset + pixel]` with `total` floats between taps.
fn image_to_columns(geometry: &Geometry, image: &[f32], columns: &mut [f32], total: usize, offset: usize) {
    let (width, output_width, stride) = (geometry.input[1], geometry.output[1], geometry.stride[1]);
    if geometry.is_pointwise() {
        let pixels = geometry.output_pixels();
        for (channel, plane) in image.chunks_exact(pixels).enumerate() {
            columns[channel * total + offset..][..pixels].copy_from_slice(plane);
        }
        return;
    }
    for_each_row(
        geometry,
        geometry.group_channels(),
        |row, y, source, first, last, start| {
            let target = &mut columns[row * total + offset + y * output_width..][..output_width];
            let Some(source) = source else {
                target.fill(0.0);
                return;
            };
            let source = &image[source * width..][..width];
            target[..first].fill(0.0);
            target[last..].fill(0.0);
            if stride == 1 {
                target[first..last].copy_from_slice(&source[start..start + last - first]);
            } else {
                for (target, source) in target[first..last]
                    .iter_mut()
                    .zip(source[start..].iter().step_by(stride))
                {
                    *target = *source;
                }
            }
        },
    );
}

/// Adds the columns back into the image they came from (the transpose of [`image_to_columns`]).
fn columns_to_image(geometry: &Geometry, columns: &[f32], total: usize, offset: usize, image: &mut [f32]) {
    let (width, output_width, stride) = (geometry.input[1], geometry.output[1], geometry.stride[1]);
    image.fill(0.0);
    for_each_row(
        geometry,
        geometry.group_channels(),
        |row, y, target, first, last, start| {
            let Some(target) = target else { return };
            let target = &mut image[target * width..][..width];
            let source = &columns[row * total + offset + y * output_width..][..output_width];
            if stride == 1 {
                for (target, source) in target[start..].iter_mut().zip(&source[first..last]) {
                    *target += source;
                }
            } else {
                for (target, source) in target[start..].iter_mut().step_by(stride).zip(&source[first..last]) {
                    *target += source;
                }
            }
        },
    );
}

/// Copies the planes of `count` images from `first` on, of one group of outputs, side by side into a matrix.
fn gather_outputs(geometry: &Geometry, output: &[f32], first: usize, count: usize, group: usize, block: &mut [f32]) {
    let (pixels, outputs) = (geometry.output_pixels(), geometry.group_outputs());
    for image in 0..count {
        let planes = ((first + image) * geometry.outputs + group * outputs) * pixels;
        for (o, plane) in output[planes..][..outputs * pixels].chunks_exact(pixels).enumerate() {
            block[(o * count + image) * pixels..][..pixels].copy_from_slice(plane);
        }
    }
}

/// The input as a matrix `[taps of a group, pixels of count images]`: in place where possible, else in `columns`.
fn input_matrix(
    geometry: &Geometry,
    x: &[f32],
    first: usize,
    count: usize,
    group: usize,
    columns: &mut [f32],
) -> Matrix {
    let pixels = geometry.output_pixels();
    let channels = geometry.group_channels();
    let size = channels * geometry.input_pixels();
    let start = |image: usize| (image * geometry.channels + group * channels) * geometry.input_pixels();
    if geometry.is_pointwise() && count == 1 {
        return Matrix(x[start(first)..][..size].as_ptr(), pixels, 1);
    }
    let total = count * pixels;
    for image in 0..count {
        image_to_columns(
            geometry,
            &x[start(first + image)..][..size],
            columns,
            total,
            image * pixels,
        );
    }
    Matrix(columns.as_ptr(), total, 1)
}

/// Floats of scratch that [`input_matrix`] needs.
fn columns_length(geometry: &Geometry, count: usize) -> usize {
    if geometry.is_pointwise() && count == 1 {
        return 0;
    }
    geometry.group_channels() * geometry.taps() * geometry.output_pixels() * count
}

/// Floats of scratch for the outputs of several images side by side.
fn block_length(geometry: &Geometry, count: usize) -> usize {
    if count == 1 {
        0
    } else {
        geometry.group_outputs() * geometry.output_pixels() * count
    }
}

/// Output of the convolution, `[images, outputs, output pixels]`.
pub(crate) fn forward(geometry: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (pixels, outputs) = (geometry.output_pixels(), geometry.group_outputs());
    let taps = geometry.group_channels() * geometry.taps();
    let per_task = images_per_task(geometry);
    let tasks = geometry.images.div_ceil(per_task);
    let mut result = Output::new(geometry.images * geometry.outputs * pixels);
    let target = result.pointer();
    (0..tasks).into_par_iter().for_each(|task| {
        let first = task * per_task;
        let count = per_task.min(geometry.images - first);
        with_scratch(columns_length(geometry, count), |columns| {
            with_scratch(block_length(geometry, count), |block| {
                for group in 0..geometry.groups {
                    let right = input_matrix(geometry, x, first, count, group, columns);
                    let left = Matrix(weight[group * outputs * taps..][..outputs * taps].as_ptr(), taps, 1);
                    let size = [outputs, count * pixels, taps];
                    // SAFETY: planes of this task's images, which no other task writes; the matrices lie in slices
                    // of the sizes computed above.
                    unsafe {
                        if count == 1 {
                            let plane = target.at((first * geometry.outputs + group * outputs) * pixels);
                            multiply(size, plane, pixels, false, left, right, parallelism(tasks));
                        } else {
                            multiply(
                                size,
                                block.as_mut_ptr(),
                                count * pixels,
                                false,
                                left,
                                right,
                                Parallelism::None,
                            );
                            scatter_outputs(geometry, block, target, first, count, group);
                        }
                    }
                }
            });
        });
        if let Some(bias) = bias {
            let start = first * geometry.outputs * pixels;
            // SAFETY: these planes belong to this task and have just been written.
            let planes = unsafe { std::slice::from_raw_parts_mut(target.at(start), count * geometry.outputs * pixels) };
            for (plane, bias) in planes.chunks_exact_mut(pixels).zip(bias.iter().cycle()) {
                for value in plane {
                    *value += bias;
                }
            }
        }
    });
    // SAFETY: the tasks cover all images and groups.
    unsafe { result.finish() }
}

/// Copies a matrix of outputs of several images to their places.
///
/// # Safety
/// No other thread may write those images' outputs.
unsafe fn scatter_outputs(
    geometry: &Geometry,
    block: &[f32],
    target: SharedPointer,
    first: usize,
    count: usize,
    group: usize,
) {
    let (pixels, outputs) = (geometry.output_pixels(), geometry.group_outputs());
    for image in 0..count {
        for o in 0..outputs {
            let source = &block[(o * count + image) * pixels..][..pixels];
            let plane = ((first + image) * geometry.outputs + group * outputs + o) * pixels;
            // SAFETY: the plane lies within the output, and the caller has it to itself.
            unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), target.at(plane), pixels) };
        }
    }
}

/// Gradient of the weight.
///
/// The images are cut into chunks, as many as the shapes say; each sums its own gradient, and the sums are added in
/// the order of the images.
pub(crate) fn weight_gradient(geometry: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (pixels, outputs) = (geometry.output_pixels(), geometry.group_outputs());
    let taps = geometry.group_channels() * geometry.taps();
    let length = geometry.outputs * taps;
    if geometry.images == 0 {
        return vec![0.0; length];
    }
    let chunks = (PARTIAL_BYTES / (4 * length.max(1))).clamp(4, 16);
    // Enough columns per chunk that writing its sum is not the larger part of the work.
    let enough = COLUMNS.div_ceil(pixels).min(geometry.images.div_ceil(4));
    let per_chunk = geometry.images.div_ceil(chunks).max(enough);
    let chunks = geometry.images.div_ceil(per_chunk);
    let mut partial = Output::new(chunks * length);
    let target = partial.pointer();
    (0..chunks).into_par_iter().for_each(|chunk| {
        let last = ((chunk + 1) * per_chunk).min(geometry.images);
        let per_product = images_per_task(geometry).min(per_chunk);
        with_scratch(columns_length(geometry, per_product), |columns| {
            with_scratch(block_length(geometry, per_product), |block| {
                let mut first = chunk * per_chunk;
                let mut accumulate = false;
                while first < last {
                    let count = per_product.min(last - first);
                    let total = count * pixels;
                    for group in 0..geometry.groups {
                        let input = input_matrix(geometry, x, first, count, group, columns);
                        let left = if count == 1 {
                            let start = (first * geometry.outputs + group * outputs) * pixels;
                            Matrix(gradient[start..][..outputs * pixels].as_ptr(), pixels, 1)
                        } else {
                            gather_outputs(geometry, gradient, first, count, group, block);
                            Matrix(block.as_ptr(), total, 1)
                        };
                        let right = Matrix(input.0, input.2, input.1);
                        // SAFETY: this chunk's partial sum, written by this task only; the matrices lie in slices of
                        // the sizes computed above.
                        unsafe {
                            let sum = target.at(chunk * length + group * outputs * taps);
                            let size = [outputs, taps, total];
                            multiply(size, sum, taps, accumulate, left, right, parallelism(chunks));
                        }
                    }
                    accumulate = true;
                    first += count;
                }
            });
        });
    });
    // SAFETY: each chunk holds at least one image and writes its whole partial sum.
    let mut partial = unsafe { partial.finish() };
    let (sum, rest) = partial.split_at_mut(length);
    const PIECE: usize = 1 << 14;
    sum.par_chunks_mut(PIECE).enumerate().for_each(|(piece, sum)| {
        for other in rest.chunks_exact(length) {
            for (sum, other) in sum.iter_mut().zip(&other[piece * PIECE..]) {
                *sum += other;
            }
        }
    });
    partial.truncate(length);
    partial.shrink_to_fit();
    partial
}

/// Gradient of the input.
pub(crate) fn input_gradient(geometry: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (pixels, outputs) = (geometry.output_pixels(), geometry.group_outputs());
    let channels = geometry.group_channels();
    let taps = channels * geometry.taps();
    let size = channels * geometry.input_pixels();
    let per_task = images_per_task(geometry);
    let tasks = geometry.images.div_ceil(per_task);
    let mut result = Output::new(geometry.images * geometry.channels * geometry.input_pixels());
    let target = result.pointer();
    (0..tasks).into_par_iter().for_each(|task| {
        let first = task * per_task;
        let count = per_task.min(geometry.images - first);
        let total = count * pixels;
        let direct = geometry.is_pointwise() && count == 1;
        with_scratch(columns_length(geometry, count), |columns| {
            with_scratch(block_length(geometry, count), |block| {
                for group in 0..geometry.groups {
                    let right = if count == 1 {
                        let start = (first * geometry.outputs + group * outputs) * pixels;
                        Matrix(gradient[start..][..outputs * pixels].as_ptr(), pixels, 1)
                    } else {
                        gather_outputs(geometry, gradient, first, count, group, block);
                        Matrix(block.as_ptr(), total, 1)
                    };
                    let left = Matrix(weight[group * outputs * taps..][..outputs * taps].as_ptr(), 1, taps);
                    let start = |image: usize| (image * geometry.channels + group * channels) * geometry.input_pixels();
                    let product = [taps, total, outputs];
                    // SAFETY: writes to planes of this task's images only, or to this task's scratch; the matrices
                    // lie in slices of the sizes computed above.
                    unsafe {
                        if direct {
                            multiply(
                                product,
                                target.at(start(first)),
                                pixels,
                                false,
                                left,
                                right,
                                parallelism(tasks),
                            );
                            continue;
                        }
                        multiply(
                            product,
                            columns.as_mut_ptr(),
                            total,
                            false,
                            left,
                            right,
                            parallelism(tasks),
                        );
                    }
                    for image in 0..count {
                        // SAFETY: in bounds, and written by this task only. The memory was allocated as floats, and
                        // `columns_to_image` writes every element before it reads it.
                        let planes = unsafe { std::slice::from_raw_parts_mut(target.at(start(first + image)), size) };
                        if geometry.is_pointwise() {
                            for (channel, plane) in planes.chunks_exact_mut(pixels).enumerate() {
                                plane.copy_from_slice(&columns[channel * total + image * pixels..][..pixels]);
                            }
                        } else {
                            columns_to_image(geometry, columns, total, image * pixels, planes);
                        }
                    }
                }
            });
        });
    });
    // SAFETY: the tasks cover all images and groups.
    unsafe { result.finish() }
}
