//! Circle: every pair weighed by how far it is from its optimum.

use serde::{Deserialize, Serialize};

use super::rows::{once, weighted_log_sum_exp, without_empty};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, ReducerConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::numerics::softplus;
use crate::tensor::{Device, Module, activation};

/// Settings of [`CircleLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CircleConfig {
    /// How far from their optima similarities may stay; 0.4.
    pub m: f64,
    /// Sharpness; 80.
    pub gamma: f64,
}

impl Default for CircleConfig {
    fn default() -> Self {
        Self { m: 0.4, gamma: 80.0 }
    }
}

impl MetricLossConfig for CircleConfig {
    type Loss = CircleLoss;
    const SUMMARY: &'static str = "pairs weighed by how far they are from their optimum";
    const PAPER: &'static str = "Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];
    const HOLDS_WEIGHTS: bool = true;

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::AVG_NON_ZERO
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("circle", "m", self.m, default.m)?;
        check::above_zero("circle", "gamma", self.gamma, default.gamma)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> CircleLoss {
        CircleLoss { config: self.clone() }
    }
}

/// Circle loss (Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR 2020), for pairs.
///
/// With cosines `s` and `[x]+ = max(x, 0)`, for each anchor:
/// `log(1 + sum_p exp(-gamma [1 + m - s_p]+ (s_p - 1 + m)) * sum_n exp(gamma [s_n + m]+ (s_n - m)))`, where the bracketed
/// weights are constants to the gradient; 0 for an anchor without a positive or without a negative, mean over the others
/// that are above 0. A pair that was mined twice counts once. The paper's other settings: faces `m` 0.25 and `gamma` 256,
/// persons 0.25 and 128.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct CircleLoss {
    #[module(skip)]
    config: CircleConfig,
}

impl MetricLoss for CircleLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let CircleConfig { m, gamma } = self.config;
        let pairs = view.pairs();
        let cosines = view.distances(); // [anchors, references]
        let constant = cosines.clone().without_autodiff();
        let pull = activation::relu(constant.clone().neg().add_scalar(1.0 + m)) * cosines.clone().sub_scalar(1.0 - m);
        let push = activation::relu(constant.add_scalar(m)) * cosines.sub_scalar(m);
        let pull = weighted_log_sum_exp(pull.mul_scalar(-gamma), &once(&pairs.positive), 1);
        let push = weighted_log_sum_exp(push.mul_scalar(gamma), &once(&pairs.negative), 1);
        let ((pull, no_positive), (push, no_negative)) = (without_empty(pull), without_empty(push));
        let costs = softplus(pull + push)
            .mask_fill(no_positive, 0.0)
            .mask_fill(no_negative, 0.0);
        vec![Term::elements("loss", costs)]
    }
}
