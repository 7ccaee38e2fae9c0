//! The transforms of Winograd's F(4x4, 3x3), one vector of channels at a time.
//!
//! The interpolation points are 0, +-1/sqrt(2), +-sqrt(2) and infinity. The error is about a fourth of that with the points
//! 0, +-1, +-2 of Lavin & Gray, Fast Algorithms for Convolutional Neural Networks, 2016, at the same cost. A plane of channels first becomes a strip in which the channels of a vector lie side by side, so
//! that no width of image leaves lanes empty.

use crate::simd::{Lanes, multiversion};
use crate::strips::{gather, scatter};

/// Outputs per side of a tile.
pub(crate) const TILE: usize = 4;
/// Inputs per side of a tile.
pub(crate) const SIDE: usize = 6;
/// Products per tile.
pub(crate) const POSITIONS: usize = SIDE * SIDE;

/// The points are `0`, `INNER`, `-INNER`, `OUTER`, `-OUTER` and infinity.
const INNER: f32 = std::f32::consts::FRAC_1_SQRT_2;
const OUTER: f32 = std::f32::consts::SQRT_2;

/// `B^T d` for a column of six inputs, `A y` for one of four output gradients.
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
unsafe fn forward_transform<L: Lanes, const SIZE: usize>(d: [L; SIZE]) -> [L; SIDE] {
    // SAFETY: the caller's contract.
    unsafe {
        let [half, two, inner, outer] = [0.5, 2.0, INNER, OUTER].map(|value| L::splat(value));
        if SIZE == SIDE {
            let [minus_half, minus_two, minus_middle] = [-0.5, -2.0, -2.5].map(|value| L::splat(value));
            let even = minus_two.mul_add(d[2], d[4]);
            let odd = minus_two.mul_add(d[1], d[3]).mul(inner);
            let even_outer = minus_half.mul_add(d[2], d[4]);
            let odd_outer = minus_half.mul_add(d[1], d[3]).mul(outer);
            [
                minus_middle.mul_add(d[2], d[0].add(d[4])),
                even.add(odd),
                even.sub(odd),
                even_outer.add(odd_outer),
                even_outer.sub(odd_outer),
                minus_middle.mul_add(d[3], d[1].add(d[5])),
            ]
        } else {
            let even = half.mul_add(d[2], d[0]);
            let odd = half.mul_add(d[3], d[1]).mul(inner);
            let even_outer = two.mul_add(d[2], d[0]);
            let odd_outer = two.mul_add(d[3], d[1]).mul(outer);
            [
                d[0],
                even.add(odd),
                even.sub(odd),
                even_outer.add(odd_outer),
                even_outer.sub(odd_outer),
                d[3],
            ]
        }
    }
}

/// `A^T m`.
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
unsafe fn output_transform<L: Lanes>(m: [L; SIDE]) -> [L; TILE] {
    // SAFETY: the caller's contract.
    unsafe {
        let [half, two, inner, outer] = [0.5, 2.0, INNER, OUTER].map(|value| L::splat(value));
        let (even, odd) = (m[1].add(m[2]), m[1].sub(m[2]).mul(inner));
        let (even_outer, odd_outer) = (m[3].add(m[4]), m[3].sub(m[4]).mul(outer));
        [
            m[0].add(even).add(even_outer),
            odd.add(odd_outer),
            half.mul_add(even, two.mul(even_outer)),
            half.mul_add(odd, two.mul_add(odd_outer, m[5])),
        ]
    }
}

/// `G g`.
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
unsafe fn kernel_transform<L: Lanes>(g: [L; 3]) -> [L; SIDE] {
    // SAFETY: the caller's contract.
    unsafe {
        let even = L::splat(0.5).mul_add(g[2], g[0]).mul(L::splat(-2.0 / 3.0));
        let odd = g[1].mul(L::splat(-2.0 / 3.0 * INNER));
        let even_outer = L::splat(2.0).mul_add(g[2], g[0]).mul(L::splat(1.0 / 6.0));
        let odd_outer = g[1].mul(L::splat(OUTER / 6.0));
        [
            g[0],
            even.add(odd),
            even.sub(odd),
            even_outer.add(odd_outer),
            even_outer.sub(odd_outer),
            g[2],
        ]
    }
}

/// `G^T u`.
///
/// # Safety
/// The processor has the instruction set.
#[inline(always)]
unsafe fn kernel_gradient_transform<L: Lanes>(u: [L; SIDE]) -> [L; 3] {
    // SAFETY: the caller's contract.
    unsafe {
        let (even, odd) = (u[1].add(u[2]), u[1].sub(u[2]));
        let (even_outer, odd_outer) = (u[3].add(u[4]), u[3].sub(u[4]));
        let first = L::splat(-2.0 / 3.0).mul_add(even, u[0]);
        [
            L::splat(1.0 / 6.0).mul_add(even_outer, first),
            L::splat(-2.0 / 3.0 * INNER).mul_add(odd, L::splat(OUTER / 6.0).mul(odd_outer)),
            L::splat(1.0 / 3.0).mul_add(even_outer.sub(even), u[5]),
        ]
    }
}

/// One row of an image's tiles, on its way to `target[position][tile][channel]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PatchRow {
    /// Plane of the first channel, floats from plane to plane.
    pub(crate) source: *const f32,
    pub(crate) plane: usize,
    pub(crate) channels: usize,
    /// Height and width of a plane.
    pub(crate) size: [usize; 2],
    /// First row and column of the first patch; what lies outside of the plane is 0.
    pub(crate) corner: [isize; 2],
    pub(crate) tiles: usize,
    /// [`PatchRow::scratch`] floats.
    pub(crate) scratch: *mut f32,
    pub(crate) target: *mut f32,
    /// Panels of two vectors that are written, zeros where there are no more channels.
    pub(crate) panels: usize,
    /// Floats from panel to panel, from tile to tile, and from position to position.
    pub(crate) panel: usize,
    pub(crate) tile: usize,
    pub(crate) position: usize,
}

impl PatchRow {
    /// Floats of scratch.
    pub(crate) fn scratch(width: usize, tiles: usize, vector: usize) -> usize {
        SIDE * vector * (width + TILE * tiles + 2)
    }
}

multiversion! {
    /// `B^T d B` of patches of six by six inputs.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say, and no other thread touches scratch or target.
    pub(crate) unsafe fn transform_inputs = transform_inputs_with(row: PatchRow)
}

multiversion! {
    /// `A y A^T` of patches of four by four output gradients.
    ///
    /// # Safety
    /// As for [`transform_inputs`].
    pub(crate) unsafe fn transform_gradients = transform_gradients_with(row: PatchRow)
}

#[inline(always)]
unsafe fn transform_inputs_with<L: Lanes>(row: PatchRow) {
    // SAFETY: the caller's contract.
    unsafe { transform_patches::<L, SIDE>(row) }
}

#[inline(always)]
unsafe fn transform_gradients_with<L: Lanes>(row: PatchRow) {
    // SAFETY: the caller's contract.
    unsafe { transform_patches::<L, TILE>(row) }
}

/// # Safety
/// As for [`transform_inputs`], with patches of `SIZE`.
#[inline(always)]
unsafe fn transform_patches<L: Lanes, const SIZE: usize>(row: PatchRow) {
    let [height, width] = row.size;
    let columns = TILE * (row.tiles - 1) + SIZE;
    // The rows of the plane that the patches see.
    let clip = |y: isize| y.clamp(0, height as isize) as usize;
    let (first, last) = (clip(row.corner[0]), clip(row.corner[0] + SIZE as isize));
    let above = (first as isize - row.corner[0]).clamp(0, SIZE as isize) as usize;
    for vector in 0..2 * row.panels {
        let channel = vector * L::WIDTH;
        let lanes = row.channels.saturating_sub(channel).min(L::WIDTH);
        // SAFETY: `strip` is `[SIZE][width][WIDTH]`, `vertical` `[SIDE][columns][WIDTH]`, both within the scratch; the
        // rest is the caller's contract.
        unsafe {
            let strip = row.scratch;
            let vertical = strip.add(SIDE * width * L::WIDTH);
            if lanes == 0 || last - first < SIZE {
                std::ptr::write_bytes(strip, 0, SIZE * width * L::WIDTH);
            }
            if last > first && lanes > 0 {
                gather::<L>(
                    row.source.add(channel * row.plane + first * width),
                    row.plane,
                    lanes,
                    (last - first) * width,
                    strip.add(above * width * L::WIDTH),
                    L::WIDTH,
                );
            }
            for column in 0..columns {
                let x = row.corner[1] + column as isize;
                let target = vertical.add(column * L::WIDTH);
                if x < 0 || x >= width as isize {
                    for i in 0..SIDE {
                        L::splat(0.0).store(target.add(i * columns * L::WIDTH));
                    }
                    continue;
                }
                let mut values = [L::splat(0.0); SIZE];
                for (i, value) in values.iter_mut().enumerate() {
                    *value = L::load(strip.add((i * width + x as usize) * L::WIDTH));
                }
                for (i, value) in forward_transform::<L, SIZE>(values).into_iter().enumerate() {
                    value.store(target.add(i * columns * L::WIDTH));
                }
            }
            let target = row.target.add(vector / 2 * row.panel + vector % 2 * L::WIDTH);
            for tile in 0..row.tiles {
                for i in 0..SIDE {
                    let source = vertical.add((i * columns + TILE * tile) * L::WIDTH);
                    let mut values = [L::splat(0.0); SIZE];
                    for (j, value) in values.iter_mut().enumerate() {
                        *value = L::load(source.add(j * L::WIDTH));
                    }
                    let target = target.add(tile * row.tile + i * SIDE * row.position);
                    for (j, value) in forward_transform::<L, SIZE>(values).into_iter().enumerate() {
                        value.store(target.add(j * row.position));
                    }
                }
            }
        }
    }
}

/// One row of an image's tiles, on its way from `source[position][tile][output]`, one panel, to the output's planes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutputRow {
    pub(crate) source: *const f32,
    pub(crate) tile: usize,
    pub(crate) position: usize,
    pub(crate) tiles: usize,
    /// `[4 width][vector]`.
    pub(crate) scratch: *mut f32,
    /// Bias of a whole panel, or null.
    pub(crate) bias: *const f32,
    /// First row of the tiles in the plane of the first output.
    pub(crate) target: *mut f32,
    pub(crate) plane: usize,
    /// Outputs, at most a panel of them.
    pub(crate) outputs: usize,
    /// Rows of the plane that the tiles have, at most four, and its width.
    pub(crate) rows: usize,
    pub(crate) width: usize,
}

multiversion! {
    /// `A^T m A`, plus the bias.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say, and no other thread touches scratch or target.
    pub(crate) unsafe fn transform_outputs = transform_outputs_with(row: OutputRow)
}

#[inline(always)]
unsafe fn transform_outputs_with<L: Lanes>(row: OutputRow) {
    for vector in 0..row.outputs.div_ceil(L::WIDTH) {
        let output = vector * L::WIDTH;
        // SAFETY: the strip is `[rows][width][WIDTH]`; the rest is the caller's contract.
        unsafe {
            let bias = if row.bias.is_null() {
                L::splat(0.0)
            } else {
                L::load(row.bias.add(output))
            };
            for tile in 0..row.tiles {
                let source = row.source.add(tile * row.tile + output);
                let mut horizontal = [[bias; TILE]; SIDE];
                for (i, horizontal) in horizontal.iter_mut().enumerate() {
                    let mut values = [bias; SIDE];
                    for (j, value) in values.iter_mut().enumerate() {
                        *value = L::load(source.add((i * SIDE + j) * row.position));
                    }
                    *horizontal = output_transform(values);
                }
                // Constant bounds, so that all of this stays in registers.
                for j in 0..TILE {
                    if j >= row.width - TILE * tile {
                        break;
                    }
                    let mut values = [bias; SIDE];
                    for (value, horizontal) in values.iter_mut().zip(&horizontal) {
                        *value = horizontal[j];
                    }
                    let strip = row.scratch.add((TILE * tile + j) * L::WIDTH);
                    let column = output_transform(values);
                    for (i, value) in column.into_iter().enumerate() {
                        if i < row.rows {
                            value.add(bias).store(strip.add(i * row.width * L::WIDTH));
                        }
                    }
                }
            }
            scatter::<L>(
                row.scratch,
                L::WIDTH,
                row.rows * row.width,
                row.target.add(output * row.plane),
                row.plane,
                L::WIDTH.min(row.outputs - output),
            );
        }
    }
}

/// The kernels of one panel of outputs, on their way to `target[position][channel][output]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    /// `[outputs][channels][3][3]`, with `step` floats between outputs.
    pub(crate) source: *const f32,
    pub(crate) step: usize,
    pub(crate) outputs: usize,
    pub(crate) channels: usize,
    /// `[9 KERNEL_STRIP][vector]`.
    pub(crate) scratch: *mut f32,
    pub(crate) target: *mut f32,
    pub(crate) position: usize,
}

/// Channels whose kernels are transformed at a time.
pub(crate) const KERNEL_STRIP: usize = 32;

multiversion! {
    /// `G g G^T`; outputs that the panel has too many become 0.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say, and no other thread touches scratch or target.
    pub(crate) unsafe fn transform_kernels = transform_kernels_with(kernels: Kernels)
}

#[inline(always)]
unsafe fn transform_kernels_with<L: Lanes>(kernels: Kernels) {
    for vector in 0..2 {
        let output = vector * L::WIDTH;
        let lanes = kernels.outputs.saturating_sub(output).min(L::WIDTH);
        for first in (0..kernels.channels).step_by(KERNEL_STRIP) {
            let count = KERNEL_STRIP.min(kernels.channels - first);
            // SAFETY: the caller's contract; without lanes the source is not read, and its address stays within the
            // weight because it is that of the panel.
            unsafe {
                let source = if lanes == 0 {
                    kernels.source
                } else {
                    kernels.source.add(output * kernels.step + first * 9)
                };
                gather::<L>(source, kernels.step, lanes, count * 9, kernels.scratch, L::WIDTH);
                for channel in 0..count {
                    let strip = kernels.scratch.add(channel * 9 * L::WIDTH);
                    let mut half = [[L::splat(0.0); SIDE]; 3];
                    for (j, half) in half.iter_mut().enumerate() {
                        let mut values = [L::splat(0.0); 3];
                        for (i, value) in values.iter_mut().enumerate() {
                            *value = L::load(strip.add((3 * i + j) * L::WIDTH));
                        }
                        *half = kernel_transform(values);
                    }
                    let target = kernels.target.add((first + channel) * 2 * L::WIDTH + output);
                    let [first, second, third] = half;
                    let columns = first.into_iter().zip(second).zip(third);
                    for (i, ((first, second), third)) in columns.enumerate() {
                        let row = kernel_transform([first, second, third]);
                        for (j, value) in row.into_iter().enumerate() {
                            value.store(target.add((SIDE * i + j) * kernels.position));
                        }
                    }
                }
            }
        }
    }
}

/// Sums `[position][channel][output]` of one panel of outputs, on their way to the gradient of the kernels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KernelSums {
    pub(crate) source: *const f32,
    pub(crate) position: usize,
    pub(crate) channels: usize,
    /// `[9 channels][vector]`.
    pub(crate) scratch: *mut f32,
    /// `[outputs][channels][3][3]`, with `step` floats between outputs.
    pub(crate) target: *mut f32,
    pub(crate) step: usize,
    pub(crate) outputs: usize,
}

multiversion! {
    /// `G^T u G`.
    ///
    /// # Safety
    /// The pointers have room for what the sizes say, and no other thread touches scratch or target.
    pub(crate) unsafe fn transform_kernel_sums = transform_kernel_sums_with(sums: KernelSums)
}

#[inline(always)]
unsafe fn transform_kernel_sums_with<L: Lanes>(sums: KernelSums) {
    for vector in 0..sums.outputs.div_ceil(L::WIDTH) {
        let output = vector * L::WIDTH;
        // SAFETY: the caller's contract.
        unsafe {
            for channel in 0..sums.channels {
                let source = sums.source.add(channel * 2 * L::WIDTH + output);
                let mut half = [[L::splat(0.0); SIDE]; 3];
                for j in 0..SIDE {
                    let mut values = [L::splat(0.0); SIDE];
                    for (i, value) in values.iter_mut().enumerate() {
                        *value = L::load(source.add((SIDE * i + j) * sums.position));
                    }
                    for (half, value) in half.iter_mut().zip(kernel_gradient_transform(values)) {
                        half[j] = value;
                    }
                }
                for (i, half) in half.into_iter().enumerate() {
                    for (j, value) in kernel_gradient_transform(half).into_iter().enumerate() {
                        value.store(sums.scratch.add((channel * 9 + 3 * i + j) * L::WIDTH));
                    }
                }
            }
            scatter::<L>(
                sums.scratch,
                L::WIDTH,
                9 * sums.channels,
                sums.target.add(output * sums.step),
                sums.step,
                L::WIDTH.min(sums.outputs - output),
            );
        }
    }
}
