//! The hardest share of all pairs.

use serde::{Deserialize, Serialize};

use super::{Distances, Mined, Miner, MiningError, MiningInput, Pairs, all_pairs, refuse};
use crate::distances::DistanceConfig;

/// The hardest share of all positive pairs and of all negative pairs of the batch (Yuan et al., Hard-Aware Deeply Cascaded
/// Embedding, ICCV 2017): `ceil(filter-percentage * count)` of each, the farthest positives and the nearest negatives.
///
/// A cascade hands the pairs of one model to the next with [`HdcMiner::filter`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HdcMiner {
    /// Share of the pairs that is kept (a share from 0 to 1 in spite of its name); 0.5, pytorch-metric-learning's.
    pub filter_percentage: f64,
    /// Distance; `lp`, Euclidean of normalised rows.
    pub distance: DistanceConfig,
}

impl Default for HdcMiner {
    fn default() -> Self {
        Self {
            filter_percentage: 0.5,
            distance: DistanceConfig::EUCLIDEAN,
        }
    }
}

impl Miner for HdcMiner {
    const SUMMARY: &'static str = "the hardest share of all positive pairs and of all negative pairs";
    const PAPER: &'static str = "Yuan et al., Hard-Aware Deeply Cascaded Embedding, ICCV";
    const YEAR: u16 = 2017;

    fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.filter_percentage) {
            let share = self.filter_percentage;
            refuse("hdc", "filter-percentage", share, "a share from 0 to 1 (0.5 keeps half of the pairs)")?;
        }
        self.distance.validate()
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        Ok(Mined::Pairs(self.hardest(input, all_pairs(input.relations()))))
    }
}

impl HdcMiner {
    /// The hardest share of what an earlier model of the cascade chose, triplets counting as their pairs.
    ///
    /// # Errors
    /// If a position is no row of the input.
    pub fn filter(&self, input: &MiningInput<'_>, chosen: Mined) -> Result<Mined, MiningError> {
        let pairs = chosen.into_pairs();
        let outside = |&[anchor, other]: &[u32; 2]| {
            anchor as usize >= input.queries() || other as usize >= input.references()
        };
        if let Some([anchor, other]) = pairs.positive.iter().chain(&pairs.negative).find(|&pair| outside(pair)) {
            return Err(MiningError::Mismatch(format!(
                "the pair ({anchor}, {other}) does not exist in {} anchors and {} references",
                input.queries(),
                input.references()
            )));
        }
        Ok(Mined::Pairs(self.hardest(input, pairs)))
    }

    fn hardest(&self, input: &MiningInput<'_>, pairs: Pairs) -> Pairs {
        let distances = Distances::of(&self.distance, input);
        Pairs {
            positive: self.least(pairs.positive, |pair| -distances.at(pair)),
            negative: self.least(pairs.negative, |pair| distances.at(pair)),
        }
    }

    /// The share of pairs with the least ease, the earlier of equal ones, in their order.
    fn least(&self, pairs: Vec<[u32; 2]>, ease: impl Fn([u32; 2]) -> f64) -> Vec<[u32; 2]> {
        let kept = (self.filter_percentage * pairs.len() as f64).ceil() as usize;
        let mut ranked: Vec<(f64, usize)> = pairs.iter().enumerate().map(|(at, &pair)| (ease(pair), at)).collect();
        if kept < ranked.len() {
            ranked.select_nth_unstable_by(kept, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            ranked.truncate(kept);
        }
        let mut places: Vec<usize> = ranked.into_iter().map(|(_, at)| at).collect();
        places.sort_unstable();
        places.into_iter().map(|at| pairs[at]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Labels;

    fn raw(filter_percentage: f64) -> HdcMiner {
        HdcMiner {
            filter_percentage,
            distance: DistanceConfig::Lp {
                p: 2.0,
                power: 1.0,
                normalize: false,
            },
        }
    }

    #[test]
    fn shares_are_rounded_up_and_can_be_cascaded() {
        let (query, reference) = (Labels::from(vec![0]), Labels::from(vec![0, 0, 0, 1, 1]));
        let places = vec![1.0, 3.0, 2.0, 5.0, 4.0];
        let input = MiningInput::between(vec![0.0], &query, places, &reference, 1, 0).unwrap();
        let pairs = |positive: &[[u32; 2]], negative: &[[u32; 2]]| {
            Mined::Pairs(Pairs {
                positive: positive.to_vec(),
                negative: negative.to_vec(),
            })
        };
        let half = raw(0.5).mine(&input).unwrap();
        assert_eq!(half, pairs(&[[0, 1], [0, 2]], &[[0, 4]]));
        let quarter = raw(0.5).filter(&input, half).unwrap();
        assert_eq!(quarter, pairs(&[[0, 1]], &[[0, 4]]));
        assert_eq!(raw(0.0).mine(&input).unwrap(), pairs(&[], &[]));
        assert_eq!(
            raw(1.0).mine(&input).unwrap(),
            pairs(&[[0, 0], [0, 1], [0, 2]], &[[0, 3], [0, 4]])
        );
        let message = raw(0.5).filter(&input, Mined::Triplets(vec![[0, 9, 1]])).unwrap_err();
        assert!(message.to_string().contains("(0, 9)"), "{message}");
        assert!(raw(50.0).validate().unwrap_err().contains("filter-percentage is 50"));
    }
}
