//! Generalised lifted structure: soft maxima over an anchor's positives and negatives.

use serde::{Deserialize, Serialize};

use super::rows::{once, weighted_log_sum_exp, without_empty};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::tensor::{Device, Module, activation};

/// Settings of [`GeneralizedLiftedStructureLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GeneralizedLiftedStructureConfig {
    /// Distance that negatives must reach (with a similarity: that they may keep); 1.
    pub neg_margin: f64,
    /// Distance that positives may keep (with a similarity: that they must reach); 0.
    pub pos_margin: f64,
}

impl Default for GeneralizedLiftedStructureConfig {
    fn default() -> Self {
        Self {
            neg_margin: 1.0,
            pos_margin: 0.0,
        }
    }
}

impl MetricLossConfig for GeneralizedLiftedStructureConfig {
    type Loss = GeneralizedLiftedStructureLoss;
    const SUMMARY: &'static str = "each anchor's positives against its negatives, both under a soft maximum";
    const PAPER: &'static str = "Hermans et al., In Defense of the Triplet Loss for Person Re-Identification, arXiv";
    const YEAR: u16 = 2017;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite(
            "generalized-lifted-structure",
            "neg-margin",
            self.neg_margin,
            default.neg_margin,
        )?;
        check::finite(
            "generalized-lifted-structure",
            "pos-margin",
            self.pos_margin,
            default.pos_margin,
        )
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> GeneralizedLiftedStructureLoss {
        GeneralizedLiftedStructureLoss { config: self.clone() }
    }
}

/// Generalised lifted structure loss (Hermans et al., In Defense of the Triplet Loss for Person Re-Identification,
/// arXiv 2017).
///
/// With Euclidean distances `d` between normalised embeddings and `[x]+ = max(x, 0)`, for each anchor:
/// `[log sum_p exp(d_p - pos_margin) + log sum_n exp(neg_margin - d_n)]+`, where a logarithm of nothing is 0; mean over
/// anchors. With a similarity the differences turn around. A pair that was mined twice counts once.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct GeneralizedLiftedStructureLoss {
    #[module(skip)]
    config: GeneralizedLiftedStructureConfig,
}

impl MetricLoss for GeneralizedLiftedStructureLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let GeneralizedLiftedStructureConfig { neg_margin, pos_margin } = self.config;
        let pairs = view.pairs();
        let distances = view.distances(); // [anchors, references]
        let pull = weighted_log_sum_exp(view.beyond(distances.clone(), pos_margin), &once(&pairs.positive), 1);
        let push = weighted_log_sum_exp(view.inside(distances, neg_margin), &once(&pairs.negative), 1);
        let (pull, push) = (without_empty(pull).0, without_empty(push).0);
        vec![Term::elements("loss", activation::relu(pull + push))]
    }
}
