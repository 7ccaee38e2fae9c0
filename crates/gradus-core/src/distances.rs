//! How far apart, or how alike, two embeddings are: the distances that losses, miners and metrics share.
//!
//! The settings and the evaluation on the host live here; `gradus::distances` evaluates the same settings on tensors.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Length below which a vector counts as zero, here and in `gradus::numerics`.
const EPSILON: f64 = 1e-12;

fn two() -> f64 {
    2.0
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn paper_curvature() -> f64 {
    0.1
}

fn paper_clip() -> f64 {
    2.3
}

/// A distance or similarity with its settings, written `distance = "cosine"` or `[distance.lp]`.
///
/// A row of length 0 stays 0 when it is normalised, so its cosine with everything is 0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
pub enum DistanceConfig {
    /// `(sum_i |x_i - y_i|^p)^(power / p)`; with `p = 2` and `power = 1` the Euclidean distance, with `power = 2` its
    /// square.
    Lp {
        /// Which norm, at least 1; 2.
        #[serde(default = "two")]
        p: f64,
        /// What the distance is raised to, above 0; 1.
        #[serde(default = "one")]
        power: f64,
        /// Whether rows are first divided by their p-norm; true.
        #[serde(default = "yes")]
        normalize: bool,
    },
    /// Cosine of the angle: a similarity in `[-1, 1]`.
    Cosine {},
    /// Inner product, a similarity.
    Dot {
        /// Whether rows are first divided by their length, which makes it the cosine; true, as in
        /// pytorch-metric-learning.
        #[serde(default = "yes")]
        normalize: bool,
    },
    /// Signal-to-noise ratio distance `Var(x - y) / Var(x)` over the axes, `x` the anchor (Yuan et al., Signal-to-Noise
    /// Ratio: A Robust Distance Metric for Deep Metric Learning, CVPR 2019). Not symmetric; 0 where `Var(x)` is 0.
    Snr {
        /// Whether rows are first divided by their length; true, as in pytorch-metric-learning.
        #[serde(default = "yes")]
        normalize: bool,
    },
    /// Geodesic distance in the Poincaré ball `2 / sqrt(c) artanh(sqrt(c) |(-x) + y|)` with Möbius addition, of rows that
    /// are clipped to a length and mapped by the exponential map at the origin (Ermolov et al., Hyperbolic Vision
    /// Transformers: Combining Improvements in Metric Learning, CVPR 2022).
    Hyperbolic {
        /// Curvature `c`, above 0; 0.1, the paper's.
        #[serde(default = "paper_curvature")]
        curvature: f64,
        /// Longest row before the map, above 0; 2.3, the paper's.
        #[serde(default = "paper_clip")]
        clip: f64,
    },
}

crate::name_or_table!(
    DistanceConfig,
    "the name of a distance (lp, cosine, dot, snr, hyperbolic), or a table with one of them"
);

impl Default for DistanceConfig {
    /// Euclidean distance of normalised rows.
    fn default() -> Self {
        Self::EUCLIDEAN
    }
}

/// What `gradus list distances` shows of a distance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DistanceInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what it measures.
    pub summary: &'static str,
    /// The paper, empty for what needs none.
    pub paper: &'static str,
    /// The settings with their default values.
    pub defaults: DistanceConfig,
}

impl DistanceConfig {
    /// Euclidean distance of normalised rows: the default of most losses.
    pub const EUCLIDEAN: Self = Self::Lp {
        p: 2.0,
        power: 1.0,
        normalize: true,
    };
    /// Squared Euclidean distance of normalised rows.
    pub const SQUARED_EUCLIDEAN: Self = Self::Lp {
        p: 2.0,
        power: 2.0,
        normalize: true,
    };
    /// Cosine similarity.
    pub const COSINE: Self = Self::Cosine {};
    /// Signal-to-noise ratio distance of normalised rows.
    pub const SNR: Self = Self::Snr { normalize: true };

    /// What there is to show of all distances, with default settings.
    #[must_use]
    pub fn registry() -> Vec<DistanceInfo> {
        let info = |name, summary, paper, defaults| DistanceInfo {
            name,
            summary,
            paper,
            defaults,
        };
        vec![
            info("cosine", "cosine of the angle (a similarity)", "", Self::COSINE),
            info("dot", "inner product (a similarity)", "", Self::Dot { normalize: true }),
            info(
                "hyperbolic",
                "geodesic distance in the Poincaré ball",
                "Ermolov et al., Hyperbolic Vision Transformers: Combining Improvements in Metric Learning, CVPR, 2022",
                Self::Hyperbolic {
                    curvature: paper_curvature(),
                    clip: paper_clip(),
                },
            ),
            info("lp", "p-norm of the difference, raised to a power", "", Self::EUCLIDEAN),
            info(
                "snr",
                "variance of the difference over the variance of the anchor",
                "Yuan et al., Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning, CVPR, 2019",
                Self::SNR,
            ),
        ]
    }

    /// The name in configuration files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lp { .. } => "lp",
            Self::Cosine {} => "cosine",
            Self::Dot { .. } => "dot",
            Self::Snr { .. } => "snr",
            Self::Hyperbolic { .. } => "hyperbolic",
        }
    }

    /// Whether larger means more alike (cosine, dot) instead of farther apart.
    #[must_use]
    pub fn is_similarity(&self) -> bool {
        matches!(self, Self::Cosine {} | Self::Dot { .. })
    }

    /// Whether it is the cosine, however it is written.
    #[must_use]
    pub fn is_cosine(&self) -> bool {
        matches!(self, Self::Cosine {} | Self::Dot { normalize: true })
    }

    /// By how much `x` is farther than `y`: `x - y` of distances, `y - x` of similarities.
    #[must_use]
    pub fn margin(&self, x: f64, y: f64) -> f64 {
        if self.is_similarity() { y - x } else { x - y }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    pub fn validate(&self) -> Result<(), String> {
        let check = |holds: bool, setting: &str, value: f64, wanted: &str, default: f64| {
            if holds && value.is_finite() {
                return Ok(());
            }
            Err(format!(
                "distance.{}.{setting} is {value}, but it must be {wanted}; leave it out to get the default {default}.",
                self.name()
            ))
        };
        let positive = "a finite number above 0";
        match *self {
            Self::Lp { p, power, .. } => {
                check(p >= 1.0, "p", p, "a finite number of at least 1", two())?;
                check(power > 0.0, "power", power, positive, one())
            }
            Self::Hyperbolic { curvature, clip } => {
                check(curvature > 0.0, "curvature", curvature, positive, paper_curvature())?;
                check(clip > 0.0, "clip", clip, positive, paper_clip())?;
                // Beyond this the ball's border is reached in single precision.
                let most = 20.0 / curvature.sqrt();
                let wanted = format!("at most 20 / sqrt(curvature) = {most}");
                check(clip <= most, "clip", clip, &wanted, paper_clip())
            }
            Self::Cosine {} | Self::Dot { .. } | Self::Snr { .. } => Ok(()),
        }
    }

    /// All distances between the rows of two sets on the host, row-major `[queries, references]`, accumulated in double
    /// precision; the result does not depend on the number of threads.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the lengths.
    #[must_use]
    pub fn matrix(&self, query: &[f32], reference: &[f32], dim: usize) -> Vec<f32> {
        assert!(
            dim > 0 && query.len().is_multiple_of(dim) && reference.len().is_multiple_of(dim),
            "{} and {} values are not rows of width {dim}",
            query.len(),
            reference.len()
        );
        let (a, b) = (self.prepared(query, dim), self.prepared(reference, dim));
        let columns = b.len() / dim;
        let mut matrix = vec![0.0; a.len() / dim * columns];
        if columns == 0 {
            return matrix;
        }
        matrix
            .par_chunks_mut(columns)
            .zip(a.par_chunks(dim))
            .for_each(|(out, x)| {
                for (out, y) in out.iter_mut().zip(b.chunks(dim)) {
                    *out = self.between_prepared(x, y) as f32;
                }
            });
        matrix
    }

    /// [`matrix`](Self::matrix) of rows in double precision, in double precision.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the lengths.
    #[must_use]
    pub fn matrix_of_doubles(&self, query: &[f64], reference: &[f64], dim: usize) -> Vec<f64> {
        assert!(
            dim > 0 && query.len().is_multiple_of(dim) && reference.len().is_multiple_of(dim),
            "{} and {} values are not rows of width {dim}",
            query.len(),
            reference.len()
        );
        let (a, b) = (
            self.prepared_doubles(query.to_vec(), dim),
            self.prepared_doubles(reference.to_vec(), dim),
        );
        let columns = b.len() / dim;
        let mut matrix = vec![0.0; a.len() / dim * columns];
        if columns == 0 {
            return matrix;
        }
        matrix
            .par_chunks_mut(columns)
            .zip(a.par_chunks(dim))
            .for_each(|(out, x)| {
                for (out, y) in out.iter_mut().zip(b.chunks(dim)) {
                    *out = self.between_prepared(x, y);
                }
            });
        matrix
    }

    /// The distance between two rows, in double precision.
    #[must_use]
    pub fn between(&self, x: &[f32], y: &[f32]) -> f64 {
        self.between_prepared(&self.prepared(x, x.len()), &self.prepared(y, y.len()))
    }

    /// Rows in double precision as the distance compares them: normalised, centred or mapped into the ball.
    fn prepared(&self, rows: &[f32], dim: usize) -> Vec<f64> {
        self.prepared_doubles(rows.iter().copied().map(f64::from).collect(), dim)
    }

    fn prepared_doubles(&self, mut rows: Vec<f64>, dim: usize) -> Vec<f64> {
        for row in rows.chunks_mut(dim.max(1)) {
            match *self {
                Self::Lp { p, normalize, .. } => {
                    if normalize {
                        divide(row, norm(row, p));
                    }
                }
                Self::Cosine {} | Self::Dot { normalize: true } => divide(row, norm(row, 2.0)),
                Self::Dot { normalize: false } => {}
                Self::Snr { normalize } => {
                    if normalize {
                        divide(row, norm(row, 2.0));
                    }
                    let mean = row.iter().sum::<f64>() / row.len() as f64;
                    row.iter_mut().for_each(|value| *value -= mean);
                }
                Self::Hyperbolic { curvature, clip } => {
                    let length = norm(row, 2.0);
                    let clipped = curvature.sqrt() * length.min(clip);
                    if length > EPSILON {
                        let factor = clipped.tanh() / (curvature.sqrt() * length);
                        row.iter_mut().for_each(|value| *value *= factor);
                    }
                }
            }
        }
        rows
    }

    fn between_prepared(&self, x: &[f64], y: &[f64]) -> f64 {
        let pairs = || x.iter().zip(y);
        let squared = || sum_of(x, y, |x, y| (x - y) * (x - y));
        match *self {
            Self::Lp { p: 2.0, power: 1.0, .. } => squared().sqrt(),
            Self::Lp { p: 2.0, power, .. } => squared().powf(power / 2.0),
            Self::Lp { p, power, .. } => pairs().map(|(x, y)| (x - y).abs().powf(p)).sum::<f64>().powf(power / p),
            Self::Cosine {} | Self::Dot { .. } => sum_of(x, y, |x, y| x * y),
            Self::Snr { .. } => {
                let variance: f64 = x.iter().map(|x| x * x).sum();
                if variance > EPSILON { squared() / variance } else { 0.0 }
            }
            Self::Hyperbolic { curvature, .. } => {
                let room = |x: &[f64]| 1.0 - curvature * x.iter().map(|x| x * x).sum::<f64>();
                let ratio = curvature * squared() / (room(x) * room(y)).max(EPSILON);
                2.0 / curvature.sqrt() * ratio.sqrt().asinh()
            }
        }
    }
}

/// Sum over the axes in eight partial sums, which the compiler turns into vector instructions.
pub(crate) fn sum_of(x: &[f64], y: &[f64], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut partial = [0.0; 8];
    let (x, y) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = x.remainder().iter().zip(y.remainder()).map(|(&x, &y)| term(x, y)).sum();
    for (x, y) in x.zip(y) {
        for ((partial, &x), &y) in partial.iter_mut().zip(x).zip(y) {
            *partial += term(x, y);
        }
    }
    partial.iter().sum::<f64>() + rest
}

fn norm(row: &[f64], p: f64) -> f64 {
    let largest = row.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return largest;
    }
    let sum: f64 = row.iter().map(|value| (value.abs() / largest).powf(p)).sum();
    largest * sum.powf(p.recip())
}

fn divide(row: &mut [f64], length: f64) {
    let factor = if length < EPSILON { 0.0 } else { length.recip() };
    row.iter_mut().for_each(|value| *value *= factor);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} is not {expected}");
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        distance: DistanceConfig,
    }

    fn read(text: &str) -> Result<DistanceConfig, String> {
        serde_json::from_str::<File>(text)
            .map(|file| file.distance)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_name_or_a_table_says_which() {
        assert_eq!(read(r#"{"distance": "cosine"}"#), Ok(DistanceConfig::COSINE));
        assert_eq!(read(r#"{"distance": {"lp": {}}}"#), Ok(DistanceConfig::EUCLIDEAN));
        assert_eq!(
            read(r#"{"distance": {"lp": {"power": 2}}}"#),
            Ok(DistanceConfig::SQUARED_EUCLIDEAN)
        );
        for wrong in [
            r#"{"distance": {"lp": {"q": 2}}}"#,
            r#"{"distance": "euclid"}"#,
            r#"{"distance": 3}"#,
        ] {
            let message = read(wrong).expect_err("not a distance");
            assert!(message.contains("cosine") || message.contains('q'), "{message}");
        }
        for info in DistanceConfig::registry() {
            let file = File {
                distance: info.defaults,
            };
            let text = serde_json::to_string(&file).expect("writes");
            assert_eq!(serde_json::from_str::<File>(&text).expect("reads"), file);
            assert_eq!(info.defaults.name(), info.name);
            assert_eq!(read(&format!(r#"{{"distance": "{}"}}"#, info.name)), Ok(info.defaults));
            info.defaults.validate().expect("defaults are valid");
        }
        assert!(DistanceConfig::registry().is_sorted_by_key(|info| info.name));
    }

    #[test]
    fn values_follow_the_formulas() {
        let (x, y) = ([3.0_f32, 4.0, 0.0], [0.0_f32, 2.0, -1.0]);
        let raw = |p, power| DistanceConfig::Lp {
            p,
            power,
            normalize: false,
        };
        near(raw(2.0, 1.0).between(&x, &y), 14.0_f64.sqrt());
        near(raw(2.0, 2.0).between(&x, &y), 14.0);
        near(raw(1.0, 1.0).between(&x, &y), 6.0);
        near(raw(3.0, 1.0).between(&x, &y), 36.0_f64.cbrt());
        let cosine = 8.0 / (5.0 * 5.0_f64.sqrt());
        near(DistanceConfig::COSINE.between(&x, &y), cosine);
        near(DistanceConfig::EUCLIDEAN.between(&x, &y), (2.0 - 2.0 * cosine).sqrt());
        near(DistanceConfig::Dot { normalize: false }.between(&x, &y), 8.0);
        // Differences 3, 2, 1 have variance 1; 3, 4, 0 have variance 13 / 3.
        near(DistanceConfig::Snr { normalize: false }.between(&x, &y), 3.0 / 13.0);
        let zero = [0.0_f32; 3];
        for info in DistanceConfig::registry() {
            assert!(info.defaults.between(&zero, &zero).is_finite());
            assert!(info.defaults.between(&zero, &y).is_finite());
            let matrix = info.defaults.matrix(&[x, zero].concat(), &[y, zero, x].concat(), 3);
            assert_eq!(matrix.len(), 6);
            near(f64::from(matrix[0]), info.defaults.between(&x, &y));
            near(f64::from(matrix[5]), info.defaults.between(&zero, &x));
        }
    }

    #[test]
    fn the_poincare_ball_agrees_with_moebius_addition() {
        let (curvature, clip) = (0.7_f64, 1.1);
        let distance = DistanceConfig::Hyperbolic { curvature, clip };
        let map = |row: [f64; 2]| {
            let length = row[0].hypot(row[1]);
            let factor = (curvature.sqrt() * length.min(clip)).tanh() / (curvature.sqrt() * length);
            [row[0] * factor, row[1] * factor]
        };
        let (x, y) = ([0.3, -0.4], [2.0, 1.0]);
        let (u, v) = (map(x), map(y));
        let u = [-u[0], -u[1]];
        let dot = u[0] * v[0] + u[1] * v[1];
        let (uu, vv) = (u[0] * u[0] + u[1] * u[1], v[0] * v[0] + v[1] * v[1]);
        let below = 1.0 + 2.0 * curvature * dot + curvature * curvature * uu * vv;
        let sum: Vec<f64> = (0..2)
            .map(|axis| {
                ((1.0 + 2.0 * curvature * dot + curvature * vv) * u[axis] + (1.0 - curvature * uu) * v[axis]) / below
            })
            .collect();
        let expected = 2.0 / curvature.sqrt() * (curvature.sqrt() * sum[0].hypot(sum[1])).atanh();
        near(distance.between(&x.map(|x| x as f32), &y.map(|y| y as f32)), expected);
    }

    #[test]
    fn margins_know_their_direction_and_settings_their_range() {
        near(DistanceConfig::EUCLIDEAN.margin(3.0, 1.0), 2.0);
        near(DistanceConfig::COSINE.margin(3.0, 1.0), -2.0);
        let message = DistanceConfig::Lp {
            p: 0.5,
            power: 1.0,
            normalize: true,
        }
        .validate()
        .expect_err("p below 1");
        assert!(message.contains("distance.lp.p is 0.5"), "{message}");
    }
}
