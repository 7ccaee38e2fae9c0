//! The stem and its two unequal leaves, which make every rotation of the plant a different picture.

use super::canvas::{Canvas, line, polygon};
use super::colour::Rgb;
use super::pose::{Pose, Vector};
use super::species::{LeafForm, Species};

const STEPS: usize = 16;
const FOLD: f32 = 0.42;

/// A leaf in its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leaf {
    /// Where it leaves the stem.
    pub(super) foot: Vector,
    /// Direction in the plane of the flower, radians.
    pub(super) azimuth: f32,
    /// Length in plant units.
    pub(super) length: f32,
}

/// The stem at `along` (0 at the flower, 1 out of the picture).
pub(super) fn stem(along: f32) -> Vector {
    [0.16 * along * along, -2.7 * along, -0.12 - 0.5 * along]
}

impl Leaf {
    fn point(&self, along: f32, across: f32) -> Vector {
        let (sine, cosine) = self.azimuth.sin_cos();
        let (reach, side) = (along * self.length, across * self.length);
        let arch = 0.30 * (along * 2.2).sin() + 0.4 * across.abs();
        [
            self.foot[0] + reach * cosine - side * sine,
            self.foot[1] + reach * sine + side * cosine,
            self.foot[2] + arch * self.length,
        ]
    }

    fn normal(&self, side: f32) -> Vector {
        let (sine, cosine) = self.azimuth.sin_cos();
        [sine * side * FOLD, -cosine * side * FOLD, 1.0]
    }

    /// Outlines in (along, across): one closed shape, or several leaflets.
    fn shapes(&self, form: LeafForm) -> Vec<Vec<(f32, f32)>> {
        if form == LeafForm::Pinnate {
            let mut leaflets = Vec::new();
            for pair in 0..4 {
                let along = 0.22 + 0.19 * pair as f32;
                for side in [-1.0f32, 1.0] {
                    leaflets.push(leaflet((along, 0.0), side * 0.95, 0.36 - 0.045 * pair as f32));
                }
            }
            leaflets.push(leaflet((0.80, 0.0), 0.0, 0.24));
            return leaflets;
        }
        let width = move |along: f32| match form {
            LeafForm::Lance => 0.125 * (along.powf(0.7) * (1.0 - along).powf(0.9)) / 0.34,
            LeafForm::Heart => 0.36 * (along.powf(0.25) * (1.0 - along).powf(0.85)) / 0.57,
            LeafForm::Lobed => {
                let body = 0.34 * (along.powf(0.5) * (1.0 - along).powf(0.5)) / 0.5;
                body * (0.62 + 0.38 * (along * 3.5 * std::f32::consts::TAU - 1.2).sin())
            }
            LeafForm::Ovate | LeafForm::Pinnate => 0.27 * (along * (1.0 - along)).sqrt() / 0.5,
        };
        let steps = if form == LeafForm::Lobed { 4 * STEPS } else { STEPS };
        let side = |sign: f32| {
            (0..=steps).map(move |step| {
                let along = 0.5 - 0.5 * (std::f32::consts::PI * step as f32 / steps as f32).cos();
                (along, sign * width(along))
            })
        };
        vec![side(1.0).chain(side(-1.0).rev()).collect()]
    }

    /// Paints the leaf and its shadow.
    pub(super) fn paint(&self, canvas: &mut Canvas, pose: &Pose, species: &Species, colour: Rgb) {
        let pale = colour.mix(Rgb([0.93, 0.95, 0.78]), 0.75);
        let rim = if species.variegated { pale } else { colour };
        let shapes = self.shapes(species.leaf);
        let path = |shape: &[(f32, f32)], shrink: f32| {
            polygon(shape.iter().map(|&(along, across)| {
                pose.project(self.point(0.5 + (along - 0.5) * (0.3 + 0.7 * shrink), across * shrink))
            }))
        };
        for shape in &shapes {
            canvas.fill_moved(
                path(shape, 1.0).as_ref(),
                Rgb([0.02, 0.03, 0.05]),
                0.32,
                pose.shadow(0.16),
            );
        }
        let (left, right) = (pose.shade(self.normal(1.0)), pose.shade(self.normal(-1.0)));
        if species.leaf == LeafForm::Pinnate {
            self.rib(canvas, pose, 0.95, colour.lit(0.8 * (left + right) / 2.0), 0.05);
            for (index, shape) in shapes.iter().enumerate() {
                let shade = if index % 2 == 0 { right } else { left };
                canvas.fill(path(shape, 1.0).as_ref(), rim.lit(shade), 1.0);
                if species.variegated {
                    let inner: Vec<(f32, f32)> = shrunk(shape, 0.55);
                    canvas.fill(path(&inner, 1.0).as_ref(), colour.lit(shade), 1.0);
                }
            }
            return;
        }
        for shape in &shapes {
            let right_half = &shape[shape.len() / 2..];
            for (shrink, colour) in [(1.0, rim), (0.68, colour)] {
                if shrink < 1.0 && !species.variegated {
                    continue;
                }
                canvas.fill(path(shape, shrink).as_ref(), colour.lit(left), 1.0);
                canvas.fill(path(right_half, shrink).as_ref(), colour.lit(right), 1.0);
            }
            canvas.stroke(path(shape, 1.0).as_ref(), colour.scaled(0.4), 0.35, 0.02 * pose.unit);
        }
        let rib = if species.variegated {
            pale
        } else {
            colour.mix(pale, 0.35)
        };
        self.rib(canvas, pose, 0.92, rib.lit((left + right) / 2.0), 0.032);
    }

    fn rib(&self, canvas: &mut Canvas, pose: &Pose, reach: f32, colour: Rgb, width: f32) {
        let rib = line((0..=8).map(|step| pose.project(self.point(reach * step as f32 / 8.0, 0.0))));
        canvas.stroke(rib.as_ref(), colour, 1.0, width * pose.unit);
    }
}

/// An oval leaflet from `foot` in direction `angle` (radians from the leaf's axis).
fn leaflet(foot: (f32, f32), angle: f32, length: f32) -> Vec<(f32, f32)> {
    let (sine, cosine) = angle.sin_cos();
    (0..12)
        .map(|step| {
            let (across, along) = (step as f32 * std::f32::consts::TAU / 12.0).sin_cos();
            let (along, across) = ((0.5 + 0.5 * along) * length, 0.24 * across * length);
            (
                foot.0 + along * cosine - across * sine,
                foot.1 + along * sine + across * cosine,
            )
        })
        .collect()
}

fn shrunk(shape: &[(f32, f32)], share: f32) -> Vec<(f32, f32)> {
    let count = shape.len().max(1) as f32;
    let middle = shape.iter().fold((0.0, 0.0), |sum, point| {
        (sum.0 + point.0 / count, sum.1 + point.1 / count)
    });
    shape
        .iter()
        .map(|p| (middle.0 + (p.0 - middle.0) * share, middle.1 + (p.1 - middle.1) * share))
        .collect()
}
