//! Inner products of pairs of rows in single precision, several side by side so that the memory is asked for several at once.

/// Sums that are kept of each product.
const LANES: usize = 16;

/// Terms that are added to a sum before it is put aside: the fewer numbers go through one sum, the less rounding there is.
const RUN: usize = 8;

/// How many roundings a term goes through at most, that of its product included.
pub(super) fn roundings(dim: usize) -> usize {
    let lanes = dim.div_ceil(LANES);
    // Within a run, over runs, over lanes two by two, and of what is left in a row.
    RUN.min(lanes)
        + lanes.div_ceil(RUN)
        + LANES.ilog2() as usize
        + 2
        + if dim.is_multiple_of(LANES) { 0 } else { LANES }
}

/// The inner products of pairs of rows, all of one width.
#[inline(always)]
pub(super) fn single_dots<const PAIRS: usize>(pairs: [[&[f32]; 2]; PAIRS]) -> [f32; PAIRS] {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(Avx { simd, pairs });
    }
    portable(pairs)
}

fn portable<const PAIRS: usize>(pairs: [[&[f32]; 2]; PAIRS]) -> [f32; PAIRS] {
    pairs.map(|[a, b]| {
        let mut total = [0.0_f32; LANES];
        let (a_chunks, b_chunks) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
        for (a, b) in a_chunks.chunks(RUN).zip(b_chunks.chunks(RUN)) {
            let mut sums = [0.0_f32; LANES];
            for (x, y) in a.iter().zip(b) {
                for lane in 0..LANES {
                    sums[lane] += x[lane] * y[lane];
                }
            }
            for lane in 0..LANES {
                total[lane] += sums[lane];
            }
        }
        two_by_two(total) + rest(a, b)
    })
}

/// The sum of all lanes.
#[inline(always)]
fn two_by_two(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// What is left of a product where the width is no multiple of [`LANES`].
#[inline(always)]
fn rest(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.as_chunks::<LANES>().1, b.as_chunks::<LANES>().1);
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Left to itself, the compiler adds up number by number as soon as there are several rows.
#[cfg(target_arch = "x86_64")]
struct Avx<'a, const PAIRS: usize> {
    simd: pulp::x86::V3,
    pairs: [[&'a [f32]; 2]; PAIRS],
}

#[cfg(target_arch = "x86_64")]
impl<const PAIRS: usize> pulp::NullaryFnOnce for Avx<'_, PAIRS> {
    type Output = [f32; PAIRS];

    #[inline(always)]
    #[expect(clippy::needless_range_loop, reason = "the same chunk of several rows")]
    fn call(self) -> [f32; PAIRS] {
        use std::arch::x86_64::__m256;
        let Self { simd, pairs } = self;
        let chunks = pairs.map(
            #[inline(always)]
            |[a, b]| [a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0],
        );
        let zero = [[simd.avx._mm256_setzero_ps(); 2]; PAIRS];
        let mut total = zero;
        let all = pairs[0][0].len() / LANES;
        let mut from = 0;
        while from < all {
            let until = (from + RUN).min(all);
            let mut sums = zero;
            for number in from..until {
                for pair in 0..PAIRS {
                    let x: [__m256; 2] = pulp::cast(chunks[pair][0][number]);
                    let y: [__m256; 2] = pulp::cast(chunks[pair][1][number]);
                    for half in 0..2 {
                        sums[pair][half] = simd.fma._mm256_fmadd_ps(x[half], y[half], sums[pair][half]);
                    }
                }
            }
            for pair in 0..PAIRS {
                for half in 0..2 {
                    total[pair][half] = simd.avx._mm256_add_ps(total[pair][half], sums[pair][half]);
                }
            }
            from = until;
        }
        std::array::from_fn(
            #[inline(always)]
            |pair| two_by_two(pulp::cast(total[pair])) + rest(pairs[pair][0], pairs[pair][1]),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[test]
    fn products_are_within_what_single_precision_can_err_by() {
        for dim in [1, 15, 16, 40, 128, 513, 2048] {
            let set = random_set(dim as u64, 6, dim, 2);
            let pairs = [[0, 1], [0, 2], [3, 4], [5, 0]].map(|pair| pair.map(|row| set.row(row)));
            let depth = roundings(dim) as f64 * f64::from(f32::EPSILON) / 2.0;
            for found in [
                single_dots(pairs),
                portable(pairs),
                pairs.map(|pair| single_dots([pair])[0]),
            ] {
                for (found, [a, b]) in found.into_iter().zip(pairs) {
                    let pairs = || a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y));
                    let size: f64 = pairs().map(f64::abs).sum();
                    assert!((f64::from(found) - pairs().sum::<f64>()).abs() <= depth * size, "{dim}");
                }
            }
        }
    }
}
