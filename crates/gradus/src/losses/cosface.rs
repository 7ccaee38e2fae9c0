//! CosFace: classification by cosine to class weights, with a margin on the cosine of the own class.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::{cross_entropy_with, own_entries};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`CosfaceLoss`]; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CosfaceConfig {
    /// What is taken from the cosine to the own class; 0.35.
    pub margin: f64,
    /// What cosines are multiplied by before the softmax; 64.
    pub scale: f64,
}

impl Default for CosfaceConfig {
    fn default() -> Self {
        Self {
            margin: 0.35,
            scale: 64.0,
        }
    }
}

impl MetricLossConfig for CosfaceConfig {
    type Loss = CosfaceLoss;
    const SUMMARY: &'static str = "softmax over cosines to class weights, with a cosine margin";
    const PAPER: &'static str = "Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR";
    const YEAR: u16 = 2018;
    const ACCEPTS: Accepts = Accepts::PROXIES;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("cosface", "margin", self.margin, default.margin)?;
        check::above_zero("cosface", "scale", self.scale, default.scale)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> CosfaceLoss {
        CosfaceLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// CosFace loss (Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018).
///
/// Cross entropy over `scale cos(theta_c)` for the angles `theta_c` between an embedding and the class weights, where the
/// own class has `scale (cos(theta) - margin)` instead; mean over the batch. The margin is a cosine. Weights start
/// standard normal.
///
/// # Shapes
/// Embeddings `[batch, dim]`, weights (the proxies) `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct CosfaceLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: CosfaceConfig,
}

impl MetricLoss for CosfaceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let CosfaceConfig { margin, scale } = self.config;
        let own = view.class_mask(classes);
        let cosines = view.distances_to(proxies); // [batch, classes]
        let target = own_entries(&cosines, &own).sub_scalar(margin).mul_scalar(scale);
        let costs = cross_entropy_with(cosines.mul_scalar(scale), own, target);
        vec![Term::elements("loss", costs * view.anchor_weights())]
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
    fn agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0], [0usize, 0, 1, 2, 1]);
        let centres = [0.3f64, 2.0, 1.0];
        let (margin, scale) = (0.2, 5.0);
        let mut expected = 0.0;
        for (angle, &label) in angles.iter().zip(&labels) {
            let z = |c: usize| {
                let taken = if c == label { margin } else { 0.0 };
                (scale * ((angle - centres[c]).cos() - taken)).exp()
            };
            expected -= (z(label) / (0..3).map(z).sum::<f64>()).ln() / 5.0;
        }
        let loss = LossConfig::from(CosfaceConfig { margin, scale })
            .init(2, 3, 0, &Device::flex())
            .with_proxies(directions(&centres, 3.0));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }
}
