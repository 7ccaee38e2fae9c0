//! Margin: positives inside and negatives outside a (learnable) boundary distance.

use serde::{Deserialize, Serialize};

use super::{
    Accepts, MetricLoss, MetricLossConfig, ReducerConfig, Term, Triplets, TripletsPerAnchor, Unit, View, check,
};
use crate::initial;
use crate::tensor::{Device, Int, Module, Param, Tensor, TensorData, activation};

/// Settings of [`MarginLoss`]; defaults are the paper's as in pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MarginConfig {
    /// Half-width of the band around the boundary that costs; 0.2.
    pub margin: f64,
    /// Boundary distance between positives and negatives (its start if it is learned); 1.2.
    pub beta: f64,
    /// Whether the boundary is learned; false.
    pub learn_beta: bool,
    /// Whether each class has a boundary of its own; false. Matters only if boundaries are learned.
    pub beta_per_class: bool,
    /// Weight of the penalty on the learned boundary; 0.
    pub nu: f64,
    /// How many triplets of each anchor count where none were mined: "all" or a number; all.
    pub triplets_per_anchor: TripletsPerAnchor,
}

impl Default for MarginConfig {
    fn default() -> Self {
        Self {
            margin: 0.2,
            beta: 1.2,
            learn_beta: false,
            beta_per_class: false,
            nu: 0.0,
            triplets_per_anchor: TripletsPerAnchor::All,
        }
    }
}

impl MetricLossConfig for MarginConfig {
    type Loss = MarginLoss;
    const SUMMARY: &'static str = "positives inside, negatives outside a (learnable) boundary distance";
    const PAPER: &'static str = "Wu et al., Sampling Matters in Deep Embedding Learning, ICCV";
    const YEAR: u16 = 2017;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("margin-loss", Unit::Triplet), ("beta-reg-loss", Unit::Element)];

    fn examples() -> Vec<Self> {
        let learned = |beta_per_class, nu| Self {
            learn_beta: true,
            beta_per_class,
            nu,
            ..Self::default()
        };
        vec![Self::default(), learned(false, 0.2), learned(true, 0.1)]
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::DIVISOR
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("margin", "margin", self.margin, default.margin)?;
        check::finite("margin", "beta", self.beta, default.beta)?;
        check::not_negative("margin", "nu", self.nu, default.nu)?;
        if self.beta_per_class && !self.learn_beta {
            return Err(
                "loss.margin.beta-per-class is true but loss.margin.learn-beta is false, so every class would \
                        keep the same boundary; set learn-beta = true or leave beta-per-class out."
                    .into(),
            );
        }
        Ok(())
    }

    fn init(&self, _dim: usize, classes: usize, _seed: u64, device: &Device) -> MarginLoss {
        let count = if self.beta_per_class { classes } else { 1 };
        let beta = self
            .learn_beta
            .then(|| initial::constant([count, 1], self.beta as f32, device));
        MarginLoss {
            beta,
            config: self.clone(),
        }
    }
}

/// Margin loss (Wu et al., Sampling Matters in Deep Embedding Learning, ICCV 2017), over all triplets instead of its
/// distance-weighted sampling.
///
/// With Euclidean distances `d` between normalised embeddings and `[x]+ = max(x, 0)`, summed over all triplets
/// (anchor, positive, negative): `[d_ap - beta + margin]+ + [beta - d_an + margin]+`, divided by the number of non-zero
/// terms; plus `nu beta` if the boundary is learned (per class: `nu beta` of each triplet's anchor over the same
/// divisor). A triplet's two terms do not touch, so pairs are weighted by how many triplets they are in: memory is
/// `batch x batch`.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length.
#[derive(Module, Debug)]
pub struct MarginLoss {
    beta: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: MarginConfig,
}

impl MetricLoss for MarginLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let MarginConfig {
            margin,
            nu,
            triplets_per_anchor,
            ..
        } = self.config;
        let choice = view.triplets(triplets_per_anchor.number());
        if choice.is_empty() {
            return vec![];
        }
        let distances = view.distances(); // [anchors, references]
        let beta = match self.parameters() {
            Some(beta) if beta.dims()[0] > 1 => {
                let labels: Vec<i64> = view.classes().iter().map(|&label| i64::from(label)).collect();
                let data = TensorData::new(labels.clone(), [labels.len()]);
                beta.select(0, Tensor::<1, Int>::from_data(data, &distances.device().inner())) // [anchors, 1]
            }
            Some(beta) => beta, // [1, 1]
            None => view.column(vec![self.config.beta]),
        };
        let pull = activation::relu(view.margin(distances.clone(), beta.clone()).add_scalar(margin));
        let push = activation::relu(view.margin(beta.clone(), distances).add_scalar(margin));
        let active = |values: &Tensor<2>, times: &Tensor<2>| {
            let costs_nothing = values.clone().without_autodiff().lower_equal_scalar(0.0);
            times.clone().mask_fill(costs_nothing, 0.0).sum()
        };
        let divisor = active(&pull, &choice.times_positive) + active(&push, &choice.times_negative);
        let counts = view.column(choice.anchor_counts.clone());
        let triplets = Triplets {
            choice,
            positive: pull,
            negative: push,
            opposite: None,
            cost: None,
        };
        let mut terms = vec![Term::triplets("margin-loss", triplets).with_divisor(divisor.clone())];
        if self.beta.is_some() {
            let penalty = beta.mul_scalar(nu);
            terms.push(match penalty.dims() {
                [1, 1] => Term::reduced("beta-reg-loss", penalty.reshape([1])),
                _ => Term::weighted_elements("beta-reg-loss", penalty, counts).with_divisor(divisor),
            });
        }
        terms
    }

    fn parameters(&self) -> Option<Tensor<2>> {
        self.beta.as_ref().map(Param::val)
    }

    fn class_limit(&self) -> Option<usize> {
        let rows = self.parameters().map(|beta| beta.dims()[0]);
        rows.filter(|&rows| rows > 1)
    }

    /// Takes one boundary `[1, 1]` or one per class `[classes, 1]`, whatever there was before.
    fn with_parameters(self, parameters: Tensor<2>) -> Self {
        let beta = self.beta.map(|beta| {
            beta.map(|old| {
                assert_eq!(parameters.dims()[1], 1, "boundaries are a column");
                let options = (&old.device(), old.dtype());
                Tensor::from_data(parameters.to_data(), options).set_require_grad(old.is_require_grad())
            })
        });
        Self { beta, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{chord, circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 0.6, 2.0, 2.1, 0.9];
        let labels = [0usize, 0, 1, 1, 2, 0];
        let (margin, beta, nu) = (0.25, 0.7, 0.3);
        let (mut sum, mut count) = (0.0, 0.0);
        for a in 0..6 {
            for p in (0..6).filter(|&p| p != a && labels[p] == labels[a]) {
                for n in (0..6).filter(|&n| labels[n] != labels[a]) {
                    let pull = chord(angles[a] - angles[p]) - beta + margin;
                    let push = beta - chord(angles[a] - angles[n]) + margin;
                    for term in [pull, push].into_iter().filter(|&term| term > 0.0) {
                        sum += term;
                        count += 1.0;
                    }
                }
            }
        }
        assert!(count > 4.0);
        let batch = circle(&angles, &labels.map(|label| label as u32));
        let device = Device::flex().autodiff();
        let value = |config| scalar(&LossConfig::from(config).init(2, 3, 0, &device).forward_batch(&batch));
        let fixed: MarginConfig = MarginConfig {
            margin,
            beta,
            nu,
            ..MarginConfig::default()
        };
        near(value(fixed.clone()), sum / count);
        let learned = MarginConfig {
            learn_beta: true,
            ..fixed
        };
        near(value(learned), sum / count + nu * beta);
    }

    #[test]
    fn boundaries_per_class_need_learning() {
        let config = MarginConfig {
            beta_per_class: true,
            ..MarginConfig::default()
        };
        assert!(config.validate().expect_err("not learned").contains("learn-beta"));
    }
}
