//! Triplets with a wide angle at the negative.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Mined, Miner, MiningError, MiningInput, finite, only_euclidean, refuse};
use crate::distances::{DistanceConfig, sum_of};

/// What the reference adds to every difference of coordinates; kept, so that the same triplets are chosen at the bound.
const OFFSET: f64 = 1e-6;

/// All triplets whose angle at the negative is too wide (rule of the angular loss: Wang et al., Deep Metric Learning with
/// Angular Loss, ICCV 2017).
///
/// With the midpoint `c = (a + p) / 2` a triplet is chosen if `atan(|a - p| / (2 |n - c|)) > angle`. Rows are compared as
/// they are: their lengths count, as in pytorch-metric-learning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AngularMiner {
    /// Angle in degrees above which a triplet is chosen, from 0 to below 90; 20, pytorch-metric-learning's.
    pub angle: f64,
    /// Only the Euclidean distance has such angles; `lp`.
    pub distance: DistanceConfig,
}

impl Default for AngularMiner {
    fn default() -> Self {
        Self {
            angle: 20.0,
            distance: DistanceConfig::EUCLIDEAN,
        }
    }
}

impl Miner for AngularMiner {
    const SUMMARY: &'static str = "triplets whose angle at the negative is wider than a bound";
    const PAPER: &'static str = "Wang et al., Deep Metric Learning with Angular Loss, ICCV";
    const YEAR: u16 = 2017;

    fn validate(&self) -> Result<(), String> {
        finite("angular", "angle", self.angle)?;
        if !(0.0..90.0).contains(&self.angle) {
            refuse("angular", "angle", self.angle, "at least 0 and below 90 degrees")?;
        }
        only_euclidean("angular", &self.distance)
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let dim = input.dim();
        let steepest = self.angle.to_radians().tan();
        let distance = |x: &[f64], y: &[f64]| sum_of(x, y, |x, y| (x - y + OFFSET) * (x - y + OFFSET)).sqrt();
        let of_anchor = |anchor: usize| {
            let partners = input.relations().partners(anchor);
            let row = &input.query()[anchor * dim..][..dim];
            let mut found = Vec::new();
            let mut centre = vec![0.0; dim];
            for &positive in &partners.positives {
                let other = &input.reference()[positive as usize * dim..][..dim];
                for ((centre, a), p) in centre.iter_mut().zip(row).zip(other) {
                    *centre = (a + p) / 2.0;
                }
                let base = distance(row, other);
                for &negative in &partners.negatives {
                    let height = distance(&input.reference()[negative as usize * dim..][..dim], &centre);
                    // Division, not multiplication: a height of 0 is a right angle.
                    if base / (2.0 * height) > steepest {
                        found.push([anchor as u32, positive, negative]);
                    }
                }
            }
            found
        };
        let found: Vec<Vec<[u32; 3]>> = (0..input.queries()).into_par_iter().map(of_anchor).collect();
        Ok(Mined::Triplets(found.concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Labels;

    #[test]
    fn the_angle_decides() {
        // Base 2, heights 3 (18.4 degrees) and 2 (26.6 degrees).
        let labels = Labels::from(vec![0, 0, 1, 2]);
        let rows = vec![-1.0, 0.0, 1.0, 0.0, 0.0, 3.0, 0.0, -2.0];
        let input = MiningInput::batch(rows, &labels, 2, 0).unwrap();
        let mine = |angle| {
            let miner = AngularMiner {
                angle,
                ..Default::default()
            };
            miner.mine(&input).unwrap()
        };
        assert_eq!(mine(20.0), Mined::Triplets(vec![[0, 1, 3], [1, 0, 3]]));
        assert_eq!(mine(18.0), Mined::Triplets(vec![[0, 1, 2], [0, 1, 3], [1, 0, 2], [1, 0, 3]]));
        assert_eq!(mine(27.0), Mined::Triplets(vec![]));
    }

    #[test]
    fn other_distances_and_angles_are_refused() {
        let miner = AngularMiner {
            distance: DistanceConfig::COSINE,
            ..Default::default()
        };
        assert!(miner.validate().unwrap_err().contains("miner.angular.distance"));
        let miner = AngularMiner {
            angle: 90.0,
            ..Default::default()
        };
        assert!(miner.validate().unwrap_err().contains("miner.angular.angle is 90"));
    }
}
