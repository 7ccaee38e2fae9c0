//! Colours of the drawing: hue, saturation and value for choosing, sRGB for painting.

/// A colour by hue in degrees, saturation and value in 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hsv {
    /// Hue in degrees, any real number.
    pub hue: f32,
    /// Saturation in 0..1.
    pub saturation: f32,
    /// Value in 0..1.
    pub value: f32,
}

impl Hsv {
    /// A colour from its three numbers.
    #[must_use]
    pub const fn new(hue: f32, saturation: f32, value: f32) -> Self {
        Self { hue, saturation, value }
    }

    /// The colour with its hue moved by some degrees.
    #[must_use]
    pub fn turned(self, degrees: f32) -> Self {
        Self {
            hue: self.hue + degrees,
            ..self
        }
    }

    /// As sRGB.
    pub(super) fn rgb(self) -> Rgb {
        let hue = self.hue.rem_euclid(360.0) / 60.0;
        let channel = |offset: f32| {
            let k = (offset + hue) % 6.0;
            self.value * (1.0 - self.saturation * k.min(4.0 - k).clamp(0.0, 1.0))
        };
        Rgb([channel(5.0), channel(3.0), channel(1.0)])
    }
}

/// sRGB channels in 0..1, allowed to leave that range until painted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rgb(pub(super) [f32; 3]);

impl Rgb {
    /// Linear mixture: `self` at 0, `other` at 1.
    pub(super) fn mix(self, other: Self, share: f32) -> Self {
        Self(std::array::from_fn(|c| self.0[c] + (other.0[c] - self.0[c]) * share))
    }

    /// Brightened or darkened.
    pub(super) fn scaled(self, factor: f32) -> Self {
        Self(self.0.map(|value| value * factor))
    }

    /// Lit by `shade`: below 1 darker and slightly cooler, above 1 towards white, as petals look in sun and shadow.
    pub(super) fn lit(self, shade: f32) -> Self {
        if shade <= 1.0 {
            let dark = 1.0 - shade;
            Self([
                self.0[0] * (1.0 - dark),
                self.0[1] * (1.0 - 0.97 * dark),
                self.0[2] * (1.0 - 0.88 * dark),
            ])
        } else {
            self.mix(Self([1.0, 1.0, 0.97]), (shade - 1.0).min(1.0))
        }
    }

    /// As a colour of the painter.
    pub(super) fn paint(self, alpha: f32) -> tiny_skia::Color {
        let [red, green, blue] = self.0.map(|value| value.clamp(0.0, 1.0));
        tiny_skia::Color::from_rgba(red, green, blue, alpha.clamp(0.0, 1.0)).unwrap_or(tiny_skia::Color::BLACK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsv_gives_the_primary_colours() {
        let close = |colour: Hsv, expected: [f32; 3]| {
            for (got, want) in colour.rgb().0.iter().zip(expected) {
                assert!((got - want).abs() < 1e-6, "{colour:?}: {got} is not {want}");
            }
        };
        close(Hsv::new(0.0, 1.0, 1.0), [1.0, 0.0, 0.0]);
        close(Hsv::new(120.0, 1.0, 1.0), [0.0, 1.0, 0.0]);
        close(Hsv::new(-120.0, 1.0, 0.5), [0.0, 0.0, 0.5]);
        close(Hsv::new(60.0, 1.0, 1.0), [1.0, 1.0, 0.0]);
        close(Hsv::new(200.0, 0.0, 0.3), [0.3, 0.3, 0.3]);
    }
}
