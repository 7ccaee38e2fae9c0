//! Pairs spread evenly over their distances.

use serde::{Deserialize, Serialize};

use super::{Distances, Mined, Miner, MiningError, MiningInput, Pairs, all_pairs, refuse};
use crate::distances::DistanceConfig;
use crate::random::{Rng, purpose, stream};

/// Random pairs, equally many of every stretch of distance (pytorch-metric-learning's UniformHistogramMiner).
///
/// The distances of all positive pairs, from the smallest to the largest, are cut into `num-bins` equal bins; of each bin that
/// is not empty `pos-per-bin` pairs are drawn uniformly with replacement. Negative pairs likewise, in bins of their own.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct UniformHistogramMiner {
    /// Number of bins; 100, pytorch-metric-learning's.
    pub num_bins: usize,
    /// Positive pairs drawn from each bin; 10, pytorch-metric-learning's.
    pub pos_per_bin: usize,
    /// Negative pairs drawn from each bin; 10, pytorch-metric-learning's.
    pub neg_per_bin: usize,
    /// Distance; `lp`, Euclidean of normalised rows.
    pub distance: DistanceConfig,
}

impl Default for UniformHistogramMiner {
    fn default() -> Self {
        Self {
            num_bins: 100,
            pos_per_bin: 10,
            neg_per_bin: 10,
            distance: DistanceConfig::EUCLIDEAN,
        }
    }
}

impl Miner for UniformHistogramMiner {
    const SUMMARY: &'static str = "random pairs, equally many of every stretch of distance";
    const PAPER: &'static str = "Musgrave et al., PyTorch Metric Learning, arXiv";
    const YEAR: u16 = 2020;
    const RANDOM: bool = true;

    fn validate(&self) -> Result<(), String> {
        for (setting, value) in [
            ("num-bins", self.num_bins),
            ("pos-per-bin", self.pos_per_bin),
            ("neg-per-bin", self.neg_per_bin),
        ] {
            if value == 0 || value > MOST {
                refuse("uniform-histogram", setting, value, "from 1 to a million")?;
            }
        }
        self.distance.validate()
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let distances = Distances::of(&self.distance, input);
        let pairs = all_pairs(input.relations());
        // Turned back: bins include their lower bound in the distance's own unit.
        let value = |pair: [u32; 2]| distances.turned(distances.at(pair));
        Ok(Mined::Pairs(Pairs {
            positive: self.spread(&pairs.positive, self.pos_per_bin, value, &[input.seed(), 0]),
            negative: self.spread(&pairs.negative, self.neg_per_bin, value, &[input.seed(), 1]),
        }))
    }
}

/// More than anybody needs; keeps a slip of the pen from filling the memory.
const MOST: usize = 1_000_000;

impl UniformHistogramMiner {
    fn spread(
        &self,
        pairs: &[[u32; 2]],
        per_bin: usize,
        value: impl Fn([u32; 2]) -> f64,
        &[seed, side]: &[u64; 2],
    ) -> Vec<[u32; 2]> {
        let values: Vec<f64> = pairs.iter().map(|&pair| value(pair)).collect();
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let width = (high - low) / self.num_bins as f64;
        let edges: Vec<f64> = (0..self.num_bins).map(|bin| low + width * bin as f64).collect();
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); self.num_bins];
        for (at, value) in values.iter().enumerate() {
            // The last bin that begins at or below the value; the largest value is in the last one.
            let bin = edges.partition_point(|edge| edge <= value).saturating_sub(1);
            members[bin].push(at);
        }
        let mut found = Vec::new();
        for (bin, members) in members.iter().enumerate().filter(|(_, members)| !members.is_empty()) {
            let mut random = stream(seed, &[purpose::MINER, side, bin as u64]);
            found.extend((0..per_bin).map(|_| pairs[members[random.random_range(0..members.len())]]));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Labels;

    #[test]
    fn every_bin_gives_as_many() {
        let (query, reference) = (Labels::from(vec![0]), Labels::from(vec![0, 0, 0, 0, 1, 1]));
        // Positives at 0, 1, 1.5 and 4: of four bins the first and the second hold one and two, the last one.
        let places = vec![0.0, 1.0, 1.5, 4.0, 7.0, 7.0];
        let input = MiningInput::between(vec![0.0], &query, places, &reference, 1, 9).unwrap();
        let miner = UniformHistogramMiner {
            num_bins: 4,
            pos_per_bin: 2000,
            neg_per_bin: 3,
            distance: DistanceConfig::Lp {
                p: 2.0,
                power: 1.0,
                normalize: false,
            },
        };
        let Mined::Pairs(pairs) = miner.mine(&input).unwrap() else {
            panic!("pairs")
        };
        let times = |other: u32| pairs.positive.iter().filter(|pair| **pair == [0, other]).count();
        assert_eq!((times(0), times(3), pairs.positive.len()), (2000, 2000, 6000));
        assert!((900..1100).contains(&times(1)), "{}", times(1));
        assert_eq!(pairs.negative.len(), 3);
        assert!(pairs.negative.iter().all(|pair| pair[1] >= 4));
        assert!(UniformHistogramMiner { num_bins: 0, ..miner }.validate().unwrap_err().contains("num-bins"));
    }
}
