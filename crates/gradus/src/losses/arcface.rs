//! ArcFace: classification by angle to class weights, with an angular margin on the own class.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::{cross_entropy_with, own_entries};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::safe_sqrt;
use crate::tensor::{Bool, Device, Module, Param, Tensor};

/// Settings of [`ArcfaceLoss`]; defaults are the paper's (margin 0.5 rad) as pytorch-metric-learning writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArcfaceConfig {
    /// Angle added to the own class, in degrees; 28.6.
    pub margin: f64,
    /// What cosines are multiplied by before the softmax; 64.
    pub scale: f64,
}

impl Default for ArcfaceConfig {
    fn default() -> Self {
        Self {
            margin: 28.6,
            scale: 64.0,
        }
    }
}

impl MetricLossConfig for ArcfaceConfig {
    type Loss = ArcfaceLoss;
    const SUMMARY: &'static str = "softmax over angles to class weights, with an angular margin";
    const PAPER: &'static str = "Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR";
    const YEAR: u16 = 2019;
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
        check::within("arcface", "margin", self.margin, default.margin, [0.0, 180.0])?;
        check::above_zero("arcface", "scale", self.scale, default.scale)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> ArcfaceLoss {
        ArcfaceLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// ArcFace loss (Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019).
///
/// With `theta_c` the angle between an embedding and the weights of class `c`: cross entropy over `scale cos(theta_c)`,
/// where the own class has `scale cos(theta + margin)` instead, or `scale (cos(theta) - margin sin(margin))` with the
/// margin in radians once `theta + margin` passes 180 degrees, so that the cost keeps rising; mean over the batch.
/// The sum of angles is expanded, so no arc cosine and no infinite slope at cosine 1.
///
/// # Shapes
/// Embeddings `[batch, dim]`, weights (the proxies) `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct ArcfaceLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: ArcfaceConfig,
}

impl MetricLoss for ArcfaceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let own = view.class_mask(classes);
        let cosines = view.distances_to(proxies); // [batch, classes]
        let costs = costs(cosines, own, self.config.margin, self.config.scale);
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

/// ArcFace's costs `[batch, 1]` of cosines `[batch, classes]`; the margin in degrees.
pub(super) fn costs(cosines: Tensor<2>, own: Tensor<2, Bool>, margin: f64, scale: f64) -> Tensor<2> {
    let target = own_entries(&cosines, &own);
    let target = widened(target, margin.to_radians()).mul_scalar(scale);
    cross_entropy_with(cosines.mul_scalar(scale), own, target)
}

/// The cosine of an angle widened by a margin in radians, `cosine - margin sin(margin)` where that would pass 180 degrees.
pub(super) fn widened(cosine: Tensor<2>, margin: f64) -> Tensor<2> {
    let sine = safe_sqrt(cosine.clone().neg().add_scalar(1.0) * cosine.clone().add_scalar(1.0));
    let shifted = cosine.clone().mul_scalar(margin.cos()) - sine.mul_scalar(margin.sin());
    let beyond = cosine.clone().without_autodiff().lower_scalar(-margin.cos());
    shifted.mask_where(beyond, cosine.sub_scalar(margin * margin.sin()))
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, matrix, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        // The last row is 3.0 rad from its class: with the margin it passes 180 degrees.
        let angles = [0.0f64, 0.5, 1.9, 2.2, -1.0];
        let labels = [0usize, 0, 1, 2, 1];
        let centres = [0.3f64, 2.0, 1.0];
        let (margin, scale) = (30.0f64, 5.0);
        let radians = margin.to_radians();
        let (mut expected, mut beyond) = (0.0, 0);
        for (angle, &label) in angles.iter().zip(&labels) {
            let own = (angle - centres[label]).cos().acos();
            let target = if own + radians <= PI {
                (own + radians).cos()
            } else {
                own.cos() - radians * radians.sin()
            };
            beyond += usize::from(own + radians > PI);
            let others = (0..3)
                .filter(|&c| c != label)
                .map(|c| (scale * (angle - centres[c]).cos()).exp());
            let sum: f64 = others.sum::<f64>() + (scale * target).exp();
            expected += (sum.ln() - scale * target) / 5.0;
        }
        assert_eq!(beyond, 1);
        let rows: Vec<f32> = centres
            .iter()
            .flat_map(|a| [(3.0 * a.cos()) as f32, (3.0 * a.sin()) as f32])
            .collect();
        let device = Device::flex().autodiff();
        let loss = LossConfig::from(ArcfaceConfig { margin, scale })
            .init(2, 3, 0, &device)
            .with_proxies(matrix(rows, [3, 2]));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }
}
