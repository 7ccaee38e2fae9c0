//! What stands behind the plant: out-of-focus ground in two colours, and small other flowers.

use tiny_skia::{Point, PremultipliedColorU8};

use super::canvas::{Canvas, circle, polygon};
use super::colour::{Hsv, Rgb};
use super::factors::Nuisance;
use super::pose::Pose;
use crate::random::{Rng, RngCore, stream};

/// Paints the background over the whole canvas; the side towards the light is brighter.
pub(super) fn paint(canvas: &mut Canvas, pose: &Pose, nuisance: &Nuisance) {
    let mut random = stream(nuisance.seed, &[0]);
    ground(canvas, pose, nuisance, random.next_u64(), random.random_range(2.0..5.0));
    blurred_shapes(canvas, nuisance, &mut random);
    blur(canvas, (canvas.pixmap.width() / 48).max(1) as usize);
    for _ in 0..nuisance.neighbours {
        neighbour(canvas, pose, &mut random);
    }
}

fn ground(canvas: &mut Canvas, pose: &Pose, nuisance: &Nuisance, seed: u64, grain: f32) {
    let width = canvas.pixmap.width() as usize;
    let [dark, light] = nuisance.background.map(Hsv::rgb);
    for (index, pixel) in canvas.pixmap.pixels_mut().iter_mut().enumerate() {
        let (x, y) = (
            (index % width) as f32 / width as f32,
            (index / width) as f32 / width as f32,
        );
        let texture = 0.65 * value_noise(seed, x * grain, y * grain)
            + 0.35 * value_noise(seed ^ 1, x * grain * 3.1, y * grain * 3.1);
        let towards_light = (x - 0.5) * pose.light[0] + (0.5 - y) * pose.light[1];
        let colour = dark
            .mix(light, (texture - 0.5) * 1.05 + 0.5)
            .scaled(1.0 + 0.42 * towards_light);
        let [red, green, blue] = colour.0.map(|value| (value.clamp(0.0, 1.0) * 255.0 + 0.5) as u8);
        *pixel = PremultipliedColorU8::from_rgba(red, green, blue, 255).unwrap_or(*pixel);
    }
}

/// Blades and discs that will be blurred into bokeh.
fn blurred_shapes(canvas: &mut Canvas, nuisance: &Nuisance, random: &mut impl Rng) {
    let width = canvas.pixmap.width() as f32;
    let [dark, light] = nuisance.background.map(Hsv::rgb);
    for _ in 0..random.random_range(3..9) {
        let (x, y) = (random.random_range(0.0..width), random.random_range(0.0..width));
        let colour = dark.mix(light, random.random_range(-0.2..1.35));
        if random.random_bool(0.5) {
            let disc = circle(Point::from_xy(x, y), width * random.random_range(0.03..0.10));
            canvas.fill(disc.as_ref(), colour, 0.6);
        } else {
            let (sine, cosine) = random.random_range(0.0..std::f32::consts::TAU).sin_cos();
            let (length, half) = (
                width * random.random_range(0.3..0.7),
                width * random.random_range(0.01..0.035),
            );
            let blade = polygon([
                Point::from_xy(x - half * sine, y + half * cosine),
                Point::from_xy(x + half * sine, y - half * cosine),
                Point::from_xy(x + length * cosine, y + length * sine),
            ]);
            canvas.fill(blade.as_ref(), colour, 0.7);
        }
    }
}

/// A small simple flower near the border of the picture.
fn neighbour(canvas: &mut Canvas, pose: &Pose, random: &mut impl Rng) {
    let width = canvas.pixmap.width() as f32;
    let (sine, cosine) = random.random_range(0.0..std::f32::consts::TAU).sin_cos();
    let distance = random.random_range(0.46..0.64);
    let middle = Point::from_xy(width * (0.5 + distance * cosine), width * (0.5 + distance * sine));
    let radius = width * random.random_range(0.05..0.10);
    let colour = Hsv::new(
        random.random_range(0.0..360.0),
        random.random_range(0.1..0.8),
        random.random_range(0.6..0.95),
    )
    .rgb();
    let petals = random.random_range(4..8);
    let turn = random.random_range(0.0..std::f32::consts::TAU);
    let (shadow_x, shadow_y) = pose.shadow(0.08);
    for (offset, colour, alpha) in [
        ((shadow_x, shadow_y), Rgb([0.02, 0.02, 0.05]), 0.2),
        ((0.0, 0.0), colour.scaled(0.9), 0.9),
    ] {
        for petal in 0..petals {
            let (sine, cosine) = (turn + petal as f32 * std::f32::consts::TAU / petals as f32).sin_cos();
            let at = Point::from_xy(middle.x + 0.55 * radius * cosine, middle.y + 0.55 * radius * sine);
            canvas.fill_moved(circle(at, radius * 0.45).as_ref(), colour, alpha, offset);
        }
    }
    canvas.fill(
        circle(middle, radius * 0.3).as_ref(),
        Hsv::new(48.0, 0.7, 0.85).rgb(),
        1.0,
    );
}

/// Smooth random values in 0..1 over the plane, one draw per unit square.
fn value_noise(seed: u64, x: f32, y: f32) -> f32 {
    let corner = |dx: f32, dy: f32| {
        let (column, row) = ((x.floor() + dx) as i32 as u32, (y.floor() + dy) as i32 as u32);
        let mut hash = seed ^ (u64::from(column) << 32 | u64::from(row)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash = (hash ^ (hash >> 31)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        ((hash ^ (hash >> 32)) >> 40) as f32 / (1u64 << 24) as f32
    };
    let smooth = |t: f32| t * t * (3.0 - 2.0 * t);
    let (u, v) = (smooth(x - x.floor()), smooth(y - y.floor()));
    let top = corner(0.0, 0.0) * (1.0 - u) + corner(1.0, 0.0) * u;
    let bottom = corner(0.0, 1.0) * (1.0 - u) + corner(1.0, 1.0) * u;
    top * (1.0 - v) + bottom * v
}

/// Two passes of a box blur in each direction, edges repeated.
fn blur(canvas: &mut Canvas, radius: usize) {
    let width = canvas.pixmap.width() as usize;
    let data = canvas.pixmap.data_mut();
    let mut line = vec![[0u8; 4]; width];
    for _ in 0..2 {
        for (stride, step) in [(width * 4, 4), (4, width * 4)] {
            for start in (0..width).map(|index| index * stride) {
                for (index, pixel) in line.iter_mut().enumerate() {
                    pixel.copy_from_slice(&data[start + index * step..start + index * step + 4]);
                }
                let at = |index: isize| line[index.clamp(0, width as isize - 1) as usize].map(u32::from);
                let reach = radius as isize;
                let mut sum = (-reach..=reach).fold([0u32; 4], |sum, index| {
                    let pixel = at(index);
                    std::array::from_fn(|c| sum[c] + pixel[c])
                });
                let count = 2 * radius as u32 + 1;
                for index in 0..width {
                    let mean: [u8; 4] = std::array::from_fn(|c| ((sum[c] + count / 2) / count) as u8);
                    data[start + index * step..start + index * step + 4].copy_from_slice(&mean);
                    let (enters, leaves) = (at(index as isize + reach + 1), at(index as isize - reach));
                    sum = std::array::from_fn(|c| sum[c] + enters[c] - leaves[c]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_smooth_and_fills_its_range() {
        let values: Vec<f32> = (0..4000).map(|step| value_noise(9, step as f32 * 0.05, 3.3)).collect();
        assert!(values.iter().all(|value| (0.0..=1.0).contains(value)));
        assert!(values.windows(2).all(|pair| (pair[0] - pair[1]).abs() < 0.1));
        let spread = values.iter().fold((1.0f32, 0.0f32), |(a, b), v| (a.min(*v), b.max(*v)));
        assert!(spread.0 < 0.2 && spread.1 > 0.8, "{spread:?}");
    }

    #[test]
    fn blur_keeps_flat_pictures_and_spreads_points() {
        let mut flat = Canvas::new(16);
        flat.pixmap.fill(Rgb([0.5, 0.25, 1.0]).paint(1.0));
        let before = flat.pixmap.clone();
        blur(&mut flat, 2);
        assert_eq!(flat.pixmap, before);

        let mut point = Canvas::new(16);
        point.pixmap.fill(Rgb([0.0; 3]).paint(1.0));
        point.pixmap.pixels_mut()[8 * 16 + 8] = PremultipliedColorU8::from_rgba(255, 255, 255, 255).unwrap();
        blur(&mut point, 1);
        let red = |x: usize, y: usize| point.pixmap.pixels()[y * 16 + x].red();
        assert!(red(8, 8) > red(9, 8) && red(9, 8) > red(10, 8) && red(10, 8) > 0 && red(11, 8) == 0);
        assert_eq!((red(6, 8), red(8, 6)), (red(10, 8), red(8, 10)));
    }
}
