//! AdaFace: a margin that depends on the length of the embedding, taken for the quality of the image.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::{cross_entropy_with, own_entries};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::models::running::RunningStatistic;
use crate::numerics::{lengths, safe_sqrt};
use crate::tensor::{Device, Module, Param, Tensor, TensorData};

/// How far from 0 and 180 degrees the widened angle stays, in radians, and what is added to the deviation of lengths.
const EPSILON: f64 = 1e-3;

/// Settings of [`AdafaceLoss`]; defaults are the paper's (`t-alpha`: that of the authors' training program).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AdafaceConfig {
    /// Size of the margin, an angle in radians and a cosine at once; 0.4.
    pub margin: f64,
    /// What cosines are multiplied by before the softmax; 64.
    pub scale: f64,
    /// How strongly the margin follows the length of an embedding; 0.333.
    pub h: f64,
    /// How much the lengths of one batch count in their running mean and deviation; 0.01.
    pub t_alpha: f64,
}

impl Default for AdafaceConfig {
    fn default() -> Self {
        Self {
            margin: 0.4,
            scale: 64.0,
            h: 0.333,
            t_alpha: 0.01,
        }
    }
}

impl MetricLossConfig for AdafaceConfig {
    type Loss = AdafaceLoss;
    const SUMMARY: &'static str = "softmax over angles with a margin that follows the length of the embedding";
    const PAPER: &'static str = "Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR";
    const YEAR: u16 = 2022;
    const ACCEPTS: Accepts = Accepts::PROXIES;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];
    // The weights are constants to the gradient by design.
    const HOLDS_WEIGHTS: bool = true;
    const LENGTHS_MATTER: bool = true;

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::within("adaface", "margin", self.margin, default.margin, [0.0, 1.5])?;
        check::above_zero("adaface", "scale", self.scale, default.scale)?;
        check::not_negative("adaface", "h", self.h, default.h)?;
        check::within("adaface", "t-alpha", self.t_alpha, default.t_alpha, [0.0, 1.0 + f64::EPSILON])
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> AdafaceLoss {
        // The authors' first guess of mean and deviation of lengths.
        let start = TensorData::new(vec![20.0_f32, 100.0], [2]);
        AdafaceLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            lengths: RunningStatistic::new(Tensor::from_data(start, &device.clone().without_autodiff())),
            config: self.clone(),
        }
    }
}

/// AdaFace loss (Kim et al., AdaFace: Quality Adaptive Margin for Face Recognition, CVPR 2022).
///
/// With running mean `mu` and deviation `sigma` of the embeddings' lengths (clamped to `[0.001, 100]`) and
/// `z = clamp(h (|x| - mu) / (sigma + 0.001), -1, 1)`: the own class has the logit
/// `scale (cos(theta - margin z) - margin (1 + z))`, where the angle stays within 0.001 radians of 0 and 180 degrees; the
/// other classes have `scale cos(theta)`; cross entropy, mean over the batch.
///
/// `mu` and `sigma` start at 20 and 100 and move by `t-alpha` towards those of the batch (`rows - 1`; a single row moves
/// `mu` only) before the batch is looked at. They and `z` are constants to the gradient. They move only in passes whose
/// embeddings are tracked (training), and are saved with the loss, so that training resumes exactly.
///
/// # Shapes
/// Embeddings `[batch, dim]`, not normalised: their lengths matter. Weights (the proxies) `[classes, dim]`, standard normal
/// at first, of any length. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct AdafaceLoss {
    proxies: Param<Tensor<2>>,
    lengths: RunningStatistic,
    #[module(skip)]
    config: AdafaceConfig,
}

impl AdafaceLoss {
    /// Running mean and deviation of the lengths of embeddings, `[2]`.
    #[must_use]
    pub fn length_statistics(&self) -> Tensor<1> {
        self.lengths.value()
    }

    /// How long the embeddings are for their kind, in `[-1, 1]`, `[batch, 1]`, outside autodiff.
    fn quality(&self, view: &View<'_>) -> Tensor<2> {
        let anchors = view.anchors();
        let lengths = lengths(anchors.clone().without_autodiff()).clamp(1e-3, 100.0);
        let [rows, _] = lengths.dims();
        let known = self.lengths.value();
        if anchors.is_tracked() {
            let mean = lengths.clone().mean();
            let deviation = if rows > 1 {
                let centred = lengths.clone() - mean.clone().reshape([1, 1]);
                (centred.square().sum().mul_scalar(((rows - 1) as f64).recip())).sqrt()
            } else {
                known.clone().narrow(0, 1, 1).cast(mean.dtype())
            };
            let observed = Tensor::cat(vec![mean, deviation], 0);
            self.lengths.update(observed.cast(known.dtype()), self.config.t_alpha);
        }
        let known = self.lengths.value().cast(lengths.dtype()).reshape([2, 1]);
        let (mean, deviation) = (known.clone().narrow(0, 0, 1), known.narrow(0, 1, 1));
        ((lengths - mean) / deviation.add_scalar(EPSILON))
            .mul_scalar(self.config.h)
            .clamp(-1.0, 1.0)
    }
}

impl MetricLoss for AdafaceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let AdafaceConfig { margin, scale, .. } = self.config;
        let quality = self.quality(view);
        let own = view.class_mask(classes);
        let cosines = view.distances_to(proxies); // [batch, classes]
        let cosine = own_entries(&cosines, &own); // [batch, 1]
        let angle = quality.clone().mul_scalar(-margin); // what is added to theta
        let sine = safe_sqrt(cosine.clone().neg().add_scalar(1.0) * cosine.clone().add_scalar(1.0));
        let widened = cosine.clone() * angle.clone().cos() - sine * angle.clone().sin();

        // theta + angle beyond its limits, asked of the cosine: theta > pi - epsilon - angle, theta < epsilon - angle.
        let seen = cosine.without_autodiff();
        let largest = angle.clone().add_scalar(EPSILON).cos().neg();
        let largest = largest.mask_fill(angle.clone().lower_scalar(-EPSILON), -2.0);
        let smallest = angle.clone().neg().add_scalar(EPSILON).cos();
        let smallest = smallest.mask_fill(angle.greater_scalar(EPSILON), 2.0);
        let widened = widened
            .mask_fill(seen.clone().lower(largest), -EPSILON.cos())
            .mask_fill(seen.greater(smallest), EPSILON.cos());
        let target = (widened - quality.add_scalar(1.0).mul_scalar(margin)).mul_scalar(scale);
        let costs = cross_entropy_with(cosines.mul_scalar(scale), own, target);
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
    use crate::batch::EmbeddingBatch;
    use crate::losses::LossConfig;
    use crate::losses::testing::{directions, matrix, near, scalar};
    use crate::state::{load_named_arrays, named_arrays};

    #[test]
    fn agrees_with_naive_loops_and_remembers() {
        // The last two rows are near 180 and 0 degrees, where the angle is cut.
        let angles = [0.0f64, 0.5, 1.9, 2.2, 0.3 - 3.1, 2.001];
        let sizes = [1.0f64, 40.0, 3.0, 0.5, 2.0, 60.0];
        let labels = [0usize, 0, 1, 2, 0, 1];
        let centres = [0.3f64, 2.0, 1.0];
        let (margin, scale, h, t_alpha) = (0.4, 5.0, 0.9, 0.5);
        let device = Device::flex().autodiff();
        let config = LossConfig::from(AdafaceConfig {
            margin,
            scale,
            h,
            t_alpha,
        });
        let loss = config.init(2, 3, 0, &device).with_proxies(directions(&centres, 3.0));
        let values = angles
            .iter()
            .zip(sizes)
            .flat_map(|(a, size)| [(size * a.cos()) as f32, (size * a.sin()) as f32])
            .collect();
        let rows = matrix(values, [6, 2]);
        let labels_host = labels.map(|label| label as u32).to_vec();
        let batch = EmbeddingBatch::new(rows.clone(), labels_host.clone());
        let tracked = EmbeddingBatch::new(rows.autodiff().require_grad(), labels_host);
        let mean = sizes.iter().sum::<f64>() / 6.0;
        let deviation = (sizes.iter().map(|size| (size - mean).powi(2)).sum::<f64>() / 5.0).sqrt();
        let (mut mu, mut sigma) = (20.0, 100.0);
        for step in 0..3 {
            if step < 2 {
                mu = t_alpha * mean + (1.0 - t_alpha) * mu;
                sigma = t_alpha * deviation + (1.0 - t_alpha) * sigma;
            }
            let mut expected = 0.0;
            for ((angle, size), &label) in angles.iter().zip(sizes).zip(&labels) {
                let z = (h * (size - mu) / (sigma + EPSILON)).clamp(-1.0, 1.0);
                let logit = |c: usize| {
                    let theta = (angle - centres[c]).cos().acos();
                    let pi = std::f64::consts::PI;
                    if c == label {
                        (theta - margin * z).clamp(EPSILON, pi - EPSILON).cos() - margin * (1.0 + z)
                    } else {
                        theta.cos()
                    }
                };
                let e = |c: usize| (scale * logit(c)).exp();
                expected -= (e(label) / (0..3).map(e).sum::<f64>()).ln() / 6.0;
            }
            // The last pass is not tracked: it moves nothing.
            let value = loss.forward_batch(if step < 2 { &tracked } else { &batch });
            near(scalar(&value), expected);
        }
        let restored = load_named_arrays(config.init(2, 3, 9, &device), &named_arrays(&loss)).expect("fits");
        near(
            scalar(&restored.forward_batch(&batch)),
            scalar(&loss.forward_batch(&batch)),
        );
    }
}
