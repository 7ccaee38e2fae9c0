//! Threshold-consistent margin: one similarity threshold for all classes.

use serde::{Deserialize, Serialize};

use super::rows::ratio;
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module};

/// Settings of [`ThresholdConsistentMarginLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ThresholdConsistentMarginConfig {
    /// Weight of positive pairs; 1.
    pub lambda_plus: f64,
    /// Weight of negative pairs; 1.
    pub lambda_minus: f64,
    /// Cosine up to which positive pairs cost; 0.9.
    pub margin_plus: f64,
    /// Cosine from which negative pairs cost; 0.5.
    pub margin_minus: f64,
}

impl Default for ThresholdConsistentMarginConfig {
    fn default() -> Self {
        Self {
            lambda_plus: 1.0,
            lambda_minus: 1.0,
            margin_plus: 0.9,
            margin_minus: 0.5,
        }
    }
}

impl MetricLossConfig for ThresholdConsistentMarginConfig {
    type Loss = ThresholdConsistentMarginLoss;
    const SUMMARY: &'static str =
        "positive pairs above one cosine and negative pairs below another, over all classes alike";
    const PAPER: &'static str =
        "Zhang et al., Threshold-Consistent Margin Loss for Open-World Deep Metric Learning, ICLR";
    const YEAR: u16 = 2024;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let (name, default) = ("threshold-consistent-margin", Self::default());
        check::finite(name, "lambda-plus", self.lambda_plus, default.lambda_plus)?;
        check::finite(name, "lambda-minus", self.lambda_minus, default.lambda_minus)?;
        check::finite(name, "margin-plus", self.margin_plus, default.margin_plus)?;
        check::finite(name, "margin-minus", self.margin_minus, default.margin_minus)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> ThresholdConsistentMarginLoss {
        ThresholdConsistentMarginLoss { config: self.clone() }
    }
}

/// Threshold-consistent margin loss (Zhang et al., Threshold-Consistent Margin Loss for Open-World Deep Metric Learning,
/// ICLR 2024), made to stand beside another loss.
///
/// With cosines `s`: `lambda_plus` times the mean of `margin_plus - s` over positive pairs with `s <= margin_plus`, plus
/// `lambda_minus` times the mean of `s - margin_minus` over negative pairs with `s >= margin_minus`. It reduces itself.
///
/// A separate reference set is compared with, where pytorch-metric-learning looks into the batch instead.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct ThresholdConsistentMarginLoss {
    #[module(skip)]
    config: ThresholdConsistentMarginConfig,
}

impl MetricLoss for ThresholdConsistentMarginLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let ThresholdConsistentMarginConfig {
            lambda_plus,
            lambda_minus,
            margin_plus,
            margin_minus,
        } = self.config;
        let pairs = view.pairs();
        let cosines = view.distances(); // [anchors, references]
        let constant = cosines.clone().without_autodiff();
        let positive = pairs
            .positive
            .mask_fill(constant.clone().greater_scalar(margin_plus), 0.0);
        let negative = pairs.negative.mask_fill(constant.lower_scalar(margin_minus), 0.0);
        let pull = (cosines.clone().neg().add_scalar(margin_plus) * positive.clone()).sum();
        let push = (cosines.sub_scalar(margin_minus) * negative.clone()).sum();
        let value =
            ratio(pull, positive.sum()).mul_scalar(lambda_plus) + ratio(push, negative.sum()).mul_scalar(lambda_minus);
        vec![Term::reduced("loss", value)]
    }
}
