//! Contrastive: positives closer than one margin, negatives farther than another.

use serde::{Deserialize, Serialize};

use super::{Accepts, MetricLoss, MetricLossConfig, ReducerConfig, Term, Unit, View, check};
use crate::tensor::{Device, Module, activation};

/// Settings of [`ContrastiveLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ContrastiveConfig {
    /// Distance that positives may keep (with a similarity: that they must reach); 0.
    pub pos_margin: f64,
    /// Distance that negatives must reach (with a similarity: that they may keep); 1 (unit vectors are at most 2 apart).
    pub neg_margin: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self {
            pos_margin: 0.0,
            neg_margin: 1.0,
        }
    }
}

impl MetricLossConfig for ContrastiveConfig {
    type Loss = ContrastiveLoss;
    const SUMMARY: &'static str = "positives within one margin, negatives beyond another";
    const PAPER: &'static str = "Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR";
    const YEAR: u16 = 2006;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("pos-loss", Unit::Pair), ("neg-loss", Unit::Pair)];

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::AVG_NON_ZERO
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("contrastive", "pos-margin", self.pos_margin, default.pos_margin)?;
        check::finite("contrastive", "neg-margin", self.neg_margin, default.neg_margin)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> ContrastiveLoss {
        ContrastiveLoss { config: self.clone() }
    }
}

/// Contrastive loss (Hadsell et al., Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006), in the
/// form of pytorch-metric-learning: without squares, on normalised embeddings.
///
/// With distances `d` and `[x]+ = max(x, 0)`: the mean of the non-zero `[d_p - pos_margin]+` over positive pairs plus the
/// mean of the non-zero `[neg_margin - d_n]+` over negative pairs. With a similarity both differences turn around, and
/// margins such as 1 and 0 make sense.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length. Memory: `batch x batch`.
#[derive(Module, Debug)]
pub struct ContrastiveLoss {
    #[module(skip)]
    config: ContrastiveConfig,
}

impl MetricLoss for ContrastiveLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = view.pairs();
        let distances = view.distances(); // [anchors, references]
        let pull = activation::relu(view.beyond(distances.clone(), self.config.pos_margin));
        let push = activation::relu(view.inside(distances, self.config.neg_margin));
        vec![
            Term::pairs("pos-loss", pull, pairs.positive),
            Term::pairs("neg-loss", push, pairs.negative),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{chord, circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 0.6, 2.0, 2.1];
        let labels = [0, 0, 1, 1, 2];
        let (pos_margin, neg_margin) = (0.6, 0.9);
        let (mut pull, mut push) = (vec![], vec![]);
        for a in 0..5 {
            for b in (0..5).filter(|&b| b != a) {
                let d = chord(angles[a] - angles[b]);
                if labels[a] == labels[b] {
                    pull.push(d - pos_margin)
                } else {
                    push.push(neg_margin - d)
                }
            }
        }
        let mean = |values: Vec<f64>| {
            let active: Vec<f64> = values.into_iter().filter(|&value| value > 0.0).collect();
            assert!(!active.is_empty());
            active.iter().sum::<f64>() / active.len() as f64
        };
        let config = LossConfig::from(ContrastiveConfig { pos_margin, neg_margin });
        let loss = config.init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            mean(pull) + mean(push),
        );
    }
}
