//! One positive and one negative per anchor, easy or hard.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Distances, Mined, Miner, MiningError, MiningInput, Pairs, all_pairs, refuse};
use crate::distances::DistanceConfig;

/// Which positive or negative of an anchor is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The nearest positive, the farthest negative.
    Easy,
    /// The farthest positive, the nearest negative.
    Hard,
    /// The nearest negative that is farther than the chosen positive, or the farthest positive that is nearer than the
    /// chosen negative.
    Semihard,
    /// All of them.
    All,
}

/// Per anchor the easy, hard or semihard positive and negative (Xuan et al., Improved Embeddings with Easy Positive Triplet
/// Mining, WACV 2020), as a positive and a negative pair; an anchor that lacks either has none.
///
/// - `all` takes every pair of that kind and leaves the other kind to itself; it cannot be combined with `semihard`, nor can
///   `semihard` with itself.
/// - A range leaves out pairs whose distance (or similarity, for `cosine` and `dot`) lies outside of it, bounds included;
///   for `all` there is no range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BatchEasyHardMiner {
    /// Which positive: `easy`, `hard`, `semihard` or `all`; `easy`, pytorch-metric-learning's.
    pub pos_strategy: Strategy,
    /// Which negative; `semihard`, pytorch-metric-learning's.
    pub neg_strategy: Strategy,
    /// Smallest and largest distance of a positive pair, in the unit of `distance`; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_pos_range: Option<[f64; 2]>,
    /// Smallest and largest distance of a negative pair, in the unit of `distance`; none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_neg_range: Option<[f64; 2]>,
    /// Distance; `lp`, Euclidean of normalised rows.
    pub distance: DistanceConfig,
}

impl Default for BatchEasyHardMiner {
    fn default() -> Self {
        Self {
            pos_strategy: Strategy::Easy,
            neg_strategy: Strategy::Semihard,
            allowed_pos_range: None,
            allowed_neg_range: None,
            distance: DistanceConfig::EUCLIDEAN,
        }
    }
}

impl Miner for BatchEasyHardMiner {
    const SUMMARY: &'static str = "per anchor the easy, hard or semihard positive and negative";
    const PAPER: &'static str = "Xuan et al., Improved Embeddings with Easy Positive Triplet Mining, WACV";
    const YEAR: u16 = 2020;

    fn validate(&self) -> Result<(), String> {
        use Strategy::{All, Semihard};
        let name = "batch-easy-hard";
        match (self.pos_strategy, self.neg_strategy) {
            (Semihard, Semihard) => refuse(
                name,
                "neg-strategy",
                "semihard",
                "easy or hard where pos-strategy is semihard: one of the two has to be chosen first",
            )?,
            (All, Semihard) => refuse(
                name,
                "neg-strategy",
                "semihard",
                "easy, hard or all where pos-strategy is all: there is no one positive to be farther than",
            )?,
            (Semihard, All) => refuse(
                name,
                "pos-strategy",
                "semihard",
                "easy, hard or all where neg-strategy is all: there is no one negative to be nearer than",
            )?,
            _ => {}
        }
        let sides = [
            ("allowed-pos-range", self.allowed_pos_range, self.pos_strategy),
            ("allowed-neg-range", self.allowed_neg_range, self.neg_strategy),
        ];
        for (setting, range, strategy) in sides {
            let Some([low, high]) = range else { continue };
            let value = format!("[{low}, {high}]");
            if low.is_nan() || high.is_nan() || low > high {
                refuse(name, setting, &value, "a smaller and a larger number")?;
            }
            if strategy == All {
                refuse(name, setting, &value, "left out where the strategy is all, which takes every pair")?;
            }
        }
        self.distance.validate()
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let chosen = self.chosen(input);
        if self.pos_strategy != Strategy::All && self.neg_strategy != Strategy::All {
            let both: Vec<[u32; 3]> = triplets(&chosen);
            return Ok(Mined::Triplets(both).into_pairs().into());
        }
        let mut pairs = all_pairs(input.relations());
        let with_anchor = |pick: fn(&Choice) -> Option<u32>| -> Vec<[u32; 2]> {
            let anchors = chosen.iter().enumerate();
            anchors
                .filter_map(|(anchor, choice)| Some([anchor as u32, pick(choice)?]))
                .collect()
        };
        if self.pos_strategy != Strategy::All {
            pairs.positive = with_anchor(|choice| choice.positive);
        }
        if self.neg_strategy != Strategy::All {
            pairs.negative = with_anchor(|choice| choice.negative);
        }
        Ok(Mined::Pairs(pairs))
    }
}

impl From<Pairs> for Mined {
    fn from(pairs: Pairs) -> Self {
        Self::Pairs(pairs)
    }
}

/// What is taken for one anchor.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    positive: Option<u32>,
    negative: Option<u32>,
}

/// The anchors that have both.
pub(super) fn triplets(chosen: &[Choice]) -> Vec<[u32; 3]> {
    let anchors = chosen.iter().enumerate();
    anchors
        .filter_map(|(anchor, choice)| Some([anchor as u32, choice.positive?, choice.negative?]))
        .collect()
}

impl BatchEasyHardMiner {
    /// What is taken for each anchor; nothing on a side whose strategy is `all`.
    pub(super) fn chosen(&self, input: &MiningInput<'_>) -> Vec<Choice> {
        let distances = Distances::of(&self.distance, input);
        let allowed = |range: Option<[f64; 2]>, distance: f64| {
            let value = distances.turned(distance);
            range.is_none_or(|[low, high]| !(value > high || value < low))
        };
        let of_anchor = |anchor: usize| {
            let row = distances.row(anchor);
            let partners = input.relations().partners(anchor);
            let positive = |below: Option<f64>| {
                let fits = |&&at: &&u32| {
                    let distance = row[at as usize];
                    allowed(self.allowed_pos_range, distance) && below.is_none_or(|bound| distance < bound)
                };
                let candidates = partners.positives.iter().filter(fits).copied();
                match self.pos_strategy {
                    Strategy::All => None,
                    Strategy::Easy => nearest(row, candidates),
                    Strategy::Hard | Strategy::Semihard => farthest(row, candidates),
                }
            };
            let negative = |above: Option<f64>| {
                let fits = |&&at: &&u32| {
                    let distance = row[at as usize];
                    allowed(self.allowed_neg_range, distance) && above.is_none_or(|bound| distance > bound)
                };
                let candidates = partners.negatives.iter().filter(fits).copied();
                match self.neg_strategy {
                    Strategy::All => None,
                    Strategy::Easy => farthest(row, candidates),
                    Strategy::Hard | Strategy::Semihard => nearest(row, candidates),
                }
            };
            if self.pos_strategy == Strategy::Semihard {
                let negative = negative(None);
                Choice {
                    positive: negative.and_then(|at| positive(Some(row[at as usize]))),
                    negative,
                }
            } else if self.neg_strategy == Strategy::Semihard {
                let positive = positive(None);
                Choice {
                    positive,
                    negative: positive.and_then(|at| negative(Some(row[at as usize]))),
                }
            } else {
                Choice {
                    positive: positive(None),
                    negative: negative(None),
                }
            }
        };
        (0..input.queries()).into_par_iter().map(of_anchor).collect()
    }
}

/// The first of the nearest.
fn nearest(row: &[f64], candidates: impl Iterator<Item = u32>) -> Option<u32> {
    candidates.reduce(|best, at| if row[at as usize] < row[best as usize] { at } else { best })
}

/// The first of the farthest.
fn farthest(row: &[f64], candidates: impl Iterator<Item = u32>) -> Option<u32> {
    candidates.reduce(|best, at| if row[at as usize] > row[best as usize] { at } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Labels;

    /// Points on a line: anchor 0 at 0, positives at 1 and 3, negatives at 2, 4 and -1.5.
    fn line(miner: &BatchEasyHardMiner) -> Result<Mined, MiningError> {
        let (query, reference) = (Labels::from(vec![0]), Labels::from(vec![0, 0, 1, 1, 1]));
        let miner = BatchEasyHardMiner {
            distance: DistanceConfig::Lp {
                p: 2.0,
                power: 1.0,
                normalize: false,
            },
            ..*miner
        };
        let places = vec![1.0, 3.0, 2.0, 4.0, -1.5];
        let input = MiningInput::between(vec![0.0], &query, places, &reference, 1, 0)?;
        miner.mine(&input)
    }

    fn pairs(positive: &[u32], negative: &[u32]) -> Mined {
        let with_anchor = |others: &[u32]| others.iter().map(|&other| [0, other]).collect();
        Mined::Pairs(Pairs {
            positive: with_anchor(positive),
            negative: with_anchor(negative),
        })
    }

    #[test]
    fn strategies_mean_what_they_say() {
        use Strategy::{All, Easy, Hard, Semihard};
        for (pos_strategy, neg_strategy, positive, negative) in [
            (Easy, Easy, &[0][..], &[3][..]),
            (Easy, Hard, &[0], &[4]),
            (Easy, Semihard, &[0], &[4]),
            (Hard, Semihard, &[1], &[3]),
            (Hard, Hard, &[1], &[4]),
            (Semihard, Hard, &[0], &[4]),
            (Semihard, Easy, &[1], &[3]),
            (All, Hard, &[0, 1], &[4]),
            (Hard, All, &[1], &[2, 3, 4]),
            (All, All, &[0, 1], &[2, 3, 4]),
        ] {
            let miner = BatchEasyHardMiner {
                pos_strategy,
                neg_strategy,
                ..Default::default()
            };
            let found = line(&miner).unwrap();
            assert_eq!(found, pairs(positive, negative), "{pos_strategy:?} {neg_strategy:?}");
        }
    }

    #[test]
    fn ranges_leave_pairs_out() {
        let miner = BatchEasyHardMiner {
            allowed_pos_range: Some([2.0, 3.0]),
            allowed_neg_range: Some([0.0, 4.0]),
            ..Default::default()
        };
        assert_eq!(line(&miner).unwrap(), pairs(&[1], &[3]));
        let miner = BatchEasyHardMiner {
            allowed_pos_range: Some([7.0, 8.0]),
            ..Default::default()
        };
        assert_eq!(line(&miner).unwrap(), pairs(&[], &[]));
    }

    #[test]
    fn impossible_combinations_are_refused() {
        use Strategy::{All, Easy, Semihard};
        for (pos_strategy, neg_strategy) in [(Semihard, Semihard), (All, Semihard), (Semihard, All)] {
            let miner = BatchEasyHardMiner {
                pos_strategy,
                neg_strategy,
                ..Default::default()
            };
            assert!(miner.validate().unwrap_err().contains("strategy"));
        }
        let miner = BatchEasyHardMiner {
            allowed_neg_range: Some([1.0, 0.5]),
            ..Default::default()
        };
        assert!(miner.validate().unwrap_err().contains("allowed-neg-range is [1, 0.5]"));
        let miner = BatchEasyHardMiner {
            pos_strategy: All,
            neg_strategy: Easy,
            allowed_pos_range: Some([0.0, 1.0]),
            ..Default::default()
        };
        assert!(miner.validate().unwrap_err().contains("allowed-pos-range"));
    }
}
