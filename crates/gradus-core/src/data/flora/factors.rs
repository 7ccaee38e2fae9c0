//! What varies inside a class: four known factors, and nuisance that carries no information.

use super::colour::Hsv;
use crate::data::Factor;
use crate::random::{Rng, RngCore, purpose, stream};

/// Largest tilt drawn, in degrees.
pub const MAX_TILT_DEG: f32 = 70.0;

/// The known continuous factors of one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factors {
    /// Rotation of the plant in the image plane, in degrees, counter-clockwise, 0 ≤ rotation < 360 (circular).
    pub rotation_deg: f32,
    /// Tilt of the plant away from the viewer about the horizontal axis, in degrees, 0 to [`MAX_TILT_DEG`].
    pub tilt_deg: f32,
    /// Direction in the image from which the light comes, in degrees from the right, counter-clockwise (circular).
    pub light_deg: f32,
    /// From bud (0) to fully open (1).
    pub growth: f32,
}

impl Factors {
    /// The factors of image number `image` (from 1) of species number `species` (from 1): uniform and independent.
    #[must_use]
    pub fn draw(seed: u64, species: u32, image: u32) -> Self {
        let mut random = stream(seed, &[purpose::FLORA, 1, u64::from(species), u64::from(image)]);
        Self {
            rotation_deg: random.random_range(0.0..360.0),
            tilt_deg: random.random_range(0.0..=MAX_TILT_DEG),
            light_deg: random.random_range(0.0..360.0),
            growth: random.random_range(0.0..=1.0),
        }
    }

    /// In the order of [`Factors::described`].
    #[must_use]
    pub fn values(&self) -> Vec<f32> {
        vec![self.rotation_deg, self.tilt_deg, self.light_deg, self.growth]
    }

    /// Names and periods of the factors.
    #[must_use]
    pub fn described() -> Vec<Factor> {
        [
            ("rotation_deg", Some(360.0)),
            ("tilt_deg", None),
            ("light_deg", Some(360.0)),
            ("growth", None),
        ]
        .into_iter()
        .map(|(name, period)| Factor {
            name: name.to_owned(),
            period,
        })
        .collect()
    }
}

/// What changes from image to image without meaning anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Nuisance {
    /// Shift of the plant to the right and up, as shares of the image's width.
    pub shift: [f32; 2],
    /// Size of the plant, around 1.
    pub scale: f32,
    /// Shift of all hues of the plant, in degrees.
    pub hue_shift_deg: f32,
    /// Brightness of the picture, around 1.
    pub exposure: f32,
    /// Two colours the background runs between.
    pub background: [Hsv; 2],
    /// Standard deviation of the sensor noise, in 0..1 units of a channel.
    pub noise: f32,
    /// Number of small other flowers around the plant.
    pub neighbours: u32,
    /// Seed of the background's texture, the neighbours, the irregularity of the petals and the noise.
    pub seed: u64,
}

/// Pairs of colours of places plants grow in.
const PLACES: [[Hsv; 2]; 7] = [
    [Hsv::new(110.0, 0.45, 0.26), Hsv::new(85.0, 0.45, 0.46)],
    [Hsv::new(130.0, 0.40, 0.18), Hsv::new(105.0, 0.42, 0.34)],
    [Hsv::new(28.0, 0.45, 0.24), Hsv::new(34.0, 0.38, 0.42)],
    [Hsv::new(205.0, 0.32, 0.32), Hsv::new(200.0, 0.22, 0.52)],
    [Hsv::new(40.0, 0.25, 0.36), Hsv::new(44.0, 0.25, 0.54)],
    [Hsv::new(250.0, 0.22, 0.26), Hsv::new(300.0, 0.16, 0.40)],
    [Hsv::new(70.0, 0.38, 0.32), Hsv::new(58.0, 0.38, 0.50)],
];

impl Nuisance {
    /// The nuisance of image number `image` (from 1) of species number `species` (from 1).
    #[must_use]
    pub fn draw(seed: u64, species: u32, image: u32) -> Self {
        let mut random = stream(seed, &[purpose::FLORA, 2, u64::from(species), u64::from(image)]);
        let place = PLACES[random.random_range(0..PLACES.len())];
        let background = place.map(|colour| Hsv {
            hue: colour.hue + random.random_range(-12.0..12.0),
            saturation: colour.saturation * random.random_range(0.7..1.2),
            value: (colour.value * random.random_range(0.88..1.12)).min(1.0),
        });
        Self {
            shift: [random.random_range(-0.035..0.035), random.random_range(-0.035..0.035)],
            scale: random.random_range(0.94..1.06),
            hue_shift_deg: random.random_range(-7.0..7.0),
            exposure: random.random_range(0.90..1.10),
            background,
            noise: random.random_range(0.008..0.025),
            neighbours: random.random_range(0..=3),
            seed: random.next_u64(),
        }
    }

    /// No shift, a plain dark green background, no neighbours and no noise: for showing factors alone.
    #[must_use]
    pub fn plain(seed: u64) -> Self {
        Self {
            shift: [0.0; 2],
            scale: 1.0,
            hue_shift_deg: 0.0,
            exposure: 1.0,
            background: PLACES[0],
            noise: 0.0,
            neighbours: 0,
            seed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_stay_in_range_and_fill_it() {
        let all: Vec<Factors> = (1..=20)
            .flat_map(|species| (1..=50).map(move |image| Factors::draw(5, species, image)))
            .collect();
        let check = |value: fn(&Factors) -> f32, low: f32, high: f32| {
            let (smallest, largest) = all
                .iter()
                .map(value)
                .fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(v), b.max(v)));
            let mean = all.iter().map(value).sum::<f32>() / all.len() as f32;
            assert!(
                smallest >= low && largest <= high,
                "{smallest}..{largest} leaves {low}..{high}"
            );
            assert!(smallest < low + 0.02 * (high - low) && largest > high - 0.02 * (high - low));
            assert!((mean - (low + high) / 2.0).abs() < 0.05 * (high - low), "mean {mean}");
        };
        check(|factors| factors.rotation_deg, 0.0, 360.0);
        check(|factors| factors.tilt_deg, 0.0, MAX_TILT_DEG);
        check(|factors| factors.light_deg, 0.0, 360.0);
        check(|factors| factors.growth, 0.0, 1.0);
    }

    #[test]
    fn values_follow_the_description() {
        let factors = Factors {
            rotation_deg: 1.0,
            tilt_deg: 2.0,
            light_deg: 3.0,
            growth: 4.0,
        };
        let named: Vec<(String, f32)> = Factors::described()
            .into_iter()
            .map(|factor| factor.name)
            .zip(factors.values())
            .collect();
        let expected = [
            ("rotation_deg", 1.0),
            ("tilt_deg", 2.0),
            ("light_deg", 3.0),
            ("growth", 4.0),
        ];
        assert_eq!(named, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
