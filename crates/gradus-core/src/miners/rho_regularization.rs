//! Some negatives of another miner are swapped for members of the anchor's class.

use serde::{Deserialize, Serialize};

use super::{DistanceWeightedMiner, Mined, Miner, MinerConfig, MiningError, MiningInput, refuse};
use crate::random::{Rng, purpose, stream};

/// What another miner chose, in which each negative is swapped with probability `probability` for a member of the
/// anchor's class, drawn evenly from the positives of the anchor (Roth et al., Revisiting Training Strategies and
/// Generalization Performance in Deep Metric Learning, ICML 2020: rho-regularisation of ranking tuples). Anchors are
/// then pushed away from some of their own, which keeps classes from collapsing to points.
///
/// Of pairs, negative pairs are swapped. A negative of an anchor without positives stays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RhoRegularizationMiner {
    /// Probability of a swap, from 0 to 1; 0.2, within the authors' range.
    pub probability: f64,
    /// The miner whose choice it is; `distance-weighted`, the authors'.
    pub miner: Box<MinerConfig>,
}

impl Default for RhoRegularizationMiner {
    fn default() -> Self {
        Self {
            probability: 0.2,
            miner: Box::new(MinerConfig::DistanceWeighted(DistanceWeightedMiner::default())),
        }
    }
}

impl Miner for RhoRegularizationMiner {
    const SUMMARY: &'static str = "another miner's choice with some negatives swapped for members of the class";
    const PAPER: &'static str =
        "Roth et al., Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML";
    const YEAR: u16 = 2020;
    const RANDOM: bool = true;

    fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return refuse("rho-regularization", "probability", self.probability, "between 0 and 1");
        }
        let inner = self.miner.name();
        if matches!(
            *self.miner,
            MinerConfig::RhoRegularization(_) | MinerConfig::EmbeddingsAlreadyPackagedAsTriplets(_)
        ) {
            return refuse("rho-regularization", "miner", inner, "one that chooses by embeddings");
        }
        let inside = self.miner.validate();
        inside.map_err(|problem| problem.replace("miner.", "miner.rho-regularization.miner."))
    }

    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
        let mut mined = self.miner.mine(input)?;
        let partners: Vec<Vec<u32>> = (0..input.queries())
            .map(|anchor| input.relations().partners(anchor).positives)
            .collect();
        let mut random = stream(input.seed(), &[purpose::MINER, SWAPS]);
        let mut swap = |anchor: u32, negative: &mut u32| {
            let own = &partners[anchor as usize];
            if random.random::<f64>() < self.probability && !own.is_empty() {
                *negative = own[random.random_range(0..own.len())];
            }
        };
        match &mut mined {
            Mined::Triplets(triplets) => triplets.iter_mut().for_each(|[anchor, _, negative]| swap(*anchor, negative)),
            Mined::Pairs(pairs) => pairs.negative.iter_mut().for_each(|[anchor, other]| swap(*anchor, other)),
        }
        Ok(mined)
    }
}

/// Stream of the swaps, apart from those of the miner whose choice it is.
const SWAPS: u64 = 0x5a;

#[cfg(test)]
mod tests {
    use super::super::testing::random_rows;
    use super::*;
    use crate::relations::Labels;

    fn miner(probability: f64, inner: &str) -> RhoRegularizationMiner {
        RhoRegularizationMiner {
            probability,
            miner: Box::new(MinerConfig::by_name(inner).unwrap()),
        }
    }

    #[test]
    fn a_share_of_the_negatives_is_of_the_anchors_class_and_all_else_stays() {
        let classes: Vec<u32> = (0..60).map(|row| row % 6).collect();
        let labels = Labels::from(classes.clone());
        let input = MiningInput::batch(random_rows(60, 4, 1), &labels, 4, 7).unwrap();
        let own = |a: u32, b: u32| classes[a as usize] == classes[b as usize];
        for inner in ["triplet-margin", "pair-margin"] {
            let plain = MinerConfig::by_name(inner).unwrap().mine(&input).unwrap();
            let sides = |mined: &Mined| -> (Vec<[u32; 2]>, Vec<[u32; 2]>) {
                let pairs = mined.clone().into_pairs();
                (pairs.positive, pairs.negative)
            };
            for probability in [0.0, 0.2, 1.0] {
                let mined = miner(probability, inner).mine(&input).unwrap();
                let ((positive, negative), (as_before, before)) = (sides(&mined), sides(&plain));
                assert_eq!(positive, as_before);
                assert!(negative.len() == before.len() && negative.len() > 200);
                let mut swapped = 0;
                for (now, before) in negative.iter().zip(&before) {
                    assert_eq!(now[0], before[0]);
                    assert!(now == before || (own(now[0], now[1]) && now[0] != now[1]));
                    swapped += usize::from(now != before);
                }
                let share = swapped as f64 / negative.len() as f64;
                assert!((share - probability).abs() < 0.08, "{share} of {probability}");
                assert_eq!(miner(probability, inner).mine(&input).unwrap(), mined);
            }
        }
    }

    #[test]
    fn settings_are_refused_by_name() {
        for (wrong, part) in [
            (miner(1.5, "batch-hard"), "rho-regularization.probability"),
            (miner(0.2, "rho-regularization"), "rho-regularization.miner"),
            (miner(0.2, "embeddings-already-packaged-as-triplets"), "rho-regularization.miner"),
        ] {
            let message = wrong.validate().unwrap_err();
            assert!(message.contains(part), "{message}");
        }
    }
}
