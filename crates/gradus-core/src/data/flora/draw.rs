//! One picture: background, stem, leaves, flower; then brightness, noise and the reduction to the size asked for.

use image::RgbImage;
use rand_distr::{Distribution, StandardNormal};
use tiny_skia::Point;

use super::background;
use super::canvas::{Canvas, circle, line, polygon};
use super::colour::Rgb;
use super::factors::{Factors, Nuisance};
use super::leaf::{Leaf, stem};
use super::petal::{Petal, PetalColours};
use super::pose::Pose;
use super::species::{Centre, Species};
use crate::random::{Rng, stream};

/// Draws one plant: a pure function of its arguments. `size` is the width and height in pixels, 16 to 512; sizes outside
/// are drawn as the nearest of these.
#[must_use]
pub fn render(species: &Species, factors: &Factors, nuisance: &Nuisance, size: u32) -> RgbImage {
    let size = size.clamp(super::MIN_SIZE, super::MAX_SIZE);
    // Small pictures are painted at twice their size: veins and stamens are thinner than a pixel.
    let oversampling = if size <= 128 { 2 } else { 1 };
    let mut canvas = Canvas::new(size * oversampling);
    let pose = Pose::new(factors, nuisance, canvas.pixmap.width() as f32);
    background::paint(&mut canvas, &pose, nuisance);
    paint_stem_and_leaves(&mut canvas, &pose, species, nuisance, factors.growth);
    paint_flower(&mut canvas, &pose, species, nuisance, factors.growth);
    develop(&canvas, nuisance, size, oversampling)
}

fn paint_stem_and_leaves(canvas: &mut Canvas, pose: &Pose, species: &Species, nuisance: &Nuisance, growth: f32) {
    let mut random = stream(nuisance.seed, &[1]);
    let colour = species.leaf_colour.turned(nuisance.hue_shift_deg).rgb();
    let course = line((0..=12).map(|step| pose.project(stem(step as f32 / 12.0))));
    let (shadow_x, shadow_y) = pose.shadow(0.12);
    let shade = line(
        (0..=12)
            .map(|step| pose.project(stem(step as f32 / 12.0)))
            .map(|point| Point::from_xy(point.x + shadow_x, point.y + shadow_y)),
    );
    canvas.stroke(shade.as_ref(), Rgb([0.02, 0.03, 0.05]), 0.28, 0.13 * pose.unit);
    canvas.stroke(
        course.as_ref(),
        colour.mix(Rgb([0.5, 0.55, 0.25]), 0.3).scaled(0.62),
        1.0,
        0.13 * pose.unit,
    );
    canvas.stroke(
        course.as_ref(),
        colour.mix(Rgb([0.7, 0.75, 0.4]), 0.3),
        1.0,
        0.07 * pose.unit,
    );
    // Leaves grow with the plant, less than the flower does.
    let size = species.leaf_length * (0.72 + 0.28 * growth);
    let mut leaf = |along: f32, azimuth_deg: f32, share: f32| Leaf {
        foot: stem(along),
        azimuth: (azimuth_deg + random.random_range(-6.0..6.0f32)).to_radians(),
        length: size * share * random.random_range(0.96..1.04),
    };
    for leaf in [leaf(0.42, 172.0, 0.66), leaf(0.34, 12.0, 1.0)] {
        leaf.paint(canvas, pose, species, colour);
    }
}

fn paint_flower(canvas: &mut Canvas, pose: &Pose, species: &Species, nuisance: &Nuisance, growth: f32) {
    let petals = petals(pose, species, nuisance, growth);
    let ground = species.petal_colour.turned(nuisance.hue_shift_deg).rgb();
    let leaf = species.leaf_colour.turned(nuisance.hue_shift_deg).rgb();
    let colours = PetalColours {
        ground,
        marking: species.marking_colour.turned(nuisance.hue_shift_deg).rgb(),
        outside: ground.mix(leaf, 0.22),
    };
    for whorl in &petals {
        for petal in whorl {
            petal.cast(canvas, pose, species, 0.20, 0.16);
        }
    }
    // Petals seen from inside stand behind the middle of the flower, petals seen from outside before it.
    for (number, whorl) in petals.iter().enumerate() {
        for petal in whorl.iter().filter(|petal| petal.shows_inside(pose)) {
            if number > 0 {
                petal.cast(canvas, pose, species, 0.07, 0.22);
            }
            petal.paint(canvas, pose, species, &colours);
        }
    }
    paint_centre(canvas, pose, species, nuisance, growth);
    for whorl in petals.iter().rev() {
        for petal in whorl.iter().filter(|petal| !petal.shows_inside(pose)) {
            petal.paint(canvas, pose, species, &colours);
        }
    }
}

/// The petals by whorl, outer first, each sorted from back to front.
fn petals(pose: &Pose, species: &Species, nuisance: &Nuisance, growth: f32) -> Vec<Vec<Petal>> {
    let mut random = stream(nuisance.seed, &[2]);
    let closed = 1.0 - growth;
    let open = species.open_elevation.to_radians();
    let whorls = if species.double { 2 } else { 1 };
    (0..whorls)
        .map(|whorl| {
            let inner = whorl as f32;
            let spacing = std::f32::consts::TAU / species.petals as f32;
            let mut petals: Vec<Petal> = (0..species.petals)
                .map(|petal| {
                    // The first petal points at the stem, so that the lip is one petal; inner petals fill the gaps.
                    let azimuth = (petal as f32 + 0.5 * inner) * spacing - std::f32::consts::FRAC_PI_2;
                    let lip = 1.0 - species.lip * (0.5 + 0.5 * azimuth.sin());
                    Petal {
                        azimuth: azimuth + random.random_range(-0.05..0.05),
                        elevation: open + 0.25 * inner + closed * (1.0 - open) + random.random_range(-0.05..0.05),
                        curl: 0.55 * growth - 0.25 * closed,
                        length: lip * (0.66 + 0.34 * growth) * (1.0 - 0.38 * inner) * random.random_range(0.95..1.05),
                        base: species.centre_radius * (0.45 + 0.15 * growth),
                    }
                })
                .collect();
            petals.sort_by(|a, b| b.height(pose).total_cmp(&a.height(pose)));
            petals
        })
        .collect()
}

fn paint_centre(canvas: &mut Canvas, pose: &Pose, species: &Species, nuisance: &Nuisance, growth: f32) {
    let colour = species.centre_colour.turned(nuisance.hue_shift_deg).rgb();
    let radius = species.centre_radius * (0.65 + 0.35 * growth);
    let disc = |radius: f32, height: f32| {
        polygon((0..24).map(|step| {
            let (sine, cosine) = (step as f32 * std::f32::consts::TAU / 24.0).sin_cos();
            pose.project([radius * cosine, radius * sine, height])
        }))
    };
    let middle = pose.project([0.0, 0.0, 0.1]);
    let (x, y) = pose.shadow(-radius * 0.55);
    let glint = Point::from_xy(middle.x + x, middle.y + y);
    let dome = |canvas: &mut Canvas, radius: f32, colour: Rgb| {
        let stops = [
            (0.0, colour.lit(1.35)),
            (0.45, colour.lit(0.95)),
            (1.0, colour.lit(0.55)),
        ];
        canvas.fill_around(disc(radius, 0.1).as_ref(), glint, 1.7 * radius * pose.unit, &stops);
    };
    canvas.fill_moved(
        disc(radius * 1.05, 0.06).as_ref(),
        Rgb([0.02, 0.02, 0.05]),
        0.3,
        pose.shadow(0.05),
    );
    match species.centre {
        Centre::Disc => dome(canvas, radius, colour),
        Centre::Ringed => {
            dome(canvas, radius, colour.mix(Rgb([1.0, 0.97, 0.8]), 0.7));
            dome(canvas, radius * 0.62, colour.scaled(0.85));
        }
        Centre::Stamens => {
            dome(canvas, radius * 0.5, colour.mix(Rgb([0.6, 0.75, 0.3]), 0.6));
            for step in 0..9 {
                let (sine, cosine) = (step as f32 * std::f32::consts::TAU / 9.0 + 0.2).sin_cos();
                let reach = radius * 1.25;
                let foot = pose.project([0.0, 0.0, 0.08]);
                let anther = pose.project([reach * cosine, reach * sine, 0.22]);
                let filament = line([foot, anther]);
                canvas.stroke(filament.as_ref(), Rgb([0.96, 0.95, 0.82]), 0.9, 0.03 * pose.unit);
                canvas.fill(circle(anther, 0.062 * pose.unit).as_ref(), colour, 1.0);
            }
        }
    }
}

/// Averages the oversampled picture, then applies exposure and noise.
fn develop(canvas: &Canvas, nuisance: &Nuisance, size: u32, oversampling: u32) -> RgbImage {
    let mut random = stream(nuisance.seed, &[3]);
    let width = canvas.pixmap.width() as usize;
    let pixels = canvas.pixmap.pixels();
    let area = (oversampling * oversampling) as f32;
    RgbImage::from_fn(size, size, |x, y| {
        let mut sum = [0.0f32; 3];
        for row in 0..oversampling {
            for column in 0..oversampling {
                // The background is opaque, so premultiplied colours are plain ones.
                let at = (y * oversampling + row) as usize * width + (x * oversampling + column) as usize;
                let pixel = pixels[at];
                for (sum, value) in sum.iter_mut().zip([pixel.red(), pixel.green(), pixel.blue()]) {
                    *sum += f32::from(value);
                }
            }
        }
        image::Rgb(sum.map(|value| {
            let noise: f32 = StandardNormal.sample(&mut random);
            (value / area * nuisance.exposure + 255.0 * nuisance.noise * noise + 0.5).clamp(0.0, 255.0) as u8
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root mean squared difference of two pictures, in levels.
    fn difference(a: &RgbImage, b: &RgbImage) -> f32 {
        let sum: f32 = a
            .as_raw()
            .iter()
            .zip(b.as_raw())
            .map(|(x, y)| (f32::from(*x) - f32::from(*y)).powi(2))
            .sum();
        (sum / a.as_raw().len() as f32).sqrt()
    }

    const MIDDLE: Factors = Factors {
        rotation_deg: 140.0,
        tilt_deg: 20.0,
        light_deg: 60.0,
        growth: 0.5,
    };

    fn moved(factor: usize, by: f32) -> Factors {
        let mut factors = MIDDLE;
        match factor {
            0 => factors.rotation_deg += by,
            1 => factors.tilt_deg += by,
            2 => factors.light_deg += by,
            _ => factors.growth += by,
        }
        factors
    }

    #[test]
    fn pictures_move_steadily_away_as_one_factor_moves() {
        // Rotations stay below half the distance of eleven petals: beyond it, many petals match again in part.
        let steps: [[f32; 4]; 4] = [
            [1.5, 4.0, 8.0, 14.0],
            [5.0, 12.0, 22.0, 38.0],
            [12.0, 30.0, 60.0, 110.0],
            [0.08, 0.18, 0.32, 0.48],
        ];
        for number in 1..=12 {
            let species = Species::draw(0, number);
            let nuisance = Nuisance::plain(u64::from(number));
            let reference = render(&species, &MIDDLE, &nuisance, 64);
            for (factor, steps) in steps.iter().enumerate() {
                let distances =
                    steps.map(|by| difference(&reference, &render(&species, &moved(factor, by), &nuisance, 64)));
                assert!(distances[0] > 0.5, "species {number}, factor {factor}: {distances:?}");
                assert!(
                    distances.windows(2).all(|pair| pair[0] < pair[1]),
                    "species {number}, factor {factor}: {distances:?}"
                );
            }
        }
    }

    #[test]
    fn circular_factors_close_and_no_other_rotation_looks_the_same() {
        for number in 1..=12 {
            let species = Species::draw(0, number);
            let nuisance = Nuisance::plain(1);
            let reference = render(&species, &MIDDLE, &nuisance, 64);
            for factor in [0, 2] {
                assert!(difference(&reference, &render(&species, &moved(factor, 360.0), &nuisance, 64)) < 0.5);
            }
            // A turn by one petal must not bring the picture back.
            let turned = |by: f32| difference(&reference, &render(&species, &moved(0, by), &nuisance, 64));
            let by_petal = turned(360.0 / species.petals as f32);
            let largest = (1..12).map(|step| turned(30.0 * step as f32)).fold(0.0, f32::max);
            assert!(
                by_petal > 0.5 * largest,
                "species {number}: one petal {by_petal}, at most {largest}"
            );
        }
    }

    #[test]
    fn extremes_are_drawn() {
        for size in [16, 33, 200, 512] {
            for growth in [0.0, 1.0] {
                let factors = Factors {
                    rotation_deg: 0.0,
                    tilt_deg: 90.0,
                    light_deg: 0.0,
                    growth,
                };
                let picture = render(&Species::draw(0, 1), &factors, &Nuisance::draw(0, 1, 1), size);
                assert_eq!(picture.dimensions(), (size, size));
            }
        }
        let picture = render(&Species::draw(0, 1), &MIDDLE, &Nuisance::plain(0), 0);
        assert_eq!(picture.width(), 16);
    }
}
