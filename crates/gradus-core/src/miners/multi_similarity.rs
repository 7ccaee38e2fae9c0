//! Pairs that are hard in comparison with the hardest of the other kind.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Distances, Mined, Miner, MiningError, MiningInput, Pairs, finite};
use crate::distances::DistanceConfig;

/// Positives less alike than the most alike negative plus `epsilon`, negatives more alike than the least alike positive minus
/// `epsilon` (Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR 2019).
///
/// Of an anchor: positives with `s - epsilon < max s_n`, negatives with `s + epsilon > min s_p`; for distances the other way
/// round. An anchor that lacks positives or negatives has no pair.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MultiSimilarityMiner {
    /// Slack, in the unit of `distance` (a cosine by default); 0.1, the paper's.
    pub epsilon: f64,
    /// Distance; `cosine`, the paper's.
    pub distance: DistanceConfig,
}

impl Default for MultiSimilarityMiner {
    fn default() -> Self {
        Self {
            epsilon: 0.1,
            distance: DistanceConfig::COSINE,
        }
    }
}

impl Miner for MultiSimilarityMiner {
    const SUMMARY: &'static str = "pairs that are hard in comparison with the hardest pair of the other kind";
    const PAPER: &'static str =
        "Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR";
    const YEAR: u16 = 2019;

    fn validate(&self) -> Result<(), String> {
        finite("multi-similarity", "epsilon", self.epsilon)?;
        self.distance.validate()
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let distances = Distances::of(&self.distance, input);
        let of_anchor = |anchor: usize| {
            let row = distances.row(anchor);
            let partners = input.relations().partners(anchor);
            let values = |partners: &[u32]| partners.iter().map(|&at| row[at as usize]).collect::<Vec<f64>>();
            let farthest_positive = values(&partners.positives).into_iter().fold(f64::NEG_INFINITY, f64::max);
            let nearest_negative = values(&partners.negatives).into_iter().fold(f64::INFINITY, f64::min);
            let keep = |others: &[u32], hard: &dyn Fn(f64) -> bool| {
                let kept = others.iter().filter(|&&at| hard(row[at as usize]));
                kept.map(|&at| [anchor as u32, at]).collect::<Vec<[u32; 2]>>()
            };
            Pairs {
                positive: keep(&partners.positives, &|d| d + self.epsilon > nearest_negative),
                negative: keep(&partners.negatives, &|d| d - self.epsilon < farthest_positive),
            }
        };
        let found: Vec<Pairs> = (0..input.queries()).into_par_iter().map(of_anchor).collect();
        Ok(Mined::Pairs(Pairs::joined(found)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Labels;

    #[test]
    fn pairs_are_compared_with_the_hardest_of_the_other_kind() {
        let (query, reference) = (Labels::from(vec![0]), Labels::from(vec![0, 0, 0, 1, 1]));
        // Cosines with the anchor: positives 1, 0.8, 0.6; negatives 0.8 and 0.28.
        let rows = vec![1.0, 0.0, 0.8, 0.6, 0.6, 0.8, 0.8, -0.6, 0.28, 0.96];
        let input = MiningInput::between(vec![1.0, 0.0], &query, rows, &reference, 2, 0).unwrap();
        let found = MultiSimilarityMiner::default().mine(&input).unwrap();
        let expected = Pairs {
            positive: vec![[0, 1], [0, 2]],
            negative: vec![[0, 3]],
        };
        assert_eq!(found, Mined::Pairs(expected));
    }
}
