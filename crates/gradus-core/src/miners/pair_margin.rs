//! Pairs that violate a margin.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Distances, Mined, Miner, MiningError, MiningInput, Pairs, finite};
use crate::distances::DistanceConfig;

/// Positive pairs farther apart than `pos-margin`, negative pairs nearer than `neg-margin`, both strictly
/// (pytorch-metric-learning's PairMarginMiner; the pairs with a contrastive loss above 0 of Hadsell et al., Dimensionality
/// Reduction by Learning an Invariant Mapping, CVPR 2006).
///
/// With a similarity (`cosine`, `dot`) positives less alike than `pos-margin` and negatives more alike than `neg-margin`; the
/// defaults are meant for distances.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PairMarginMiner {
    /// Bound of positive pairs, in the unit of `distance`; 0.2, pytorch-metric-learning's.
    pub pos_margin: f64,
    /// Bound of negative pairs, in the unit of `distance`; 0.8, pytorch-metric-learning's.
    pub neg_margin: f64,
    /// Distance; `lp`, Euclidean of normalised rows.
    pub distance: DistanceConfig,
}

impl Default for PairMarginMiner {
    fn default() -> Self {
        Self {
            pos_margin: 0.2,
            neg_margin: 0.8,
            distance: DistanceConfig::EUCLIDEAN,
        }
    }
}

impl Miner for PairMarginMiner {
    const SUMMARY: &'static str = "positive pairs beyond a margin, negative pairs within another";
    const PAPER: &'static str = "Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR";
    const YEAR: u16 = 2006;

    fn validate(&self) -> Result<(), String> {
        finite("pair-margin", "pos-margin", self.pos_margin)?;
        finite("pair-margin", "neg-margin", self.neg_margin)?;
        self.distance.validate()
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let distances = Distances::of(&self.distance, input);
        let (beyond, within) = (distances.turned(self.pos_margin), distances.turned(self.neg_margin));
        let of_anchor = |anchor: usize| {
            let row = distances.row(anchor);
            let mut partners = input.relations().partners(anchor);
            partners.positives.retain(|&at| row[at as usize] > beyond);
            partners.negatives.retain(|&at| row[at as usize] < within);
            Pairs::of(anchor, &partners)
        };
        let found: Vec<Pairs> = (0..input.queries()).into_par_iter().map(of_anchor).collect();
        Ok(Mined::Pairs(Pairs::joined(found)))
    }
}
