//! Contrastive loss on the signal-to-noise ratio distance.

use serde::{Deserialize, Serialize};

use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, ReducerConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, activation};

/// Settings of [`SignalToNoiseRatioContrastiveLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SignalToNoiseRatioContrastiveConfig {
    /// Distance that positives may keep; 0.
    pub pos_margin: f64,
    /// Distance that negatives must reach; 1.
    pub neg_margin: f64,
}

impl Default for SignalToNoiseRatioContrastiveConfig {
    fn default() -> Self {
        Self {
            pos_margin: 0.0,
            neg_margin: 1.0,
        }
    }
}

impl MetricLossConfig for SignalToNoiseRatioContrastiveConfig {
    type Loss = SignalToNoiseRatioContrastiveLoss;
    const SUMMARY: &'static str = "contrastive loss on the variance of the difference over the variance of the anchor";
    const PAPER: &'static str =
        "Yuan et al., Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric Learning, CVPR";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("pos-loss", Unit::Pair), ("neg-loss", Unit::Pair)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::SNR
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::AVG_NON_ZERO
    }

    fn validate(&self) -> Result<(), String> {
        let (name, default) = ("signal-to-noise-ratio-contrastive", Self::default());
        check::finite(name, "pos-margin", self.pos_margin, default.pos_margin)?;
        check::finite(name, "neg-margin", self.neg_margin, default.neg_margin)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> SignalToNoiseRatioContrastiveLoss {
        SignalToNoiseRatioContrastiveLoss { config: self.clone() }
    }
}

/// Signal-to-noise ratio contrastive loss (Yuan et al., Signal-to-Noise Ratio: A Robust Distance Metric for Deep Metric
/// Learning, CVPR 2019).
///
/// With `d(a, b) = Var(a - b) / Var(a)` over the axes of normalised embeddings and `[x]+ = max(x, 0)`: the mean of the
/// non-zero `[d_p - pos_margin]+` over positive pairs plus the mean of the non-zero `[neg_margin - d_n]+` over negative
/// pairs. The paper adds a cost on the mean of embeddings: `embedding-regularizer = "zero-mean"`.
///
/// The distance is not symmetric, and 0 from an anchor whose axes are all equal. It is computed from inner products, in
/// `batch x references`.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct SignalToNoiseRatioContrastiveLoss {
    #[module(skip)]
    config: SignalToNoiseRatioContrastiveConfig,
}

impl MetricLoss for SignalToNoiseRatioContrastiveLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = view.pairs();
        let distances = view.distances(); // [anchors, references]
        let pull = activation::relu(view.beyond(distances.clone(), self.config.pos_margin));
        let push = activation::relu(view.inside(distances, self.config.neg_margin));
        vec![
            Term::pairs("pos-loss", pull, pairs.positive),
            Term::pairs("neg-loss", push, pairs.negative),
        ]
    }
}
