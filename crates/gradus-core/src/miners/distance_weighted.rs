//! Negatives drawn evenly over distances.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Distances, Mined, Miner, MiningError, MiningInput, only_euclidean, refuse};
use crate::distances::DistanceConfig;
use crate::random::{Rng, purpose, stream};

/// Random triplets whose negatives are spread evenly over distances (Wu et al., Sampling Matters in Deep Embedding Learning,
/// ICCV 2017).
///
/// On the unit sphere in `D` dimensions distances crowd around `sqrt(2)`. A negative at distance `d`, taken to be at least
/// `cutoff`, is therefore drawn with a probability in proportion to `1 / q(d)`, whose logarithm is
/// `(2 - D) log d - (D - 3) / 2 log(1 - d^2 / 4)`; one at `nonzero-loss-cutoff` or farther is never drawn. Each anchor gets as
/// many triplets as its class has members in the reference set (itself included, where the batch is its own reference), with
/// positives drawn uniformly; an anchor without any negative near enough gets none.
///
/// Weights are scaled by the largest of the anchor, not of the whole batch as in pytorch-metric-learning, so that no anchor
/// loses its negatives to underflow in wide embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DistanceWeightedMiner {
    /// Distance below which all negatives count as this far, Euclidean between rows of unit length; 0.5, the paper's.
    pub cutoff: f64,
    /// Distance from which on negatives are left out; 1.4, the paper's.
    pub nonzero_loss_cutoff: f64,
    /// Only the Euclidean distance of normalised rows has this density; `lp`.
    pub distance: DistanceConfig,
}

impl Default for DistanceWeightedMiner {
    fn default() -> Self {
        Self {
            cutoff: 0.5,
            nonzero_loss_cutoff: 1.4,
            distance: DistanceConfig::EUCLIDEAN,
        }
    }
}

impl Miner for DistanceWeightedMiner {
    const SUMMARY: &'static str = "random triplets, with negatives spread evenly over distances";
    const PAPER: &'static str = "Wu et al., Sampling Matters in Deep Embedding Learning, ICCV";
    const YEAR: u16 = 2017;
    const RANDOM: bool = true;

    fn validate(&self) -> Result<(), String> {
        let name = "distance-weighted";
        if !(self.cutoff > 0.0 && self.cutoff < 2.0) {
            refuse(name, "cutoff", self.cutoff, "above 0 and below 2, the largest distance")?;
        }
        if !(self.nonzero_loss_cutoff > self.cutoff && self.nonzero_loss_cutoff.is_finite()) {
            let wanted = format!("a finite number above cutoff = {}", self.cutoff);
            refuse(name, "nonzero-loss-cutoff", self.nonzero_loss_cutoff, &wanted)?;
        }
        only_euclidean(name, &self.distance)
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let distances = Distances::of(&self.distance, input);
        let of_anchor = |anchor: usize| {
            let partners = input.relations().partners(anchor);
            let row = distances.row(anchor);
            let gaps = partners.negatives.iter().map(|&at| row[at as usize]);
            let cumulative = self.cumulative_weights(gaps, input.dim());
            let total = cumulative.last().copied().unwrap_or(0.0);
            if partners.positives.is_empty() || total <= 0.0 {
                return Vec::new();
            }
            let count = partners.positives.len() + usize::from(input.same());
            let mut random = stream(input.seed(), &[purpose::MINER, anchor as u64]);
            (0..count)
                .map(|_| {
                    let positive = partners.positives[random.random_range(0..partners.positives.len())];
                    let target = random.random::<f64>() * total;
                    let at = cumulative.partition_point(|&sum| sum <= target);
                    // Rounding may make the target the total itself; the last that has a weight is meant.
                    let at = at.min(cumulative.partition_point(|&sum| sum < total));
                    [anchor as u32, positive, partners.negatives[at]]
                })
                .collect()
        };
        let found: Vec<Vec<[u32; 3]>> = (0..input.queries()).into_par_iter().map(of_anchor).collect();
        Ok(Mined::Triplets(found.concat()))
    }
}

impl DistanceWeightedMiner {
    /// Running sum of the weights of negatives at these distances, the largest weight being 1.
    fn cumulative_weights(&self, distances: impl Iterator<Item = f64>, dim: usize) -> Vec<f64> {
        let dim = dim as f64;
        let logarithms: Vec<f64> = distances
            .map(|distance| {
                let distance = distance.max(self.cutoff);
                let weight =
                    (2.0 - dim) * distance.ln() - (dim - 3.0) / 2.0 * (1.0 - 0.25 * distance * distance).ln();
                if weight.is_finite() && distance < self.nonzero_loss_cutoff {
                    weight
                } else {
                    f64::NEG_INFINITY
                }
            })
            .collect();
        let largest = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut sum = 0.0;
        let running = logarithms.into_iter().map(|weight| {
            if weight > f64::NEG_INFINITY {
                sum += (weight - largest).exp();
            }
            sum
        });
        running.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::miners::testing::random_rows;
    use crate::relations::Labels;

    #[test]
    fn negatives_follow_the_density() {
        let dim = 5;
        let rows = random_rows(7, dim, 3);
        let labels = Labels::from(vec![0, 0, 1, 1, 2, 2, 2]);
        let miner = DistanceWeightedMiner::default();
        let mut times = [[0.0_f64; 7]; 7];
        let mut drawn = [0.0_f64; 7];
        for seed in 0..4000 {
            let input = MiningInput::batch(rows.clone(), &labels, dim, seed).unwrap();
            let Mined::Triplets(triplets) = miner.mine(&input).unwrap() else {
                panic!("triplets")
            };
            for [anchor, positive, negative] in triplets {
                let class = |item: u32| [0, 0, 1, 1, 2, 2, 2][item as usize];
                assert!(anchor != positive && class(anchor) == class(positive) && class(anchor) != class(negative));
                times[anchor as usize][negative as usize] += 1.0;
                drawn[anchor as usize] += 1.0;
            }
        }
        let unit = |row: usize| {
            let row = &rows[row * dim..][..dim];
            let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
            row.iter().map(|value| value / length).collect::<Vec<_>>()
        };
        for anchor in 0..7 {
            let class = [0, 0, 1, 1, 2, 2, 2];
            // The density itself, not its logarithm.
            let weights: Vec<f64> = (0..7)
                .map(|other| {
                    let squares = unit(anchor).iter().zip(unit(other)).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
                    let distance = squares.sqrt().max(0.5);
                    let density = distance.powi(3) * (1.0 - distance * distance / 4.0);
                    let near = class[other] != class[anchor] && distance < 1.4;
                    f64::from(u8::from(near)) / density
                })
                .collect();
            let total: f64 = weights.iter().sum();
            let members = class.iter().filter(|&&other| other == class[anchor]).count();
            assert_eq!(drawn[anchor], if total > 0.0 { 4000.0 * members as f64 } else { 0.0 });
            for other in 0..7 {
                let expected = drawn[anchor] * weights[other] / total.max(1e-300);
                let found = times[anchor][other];
                assert!(
                    (found - expected).abs() <= 5.0 * expected.sqrt(),
                    "{anchor} {other}: {found} of {expected}"
                );
            }
        }
        assert!(drawn.iter().sum::<f64>() > 10_000.0);
    }

    #[test]
    fn wide_embeddings_do_not_underflow() {
        let dim = 2048;
        let rows = random_rows(12, dim, 4);
        let labels = Labels::from((0..12).map(|item| item % 3).collect::<Vec<u32>>());
        let miner = DistanceWeightedMiner {
            nonzero_loss_cutoff: 1.9,
            ..Default::default()
        };
        let input = MiningInput::batch(rows, &labels, dim, 1).unwrap();
        let Mined::Triplets(triplets) = miner.mine(&input).unwrap() else {
            panic!("triplets")
        };
        assert_eq!(triplets.len(), 12 * 4);
    }

    #[test]
    fn cutoffs_that_leave_nothing_are_refused() {
        let miner = DistanceWeightedMiner {
            cutoff: 1.5,
            ..Default::default()
        };
        assert!(miner.validate().unwrap_err().contains("nonzero-loss-cutoff is 1.4"));
        let miner = DistanceWeightedMiner {
            cutoff: 0.0,
            ..Default::default()
        };
        assert!(miner.validate().unwrap_err().contains("cutoff is 0"));
    }
}
