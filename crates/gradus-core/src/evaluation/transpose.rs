//! Scores seen from the other side.

/// Rows and columns that are turned at once.
const SIDE: usize = 8;

/// `[rows, width]` to `[width, rows]`; both are multiples of [`SIDE`].
pub(super) fn transpose(source: &[f32], width: usize, target: &mut Vec<f32>) {
    target.resize(source.len(), 0.0);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        simd.vectorize(Avx {
            simd,
            source,
            width,
            target,
        });
        return;
    }
    turn(source, width, target, |square| {
        std::array::from_fn(|column| std::array::from_fn(|row| square[row][column]))
    });
}

/// Turns square after square, as wide as a register each.
#[inline(always)]
fn turn(source: &[f32], width: usize, target: &mut [f32], turned: impl Fn([[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE]) {
    let height = source.len() / width;
    for left in (0..width).step_by(SIDE) {
        for top in (0..height).step_by(SIDE) {
            let mut square = [[0.0; SIDE]; SIDE];
            for (row, line) in square.iter_mut().enumerate() {
                line.copy_from_slice(&source[(top + row) * width + left..][..SIDE]);
            }
            for (column, line) in turned(square).iter().enumerate() {
                target[(left + column) * height + top..][..SIDE].copy_from_slice(line);
            }
        }
    }
}

/// [`turn`] by the shuffles of AVX, which the compiler does not find by itself.
#[cfg(target_arch = "x86_64")]
struct Avx<'a> {
    simd: pulp::x86::V3,
    source: &'a [f32],
    width: usize,
    target: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
impl pulp::NullaryFnOnce for Avx<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let avx = self.simd.avx;
        turn(
            self.source,
            self.width,
            self.target,
            #[inline(always)]
            |square| {
                let rows: [std::arch::x86_64::__m256; SIDE] = pulp::cast(square);
                let mut pairs = rows;
                for two in 0..SIDE / 2 {
                    pairs[2 * two] = avx._mm256_unpacklo_ps(rows[2 * two], rows[2 * two + 1]);
                    pairs[2 * two + 1] = avx._mm256_unpackhi_ps(rows[2 * two], rows[2 * two + 1]);
                }
                // Four rows of column c in one half, of column c + 4 in the other.
                let mut fours = rows;
                for (four, pairs) in [(0, &pairs[..4]), (4, &pairs[4..])] {
                    fours[four] = avx._mm256_shuffle_ps::<0b01_00_01_00>(pairs[0], pairs[2]);
                    fours[four + 1] = avx._mm256_shuffle_ps::<0b11_10_11_10>(pairs[0], pairs[2]);
                    fours[four + 2] = avx._mm256_shuffle_ps::<0b01_00_01_00>(pairs[1], pairs[3]);
                    fours[four + 3] = avx._mm256_shuffle_ps::<0b11_10_11_10>(pairs[1], pairs[3]);
                }
                let mut columns = rows;
                for column in 0..SIDE / 2 {
                    let (upper, lower) = (fours[column], fours[column + 4]);
                    columns[column] = avx._mm256_permute2f128_ps::<0x20>(upper, lower);
                    columns[column + 4] = avx._mm256_permute2f128_ps::<0x31>(upper, lower);
                }
                pulp::cast(columns)
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_lands_on_the_other_side() {
        for (height, width) in [(8, 8), (16, 40), (32, 24)] {
            let source: Vec<f32> = (0..height * width).map(|place| place as f32).collect();
            let mut expected = vec![0.0; source.len()];
            turn(&source, width, &mut expected, |square| {
                std::array::from_fn(|column| std::array::from_fn(|row| square[row][column]))
            });
            let mut turned = vec![7.0; 3];
            transpose(&source, width, &mut turned);
            assert_eq!(turned, expected);
            for row in 0..height {
                for column in 0..width {
                    assert_eq!(turned[column * height + row], source[row * width + column]);
                }
            }
        }
    }
}
