//! Smooth-AP: average precision with soft ranks.

use serde::{Deserialize, Serialize};

use super::rows::{Ranking, all_pairs, by_rows, count_of};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, activation};

/// Settings of [`SmoothApLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SmoothApConfig {
    /// How soft ranks are, as a difference of cosines; 0.01.
    pub temperature: f64,
}

impl Default for SmoothApConfig {
    fn default() -> Self {
        Self { temperature: 0.01 }
    }
}

impl MetricLossConfig for SmoothApConfig {
    type Loss = SmoothApLoss;
    const SUMMARY: &'static str = "one minus the average precision with soft ranks";
    const PAPER: &'static str = "Brown et al., Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, ECCV";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("ap-loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        check::above_zero(
            "smooth-ap",
            "temperature",
            self.temperature,
            Self::default().temperature,
        )
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> SmoothApLoss {
        SmoothApLoss { config: self.clone() }
    }
}

/// Smooth-AP (Brown et al., Smooth-AP: Smoothing the Path Towards Large-Scale Image Retrieval, ECCV 2020).
///
/// With cosines `s` of an anchor and `g(x) = 1 / (1 + exp(-x / temperature))`, the soft rank of item `i` within a set `S` is
/// `1 + sum_{j in S, j != i} g(s_j - s_i)`. One minus the mean over the relevant items of the rank among the relevant over
/// the rank among all; mean over anchors with a positive. As in the authors' program and in pytorch-metric-learning the
/// anchor itself is a relevant item with cosine 1. What was mined weighs anchors by how often they occur.
///
/// Classes may have any sizes and stand in any order; pytorch-metric-learning wants equal sizes, and takes blocks of as many
/// neighbours as there are classes for classes, which agrees only if each class has as many items as there are classes.
///
/// Anchors are looked at a block at a time: memory is a few `batch x references`, not the third power of the batch.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct SmoothApLoss {
    #[module(skip)]
    config: SmoothApConfig,
}

impl MetricLoss for SmoothApLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = all_pairs(view);
        if pairs.positive_total() == 0.0 {
            return vec![];
        }
        let temperature = self.config.temperature;
        let ranking = Ranking::of(&pairs, true);
        let costs = by_rows(&view.distances(), ranking.cells(), |start, block| {
            let [length, _] = block.dims();
            let ahead = activation::sigmoid(ranking.ahead(start, block, temperature)); // [block, width, columns]
            let relevant = Ranking::block(&ranking.relevant, start, length);
            let irrelevant = Ranking::block(&ranking.irrelevant, start, length);
            // An item is half ahead of itself: 1 - 0.5.
            let among_relevant = count_of(ahead.clone(), relevant).add_scalar(0.5);
            let among_all = among_relevant.clone() + count_of(ahead, irrelevant);
            ranking.mean(start, among_relevant / among_all).neg().add_scalar(1.0)
        });
        vec![Term::weighted_elements(
            "ap-loss",
            costs * view.anchor_weights(),
            ranking.exists,
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops_on_classes_of_any_size_and_order() {
        let angles = [0.0f64, 0.5, 1.2, 2.0, 2.1, 0.9, 3.0];
        let labels = [0, 1, 0, 1, 0, 2, 0];
        let temperature = 0.1;
        let mut costs = vec![];
        for q in (0..7).filter(|&q| labels[q] != 2) {
            let s = |j: usize| (angles[q] - angles[j]).cos();
            let rank = |i: usize, relevant: bool| {
                let others = (0..7).filter(|&j| j != i && (!relevant || labels[j] == labels[q]));
                1.0 + others
                    .map(|j| 1.0 / (1.0 + ((s(i) - s(j)) / temperature).exp()))
                    .sum::<f64>()
            };
            let relevant: Vec<usize> = (0..7).filter(|&i| labels[i] == labels[q]).collect();
            let precision: f64 = relevant.iter().map(|&i| rank(i, true) / rank(i, false)).sum();
            costs.push(1.0 - precision / relevant.len() as f64);
        }
        let loss = LossConfig::from(SmoothApConfig { temperature }).init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            costs.iter().sum::<f64>() / costs.len() as f64,
        );
    }
}
