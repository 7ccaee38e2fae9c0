//! SoftTriple: several centres per class, averaged softly, in a softmax with a margin.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::{cross_entropy_with, own_entries};
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::tensor::{Device, Module, Param, Tensor, activation};

/// Settings of [`SoftTripleLoss`]; defaults are those of pytorch-metric-learning, of the paper and of the authors' program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SoftTripleConfig {
    /// How many centres each class has; 10.
    pub centers_per_class: usize,
    /// What similarities are multiplied by before the softmax over classes; 20.
    pub la: f64,
    /// Temperature of the softmax over the centres of a class; 0.1.
    pub gamma: f64,
    /// What is taken from the similarity to the own class, a cosine; 0.01.
    pub margin: f64,
}

impl Default for SoftTripleConfig {
    fn default() -> Self {
        Self {
            centers_per_class: 10,
            la: 20.0,
            gamma: 0.1,
            margin: 0.01,
        }
    }
}

impl MetricLossConfig for SoftTripleConfig {
    type Loss = SoftTripleLoss;
    const SUMMARY: &'static str = "softmax over classes with several softly averaged centres each";
    const PAPER: &'static str = "Qian et al., SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts::PROXIES;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(self.centers_per_class)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        let name = "soft-triple";
        check::count(name, "centers-per-class", self.centers_per_class, default.centers_per_class)?;
        check::above_zero(name, "la", self.la, default.la)?;
        check::above_zero(name, "gamma", self.gamma, default.gamma)?;
        check::finite(name, "margin", self.margin, default.margin)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> SoftTripleLoss {
        // Kaiming-uniform with a = sqrt(5) of a [dim, rows] matrix: the fan-in is the number of centres.
        let rows = classes * self.centers_per_class;
        let bound = (rows.max(1) as f64).sqrt().recip();
        SoftTripleLoss {
            proxies: initial::uniform([rows, dim], bound, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// SoftTriple loss (Qian et al., SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV 2019).
///
/// With cosines `s_ck` to centre `k` of class `c`: `S_c = sum_k softmax_k(s_ck / gamma) s_ck`, and cross entropy over
/// `la S_c`, where the own class has `la (S - margin)`; mean over the batch. The paper's regulariser, which merges centres,
/// is `weight-regularizer = "sparse-centers"` (the paper's weight is 0.2); it is off by default, as in
/// pytorch-metric-learning. Centres start Kaiming-uniform (a = sqrt 5), or at the class means with a little seeded noise.
///
/// # Shapes
/// Embeddings `[batch, dim]`, centres `[classes * centers-per-class, dim]`, those of a class together; neither needs unit
/// norm. Memory: `batch x classes * centers-per-class`.
#[derive(Module, Debug)]
pub struct SoftTripleLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: SoftTripleConfig,
}

impl MetricLoss for SoftTripleLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let SoftTripleConfig {
            centers_per_class,
            la,
            gamma,
            margin,
        } = self.config;
        let [rows, _] = proxies.dims();
        let per_class = centers_per_class.max(1);
        let classes = rows / per_class;
        if classes == 0 {
            return vec![];
        }
        let own = view.class_mask(classes);
        let [batch, _] = own.dims();
        let cosines = view.distances_to(proxies).reshape([batch, classes, per_class]);
        let shares = activation::softmax(cosines.clone().mul_scalar(gamma.recip()), 2);
        let similarities = (shares * cosines).sum_dim(2).reshape([batch, classes]);
        let target = own_entries(&similarities, &own).sub_scalar(margin).mul_scalar(la);
        let costs = cross_entropy_with(similarities.mul_scalar(la), own, target);
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
        let centres = [0.3f64, 2.9, 2.0, -1.2, 1.0, 4.0];
        let (la, gamma, margin) = (5.0, 0.3, 0.2);
        let mut expected = 0.0;
        for (angle, &label) in angles.iter().zip(&labels) {
            let z = |c: usize| {
                let s = [0, 1].map(|k| (angle - centres[2 * c + k]).cos());
                let e = s.map(|s| (s / gamma).exp());
                let mean = (e[0] * s[0] + e[1] * s[1]) / (e[0] + e[1]);
                (la * (mean - if c == label { margin } else { 0.0 })).exp()
            };
            expected -= (z(label) / (0..3).map(z).sum::<f64>()).ln() / 5.0;
        }
        let config = SoftTripleConfig {
            centers_per_class: 2,
            la,
            gamma,
            margin,
        };
        let loss = LossConfig::from(config)
            .init(2, 3, 0, &Device::flex())
            .with_parameters(directions(&centres, 3.0));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }
}
