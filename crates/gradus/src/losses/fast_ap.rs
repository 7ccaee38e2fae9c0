//! FastAP: average precision from soft histograms of distances.

use serde::{Deserialize, Serialize};

use super::rows::{all_pairs, by_rows, ratio};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, IndexingUpdateOp, Module, Tensor};

/// Settings of [`FastApLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FastApConfig {
    /// Number of bins of the histograms; 10.
    pub num_bins: usize,
}

impl Default for FastApConfig {
    fn default() -> Self {
        Self { num_bins: 10 }
    }
}

impl MetricLossConfig for FastApConfig {
    type Loss = FastApLoss;
    const SUMMARY: &'static str = "one minus the average precision, from soft histograms of distances";
    const PAPER: &'static str = "Cakir et al., Deep Metric Learning to Rank, CVPR";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::SQUARED_EUCLIDEAN
    }

    fn validate(&self) -> Result<(), String> {
        check::above_zero("fast-ap", "num-bins", self.num_bins as f64, 10.0)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> FastApLoss {
        FastApLoss { config: self.clone() }
    }
}

/// FastAP (Cakir et al., Deep Metric Learning to Rank, CVPR 2019).
///
/// Squared Euclidean distances between normalised embeddings, 0 to 4, fall into two neighbouring of `num_bins + 1` points
/// by linear weights. With `h` and `h+` an anchor's histograms over all others and over its positives, `H` and `H+` their
/// running sums and `P` the number of positives: `1 - sum_b h+_b H+_b / H_b / P`; mean over anchors with a positive. What
/// was mined weighs anchors by how often they occur, as in pytorch-metric-learning; a reference set works here too.
///
/// Anchors are looked at a block at a time, and each distance touches two points, so memory is `batch x references` however
/// many bins there are.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct FastApLoss {
    #[module(skip)]
    config: FastApConfig,
}

impl MetricLoss for FastApLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = all_pairs(view);
        if pairs.positive_total() == 0.0 {
            return vec![];
        }
        let bins = self.config.num_bins;
        let distances = view.distances().mul_scalar(bins as f64 / 4.0); // [anchors, references], in bins
        let [_, columns] = distances.dims();
        let precisions = by_rows(&distances, 8 * columns, |start, block| {
            let [length, _] = block.dims();
            let of_block = |weights: &Tensor<2>| weights.clone().narrow(0, start, length);
            let lower = block.clone().without_autodiff().floor().clamp(0.0, bins as f64 - 1.0);
            let share = block - lower.clone();
            let index = lower.int();
            let histogram = |weights: Tensor<2>| {
                let upper = share.clone() * weights.clone();
                let empty = weights.clone().narrow(1, 0, 1).zeros_like().expand([length, bins + 1]);
                empty
                    .scatter(1, index.clone(), weights - upper.clone(), IndexingUpdateOp::Add)
                    .scatter(1, index.clone().add_scalar(1), upper, IndexingUpdateOp::Add)
            };
            let positive = histogram(of_block(&pairs.positive)); // [block, bins + 1]
            let all = positive.clone() + histogram(of_block(&pairs.negative));
            let up_to = all
                .clone()
                .without_autodiff()
                .narrow(0, 0, 1)
                .ones_like()
                .expand([bins + 1, bins + 1])
                .triu(0);
            let of_positive = positive.clone().matmul(up_to.clone());
            let product = positive * of_positive;
            let total = all.matmul(up_to);
            let nothing = product
                .clone()
                .without_autodiff()
                .lower_equal_scalar(0.0)
                .bool_or(total.clone().without_autodiff().lower_equal_scalar(0.0));
            let precision = product.mask_fill(nothing.clone(), 0.0) / total.mask_fill(nothing, 1.0);
            precision.sum_dim(1)
        });
        let counts = view.column(pairs.positive_counts); // [anchors, 1]
        let none = counts.clone().equal_scalar(0.0);
        let costs = ratio(precisions, counts).neg().add_scalar(1.0);
        let weights = view.anchor_weights();
        let there = weights.clone().ones_like().mask_fill(none, 0.0);
        vec![Term::weighted_elements("loss", costs * weights, there)]
    }
}
