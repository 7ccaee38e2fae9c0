//! Single-threaded products of small matrices that need no packing of the left side.
//!
//! The convolutions prepare their operands in the order the micro-kernel reads them: the right side in panels of
//! [`panel_width`] columns, the left side with either its rows or its terms next to each other. A general product
//! would copy both once more.

use crate::simd::{Lanes, multiversion};

/// Vectors per panel.
const VECTORS: usize = 2;
/// Terms of the sum taken at a time: a panel's part of `TERMS * 32` floats stays in the first-level cache.
const TERMS: usize = 192;
/// Most rows of the micro-kernel with 32 vector registers, and with 16.
const ROWS: [usize; 2] = [12, 6];

/// Columns of a panel on this processor.
pub(crate) fn panel_width() -> usize {
    VECTORS * vector_width()
}

/// Floats of a vector on this processor.
pub(crate) fn vector_width() -> usize {
    #[cfg(target_arch = "x86_64")]
    if crate::simd::level() == crate::simd::Level::Avx512 {
        return 16;
    }
    8
}

/// `target[g][i][j] (+)= sum over a, b of left[g][i][a][b] right[a][b][j]`, all panels of `j`.
///
/// Rows and sum have two indices each, so that a convolution's rows of pixels or taps need not lie next to each other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Product {
    /// Counts of the outer and inner index of the rows.
    pub(crate) rows: [usize; 2],
    pub(crate) panels: usize,
    /// Counts of the outer and inner index of the sum.
    pub(crate) terms: [usize; 2],
    pub(crate) left: *const f32,
    /// Floats from row to row, outer and inner.
    pub(crate) left_row: [usize; 2],
    /// Floats from one term to the next, outer and inner. The inner step or the step between rows should be 1.
    pub(crate) left_term: [usize; 2],
    pub(crate) right: *const f32,
    /// Floats from panel to panel.
    pub(crate) right_panel: usize,
    pub(crate) right_term: [usize; 2],
    pub(crate) target: *mut f32,
    pub(crate) target_panel: usize,
    pub(crate) target_row: [usize; 2],
    /// Whether the target's values are added to.
    pub(crate) accumulate: bool,
}

multiversion! {
    /// Runs the product.
    ///
    /// # Safety
    /// All floats that the strides reach must lie within their allocations, panels with all their
    /// [`panel_width`] columns, and no other thread may write the target.
    pub(crate) unsafe fn multiply = multiply_with(product: Product)
}

#[inline(always)]
unsafe fn multiply_with<L: Lanes>(product: Product) {
    let most = ROWS[usize::from(L::WIDTH < 16)];
    let [groups, rows] = product.rows;
    let blocks = rows.div_ceil(most).max(1);
    // Blocks of nearly the same size: a last one with a row or two would leave the adders waiting.
    let (low, more) = (rows / blocks, rows % blocks);
    let [outer, inner] = product.terms;
    let inner_step = inner.div_ceil(inner.div_ceil(TERMS).max(1)).max(1);
    let most_outer = (TERMS / inner.max(1)).max(1);
    let outer_step = outer.div_ceil(outer.div_ceil(most_outer).max(1)).max(1);
    for panel in 0..product.panels {
        // SAFETY: the caller's contract, for the whole of this loop: every offset is one of those the strides reach.
        unsafe {
            let right = product.right.add(panel * product.right_panel);
            let target = product.target.add(panel * product.target_panel);
            for a in (0..outer).step_by(outer_step) {
                for b in (0..inner).step_by(inner_step) {
                    for group in 0..groups {
                        let left = product.left.add(group * product.left_row[0]);
                        let mut tile = Tile {
                            terms: [outer_step.min(outer - a), inner_step.min(inner - b)],
                            left: left.add(a * product.left_term[0] + b * product.left_term[1]),
                            left_row: product.left_row[1],
                            left_term: product.left_term,
                            right: right.add(a * product.right_term[0] + b * product.right_term[1]),
                            right_term: product.right_term,
                            target: target.add(group * product.target_row[0]),
                            target_row: product.target_row[1],
                            accumulate: product.accumulate || a > 0 || b > 0,
                        };
                        for block in 0..blocks {
                            let rows = low + usize::from(block < more);
                            tile.run_rows::<L>(rows);
                            tile.left = tile.left.add(rows * tile.left_row);
                            tile.target = tile.target.add(rows * tile.target_row);
                        }
                    }
                }
            }
        }
    }
}

/// One micro-kernel call.
#[derive(Clone, Copy)]
struct Tile {
    terms: [usize; 2],
    left: *const f32,
    left_row: usize,
    left_term: [usize; 2],
    right: *const f32,
    right_term: [usize; 2],
    target: *mut f32,
    target_row: usize,
    accumulate: bool,
}

impl Tile {
    /// # Safety
    /// As for [`multiply`].
    #[inline(always)]
    unsafe fn run_rows<L: Lanes>(&self, rows: usize) {
        // SAFETY: the caller's contract.
        unsafe {
            match rows {
                1 => self.run::<L, 1>(),
                2 => self.run::<L, 2>(),
                3 => self.run::<L, 3>(),
                4 => self.run::<L, 4>(),
                5 => self.run::<L, 5>(),
                6 => self.run::<L, 6>(),
                7 => self.run::<L, 7>(),
                8 => self.run::<L, 8>(),
                9 => self.run::<L, 9>(),
                10 => self.run::<L, 10>(),
                11 => self.run::<L, 11>(),
                12 => self.run::<L, 12>(),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As for [`multiply`], for `ROWS` rows.
    #[inline(always)]
    unsafe fn run<L: Lanes, const ROWS: usize>(&self) {
        // SAFETY: the caller's contract.
        unsafe {
            if self.left_row == 1 {
                self.sum::<L, ROWS>(1, self.left_term[1]);
            } else if self.left_term[1] == 1 {
                self.sum::<L, ROWS>(self.left_row, 1);
            } else {
                self.sum::<L, ROWS>(self.left_row, self.left_term[1]);
            }
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn sum<L: Lanes, const ROWS: usize>(&self, row: usize, step: usize) {
        // SAFETY: the caller's contract: the pointers move by the strides only.
        unsafe {
            let mut sums = [[L::splat(0.0); VECTORS]; ROWS];
            for outer in 0..self.terms[0] {
                let mut left = self.left.add(outer * self.left_term[0]);
                let mut right = self.right.add(outer * self.right_term[0]);
                for _ in 0..self.terms[1] {
                    let mut vectors = [L::splat(0.0); VECTORS];
                    for (v, vector) in vectors.iter_mut().enumerate() {
                        *vector = L::load(right.add(v * L::WIDTH));
                    }
                    for (i, sums) in sums.iter_mut().enumerate() {
                        let factor = L::splat(*left.add(i * row));
                        for (sum, vector) in sums.iter_mut().zip(vectors) {
                            *sum = factor.mul_add(vector, *sum);
                        }
                    }
                    left = left.wrapping_add(step);
                    right = right.wrapping_add(self.right_term[1]);
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                let target = self.target.add(i * self.target_row);
                for (v, sum) in sums.iter().enumerate() {
                    let target = target.add(v * L::WIDTH);
                    let sum = if self.accumulate {
                        sum.add(L::load(target))
                    } else {
                        *sum
                    };
                    sum.store(target);
                }
            }
        }
    }
}
