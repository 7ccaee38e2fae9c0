//! Recall@k surrogate: positives with a soft rank of at most k.

use serde::{Deserialize, Serialize};

use super::rows::{Ranking, all_pairs, by_rows, count_of};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, activation};

/// Settings of [`RecallAtKLoss`]; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RecallAtKConfig {
    /// The ranks up to which recall is measured; 1, 2, 4, 8, 16.
    pub k: Vec<usize>,
    /// How soft ranks are, as a difference of cosines; 0.01.
    pub temperature: f64,
    /// How soft the bound of k is, as a difference of ranks; 1.
    pub rank_temperature: f64,
}

impl Default for RecallAtKConfig {
    fn default() -> Self {
        Self {
            k: vec![1, 2, 4, 8, 16],
            temperature: 0.01,
            rank_temperature: 1.0,
        }
    }
}

impl MetricLossConfig for RecallAtKConfig {
    type Loss = RecallAtKLoss;
    const SUMMARY: &'static str = "one minus the share of positives among the first k, with soft ranks";
    const PAPER: &'static str = "Patel et al., Recall@k Surrogate Loss with Large Batches and Similarity Mixup, CVPR";
    const YEAR: u16 = 2022;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::above_zero("recall-at-k", "temperature", self.temperature, default.temperature)?;
        let softness = self.rank_temperature;
        check::above_zero("recall-at-k", "rank-temperature", softness, default.rank_temperature)?;
        if self.k.is_empty() || self.k.contains(&0) {
            return Err(format!(
                "loss.recall-at-k.k is {:?}, but it must hold at least one number, each above 0; leave it out to get the \
                 default 1, 2, 4, 8, 16.",
                self.k
            ));
        }
        Ok(())
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> RecallAtKLoss {
        RecallAtKLoss { config: self.clone() }
    }
}

/// Recall@k surrogate (Patel et al., Recall@k Surrogate Loss with Large Batches and Similarity Mixup, CVPR 2022), without
/// its mixup.
///
/// With cosines `s` of an anchor and `g(x, t) = 1 / (1 + exp(-x / t))`, the soft rank of a positive `i` among all others is
/// `r_i = 1 + sum_{j != i} g(s_j - s_i, temperature)`; the loss is one minus the mean over positives and over the numbers
/// `k` of `g(k - r_i, rank_temperature)`; mean over anchors with a positive. It does not reach 0: with more positives than
/// `k` not all can be among the first. What was mined weighs anchors by how often they occur.
///
/// Defaults are the paper's. The authors' program differs: its softness of `k` is `k` itself (1, 2, 4, 8, 16), it counts the
/// anchor among the items before a positive, and it divides the sum over positives by `k` where there are more than `k`.
///
/// Anchors are looked at a block at a time: memory is a few `batch x references`, not the third power of the batch.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`.
#[derive(Module, Debug)]
pub struct RecallAtKLoss {
    #[module(skip)]
    config: RecallAtKConfig,
}

impl MetricLoss for RecallAtKLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let RecallAtKConfig {
            k,
            temperature,
            rank_temperature,
        } = &self.config;
        let pairs = all_pairs(view);
        if pairs.positive_total() == 0.0 {
            return vec![];
        }
        let ranking = Ranking::of(&pairs, false);
        let costs = by_rows(&view.distances(), ranking.cells(), |start, block| {
            let [length, _] = block.dims();
            let ahead = activation::sigmoid(ranking.ahead(start, block, *temperature)); // [block, width, columns]
            let all =
                Ranking::block(&ranking.relevant, start, length) + Ranking::block(&ranking.irrelevant, start, length);
            // An item is half ahead of itself: 1 - 0.5.
            let ranks = count_of(ahead, all).add_scalar(0.5);
            let among = |k: usize| {
                let inside = ranks.clone().neg().add_scalar(k as f64);
                activation::sigmoid(inside.mul_scalar(rank_temperature.recip()))
            };
            let sum = k[1..].iter().fold(among(k[0]), |sum, &k| sum + among(k));
            ranking
                .mean(start, sum.mul_scalar((k.len() as f64).recip()))
                .neg()
                .add_scalar(1.0)
        });
        vec![Term::weighted_elements(
            "loss",
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
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 1.2, 2.0, 2.1, 0.9, 3.0];
        let labels = [0, 1, 0, 1, 0, 2, 0];
        let config = RecallAtKConfig {
            k: vec![1, 3],
            temperature: 0.1,
            rank_temperature: 0.7,
        };
        let step = |x: f64, temperature: f64| 1.0 / (1.0 + (-x / temperature).exp());
        let mut costs = vec![];
        for q in (0..7).filter(|&q| labels[q] != 2) {
            let s = |j: usize| (angles[q] - angles[j]).cos();
            let positives: Vec<usize> = (0..7).filter(|&i| i != q && labels[i] == labels[q]).collect();
            let mut recall = 0.0;
            for &i in &positives {
                let others = (0..7).filter(|&j| j != i && j != q);
                let rank = 1.0 + others.map(|j| step(s(j) - s(i), 0.1)).sum::<f64>();
                recall += (step(1.0 - rank, 0.7) + step(3.0 - rank, 0.7)) / 2.0;
            }
            costs.push(1.0 - recall / positives.len() as f64);
        }
        let loss = LossConfig::from(config).init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            costs.iter().sum::<f64>() / costs.len() as f64,
        );
    }
}
