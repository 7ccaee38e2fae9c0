//! Several losses at once: their weighted sum.

use serde::{Deserialize, Serialize};

use super::{
    Accepts, ContrastiveConfig, DistanceNeed, Loss, LossConfig, MetricLoss, MetricLossConfig, MultiSimilarityConfig, Term,
    Unit, View, check,
};
use crate::batch::Comparison;
use crate::tensor::{Device, Module, Tensor};

/// Settings of [`MultipleLosses`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MultipleLossesConfig {
    /// The losses, one table `[[loss.multiple-losses.losses]]` with the section of one loss each; multi-similarity and
    /// contrastive.
    pub losses: Vec<LossConfig>,
    /// What each loss is multiplied by; none: 1.
    pub weights: Vec<f64>,
}

impl Default for MultipleLossesConfig {
    fn default() -> Self {
        Self {
            losses: vec![
                MultiSimilarityConfig::default().into(),
                ContrastiveConfig::default().into(),
            ],
            weights: vec![],
        }
    }
}

impl MetricLossConfig for MultipleLossesConfig {
    type Loss = MultipleLosses;
    const SUMMARY: &'static str = "weighted sum of several losses";
    const PAPER: &'static str = "Musgrave et al., PyTorch Metric Learning, arXiv";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Nothing,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn accepts(&self) -> Accepts {
        Accepts::all(self.losses.iter().map(LossConfig::accepts)).unwrap_or(Self::ACCEPTS)
    }

    fn validate(&self) -> Result<(), String> {
        if self.losses.is_empty() {
            return Err("loss.multiple-losses.losses is empty; give at least one loss.".into());
        }
        if Accepts::all(self.losses.iter().map(LossConfig::accepts)).is_none() {
            let names: Vec<&str> = self.losses.iter().map(LossConfig::name).collect();
            return Err(format!(
                "loss.multiple-losses.losses are {}, but one of them requires references (a second view) or a miner that another \
                 refuses; see \"accepts\" in `gradus list losses --json`.",
                names.join(", ")
            ));
        }
        for (number, loss) in self.losses.iter().enumerate() {
            loss.validate()
                .and_then(|()| loss.validate_reduces())
                .map_err(|problem| format!("loss.multiple-losses.losses[{number}]: {problem}"))?;
        }
        check::weights("multiple-losses", &self.weights, self.losses.len(), "losses")
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> MultipleLosses {
        MultipleLosses {
            losses: (seed..)
                .zip(&self.losses)
                .map(|(seed, loss)| loss.init(dim, classes, seed, device))
                .collect(),
            weights: self.weights.clone(),
        }
    }
}

/// The weighted sum of several losses on the same comparison (the wrapper of that name in Musgrave et al., PyTorch Metric
/// Learning, arXiv 2020).
///
/// Each loss keeps its parameters (proxies can start at class means), distance, reducer and regularisers, and says what it
/// cannot look at. What was mined is the same for all.
///
/// # Shapes
/// Those of the losses.
#[derive(Module, Debug)]
pub struct MultipleLosses {
    losses: Vec<Loss>,
    #[module(skip)]
    weights: Vec<f64>,
}

impl MetricLoss for MultipleLosses {
    fn check(&self, comparison: &Comparison) -> Result<(), String> {
        self.losses.iter().try_for_each(|loss| loss.check(comparison))
    }

    fn has_inner_proxies(&self) -> bool {
        self.losses.iter().any(Loss::has_proxies)
    }

    fn with_inner_proxies(self, means: &Tensor<2>) -> Self {
        let losses = self.losses.into_iter();
        Self {
            losses: losses.map(|loss| loss.with_proxies(means.clone())).collect(),
            ..self
        }
    }

    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let mut sum = view.zero();
        for (index, loss) in self.losses.iter().enumerate() {
            let weight = self.weights.get(index).copied().unwrap_or(1.0);
            sum = sum + loss.forward(view.comparison()).mul_scalar(weight);
        }
        vec![Term::reduced("loss", sum)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn is_the_weighted_sum() {
        let batch = circle(&[0.0, 0.5, 0.6, 2.0], &[0, 0, 1, 1]);
        let value = |config: &LossConfig| scalar(&config.init(2, 2, 0, &Device::flex()).forward_batch(&batch));
        let both = MultipleLossesConfig {
            weights: vec![0.5, 3.0],
            ..Default::default()
        };
        let expected = 0.5 * value(&both.losses[0]) + 3.0 * value(&both.losses[1]);
        near(value(&both.into()), expected);
    }

    #[test]
    fn proxies_of_all_losses_start_at_class_means() {
        let config = MultipleLossesConfig {
            losses: vec![
                ContrastiveConfig::default().into(),
                crate::losses::CosfaceConfig::default().into(),
                crate::losses::MatryoshkaConfig {
                    loss: Box::new(crate::losses::CosfaceConfig::default().into()),
                    ..Default::default()
                }
                .into(),
            ],
            weights: vec![],
        };
        let loss = LossConfig::from(config).init(2, 2, 0, &Device::flex());
        assert!(loss.has_proxies());
        let means = crate::losses::testing::directions(&[0.0, 2.0], 1.0);
        let batch = circle(&[0.0, 2.0], &[0, 1]);
        // Every item on its own proxy, so that cosine minus margin is ahead of the other class, 115 degrees away.
        assert!(scalar(&loss.with_proxies(means).forward_batch(&batch)) < 1e-3);
    }

    #[test]
    fn is_read_from_a_list_of_sections() {
        let text = "weights = [1.0, 0.1]\n[[losses]]\n[losses.cosface]\nmargin = 0.2\n[[losses]]\n[losses.contrastive]\n\
                    distance = \"cosine\"\n";
        let read: MultipleLossesConfig = toml::from_str(text).expect("reads");
        read.validate().expect("valid");
        assert_eq!(read.losses[0].name(), "cosface");
        let none = MultipleLossesConfig {
            losses: vec![],
            weights: vec![],
        };
        assert!(none.validate().expect_err("empty").contains("at least one"));
        let message = toml::from_str::<MultipleLossesConfig>("[[losses]]\n[losses.cosfase]\n").expect_err("unknown");
        assert!(message.to_string().contains("cosfase"), "{message}");
    }
}
