//! Margin: positives inside and negatives outside a (learnable) boundary distance.

use serde::{Deserialize, Serialize};

use super::pairs::{Pairs, column, distances, zero};
use super::{MetricLoss, MetricLossConfig, check};
use crate::batch::EmbeddingBatch;
use crate::initial;
use crate::tensor::{Device, Module, Param, Tensor, activation};

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
}

impl Default for MarginConfig {
    fn default() -> Self {
        Self {
            margin: 0.2,
            beta: 1.2,
            learn_beta: false,
            beta_per_class: false,
            nu: 0.0,
        }
    }
}

impl MetricLossConfig for MarginConfig {
    type Loss = MarginLoss;
    const SUMMARY: &'static str = "positives inside, negatives outside a (learnable) boundary distance";
    const PAPER: &'static str = "Wu et al., Sampling Matters in Deep Embedding Learning, ICCV";
    const YEAR: u16 = 2017;

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
            .then(|| initial::constant([count], self.beta as f32, device));
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
    beta: Option<Param<Tensor<1>>>,
    #[module(skip)]
    config: MarginConfig,
}

impl MarginLoss {
    /// The learned boundaries `[1]` or `[classes]`; none if they are fixed.
    #[must_use]
    pub fn beta(&self) -> Option<Tensor<1>> {
        self.beta.as_ref().map(Param::val)
    }
}

impl MetricLoss for MarginLoss {
    fn forward(&self, batch: &EmbeddingBatch) -> Tensor<1> {
        let zero = zero(&batch.embeddings);
        if batch.is_empty() {
            return zero;
        }
        let pairs = Pairs::of(batch);
        if pairs.triplet_total() == 0 {
            return zero;
        }
        let MarginConfig {
            margin,
            nu,
            beta_per_class,
            ..
        } = self.config;
        let distances = distances(batch.embeddings.clone()); // [batch, batch]
        let beta = match self.beta() {
            Some(beta) if beta_per_class => beta.select(0, batch.label_tensor()).unsqueeze_dim::<2>(1), // [batch, 1]
            Some(beta) => beta.unsqueeze_dim::<2>(1),
            None => distances
                .clone()
                .without_autodiff()
                .narrow(0, 0, 1)
                .narrow(1, 0, 1)
                .full_like(self.config.beta),
        };
        let pull =
            activation::relu(distances.clone() - beta.clone() + margin).mask_fill(pairs.positives.bool_not(), 0.0);
        let push =
            activation::relu(beta.clone() - distances.clone() + margin).mask_fill(pairs.negatives.bool_not(), 0.0);

        let in_triplets_as_positive = column(pairs.negative_counts.iter().copied(), &distances); // [batch, 1]
        let in_triplets_as_negative = column(pairs.positive_counts.iter().copied(), &distances);
        let weighted = |positive: Tensor<2>, negative: Tensor<2>| {
            (positive.sum_dim(1) * in_triplets_as_positive.clone()
                + negative.sum_dim(1) * in_triplets_as_negative.clone())
            .sum()
        };
        let active = |x: &Tensor<2>| {
            let x = x.clone().without_autodiff();
            x.zeros_like().mask_fill(x.greater_scalar(0.0), 1.0)
        };
        let count = weighted(active(&pull), active(&push)).clamp_min(1.0);
        let cost = weighted(pull, push) / count.clone();
        let penalty = match &self.beta {
            Some(_) if beta_per_class => {
                let triplets = pairs
                    .positive_counts
                    .iter()
                    .zip(&pairs.negative_counts)
                    .map(|(p, n)| p * n);
                (beta * column(triplets, &distances)).sum().mul_scalar(nu) / count
            }
            Some(_) => beta.sum().mul_scalar(nu),
            None => return zero + cost,
        };
        zero + cost + penalty
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let fixed = MarginConfig {
            margin,
            beta,
            nu,
            ..MarginConfig::default()
        };
        near(scalar(&fixed.init(2, 3, 0, &device).forward(&batch)), sum / count);
        let learned = MarginConfig {
            learn_beta: true,
            ..fixed
        };
        near(
            scalar(&learned.init(2, 3, 0, &device).forward(&batch)),
            sum / count + nu * beta,
        );
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
