//! SphereFace: large-margin softmax with weights of length 1.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check, large_margin_softmax};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::lengths;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`SpherefaceLoss`]; defaults are those of pytorch-metric-learning and of the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SpherefaceConfig {
    /// What the angle to the own class is multiplied by, a whole number; 4.
    pub margin: usize,
    /// What logits are multiplied by before the softmax; 1.
    pub scale: f64,
}

impl Default for SpherefaceConfig {
    fn default() -> Self {
        Self { margin: 4, scale: 1.0 }
    }
}

impl MetricLossConfig for SpherefaceConfig {
    type Loss = SpherefaceLoss;
    const SUMMARY: &'static str = "softmax with a multiplied angle to the own class, weights of length 1";
    const PAPER: &'static str = "Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR";
    const YEAR: u16 = 2017;
    const ACCEPTS: Accepts = Accepts::PROXIES;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];
    const LENGTHS_MATTER: bool = true;

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::count("sphereface", "margin", self.margin, default.margin)?;
        check::above_zero("sphereface", "scale", self.scale, default.scale)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> SpherefaceLoss {
        SpherefaceLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// SphereFace loss (Liu et al., SphereFace: Deep Hypersphere Embedding for Face Recognition, CVPR 2017).
///
/// [Large-margin softmax](super::LargeMarginSoftmaxLoss) with class weights taken at length 1: cross entropy over
/// `scale |x| cos(theta_c)`, where the own class has `(-1)^k cos(margin theta) - 2k` instead of the cosine; mean over the
/// batch. Weights start standard normal.
///
/// # Shapes
/// Embeddings `[batch, dim]`, whose lengths matter, weights (the proxies) `[classes, dim]`, whose lengths do not. Memory:
/// `batch x classes`.
#[derive(Module, Debug)]
pub struct SpherefaceLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: SpherefaceConfig,
}

impl MetricLoss for SpherefaceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let SpherefaceConfig { margin, scale } = self.config;
        let lengths = lengths(view.anchors()).mul_scalar(scale); // [batch, 1]
        vec![large_margin_softmax::multiplied(view, proxies, margin, &lengths)]
    }

    fn parameters(&self) -> Option<Tensor<2>> {
        Some(self.proxies.val())
    }

    fn with_parameters(self, parameters: Tensor<2>) -> Self {
        Self {
            proxies: replaced(self.proxies, &parameters),
            config: self.config,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, directions, near, scalar};

    #[test]
    fn lengths_of_weights_do_not_matter() {
        let batch = circle(&[0.0, 0.5, 1.9, 2.2], &[0, 0, 1, 2]);
        let value = |length: f64| {
            let loss = LossConfig::from(SpherefaceConfig::default()).init(2, 3, 0, &Device::flex());
            let proxies = directions(&[0.3, 2.0, 1.0], length);
            scalar(&loss.with_proxies(proxies).forward_batch(&batch))
        };
        near(value(3.0), value(1.0));
        let same = crate::losses::LargeMarginSoftmaxConfig::default();
        let loss = LossConfig::from(same).init(2, 3, 0, &Device::flex());
        let loss = loss.with_proxies(directions(&[0.3, 2.0, 1.0], 1.0));
        near(value(1.0), scalar(&loss.forward_batch(&batch)));
    }
}
