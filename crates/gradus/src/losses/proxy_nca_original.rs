//! Proxy-NCA as published: the own proxy against all others.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::proxy_nca::SQUARED;
use super::softmax::own_entries;
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::log_sum_exp;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`ProxyNcaOriginalLoss`]; the default is the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxyNcaOriginalConfig {
    /// What distances are multiplied by; 1.
    pub softmax_scale: f64,
}

impl Default for ProxyNcaOriginalConfig {
    fn default() -> Self {
        Self { softmax_scale: 1.0 }
    }
}

impl MetricLossConfig for ProxyNcaOriginalConfig {
    type Loss = ProxyNcaOriginalLoss;
    const SUMMARY: &'static str = "squared distance to the own proxy against the soft minimum over all others";
    const PAPER: &'static str = "Movshovitz-Attias et al., No Fuss Distance Metric Learning using Proxies, ICCV";
    const YEAR: u16 = 2017;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Any,
        ..Accepts::PROXIES
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        SQUARED
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default().softmax_scale;
        check::above_zero("proxy-nca-original", "softmax-scale", self.softmax_scale, default)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> ProxyNcaOriginalLoss {
        ProxyNcaOriginalLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// Proxy-NCA loss as published (Movshovitz-Attias et al., No Fuss Distance Metric Learning using Proxies, ICCV 2017).
///
/// With squared Euclidean distances `d` between normalised embeddings and proxies `p_c`:
/// `-log(exp(-scale d(x, p_y)) / sum_{c != y} exp(-scale d(x, p_c)))`, the own class not in the denominator; mean over the
/// batch. The value can be below 0; with a single class it is 0. Proxies start standard normal.
/// pytorch-metric-learning has only [proxy-nca](super::ProxyNcaLoss).
///
/// # Shapes
/// Embeddings `[batch, dim]`, proxies `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct ProxyNcaOriginalLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: ProxyNcaOriginalConfig,
}

impl MetricLoss for ProxyNcaOriginalLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes < 2 {
            return vec![];
        }
        let logits = view
            .as_similarity(view.distances_to(proxies))
            .mul_scalar(self.config.softmax_scale); // [batch, classes]
        let own = view.class_mask(classes);
        let target = own_entries(&logits, &own);
        let costs = log_sum_exp(logits.mask_fill(own, f64::NEG_INFINITY), 1) - target;
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
    use crate::losses::testing::{chord, circle, directions, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0], [0usize, 0, 1, 2, 1]);
        let centres = [0.3f64, 2.0, 1.0];
        let softmax_scale = 1.5;
        let mut expected = 0.0;
        for (angle, &label) in angles.iter().zip(&labels) {
            let z = |c: usize| (-softmax_scale * chord(angle - centres[c]).powi(2)).exp();
            let others: f64 = (0..3).filter(|&c| c != label).map(z).sum();
            expected -= (z(label) / others).ln() / 5.0;
        }
        let loss = LossConfig::from(ProxyNcaOriginalConfig { softmax_scale })
            .init(2, 3, 0, &Device::flex())
            .with_proxies(directions(&centres, 3.0));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }

    #[test]
    fn a_single_class_costs_nothing() {
        let loss = LossConfig::from(ProxyNcaOriginalConfig::default()).init(2, 1, 0, &Device::flex());
        near(scalar(&loss.forward_batch(&circle(&[0.0, 1.0], &[0, 0]))), 0.0);
    }
}
