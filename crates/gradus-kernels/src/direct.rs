//! Convolution without a column matrix: products that read the taps where they lie.
//!
//! A band of the image is copied into channels-last order with its padding. There the inputs of an output pixel are one
//! run of `kernel width * channels` floats per row of taps, and the micro-kernel of [`product`](crate::product) takes
//! them from their places. The gradient of the input is a convolution of stride 1 for each remainder of the input's
//! position by the stride; the gradient of the weight a product over pixels. For kernels without dilation or groups.

use rayon::prelude::*;

use crate::geometry::Geometry;
use crate::memory::{LINE, Output, SharedPointer, aligned, with_scratch};
use crate::product::{Product, multiply, panel_width, vector_width};
use crate::strips::{Interleave, PanelWeights, Planes, interleave, pack_weights, separate, unpack_weights};

/// Floats of a band in channels-last order, about: half of a second-level cache.
const BAND_FLOATS: usize = 96 << 10;
/// Pixels that a band has at least, so that reading the weight is not the larger part of the work.
const BAND_PIXELS: usize = 96;
/// Outputs per row below which the runs of taps are copied.
const SHORT_ROW: usize = 12;
/// Bytes of images and gradients per batch of the gradient of the weight.
const BATCH_BYTES: usize = 12 << 20;
/// Most rows of the weight's gradient per task.
const GRADIENT_ROWS: usize = 192;
/// Most panels of outputs per task of the weight's gradient, and tasks that there should be at least.
const PANELS: usize = 4;
const LEAST_TASKS: usize = 16;
/// Outputs (of the pass) below which most of a panel would be empty.
const LEAST_OUTPUTS: usize = 8;
/// Output pixels below which there are too few tasks; a product of columns is split over threads.
const LEAST_PIXELS: usize = 4 * BAND_PIXELS;

/// Whether the forward pass and the gradient of the weight gain. Pointwise kernels do not: their columns are the image.
pub(crate) fn applies(geometry: &Geometry) -> bool {
    geometry.groups == 1
        && geometry.dilation == [1; 2]
        && geometry.taps() > 1
        && geometry.outputs >= LEAST_OUTPUTS
        && geometry.channels > 0
        && geometry.images * geometry.output_pixels() >= LEAST_PIXELS
}

/// Whether the gradient of the input gains.
pub(crate) fn applies_to_input_gradient(geometry: &Geometry) -> bool {
    applies(geometry) && geometry.channels >= LEAST_OUTPUTS
}

/// A channels-last copy of a band of rows, with zeros around.
#[derive(Clone, Copy, Debug)]
struct Band {
    channels: usize,
    /// Height and width of the image.
    size: [usize; 2],
    /// Zeros before the first row and column.
    before: [usize; 2],
    /// Columns of the copy.
    columns: usize,
    /// Floats from pixel to pixel.
    pixel: usize,
}

impl Band {
    fn row(&self) -> usize {
        self.columns * self.pixel
    }

    /// Floats for so many rows, with room for the zeros that [`interleave`] may write behind the last pixel.
    fn length(&self, rows: usize) -> usize {
        (rows * self.row()).next_multiple_of(LINE) + 2 * LINE
    }

    /// Copies rows `first..first + rows` of the padded image.
    ///
    /// # Safety
    /// `target` has [`length`](Self::length) floats and `scratch` those of [`Interleave::scratch`], for this thread alone.
    unsafe fn copy(&self, image: &[f32], first: usize, rows: usize, target: *mut f32, scratch: *mut f32) {
        let [height, width] = self.size;
        let plane = height * width;
        assert!(image.len() == self.channels * plane, "an image of the band's size");
        let row = self.row();
        let last = first + rows;
        let from = first.max(self.before[0]).min(last);
        let to = last.min(self.before[0] + height).max(from);
        let columns = width.min(self.columns.saturating_sub(self.before[1]));
        let behind = self.columns.saturating_sub(self.before[1] + columns);
        // SAFETY: all within `rows` rows of the target; the source's rows lie within the image, as checked.
        unsafe {
            std::ptr::write_bytes(target, 0, (from - first) * row);
            std::ptr::write_bytes(target.add((to - first) * row), 0, (last - to) * row);
            if to == from {
                return;
            }
            for y in from - first..to - first {
                let start = target.add(y * row);
                std::ptr::write_bytes(start, 0, self.before[1].min(self.columns) * self.pixel);
                std::ptr::write_bytes(start.add(row - behind * self.pixel), 0, behind * self.pixel);
            }
            interleave(Interleave {
                source: image.as_ptr().add((from - self.before[0]) * width),
                plane,
                channels: self.channels,
                rows: to - from,
                width,
                columns,
                scratch,
                target: target.add((from - first) * row + self.before[1].min(self.columns) * self.pixel),
                row,
                pixel: self.pixel,
                panel: panel_width(),
                panels: 0,
            });
        }
    }
}

/// Taps of one product: the kernel's rows and columns in the order in which the band has them.
#[derive(Clone, Debug)]
struct Taps {
    vertical: Vec<usize>,
    horizontal: Vec<usize>,
}

impl Taps {
    fn count(&self) -> usize {
        self.vertical.len() * self.horizontal.len()
    }
}

/// Writes `packed[panel][tap][output][channel of the panel]` for the taps of one phase of the input's gradient.
///
/// # Safety
/// `packed` has room for all panels, and no other thread touches it.
unsafe fn pack_phase(geometry: &Geometry, taps: &Taps, weight: &[f32], packed: SharedPointer) {
    let panel = panel_width();
    let (channels, outputs, kernel) = (geometry.channels, geometry.outputs, geometry.taps());
    (0..channels.div_ceil(panel)).into_par_iter().for_each(|index| {
        let first = index * panel;
        let count = panel.min(channels - first);
        for output in 0..outputs {
            let weights = &weight[(output * channels + first) * kernel..][..count * kernel];
            let mut slot = index * taps.count();
            for vertical in &taps.vertical {
                for horizontal in &taps.horizontal {
                    let tap = vertical * geometry.kernel[1] + horizontal;
                    // SAFETY: each task writes its panel, which the caller gives room for.
                    unsafe {
                        let target = packed.at((slot * outputs + output) * panel);
                        for (column, kernel) in weights.chunks_exact(kernel).enumerate() {
                            target.add(column).write(kernel[tap]);
                        }
                        std::ptr::write_bytes(target.add(count), 0, panel - count);
                    }
                    slot += 1;
                }
            }
        }
    });
}

/// Rows of a band, such that it stays in cache and is worth its products.
fn rows_per_band(rows: usize, row_floats: usize, row_pixels: usize) -> usize {
    let most = (BAND_FLOATS / row_floats.max(1)).max(BAND_PIXELS.div_ceil(row_pixels.max(1)));
    rows.div_ceil(rows.div_ceil(most.max(1)).max(1)).max(1)
}

/// Copies the runs of taps of so many rows of outputs to `runs[pixel][vertical tap][run]`.
///
/// # Safety
/// The band has the rows that these outputs reach, and `runs` has room for all of them.
unsafe fn gather_runs(geometry: &Geometry, band: *const f32, band_row: usize, rows: usize, runs: *mut f32) {
    let run = geometry.kernel[1] * geometry.channels;
    for y in 0..rows {
        for x in 0..geometry.output[1] {
            for tap in 0..geometry.kernel[0] {
                let source = (y * geometry.stride[0] + tap) * band_row + x * geometry.stride[1] * geometry.channels;
                let target = ((y * geometry.output[1] + x) * geometry.kernel[0] + tap) * run;
                // SAFETY: the caller's contract.
                unsafe { std::ptr::copy_nonoverlapping(band.add(source), runs.add(target), run) };
            }
        }
    }
}

/// Output of the convolution, `[images, outputs, output pixels]`.
pub(crate) fn forward(geometry: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let (panel, vector) = (panel_width(), vector_width());
    let panels = geometry.outputs.div_ceil(panel);
    let [kernel_height, kernel_width] = geometry.kernel;
    let [height, width] = geometry.output;
    let [stride_y, stride_x] = geometry.stride;
    let channels = geometry.channels;
    let run = kernel_width * channels;
    let band = Band {
        channels,
        size: geometry.input,
        before: geometry.before,
        columns: (width - 1) * stride_x + kernel_width,
        pixel: channels,
    };
    let per_band = rows_per_band(height, stride_y * band.row(), width);
    let bands = height.div_ceil(per_band);
    let band_rows = |rows: usize| (rows - 1) * stride_y + kernel_height;
    // Short rows would leave the micro-kernel with few rows at a time: their runs are copied one below the other, those
    // of several images where images are small.
    let gather = width < SHORT_ROW;
    let per_task = if bands == 1 && gather {
        BAND_PIXELS
            .div_ceil(height * width)
            .min(geometry.images.div_ceil(4))
            .max(1)
    } else {
        1
    };
    let groups = geometry.images.div_ceil(per_task);
    let terms = kernel_height * run;
    let bias = bias.map(|bias| {
        let mut padded = bias.to_vec();
        padded.resize(panels * panel, 0.0);
        padded
    });
    let size = channels * geometry.input_pixels();
    let pixels = geometry.output_pixels();
    let mut result = Output::new(geometry.images * geometry.outputs * pixels);
    let target = result.pointer();
    with_scratch(panels * terms * panel + LINE, |packed| {
        let packed = SharedPointer::of(aligned(packed));
        (0..panels).into_par_iter().for_each(|index| {
            with_scratch(PanelWeights::scratch(geometry.taps(), vector) + LINE, |scratch| {
                let outputs = panel.min(geometry.outputs - index * panel);
                let step = channels * geometry.taps();
                // SAFETY: the planes are only read; each task packs its panel.
                unsafe {
                    pack_weights(PanelWeights {
                        planes: weight[index * panel * step..][..outputs * step].as_ptr().cast_mut(),
                        step,
                        outputs,
                        channels,
                        taps: geometry.taps(),
                        packed: packed.at(index * terms * panel),
                        scratch: aligned(scratch),
                    });
                }
            });
        });
        (0..groups * bands).into_par_iter().for_each(|task| {
            let (group, first) = (task / bands, task % bands * per_band);
            let images = group * per_task..((group + 1) * per_task).min(geometry.images);
            let rows = per_band.min(height - first);
            let copy = band.length(band_rows(per_band));
            let most = per_task * per_band * width;
            let gathered = if gather { most * terms + LINE } else { 0 };
            let length = copy + gathered + most * panel + Interleave::scratch(geometry.input[1], vector) + LINE;
            with_scratch(length, |scratch| {
                let copied = aligned(scratch);
                // SAFETY: four parts of the scratch, one behind the other; the band has the rows and columns that the
                // taps of these outputs reach. The planes' rows are this task's.
                unsafe {
                    let runs = copied.add(copy);
                    let product = runs.add(gathered);
                    let strip = product.add(most * panel);
                    for (slot, image) in images.clone().enumerate() {
                        let x = &x[image * size..][..size];
                        band.copy(x, first * stride_y, band_rows(rows), copied, strip);
                        if gather {
                            let runs = runs.add(slot * rows * width * terms);
                            gather_runs(geometry, copied, band.row(), rows, runs);
                        }
                    }
                    let count = images.len() * rows * width;
                    for index in 0..panels {
                        let outputs = Product {
                            rows: [rows, width],
                            panels: 1,
                            terms: [kernel_height, run],
                            left: copied,
                            left_row: [stride_y * band.row(), stride_x * channels],
                            left_term: [band.row(), 1],
                            right: packed.at(index * terms * panel),
                            right_panel: 0,
                            right_term: [run * panel, panel],
                            target: product,
                            target_panel: 0,
                            target_row: [width * panel, panel],
                            accumulate: false,
                        };
                        multiply(if gather {
                            Product {
                                rows: [1, count],
                                terms: [1, terms],
                                left: runs,
                                left_row: [0, terms],
                                left_term: [0, 1],
                                ..outputs
                            }
                        } else {
                            outputs
                        });
                        for (slot, image) in images.clone().enumerate() {
                            separate(Planes {
                                source: product.add(slot * rows * width * panel),
                                pixels: rows * width,
                                bias: bias
                                    .as_ref()
                                    .map_or(std::ptr::null(), |bias| bias[index * panel..].as_ptr()),
                                target: target.at((image * geometry.outputs + index * panel) * pixels + first * width),
                                plane: pixels,
                                channels: panel.min(geometry.outputs - index * panel),
                            });
                        }
                    }
                }
            });
        });
    });
    // SAFETY: the tasks cover all bands of all images, and each all panels.
    unsafe { result.finish() }
}

/// One axis of the gradient of the input.
///
/// Input `i` with `i + before = u stride + r` gets `sum over t of gradient[u - t] weight[r + t stride]`.
#[derive(Clone, Copy, Debug)]
struct Axis {
    input: usize,
    kernel: usize,
    stride: usize,
    before: usize,
}

impl Axis {
    /// Taps of the remainder `r`, in the order of the gradient's positions.
    fn taps(&self, r: usize) -> Vec<usize> {
        let mut taps: Vec<usize> = (r..self.kernel).step_by(self.stride).collect();
        taps.reverse();
        taps
    }

    /// Most taps of any remainder.
    fn most(&self) -> usize {
        self.kernel.div_ceil(self.stride)
    }

    /// First and one past the last `u` of the inputs of the remainder among inputs `first..last`.
    fn range(&self, r: usize, first: usize, last: usize) -> (usize, usize) {
        let bound = |i: usize| (i + self.before).saturating_sub(r).div_ceil(self.stride);
        (bound(first), bound(last).max(bound(first)))
    }
}

/// Gradient of the input.
pub(crate) fn input_gradient(geometry: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (panel, vector) = (panel_width(), vector_width());
    let panels = geometry.channels.div_ceil(panel);
    let outputs = geometry.outputs;
    let [height, width] = geometry.input;
    let axes = [0, 1].map(|axis| Axis {
        input: geometry.input[axis],
        kernel: geometry.kernel[axis],
        stride: geometry.stride[axis],
        before: geometry.before[axis],
    });
    let [vertical, horizontal] = axes;
    // The remainders that have taps; inputs of the others get nothing.
    let mut phases = Vec::new();
    let mut offset = 0;
    for r in 0..vertical.stride {
        for s in 0..horizontal.stride {
            let taps = Taps {
                vertical: vertical.taps(r),
                horizontal: horizontal.taps(s),
            };
            if taps.count() > 0 {
                let length = panels * taps.count() * outputs * panel;
                phases.push((r, s, taps, offset));
                offset += length;
            }
        }
    }
    let gaps = phases.len() < vertical.stride * horizontal.stride;
    // Zeros before the gradient, so that `u - t` is never negative, and behind, up to the last `u`.
    let last = axes.map(|axis| (axis.input - 1 + axis.before) / axis.stride + 1);
    let band = Band {
        channels: outputs,
        size: geometry.output,
        before: axes.map(|axis| axis.most() - 1),
        columns: last[1] + horizontal.most() - 1,
        pixel: outputs,
    };
    // Bands of input rows.
    let per_band =
        rows_per_band(height.div_ceil(vertical.stride), band.row(), width * vertical.stride) * vertical.stride;
    let bands = height.div_ceil(per_band);
    let band_rows = per_band / vertical.stride + 1 + vertical.most();
    let pixels = geometry.input_pixels();
    let size = outputs * geometry.output_pixels();
    let mut result = Output::new(geometry.images * geometry.channels * pixels);
    let target = result.pointer();
    with_scratch(offset + LINE, |packed| {
        let packed = SharedPointer::of(aligned(packed));
        for (_, _, taps, offset) in &phases {
            // SAFETY: the phases' parts lie one behind the other, each with room for all panels.
            unsafe { pack_phase(geometry, taps, weight, SharedPointer::of(packed.at(*offset))) };
        }
        (0..geometry.images * bands).into_par_iter().for_each(|task| {
            let (image, first) = (task / bands, task % bands * per_band);
            let rows = per_band.min(height - first);
            let copy = band.length(band_rows);
            let product = per_band * width * panel;
            let length = copy + product + Interleave::scratch(geometry.output[1], vector) + LINE;
            with_scratch(length, |scratch| {
                let copied = aligned(scratch);
                // The band's first row is that of the smallest `u` with the most taps.
                let low = (first + vertical.before) / vertical.stride;
                let high = (first + rows - 1 + vertical.before) / vertical.stride;
                // SAFETY: three parts of the scratch, one behind the other; the band has rows for `low..=high` and the
                // taps before them, at most `band_rows`. The planes' rows are this task's.
                unsafe {
                    let product = copied.add(copy);
                    let strip = product.add(per_band * width * panel);
                    let gradient = &gradient[image * size..][..size];
                    let count = high - low + vertical.most();
                    assert!(count <= band_rows, "rows of the band");
                    band.copy(gradient, low, count, copied, strip);
                    for index in 0..panels {
                        if gaps {
                            std::ptr::write_bytes(product, 0, rows * width * panel);
                        }
                        for (r, s, taps, offset) in &phases {
                            let (top, bottom) = vertical.range(*r, first, first + rows);
                            let (left, right) = horizontal.range(*s, 0, width);
                            if top == bottom || left == right {
                                continue;
                            }
                            let run = taps.horizontal.len() * outputs;
                            let length = taps.count() * outputs * panel;
                            let row = top - low + vertical.most() - taps.vertical.len();
                            let column = left + horizontal.most() - taps.horizontal.len();
                            let y = top * vertical.stride + r - vertical.before - first;
                            let x = left * horizontal.stride + s - horizontal.before;
                            multiply(Product {
                                rows: [bottom - top, right - left],
                                panels: 1,
                                terms: [taps.vertical.len(), run],
                                left: copied.add(row * band.row() + column * outputs),
                                left_row: [band.row(), outputs],
                                left_term: [band.row(), 1],
                                right: packed.at(offset + index * length),
                                right_panel: 0,
                                right_term: [run * panel, panel],
                                target: product.add((y * width + x) * panel),
                                target_panel: 0,
                                target_row: [vertical.stride * width * panel, horizontal.stride * panel],
                                accumulate: false,
                            });
                        }
                        separate(Planes {
                            source: product,
                            pixels: rows * width,
                            bias: std::ptr::null(),
                            target: target.at((image * geometry.channels + index * panel) * pixels + first * width),
                            plane: pixels,
                            channels: panel.min(geometry.channels - index * panel),
                        });
                    }
                }
            });
        });
    });
    // SAFETY: the tasks cover all bands of all images, and each all panels.
    unsafe { result.finish() }
}

/// Gradient of the weight.
///
/// Each task has its own part of the weight and takes the images in order, so that there are no partial sums to add.
pub(crate) fn weight_gradient(geometry: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let (panel, vector) = (panel_width(), vector_width());
    let panels = geometry.outputs.div_ceil(panel);
    let [kernel_height, kernel_width] = geometry.kernel;
    let [height, width] = geometry.output;
    let [stride_y, stride_x] = geometry.stride;
    let channels = geometry.channels;
    // Pixels a power of two apart would all fall into the same few sets of the cache, so they are spaced, and each tap has
    // its run; else all taps of a row have one run together.
    let spaced = channels.is_multiple_of(LINE);
    let pixel = if spaced { channels + LINE } else { channels };
    let (runs, run) = if spaced {
        (kernel_width, channels)
    } else {
        (1, kernel_width * channels)
    };
    let band = Band {
        channels,
        size: geometry.input,
        before: geometry.before,
        columns: (width - 1) * stride_x + kernel_width,
        pixel,
    };
    let band_rows = (height - 1) * stride_y + kernel_height;
    let pixels = geometry.output_pixels();
    let copy = band.length(band_rows);
    let gradient_panel = pixels * panel + LINE;
    let per_image = copy + panels * gradient_panel;
    let per_batch = (BATCH_BYTES / (4 * per_image)).clamp(1, geometry.images);
    let per_batch = geometry.images.div_ceil(geometry.images.div_ceil(per_batch));
    let chunks = run.div_ceil(GRADIENT_ROWS);
    let chunk = run.div_ceil(chunks);
    let chunks = run.div_ceil(chunk);
    // Panels that share a task read the image once from the outer cache; fewer where tasks would be too few.
    let parts = kernel_height * runs * chunks;
    let per_group = (parts * panels / LEAST_TASKS).clamp(1, PANELS);
    let groups = panels.div_ceil(per_group);
    let size = channels * geometry.input_pixels();
    let gradient_size = geometry.outputs * pixels;
    // `[panel][vertical tap][horizontal tap, channel][output]`.
    let taps = kernel_height * kernel_width;
    let sums_panel = taps * channels * panel;
    let mut result = Output::new(geometry.outputs * taps * channels);
    let target = result.pointer();
    with_scratch(per_batch * per_image + panels * sums_panel + LINE, |shared| {
        let copies = SharedPointer::of(aligned(shared));
        // SAFETY: behind the images of a batch.
        let sums = SharedPointer::of(unsafe { copies.at(per_batch * per_image) });
        for first in (0..geometry.images).step_by(per_batch) {
            let count = per_batch.min(geometry.images - first);
            (0..count).into_par_iter().for_each(|slot| {
                let width = geometry.input[1].max(geometry.output[1]);
                with_scratch(Interleave::scratch(width, vector) + LINE, |scratch| {
                    let scratch = aligned(scratch);
                    // SAFETY: each task writes the parts of its own image.
                    unsafe {
                        let copied = copies.at(slot * per_image);
                        band.copy(&x[(first + slot) * size..][..size], 0, band_rows, copied, scratch);
                        interleave(Interleave {
                            source: gradient[(first + slot) * gradient_size..][..gradient_size].as_ptr(),
                            plane: pixels,
                            channels: geometry.outputs,
                            rows: height,
                            width: geometry.output[1],
                            columns: geometry.output[1],
                            scratch,
                            target: copied.add(copy),
                            row: geometry.output[1] * panel,
                            pixel: panel,
                            panel: gradient_panel,
                            panels,
                        });
                    }
                });
            });
            (0..parts * groups).into_par_iter().for_each(|task| {
                let (part, group) = (task / groups, task % groups);
                let (tap, start) = (part / chunks, part % chunks * chunk);
                let (vertical, horizontal) = (tap / runs, tap % runs);
                let index = group * per_group;
                for slot in 0..count {
                    // SAFETY: the images are only read; each task has its own part of the sums.
                    unsafe {
                        let copied = copies.at(slot * per_image);
                        multiply(Product {
                            rows: [1, chunk.min(run - start)],
                            panels: per_group.min(panels - index),
                            terms: [height, width],
                            left: copied.add(vertical * band.row() + horizontal * pixel + start),
                            left_row: [0, 1],
                            left_term: [stride_y * band.row(), stride_x * pixel],
                            right: copied.add(copy + index * gradient_panel),
                            right_panel: gradient_panel,
                            right_term: [width * panel, panel],
                            target: sums.at(index * sums_panel + (tap * run + start) * panel),
                            target_panel: sums_panel,
                            target_row: [0, panel],
                            accumulate: first + slot > 0,
                        });
                    }
                }
            });
        }
        (0..panels).into_par_iter().for_each(|index| {
            with_scratch(PanelWeights::scratch(taps, vector) + LINE, |scratch| {
                // SAFETY: all sums have been written; each task writes the weights of its panel.
                unsafe {
                    unpack_weights(PanelWeights {
                        planes: target.at(index * panel * taps * channels),
                        step: taps * channels,
                        outputs: panel.min(geometry.outputs - index * panel),
                        channels,
                        taps,
                        packed: sums.at(index * sums_panel),
                        scratch: aligned(scratch),
                    });
                }
            });
        });
    });
    // SAFETY: the tasks cover all panels of outputs.
    unsafe { result.finish() }
}
