//! Ranked list: positives inside a ball around the anchor, negatives outside a larger one, the worst first.

use serde::{Deserialize, Serialize};

use super::compat::Compat;
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::tensor::{Device, Module, Tensor};

/// Settings of [`RankedListLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RankedListConfig {
    /// Width of the gap between positives and negatives; 0.4.
    pub margin: f64,
    /// How much nearer negatives weigh more; 10.
    pub tn: f64,
    /// Weight of the negatives, from 0 to 1, beside that of the positives; 0.5.
    pub imbalance: f64,
    /// Distance that negatives must reach; 1 + margin / 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// How much farther positives weigh more; 0: all alike.
    pub tp: f64,
    /// Whose formula, where they differ: "pml" or "paper"; pml.
    pub compat: Compat,
}

impl Default for RankedListConfig {
    fn default() -> Self {
        Self {
            margin: 0.4,
            tn: 10.0,
            imbalance: 0.5,
            alpha: None,
            tp: 0.0,
            compat: Compat::Pml,
        }
    }
}

impl MetricLossConfig for RankedListConfig {
    type Loss = RankedListLoss;
    const SUMMARY: &'static str =
        "positives inside a ball around the anchor, negatives outside a larger one, the worst first";
    const PAPER: &'static str = "Wang et al., Ranked List Loss for Deep Metric Learning, CVPR";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn examples() -> Vec<Self> {
        let weighted = Self {
            tn: 2.0,
            tp: 1.0,
            alpha: Some(1.1),
            imbalance: 0.3,
            compat: Compat::Paper,
            ..Self::default()
        };
        vec![Self::default(), weighted]
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("ranked-list", "margin", self.margin, default.margin)?;
        check::finite("ranked-list", "tn", self.tn, default.tn)?;
        check::finite("ranked-list", "tp", self.tp, default.tp)?;
        check::finite("ranked-list", "alpha", self.alpha.unwrap_or(1.2), 1.2)?;
        check::within(
            "ranked-list",
            "imbalance",
            self.imbalance,
            default.imbalance,
            [0.0, 1.0 + f64::EPSILON],
        )
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> RankedListLoss {
        RankedListLoss { config: self.clone() }
    }
}

/// Ranked list loss (Wang et al., Ranked List Loss for Deep Metric Learning, CVPR 2019).
///
/// With Euclidean distances `d` between normalised embeddings, for each anchor: positives with `d > alpha - margin` cost
/// `d - (alpha - margin)`, averaged with weights `exp(tp (d - (alpha - margin)))`; negatives with `d < alpha` cost
/// `alpha - d`, averaged with weights `exp(tn (alpha - d))`; the loss is `(1 - imbalance)` times the first plus `imbalance`
/// times the second, mean over all anchors. Slopes go through the weights too. A similarity counts as 1 minus itself.
///
/// As in pytorch-metric-learning 0.00001 per item of the batch is added to the sum of weights (some 0.0001 of the loss) and
/// negatives at distance 0 are forgotten; `compat = "paper"` does neither. There are no defaults for `margin` and `tn` in
/// pytorch-metric-learning; those here are the paper's. It knows neither references nor mined pairs, which work here. Weights
/// are a softmax, so that no temperature overflows.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct RankedListLoss {
    #[module(skip)]
    config: RankedListConfig,
}

impl MetricLoss for RankedListLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let RankedListConfig {
            margin,
            tn,
            imbalance,
            alpha,
            tp,
            compat,
        } = self.config;
        let alpha = alpha.unwrap_or(1.0 + margin / 2.0);
        let pairs = view.pairs();
        let distances = if view.distance().is_similarity() {
            view.distances().neg().add_scalar(1.0)
        } else {
            view.distances()
        }; // [anchors, references]
        let constant = distances.clone().without_autodiff();
        let [_, columns] = constant.dims();
        let mean = |costs: Tensor<2>, temperature: f64, weights: Tensor<2>| {
            let weights = weights.mask_fill(costs.clone().without_autodiff().lower_equal_scalar(0.0), 0.0);
            let none = weights.clone().equal_scalar(0.0);
            let logits = costs.clone().mul_scalar(temperature);
            // Costs that count are above 0, so 0 stands in for the others.
            let most = logits.clone().without_autodiff().mask_fill(none.clone(), 0.0).max_dim(1); // [anchors, 1]
            let shares = (logits - most.clone()).mask_fill(none, f64::NEG_INFINITY).exp() * weights;
            let total = shares.clone().sum_dim(1);
            let total = match compat {
                Compat::Pml => total + most.neg().exp().mul_scalar(1e-5 * columns as f64),
                Compat::Paper => {
                    let empty = total.clone().without_autodiff().equal_scalar(0.0);
                    total.mask_fill(empty, 1.0)
                }
            };
            (shares * costs).sum_dim(1) * total.recip()
        };
        let negatives = match compat {
            Compat::Paper => pairs.negative,
            Compat::Pml => pairs.negative.mask_fill(constant.equal_scalar(0.0), 0.0),
        };
        let pull = mean(distances.clone().sub_scalar(alpha - margin), tp, pairs.positive);
        let push = mean(distances.neg().add_scalar(alpha), tn, negatives);
        vec![Term::elements(
            "loss",
            pull.mul_scalar(1.0 - imbalance) + push.mul_scalar(imbalance),
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{chord, circle, near, scalar};

    #[test]
    fn the_papers_form_agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.9, 0.5, 2.0, 1.6, 1.1], [0u32, 0, 1, 1, 2, 0]);
        let (margin, tn, tp, imbalance) = (0.7, 3.0, 1.5, 0.3);
        let alpha = 1.0 + margin / 2.0;
        let mean = |costs: &[f64], temperature: f64| {
            let total: f64 = costs.iter().map(|cost| (temperature * cost).exp()).sum();
            let sum: f64 = costs.iter().map(|cost| cost * (temperature * cost).exp()).sum();
            if costs.is_empty() { 0.0 } else { sum / total }
        };
        let (mut expected, mut pulled, mut pushed) = (0.0, 0, 0);
        for a in 0..6 {
            let cost = |other: usize, same: bool| {
                let d = chord(angles[a] - angles[other]);
                if same { d - (alpha - margin) } else { alpha - d }
            };
            let costs = |same: bool| -> Vec<f64> {
                let others = (0..6).filter(|&other| other != a && (labels[other] == labels[a]) == same);
                others.map(|other| cost(other, same)).filter(|&cost| cost > 0.0).collect()
            };
            let (pull, push) = (costs(true), costs(false));
            (pulled, pushed) = (pulled + pull.len(), pushed + push.len());
            expected += ((1.0 - imbalance) * mean(&pull, tp) + imbalance * mean(&push, tn)) / 6.0;
        }
        assert!(pulled > 2 && pushed > 4, "{pulled} {pushed}");
        let config = LossConfig::from(RankedListConfig {
            margin,
            tn,
            tp,
            imbalance,
            compat: Compat::Paper,
            ..Default::default()
        });
        let loss = config.init(2, 3, 0, &Device::flex());
        near(scalar(&loss.forward_batch(&circle(&angles, &labels))), expected);
    }
}
