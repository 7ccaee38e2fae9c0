//! Intra-pair variance: positive pairs as similar as their mean, negative pairs too.

use serde::{Deserialize, Serialize};

use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, Tensor, activation};

/// Settings of [`IntraPairVarianceLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct IntraPairVarianceConfig {
    /// By which share of the mean positives may be farther; 0.01.
    pub pos_eps: f64,
    /// By which share of the mean negatives may be nearer; 0.01.
    pub neg_eps: f64,
}

impl Default for IntraPairVarianceConfig {
    fn default() -> Self {
        Self {
            pos_eps: 0.01,
            neg_eps: 0.01,
        }
    }
}

impl MetricLossConfig for IntraPairVarianceConfig {
    type Loss = IntraPairVarianceLoss;
    const SUMMARY: &'static str = "positive pairs as similar as their mean, negative pairs as dissimilar as theirs";
    const PAPER: &'static str = "Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("pos-loss", Unit::Pair), ("neg-loss", Unit::Pair)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("intra-pair-variance", "pos-eps", self.pos_eps, default.pos_eps)?;
        check::finite("intra-pair-variance", "neg-eps", self.neg_eps, default.neg_eps)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> IntraPairVarianceLoss {
        IntraPairVarianceLoss { config: self.clone() }
    }
}

/// Intra-pair variance loss (Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV 2019), made to stand beside
/// another loss.
///
/// With cosines `s`, `mu_p` and `mu_n` the means over all positive and all negative pairs and `[x]+ = max(x, 0)`: the mean
/// of `[(1 - pos_eps) mu_p - s_p]+^2` over positive pairs plus the mean of `[s_n - (1 + neg_eps) mu_n]+^2` over negative
/// pairs. With a distance `d`: `[d_p - (1 + pos_eps) mu_p]+^2` and `[(1 - neg_eps) mu_n - d_n]+^2`.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct IntraPairVarianceLoss {
    #[module(skip)]
    config: IntraPairVarianceConfig,
}

impl MetricLoss for IntraPairVarianceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let IntraPairVarianceConfig { pos_eps, neg_eps } = self.config;
        let pairs = view.pairs();
        let distances = view.distances(); // [anchors, references]
        let is_similarity = view.distance().is_similarity();
        let term = |name, weights: Tensor<2>, total: f64, eps: f64, should_grow: bool| {
            let mean = (distances.clone() * weights.clone())
                .sum()
                .mul_scalar(total.recip())
                .reshape([1, 1]);
            let behind = if should_grow {
                mean.mul_scalar(1.0 - eps) - distances.clone()
            } else {
                distances.clone() - mean.mul_scalar(1.0 + eps)
            };
            Term::pairs(name, activation::relu(behind).square(), weights)
        };
        let mut terms = vec![];
        let (positives, negatives) = (pairs.positive_total(), pairs.negative_total());
        if positives > 0.0 {
            terms.push(term("pos-loss", pairs.positive, positives, pos_eps, is_similarity));
        }
        if negatives > 0.0 {
            terms.push(term("neg-loss", pairs.negative, negatives, neg_eps, !is_similarity));
        }
        terms
    }
}
