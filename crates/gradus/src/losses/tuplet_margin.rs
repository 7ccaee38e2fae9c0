//! Tuplet margin: each positive pair, with slack in its angle, against all negatives of its anchor.

use serde::{Deserialize, Serialize};

use super::rows::{weighted_log_sum_exp, without_empty};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::numerics::{safe_sqrt, softplus};
use crate::tensor::{Device, Module};

/// Settings of [`TupletMarginLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TupletMarginConfig {
    /// Slack of a positive's angle in degrees; 5.73.
    pub margin: f64,
    /// What cosines are multiplied by; 64.
    pub scale: f64,
}

impl Default for TupletMarginConfig {
    fn default() -> Self {
        Self {
            margin: 5.73,
            scale: 64.0,
        }
    }
}

impl MetricLossConfig for TupletMarginConfig {
    type Loss = TupletMarginLoss;
    const SUMMARY: &'static str = "each positive pair, with slack in its angle, against all negatives of its anchor";
    const PAPER: &'static str = "Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Pair)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("tuplet-margin", "margin", self.margin, default.margin)?;
        check::above_zero("tuplet-margin", "scale", self.scale, default.scale)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> TupletMarginLoss {
        TupletMarginLoss { config: self.clone() }
    }
}

/// Tuplet margin loss (Yu and Tao, Deep Metric Learning with Tuplet Margin Loss, ICCV 2019).
///
/// With `cos_n` the cosines of an anchor's negatives and `theta_p` the angle of a positive, for each positive pair:
/// `log(1 + sum_n exp(scale (cos_n - cos(theta_p - margin))))`; mean over positive pairs. Computed as
/// `softplus(log sum_n exp(scale cos_n) - scale cos(theta_p - margin))`, so that memory is `batch x references`, not pairs
/// times negatives. The cosine of the difference is expanded, so there is no arc cosine and no infinite slope at cosine 1,
/// where pytorch-metric-learning gives NaN.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct TupletMarginLoss {
    #[module(skip)]
    config: TupletMarginConfig,
}

impl MetricLoss for TupletMarginLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let TupletMarginConfig { margin, scale } = self.config;
        let pairs = view.pairs();
        if pairs.positive_total() == 0.0 || pairs.negative_total() == 0.0 {
            return vec![];
        }
        let margin = margin.to_radians();
        let cosines = view.distances(); // [anchors, references]
        let others = weighted_log_sum_exp(cosines.clone().mul_scalar(scale), &pairs.negative, 1);
        let (others, alone) = without_empty(others); // [anchors, 1]
        let sines = safe_sqrt(cosines.clone().neg().add_scalar(1.0) * cosines.clone().add_scalar(1.0));
        let relaxed = cosines.mul_scalar(margin.cos()) + sines.mul_scalar(margin.sin());
        let costs = softplus(others - relaxed.mul_scalar(scale));
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
        let angles = [0.0f64, 0.5, 0.6, 2.0, 2.1, 3.0];
        let labels = [0, 0, 1, 1, 1, 2];
        let (margin, scale) = (10.0f64, 3.0);
        let mut costs = vec![];
        for a in 0..6 {
            for p in (0..6).filter(|&p| p != a && labels[p] == labels[a]) {
                let relaxed = ((angles[a] - angles[p]).abs() - margin.to_radians()).cos();
                let negatives = (0..6).filter(|&n| labels[n] != labels[a]);
                let sum: f64 = negatives
                    .map(|n| (scale * ((angles[a] - angles[n]).cos() - relaxed)).exp())
                    .sum();
                costs.push((1.0 + sum).ln());
            }
        }
        let loss = LossConfig::from(TupletMarginConfig { margin, scale }).init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            costs.iter().sum::<f64>() / costs.len() as f64,
        );
    }
}
