//! What makes a class: the species, a set of traits that stay the same in all of its images.

use super::colour::Hsv;
use crate::random::{Rng, purpose, stream};

/// The pattern on a petal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marking {
    /// One colour.
    Plain,
    /// Dark or light veins from the base outwards.
    Veins,
    /// Spots in rows.
    Spots,
    /// A border of another colour.
    Border,
    /// An eye: the base of the petals has another colour.
    Eye,
    /// One broad stripe along the middle.
    Stripe,
}

/// The middle of the flower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Centre {
    /// A domed disc.
    Disc,
    /// A disc inside a ring of another colour.
    Ringed,
    /// Stamens: thin filaments that end in anthers.
    Stamens,
}

/// The outline of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeafForm {
    /// Long and narrow.
    Lance,
    /// Broad, oval.
    Ovate,
    /// Broadest at the base.
    Heart,
    /// Deeply lobed.
    Lobed,
    /// Leaflets along a midrib.
    Pinnate,
}

/// The traits shared by all images of a class.
#[derive(Clone, Debug, PartialEq)]
pub struct Species {
    /// Number of petals of the outer whorl, 3 to 10.
    pub petals: u32,
    /// Whether a second, smaller whorl stands inside the first.
    pub double: bool,
    /// Width of a petal as a share of its length.
    pub petal_width: f32,
    /// Where along the petal it is broadest, 0.35 to 0.8.
    pub petal_shoulder: f32,
    /// Bluntness of the tip: 0.3 nearly square, 1.3 a long point.
    pub petal_point: f32,
    /// Depth of the notch at the tip, 0 to 0.3 of the length.
    pub petal_notch: f32,
    /// How much longer the petals are on the side of the stem (the lip of an orchid), 0.1 to 0.4.
    pub lip: f32,
    /// Elevation in degrees at which the petals stand when fully open.
    pub open_elevation: f32,
    /// Colour of the petals.
    pub petal_colour: Hsv,
    /// Pattern of the petals.
    pub marking: Marking,
    /// Colour of the pattern.
    pub marking_colour: Hsv,
    /// Form of the centre.
    pub centre: Centre,
    /// Radius of the centre as a share of the petals' length.
    pub centre_radius: f32,
    /// Colour of the centre.
    pub centre_colour: Hsv,
    /// Form of the leaves.
    pub leaf: LeafForm,
    /// Length of the longer leaf as a share of the petals' length.
    pub leaf_length: f32,
    /// Colour of the leaves.
    pub leaf_colour: Hsv,
    /// Whether the leaves have a pale border and midrib.
    pub variegated: bool,
}

/// Petal colours are shared by many species: colour alone must not tell them apart.
const PETAL_COLOURS: [Hsv; 7] = [
    Hsv::new(48.0, 0.10, 0.97),
    Hsv::new(48.0, 0.80, 0.96),
    Hsv::new(335.0, 0.42, 0.95),
    Hsv::new(350.0, 0.80, 0.82),
    Hsv::new(275.0, 0.50, 0.80),
    Hsv::new(225.0, 0.55, 0.88),
    Hsv::new(22.0, 0.78, 0.95),
];

const MARKING_COLOURS: [Hsv; 5] = [
    Hsv::new(340.0, 0.85, 0.45),
    Hsv::new(52.0, 0.75, 0.98),
    Hsv::new(0.0, 0.02, 0.98),
    Hsv::new(280.0, 0.75, 0.40),
    Hsv::new(15.0, 0.90, 0.75),
];

const CENTRE_COLOURS: [Hsv; 4] = [
    Hsv::new(46.0, 0.85, 0.92),
    Hsv::new(25.0, 0.70, 0.38),
    Hsv::new(85.0, 0.60, 0.65),
    Hsv::new(320.0, 0.60, 0.35),
];

const LEAF_COLOURS: [Hsv; 4] = [
    Hsv::new(105.0, 0.62, 0.50),
    Hsv::new(82.0, 0.62, 0.62),
    Hsv::new(150.0, 0.38, 0.50),
    Hsv::new(118.0, 0.60, 0.36),
];

/// Seen at 64 pixels, these numbers of petals differ clearly from their neighbours in the list.
const PETAL_NUMBERS: [u32; 6] = [3, 4, 5, 6, 8, 11];

impl Species {
    /// The species of a seed: number `species` (from 1) is the same whatever the number of species.
    ///
    /// Traits are drawn independently from short lists, so that any two species share some of them: it is the
    /// combination that makes the species.
    #[must_use]
    pub fn draw(seed: u64, species: u32) -> Self {
        let mut random = stream(seed, &[purpose::FLORA, 0, u64::from(species)]);
        let petals = PETAL_NUMBERS[random.random_range(0..PETAL_NUMBERS.len())];
        let petal_colour = vary(PETAL_COLOURS[random.random_range(0..PETAL_COLOURS.len())], &mut random);
        let marking = match random.random_range(0..6) {
            0 => Marking::Plain,
            1 => Marking::Veins,
            2 => Marking::Spots,
            3 => Marking::Border,
            4 => Marking::Eye,
            _ => Marking::Stripe,
        };
        // The pattern must be seen: take the first colour, from a random start, that stands out from the petal.
        let start = random.random_range(0..MARKING_COLOURS.len());
        let marking_colour = (0..MARKING_COLOURS.len())
            .map(|step| MARKING_COLOURS[(start + step) % MARKING_COLOURS.len()])
            .find(|colour| contrast(*colour, petal_colour) > 0.55)
            .unwrap_or(MARKING_COLOURS[start]);
        // Few petals are broad and many are narrow, as they would otherwise leave gaps or hide each other.
        let room = (std::f32::consts::PI / petals as f32).tan() * 1.5;
        let petal_width = (room * random.random_range(0.62..1.15)).clamp(0.2, 0.95);
        let notched = random.random_bool(0.22);
        Self {
            petals,
            double: petals <= 8 && random.random_bool(0.25),
            petal_width,
            petal_shoulder: random.random_range(0.40..0.75),
            petal_point: if notched {
                0.3
            } else {
                [0.35, 0.55, 1.0][random.random_range(0..3)]
            },
            petal_notch: if notched { random.random_range(0.16..0.3) } else { 0.0 },
            lip: random.random_range(0.10..0.40),
            open_elevation: random.random_range(8.0..26.0),
            petal_colour,
            marking,
            marking_colour: vary(marking_colour, &mut random),
            centre: [Centre::Disc, Centre::Ringed, Centre::Stamens][random.random_range(0..3)],
            centre_radius: random.random_range(0.18..0.36),
            centre_colour: vary(
                CENTRE_COLOURS[random.random_range(0..CENTRE_COLOURS.len())],
                &mut random,
            ),
            leaf: [
                LeafForm::Lance,
                LeafForm::Ovate,
                LeafForm::Heart,
                LeafForm::Lobed,
                LeafForm::Pinnate,
            ][random.random_range(0..5)],
            leaf_length: random.random_range(1.05..1.40),
            leaf_colour: vary(LEAF_COLOURS[random.random_range(0..LEAF_COLOURS.len())], &mut random),
            variegated: random.random_bool(0.3),
        }
    }
}

fn vary(colour: Hsv, random: &mut impl Rng) -> Hsv {
    Hsv {
        hue: colour.hue + random.random_range(-7.0..7.0),
        saturation: (colour.saturation * random.random_range(0.88..1.12)).clamp(0.0, 1.0),
        value: (colour.value * random.random_range(0.94..1.06)).clamp(0.0, 1.0),
    }
}

fn contrast(a: Hsv, b: Hsv) -> f32 {
    a.rgb()
        .0
        .iter()
        .zip(b.rgb().0)
        .map(|(x, y)| (x - y).powi(2))
        .sum::<f32>()
        .sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn species_are_a_function_of_seed_and_number_and_differ() {
        assert_eq!(Species::draw(3, 17), Species::draw(3, 17));
        assert_ne!(Species::draw(3, 17), Species::draw(4, 17));
        let all: Vec<Species> = (1..=60).map(|number| Species::draw(0, number)).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[..i] {
                assert_ne!(a, b);
            }
        }
    }

    #[test]
    fn patterns_stand_out_from_the_petals() {
        for number in 1..=500 {
            let species = Species::draw(1, number);
            assert!(
                contrast(species.marking_colour, species.petal_colour) > 0.35,
                "{species:?}"
            );
        }
    }

    #[test]
    fn short_lists_make_species_share_traits() {
        let all: Vec<Species> = (1..=60).map(|number| Species::draw(0, number)).collect();
        let same_petals = all.iter().filter(|species| species.petals == all[0].petals).count();
        assert!(
            same_petals > 3,
            "only {same_petals} species with {} petals",
            all[0].petals
        );
    }
}
