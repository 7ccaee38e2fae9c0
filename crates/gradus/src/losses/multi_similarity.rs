//! Multi-similarity: soft maxima over each anchor's positives and negatives.

use serde::{Deserialize, Serialize};

use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::numerics::log_one_plus_sum_exp;
use crate::tensor::{Device, Module};

/// Settings of [`MultiSimilarityLoss`]; defaults are the paper's with the `base` of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MultiSimilarityConfig {
    /// Sharpness on positive pairs; 2.
    pub alpha: f64,
    /// Sharpness on negative pairs; 50.
    pub beta: f64,
    /// Cosine at which a pair starts to weigh; 0.5.
    pub base: f64,
}

impl Default for MultiSimilarityConfig {
    fn default() -> Self {
        Self {
            alpha: 2.0,
            beta: 50.0,
            base: 0.5,
        }
    }
}

impl MetricLossConfig for MultiSimilarityConfig {
    type Loss = MultiSimilarityLoss;
    const SUMMARY: &'static str = "each anchor's positives and negatives under two soft maxima";
    const PAPER: &'static str =
        "Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning, CVPR";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::above_zero("multi-similarity", "alpha", self.alpha, default.alpha)?;
        check::above_zero("multi-similarity", "beta", self.beta, default.beta)?;
        check::finite("multi-similarity", "base", self.base, default.base)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> MultiSimilarityLoss {
        MultiSimilarityLoss { config: self.clone() }
    }
}

/// Multi-similarity loss (Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning,
/// CVPR 2019), without its pair mining.
///
/// With cosines `s`, positives `p` and negatives `n` of an anchor:
/// `1/alpha log(1 + sum_p exp(-alpha (s_p - base))) + 1/beta log(1 + sum_n exp(beta (s_n - base)))`, mean over anchors.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length. Memory: `batch x batch`.
#[derive(Module, Debug)]
pub struct MultiSimilarityLoss {
    #[module(skip)]
    config: MultiSimilarityConfig,
}

impl MetricLoss for MultiSimilarityLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let MultiSimilarityConfig { alpha, beta, base } = self.config;
        let pairs = view.pairs();
        let farther = view.beyond(view.distances(), base); // [anchors, references]
        let pull = log_one_plus_sum_exp(farther.clone().mul_scalar(alpha), Some(pairs.positive_mask()));
        let push = log_one_plus_sum_exp(farther.mul_scalar(-beta), Some(pairs.negative_mask()));
        let values = pull.mul_scalar(alpha.recip()) + push.mul_scalar(beta.recip());
        vec![Term::elements("loss", values)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 1.2, 2.0, 2.1];
        let labels = [0, 0, 1, 1, 2];
        let (alpha, beta, base) = (3.0, 7.0, 0.4);
        let mut expected = 0.0;
        for a in 0..5 {
            let (mut positive, mut negative) = (1.0, 1.0);
            for b in (0..5).filter(|&b| b != a) {
                let s: f64 = (angles[a] - angles[b]).cos();
                if labels[a] == labels[b] {
                    positive += (-alpha * (s - base)).exp();
                } else {
                    negative += (beta * (s - base)).exp();
                }
            }
            expected += (positive.ln() / alpha + negative.ln() / beta) / 5.0;
        }
        let config = LossConfig::from(MultiSimilarityConfig { alpha, beta, base });
        let loss = config.init(2, 3, 0, &Device::flex());
        near(scalar(&loss.forward_batch(&circle(&angles, &labels))), expected);
    }
}
