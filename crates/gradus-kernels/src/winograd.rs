//! Three by three convolutions of stride 1 by Winograd's minimal filtering F(4x4, 3x3): a quarter of the multiplications.
//!
//! Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, 2016: `Y = A^T [(G g G^T) * (B^T d B)] A` for each tile
//! of four by four outputs, where the sum over channels is a matrix product for each of the 36 positions. The gradient
//! of the input is the same with the kernels turned around; the gradient of the kernels is the adjoint,
//! `G^T [sum over tiles of (B^T d B) * (A y A^T)] G`.
//!
//! The error stays within single precision: on random data of 64 to 512 channels about 2e-6 of the largest output or
//! gradient, against 4e-7 of a plain sum; the tests hold it below 5e-6. Inputs that are not finite make the whole tile, not
//! only the outputs that see them, not finite.
//!
//! Tiles are taken in batches whose transformed inputs stay in the last-level cache. Within a batch, tasks transform the rows of
//! tiles; then each task takes one panel of outputs, transforms its kernels, multiplies, and transforms back.

use rayon::prelude::*;

use crate::geometry::Geometry;
use crate::memory::{LINE, Output, SharedPointer, aligned, with_scratch};
use crate::product::{Product, multiply, panel_width, vector_width};
use crate::winograd_transforms::{
    KERNEL_STRIP, KernelSums, Kernels, OutputRow, POSITIONS, PatchRow, TILE, transform_gradients, transform_inputs,
    transform_kernel_sums, transform_kernels, transform_outputs,
};

/// Bytes of transformed inputs per batch: at least this much, at most that, and as much as the transformed kernels.
const BATCH_BYTES: [usize; 2] = [4 << 20, 16 << 20];
/// Bytes of transformed inputs and gradients per batch of the gradient of the kernels.
const GRADIENT_BATCH_BYTES: usize = 16 << 20;
/// Tiles per product, about: enough to be worth transforming a panel's kernels again, few enough for the cache.
const PRODUCT_TILES: usize = 96;
/// Most channels per task of the gradient of the kernels.
const GRADIENT_CHANNELS: usize = 64;
/// Channels and outputs below which the transforms cost more than they save.
const LEAST_CHANNELS: usize = 16;
/// Tiles below which reading the transformed kernels costs more than the products save.
const LEAST_TILES: usize = 16;

/// Sizes of a convolution with three by three taps and stride 1.
#[derive(Clone, Copy, Debug)]
struct Layer {
    images: usize,
    channels: usize,
    input: [usize; 2],
    outputs: usize,
    output: [usize; 2],
    /// Zeros before the first row and column; negative where they are cut off.
    before: [isize; 2],
}

/// Whether the convolution is one of those that gain.
pub(crate) fn applies(geometry: &Geometry) -> bool {
    geometry.groups == 1
        && geometry.kernel == [3; 2]
        && geometry.stride == [1; 2]
        && geometry.dilation == [1; 2]
        && geometry.channels >= LEAST_CHANNELS
        && geometry.outputs >= LEAST_CHANNELS
        && geometry.output.iter().chain(&geometry.input).all(|size| *size > 2)
        && geometry.images
            * geometry
                .output
                .iter()
                .map(|size| size.div_ceil(TILE))
                .product::<usize>()
            >= LEAST_TILES
}

impl Layer {
    fn new(geometry: &Geometry) -> Self {
        Self {
            images: geometry.images,
            channels: geometry.channels,
            input: geometry.input,
            outputs: geometry.outputs,
            output: geometry.output,
            before: geometry.before.map(|before| before as isize),
        }
    }

    /// Rows and columns of tiles in an image.
    fn tiles(&self) -> [usize; 2] {
        self.output.map(|size| size.div_ceil(TILE))
    }

    /// Rows of tiles in all images.
    fn rows(&self) -> usize {
        self.images * self.tiles()[0]
    }

    /// One row of tiles of the input; the pointers are for the caller to fill in.
    fn input_row(&self, x: &[f32], row: usize) -> PatchRow {
        let [vertical, horizontal] = self.tiles();
        let plane = self.input[0] * self.input[1];
        let image = row / vertical;
        PatchRow {
            source: x[image * self.channels * plane..][..self.channels * plane].as_ptr(),
            plane,
            channels: self.channels,
            size: self.input,
            corner: [(row % vertical * TILE) as isize - self.before[0], -self.before[1]],
            tiles: horizontal,
            scratch: std::ptr::null_mut(),
            target: std::ptr::null_mut(),
            panels: self.channels.div_ceil(panel_width()),
            panel: panel_width(),
            tile: 0,
            position: 0,
        }
    }
}

/// Floats from tile to tile of transformed inputs.
fn channel_step(channels: usize) -> usize {
    channels.next_multiple_of(panel_width()) + LINE
}

/// Output of the convolution, `[images, outputs, output pixels]`.
pub(crate) fn forward(geometry: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    convolve(&Layer::new(geometry), x, weight, bias)
}

/// Gradient of the input: the convolution of the output's gradient with the kernels turned around.
pub(crate) fn input_gradient(geometry: &Geometry, weight: &[f32], gradient: &[f32]) -> Vec<f32> {
    let layer = Layer::new(geometry);
    let layer = Layer {
        channels: layer.outputs,
        input: layer.output,
        outputs: layer.channels,
        output: layer.input,
        before: layer.before.map(|before| 2 - before),
        ..layer
    };
    let mut turned = Output::new(weight.len());
    let target = turned.pointer();
    (0..layer.outputs).into_par_iter().for_each(|channel| {
        for output in 0..layer.channels {
            let kernel = &weight[(output * layer.outputs + channel) * 9..][..9];
            for (tap, value) in kernel.iter().rev().enumerate() {
                // SAFETY: in bounds; each task writes the kernels of its channel.
                unsafe { target.at((channel * layer.channels + output) * 9 + tap).write(*value) };
            }
        }
    });
    // SAFETY: the tasks cover all kernels.
    let turned = unsafe { turned.finish() };
    convolve(&layer, gradient, &turned, None)
}

fn convolve(layer: &Layer, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    let [vertical, horizontal] = layer.tiles();
    let (panel, vector) = (panel_width(), vector_width());
    let panels = layer.outputs.div_ceil(panel);
    let step = channel_step(layer.channels);
    let kernel_bytes = 4 * POSITIONS * layer.channels * layer.outputs;
    let budget = kernel_bytes.clamp(BATCH_BYTES[0], BATCH_BYTES[1]);
    let per_batch = (budget / (4 * POSITIONS * step * horizontal)).clamp(1, layer.rows());
    let per_batch = layer.rows().div_ceil(layer.rows().div_ceil(per_batch));
    let position = per_batch * horizontal * step + LINE;
    let bias = bias.map(|bias| {
        let mut padded = bias.to_vec();
        padded.resize(panels * panel, 0.0);
        padded
    });
    let plane = layer.output[0] * layer.output[1];
    let mut result = Output::new(layer.images * layer.outputs * plane);
    let target = result.pointer();
    with_scratch(POSITIONS * position + LINE, |inputs| {
        let inputs = SharedPointer::of(aligned(inputs));
        for first in (0..layer.rows()).step_by(per_batch) {
            let count = per_batch.min(layer.rows() - first);
            (0..count).into_par_iter().for_each(|row| {
                with_scratch(
                    PatchRow::scratch(layer.input[1], horizontal, vector) + LINE,
                    |scratch| {
                        // SAFETY: `[36][position]` floats with room for this batch's tiles; each task writes its own row's.
                        unsafe {
                            transform_inputs(PatchRow {
                                scratch: aligned(scratch),
                                target: inputs.at(row * horizontal * step),
                                tile: step,
                                position,
                                ..layer.input_row(x, first + row)
                            });
                        }
                    },
                );
            });
            let pieces = count.div_ceil((PRODUCT_TILES / horizontal).max(1));
            let per_piece = count.div_ceil(pieces);
            let pieces = count.div_ceil(per_piece);
            (0..panels * pieces).into_par_iter().for_each(|task| {
                let (index, piece) = (task / pieces, task % pieces);
                let rows = piece * per_piece..((piece + 1) * per_piece).min(count);
                let outputs = panel.min(layer.outputs - index * panel);
                let tiles = rows.len() * horizontal;
                let kernel_position = layer.channels * panel + LINE;
                let product_position = tiles * panel + LINE;
                let strip = (TILE * layer.output[1]).max(9 * KERNEL_STRIP) * vector;
                let length = POSITIONS * (kernel_position + product_position) + strip + LINE;
                with_scratch(length, |scratch| {
                    let kernels = aligned(scratch);
                    // SAFETY: the three parts of the scratch lie one behind the other; the panels of kernels and
                    // products have all their columns. Output planes are written by the one task that has their
                    // rows of tiles and panel.
                    unsafe {
                        let products = kernels.add(POSITIONS * kernel_position);
                        let strip = products.add(POSITIONS * product_position);
                        let taps = 9 * layer.channels;
                        transform_kernels(Kernels {
                            source: weight[index * panel * taps..][..outputs * taps].as_ptr(),
                            step: taps,
                            outputs,
                            channels: layer.channels,
                            scratch: strip,
                            target: kernels,
                            position: kernel_position,
                        });
                        for i in 0..POSITIONS {
                            multiply(Product {
                                rows: [1, tiles],
                                panels: 1,
                                terms: [1, layer.channels],
                                left: inputs.at(i * position + rows.start * horizontal * step),
                                left_row: [0, step],
                                left_term: [0, 1],
                                right: kernels.add(i * kernel_position),
                                right_panel: 0,
                                right_term: [0, panel],
                                target: products.add(i * product_position),
                                target_panel: 0,
                                target_row: [0, panel],
                                accumulate: false,
                            });
                        }
                        for (slot, row) in rows.enumerate() {
                            let (image, y) = ((first + row) / vertical, (first + row) % vertical * TILE);
                            transform_outputs(OutputRow {
                                source: products.add(slot * horizontal * panel),
                                tile: panel,
                                position: product_position,
                                tiles: horizontal,
                                scratch: strip,
                                bias: bias
                                    .as_ref()
                                    .map_or(std::ptr::null(), |bias| bias[index * panel..].as_ptr()),
                                target: target
                                    .at((image * layer.outputs + index * panel) * plane + y * layer.output[1]),
                                plane,
                                outputs,
                                rows: TILE.min(layer.output[0] - y),
                                width: layer.output[1],
                            });
                        }
                    }
                });
            });
        }
    });
    // SAFETY: the batches and their tasks cover all rows of tiles and panels of outputs.
    unsafe { result.finish() }
}

/// Gradient of the weight.
///
/// Tasks have their own part of the weight, so that there are no partial sums to add; the batches add up in order.
pub(crate) fn weight_gradient(geometry: &Geometry, x: &[f32], gradient: &[f32]) -> Vec<f32> {
    let layer = Layer::new(geometry);
    let [vertical, horizontal] = layer.tiles();
    let (panel, vector) = (panel_width(), vector_width());
    let panels = layer.outputs.div_ceil(panel);
    let step = channel_step(layer.channels);
    let per_row = 4 * POSITIONS * horizontal * (step + panels * panel);
    let per_batch = (GRADIENT_BATCH_BYTES / per_row).clamp(1, layer.rows());
    let batches = layer.rows().div_ceil(per_batch);
    let per_batch = layer.rows().div_ceil(batches);
    let batches = layer.rows().div_ceil(per_batch);
    let most = per_batch * horizontal;
    let input_position = most * step + LINE;
    let gradient_position = most * panels * panel + LINE;
    // Tasks: panels times chunks of channels.
    let chunk = layer.channels.div_ceil(layer.channels.div_ceil(GRADIENT_CHANNELS));
    let chunks = layer.channels.div_ceil(chunk);
    let sum_position = chunk * panel + LINE;
    let sum_length = POSITIONS * sum_position;
    // Sums that outlive a batch; those of a single one stay with their task.
    let kept = if batches > 1 { panels * chunks * sum_length } else { 0 };
    let taps = 9 * layer.channels;
    let mut result = Output::new(layer.outputs * taps);
    let target = result.pointer();
    let length = POSITIONS * (input_position + gradient_position) + kept + LINE;
    with_scratch(length, |shared| {
        let inputs = SharedPointer::of(aligned(shared));
        // SAFETY: parts of the scratch, one behind the other.
        let (gradients, sums) = unsafe {
            let gradients = inputs.at(POSITIONS * input_position);
            (
                SharedPointer::of(gradients),
                SharedPointer::of(gradients.add(POSITIONS * gradient_position)),
            )
        };
        for batch in 0..batches {
            let first = batch * per_batch;
            let count = per_batch.min(layer.rows() - first);
            let tiles = count * horizontal;
            (0..count).into_par_iter().for_each(|row| {
                let width = layer.input[1].max(layer.output[1]);
                with_scratch(PatchRow::scratch(width, horizontal, vector) + LINE, |scratch| {
                    let scratch = aligned(scratch);
                    let input_row = layer.input_row(x, first + row);
                    let plane = layer.output[0] * layer.output[1];
                    let image = (first + row) / vertical;
                    // SAFETY: both shared parts have room for this batch's tiles; each task writes its own row's.
                    unsafe {
                        transform_inputs(PatchRow {
                            scratch,
                            target: inputs.at(row * horizontal * step),
                            tile: step,
                            position: input_position,
                            ..input_row
                        });
                        transform_gradients(PatchRow {
                            source: gradient[image * layer.outputs * plane..][..layer.outputs * plane].as_ptr(),
                            plane,
                            channels: layer.outputs,
                            size: layer.output,
                            corner: [((first + row) % vertical * TILE) as isize, 0],
                            scratch,
                            target: gradients.at(row * horizontal * panel),
                            panels,
                            panel: tiles * panel,
                            tile: panel,
                            position: gradient_position,
                            ..input_row
                        });
                    }
                });
            });
            (0..panels * chunks).into_par_iter().for_each(|task| {
                let (index, start) = (task / chunks, task % chunks * chunk);
                let channels = chunk.min(layer.channels - start);
                let outputs = panel.min(layer.outputs - index * panel);
                let own = if batches > 1 { 0 } else { sum_length };
                with_scratch(own + 9 * chunk * vector + LINE, |scratch| {
                    let scratch = aligned(scratch);
                    // SAFETY: the task's sums, in its scratch or in its part of the shared ones, and its part of the
                    // weight's gradient; the transformed inputs and gradients are only read.
                    unsafe {
                        let sums = if batches > 1 {
                            sums.at(task * sum_length)
                        } else {
                            scratch
                        };
                        for i in 0..POSITIONS {
                            multiply(Product {
                                rows: [1, channels],
                                panels: 1,
                                terms: [1, tiles],
                                left: inputs.at(i * input_position + start),
                                left_row: [0, 1],
                                left_term: [0, step],
                                right: gradients.at(i * gradient_position + index * tiles * panel),
                                right_panel: 0,
                                right_term: [0, panel],
                                target: sums.add(i * sum_position),
                                target_panel: 0,
                                target_row: [0, panel],
                                accumulate: batch > 0,
                            });
                        }
                        if batch + 1 == batches {
                            transform_kernel_sums(KernelSums {
                                source: sums,
                                position: sum_position,
                                channels,
                                scratch: scratch.add(own),
                                target: target.at(index * panel * taps + start * 9),
                                step: taps,
                                outputs,
                            });
                        }
                    }
                });
            });
        }
    });
    // SAFETY: the tasks of the last batch cover all panels of outputs and chunks of channels.
    unsafe { result.finish() }
}
