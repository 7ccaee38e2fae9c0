//! A petal: a curved surface in plant space, its outline, its pattern and how it is lit.

use super::canvas::{Canvas, line, polygon};
use super::colour::Rgb;
use super::pose::{Pose, Vector, add, normalised};
use super::species::{Marking, Species};

/// Points along each side of an outline.
const STEPS: usize = 14;
/// Angle in degrees by which the two halves of a petal are folded up along the middle.
const FOLD_DEG: f32 = 16.0;

/// One petal in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Petal {
    /// Direction in the plane of the flower, radians.
    pub(super) azimuth: f32,
    /// Elevation above that plane at the base, radians.
    pub(super) elevation: f32,
    /// How much the elevation falls from base to tip, radians.
    pub(super) curl: f32,
    /// Length in plant units.
    pub(super) length: f32,
    /// Distance of its base from the middle of the flower.
    pub(super) base: f32,
}

/// Colours of the petals of one picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct PetalColours {
    pub(super) ground: Rgb,
    pub(super) marking: Rgb,
    pub(super) outside: Rgb,
}

impl Petal {
    /// The point `along` (0 base, 1 tip) and `across` (in plant units, positive to the left) of the petal.
    fn point(&self, along: f32, across: f32) -> Vector {
        let (sine, cosine) = self.azimuth.sin_cos();
        let (rise, reach) = (self.elevation - self.curl * along / 2.0).sin_cos();
        let radius = self.base + along * self.length * reach;
        let lift = across.abs() * FOLD_DEG.to_radians().sin();
        [
            radius * cosine - across * sine,
            radius * sine + across * cosine,
            along * self.length * rise + lift,
        ]
    }

    /// The upper normal at `along`; `side` is 1 for the left half, -1 for the right half, 0 for the middle.
    fn normal(&self, along: f32, side: f32) -> Vector {
        let (sine, cosine) = self.azimuth.sin_cos();
        let (rise, reach) = (self.elevation - self.curl * along).sin_cos();
        let fold = FOLD_DEG.to_radians().tan();
        normalised(add(
            [-cosine * rise, -sine * rise, reach],
            [sine, -cosine, 0.0],
            side * fold,
        ))
    }

    /// Whether the viewer sees the upper (inner) side.
    pub(super) fn shows_inside(&self, pose: &Pose) -> bool {
        pose.turn(self.normal(0.5, 0.0))[2] > 0.0
    }

    /// How far up in the picture the petal points: petals further up stand behind the others of a tilted flower.
    pub(super) fn height(&self, pose: &Pose) -> f32 {
        let tip = pose.turn([self.azimuth.cos(), self.azimuth.sin(), 0.0]);
        tip[1]
    }

    fn outline(&self, species: &Species, shrink: f32) -> Vec<Vector> {
        let side = |sign: f32| {
            (0..=STEPS).map(move |step| {
                // Points gather at both ends, where the outline bends most.
                let along = 0.5 - 0.5 * (std::f32::consts::PI * step as f32 / STEPS as f32).cos();
                (along, sign * half_width(species, along))
            })
        };
        let notch_width = species.petal_width * 0.22;
        side(1.0)
            .chain(side(-1.0).rev())
            .map(|(along, across)| {
                let near_tip = ((along - 0.55) / 0.45).clamp(0.0, 1.0);
                let notch = species.petal_notch * near_tip * (-(across / notch_width).powi(2)).exp();
                let along = (along - notch) * shrink + (1.0 - shrink) * 0.35;
                self.point(along, across * self.length * shrink)
            })
            .collect()
    }

    fn half(&self, species: &Species, shrink: f32, sign: f32) -> Vec<Vector> {
        let outline = self.outline(species, shrink);
        let (left, right) = outline.split_at(STEPS + 1);
        if sign > 0.0 { left.to_vec() } else { right.to_vec() }
    }

    /// The shadow of the petal.
    pub(super) fn cast(&self, canvas: &mut Canvas, pose: &Pose, species: &Species, height: f32, alpha: f32) {
        let path = polygon(self.outline(species, 1.0).into_iter().map(|point| pose.project(point)));
        canvas.fill_moved(path.as_ref(), Rgb([0.02, 0.02, 0.06]), alpha, pose.shadow(height));
    }

    /// Paints the petal.
    pub(super) fn paint(&self, canvas: &mut Canvas, pose: &Pose, species: &Species, colours: &PetalColours) {
        let path = polygon(self.outline(species, 1.0).into_iter().map(|point| pose.project(point)));
        let shade = |along: f32, side: f32| pose.shade(self.normal(along, side));
        if !self.shows_inside(pose) {
            self.gradient(canvas, pose, &path, |along| {
                colours.outside.lit(0.92 * shade(along, 0.0))
            });
            let rib = line((0..=6).map(|step| pose.project(self.point(step as f32 * 0.15, 0.0))));
            canvas.stroke(
                rib.as_ref(),
                colours.outside.lit(0.6 * shade(0.5, 0.0)),
                0.6,
                0.04 * pose.unit,
            );
            self.edge(canvas, pose, &path, colours.outside);
            return;
        }
        let rim = if species.marking == Marking::Border {
            colours.marking
        } else {
            colours.ground
        };
        let ground = |along: f32| match species.marking {
            Marking::Eye if along < 0.42 => colours.marking,
            Marking::Eye if along < 0.52 => colours.marking.mix(colours.ground, (along - 0.42) / 0.10),
            _ => colours.ground,
        };
        // The whole petal first, then one half over it: two halves side by side would show a seam.
        let border = species.marking == Marking::Border;
        let whole = |along: f32, side: f32| if border { rim } else { ground(along) }.lit(shade(along, side));
        self.gradient(canvas, pose, &path, |along| whole(along, 1.0));
        let right = polygon(
            self.half(species, 1.0, -1.0)
                .into_iter()
                .map(|point| pose.project(point)),
        );
        self.gradient(canvas, pose, &right, |along| whole(along, -1.0));
        if border {
            let inner = polygon(self.outline(species, 0.70).into_iter().map(|point| pose.project(point)));
            self.gradient(canvas, pose, &inner, |along| colours.ground.lit(shade(along, 1.0)));
            let inner = polygon(
                self.half(species, 0.70, -1.0)
                    .into_iter()
                    .map(|point| pose.project(point)),
            );
            self.gradient(canvas, pose, &inner, |along| colours.ground.lit(shade(along, -1.0)));
        }
        self.pattern(canvas, pose, species, colours.marking);
        self.edge(canvas, pose, &path, colours.ground);
    }

    fn pattern(&self, canvas: &mut Canvas, pose: &Pose, species: &Species, colour: Rgb) {
        let lit = |along: f32, across: f32| {
            let side = if across == 0.0 { 0.0 } else { across.signum() };
            colour.lit(pose.shade(self.normal(along, side)))
        };
        let at = |along: f32, across: f32| {
            pose.project(self.point(along, across * half_width(species, along) * self.length))
        };
        match species.marking {
            Marking::Veins => {
                for across in [-0.62, -0.3, 0.0, 0.3, 0.62] {
                    let reach = 0.88 - 0.35 * f32::abs(across);
                    let vein = line((0..=8).map(|step| at(0.08 + (reach - 0.08) * step as f32 / 8.0, across)));
                    canvas.stroke(vein.as_ref(), lit(0.5, across), 0.85, 0.034 * pose.unit);
                }
            }
            Marking::Stripe => {
                let left = (0..=10).map(|step| (step as f32 / 10.0 * 0.9, 0.34 * (1.0 - (step as f32 / 10.0).powi(3))));
                let right = left.clone().rev().map(|(along, across)| (along, -across));
                let stripe = polygon(left.chain(right).map(|(along, across)| at(along, across)));
                self.gradient(canvas, pose, &stripe, |along| lit(along, 0.0));
            }
            Marking::Spots => {
                for (along, across) in [
                    (0.34, 0.0),
                    (0.48, 0.5),
                    (0.48, -0.5),
                    (0.63, 0.0),
                    (0.74, 0.52),
                    (0.74, -0.52),
                    (0.86, 0.0),
                ] {
                    let radius = (0.075f32).min(0.24 * species.petal_width) * self.length;
                    let spot = polygon((0..10).map(|step| {
                        let (sine, cosine) = (step as f32 * std::f32::consts::TAU / 10.0).sin_cos();
                        let middle = across * half_width(species, along) * self.length;
                        pose.project(self.point(along + radius * cosine / self.length, middle + radius * sine))
                    }));
                    canvas.fill(spot.as_ref(), lit(along, across), 0.95);
                }
            }
            Marking::Plain | Marking::Border | Marking::Eye => {}
        }
    }

    /// A thin dark edge keeps overlapping petals of one colour apart.
    fn edge(&self, canvas: &mut Canvas, pose: &Pose, path: &Option<tiny_skia::Path>, colour: Rgb) {
        canvas.stroke(path.as_ref(), colour.scaled(0.45), 0.38, 0.022 * pose.unit);
    }

    fn gradient(&self, canvas: &mut Canvas, pose: &Pose, path: &Option<tiny_skia::Path>, colour: impl Fn(f32) -> Rgb) {
        let stops: Vec<(f32, Rgb)> = [0.0f32, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]
            .iter()
            .map(|&along| (along, colour(along)))
            .collect();
        // The base lies deep in the flower, where less light arrives.
        let stops: Vec<(f32, Rgb)> = stops
            .into_iter()
            .map(|(along, colour)| (along, colour.scaled(0.80 + 0.2 * (along * 3.0).min(1.0))))
            .collect();
        canvas.fill_along(
            path.as_ref(),
            pose.project(self.point(0.0, 0.0)),
            pose.project(self.point(1.0, 0.0)),
            &stops,
        );
    }
}

/// Half the width of the petal at `along`, as a share of its length: a beta-shaped curve whose greatest value is half the
/// species' width.
fn half_width(species: &Species, along: f32) -> f32 {
    let outer = species.petal_point;
    // The maximum of x^a (1 - x)^b lies at a / (a + b).
    let inner = outer * species.petal_shoulder / (1.0 - species.petal_shoulder);
    let curve = |x: f32| x.powf(inner) * (1.0 - x).max(0.0).powf(outer);
    0.5 * species.petal_width * curve(along) / curve(species.petal_shoulder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outline_is_widest_at_the_shoulder_and_closed_at_both_ends() {
        for number in 1..50 {
            let species = Species::draw(0, number);
            let widest = half_width(&species, species.petal_shoulder);
            assert!((widest - species.petal_width / 2.0).abs() < 1e-5);
            for step in 0..=100 {
                assert!(half_width(&species, step as f32 / 100.0) <= widest + 1e-5);
            }
            assert!(half_width(&species, 0.0) < 1e-5 && half_width(&species, 1.0) < 1e-5);
        }
    }
}
