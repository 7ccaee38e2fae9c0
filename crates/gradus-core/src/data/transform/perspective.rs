//! Graded augmentation: the path of ever stronger views of a seed, and the projective map that shows them.

use super::Crop;
use super::colour::Colour;
use crate::random::{Rng, purpose, stream};

/// The path of graded views of a seed.
#[derive(Debug)]
pub(super) struct Path {
    /// Where the kept part lies in what is left over, 0 to 1 per axis.
    position: [f64; 2],
    /// Where each corner moves, -1 to 1 per axis, in units of a quarter of the side at full strength.
    moves: [[f64; 2]; 4],
    /// Whether brightness, contrast and saturation grow (+1) or shrink (-1).
    signs: [f64; 3],
    /// Which way the view turns, -1 or 1.
    turn: f64,
}

impl Path {
    pub(super) fn draw(seed: u64) -> Self {
        let mut random = stream(seed, &[purpose::GRADED]);
        let position = std::array::from_fn(|_| random.random());
        let moves = std::array::from_fn(|_| std::array::from_fn(|_| random.random_range(-1.0..=1.0)));
        let signs = std::array::from_fn(|_| if random.random::<bool>() { 1.0 } else { -1.0 });
        // Drawn last, so that views without rotation are what they were before there was any.
        let turn = if random.random::<bool>() { 1.0 } else { -1.0 };
        Self {
            position,
            moves,
            signs,
            turn,
        }
    }

    /// Corners (top left, top right, bottom right, bottom left) of the part kept of a crop at strength `t`.
    ///
    /// They stay a convex quadrilateral: each moves by less than a quarter of the side, t being below 1. The whole is then turned
    /// about its centre by `t * rotation` radians.
    pub(super) fn corners(&self, crop: Crop<u32>, t: f64, rotation: f64) -> [[f64; 2]; 4] {
        let side = (1.0 - t).max(0.0).sqrt();
        let crop = [
            f64::from(crop.left),
            f64::from(crop.top),
            f64::from(crop.width),
            f64::from(crop.height),
        ];
        let units = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
        let (sin, cos) = (self.turn * t * rotation).sin_cos();
        std::array::from_fn(|corner| {
            let centre: [f64; 2] = std::array::from_fn(|axis| {
                let (start, extent) = (crop[axis], crop[2 + axis]);
                start + self.position[axis] * (extent - side * extent) + 0.5 * side * extent
            });
            let [x, y]: [f64; 2] = std::array::from_fn(|axis| {
                let unit = units[corner][axis] + t / 4.0 * self.moves[corner][axis];
                (unit - 0.5) * side * crop[2 + axis]
            });
            [centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y]
        })
    }

    pub(super) fn colours(&self, t: f64) -> [Colour; 3] {
        let factor = |sign: f64| (1.0 + sign * t / 2.0) as f32;
        let [brightness, contrast, saturation] = self.signs.map(factor);
        [
            Colour::Brightness(brightness),
            Colour::Contrast(contrast),
            Colour::Saturation(saturation),
        ]
    }
}

/// Coefficients `[a, b, c, d, e, f, g, h]` of the projective map of the unit square onto four corners (top left, top
/// right, bottom right, bottom left): `((a u + b v + c) / w, (d u + e v + f) / w)` with `w = g u + h v + 1`
/// (Heckbert, 1989, section 2.2.3).
fn projection([p0, p1, p2, p3]: [[f64; 2]; 4]) -> [f64; 8] {
    let [sum_x, sum_y] = [p0[0] - p1[0] + p2[0] - p3[0], p0[1] - p1[1] + p2[1] - p3[1]];
    let ([dx1, dy1], [dx2, dy2]) = ([p1[0] - p2[0], p1[1] - p2[1]], [p3[0] - p2[0], p3[1] - p2[1]]);
    let determinant = dx1 * dy2 - dx2 * dy1;
    // Corners on one line (an image squeezed to nothing): fall back to the affine map.
    let (g, h) = if determinant.abs() < 1e-12 {
        (0.0, 0.0)
    } else {
        (
            (sum_x * dy2 - dx2 * sum_y) / determinant,
            (dx1 * sum_y - sum_x * dy1) / determinant,
        )
    };
    [
        p1[0] - p0[0] + g * p1[0],
        p3[0] - p0[0] + h * p3[0],
        p0[0],
        p1[1] - p0[1] + g * p1[1],
        p3[1] - p0[1] + h * p3[1],
        p0[1],
        g,
        h,
    ]
}

/// Shows the part of an image between four corners (top left, top right, bottom right, bottom left; pixel centres have
/// whole coordinates) as a square of `size`, interpolated between the four pixels around each point. Beyond the image
/// its border is repeated.
pub(super) fn sample(pixels: &[u8], width: usize, height: usize, corners: [[f64; 2]; 4], size: usize) -> Vec<f32> {
    let [a, b, c, d, e, f, g, h] = projection(corners);
    let (most_x, most_y) = ((width - 1) as f32, (height - 1) as f32);
    let mut output = Vec::with_capacity(3 * size * size);
    for y in 0..size {
        // Along a row numerators and denominator are linear; single precision is enough for a place in the image.
        let v = (y as f64 + 0.5) / size as f64;
        let start = [b * v + c, e * v + f, h * v + 1.0].map(|value| value as f32);
        let slope = [a, d, g].map(|value| value as f32);
        for x in 0..size {
            let u = (x as f32 + 0.5) / size as f32;
            let scale = 1.0 / (slope[2] * u + start[2]);
            let px = ((slope[0] * u + start[0]) * scale).clamp(0.0, most_x);
            let py = ((slope[1] * u + start[1]) * scale).clamp(0.0, most_y);
            let (left, top) = (px as usize, py as usize);
            let (fx, fy) = (px - left as f32, py - top as f32);
            let upper = (top * width + left) * 3;
            let right = if left + 1 < width { 3 } else { 0 };
            let lower = if top + 1 < height { upper + 3 * width } else { upper };
            let pixel = |at: usize| [pixels[at], pixels[at + 1], pixels[at + 2]].map(f32::from);
            let corners = [pixel(upper), pixel(upper + right), pixel(lower), pixel(lower + right)];
            let weights = [(1.0 - fx) * (1.0 - fy), fx * (1.0 - fy), (1.0 - fx) * fy, fx * fy];
            output.extend::<[f32; 3]>(std::array::from_fn(|channel| {
                corners
                    .iter()
                    .zip(weights)
                    .map(|(corner, weight)| corner[channel] * weight)
                    .sum()
            }));
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::super::strength;
    use super::*;

    fn project(&[a, b, c, d, e, f, g, h]: &[f64; 8], u: f64, v: f64) -> [f64; 2] {
        let w = g * u + h * v + 1.0;
        [(a * u + b * v + c) / w, (d * u + e * v + f) / w]
    }

    #[test]
    fn rotation_turns_the_corners_about_the_centre_by_its_share_of_the_angle() {
        let crop = Crop {
            left: 3,
            top: 5,
            width: 40,
            height: 30,
        };
        for seed in 0..10 {
            let path = Path::draw(seed);
            let (straight, turned) = (path.corners(crop, 0.5, 0.0), path.corners(crop, 0.5, 1.2));
            // The centre of what is kept does not move.
            let side = 0.5_f64.sqrt();
            let centre = [
                3.0 + path.position[0] * 40.0 * (1.0 - side) + 20.0 * side,
                5.0 + path.position[1] * 30.0 * (1.0 - side) + 15.0 * side,
            ];
            for (a, b) in straight.iter().zip(&turned) {
                let (a, b) = (
                    [a[0] - centre[0], a[1] - centre[1]],
                    [b[0] - centre[0], b[1] - centre[1]],
                );
                assert!((a[0].hypot(a[1]) - b[0].hypot(b[1])).abs() < 1e-9);
                let angle = (a[0] * b[1] - a[1] * b[0]).atan2(a[0] * b[0] + a[1] * b[1]);
                assert!((angle - path.turn * 0.6).abs() < 1e-9, "{angle}");
            }
        }
    }

    #[test]
    fn the_projective_map_takes_the_unit_square_to_the_corners() {
        for seed in 0..200 {
            let crop = Crop {
                left: 3,
                top: 9,
                width: 40,
                height: 25,
            };
            let corners = Path::draw(seed).corners(crop, strength(5), 0.7);
            let map = projection(corners);
            for (unit, corner) in [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]].iter().zip(corners) {
                let [x, y] = project(&map, unit[0], unit[1]);
                assert!(
                    (x - corner[0]).abs() < 1e-9 && (y - corner[1]).abs() < 1e-9,
                    "{corners:?}"
                );
            }
            // Convex at every strength: the cross products of successive sides have one sign.
            for corner in 0..4 {
                let [a, b, c] = [0, 1, 2].map(|step| corners[(corner + step) % 4]);
                assert!(
                    (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0]) > 0.0,
                    "{corners:?}"
                );
            }
            // Straight lines stay straight: the centre lies on both diagonals.
            let [x, y] = project(&map, 0.5, 0.5);
            for [p, q] in [[0, 2], [1, 3]].map(|pair| pair.map(|corner| corners[corner])) {
                let cross = (q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]);
                assert!(cross.abs() < 1e-6, "{cross}");
            }
        }
    }

    #[test]
    fn a_share_of_one_minus_the_strength_is_kept_on_average() {
        let crop = Crop {
            left: 0,
            top: 0,
            width: 40,
            height: 25,
        };
        for level in 1..6 {
            let mut area = 0.0;
            for seed in 0..2000 {
                let corners = Path::draw(seed).corners(crop, strength(level), 0.0);
                // Shoelace formula.
                area += (0..4)
                    .map(|corner| (corners[corner], corners[(corner + 1) % 4]))
                    .map(|(p, q)| (p[0] * q[1] - q[0] * p[1]) / 2.0)
                    .sum::<f64>();
            }
            let share = area / 2000.0 / 1000.0;
            assert!(
                (share / (1.0 - strength(level)) - 1.0).abs() < 0.02,
                "level {level}: {share}"
            );
        }
    }

    #[test]
    fn sampling_interpolates_and_repeats_the_border() {
        // Two columns, 0 and 100 in every channel, seen from one column left of the image to one right of it.
        let pixels = [0, 0, 0, 100, 100, 100];
        let seen = sample(&pixels, 2, 1, [[-1.0, 0.0], [2.0, 0.0], [2.0, 0.0], [-1.0, 0.0]], 6);
        let expected = [0.0, 0.0, 25.0, 75.0, 100.0, 100.0];
        for (pixel, expected) in seen.chunks_exact(3).zip(expected.iter().cycle()) {
            assert!(pixel.iter().all(|value| (value - expected).abs() < 1e-3), "{seen:?}");
        }
    }
}
