//! Histogram: how likely a negative pair is more alike than a positive one.

use serde::{Deserialize, Serialize};

use super::rows::{once, ratio};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Support, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, IndexingUpdateOp, Module, Tensor};

/// Settings of [`HistogramLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HistogramConfig {
    /// Number of bins of the histograms between cosine -1 and 1; 100.
    pub n_bins: usize,
    /// Width of a bin instead of their number; 2 / n-bins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
}

impl Default for HistogramConfig {
    fn default() -> Self {
        Self {
            n_bins: 100,
            delta: None,
        }
    }
}

impl MetricLossConfig for HistogramConfig {
    type Loss = HistogramLoss;
    const SUMMARY: &'static str = "the probability that a negative pair is more alike than a positive one";
    const PAPER: &'static str = "Ustinova and Lempitsky, Learning Deep Embeddings with Histogram Loss, NeurIPS";
    const YEAR: u16 = 2016;
    const ACCEPTS: Accepts = Accepts {
        references: Support::Refused,
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        check::above_zero("histogram", "n-bins", self.n_bins as f64, 100.0)?;
        let Some(delta) = self.delta else { return Ok(()) };
        check::above_zero("histogram", "delta", delta, 0.02)?;
        check::within("histogram", "delta", delta, 0.02, [1e-6, 2.0 + f64::EPSILON])?;
        if self.n_bins != Self::default().n_bins && (delta * self.n_bins as f64 - 2.0).abs() > 1e-9 {
            return Err(format!(
                "loss.histogram.delta is {delta} and loss.histogram.n-bins is {}, but delta must be 2 / n-bins; give only one \
                 of them.",
                self.n_bins
            ));
        }
        Ok(())
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> HistogramLoss {
        HistogramLoss { config: self.clone() }
    }
}

/// Histogram loss (Ustinova and Lempitsky, Learning Deep Embeddings with Histogram Loss, NeurIPS 2016).
///
/// Cosines fall into two neighbouring of the points `-1, -1 + delta, .., 1` by linear weights. With `h+` and `h-` the
/// histograms of positive and negative pairs, each of sum 1: `sum_b h-_b sum_{c <= b} h+_c`. A pair counts once, whatever its
/// order and how often it was mined, and only pairs of which an item has both a positive and a negative as an anchor. It
/// reduces itself.
///
/// Each cosine touches two points, so memory is a few `batch x batch`. Cosine 1 falls into the last bin, where
/// pytorch-metric-learning fails.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length.

#[derive(Module, Debug)]
pub struct HistogramLoss {
    #[module(skip)]
    config: HistogramConfig,
}

impl MetricLoss for HistogramLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = view.pairs();
        if pairs.triplet_total() == 0.0 {
            return vec![];
        }
        let delta = self.config.delta.unwrap_or(2.0 / self.config.n_bins as f64);
        let bins = (2.0 / delta - 1e-9).ceil() as usize;
        let has = |counts: Vec<f64>| once(&view.column(counts));
        let unordered = |pairs: &Tensor<2>, anchors: Tensor<2>| {
            let chosen = once(pairs) * anchors;
            once(&(chosen.clone() + chosen.transpose())).triu(1)
        };
        let positive = unordered(&pairs.positive, has(pairs.negative_counts));
        let negative = unordered(&pairs.negative, has(pairs.positive_counts));
        let places = view.distances().add_scalar(1.0).mul_scalar(delta.recip()); // [batch, batch], in bins
        let [rows, columns] = places.dims();
        let cells = [1, rows * columns];
        let lower = places.clone().without_autodiff().floor().clamp(0.0, bins as f64 - 1.0);
        let share = (places - lower.clone()).reshape(cells);
        let index = lower.int().reshape(cells);
        let density = |pairs: Tensor<2>| {
            let weights = pairs.reshape(cells);
            let upper = share.clone() * weights.clone();
            let empty = weights.clone().narrow(1, 0, 1).zeros_like().expand([1, bins + 1]);
            let histogram = empty
                .scatter(1, index.clone(), weights.clone() - upper.clone(), IndexingUpdateOp::Add)
                .scatter(1, index.clone().add_scalar(1), upper, IndexingUpdateOp::Add);
            ratio(histogram, weights.sum_dim(1).expand([1, bins + 1]))
        };
        let (of_positives, of_negatives) = (density(positive), density(negative)); // [1, bins + 1]
        let up_to = of_positives
            .clone()
            .without_autodiff()
            .ones_like()
            .expand([bins + 1, bins + 1])
            .triu(0);
        let value = (of_negatives * of_positives.matmul(up_to)).sum();
        vec![Term::reduced("loss", value)]
    }
}
