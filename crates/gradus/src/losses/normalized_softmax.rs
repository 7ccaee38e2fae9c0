//! Normalised softmax: classification by cosine to class weights, without a margin.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::cross_entropy;
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::normalize;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`NormalizedSoftmaxLoss`]; the default is that of pytorch-metric-learning and of the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NormalizedSoftmaxConfig {
    /// What cosines are divided by; 0.05.
    pub temperature: f64,
}

impl Default for NormalizedSoftmaxConfig {
    fn default() -> Self {
        Self { temperature: 0.05 }
    }
}

impl MetricLossConfig for NormalizedSoftmaxConfig {
    type Loss = NormalizedSoftmaxLoss;
    const SUMMARY: &'static str = "softmax over cosines to class weights";
    const PAPER: &'static str = "Zhai and Wu, Classification is a Strong Baseline for Deep Metric Learning, BMVC";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Any,
        ..Accepts::PROXIES
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default().temperature;
        check::above_zero("normalized-softmax", "temperature", self.temperature, default)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> NormalizedSoftmaxLoss {
        NormalizedSoftmaxLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// Normalised softmax (Zhai and Wu, Classification is a Strong Baseline for Deep Metric Learning, BMVC 2019).
///
/// Cross entropy over `cosine(x, w_c) / temperature` for the class weights `w_c`; mean over the batch. Under another
/// distance the logits are minus the distance to the weights divided by their Euclidean length. Weights start standard
/// normal.
///
/// # Shapes
/// Embeddings `[batch, dim]`, weights (the proxies) `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct NormalizedSoftmaxLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: NormalizedSoftmaxConfig,
}

impl MetricLoss for NormalizedSoftmaxLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let logits = view
            .as_similarity(view.distances_to(normalize(proxies)))
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
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, directions, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0], [0usize, 0, 1, 2, 1]);
        let centres = [0.3f64, 2.0, 1.0];
        let temperature = 0.2;
        let mut expected = 0.0;
        for (angle, &label) in angles.iter().zip(&labels) {
            let z = |c: usize| ((angle - centres[c]).cos() / temperature).exp();
            expected -= (z(label) / (0..3).map(z).sum::<f64>()).ln() / 5.0;
        }
        let loss = LossConfig::from(NormalizedSoftmaxConfig { temperature })
            .init(2, 3, 0, &Device::flex())
            .with_proxies(directions(&centres, 3.0));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }
}
