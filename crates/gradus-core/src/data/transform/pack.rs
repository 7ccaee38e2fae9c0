//! Interleaved pixels → normalised channels, mirrored on the way: one pass instead of three.

use crate::vectorized::vectorized;

/// What a channel's values are normalised by: `(value / 255 - mean) / std`, torchvision's formula and rounding.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Normalisation {
    pub(super) mean: [f32; 3],
    pub(super) std: [f32; 3],
}

/// Writes interleaved values 0..255 of a square view to its channels, normalised; with `flip`, every row turned around.
///
/// # Shapes
/// `pixels` `[size, size, 3]`, `target` `[3, size, size]`.
pub(super) fn pack<T: Copy + Into<f32>>(
    pixels: &[T],
    size: usize,
    flip: bool,
    normalisation: Normalisation,
    target: &mut [f32],
) {
    // Compiled for AVX2 too and chosen at run time; the operations, and so the values, are the same.
    vectorized(
        #[inline(always)]
        || {
            let (red, rest) = target.split_at_mut(size * size);
            let (green, blue) = rest.split_at_mut(size * size);
            let channels = red
                .chunks_exact_mut(size)
                .zip(green.chunks_exact_mut(size))
                .zip(blue.chunks_exact_mut(size));
            for (row, ((red, green), blue)) in pixels.chunks_exact(3 * size).zip(channels) {
                let row = row.as_chunks().0;
                // A constant flag in each call lets both loops be vectorised.
                if flip {
                    pack_row::<T, true>(row, normalisation, [red, green, blue]);
                } else {
                    pack_row::<T, false>(row, normalisation, [red, green, blue]);
                }
            }
        },
    );
}

#[inline(always)]
fn pack_row<T: Copy + Into<f32>, const FLIP: bool>(
    row: &[[T; 3]],
    Normalisation { mean, std }: Normalisation,
    [red, green, blue]: [&mut [f32]; 3],
) {
    let count = row.len();
    let (red, green, blue) = (&mut red[..count], &mut green[..count], &mut blue[..count]);
    for place in 0..count {
        let [r, g, b] = row[if FLIP { count - 1 - place } else { place }];
        red[place] = (r.into() / 255.0 - mean[0]) / std[0];
        green[place] = (g.into() / 255.0 - mean[1]) / std[1];
        blue[place] = (b.into() / 255.0 - mean[2]) / std[2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lands_in_its_channel_with_the_bits_of_the_formula() {
        let normalisation = Normalisation {
            mean: [0.485, 0.456, 0.406],
            std: [0.229, 0.224, 0.225],
        };
        // Sizes around the widths of vector registers, and one.
        for size in [1, 2, 7, 8, 15, 16, 33, 64, 100] {
            let bytes: Vec<u8> = (0..3 * size * size).map(|index| (index * 131 % 256) as u8).collect();
            let floats: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte)).collect();
            for flip in [false, true] {
                let (mut of_bytes, mut of_floats) = (vec![f32::NAN; bytes.len()], vec![f32::NAN; bytes.len()]);
                pack(&bytes, size, flip, normalisation, &mut of_bytes);
                pack(&floats, size, flip, normalisation, &mut of_floats);
                for (channel, (mean, std)) in normalisation.mean.into_iter().zip(normalisation.std).enumerate() {
                    for y in 0..size {
                        for x in 0..size {
                            let from = if flip { size - 1 - x } else { x };
                            let value = floats[(y * size + from) * 3 + channel];
                            let expected = (value / 255.0 - mean) / std;
                            let at = (channel * size + y) * size + x;
                            assert_eq!(of_bytes[at].to_bits(), expected.to_bits(), "{size} {flip} {at}");
                            assert_eq!(of_floats[at].to_bits(), expected.to_bits(), "{size} {flip} {at}");
                        }
                    }
                }
            }
        }
    }
}
