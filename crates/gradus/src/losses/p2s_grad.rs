//! P2SGrad: squared error between cosines to class weights and the one-hot label.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::{Accepts, LabelNeed, MetricLoss, MetricLossConfig, Support, Term, Unit, View};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::normalize;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`P2sGradLoss`]: it has none.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct P2sGradConfig {}

impl MetricLossConfig for P2sGradConfig {
    type Loss = P2sGradLoss;
    const SUMMARY: &'static str = "squared error between cosines to class weights and the one-hot label";
    const PAPER: &'static str = "Zhang et al., P2SGrad: Refined Gradients for Optimizing Deep Face Models, CVPR";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts {
        mined: Support::Refused,
        labels: LabelNeed::Classes,
        ..Accepts::PROXIES
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> P2sGradLoss {
        let drawn: Param<Tensor<2>> = initial::uniform([classes, dim], 1.0, seed, "loss.proxies", device);
        let unit = match dim {
            0 => drawn.val(),
            _ => normalize(drawn.val().without_autodiff()),
        };
        P2sGradLoss {
            proxies: replaced(drawn, &unit),
        }
    }
}

/// P2SGrad loss (Zhang et al., P2SGrad: Refined Gradients for Optimizing Deep Face Models, CVPR 2019), as the squared error
/// whose gradient is the paper's.
///
/// With cosines `s_c` between an embedding and the class weights: mean over batch and classes of `(s_c - [c = y])^2`, which
/// no reducer touches. No margin, no scale. Weights start uniform in `[-1, 1]` on every axis, divided by their length.
///
/// pytorch-metric-learning sets its weights back to length 1 in every forward pass and lets their gradient point outwards;
/// here they are divided by their length in the formula, so that the gradient is the true one: the reference's without the
/// part along the weights, which its renormalisation throws away.
///
/// # Shapes
/// Embeddings `[batch, dim]`, weights (the proxies) `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct P2sGradLoss {
    proxies: Param<Tensor<2>>,
}

impl MetricLoss for P2sGradLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let own = view.class_mask(classes);
        let cosines = view.distances_to(proxies); // [batch, classes]
        let wanted = cosines.clone().without_autodiff().zeros_like().mask_fill(own, 1.0);
        vec![Term::reduced("loss", (cosines - wanted).square().mean())]
    }

    fn parameters(&self) -> Option<Tensor<2>> {
        Some(self.proxies.val())
    }

    fn with_parameters(self, parameters: Tensor<2>) -> Self {
        Self {
            proxies: replaced(self.proxies, &parameters),
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
        let mut expected = 0.0;
        for (angle, &label) in angles.iter().zip(&labels) {
            for (c, centre) in centres.iter().enumerate() {
                let wanted = f64::from(u8::from(c == label));
                expected += ((angle - centre).cos() - wanted).powi(2) / 15.0;
            }
        }
        let loss = LossConfig::from(P2sGradConfig::default())
            .init(2, 3, 0, &Device::flex())
            .with_proxies(directions(&centres, 3.0));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }
}
