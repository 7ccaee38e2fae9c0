//! ProxyNCA++: softmax over squared distances to proxies at a low temperature.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::proxy_nca::SQUARED;
use super::softmax::cross_entropy;
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`ProxyNcaPlusPlusLoss`]; the default is the paper's (the authors' program multiplies rows by its root, 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxyNcaPlusPlusConfig {
    /// What squared distances are divided by before the softmax; 1/9.
    pub temperature: f64,
}

impl Default for ProxyNcaPlusPlusConfig {
    fn default() -> Self {
        Self { temperature: 1.0 / 9.0 }
    }
}

impl MetricLossConfig for ProxyNcaPlusPlusConfig {
    type Loss = ProxyNcaPlusPlusLoss;
    const SUMMARY: &'static str = "softmax over squared distances to proxies at a low temperature";
    const PAPER: &'static str =
        "Teh et al., ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis, ECCV";
    const YEAR: u16 = 2020;
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
        let default = Self::default().temperature;
        check::above_zero("proxy-nca-plus-plus", "temperature", self.temperature, default)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> ProxyNcaPlusPlusLoss {
        ProxyNcaPlusPlusLoss {
            proxies: initial::normal([classes, dim], 0.125, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// ProxyNCA++ loss (Teh et al., ProxyNCA++: Revisiting and Revitalizing Proxy Neighborhood Component Analysis, ECCV 2020).
///
/// With squared Euclidean distances `d` between normalised embeddings and proxies `p_c`:
/// `-log(exp(-d(x, p_y) / temperature) / sum_c exp(-d(x, p_c) / temperature))` over all classes `c`; mean over the batch.
/// Proxies start normal with deviation 1/8, as the authors' do. The paper's other changes (global max pooling, layer
/// normalisation, a higher learning rate of proxies, balanced batches) are settings of model and training.
///
/// # Shapes
/// Embeddings `[batch, dim]`, proxies `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct ProxyNcaPlusPlusLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: ProxyNcaPlusPlusConfig,
}

impl MetricLoss for ProxyNcaPlusPlusLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let logits = view
            .as_similarity(view.distances_to(proxies))
            .mul_scalar(self.config.temperature.recip()); // [batch, classes]
        let costs = cross_entropy(logits, &view.class_mask(classes));
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
    use crate::losses::testing::{circle, directions, near, scalar};
    use crate::losses::{LossConfig, ProxyNcaConfig};

    #[test]
    fn is_proxy_nca_at_another_temperature() {
        let batch = circle(&[0.0, 0.5, 1.9, 2.2], &[0, 0, 1, 2]);
        let value = |config: LossConfig| {
            let loss = config.init(2, 3, 0, &Device::flex());
            let loss = loss.with_proxies(directions(&[0.3, 2.0, 1.0], 2.0));
            scalar(&loss.forward_batch(&batch))
        };
        near(
            value(ProxyNcaPlusPlusConfig::default().into()),
            value(ProxyNcaConfig { softmax_scale: 9.0 }.into()),
        );
    }
}
