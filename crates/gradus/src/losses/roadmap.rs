//! ROADMAP: average precision whose soft ranks bound the true ones, with calibrated similarities.

use serde::{Deserialize, Serialize};

use super::rows::{Ranking, by_rows, count_of};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Support, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, activation};

/// Settings of [`RoadmapLoss`]; defaults are the paper's, and for `delta` that of the authors' program.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RoadmapConfig {
    /// How soft the ranks of negatives are, as a difference of cosines; 0.01.
    pub temperature: f64,
    /// Slope for negatives that are ahead by more than `delta`; 100.
    pub rho: f64,
    /// Difference of cosines from which that slope holds; 0.05.
    pub delta: f64,
    /// Share of the calibration, from 0 to 1; 0.5.
    pub lambda: f64,
    /// Cosine that positives must reach; 0.9.
    pub alpha: f64,
    /// Cosine that negatives may keep; 0.6.
    pub beta: f64,
}

impl Default for RoadmapConfig {
    fn default() -> Self {
        Self {
            temperature: 0.01,
            rho: 100.0,
            delta: 0.05,
            lambda: 0.5,
            alpha: 0.9,
            beta: 0.6,
        }
    }
}

impl MetricLossConfig for RoadmapConfig {
    type Loss = RoadmapLoss;
    const SUMMARY: &'static str = "an upper bound of one minus the average precision, with calibrated similarities";
    const PAPER: &'static str = "Ramzi et al., Robust and Decomposable Average Precision for Image Retrieval, NeurIPS";
    const YEAR: u16 = 2021;
    const ACCEPTS: Accepts = Accepts {
        mined: Support::Refused,
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[
        ("ap-loss", Unit::Element),
        ("pos-loss", Unit::Pair),
        ("neg-loss", Unit::Pair),
    ];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::above_zero("roadmap", "temperature", self.temperature, default.temperature)?;
        check::above_zero("roadmap", "rho", self.rho, default.rho)?;
        check::not_negative("roadmap", "delta", self.delta, default.delta)?;
        check::within(
            "roadmap",
            "lambda",
            self.lambda,
            default.lambda,
            [0.0, 1.0 + f64::EPSILON],
        )?;
        check::finite("roadmap", "alpha", self.alpha, default.alpha)?;
        check::finite("roadmap", "beta", self.beta, default.beta)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> RoadmapLoss {
        RoadmapLoss { config: self.clone() }
    }
}

/// ROADMAP (Ramzi et al., Robust and Decomposable Average Precision for Image Retrieval, NeurIPS 2021): SupAP and a
/// calibration.
///
/// With cosines `s` of an anchor and a positive `i`: `R+ = 1 + ` the number of positives before it, which has no slope, and
/// `R- = sum_n h(s_n - s_i)` over negatives, where `h(x)` is `g(x) = 1 / (1 + exp(-x / temperature))` up to 0,
/// `g(x) + 1/2` up to `delta` and `g(delta) + 1/2 + rho (x - delta)` beyond: never below the true step. The loss is
/// `1 - lambda` times the mean over anchors with a positive of `1 - mean_i R+ / (R+ + R-)`, plus `lambda` times the mean of
/// `[alpha - s_p]+` over positive pairs and the mean of `[s_n - beta]+` over negative pairs.
///
/// Defaults: `temperature`, `rho` 100, `lambda` 0.5, `alpha` 0.9 and `beta` 0.6 are the paper's; `delta` is that of the
/// authors' program. The program differs from the paper in three ways: beyond `delta` it takes `rho x + 1.44`, which jumps
/// there by 4.9; it adds the two parts without weights (twice the value here at `lambda` 0.5); and it averages the
/// calibration over its non-zero pairs.
///
/// Anchors are looked at a block at a time: memory is a few `batch x references`, not the third power of the batch.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`.
#[derive(Module, Debug)]
pub struct RoadmapLoss {
    #[module(skip)]
    config: RoadmapConfig,
}

impl MetricLoss for RoadmapLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let RoadmapConfig {
            temperature,
            rho,
            delta,
            lambda,
            alpha,
            beta,
        } = self.config;
        let pairs = view.pairs();
        let cosines = view.distances(); // [anchors, references]
        let pull = activation::relu(cosines.clone().neg().add_scalar(alpha)).mul_scalar(lambda);
        let push = activation::relu(cosines.clone().sub_scalar(beta)).mul_scalar(lambda);
        let mut terms = vec![];
        if pairs.positive_total() > 0.0 {
            let ranking = Ranking::of(&pairs, false);
            let most = delta / temperature;
            let bend = 1.0 / (1.0 + (-most).exp()) + 0.5;
            let costs = by_rows(&cosines, ranking.cells(), |start, block| {
                let [length, _] = block.dims();
                let ahead = ranking.ahead(start, block, temperature); // [block, width, columns]
                let constant = ahead.clone().without_autodiff();
                let before = constant
                    .zeros_like()
                    .mask_fill(constant.clone().greater_scalar(0.0), 1.0);
                let jump = before.clone().mul_scalar(0.5);
                let linear = ahead
                    .clone()
                    .sub_scalar(most)
                    .mul_scalar(rho * temperature)
                    .add_scalar(bend);
                let bound = (activation::sigmoid(ahead) + jump).mask_where(constant.greater_scalar(most), linear);
                let positives = count_of(before, Ranking::block(&ranking.relevant, start, length)).add_scalar(1.0);
                let negatives = count_of(bound, Ranking::block(&ranking.irrelevant, start, length));
                let precision = positives.clone() / (positives + negatives);
                ranking.mean(start, precision).neg().add_scalar(1.0)
            });
            let costs = costs.mul_scalar(1.0 - lambda);
            terms.push(Term::weighted_elements("ap-loss", costs, ranking.exists));
        }
        terms.push(Term::pairs("pos-loss", pull, pairs.positive));
        terms.push(Term::pairs("neg-loss", push, pairs.negative));
        terms
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
        let config = RoadmapConfig {
            temperature: 0.1,
            rho: 3.0,
            delta: 0.2,
            lambda: 0.3,
            ..RoadmapConfig::default()
        };
        let g = |x: f64| 1.0 / (1.0 + (-x / 0.1f64).exp());
        let h = |x: f64| match x {
            _ if x <= 0.0 => g(x),
            _ if x <= 0.2 => g(x) + 0.5,
            _ => g(0.2) + 0.5 + 3.0 * (x - 0.2),
        };
        let (mut costs, mut pull, mut push) = (vec![], vec![], vec![]);
        for q in 0..7 {
            let s = |j: usize| (angles[q] - angles[j]).cos();
            let positives: Vec<usize> = (0..7).filter(|&i| i != q && labels[i] == labels[q]).collect();
            let negatives: Vec<usize> = (0..7).filter(|&i| labels[i] != labels[q]).collect();
            pull.extend(positives.iter().map(|&p| (0.9 - s(p)).max(0.0)));
            push.extend(negatives.iter().map(|&n| (s(n) - 0.6).max(0.0)));
            let precision = |&i: &usize| {
                let before = 1.0 + positives.iter().filter(|&&j| s(j) > s(i)).count() as f64;
                before / (before + negatives.iter().map(|&n| h(s(n) - s(i))).sum::<f64>())
            };
            if !positives.is_empty() {
                costs.push(1.0 - positives.iter().map(precision).sum::<f64>() / positives.len() as f64);
            }
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let loss = LossConfig::from(config).init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            0.7 * mean(&costs) + 0.3 * (mean(&pull) + mean(&push)),
        );
    }
}
