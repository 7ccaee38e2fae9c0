//! Colour augmentation of interleaved RGB values 0..255.

/// Colour factors, in the order in which they are applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Colour {
    Brightness(f32),
    Contrast(f32),
    Saturation(f32),
    Hue(f32),
}

impl Colour {
    /// Applies a colour factor to interleaved values 0..255: a blend with black, with the mean grey, with each pixel's own
    /// grey, or a turn of the hue.
    pub(super) fn apply(self, pixels: &mut [f32]) {
        let blend = |value: f32, other: f32, factor: f32| (other + factor * (value - other)).clamp(0.0, 255.0);
        match self {
            Colour::Brightness(factor) => pixels.iter_mut().for_each(|value| *value = blend(*value, 0.0, factor)),
            Colour::Contrast(factor) => {
                // In f64: a sum of many values must not depend on their number.
                let sum: f64 = pixels.chunks_exact(3).map(|pixel| f64::from(grey(pixel))).sum();
                let mean = (sum / (pixels.len() / 3).max(1) as f64) as f32;
                pixels.iter_mut().for_each(|value| *value = blend(*value, mean, factor));
            }
            Colour::Saturation(factor) => {
                for pixel in pixels.chunks_exact_mut(3) {
                    let own = grey(pixel);
                    pixel.iter_mut().for_each(|value| *value = blend(*value, own, factor));
                }
            }
            Colour::Hue(turn) => {
                for pixel in pixels.chunks_exact_mut(3) {
                    let turned = turn_hue([pixel[0], pixel[1], pixel[2]], turn);
                    pixel.copy_from_slice(&turned);
                }
            }
        }
    }
}

/// Luminance with the weights of Pillow's conversion to greyscale.
fn grey(pixel: &[f32]) -> f32 {
    0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
}

/// Turns the hue by a share of the colour circle, keeping the largest and smallest channel (value and saturation).
fn turn_hue([red, green, blue]: [f32; 3], turn: f32) -> [f32; 3] {
    let (high, low) = (red.max(green).max(blue), red.min(green).min(blue));
    let range = high - low;
    if range <= 0.0 {
        return [red, green, blue];
    }
    let hue = if high == red {
        (green - blue) / range
    } else if high == green {
        (blue - red) / range + 2.0
    } else {
        (red - green) / range + 4.0
    };
    let hue = (hue + 6.0 * turn).rem_euclid(6.0);
    // Each channel is a trapezoid over the circle, shifted by a third of it.
    [5.0, 3.0, 1.0].map(|shift: f32| {
        let position = (shift + hue).rem_euclid(6.0);
        high - range * position.min(4.0 - position).clamp(0.0, 1.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worst(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn colours_follow_their_definitions() {
        let original = [200.0, 100.0, 50.0, 0.0, 10.0, 20.0];
        let after = |colour: Colour| {
            let mut pixels = original;
            colour.apply(&mut pixels);
            pixels
        };
        assert_eq!(after(Colour::Brightness(0.5)), [100.0, 50.0, 25.0, 0.0, 5.0, 10.0]);
        assert_eq!(after(Colour::Brightness(2.0)), [255.0, 200.0, 100.0, 0.0, 20.0, 40.0]);
        // Greys 124.2 and 8.15, mean 66.175.
        let flat = after(Colour::Contrast(0.0));
        assert!(flat.iter().all(|value| (value - 66.175).abs() < 1e-4), "{flat:?}");
        let grey = after(Colour::Saturation(0.0));
        assert!(
            (grey[0] - 124.2).abs() < 1e-4 && grey[0] == grey[2] && (grey[4] - 8.15).abs() < 1e-4,
            "{grey:?}"
        );
        for colour in [
            Colour::Brightness(1.0),
            Colour::Contrast(1.0),
            Colour::Saturation(1.0),
            Colour::Hue(0.0),
        ] {
            assert!(worst(&after(colour), &original) < 1e-3, "{colour:?}");
        }
        // A third of the circle turns red into green and green into blue.
        let near = |turn, expected: [f32; 3]| worst(&turn_hue([200.0, 50.0, 50.0], turn), &expected) < 1e-3;
        assert!(near(1.0 / 3.0, [50.0, 200.0, 50.0]) && near(-1.0 / 3.0, [50.0, 50.0, 200.0]));
        assert!(near(0.5, [50.0, 200.0, 200.0]) && near(1.0, [200.0, 50.0, 50.0]));
        assert_eq!(turn_hue([9.0; 3], 0.3), [9.0; 3]);
    }
}
