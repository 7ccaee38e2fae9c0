//! Matryoshka: another loss on nested widths, so that the first axes of an embedding are an embedding themselves.

use serde::{Deserialize, Serialize};

use super::{
    Accepts, DistanceNeed, Loss, LossConfig, MetricLoss, MetricLossConfig, MultiSimilarityConfig, Term, Unit, View, check,
};
use crate::batch::{Comparison, ItemSet};
use crate::numerics::normalize;
use crate::tensor::{Device, Module, Tensor};

/// Width below which no further half is taken by default.
const SMALLEST: usize = 8;

/// Settings of [`MatryoshkaLoss`]; the paper weighs all widths alike and halves them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MatryoshkaConfig {
    /// The loss of every width, written `[loss.matryoshka.loss.NAME]`; multi-similarity.
    pub loss: Box<LossConfig>,
    /// Widths, each at most that of the embeddings; none: all of it, a half, a quarter, down to 8.
    pub widths: Vec<usize>,
    /// What the loss of each width is multiplied by; none: 1.
    pub weights: Vec<f64>,
}

impl Default for MatryoshkaConfig {
    fn default() -> Self {
        Self {
            loss: Box::new(MultiSimilarityConfig::default().into()),
            widths: vec![],
            weights: vec![],
        }
    }
}

impl MatryoshkaConfig {
    fn widths_of(&self, dim: usize) -> Vec<usize> {
        if !self.widths.is_empty() {
            return self.widths.clone();
        }
        let mut widths = vec![dim];
        while let Some(half) = widths.last().map(|width| width / 2).filter(|half| *half >= SMALLEST) {
            widths.push(half);
        }
        widths
    }
}

impl MetricLossConfig for MatryoshkaConfig {
    type Loss = MatryoshkaLoss;
    const SUMMARY: &'static str = "another loss on the first axes of the embeddings, for several widths";
    const PAPER: &'static str = "Kusupati et al., Matryoshka Representation Learning, NeurIPS";
    const YEAR: u16 = 2022;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Nothing,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn examples() -> Vec<Self> {
        let two = Self {
            widths: vec![2, 4],
            weights: vec![0.5, 2.0],
            ..Self::default()
        };
        vec![Self::default(), two]
    }

    fn accepts(&self) -> Accepts {
        Accepts {
            distances: DistanceNeed::Nothing,
            ..self.loss.accepts()
        }
    }

    fn validate(&self) -> Result<(), String> {
        self.loss
            .validate()
            .and_then(|()| self.loss.validate_reduces())
            .map_err(|problem| format!("loss.matryoshka.loss: {problem}"))?;
        if self.widths.contains(&0) {
            return Err("loss.matryoshka.widths holds 0, but a width must be at least 1.".into());
        }
        if self.widths.is_empty() && !self.weights.is_empty() {
            return Err("loss.matryoshka.weights is given without widths; give both, one weight per width.".into());
        }
        check::weights("matryoshka", &self.weights, self.widths.len(), "widths")
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> MatryoshkaLoss {
        let widths = self.widths_of(dim);
        MatryoshkaLoss {
            losses: (seed..)
                .zip(&widths)
                .map(|(seed, &width)| self.loss.init(width, classes, seed, device))
                .collect(),
            widths,
            weights: self.weights.clone(),
        }
    }
}

/// Matryoshka representation loss (Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022).
///
/// The sum over widths `w` of `weight_w` times another loss of the first `w` axes of the embeddings. Each width has
/// parameters of its own; its proxies can start at the first axes of class means, divided by their length. What may be mined, compared with and known of the items is up
/// to the other loss, which says so when it sees the batch; its distance, reducer and regularisers stand in its own section.
///
/// # Shapes
/// Embeddings `[batch, dim]`, `dim` at least the largest width. Memory: that of the other loss, for every width.
#[derive(Module, Debug)]
pub struct MatryoshkaLoss {
    losses: Vec<Loss>,
    #[module(skip)]
    widths: Vec<usize>,
    #[module(skip)]
    weights: Vec<f64>,
}

fn narrowed(comparison: &Comparison, width: usize) -> Comparison {
    let first = |set: &ItemSet| ItemSet {
        embeddings: set.embeddings.clone().narrow(1, 0, width),
        ..set.clone()
    };
    Comparison {
        anchors: first(&comparison.anchors),
        references: comparison.references.as_ref().map(first),
        ..comparison.clone()
    }
}

impl MetricLoss for MatryoshkaLoss {
    fn check(&self, comparison: &Comparison) -> Result<(), String> {
        let [_, dim] = comparison.anchors.embeddings.dims();
        if let Some(width) = self.widths.iter().find(|width| **width > dim) {
            return Err(format!(
                "loss.matryoshka.widths holds {width}, but the embeddings have width {dim}."
            ));
        }
        let mut parts = self.losses.iter().zip(&self.widths);
        parts.try_for_each(|(loss, &width)| loss.check(&narrowed(comparison, width)))
    }

    fn has_inner_proxies(&self) -> bool {
        self.losses.iter().any(Loss::has_proxies)
    }

    fn with_inner_proxies(self, means: &Tensor<2>) -> Self {
        let first = |width: usize| normalize(means.clone().narrow(1, 0, width));
        let parts = self.losses.into_iter().zip(&self.widths);
        Self {
            losses: parts.map(|(loss, &width)| loss.with_proxies(first(width))).collect(),
            ..self
        }
    }

    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let mut sum = view.zero();
        for (index, (loss, &width)) in self.losses.iter().zip(&self.widths).enumerate() {
            let weight = self.weights.get(index).copied().unwrap_or(1.0);
            sum = sum + loss.forward(&narrowed(view.comparison(), width)).mul_scalar(weight);
        }
        vec![Term::reduced("loss", sum)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::EmbeddingBatch;
    use crate::losses::testing::{matrix, near, scalar};

    #[test]
    fn is_the_sum_over_widths() {
        let device = Device::flex();
        let inner = LossConfig::from(crate::losses::CosfaceConfig::default());
        let config = LossConfig::from(MatryoshkaConfig {
            loss: Box::new(inner.clone()),
            widths: vec![3, 2],
            weights: vec![1.0, 0.5],
        });
        let rows = matrix((0..12).map(|i| (i as f32).sin()).collect(), [4, 3]);
        let labels = vec![0, 1, 1, 0];
        let value = |loss: Loss, width: usize| {
            let rows = rows.clone().narrow(1, 0, width);
            scalar(&loss.forward_batch(&EmbeddingBatch::new(rows, labels.clone())))
        };
        let expected = value(inner.init(3, 2, 5, &device), 3) + 0.5 * value(inner.init(2, 2, 6, &device), 2);
        near(value(config.init(3, 2, 5, &device), 3), expected);
    }

    #[test]
    fn proxies_start_at_the_first_axes_of_class_means() {
        let device = Device::flex();
        let config = LossConfig::from(MatryoshkaConfig {
            loss: Box::new(crate::losses::CosfaceConfig::default().into()),
            widths: vec![3, 2],
            weights: vec![],
        });
        let means = matrix(vec![3.0, 4.0, 12.0, 0.0, -2.0, 1.0], [2, 3]);
        let loss = config.init(3, 2, 5, &device);
        assert!(loss.has_proxies());
        let loss = loss.with_proxies(means);
        let crate::losses::BaseLoss::Matryoshka(inner) = &loss.base else {
            panic!("not matryoshka")
        };
        let found: Vec<f32> = inner.losses[1].parameters().expect("proxies").try_to_vec_as().expect("floats");
        for (found, expected) in found.iter().zip([0.6, 0.8, 0.0, -1.0]) {
            near(f64::from(*found), expected);
        }
        assert_eq!(inner.losses[0].parameters().expect("proxies").dims(), [2, 3]);
        assert!(!LossConfig::from(MatryoshkaConfig::default()).init(8, 2, 0, &device).has_proxies());
    }

    #[test]
    fn halves_by_default_and_refuses_what_does_not_fit() {
        let config = MatryoshkaConfig::default();
        assert_eq!(config.widths_of(64), [64, 32, 16, 8]);
        assert_eq!(config.widths_of(5), [5]);
        let wide = MatryoshkaConfig {
            widths: vec![2, 9],
            ..Default::default()
        };
        wide.validate().expect("fits some network");
        let loss = LossConfig::from(wide).init(3, 2, 0, &Device::flex());
        let batch = EmbeddingBatch::new(matrix(vec![1.0; 6], [2, 3]), vec![0, 1]);
        let message = loss.check(&Comparison::within(&batch)).expect_err("width 9");
        assert!(message.contains('9') && message.contains('3'), "{message}");
        let weights = MatryoshkaConfig {
            widths: vec![2, 1],
            weights: vec![1.0],
            ..Default::default()
        };
        assert!(weights.validate().expect_err("one weight").contains("matryoshka.weights"));
        let inner = MatryoshkaConfig {
            loss: Box::new(crate::losses::CosfaceConfig { margin: 0.1, scale: 0.0 }.into()),
            ..Default::default()
        };
        assert!(inner.validate().expect_err("scale 0").contains("loss.cosface.scale"));
    }
}
