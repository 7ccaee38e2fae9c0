//! Inner products of a row with several others in single precision, read side by side so that the memory is asked for several at once.

/// Sums that are kept of each product.
const LANES: usize = 16;

/// How many terms are added up one after the other at most.
pub(super) fn terms(dim: usize) -> usize {
    dim / LANES + 2 * LANES
}

/// The inner products of `a` with `rows`, all of one width.
#[inline(always)]
pub(super) fn single_dots<const ROWS: usize>(a: &[f32], rows: [&[f32]; ROWS]) -> [f32; ROWS] {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.vectorize(Avx { simd, a, rows });
    }
    portable(a, rows)
}

fn portable<const ROWS: usize>(a: &[f32], rows: [&[f32]; ROWS]) -> [f32; ROWS] {
    rows.map(|row| {
        let mut lanes = [0.0_f32; LANES];
        for (x, y) in a.as_chunks::<LANES>().0.iter().zip(row.as_chunks::<LANES>().0) {
            for lane in 0..LANES {
                lanes[lane] += x[lane] * y[lane];
            }
        }
        lanes.iter().sum::<f32>() + rest(a, row)
    })
}

/// What is left of a product where the width is no multiple of [`LANES`].
#[inline(always)]
fn rest(a: &[f32], row: &[f32]) -> f32 {
    let (a, row) = (a.as_chunks::<LANES>().1, row.as_chunks::<LANES>().1);
    a.iter().zip(row).map(|(x, y)| x * y).sum()
}

/// Left to itself, the compiler adds up number by number as soon as there are several rows.
#[cfg(target_arch = "x86_64")]
struct Avx<'a, const ROWS: usize> {
    simd: pulp::x86::V3,
    a: &'a [f32],
    rows: [&'a [f32]; ROWS],
}

#[cfg(target_arch = "x86_64")]
impl<const ROWS: usize> pulp::NullaryFnOnce for Avx<'_, ROWS> {
    type Output = [f32; ROWS];

    #[inline(always)]
    fn call(self) -> [f32; ROWS] {
        use std::arch::x86_64::__m256;
        let Self { simd, a, rows } = self;
        let mut sums = [[simd.avx._mm256_setzero_ps(); 2]; ROWS];
        let chunks = rows.map(
            #[inline(always)]
            |row| row.as_chunks::<LANES>().0,
        );
        for (number, x) in a.as_chunks::<LANES>().0.iter().enumerate() {
            let x: [__m256; 2] = pulp::cast(*x);
            for row in 0..ROWS {
                let y: [__m256; 2] = pulp::cast(chunks[row][number]);
                for half in 0..2 {
                    sums[row][half] = simd.fma._mm256_fmadd_ps(x[half], y[half], sums[row][half]);
                }
            }
        }
        std::array::from_fn(
            #[inline(always)]
            |row| {
                let lanes: [f32; LANES] = pulp::cast(sums[row]);
                lanes.iter().sum::<f32>() + rest(a, rows[row])
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[test]
    fn products_are_within_what_single_precision_can_err_by() {
        for dim in [1, 15, 16, 40, 513] {
            let set = random_set(dim as u64, 6, dim, 2);
            let rows = [set.row(1), set.row(2), set.row(3), set.row(4)];
            let depth = terms(dim) as f64 * f64::from(f32::EPSILON) / 2.0;
            for found in [
                single_dots(set.row(0), rows),
                portable(set.row(0), rows),
                rows.map(|row| single_dots(set.row(0), [row])[0]),
            ] {
                for (found, row) in found.into_iter().zip(rows) {
                    let pairs = || set.row(0).iter().zip(row).map(|(&x, &y)| f64::from(x) * f64::from(y));
                    let size: f64 = pairs().map(f64::abs).sum();
                    assert!((f64::from(found) - pairs().sum::<f64>()).abs() <= depth * size, "{dim}");
                }
            }
        }
    }
}
