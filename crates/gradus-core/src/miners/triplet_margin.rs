//! Triplets by their gap.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Distances, Mined, Miner, MiningError, MiningInput, finite};
use crate::distances::DistanceConfig;

/// Which triplets [`TripletMarginMiner`] chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TypeOfTriplets {
    /// `gap <= margin`: all that violate the margin.
    All,
    /// `gap <= margin` and `gap <= 0`: the negative is not farther than the positive.
    Hard,
    /// `0 < gap <= margin`: the negative is farther, but not by the margin.
    Semihard,
    /// `gap > margin`: all that do not violate the margin.
    Easy,
}

/// All triplets whose gap `d_an - d_ap` (for similarities `s_ap - s_an`) violates a margin, or a part of them (Schroff et al.,
/// FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TripletMarginMiner {
    /// Margin, in the unit of `distance`; 0.2, pytorch-metric-learning's.
    pub margin: f64,
    /// `all`, `hard`, `semihard` or `easy`; `all`, pytorch-metric-learning's.
    pub type_of_triplets: TypeOfTriplets,
    /// Distance; `lp`, Euclidean of normalised rows.
    pub distance: DistanceConfig,
}

impl Default for TripletMarginMiner {
    fn default() -> Self {
        Self {
            margin: 0.2,
            type_of_triplets: TypeOfTriplets::All,
            distance: DistanceConfig::EUCLIDEAN,
        }
    }
}

impl Miner for TripletMarginMiner {
    const SUMMARY: &'static str = "all, hard, semihard or easy triplets of a margin";
    const PAPER: &'static str =
        "Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR";
    const YEAR: u16 = 2015;

    fn validate(&self) -> Result<(), String> {
        finite("triplet-margin", "margin", self.margin)?;
        self.distance.validate()
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let distances = Distances::of(&self.distance, input);
        let chosen = |gap: f64| match self.type_of_triplets {
            TypeOfTriplets::All => gap <= self.margin,
            TypeOfTriplets::Hard => gap <= self.margin && gap <= 0.0,
            TypeOfTriplets::Semihard => gap <= self.margin && gap > 0.0,
            TypeOfTriplets::Easy => gap > self.margin,
        };
        let of_anchor = |anchor: usize| {
            let row = distances.row(anchor);
            let partners = input.relations().partners(anchor);
            let mut found = Vec::new();
            for &positive in &partners.positives {
                let reach = row[positive as usize];
                let negatives = partners.negatives.iter().filter(|&&at| chosen(row[at as usize] - reach));
                found.extend(negatives.map(|&negative| [anchor as u32, positive, negative]));
            }
            found
        };
        let found: Vec<Vec<[u32; 3]>> = (0..input.queries()).into_par_iter().map(of_anchor).collect();
        Ok(Mined::Triplets(found.concat()))
    }
}
