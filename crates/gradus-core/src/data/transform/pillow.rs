//! Resizing in Pillow's arithmetic: the same pixels, to the last bit.
//!
//! Columns first, then rows; weights are rounded to whole parts of 2^22, and each pass to whole levels, halves up.
//! `fast_image_resize`, which training views are made with, is faster and differs by a level here and there; an evaluation view is what
//! an exported model is fed with elsewhere, so there every level counts.

use std::ops::Range;

use image::RgbImage;

use super::Interpolation;

/// Bits of a weight behind the point.
const PRECISION: u32 = 22;

/// What pixels from `first` on count for one resized pixel.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

impl Interpolation {
    /// Distance beyond which the filter is 0.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        let x = distance.abs();
        let sinc = |x: f64| {
            if x == 0.0 {
                1.0
            } else {
                (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI)
            }
        };
        match self {
            _ if x >= self.support() => 0.0,
            Self::Bilinear => 1.0 - x,
            Self::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Self::Bicubic => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Self::Lanczos => sinc(x) * sinc(x / 3.0),
        }
    }
}

/// The windows of resized pixels `kept` when an axis of `size` pixels becomes one of `resized`.
fn windows(size: usize, resized: usize, kept: Range<usize>, filter: Interpolation) -> Vec<Window> {
    let scale = size as f64 / resized as f64;
    let wide = scale.max(1.0);
    let support = filter.support() * wide;
    kept.map(|place| {
        let centre = (place as f64 + 0.5) * scale;
        // Cut towards 0, as a conversion to an integer is in C.
        let first = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(size);
        let exact: Vec<f64> = (first..end)
            .map(|pixel| filter.weight((pixel as f64 - centre + 0.5) / wide))
            .collect();
        let sum: f64 = exact.iter().sum();
        let unit = f64::from(1_u32 << PRECISION);
        let weights = exact
            .iter()
            .map(|weight| (weight / sum * unit).round() as i32)
            .collect();
        Window { first, weights }
    })
    .collect()
}

fn level(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

/// The part `columns` x `rows` of an image that was resized to `width` x `height`.
///
/// # Shapes
/// The result `[rows, columns, 3]`, interleaved.
pub(super) fn resize(
    image: &RgbImage,
    [width, height]: [usize; 2],
    columns: Range<usize>,
    rows: Range<usize>,
    filter: Interpolation,
) -> Vec<u8> {
    const HALF: i32 = 1 << (PRECISION - 1);
    let across = windows(image.width() as usize, width, columns, filter);
    let down = windows(image.height() as usize, height, rows, filter);
    let top = down.iter().map(|window| window.first).min().unwrap_or(0);
    let bottom = down
        .iter()
        .map(|window| window.first + window.weights.len())
        .max()
        .unwrap_or(0);
    let stride = 3 * image.width() as usize;
    let line = 3 * across.len();
    // Only the rows that are looked at.
    let mut narrowed = vec![0_u8; line * (bottom - top)];
    let source = image.as_raw().chunks_exact(stride).skip(top);
    for (row, target) in source.zip(narrowed.chunks_exact_mut(line.max(1))) {
        let pixels = row.as_chunks::<3>().0;
        for (window, target) in across.iter().zip(target.as_chunks_mut::<3>().0) {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in pixels[window.first..].iter().zip(&window.weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            *target = sums.map(level);
        }
    }
    let mut resized = vec![0_u8; line * down.len()];
    let mut sums = vec![0_i32; line];
    for (window, target) in down.iter().zip(resized.chunks_exact_mut(line.max(1))) {
        sums.fill(HALF);
        let lines = narrowed[(window.first - top) * line..].chunks_exact(line.max(1));
        for (row, &weight) in lines.zip(&window.weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        for (target, &sum) in target.iter_mut().zip(&sums) {
            *target = level(sum);
        }
    }
    resized
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pixel at a place of the test image, which tools/golden/pillow.py makes with the same formula.
    fn picture(width: u32, height: u32) -> RgbImage {
        RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([
                ((x * 7 + y * 3) % 256) as u8,
                ((x * y) % 251) as u8,
                if (x / 5 + y / 3) % 2 == 0 { 250 } else { 5 },
            ])
        })
    }

    #[test]
    fn the_pixels_are_pillows() {
        // Written by tools/golden/pillow.py.
        let golden: serde_json::Value = serde_json::from_str(include_str!("golden/pillow.json")).unwrap();
        let cases = golden["cases"].as_array().unwrap();
        assert!(cases.len() >= 12);
        for case in cases {
            let number = |name: &str| case[name].as_u64().unwrap() as usize;
            let filter: Interpolation = serde_json::from_value(case["filter"].clone()).unwrap();
            let (width, height) = (number("resized_width"), number("resized_height"));
            let (left, top, size) = (number("left"), number("top"), number("size"));
            let image = picture(number("width") as u32, number("height") as u32);
            let found = resize(&image, [width, height], left..left + size, top..top + size, filter);
            let checksum = found
                .iter()
                .fold(0_u64, |sum, &value| (sum * 31 + u64::from(value)) % 1_000_000_007);
            let first: Vec<u64> = found.iter().take(6).map(|&value| u64::from(value)).collect();
            let expected: Vec<u64> = case["first"]
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_u64().unwrap())
                .collect();
            assert_eq!(first, expected, "{case}");
            assert_eq!(checksum, case["checksum"].as_u64().unwrap(), "{case}");
        }
    }
}
