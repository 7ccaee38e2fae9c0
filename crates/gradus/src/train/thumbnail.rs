//! What images look like without any network: who teaches where a trunk starts from random weights.

use crate::numerics::normalize;
use crate::tensor::{Tensor, TensorData, adaptive_avg_pool2d};

/// Places along each side at which colours are averaged.
const COLOUR_GRID: usize = 8;

/// Places along each side at which edges are counted, and directions they are told apart by.
const EDGE_GRID: usize = 4;
const EDGE_DIRECTIONS: usize = 8;

/// Rings around the middle on which it is told to which side something lies.
const RINGS: usize = 8;

/// Keeps the colour of dark pixels from being noise.
const DARK: f32 = 0.15;

/// A ring whose sides differ by less is told to have none.
const EVEN: f32 = 1e-3;

/// The rows that order plain images (values from 0 to 1), in five parts of equal weight: colours (8 x 8 places, each channel without
/// its mean over the image: what is bright where, not how bright), edges (their strength in 8 directions at 4 x 4 places, without
/// what all images of the batch share), and to which side of each of 8 rings around the middle light, colour and edges lie,
/// however little they do.
///
/// # Shapes
/// `[batch, 3, height, width]` → `[batch, 432]` (fewer where images are smaller).
#[must_use]
pub(super) fn thumbnails(images: Tensor<4>) -> Tensor<2> {
    let parts = vec![
        colours(images.clone()),
        edges(images.clone()),
        sides(images.clone()),
        sides(shares(images.clone())),
        sides(steepness(images)),
    ];
    Tensor::cat(parts.into_iter().map(normalize).collect(), 1)
}

/// `[batch, 3, height, width]` → `[batch, 192]`.
fn colours(images: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = images.dims();
    let small = adaptive_avg_pool2d(images, [height.min(COLOUR_GRID), width.min(COLOUR_GRID)]);
    let pixels: Tensor<3> = small.flatten(2, 3);
    let mean = pixels.clone().mean_dim(2);
    let [_, _, positions] = pixels.dims();
    (pixels - mean).reshape([batch, channels * positions])
}

/// How much brighter the right neighbour of each inner pixel is than the left one, and the lower one than the upper:
/// `[batch, 3, height, width]` → twice `[batch, 1, height - 2, width - 2]`; nothing where there is no inner pixel.
fn slopes(images: Tensor<4>) -> Option<[Tensor<4>; 2]> {
    let [batch, _, height, width] = images.dims();
    if height < 3 || width < 3 {
        return None;
    }
    let grey: Tensor<4> = images.mean_dim(1); // [batch, 1, height, width]
    let window = |top: usize, left: usize| {
        grey.clone()
            .slice([0..batch, 0..1, top..top + height - 2, left..left + width - 2])
    };
    Some([window(1, 2) - window(1, 0), window(2, 1) - window(0, 1)])
}

/// `[batch, 3, height, width]` → `[batch, 128]`.
fn edges(images: Tensor<4>) -> Tensor<2> {
    let [batch, _, height, width] = images.dims();
    let device = images.device();
    let Some([across, down]) = slopes(images) else {
        return Tensor::zeros([batch, 1], &device);
    };
    let directions = (0..EDGE_DIRECTIONS).map(|direction| {
        let angle = std::f64::consts::TAU * direction as f64 / EDGE_DIRECTIONS as f64;
        let slope = across.clone().mul_scalar(angle.cos()) + down.clone().mul_scalar(angle.sin());
        slope.clamp_min(0.0)
    });
    let strength = Tensor::cat(directions.collect(), 1); // [batch, 8, height - 2, width - 2]
    let places = adaptive_avg_pool2d(strength, [(height - 2).min(EDGE_GRID), (width - 2).min(EDGE_GRID)]);
    // The root keeps one strong edge from hiding all others.
    let rows: Tensor<2> = places.sqrt().flatten(1, 3);
    rows.clone() - rows.mean_dim(0)
}

/// How steep brightness is at each inner pixel, under a root for the reason that edges have one.
fn steepness(images: Tensor<4>) -> Tensor<4> {
    let [batch, ..] = images.dims();
    let device = images.device();
    match slopes(images) {
        Some([across, down]) => (across.clone() * across + down.clone() * down).sqrt().sqrt(),
        None => Tensor::zeros([batch, 1, 1, 1], &device),
    }
}

/// Red's and green's shares of each pixel: colour, whatever light falls on it. `[batch, 3, height, width]` → two channels.
fn shares(images: Tensor<4>) -> Tensor<4> {
    let [_, channels, ..] = images.dims();
    let sum = images.clone().sum_dim(1).add_scalar(DARK);
    images.narrow(1, 0, channels.min(2)) / sum
}

/// To which side each channel lies on each ring: the direction of `Σ w(r) e^{iφ} value` over the pixels, which are at the angle φ and
/// the distance r from the middle. A turn of the image by an angle turns each direction by that angle.
///
/// `[batch, channels, height, width]` → `[batch, channels * 16]`.
fn sides(images: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = images.dims();
    let waves = Tensor::<2>::from_data(
        TensorData::new(first_harmonics(height, width), [height * width, 2 * RINGS]),
        &images.device(),
    );
    let sums = images.reshape([batch * channels, height * width]).matmul(waves);
    let sums: Tensor<4> = sums.reshape([batch, channels, RINGS, 2]);
    let length = (sums.clone() * sums.clone()).sum_dim(3).sqrt();
    (sums / length.clamp_min(EVEN)).reshape([batch, channels * 2 * RINGS])
}

/// For each pixel, for each ring, its weight (of sum 1 over the ring) times cosine and sine of its angle.
fn first_harmonics(height: usize, width: usize) -> Vec<f32> {
    let mut waves = vec![0.0_f32; height * width * 2 * RINGS];
    let mut sums = [0.0_f32; RINGS];
    let place = |at: usize, side: usize| (2 * at + 1) as f32 / side as f32 - 1.0;
    for (pixel, wave) in waves.chunks_exact_mut(2 * RINGS).enumerate() {
        let (x, y) = (place(pixel % width, width), place(pixel / width, height));
        let distance = x.hypot(y);
        let (sine, cosine) = y.atan2(x).sin_cos();
        for (ring, (pair, sum)) in wave.chunks_exact_mut(2).zip(&mut sums).enumerate() {
            let away = distance * RINGS as f32 - (ring as f32 + 0.5);
            // The innermost ring is a disc.
            let weight = if ring == 0 && away < 0.0 {
                1.0
            } else {
                (1.0 - away.abs()).max(0.0)
            };
            (pair[0], pair[1]) = (weight * cosine, weight * sine);
            *sum += weight;
        }
    }
    for wave in waves.chunks_exact_mut(2 * RINGS) {
        for (pair, sum) in wave.chunks_exact_mut(2).zip(sums) {
            let least = sum.max(f32::MIN_POSITIVE);
            (pair[0], pair[1]) = (pair[0] / least, pair[1] / least);
        }
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    #[test]
    fn colours_average_and_forget_how_bright_an_image_is() {
        let device = Device::default();
        let edge = 16;
        let image: Vec<f32> = (0..3 * edge * edge).map(|value| (value % 37) as f32).collect();
        let brighter: Vec<f32> = image.iter().map(|value| value + 5.0).collect();
        let both = [image.clone(), brighter].concat();
        let rows = colours(Tensor::from_data(TensorData::new(both, [2, 3, edge, edge]), &device));
        assert_eq!(rows.dims(), [2, 3 * COLOUR_GRID * COLOUR_GRID]);
        let rows = rows.try_into_vec_as::<f32>().unwrap();
        let (first, second) = rows.split_at(192);
        let pixel = |channel: usize, y: usize, x: usize| image[channel * edge * edge + y * edge + x];
        for channel in 0..3 {
            let mean = (0..edge * edge)
                .map(|at| pixel(channel, at / edge, at % edge))
                .sum::<f32>()
                / 256.0;
            for place in 0..64 {
                let (y, x) = (place / 8 * 2, place % 8 * 2);
                let block = pixel(channel, y, x)
                    + pixel(channel, y, x + 1)
                    + pixel(channel, y + 1, x)
                    + pixel(channel, y + 1, x + 1);
                let found = first[channel * 64 + place];
                assert!(
                    (found - (block / 4.0 - mean)).abs() < 1e-4,
                    "{channel} {place}: {found}"
                );
            }
        }
        assert!(first.iter().zip(second).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn edges_tell_directions_apart() {
        let device = Device::default();
        let edge = 16;
        // Brighter to the right, and brighter downwards: the only difference is the direction.
        let ramp = |along: fn(usize) -> usize| (0..3 * edge * edge).map(move |at| along(at % (edge * edge)) as f32);
        let images: Vec<f32> = ramp(|at| at % 16).chain(ramp(|at| at / 16)).collect();
        let rows = edges(Tensor::from_data(
            TensorData::new(images.clone(), [2, 3, edge, edge]),
            &device,
        ));
        assert_eq!(rows.dims(), [2, EDGE_DIRECTIONS * EDGE_GRID * EDGE_GRID]);
        let rows = rows.try_into_vec_as::<f32>().unwrap();
        for direction in 0..EDGE_DIRECTIONS {
            let angle = std::f32::consts::TAU * direction as f32 / 8.0;
            let strength = |slope: f32| (2.0 * slope).max(0.0).sqrt();
            let half = (strength(angle.cos()) - strength(angle.sin())) / 2.0;
            for place in 0..16 {
                let (right, down) = (rows[direction * 16 + place], rows[128 + direction * 16 + place]);
                assert!(
                    (right - half).abs() < 1e-3 && (down + half).abs() < 1e-3,
                    "{direction}: {right} {down} {half}"
                );
            }
        }
        let both = thumbnails(Tensor::from_data(TensorData::new(images, [2, 3, edge, edge]), &device));
        assert_eq!(both.dims(), [2, 320 + 16 * 6]);
        let plain = thumbnails(Tensor::zeros([2, 3, 2, 2], &device))
            .try_into_vec_as::<f32>()
            .unwrap();
        assert!(plain.iter().all(|value| *value == 0.0));
    }

    const EDGE: usize = 24;

    /// `[1, channels, EDGE, EDGE]` of a value for each channel and place, both sides from -1 to 1.
    fn image(channels: usize, value: impl Fn(usize, f32, f32) -> f32) -> Tensor<4> {
        let place = |at: usize| (2 * at + 1) as f32 / EDGE as f32 - 1.0;
        let values: Vec<f32> = (0..channels * EDGE * EDGE)
            .map(|at| value(at / EDGE / EDGE, place(at % EDGE), place(at / EDGE % EDGE)))
            .collect();
        Tensor::from_data(TensorData::new(values, [1, channels, EDGE, EDGE]), &Device::default())
    }

    fn values(rows: Tensor<2>) -> Vec<f32> {
        rows.try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn sides_are_directions_that_turn_with_the_image() {
        // Brighter to the right, a little and much: the same direction on all rings; an even image has none.
        for strength in [0.02, 1.0] {
            let rows = values(sides(image(2, |_, x, _| if x > 0.0 { strength } else { 0.0 })));
            assert_eq!(rows.len(), 2 * 2 * RINGS);
            assert!(
                rows.chunks(2)
                    .all(|pair| (pair[0] - 1.0).abs() < 1e-4 && pair[1].abs() < 1e-4),
                "{rows:?}"
            );
        }
        let even = values(sides(image(1, |_, _, _| 0.7)));
        assert!(even.iter().all(|value| value.abs() < 1e-2), "{even:?}");
        // No symmetry at all, and the same turned by a quarter: (x, y) came from (y, -x).
        let blob = |x: f32, y: f32| (-3.0 * ((x - 0.3).powi(2) + (y - 0.5 * x).powi(2))).exp();
        let (straight, turned) = (
            values(sides(image(1, |_, x, y| blob(x, y)))),
            values(sides(image(1, |_, x, y| blob(y, -x)))),
        );
        for (before, after) in straight.chunks(2).zip(turned.chunks(2)) {
            assert!((before[0].hypot(before[1]) - 1.0).abs() < 1e-4, "{before:?}");
            assert!(
                (after[0] + before[1]).abs() < 1e-4 && (after[1] - before[0]).abs() < 1e-4,
                "{before:?} {after:?}"
            );
        }
    }

    #[test]
    fn sides_agree_with_loops() {
        let value = |channel: usize, x: f32, y: f32| (3.0 * x + channel as f32).sin() + (5.0 * y * x).cos() * 0.5;
        let found = values(sides(image(3, value)));
        for channel in 0..3 {
            for ring in 0..RINGS {
                let (mut across, mut down, mut weights) = (0.0_f64, 0.0_f64, 0.0_f64);
                for i in 0..EDGE {
                    for j in 0..EDGE {
                        let place = |at: usize| (2 * at + 1) as f64 / EDGE as f64 - 1.0;
                        let (x, y) = (place(j), place(i));
                        let radius = (x * x + y * y).sqrt();
                        let away = radius * 8.0 - ring as f64 - 0.5;
                        let weight = match ring {
                            0 if away < 0.0 => 1.0,
                            _ => (1.0 - away.abs()).max(0.0),
                        };
                        let value = f64::from(value(channel, x as f32, y as f32)) * weight;
                        across += value * x / radius;
                        down += value * y / radius;
                        weights += weight;
                    }
                }
                let length = (across.hypot(down) / weights).max(1e-3) * weights;
                let at = (channel * RINGS + ring) * 2;
                assert!(
                    (f64::from(found[at]) - across / length).abs() < 1e-3,
                    "{channel} {ring}"
                );
                assert!(
                    (f64::from(found[at + 1]) - down / length).abs() < 1e-3,
                    "{channel} {ring}"
                );
            }
        }
    }

    #[test]
    fn shares_do_not_depend_on_the_light_and_edges_weigh_steepness() {
        let colour = |light: f32| image(3, move |channel, x, _| light * [0.8, 0.4, 0.2][channel] * (x + 1.5));
        let (dim, bright) = (
            values(shares(colour(2.0)).flatten(1, 3)),
            values(shares(colour(4.0)).flatten(1, 3)),
        );
        assert_eq!(dim.len(), 2 * EDGE * EDGE);
        assert!(
            dim.iter().zip(&bright).all(|(a, b)| (a - b).abs() < 0.06),
            "dark pixels move a little, no more"
        );
        let steep = values(steepness(image(3, |_, x, y| x + 2.0 * y)).flatten(1, 3));
        let expected = (2.0 * 2.0 / EDGE as f32 * 5.0_f32.sqrt()).sqrt();
        assert!(
            steep.iter().all(|value| (value - expected).abs() < 1e-3),
            "{expected}: {:?}",
            &steep[..3]
        );
    }
}
