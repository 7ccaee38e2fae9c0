//! NT-Xent: each positive pair against all negatives of its anchor, as a classification.

use serde::{Deserialize, Serialize};

use super::rows::{weighted_log_sum_exp, without_empty};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::numerics::softplus;
use crate::tensor::{Device, Module};

/// Settings of [`NtXentLoss`]; the default is that of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NtXentConfig {
    /// What cosines are divided by; 0.07.
    pub temperature: f64,
}

impl Default for NtXentConfig {
    fn default() -> Self {
        Self { temperature: 0.07 }
    }
}

impl MetricLossConfig for NtXentConfig {
    type Loss = NtXentLoss;
    const SUMMARY: &'static str = "cross entropy of each positive pair against its anchor's negatives (InfoNCE)";
    const PAPER: &'static str = "Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NeurIPS";
    const YEAR: u16 = 2016;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Pair)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        check::above_zero("nt-xent", "temperature", self.temperature, Self::default().temperature)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> NtXentLoss {
        NtXentLoss { config: self.clone() }
    }
}

/// Normalised, temperature-scaled cross entropy (Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss
/// Objective, NeurIPS 2016; named so by Chen et al., A Simple Framework for Contrastive Learning of Visual
/// Representations, ICML 2020).
///
/// With `z = cosine / temperature`, for each positive pair: `-log(exp(z_p) / (exp(z_p) + sum_n exp(z_n)))` over the
/// negatives `n` of its anchor; mean over positive pairs. Computed as `softplus(log sum_n exp(z_n) - z_p)`, so that
/// memory is `batch x batch`, not pairs times negatives. A batch without a negative costs 0.
///
/// pytorch-metric-learning adds its smallest number inside of the logarithm, so that a pair costs at most 87 (708 in double
/// precision) and has no slope there; here it keeps both. That matters for distances that are not normalised.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length.
#[derive(Module, Debug)]
pub struct NtXentLoss {
    #[module(skip)]
    config: NtXentConfig,
}

impl MetricLoss for NtXentLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = view.pairs();
        if pairs.positive_total() == 0.0 || pairs.negative_total() == 0.0 {
            return vec![];
        }
        let logits = view
            .as_similarity(view.distances())
            .mul_scalar(self.config.temperature.recip()); // [anchors, references]
        // A negative that was mined twice stands twice in the denominator.
        let (others, alone) = without_empty(weighted_log_sum_exp(logits.clone(), &pairs.negative, 1));
        let costs = softplus(others - logits);
        let shape = costs.dims();
        // A pair whose anchor has no negative is certain: it costs nothing.
        vec![Term::pairs(
            "loss",
            costs.mask_fill(alone.expand(shape), 0.0),
            pairs.positive,
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 0.6, 2.0, 2.1, 4.0];
        let labels = [0, 0, 1, 1, 1, 2];
        let temperature = 0.3;
        let z = |a: usize, b: usize| (angles[a] - angles[b]).cos() / temperature;
        let mut costs = vec![];
        for a in 0..6 {
            for p in (0..6).filter(|&p| p != a && labels[p] == labels[a]) {
                let others: f64 = (0..6).filter(|&n| labels[n] != labels[a]).map(|n| z(a, n).exp()).sum();
                costs.push(-(z(a, p).exp() / (z(a, p).exp() + others)).ln());
            }
        }
        assert_eq!(costs.len(), 8);
        let loss = LossConfig::from(NtXentConfig { temperature }).init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            costs.iter().sum::<f64>() / 8.0,
        );
    }
}
