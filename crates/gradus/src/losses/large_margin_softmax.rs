//! Large-margin softmax: classification with a multiplied angle to the own class.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::{cross_entropy_with, own_entries};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::lengths;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`LargeMarginSoftmaxLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LargeMarginSoftmaxConfig {
    /// What the angle to the own class is multiplied by, a whole number; 4.
    pub margin: usize,
    /// What logits are multiplied by before the softmax; 1.
    pub scale: f64,
}

impl Default for LargeMarginSoftmaxConfig {
    fn default() -> Self {
        Self { margin: 4, scale: 1.0 }
    }
}

impl MetricLossConfig for LargeMarginSoftmaxConfig {
    type Loss = LargeMarginSoftmaxLoss;
    const SUMMARY: &'static str = "softmax with a multiplied angle to the own class, lengths of both sides kept";
    const PAPER: &'static str =
        "Liu et al., Large-Margin Softmax Loss for Convolutional Neural Networks, ICML";
    const YEAR: u16 = 2016;
    const ACCEPTS: Accepts = Accepts::PROXIES;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];
    const LENGTHS_MATTER: bool = true;

    fn examples() -> Vec<Self> {
        let odd = Self {
            margin: 3,
            ..Self::default()
        };
        vec![Self::default(), odd]
    }

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::count("large-margin-softmax", "margin", self.margin, default.margin)?;
        check::above_zero("large-margin-softmax", "scale", self.scale, default.scale)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> LargeMarginSoftmaxLoss {
        LargeMarginSoftmaxLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// Large-margin softmax loss (Liu et al., Large-Margin Softmax Loss for Convolutional Neural Networks, ICML 2016).
///
/// Cross entropy over `scale |w_c| |x| cos(theta_c)`, where the own class has `psi(theta) = (-1)^k cos(margin theta) - 2k`
/// instead of the cosine, for `theta` in `[k pi / margin, (k + 1) pi / margin]`: it falls all the way from 0 to 180
/// degrees. Mean over the batch. `cos(margin theta)` is a polynomial of the cosine and `k` a comparison of cosines, so
/// there is no arc cosine. Weights start standard normal.
///
/// At a cosine of exactly -1 the slope is that of the last piece; pytorch-metric-learning has its opposite there.
///
/// # Shapes
/// Embeddings `[batch, dim]`, weights (the proxies) `[classes, dim]`; the lengths of both matter. Memory:
/// `batch x classes`.
#[derive(Module, Debug)]
pub struct LargeMarginSoftmaxLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: LargeMarginSoftmaxConfig,
}

impl MetricLoss for LargeMarginSoftmaxLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let LargeMarginSoftmaxConfig { margin, scale } = self.config;
        let lengths = lengths(view.anchors()) * lengths(proxies.clone()).transpose(); // [batch, classes]
        vec![multiplied(view, proxies, margin, &lengths.mul_scalar(scale))]
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

/// The costs with the angle to the own class multiplied; `factors` `[batch, classes]` or `[batch, 1]` multiply cosines.
pub(super) fn multiplied(view: &View<'_>, proxies: Tensor<2>, margin: usize, factors: &Tensor<2>) -> Term {
    let [classes, _] = proxies.dims();
    let own = view.class_mask(classes);
    let cosines = view.distances_to(proxies); // [batch, classes]
    let target = psi(own_entries(&cosines, &own), margin);
    let own_factors = match factors.dims() {
        [_, 1] => factors.clone(),
        _ => own_entries(factors, &own),
    };
    let costs = cross_entropy_with(cosines * factors.clone(), own, target * own_factors);
    Term::elements("loss", costs * view.anchor_weights())
}

/// `(-1)^k cos(margin theta) - 2k` of the cosine of `theta`.
fn psi(cosine: Tensor<2>, margin: usize) -> Tensor<2> {
    // Chebyshev polynomials: cos(n theta) = 2 cos(theta) cos((n - 1) theta) - cos((n - 2) theta).
    let (mut before, mut multiple) = (cosine.ones_like(), cosine.clone());
    for _ in 1..margin {
        let next = (cosine.clone() * multiple.clone()).mul_scalar(2.0) - before;
        (before, multiple) = (multiple, next);
    }
    let seen = cosine.without_autodiff();
    let (mut sign, mut pieces) = (seen.ones_like(), seen.zeros_like());
    for piece in 1..margin {
        let passed = seen
            .clone()
            .lower_equal_scalar((PI * piece as f64 / margin as f64).cos());
        pieces = pieces.clone().mask_where(passed.clone(), pieces.add_scalar(1.0));
        sign = sign.clone().mask_where(passed, sign.neg());
    }
    multiple * sign - pieces.mul_scalar(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, directions, matrix, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0, 3.1], [0usize, 0, 1, 2, 1, 0]);
        let centres = [0.3f64, 2.0, 1.0];
        for margin in [1, 3, 4] {
            let mut expected = 0.0;
            for (angle, &label) in angles.iter().zip(&labels) {
                let z = |c: usize| {
                    let theta = (angle - centres[c]).cos().acos();
                    let k = (theta * margin as f64 / PI).floor();
                    let psi = (-1.0_f64).powf(k) * (margin as f64 * theta).cos() - 2.0 * k;
                    let cosine = if c == label { psi } else { theta.cos() };
                    (0.5 * 1.7 * 3.0 * cosine).exp()
                };
                expected -= (z(label) / (0..3).map(z).sum::<f64>()).ln() / 6.0;
            }
            let loss = LossConfig::from(LargeMarginSoftmaxConfig { margin, scale: 0.5 })
                .init(2, 3, 0, &Device::flex())
                .with_proxies(directions(&centres, 3.0));
            near(
                scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
                expected,
            );
        }
    }

    #[test]
    fn psi_falls_all_the_way() {
        let cosines: Vec<f32> = (0..=100).map(|step| 1.0 - step as f32 / 50.0).collect();
        let found = psi(matrix(cosines, [101, 1]), 4).try_to_vec_as::<f32>().expect("floats");
        assert!(found.windows(2).all(|pair| pair[1] < pair[0]));
        near(f64::from(found[0]), 1.0);
        near(f64::from(found[100]), -7.0);
    }
}
