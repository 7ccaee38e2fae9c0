//! Lifted structure: each positive pair against the negatives of both its items.

use serde::{Deserialize, Serialize};

use super::compat::Compat;
use super::rows::{log_add_exp, weighted_log_sum_exp};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::tensor::{Bool, Device, Module, Tensor, TensorData, activation};

/// Settings of [`LiftedStructureLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LiftedStructureConfig {
    /// Distance that negatives must reach (with a similarity: that they may keep); 1.
    pub neg_margin: f64,
    /// Distance that positives may keep (with a similarity: that they must reach); 0.
    pub pos_margin: f64,
    /// Whose negatives of a positive count where there is a separate reference set: "paper" or "pml"; paper.
    pub compat: Compat,
}

impl Default for LiftedStructureConfig {
    fn default() -> Self {
        Self {
            neg_margin: 1.0,
            pos_margin: 0.0,
            compat: Compat::Paper,
        }
    }
}

impl MetricLossConfig for LiftedStructureConfig {
    type Loss = LiftedStructureLoss;
    const SUMMARY: &'static str = "each positive pair against a soft maximum over the negatives of both its items";
    const PAPER: &'static str = "Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR";
    const YEAR: u16 = 2016;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Pair)];

    fn examples() -> Vec<Self> {
        let theirs = Self {
            compat: Compat::Pml,
            ..Self::default()
        };
        vec![Self::default(), theirs]
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("lifted-structure", "neg-margin", self.neg_margin, default.neg_margin)?;
        check::finite("lifted-structure", "pos-margin", self.pos_margin, default.pos_margin)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> LiftedStructureLoss {
        LiftedStructureLoss { config: self.clone() }
    }
}

/// Lifted structure loss (Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016).
///
/// With Euclidean distances `d` between normalised embeddings and `[x]+ = max(x, 0)`, for each positive pair (a, p):
/// `[log sum_n exp(neg_margin - d_n) + d_ap - pos_margin]+^2 / 2`, where the sum goes over the negatives of `a` and those of
/// `p`; mean over positive pairs. Without negatives the logarithm is 0. With a similarity the differences turn around.
///
/// The sum over the negatives of a pair is the sum of two rows' sums, so memory is `batch x references`, not pairs times
/// negatives. With a separate reference set the negatives of a positive are the anchors of other classes;
/// pytorch-metric-learning takes those of the anchor that happens to have the position of the positive, or none where there
/// are fewer anchors, and `compat = "pml"` does so too. Within one batch both are the same.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct LiftedStructureLoss {
    #[module(skip)]
    config: LiftedStructureConfig,
}

impl MetricLoss for LiftedStructureLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let LiftedStructureConfig {
            neg_margin,
            pos_margin,
            compat,
        } = self.config;
        let pairs = view.pairs();
        if pairs.positive_total() == 0.0 || pairs.negative_total() == 0.0 {
            return vec![];
        }
        let distances = view.distances(); // [anchors, references]
        let shape = distances.dims();
        let push = view.inside(distances.clone(), neg_margin);
        let of_anchors = weighted_log_sum_exp(push.clone(), &pairs.negative, 1); // [anchors, 1]
        let of_positives = if view.is_within() {
            of_anchors.clone().transpose()
        } else if compat == Compat::Pml {
            of_same_position(&of_anchors, shape)
        } else {
            weighted_log_sum_exp(push, &pairs.negative, 0)
        }; // [1, references], or [anchors, references] where it depends on the anchor
        let push = log_add_exp(of_anchors, of_positives, shape);
        let costs = activation::relu(push + view.beyond(distances, pos_margin))
            .square()
            .mul_scalar(0.5);
        vec![Term::pairs("loss", costs, pairs.positive)]
    }
}

/// For each pair the sum of the anchor at the position of the reference, `[anchors, references]`: nothing (minus infinity)
/// where there is no such anchor, or where it is the anchor of the pair, whose sum counts already.
fn of_same_position(of_anchors: &Tensor<2>, [anchors, references]: [usize; 2]) -> Tensor<2> {
    let shared = anchors.min(references);
    let mut sums = of_anchors.clone().narrow(0, 0, shared).transpose(); // [1, shared]
    if references > shared {
        let constant = of_anchors.clone().without_autodiff().narrow(0, 0, 1);
        let nothing = constant.full_like(f64::NEG_INFINITY).expand([1, references - shared]);
        sums = Tensor::cat(vec![sums, nothing], 1);
    }
    let own: Vec<bool> = (0..anchors * references).map(|cell| cell / references == cell % references).collect();
    let own = TensorData::new(own, [anchors, references]);
    let own = Tensor::<2, Bool>::from_data(own, &of_anchors.device().inner());
    sums.expand([anchors, references]).mask_fill(own, f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{chord, circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 0.6, 2.0, 2.1, 4.0];
        let labels = [0, 0, 1, 1, 1, 2];
        let (neg_margin, pos_margin) = (0.9, 0.1);
        let d = |a: usize, b: usize| chord(angles[a] - angles[b]);
        let mut costs = vec![];
        for a in 0..6 {
            for p in (0..6).filter(|&p| p != a && labels[p] == labels[a]) {
                let mut sum = 0.0;
                for end in [a, p] {
                    for n in (0..6).filter(|&n| labels[n] != labels[a]) {
                        sum += (neg_margin - d(end, n)).exp();
                    }
                }
                costs.push((sum.ln() + d(a, p) - pos_margin).max(0.0).powi(2) / 2.0);
            }
        }
        let loss = LossConfig::from(LiftedStructureConfig {
            neg_margin,
            pos_margin,
            compat: Compat::Paper,
        })
        .init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            costs.iter().sum::<f64>() / costs.len() as f64,
        );
    }
}
