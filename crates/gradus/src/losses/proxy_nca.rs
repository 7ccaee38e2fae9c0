//! Proxy-NCA as pytorch-metric-learning has it: neighbourhood components against one proxy per class.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::cross_entropy;
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::tensor::{Device, Module, Param, Tensor};

/// Squared Euclidean distance of normalised rows.
pub(super) const SQUARED: DistanceConfig = DistanceConfig::Lp {
    p: 2.0,
    power: 2.0,
    normalize: true,
};

/// Settings of [`ProxyNcaLoss`]; the default is that of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxyNcaConfig {
    /// What distances are multiplied by before the softmax; 1.
    pub softmax_scale: f64,
}

impl Default for ProxyNcaConfig {
    fn default() -> Self {
        Self { softmax_scale: 1.0 }
    }
}

impl MetricLossConfig for ProxyNcaConfig {
    type Loss = ProxyNcaLoss;
    const SUMMARY: &'static str = "softmax over squared distances to proxies, the own proxy in the denominator";
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
        check::above_zero("proxy-nca", "softmax-scale", self.softmax_scale, default)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> ProxyNcaLoss {
        ProxyNcaLoss {
            proxies: initial::normal([classes, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// Proxy-NCA loss in the form of pytorch-metric-learning (after Movshovitz-Attias et al., No Fuss Distance Metric Learning
/// using Proxies, ICCV 2017).
///
/// With squared Euclidean distances `d` between normalised embeddings and proxies `p_c`:
/// `-log(exp(-scale d(x, p_y)) / sum_c exp(-scale d(x, p_c)))` over all classes `c`; mean over the batch. The paper leaves
/// the own class out of the denominator: that loss is [proxy-nca-original](super::ProxyNcaOriginalLoss). Where something
/// was mined, a row counts by how often it was an anchor. Proxies start standard normal.
///
/// pytorch-metric-learning drops rows whose softmax rounds to 0 (a scale of hundreds); here they keep their cost.
///
/// # Shapes
/// Embeddings `[batch, dim]`, proxies `[classes, dim]`; neither needs unit norm. Memory: `batch x classes`.
#[derive(Module, Debug)]
pub struct ProxyNcaLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: ProxyNcaConfig,
}

impl MetricLoss for ProxyNcaLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let logits = view
            .as_similarity(view.distances_to(proxies))
            .mul_scalar(self.config.softmax_scale); // [batch, classes]
        let costs = cross_entropy(logits, &view.class_mask(classes));
        vec![Term::elements("loss", costs * as_anchor(view))]
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

/// How much each row counts, by how often it was mined as an anchor, `[batch, 1]`.
fn as_anchor(view: &View<'_>) -> Tensor<2> {
    // Compared with a separate set, only anchors count.
    let mut comparison = view.comparison().clone();
    comparison.references = Some(comparison.anchors.clone());
    comparison.anchor_weights()
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
            expected -= (z(label) / (0..3).map(z).sum::<f64>()).ln() / 5.0;
        }
        let loss = LossConfig::from(ProxyNcaConfig { softmax_scale })
            .init(2, 3, 0, &Device::flex())
            .with_proxies(directions(&centres, 3.0));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }
}
