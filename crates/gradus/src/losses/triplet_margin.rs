//! Triplet margin: every positive closer to its anchor than every negative, by a margin.

use serde::{Deserialize, Serialize};

use super::{
    Accepts, Entries, MetricLoss, MetricLossConfig, ReducerConfig, Term, Triplets, TripletsPerAnchor, Unit, View, check,
};
use crate::numerics::softplus;
use crate::tensor::{Device, Module, activation};

/// Settings of [`TripletMarginLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TripletMarginConfig {
    /// How much farther the negative must be; 0.05.
    pub margin: f64,
    /// Whether to take the negative's distance to anchor or positive, whichever is smaller; false.
    pub swap: bool,
    /// Whether to use `log(1 + exp(x))` for `max(x, 0)`; false.
    pub smooth_loss: bool,
    /// How many triplets of each anchor count where none were mined: "all" or a number; all.
    pub triplets_per_anchor: TripletsPerAnchor,
}

impl Default for TripletMarginConfig {
    fn default() -> Self {
        Self {
            margin: 0.05,
            swap: false,
            smooth_loss: false,
            triplets_per_anchor: TripletsPerAnchor::All,
        }
    }
}

impl MetricLossConfig for TripletMarginConfig {
    type Loss = TripletMarginLoss;
    const SUMMARY: &'static str = "positives closer than negatives by a margin, over all triplets";
    const PAPER: &'static str =
        "Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR";
    const YEAR: u16 = 2015;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Triplet)];

    fn examples() -> Vec<Self> {
        let with = |swap, smooth_loss| Self {
            margin: 0.4,
            swap,
            smooth_loss,
            ..Self::default()
        };
        vec![Self::default(), with(true, false), with(false, true), with(true, true)]
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::AVG_NON_ZERO
    }

    fn validate(&self) -> Result<(), String> {
        check::finite("triplet-margin", "margin", self.margin, Self::default().margin)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> TripletMarginLoss {
        TripletMarginLoss { config: self.clone() }
    }
}

/// Triplet margin loss (Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015)
/// over all triplets of the batch.
///
/// With Euclidean distances `d` between normalised embeddings, over all (anchor, positive, negative):
/// `max(d_ap - d_an + margin, 0)`, or `log(1 + exp(d_ap - d_an + margin))` if smooth; mean over the non-zero ones.
/// `swap` (Balntas et al., BMVC 2016) replaces `d_an` by `min(d_an, d_pn)`.
///
/// Triplets are enumerated block by block; the tape holds `batch x batch` matrices only. With a separate reference set
/// `d_pn` is measured inside it, where pytorch-metric-learning reads an unrelated entry.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length.
#[derive(Module, Debug)]
pub struct TripletMarginLoss {
    #[module(skip)]
    config: TripletMarginConfig,
}

impl MetricLoss for TripletMarginLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let TripletMarginConfig {
            margin,
            swap,
            smooth_loss,
            triplets_per_anchor,
        } = self.config;
        let choice = view.triplets(triplets_per_anchor.number());
        if choice.is_empty() {
            return vec![];
        }
        let distances = view.distances(); // [anchors, references]
        let opposite = swap.then(|| match view.is_within() {
            true => distances.clone(),
            false => view.distances_between_references(),
        });
        let is_similarity = view.distance().is_similarity();
        let cost = move |entries: Entries| {
            let Entries {
                positive,
                negative,
                opposite,
            } = entries;
            let nearest = match opposite {
                None => negative,
                Some(opposite) => {
                    let negative = negative.expand(opposite.dims());
                    if is_similarity {
                        negative.max_pair(opposite)
                    } else {
                        negative.min_pair(opposite)
                    }
                }
            };
            let violation = if is_similarity {
                nearest - positive
            } else {
                positive - nearest
            };
            let violation = violation.add_scalar(margin);
            if smooth_loss {
                softplus(violation)
            } else {
                activation::relu(violation)
            }
        };
        let triplets = Triplets {
            choice,
            positive: distances.clone(),
            negative: distances,
            opposite,
            cost: Some(Box::new(cost)),
        };
        vec![Term::triplets("loss", triplets)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{chord, circle, near, scalar};

    const ANGLES: [f64; 7] = [0.0, 0.5, 0.6, 2.0, 2.1, 0.9, 5.0];
    const LABELS: [u32; 7] = [0, 0, 1, 1, 2, 0, 2];

    fn naive(config: &TripletMarginConfig) -> f64 {
        let d = |a: usize, b: usize| chord(ANGLES[a] - ANGLES[b]);
        let (mut sum, mut count) = (0.0, 0.0);
        for (a, label) in LABELS.iter().enumerate() {
            for p in (0..7).filter(|&p| p != a && LABELS[p] == *label) {
                for n in (0..7).filter(|&n| LABELS[n] != *label) {
                    let negative = if config.swap { d(a, n).min(d(p, n)) } else { d(a, n) };
                    let violation = d(a, p) - negative + config.margin;
                    let cost = if config.smooth_loss {
                        (1.0 + violation.exp()).ln()
                    } else {
                        violation.max(0.0)
                    };
                    sum += cost;
                    count += if cost > 0.0 { 1.0 } else { 0.0 };
                }
            }
        }
        assert!(count > 3.0);
        sum / count
    }

    #[test]
    fn agrees_with_naive_loops() {
        for (swap, smooth_loss) in [(false, false), (true, false), (false, true), (true, true)] {
            let config = TripletMarginConfig {
                margin: 0.3,
                swap,
                smooth_loss,
                ..TripletMarginConfig::default()
            };
            let loss = LossConfig::from(config.clone()).init(2, 3, 0, &Device::flex());
            near(scalar(&loss.forward_batch(&circle(&ANGLES, &LABELS))), naive(&config));
        }
    }
}
