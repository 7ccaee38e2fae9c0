//! Products of rows of unit length that were rounded to whole numbers of 16 bits: coarser than single precision, and twice
//! as fast where the processor multiplies pairs of them at once (AVX2).
//!
//! A row x becomes q = round(S x), S as large as two conditions allow: every number fits into 16 bits, and the part of q in each
//! block of 64 columns has a length below 2^15.5, rounding (at most 4) included. Then products of two such rows are **exact** within
//! a block: by Cauchy-Schwarz any part of the sum of q_i r_i, in any order, stays below 2^31. Blocks are added in single precision.
//! What is lost is lost by rounding almost alone: with e = q / S - x and f = r / T - y,
//! `|<q, r> / S T - <x, y>| = |<e, y> + <x, f> + <e, f>| <= |e| + |f| + |e| |f|`, and |e| is known for every row.

use rayon::prelude::*;

use crate::vectorized::vectorized;

/// The largest number of 16 bits, less than the opposite of the smallest.
const LARGEST: f64 = 32767.0;

/// Columns whose products are summed in 32 bits.
const BLOCK: usize = 64;

/// The length of a block before rounding: with what rounding adds, half the root of [`BLOCK`], it is below the root of 2^31 - 1.
const BLOCK_LENGTH: f64 = 46335.0;

/// Rows that stand side by side in a [`Line`].
const PANEL: usize = 16;

/// Two neighbouring columns of [`PANEL`] rows, as pairs of 16-bit numbers: what one step of the product reads.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Line([i32; PANEL]);

/// Rows rounded to 16 bits.
#[derive(Clone, Debug, Default)]
pub(super) struct IntegerRows {
    /// Each of [`PANEL`] rows, a line for every two columns.
    panels: Vec<Vec<Line>>,
    /// 1 / S of each row, 0 of those that pad the last panel.
    factors: Vec<f32>,
    /// How far each row was moved by rounding, |q / S - x|.
    errors: Vec<f64>,
    largest_error: f64,
}

impl IntegerRows {
    /// Bytes of a row of `stride` columns.
    pub(super) const fn bytes(stride: usize) -> usize {
        stride * size_of::<i16>() + size_of::<f32>() + size_of::<f64>()
    }

    /// Rounds rows, one for each of the `norms`, which `length(row)` measures and finds fit or names the fault of; padded to `rows`
    /// rows, a multiple of [`PANEL`], and `stride` columns, a multiple of 4. The fault of the first unfit row.
    pub(super) fn fill<'a>(
        &mut self,
        source: impl Fn(usize) -> &'a [f32] + Sync,
        rows: usize,
        stride: usize,
        norms: &mut [f64],
        length: impl Fn(&[f32]) -> Result<f64, &'static str> + Sync,
    ) -> Option<(usize, &'static str)> {
        self.panels.resize_with(rows / PANEL, Vec::new);
        self.factors.clear();
        self.factors.resize(rows, 0.0);
        self.errors.clear();
        self.errors.resize(norms.len(), 0.0);
        // Each panel is made by the thread that fills it: asking the system for so much memory takes time.
        let (used, unused) = self.panels.split_at_mut(norms.len().div_ceil(PANEL));
        for panel in unused {
            panel.clear();
            panel.resize(stride / 2, Line::default());
        }
        let panels = used
            .par_iter_mut()
            .zip(norms.par_chunks_mut(PANEL))
            .zip(self.errors.par_chunks_mut(PANEL))
            .zip(self.factors.par_chunks_mut(PANEL))
            .enumerate()
            .with_min_len(4);
        let fault = panels
            .map_init(
                || vec![0_i16; stride],
                |rounded, (panel, (((lines, norms), errors), factors))| {
                    lines.clear();
                    lines.resize(stride / 2, Line::default());
                    vectorized(
                        #[inline(always)]
                        || {
                            for (row, norm) in norms.iter_mut().enumerate() {
                                let source = source(panel * PANEL + row);
                                match length(source) {
                                    Ok(length) => {
                                        *norm = length;
                                        let scale = scale(source);
                                        factors[row] = (1.0 / (scale * length)) as f32;
                                        errors[row] = round(source, scale, rounded) / (scale * length) + NEGLECTED;
                                    }
                                    Err(problem) => return Some((panel * PANEL + row, problem)),
                                }
                                for (line, pair) in lines.iter_mut().zip(rounded.as_chunks::<2>().0) {
                                    line.0[row] = pulp::cast(*pair);
                                }
                            }
                            None
                        },
                    )
                },
            )
            .flatten()
            .min_by_key(|&(row, _)| row);
        self.largest_error = self.errors.iter().fold(0.0, |largest, &error| error.max(largest));
        fault
    }

    /// How far rounding moved a row.
    pub(super) fn error(&self, row: usize) -> f64 {
        self.errors[row]
    }

    /// How far rounding moved any row.
    pub(super) fn largest_error(&self) -> f64 {
        self.largest_error
    }

    /// Rows from a multiple of [`PANEL`] to another.
    pub(super) fn panels(&self, rows: std::ops::Range<usize>) -> Panels<'_> {
        Panels {
            panels: &self.panels[rows.start / PANEL..rows.end / PANEL],
            factors: &self.factors[rows],
        }
    }
}

/// How far rounding moves a row of `dim` columns at most.
pub(super) fn worst_error(dim: usize) -> f64 {
    // No number is above the length of its row, nor is a block: S is LARGEST or more.
    (dim as f64).sqrt() / 2.0 / LARGEST * (1.0 + NEGLECTED) + NEGLECTED
}

/// By how much a product of rounded rows can differ from the product of the rows, given how far each was moved.
pub(super) fn slack(dim: usize, query: f64, row: f64) -> f64 {
    // Sums of blocks are converted and added up, then multiplied by two factors, which were rounded as well.
    let roundings = (dim.div_ceil(BLOCK) + 6) as f64;
    let conversion = roundings * f64::from(f32::EPSILON) / 2.0 * 1.01 * (1.0 + query) * (1.0 + row);
    query + row + query * row + conversion
}

/// What share of the numbers screened by rounded rows of `dim` columns falls, for each relevant item, so close to it that rounding
/// leaves open which is nearer: the slack on both sides of it, where scores spread over four times `1 / sqrt(dim)` and the longest block
/// holds about 1.6 times its share.
pub(super) fn open_share(dim: usize) -> f64 {
    let blocks = (dim as f64 / BLOCK as f64 / 1.6).max(1.0);
    dim as f64 / 12.0_f64.sqrt() / (BLOCK_LENGTH * blocks.sqrt())
}

/// More than the double-precision arithmetic that rounds a row can err by, as a length.
const NEGLECTED: f64 = 1e-9;

/// What the numbers of a row are multiplied by before they are rounded.
#[inline(always)]
fn scale(source: &[f32]) -> f64 {
    const LANES: usize = 8;
    let (mut largest, mut longest) = (0.0_f32, 0.0_f64);
    for block in source.chunks(BLOCK) {
        let (chunks, rest) = block.as_chunks::<LANES>();
        let (mut squares, mut most) = ([0.0_f64; LANES], [0.0_f32; LANES]);
        for chunk in chunks {
            for lane in 0..LANES {
                squares[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
                most[lane] = most[lane].max(chunk[lane].abs());
            }
        }
        let rest_squares: f64 = rest.iter().map(|&value| f64::from(value) * f64::from(value)).sum();
        longest = longest.max(squares.iter().sum::<f64>() + rest_squares);
        largest = rest
            .iter()
            .chain(&most)
            .fold(largest, |largest, value| largest.max(value.abs()));
    }
    (LARGEST / f64::from(largest)).min(BLOCK_LENGTH / longest.sqrt())
}

/// Rounds `source * factor` to whole numbers and says how far that moved the row.
#[inline(always)]
fn round(source: &[f32], factor: f64, target: &mut [i16]) -> f64 {
    const LANES: usize = 8;
    let (chunks, rest) = source.as_chunks::<LANES>();
    let (target_chunks, target_rest) = target.split_at_mut(chunks.len() * LANES);
    let mut squares = [0.0_f64; LANES];
    for (source, target) in chunks.iter().zip(target_chunks.as_chunks_mut::<LANES>().0) {
        for lane in 0..LANES {
            squares[lane] += round_one(source[lane], factor, &mut target[lane]);
        }
    }
    let rest: f64 = rest
        .iter()
        .zip(target_rest)
        .map(|(&value, target)| round_one(value, factor, target))
        .sum();
    (squares.iter().sum::<f64>() + rest).sqrt() * (1.0 + NEGLECTED)
}

/// Rounds one number and gives the square of what that moved it.
#[inline(always)]
fn round_one(value: f32, factor: f64, target: &mut i16) -> f64 {
    // Added to a number, 1.5 * 2^52 leaves no room for a fraction: the sum is rounded, and its lowest bits are the number.
    const WHOLE: f64 = 6_755_399_441_055_744.0;
    let scaled = f64::from(value) * factor;
    let shifted = scaled + WHOLE;
    *target = shifted.to_bits() as i16;
    let off = (shifted - WHOLE) - scaled;
    off * off
}

/// Some panels of [`IntegerRows`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Panels<'a> {
    panels: &'a [Vec<Line>],
    factors: &'a [f32],
}

/// The proof that this processor multiplies pairs of 16-bit numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct IntegerProducts {
    #[cfg(target_arch = "x86_64")]
    simd: pulp::x86::V3,
    #[cfg(not(target_arch = "x86_64"))]
    never: std::convert::Infallible,
}

#[cfg(not(target_arch = "x86_64"))]
impl IntegerProducts {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    /// Inner products of two blocks of rows.
    pub(super) fn products(self, _: Panels<'_>, _: Panels<'_>, _: &mut Vec<f32>) {
        match self.never {}
    }
}

#[cfg(target_arch = "x86_64")]
impl IntegerProducts {
    pub(super) fn detect() -> Option<Self> {
        pulp::x86::V3::try_new().map(|simd| Self { simd })
    }

    /// Inner products of two blocks of rows.
    ///
    /// # Shapes
    /// `scores` becomes row-major `[queries, gallery]`.
    pub(super) fn products(self, queries: Panels<'_>, gallery: Panels<'_>, scores: &mut Vec<f32>) {
        let simd = self.simd;
        scores.resize(queries.factors.len() * gallery.factors.len(), 0.0);
        simd.vectorize(Multiply {
            simd,
            queries,
            gallery,
            scores,
        });
    }
}

/// One product of blocks. No closure: the step that calls one is too large to be inlined, and what is not inlined is compiled
/// without AVX2.
#[cfg(target_arch = "x86_64")]
struct Multiply<'a> {
    simd: pulp::x86::V3,
    queries: Panels<'a>,
    gallery: Panels<'a>,
    scores: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self {
            simd,
            queries,
            gallery,
            scores,
        } = self;
        let width = gallery.factors.len();
        // A panel of queries stays in the first-level cache while the gallery passes.
        for (first, lines) in queries.panels.iter().enumerate() {
            let first = first * PANEL;
            let query = Panel {
                lines,
                factors: &queries.factors[first..first + PANEL],
            };
            let target = &mut scores[first * width..(first + PANEL) * width];
            for (column, lines) in gallery.panels.iter().enumerate() {
                let column = column * PANEL;
                let row = Panel {
                    lines,
                    factors: &gallery.factors[column..column + PANEL],
                };
                tile::<0, 6>(simd, query, row, &mut target[column..], width);
                tile::<6, 5>(simd, query, row, &mut target[column..], width);
                tile::<11, 5>(simd, query, row, &mut target[column..], width);
            }
        }
    }
}

/// One of [`Panels`].
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
struct Panel<'a> {
    lines: &'a [Line],
    factors: &'a [f32],
}

/// Products of `HEIGHT` queries of a panel, from `START` on, with a panel of the gallery, into the rows of `target`.
///
/// Twelve sums, two lines of the gallery and one query fill the sixteen registers.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
#[expect(
    clippy::needless_range_loop,
    reason = "the same two numbers index sums, totals and target"
)]
fn tile<const START: usize, const HEIGHT: usize>(
    simd: pulp::x86::V3,
    queries: Panel<'_>,
    gallery: Panel<'_>,
    target: &mut [f32],
    width: usize,
) {
    use std::arch::x86_64::__m256i;
    let mut totals = [[simd.avx._mm256_setzero_ps(); 2]; HEIGHT];
    let blocks = queries.lines.chunks(BLOCK / 2).zip(gallery.lines.chunks(BLOCK / 2));
    for (queries, gallery) in blocks {
        let mut sums = [[simd.avx._mm256_setzero_si256(); 2]; HEIGHT];
        // Two lines a round; a width is a multiple of 16, so that nothing is left over.
        for (queries, rows) in queries.as_chunks::<2>().0.iter().zip(gallery.as_chunks::<2>().0) {
            for (query, row) in queries.iter().zip(rows) {
                let halves: [__m256i; 2] = pulp::cast(row.0);
                for place in 0..HEIGHT {
                    let pair = simd.avx._mm256_set1_epi32(query.0[START + place]);
                    for half in 0..2 {
                        let products = simd.avx2._mm256_madd_epi16(pair, halves[half]);
                        sums[place][half] = simd.avx2._mm256_add_epi32(sums[place][half], products);
                    }
                }
            }
        }
        for place in 0..HEIGHT {
            for half in 0..2 {
                let sums = simd.avx._mm256_cvtepi32_ps(sums[place][half]);
                totals[place][half] = simd.avx._mm256_add_ps(totals[place][half], sums);
            }
        }
    }
    let (columns, _) = gallery.factors.as_chunks::<{ PANEL / 2 }>();
    for place in 0..HEIGHT {
        let row = START + place;
        let factor = simd.avx._mm256_set1_ps(queries.factors[row]);
        for half in 0..2 {
            let factors = simd.avx._mm256_mul_ps(factor, pulp::cast(columns[half]));
            let scores: [f32; PANEL / 2] = pulp::cast(simd.avx._mm256_mul_ps(totals[place][half], factors));
            let at = row * width + half * scores.len();
            target[at..at + scores.len()].copy_from_slice(&scores);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::random_set;

    const ROWS: usize = 48;

    fn rounded(set: &EmbeddingSet) -> (IntegerRows, Vec<f64>) {
        let mut norms = vec![0.0; set.len()];
        let mut rows = IntegerRows::default();
        let length = |row: &[f32]| Ok(length(row));
        let fault = rows.fill(
            |row| set.row(row),
            ROWS,
            set.dim.next_multiple_of(16),
            &mut norms,
            length,
        );
        assert_eq!(fault, None);
        (rows, norms)
    }

    fn length(row: &[f32]) -> f64 {
        row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
    }

    /// Products are those of a plain loop over rows rounded one number at a time, and each row is as far off as it says.
    fn agree(set: &EmbeddingSet) {
        let (rows, norms) = rounded(set);
        let scales: Vec<f64> = (0..set.len())
            .map(|row| {
                let largest = set.row(row).iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let longest = set.row(row).chunks(BLOCK).map(length).fold(0.0, f64::max);
                (LARGEST / f64::from(largest)).min(BLOCK_LENGTH / longest)
            })
            .collect();
        let whole: Vec<Vec<i64>> = (0..set.len())
            .map(|row| {
                let scaled = set.row(row).iter().map(|&value| f64::from(value) * scales[row]);
                scaled.map(|value| value.round_ties_even() as i64).collect()
            })
            .collect();
        for (row, whole) in whole.iter().enumerate() {
            assert!((norms[row] / length(set.row(row)) - 1.0).abs() < 1e-12);
            let off = set
                .row(row)
                .iter()
                .zip(whole)
                .map(|(&value, &whole)| f64::from(value) / norms[row] - whole as f64 / scales[row] / norms[row]);
            let off = off.map(|off| off * off).sum::<f64>().sqrt();
            assert!(rows.error(row) >= off && rows.error(row) < off + 1e-8);
            assert!(rows.error(row) <= worst_error(set.dim) && rows.error(row) <= rows.largest_error());
            // Then no sum of products within a block, whole or in part, leaves 32 bits.
            for block in whole.chunks(BLOCK) {
                assert!(block.iter().all(|value| value.abs() <= i64::from(i16::MAX)));
                assert!(block.iter().map(|value| value * value).sum::<i64>() <= i64::from(i32::MAX));
            }
        }
        let Some(integers) = IntegerProducts::detect() else {
            return;
        };
        let mut scores = vec![f32::NAN; 7];
        integers.products(rows.panels(0..ROWS), rows.panels(16..ROWS), &mut scores);
        let width = ROWS - 16;
        assert_eq!(scores.len(), ROWS * width);
        for (query, scores) in scores.chunks_exact(width).enumerate() {
            for (column, &score) in scores.iter().enumerate() {
                let expected = match (whole.get(query), whole.get(column + 16)) {
                    (Some(a), Some(b)) => {
                        let sum: i64 = a.iter().zip(b).map(|(a, b)| a * b).sum();
                        let (a, b) = (scales[query] * norms[query], scales[column + 16] * norms[column + 16]);
                        sum as f64 / a / b
                    }
                    _ => 0.0,
                };
                assert!(
                    (f64::from(score) - expected).abs() < 1e-6,
                    "{query} {column}: {score} {expected}"
                );
            }
        }
    }

    #[test]
    fn products_are_those_of_a_plain_loop_at_odd_widths() {
        for dim in [1, 2, 7, 15, 16, 17, 33, 513] {
            agree(&random_set(dim as u64, 41, dim, 5));
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        // One-hot rows, equal rows of equal numbers, opposite ones: the largest sums there are, of either sign.
        for dim in [1, 2, 64, 515] {
            let mut set = random_set(3, 41, dim, 5);
            for (row, values) in set.values.chunks_exact_mut(dim).enumerate() {
                let sign = if row % 2 == 0 { 1.0 } else { -1.0 };
                match row % 3 {
                    0 => values.fill(sign * 1e30),
                    1 => {
                        values.fill(0.0);
                        values[row % dim] = sign * 1e-30;
                    }
                    _ => {}
                }
            }
            agree(&set);
        }
    }

    #[test]
    fn the_first_unfit_row_is_named() {
        let set = random_set(1, 41, 5, 3);
        let mut rows = IntegerRows::default();
        let unfit = |row: &[f32]| {
            let bad = row == set.row(20) || row == set.row(37);
            if bad { Err("is odd") } else { Ok(length(row)) }
        };
        let fault = rows.fill(|row| set.row(row), ROWS, 16, &mut [0.0; 41], unfit);
        assert_eq!(fault, Some((20, "is odd")));
    }

    proptest! {
        #[test]
        fn rounded_products_are_within_the_slack(
            seed in 0_u64..1000, dim in 1_usize..70, hot in 0_usize..70, size in prop::sample::select(vec![0.0_f32, 1.0, 300.0, 1e30]),
        ) {
            let mut set = random_set(seed, 33, dim, 4);
            for values in set.values.chunks_exact_mut(dim) {
                values[hot % dim] += size;
            }
            let (rows, norms) = rounded(&set);
            let Some(integers) = IntegerProducts::detect() else { return Ok(()) };
            let mut scores = Vec::new();
            integers.products(rows.panels(0..ROWS), rows.panels(0..ROWS), &mut scores);
            for (query, scores) in scores.chunks_exact(ROWS).enumerate().take(set.len()) {
                for (row, &score) in scores.iter().enumerate().take(set.len()) {
                    let sum: f64 = set.row(query).iter().zip(set.row(row)).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                    let off = (f64::from(score) - sum / norms[query] / norms[row]).abs();
                    prop_assert!(off <= slack(dim, rows.error(query), rows.error(row)), "{} {}: {}", query, row, off);
                }
            }
        }
    }
}
