//! From the plant's own space to the picture: rotation, tilt, scale, and the light.
//!
//! Plant space has the middle of the flower at the origin, y up (away from the stem), z out of the flower towards a
//! viewer straight above it, and the length of a fully grown petal as its unit. Projection is orthographic.

use tiny_skia::Point;

use super::factors::{Factors, Nuisance};

pub(super) type Vector = [f32; 3];

/// The plant turns about this point of its stem, so that the flower moves when the plant is rotated.
const PIVOT: Vector = [0.0, -0.28, 0.0];
/// Length of a petal as a share of the picture's width.
const UNIT: f32 = 0.32;
/// Angle between the light and the viewing axis.
const LIGHT_ANGLE_DEG: f32 = 62.0;
const AMBIENT: f32 = 0.42;
const DIFFUSE: f32 = 0.84;

/// How plant space is seen in one picture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pose {
    rotation: (f32, f32),
    tilt: (f32, f32),
    origin: (f32, f32),
    /// Pixels per unit of plant space.
    pub(super) unit: f32,
    /// Unit vector towards the light, in camera space (x right, y up, z towards the viewer).
    pub(super) light: Vector,
}

impl Pose {
    pub(super) fn new(factors: &Factors, nuisance: &Nuisance, width: f32) -> Self {
        let (light_sine, light_cosine) = LIGHT_ANGLE_DEG.to_radians().sin_cos();
        let (sine, cosine) = factors.light_deg.to_radians().sin_cos();
        let mut pose = Self {
            rotation: factors.rotation_deg.to_radians().sin_cos(),
            tilt: factors.tilt_deg.to_radians().sin_cos(),
            origin: (width * (0.5 + nuisance.shift[0]), width * (0.5 - nuisance.shift[1])),
            unit: width * UNIT * nuisance.scale,
            light: [cosine * light_sine, sine * light_sine, light_cosine],
        };
        // The pivot stays where it is in the picture: move the origin by its offset.
        let pivot = pose.turn(PIVOT);
        pose.origin.0 -= pivot[0] * pose.unit;
        pose.origin.1 += pivot[1] * pose.unit;
        pose
    }

    /// Plant space to camera space: rotation in the plane, then tilt about the horizontal axis.
    pub(super) fn turn(&self, [x, y, z]: Vector) -> Vector {
        let (sine, cosine) = self.rotation;
        let (x, y) = (x * cosine - y * sine, x * sine + y * cosine);
        let (sine, cosine) = self.tilt;
        [x, y * cosine + z * sine, z * cosine - y * sine]
    }

    /// Where a point of plant space lies in the picture.
    pub(super) fn project(&self, point: Vector) -> Point {
        let [x, y, _] = self.turn(point);
        Point::from_xy(self.origin.0 + x * self.unit, self.origin.1 - y * self.unit)
    }

    /// Brightness of a surface with this normal in plant space; both sides of petals and leaves are lit.
    pub(super) fn shade(&self, normal: Vector) -> f32 {
        let normal = normalised(self.turn(normal));
        let facing = if normal[2] < 0.0 { -1.0 } else { 1.0 };
        AMBIENT + DIFFUSE * (facing * dot(normal, self.light)).max(0.0)
    }

    /// Offset in pixels of a shadow that falls from this height.
    pub(super) fn shadow(&self, height: f32) -> (f32, f32) {
        (-self.light[0] * height * self.unit, self.light[1] * height * self.unit)
    }
}

pub(super) fn dot(a: Vector, b: Vector) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

pub(super) fn add(a: Vector, b: Vector, factor: f32) -> Vector {
    std::array::from_fn(|axis| a[axis] + b[axis] * factor)
}

pub(super) fn normalised(vector: Vector) -> Vector {
    let length = dot(vector, vector).sqrt().max(1e-6);
    vector.map(|value| value / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pose(rotation_deg: f32, tilt_deg: f32, light_deg: f32) -> Pose {
        Pose::new(
            &Factors {
                rotation_deg,
                tilt_deg,
                light_deg,
                growth: 1.0,
            },
            &Nuisance::plain(0),
            100.0,
        )
    }

    fn close(got: Vector, expected: Vector) {
        assert!(
            got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5),
            "{got:?} is not {expected:?}"
        );
    }

    #[test]
    fn rotation_is_counter_clockwise_and_tilt_shortens_the_vertical() {
        close(pose(90.0, 0.0, 0.0).turn([1.0, 0.0, 0.3]), [0.0, 1.0, 0.3]);
        close(
            pose(0.0, 60.0, 0.0).turn([1.0, 1.0, 0.0]),
            [1.0, 0.5, -(3f32.sqrt()) / 2.0],
        );
    }

    #[test]
    fn the_pivot_stays_in_the_middle() {
        for rotation in [0.0, 77.0, 200.0] {
            let point = pose(rotation, 33.0, 0.0).project(PIVOT);
            assert!(
                (point.x - 50.0).abs() < 1e-4 && (point.y - 50.0).abs() < 1e-4,
                "{point:?}"
            );
        }
    }

    #[test]
    fn surfaces_turned_to_the_light_are_brighter() {
        let pose = pose(0.0, 0.0, 90.0);
        assert!(pose.shade([0.0, 0.5, 1.0]) > pose.shade([0.0, -0.5, 1.0]) + 0.2);
        assert!((pose.shade([0.3, 0.1, 1.0]) - pose.shade([-0.3, 0.1, 1.0])).abs() < 1e-6);
    }
}
