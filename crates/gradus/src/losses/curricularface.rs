//! CurricularFace: ArcFace whose hard negatives weigh little at first and more as training goes on.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::{cross_entropy_with, own_entries};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, arcface, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::models::running::RunningStatistic;
use crate::tensor::{Device, Module, Param, Tensor};

/// How much the cosines of one batch count in the running mean.
const MOMENTUM: f64 = 0.01;

/// Settings of [`CurricularfaceLoss`]; defaults are the paper's and those of the authors' program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CurricularfaceConfig {
    /// Angle added to the own class, in degrees; 0.5 radians.
    pub margin: f64,
    /// What cosines are multiplied by before the softmax; 64.
    pub scale: f64,
}

impl Default for CurricularfaceConfig {
    fn default() -> Self {
        Self {
            margin: 0.5_f64.to_degrees(),
            scale: 64.0,
        }
    }
}

impl MetricLossConfig for CurricularfaceConfig {
    type Loss = CurricularfaceLoss;
    const SUMMARY: &'static str = "ArcFace whose hard negatives weigh more as training goes on";
    const PAPER: &'static str =
        "Huang et al., CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition, CVPR";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts::PROXIES;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];
    // The weights are constants to the gradient by design.
    const HOLDS_WEIGHTS: bool = true;

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::within("curricularface", "margin", self.margin, default.margin, [0.0, 180.0])?;
        check::above_zero("curricularface", "scale", self.scale, default.scale)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> CurricularfaceLoss {
        CurricularfaceLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            progress: RunningStatistic::new(Tensor::zeros([1], &device.clone().without_autodiff())),
            config: self.clone(),
        }
    }
}

/// CurricularFace loss (Huang et al., CurricularFace: Adaptive Curriculum Learning Loss for Deep Face Recognition, CVPR
/// 2020).
///
/// The own class has [ArcFace](super::ArcfaceLoss)'s logit `scale cos(theta + margin)` (`scale (cos(theta) - margin
/// sin(margin))` past 180 degrees). Another class whose cosine `c` is above `cos(theta + margin)` is hard and has
/// `scale c (t + c)`, the others `scale c`; cross entropy, mean over the batch. `t` is the running mean of the cosines to
/// the own class: `0.01` times the batch's mean plus `0.99` times what it was, from 0 on; the batch counts before it is
/// looked at. It is a constant to the gradient, moves only in passes whose embeddings are tracked (training), and is saved
/// with the loss, so that training resumes exactly.
///
/// # Shapes
/// Embeddings `[batch, dim]`, weights (the proxies) `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct CurricularfaceLoss {
    proxies: Param<Tensor<2>>,
    progress: RunningStatistic,
    #[module(skip)]
    config: CurricularfaceConfig,
}

impl CurricularfaceLoss {
    /// The running mean `t` of the cosines to the own class, `[1]`.
    #[must_use]
    pub fn progress(&self) -> Tensor<1> {
        self.progress.value()
    }
}

impl MetricLoss for CurricularfaceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let CurricularfaceConfig { margin, scale } = self.config;
        let own = view.class_mask(classes);
        let cosines = view.distances_to(proxies); // [batch, classes]
        let cosine = own_entries(&cosines, &own); // [batch, 1]
        if view.anchors().is_tracked() {
            let mean = cosine.clone().without_autodiff().mean();
            self.progress.update(mean.cast(self.progress.value().dtype()), MOMENTUM);
        }
        let progress = self.progress.value().cast(cosines.dtype()).reshape([1, 1]);

        let radians = margin.to_radians();
        let sine = (cosine.clone().without_autodiff().square().neg().add_scalar(1.0))
            .clamp_min(0.0)
            .sqrt();
        let widened = cosine.clone().without_autodiff().mul_scalar(radians.cos()) - sine.mul_scalar(radians.sin());
        let hard = cosines
            .clone()
            .without_autodiff()
            .greater(widened.expand(cosines.dims()));
        let reweighted = cosines.clone() * (cosines.clone() + progress);
        let logits = cosines.mask_where(hard, reweighted).mul_scalar(scale);
        let target = arcface::widened(cosine, radians).mul_scalar(scale);
        let costs = cross_entropy_with(logits, own, target);
        vec![Term::elements("loss", costs * view.anchor_weights())]
    }

    fn parameters(&self) -> Option<Tensor<2>> {
        Some(self.proxies.val())
    }

    fn with_parameters(self, parameters: Tensor<2>) -> Self {
        Self {
            proxies: replaced(self.proxies, &parameters),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Comparison, EmbeddingBatch};
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, directions, near, scalar};
    use crate::state::{load_named_arrays, named_arrays};

    #[test]
    fn agrees_with_naive_loops_and_remembers() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0], [0usize, 0, 1, 2, 1]);
        let centres = [0.3f64, 2.0, 1.0];
        let (margin, scale) = (30.0_f64, 5.0);
        let device = Device::flex().autodiff();
        let config = LossConfig::from(CurricularfaceConfig { margin, scale });
        let loss = config.init(2, 3, 0, &device).with_proxies(directions(&centres, 3.0));
        let batch = circle(&angles, &labels.map(|label| label as u32));
        let tracked = EmbeddingBatch::new(batch.embeddings.clone().autodiff().require_grad(), batch.labels.clone());
        let mean = angles.iter().zip(&labels).map(|(a, &y)| (a - centres[y]).cos()).sum::<f64>() / 5.0;
        let mut t = 0.0;
        for step in 0..3 {
            if step < 2 {
                t = 0.01 * mean + 0.99 * t;
            }
            let mut expected = 0.0;
            for (angle, &label) in angles.iter().zip(&labels) {
                let cosine = |c: usize| (angle - centres[c]).cos();
                let theta = cosine(label).acos() + margin.to_radians();
                let target = if theta <= std::f64::consts::PI {
                    theta.cos()
                } else {
                    cosine(label) - margin.to_radians() * margin.to_radians().sin()
                };
                let others = (0..3).filter(|&c| c != label).map(|c| {
                    let hard = cosine(c) > theta.cos();
                    (scale * cosine(c) * if hard { t + cosine(c) } else { 1.0 }).exp()
                });
                let own = (scale * target).exp();
                expected -= (own / (own + others.sum::<f64>())).ln() / 5.0;
            }
            // The last pass is not tracked: it moves nothing.
            let batch = if step < 2 { &tracked } else { &batch };
            near(scalar(&loss.forward(&Comparison::within(batch))), expected);
        }
        let restored = load_named_arrays(config.init(2, 3, 9, &device), &named_arrays(&loss)).expect("fits");
        near(
            scalar(&restored.forward_batch(&batch)),
            scalar(&loss.forward_batch(&batch)),
        );
        assert!(named_arrays(&loss).iter().any(|array| array.name.contains("progress")));
    }
}
