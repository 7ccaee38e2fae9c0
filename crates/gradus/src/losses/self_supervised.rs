//! Two views without labels: another loss where every item is a class of its own.

use serde::{Deserialize, Serialize};

use super::{
    Accepts, DistanceNeed, LabelNeed, Loss, LossConfig, MetricLoss, MetricLossConfig, NtXentConfig, Support, Term, Unit,
    View,
};
use crate::batch::{Comparison, ItemSet};
use crate::tensor::{Device, Module, Tensor};

/// Settings of [`SelfSupervisedLoss`]; defaults are those of pytorch-metric-learning, which has no default loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SelfSupervisedConfig {
    /// The loss, written `[loss.self-supervised.loss.NAME]`; nt-xent.
    pub loss: Box<LossConfig>,
    /// Whether both views are compared with both views, instead of the first with the second; true.
    pub symmetric: bool,
}

impl Default for SelfSupervisedConfig {
    fn default() -> Self {
        Self {
            loss: Box::new(NtXentConfig::default().into()),
            symmetric: true,
        }
    }
}

impl MetricLossConfig for SelfSupervisedConfig {
    type Loss = SelfSupervisedLoss;
    const SUMMARY: &'static str = "another loss on two views, every item a class of its own";
    const PAPER: &'static str = "Chen et al., A Simple Framework for Contrastive Learning of Visual Representations, ICML";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts {
        references: Support::Required,
        mined: Support::Refused,
        labels: LabelNeed::Nothing,
        distances: DistanceNeed::Nothing,
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn examples() -> Vec<Self> {
        let one_way = Self {
            symmetric: false,
            ..Self::default()
        };
        vec![Self::default(), one_way]
    }

    fn validate(&self) -> Result<(), String> {
        self.loss
            .validate()
            .and_then(|()| self.loss.validate_reduces())
            .map_err(|problem| format!("loss.self-supervised.loss: {problem}"))?;
        if self.loss.proxies_per_class().is_some() {
            return Err(format!(
                "loss.self-supervised.loss is {}, which has proxies by class, but two views have no classes; choose a loss \
                 of pairs.",
                self.loss.name()
            ));
        }
        Ok(())
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> SelfSupervisedLoss {
        SelfSupervisedLoss {
            loss: vec![self.loss.init(dim, classes, seed, device)],
            symmetric: self.symmetric,
        }
    }
}

/// Another loss on two views of the same items, as SimCLR uses it (Chen et al., A Simple Framework for Contrastive Learning
/// of Visual Representations, ICML 2020): row `i` of the embeddings and row `i` of the references are the only positives of
/// each other. Labels are not looked at.
///
/// Symmetric: both views together are one batch. Otherwise the first view's rows are anchors and the second's references.
///
/// # Shapes
/// Embeddings and references `[batch, dim]`. Memory: that of the other loss, for `2 batch` rows if symmetric.
#[derive(Module, Debug)]
pub struct SelfSupervisedLoss {
    /// The one loss.
    loss: Vec<Loss>,
    #[module(skip)]
    symmetric: bool,
}

impl SelfSupervisedLoss {
    fn views(&self, comparison: &Comparison) -> Comparison {
        let (first, second) = (&comparison.anchors, comparison.reference_set());
        let set = |embeddings: Tensor<2>, copies: usize| {
            let items = 0..first.len() as u32;
            ItemSet::new(embeddings, (0..copies).flat_map(|_| items.clone()).collect::<Vec<u32>>())
        };
        let views = if self.symmetric {
            let both = vec![first.embeddings.clone(), second.embeddings.clone()];
            Comparison::within(set(Tensor::cat(both, 0), 2))
        } else {
            Comparison::with_references(set(first.embeddings.clone(), 1), set(second.embeddings.clone(), 1))
        };
        views.with_seed(comparison.seed)
    }
}

impl MetricLoss for SelfSupervisedLoss {
    fn check(&self, comparison: &Comparison) -> Result<(), String> {
        let (first, second) = (comparison.anchors.len(), comparison.reference_set().len());
        if first != second {
            return Err(format!(
                "the loss self-supervised compares two views of the same items row by row, but there are {first} embeddings \
                 and {second} reference embeddings; give as many."
            ));
        }
        self.loss
            .iter()
            .try_for_each(|loss| loss.check(&self.views(comparison)))
    }

    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let views = self.views(view.comparison());
        self.loss
            .iter()
            .map(|loss| Term::reduced("loss", loss.forward(&views)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn every_item_is_a_class() {
        let angles = [0.0, 0.5, 2.0, 0.1, 0.9, 1.7];
        let inner = LossConfig::from(NtXentConfig { temperature: 0.3 }).init(2, 3, 0, &Device::flex());
        let (first, second) = (circle(&angles[..3], &[0; 3]), circle(&angles[3..], &[1; 3]));
        let value = |symmetric| {
            let config = SelfSupervisedConfig {
                loss: Box::new(NtXentConfig { temperature: 0.3 }.into()),
                symmetric,
            };
            let comparison = Comparison::with_references(&first, &second);
            let loss = LossConfig::from(config).init(2, 3, 0, &Device::flex());
            loss.check(&comparison).expect("fits");
            scalar(&loss.forward(&comparison))
        };
        let joined = circle(&angles, &[0, 1, 2, 0, 1, 2]);
        near(value(true), scalar(&inner.forward_batch(&joined)));
        let (first, second) = (circle(&angles[..3], &[0, 1, 2]), circle(&angles[3..], &[0, 1, 2]));
        near(
            value(false),
            scalar(&inner.forward(&Comparison::with_references(&first, &second))),
        );
    }

    #[test]
    fn proxies_and_unequal_views_are_refused() {
        let proxies = SelfSupervisedConfig {
            loss: Box::new(crate::losses::ArcfaceConfig::default().into()),
            symmetric: true,
        };
        assert!(proxies.validate().expect_err("arcface").contains("arcface"));
        let loss = LossConfig::from(SelfSupervisedConfig::default()).init(2, 1, 0, &Device::flex());
        let unequal = Comparison::with_references(&circle(&[0.0, 1.0], &[0, 1]), &circle(&[0.0], &[0]));
        assert!(loss.check(&unequal).expect_err("2 and 1").contains("2 embeddings"));
    }
}
