//! Contrastive: positives closer than one margin, negatives farther than another.

use serde::{Deserialize, Serialize};

use super::pairs::{Pairs, distances, zero};
use super::{MetricLoss, MetricLossConfig, check};
use crate::batch::EmbeddingBatch;
use crate::numerics::masked_mean;
use crate::tensor::{Bool, Device, Module, Tensor, activation};

/// Settings of [`ContrastiveLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ContrastiveConfig {
    /// Distance that positives may keep; 0.
    pub positive_margin: f64,
    /// Distance that negatives must reach; 1 (unit vectors are at most 2 apart).
    pub negative_margin: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self {
            positive_margin: 0.0,
            negative_margin: 1.0,
        }
    }
}

impl MetricLossConfig for ContrastiveConfig {
    type Loss = ContrastiveLoss;
    const SUMMARY: &'static str = "positives within one margin, negatives beyond another";
    const PAPER: &'static str = "Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR";
    const YEAR: u16 = 2006;

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite(
            "contrastive",
            "positive-margin",
            self.positive_margin,
            default.positive_margin,
        )?;
        check::finite(
            "contrastive",
            "negative-margin",
            self.negative_margin,
            default.negative_margin,
        )
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> ContrastiveLoss {
        ContrastiveLoss { config: self.clone() }
    }
}

/// Contrastive loss (Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006), in the
/// form of pytorch-metric-learning: without squares, on normalised embeddings.
///
/// With Euclidean distances `d` and `[x]+ = max(x, 0)`: the mean of the non-zero `[d_p - positive_margin]+` over
/// positive pairs plus the mean of the non-zero `[negative_margin - d_n]+` over negative pairs.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length. Memory: `batch x batch`.
#[derive(Module, Debug)]
pub struct ContrastiveLoss {
    #[module(skip)]
    config: ContrastiveConfig,
}

/// Mean of the positive entries that the mask keeps.
fn mean_of_non_zero(x: Tensor<2>, keep: Tensor<2, Bool>) -> Tensor<1> {
    let active = x.clone().without_autodiff().greater_scalar(0.0).bool_and(keep);
    masked_mean(activation::relu(x), active)
}

impl MetricLoss for ContrastiveLoss {
    fn forward(&self, batch: &EmbeddingBatch) -> Tensor<1> {
        let zero = zero(&batch.embeddings);
        if batch.is_empty() {
            return zero;
        }
        let pairs = Pairs::of(batch);
        let distances = distances(batch.embeddings.clone()); // [batch, batch]
        let pull = distances.clone().sub_scalar(self.config.positive_margin);
        let push = distances.neg().add_scalar(self.config.negative_margin);
        zero + mean_of_non_zero(pull, pairs.positives) + mean_of_non_zero(push, pairs.negatives)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::testing::{chord, circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 0.6, 2.0, 2.1];
        let labels = [0, 0, 1, 1, 2];
        let (positive_margin, negative_margin) = (0.6, 0.9);
        let (mut pull, mut push) = (vec![], vec![]);
        for a in 0..5 {
            for b in (0..5).filter(|&b| b != a) {
                let d = chord(angles[a] - angles[b]);
                if labels[a] == labels[b] {
                    pull.push(d - positive_margin)
                } else {
                    push.push(negative_margin - d)
                }
            }
        }
        let mean = |values: Vec<f64>| {
            let active: Vec<f64> = values.into_iter().filter(|&value| value > 0.0).collect();
            assert!(!active.is_empty());
            active.iter().sum::<f64>() / active.len() as f64
        };
        let loss = ContrastiveConfig {
            positive_margin,
            negative_margin,
        }
        .init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward(&circle(&angles, &labels))),
            mean(pull) + mean(push),
        );
    }
}
