//! The hardest positive and the hardest negative of each anchor.

use serde::{Deserialize, Serialize};

use super::batch_easy_hard::{BatchEasyHardMiner, Strategy, triplets};
use super::{Mined, Miner, MiningError, MiningInput};
use crate::distances::DistanceConfig;

/// One triplet per anchor: its farthest positive and its nearest negative (Hermans et al., In Defense of the Triplet Loss for
/// Person Re-Identification, 2017). An anchor that lacks either has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct BatchHardMiner {
    /// Distance; `lp`, Euclidean of normalised rows.
    pub distance: DistanceConfig,
}

impl Miner for BatchHardMiner {
    const SUMMARY: &'static str = "triplets of each anchor, its farthest positive and its nearest negative";
    const PAPER: &'static str = "Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv";
    const YEAR: u16 = 2017;

    fn validate(&self) -> Result<(), String> {
        self.distance.validate()
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let hard = BatchEasyHardMiner {
            pos_strategy: Strategy::Hard,
            neg_strategy: Strategy::Hard,
            distance: self.distance,
            ..Default::default()
        };
        Ok(Mined::Triplets(triplets(&hard.chosen(input))))
    }
}
