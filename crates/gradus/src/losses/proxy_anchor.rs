//! Proxy-Anchor: one learned proxy per class, every proxy is an anchor that sees the whole batch.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, ReducerConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::log_one_plus_sum_exp;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`ProxyAnchorLoss`]; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxyAnchorConfig {
    /// Sharpness of the soft maximum over the batch; 32.
    pub alpha: f64,
    /// Cosine margin on both sides; 0.1.
    pub margin: f64,
}

impl Default for ProxyAnchorConfig {
    fn default() -> Self {
        Self {
            alpha: 32.0,
            margin: 0.1,
        }
    }
}

impl MetricLossConfig for ProxyAnchorConfig {
    type Loss = ProxyAnchorLoss;
    const SUMMARY: &'static str = "learned proxies as anchors, soft-max weighted over the batch";
    const PAPER: &'static str = "Kim et al., Proxy Anchor Loss for Deep Metric Learning, CVPR";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Any,
        ..Accepts::PROXIES
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("pos-loss", Unit::Element), ("neg-loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::DIVISOR
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(1)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::above_zero("proxy-anchor", "alpha", self.alpha, default.alpha)?;
        check::finite("proxy-anchor", "margin", self.margin, default.margin)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> ProxyAnchorLoss {
        // Kaiming-normal over the fan-out, which for [classes, dim] is the number of classes.
        let deviation = (2.0 / classes.max(1) as f64).sqrt();
        let proxies = initial::normal([classes, dim], deviation, seed, "loss.proxies", device);
        ProxyAnchorLoss {
            proxies,
            config: self.clone(),
        }
    }
}

/// Proxy-Anchor loss (Kim et al., Proxy Anchor Loss for Deep Metric Learning, CVPR 2020).
///
/// With cosines `s` between embeddings `x_i` and proxies `P_c`, `C+` the classes in the batch and `C` all classes:
/// `mean over C+ of log(1 + sum_{y_i = c} exp(-alpha (s(x_i, P_c) - margin)))
/// + mean over C of log(1 + sum_{y_i != c} exp(alpha (s(x_i, P_c) + margin)))`.
///
/// Proxies start Kaiming-normal (fan-out) and train best with a learning rate about 100 times that of the network.
///
/// # Shapes
/// Embeddings `[batch, dim]`, proxies `[classes, dim]`; neither needs unit norm. Memory: `classes x batch`.
#[derive(Module, Debug)]
pub struct ProxyAnchorLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: ProxyAnchorConfig,
}

impl MetricLoss for ProxyAnchorLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [classes, _] = proxies.dims();
        if classes == 0 {
            return vec![];
        }
        let ProxyAnchorConfig { alpha, margin } = self.config;
        let own = view.class_mask(classes).transpose(); // [classes, batch]
        let mut present = vec![false; classes];
        view.classes().iter().for_each(|&label| present[label as usize] = true);
        let present = present.into_iter().filter(|&present| present).count();

        // What a miner chose seldom weighs less, inside the exponent.
        let weights = view.anchor_weights().sub_scalar(1.0).transpose(); // [1, batch]
        let distances = view.distances_to(proxies).transpose(); // [classes, batch]
        let pull = view.beyond(distances.clone(), margin).mul_scalar(alpha) + weights.clone();
        let push = view.inside(distances, -margin).mul_scalar(alpha) + weights;
        let pull = log_one_plus_sum_exp(pull, Some(own.clone()));
        let push = log_one_plus_sum_exp(push, Some(own.bool_not()));
        vec![
            Term::elements("pos-loss", pull)
                .of_classes()
                .with_divisor(view.number(present as f64)),
            Term::elements("neg-loss", push)
                .of_classes()
                .with_divisor(view.number(classes as f64)),
        ]
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
    use crate::losses::testing::{circle, matrix, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.4, 1.9, 2.2, -1.0];
        let labels = [0usize, 0, 2, 2, 0];
        let proxy_angles = [0.3f64, 1.0, 2.0];
        let (alpha, margin) = (4.0, 0.2);
        let (mut pull, mut push) = (0.0, 0.0);
        for (class, proxy) in proxy_angles.iter().enumerate() {
            let sum = |own: bool, term: &dyn Fn(f64) -> f64| -> f64 {
                let rows = angles.iter().zip(labels).filter(|(_, label)| (*label == class) == own);
                rows.map(|(angle, _)| term((angle - proxy).cos())).sum::<f64>()
            };
            pull += (1.0 + sum(true, &|s| (-alpha * (s - margin)).exp())).ln();
            push += (1.0 + sum(false, &|s| (alpha * (s + margin)).exp())).ln();
        }
        let expected = pull / 2.0 + push / 3.0;

        let device = Device::flex().autodiff();
        let rows: Vec<f32> = proxy_angles
            .iter()
            .flat_map(|a| [(2.0 * a.cos()) as f32, (2.0 * a.sin()) as f32])
            .collect();
        let loss = LossConfig::from(ProxyAnchorConfig { alpha, margin })
            .init(2, 3, 0, &device)
            .with_proxies(matrix(rows, [3, 2]));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }

    #[test]
    fn proxies_start_kaiming_normal_and_stay_trainable_when_replaced() {
        let device = Device::flex().autodiff();
        let loss = ProxyAnchorConfig::default().init(64, 50, 3, &device);
        let proxies = loss.parameters().expect("has proxies");
        let deviation = proxies.clone().square().mean().sqrt();
        assert!((scalar(&deviation) - (2.0f64 / 50.0).sqrt()).abs() < 0.01);
        let id = loss.proxies.id;
        let replaced = loss.with_parameters(proxies.mul_scalar(2.0));
        assert!(replaced.proxies.val().is_require_grad());
        assert_eq!(replaced.proxies.id, id);
    }

    #[test]
    fn refuses_alpha_of_zero() {
        let message = ProxyAnchorConfig {
            alpha: 0.0,
            margin: 0.1,
        }
        .validate()
        .expect_err("alpha 0");
        assert!(message.contains("loss.proxy-anchor.alpha is 0"), "{message}");
    }
}
