//! Instance loss in the form of pytorch-metric-learning: the batch as its own classifier.

use serde::{Deserialize, Serialize};

use super::softmax::cross_entropy;
use super::{Accepts, MetricLoss, MetricLossConfig, Support, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Bool, Device, Module, Tensor, TensorData};

/// Settings of [`InstanceLoss`]; the default is that of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct InstanceConfig {
    /// What cosines are multiplied by before the softmax; 64.
    pub gamma: f64,
}

impl Default for InstanceConfig {
    fn default() -> Self {
        Self { gamma: 64.0 }
    }
}

impl MetricLossConfig for InstanceConfig {
    type Loss = InstanceLoss;
    const SUMMARY: &'static str = "softmax over cosines within the batch, the label's rank as the wanted column (for parity)";
    const PAPER: &'static str = "Zheng et al., Dual-Path Convolutional Image-Text Embeddings with Instance Loss, TOMM";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts {
        mined: Support::Refused,
        ..Accepts::PROXIES
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];
    const ORDER_MATTERS: bool = true;

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        check::above_zero("instance", "gamma", self.gamma, Self::default().gamma)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> InstanceLoss {
        InstanceLoss { config: self.clone() }
    }
}

/// Instance loss in the form of pytorch-metric-learning (after Zheng et al., Dual-Path Convolutional Image-Text Embeddings
/// with Instance Loss, TOMM 2020).
///
/// Cross entropy over `gamma cosine(x_i, x_j)` for all rows `j` of the batch, row `i` included, where the wanted column is
/// the rank of the label of `i` among the labels of the batch; mean over the batch. The columns are rows of the batch, not
/// classes, so the value depends on the order of the rows: it is here for parity and means what it says only if row `r`
/// shows the class of rank `r`. The paper classifies by learned weights: [normalized-softmax](super::NormalizedSoftmaxLoss)
/// with every image a class of its own.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length. Memory: `batch x batch`.
#[derive(Module, Debug)]
pub struct InstanceLoss {
    #[module(skip)]
    config: InstanceConfig,
}

impl MetricLoss for InstanceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let logits = view.distances().mul_scalar(self.config.gamma); // [batch, batch]
        let costs = cross_entropy(logits, &rank_mask(view));
        vec![Term::elements("loss", costs)]
    }
}

/// True where the column is the rank of the row's label among the labels there are, `[batch, batch]`.
fn rank_mask(view: &View<'_>) -> Tensor<2, Bool> {
    let labels = view.classes();
    let mut present = labels.to_vec();
    present.sort_unstable();
    present.dedup();
    let rows = labels.len();
    let mut values = vec![false; rows * rows];
    for (row, label) in labels.iter().enumerate() {
        let rank = present.partition_point(|other| other < label);
        values[row * rows + rank] = true;
    }
    Tensor::from_data(TensorData::new(values, [rows, rows]), &view.anchors().device().inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0], [7_u32, 2, 5, 2, 7]);
        let ranks = [2, 0, 1, 0, 2];
        let gamma = 3.0;
        let mut expected = 0.0;
        for (angle, rank) in angles.iter().zip(ranks) {
            let z = |j: usize| (gamma * (angle - angles[j]).cos()).exp();
            expected -= (z(rank) / (0..5).map(z).sum::<f64>()).ln() / 5.0;
        }
        let loss = LossConfig::from(InstanceConfig { gamma }).init(2, 8, 0, &Device::flex());
        near(scalar(&loss.forward_batch(&circle(&angles, &labels))), expected);
    }
}
