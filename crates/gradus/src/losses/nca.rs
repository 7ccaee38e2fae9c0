//! Neighbourhood components analysis: the probability of choosing a neighbour of the own class.

use serde::{Deserialize, Serialize};

use super::rows::{all_pairs, once, weighted_log_sum_exp, without_empty};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module};

/// Settings of [`NcaLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NcaConfig {
    /// What squared distances are multiplied by; 1.
    pub softmax_scale: f64,
}

impl Default for NcaConfig {
    fn default() -> Self {
        Self { softmax_scale: 1.0 }
    }
}

impl MetricLossConfig for NcaConfig {
    type Loss = NcaLoss;
    const SUMMARY: &'static str = "the probability that a neighbour drawn by distance is of the own class";
    const PAPER: &'static str = "Goldberger et al., Neighbourhood Components Analysis, NeurIPS";
    const YEAR: u16 = 2004;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::SQUARED_EUCLIDEAN
    }

    fn validate(&self) -> Result<(), String> {
        check::above_zero(
            "nca",
            "softmax-scale",
            self.softmax_scale,
            Self::default().softmax_scale,
        )
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> NcaLoss {
        NcaLoss { config: self.clone() }
    }
}

/// Neighbourhood components analysis (Goldberger et al., Neighbourhood Components Analysis, NeurIPS 2004), with the
/// logarithm of the probability.
///
/// With squared Euclidean distances `d` between normalised embeddings, for each anchor with a positive:
/// `log sum_j exp(-softmax_scale d_j) - log sum_p exp(-softmax_scale d_p)` over all others `j` and its positives `p`; mean
/// over these anchors. What was mined weighs anchors by how often they occur, as in pytorch-metric-learning. Positives by
/// degrees count by their degree in the second sum.
///
/// Both sums are logarithms from the start: an anchor whose probability is too small for the number type keeps its cost and
/// slope, where pytorch-metric-learning leaves it out.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct NcaLoss {
    #[module(skip)]
    config: NcaConfig,
}

impl MetricLoss for NcaLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = all_pairs(view);
        if pairs.positive_total() == 0.0 {
            return vec![];
        }
        let logits = view
            .as_similarity(view.distances())
            .mul_scalar(self.config.softmax_scale); // [anchors, references]
        let others = once(&(pairs.positive.clone() + pairs.negative));
        let others = without_empty(weighted_log_sum_exp(logits.clone(), &others, 1)).0; // [anchors, 1]
        let (own, none) = without_empty(weighted_log_sum_exp(logits, &pairs.positive, 1));
        let weights = view
            .column(vec![1.0; pairs.positive_counts.len()])
            .mask_fill(none.clone(), 0.0);
        let costs = (others - own).mask_fill(none, 0.0) * view.anchor_weights();
        vec![Term::weighted_elements("loss", costs, weights)]
    }
}
