//! PNP: penalises the negatives ranked before each positive.

use serde::{Deserialize, Serialize};

use super::compat::Compat;
use super::rows::{Ranking, by_rows, count_of, ratio};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Support, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, activation};

/// What a number of negatives before a positive costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PnpVariant {
    /// The number itself.
    #[default]
    O,
    /// Its logarithm: presses less on what is far from right.
    Ds,
    /// Bounded by 1: presses even less.
    Dq,
    /// Grows faster than the number.
    Iu,
    /// Grows as the square of a small number, and as the number of a large one.
    Ib,
}

/// Settings of [`PnpLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PnpConfig {
    /// Steepness of the variant Ib; 2.
    pub b: f64,
    /// Exponent of the variant Dq; 1.
    pub alpha: f64,
    /// How soft ranks are, as a difference of cosines; 0.01.
    pub anneal: f64,
    /// What a number of negatives costs: "O", "Ds", "Dq", "Iu" or "Ib"; O.
    pub variant: PnpVariant,
    /// Whether an anchor is its own positive: "pml" (as in the authors' program) or "paper", where it is not; pml.
    pub compat: Compat,
}

impl Default for PnpConfig {
    fn default() -> Self {
        Self {
            b: 2.0,
            alpha: 1.0,
            anneal: 0.01,
            variant: PnpVariant::O,
            compat: Compat::Pml,
        }
    }
}

impl MetricLossConfig for PnpConfig {
    type Loss = PnpLoss;
    const SUMMARY: &'static str = "the number of negatives ranked before each positive, under one of five penalties";
    const PAPER: &'static str = "Li et al., Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances before Positive Ones is Enough, AAAI";
    const YEAR: u16 = 2022;
    const ACCEPTS: Accepts = Accepts {
        mined: Support::Refused,
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn examples() -> Vec<Self> {
        use PnpVariant::{Dq, Ds, Ib, Iu, O};
        let mut all: Vec<Self> = [O, Ds, Dq, Iu, Ib]
            .into_iter()
            .map(|variant| Self {
                variant,
                ..Self::default()
            })
            .collect();
        all.push(Self {
            compat: Compat::Paper,
            ..Self::default()
        });
        all
    }

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::above_zero("pnp", "b", self.b, default.b)?;
        check::above_zero("pnp", "alpha", self.alpha, default.alpha)?;
        check::above_zero("pnp", "anneal", self.anneal, default.anneal)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> PnpLoss {
        PnpLoss { config: self.clone() }
    }
}

/// PNP loss (Li et al., Rethinking the Optimization of Average Precision: Only Penalizing Negative Instances before
/// Positive Ones is Enough, AAAI 2022).
///
/// With cosines `s` of an anchor, each positive `i` has `r = sum_n 1 / (1 + exp(-(s_n - s_i) / anneal))` negatives before
/// it. It costs `r` (variant O), `log(1 + r)` (Ds), `1 - 1 / (1 + r)^alpha` (Dq), `(1 + r) log(1 + r)` (Iu) or
/// `(b r - log(1 + b r)) / b^2` (Ib): the D variants press less on what is far from right, the I variants more. Mean over an
/// anchor's positives, then over anchors with a positive. It reduces itself.
///
/// As in the authors' program and in pytorch-metric-learning an anchor is among its own positives, where it is right from the
/// start; `compat = "paper"` leaves it out, so that an anchor of a class of `m` costs about `m / (m - 1)` as much.
///
/// Anchors are looked at a block at a time: memory is a few `batch x references`, not the third power of the batch.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct PnpLoss {
    #[module(skip)]
    config: PnpConfig,
}

impl MetricLoss for PnpLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let PnpConfig {
            b,
            alpha,
            anneal,
            variant,
            compat,
        } = self.config;
        let pairs = view.pairs();
        let with_self = compat == Compat::Pml;
        if pairs.positive_total() == 0.0 {
            return vec![];
        }
        let ranking = Ranking::of(&pairs, with_self);
        let costs = by_rows(&view.distances(), ranking.cells(), |start, block| {
            let [length, _] = block.dims();
            let ahead = activation::sigmoid(ranking.ahead(start, block, anneal)); // [block, width, columns]
            let before = count_of(ahead, Ranking::block(&ranking.irrelevant, start, length)); // [block, width]
            let cost = match variant {
                PnpVariant::O => before,
                PnpVariant::Ds => before.log1p(),
                PnpVariant::Dq => before.log1p().mul_scalar(-alpha).exp().neg().add_scalar(1.0),
                PnpVariant::Iu => before.clone().add_scalar(1.0) * before.log1p(),
                PnpVariant::Ib => {
                    let scaled = before.mul_scalar(b);
                    (scaled.clone() - scaled.log1p()).mul_scalar(b.powi(-2))
                }
            };
            ranking.mean(start, cost)
        }); // [anchors, 1]
        let value = ratio((costs * ranking.exists.clone()).sum(), ranking.exists.sum());
        vec![Term::reduced("loss", value)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 1.2, 2.0, 2.1, 0.9, 3.0];
        let labels = [0, 1, 0, 1, 0, 2, 0];
        for config in PnpConfig::examples() {
            let with_self = config.compat == Compat::Pml;
            let mut rows = vec![];
            for q in 0..7 {
                let s = |j: usize| (angles[q] - angles[j]).cos();
                let positives: Vec<usize> = (0..7)
                    .filter(|&i| labels[i] == labels[q] && (with_self || i != q))
                    .collect();
                if labels[q] == 2 {
                    continue;
                }
                let cost = |&i: &usize| {
                    let negatives = (0..7).filter(|&n| labels[n] != labels[q]);
                    let r: f64 = negatives.map(|n| 1.0 / (1.0 + ((s(i) - s(n)) / 0.1).exp())).sum();
                    match config.variant {
                        PnpVariant::O => r,
                        PnpVariant::Ds => (1.0 + r).ln(),
                        PnpVariant::Dq => 1.0 - 1.0 / (1.0 + r),
                        PnpVariant::Iu => (1.0 + r) * (1.0 + r).ln(),
                        PnpVariant::Ib => (2.0 * r - (1.0 + 2.0 * r).ln()) / 4.0,
                    }
                };
                rows.push(positives.iter().map(cost).sum::<f64>() / positives.len() as f64);
            }
            let loss = LossConfig::from(PnpConfig { anneal: 0.1, ..config }).init(2, 3, 0, &Device::flex());
            near(
                scalar(&loss.forward_batch(&circle(&angles, &labels))),
                rows.iter().sum::<f64>() / rows.len() as f64,
            );
        }
    }
}
