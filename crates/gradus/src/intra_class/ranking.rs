//! The ranking loss: a stronger change must end up farther from its source than a weaker one.

use serde::{Deserialize, Serialize};

use super::arithmetic::{constant, indices, ones_where};
use crate::numerics::log_one_plus_sum_exp;
use crate::tensor::{Tensor, TensorData};

/// Which pairs of levels are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankedPairs {
    /// Every pair (arXiv 2304.10941).
    #[default]
    All,
    /// Only neighbouring levels, as the sort loss of SSR (Fu et al., AAAI 2021).
    Adjacent,
}

/// How the margin grows with the distance between two levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MarginGrowth {
    /// `delta` for every pair (the paper's released code).
    #[default]
    Constant,
    /// `(q - p) delta`: evenly spaced rings (the paper's figure).
    Linear,
}

/// Whether gaps are bounded from below only, or from above too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sides {
    /// At least the margin.
    #[default]
    One,
    /// Also at most `kappa (q - p) delta`, so that rings neither collapse nor fly apart.
    Two,
}

/// The ranking loss; section `[intra-class.ranking]`.
///
/// With `c_j` the similarity of level j to its source and pairs `p < q` (q the stronger):
/// `v_pq = c_q - c_p + delta_pq`, `L = 1/scale * log(1 + sum exp(scale * v_pq))`.
/// Two sides add `u_pq = c_p - c_q - kappa (q - p) delta` to the same sum.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RankingConfig {
    /// Which pairs are ranked. Default `all`.
    pub pairs: RankedPairs,
    /// How the margin grows. Default `constant`.
    pub margin: MarginGrowth,
    /// One or two bounds. Default `one`.
    pub sides: Sides,
    /// The margin `delta`, in units of similarity. Default 0.11, the paper's.
    pub delta: f64,
    /// Upper bound in units of the even spacing, used with two sides. Default 2, ours.
    pub kappa: f64,
    /// Sharpness of the soft maximum. Default 32, the paper's.
    pub scale: f64,
    /// How many halves are summed. The released code adds a "left" half (for each weaker level, all stronger ones) and a
    /// "right" half (for each stronger level, all weaker ones); they run over the same pairs, so 2 doubles the loss.
    /// Default 1.
    pub halves: usize,
}

impl Default for RankingConfig {
    fn default() -> Self {
        Self {
            pairs: RankedPairs::All,
            margin: MarginGrowth::Constant,
            sides: Sides::One,
            delta: 0.11,
            kappa: 2.0,
            scale: 32.0,
            halves: 1,
        }
    }
}

/// Which half of the released loss: the same pairs, met in another order and written the other way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Half {
    Left,
    Right,
}

impl RankingConfig {
    /// The ranked pairs (weaker, stronger) of `levels` levels, counted from 0.
    #[must_use]
    pub fn level_pairs(&self, levels: usize) -> Vec<(usize, usize)> {
        let reach = match self.pairs {
            RankedPairs::All => levels,
            RankedPairs::Adjacent => 1,
        };
        (0..levels)
            .flat_map(|p| (p + 1..levels.min(p.saturating_add(reach).saturating_add(1))).map(move |q| (p, q)))
            .collect()
    }

    /// The margin of two levels `steps` apart.
    #[must_use]
    pub fn margin_of(&self, steps: usize) -> f64 {
        match self.margin {
            MarginGrowth::Constant => self.delta,
            MarginGrowth::Linear => steps as f64 * self.delta,
        }
    }

    /// The loss of every row.
    ///
    /// # Shapes
    /// `similarities` `[n, levels]`, weakest level first; result `[n, 1]`.
    #[must_use]
    pub fn loss(&self, similarities: Tensor<2>) -> Tensor<2> {
        let left = self.half(similarities.clone(), Half::Left);
        if self.halves == 2 {
            left + self.half(similarities, Half::Right)
        } else {
            left
        }
    }

    fn half(&self, similarities: Tensor<2>, half: Half) -> Tensor<2> {
        let [_, levels] = similarities.dims();
        let mut pairs = self.level_pairs(levels);
        if pairs.is_empty() {
            // A single level has no order; the result stays a function of the input.
            return similarities.sum_dim(1).mul_scalar(0.0);
        }
        if half == Half::Right {
            pairs.sort_unstable_by_key(|&(p, q)| (q, p));
        }
        let count = pairs.len();
        let (weaker, stronger) = sides_of(&similarities, &pairs);
        let margins: Vec<f64> = pairs.iter().map(|&(p, q)| self.margin_of(q - p)).collect();
        let margins = constant::<2, 2>(TensorData::new(margins, [1, count]), &similarities);
        let violation = match half {
            Half::Left => stronger.clone() - weaker.clone() + margins,
            Half::Right => margins - (weaker.clone() - stronger.clone()),
        };
        let violation = match self.sides {
            Sides::One => violation,
            Sides::Two => {
                let bounds: Vec<f64> = pairs
                    .iter()
                    .map(|&(p, q)| self.kappa * (q - p) as f64 * self.delta)
                    .collect();
                let bounds = constant::<2, 2>(TensorData::new(bounds, [1, count]), &similarities);
                Tensor::cat(vec![violation, weaker - stronger - bounds], 1)
            }
        };
        log_one_plus_sum_exp(violation.mul_scalar(self.scale), None).mul_scalar(1.0 / self.scale)
    }

    /// Share of ranked pairs in the wrong order (a tie is no order), and share meeting their margin; outside autodiff.
    ///
    /// # Shapes
    /// `similarities` `[n, levels]`; both results `[n, 1]`.
    #[must_use]
    pub fn quality(&self, similarities: &Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let similarities = similarities.clone().without_autodiff();
        let [_, levels] = similarities.dims();
        let pairs = self.level_pairs(levels);
        if pairs.is_empty() {
            let zero = similarities.sum_dim(1).zeros_like();
            return (zero.clone(), zero);
        }
        let count = pairs.len();
        let (weaker, stronger) = sides_of(&similarities, &pairs);
        let margins: Vec<f64> = pairs.iter().map(|&(p, q)| self.margin_of(q - p)).collect();
        let margins = constant::<2, 2>(TensorData::new(margins, [1, count]), &similarities);
        let gap = weaker - stronger;
        let misordered = ones_where(gap.clone().lower_equal_elem(0.0), &gap);
        let met = ones_where((gap.clone() - margins).greater_equal_elem(0.0), &gap);
        (misordered.mean_dim(1), met.mean_dim(1))
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if !(self.delta.is_finite() && self.delta >= 0.0) {
            return Err(format!(
                "intra-class.ranking.delta is {}: expected a margin of at least 0",
                self.delta
            ));
        }
        if !(self.kappa.is_finite() && self.kappa >= 1.0) {
            return Err(format!(
                "intra-class.ranking.kappa is {}: expected at least 1, since the greatest allowed gap cannot be below the least",
                self.kappa
            ));
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(format!(
                "intra-class.ranking.scale is {}: expected a positive number",
                self.scale
            ));
        }
        if !(1..=2).contains(&self.halves) {
            return Err(format!(
                "intra-class.ranking.halves is {}: expected 1, or 2 for the doubled loss of the paper's released code",
                self.halves
            ));
        }
        Ok(())
    }
}

/// The columns of the weaker and of the stronger level of every pair, both `[n, pairs]`.
fn sides_of(similarities: &Tensor<2>, pairs: &[(usize, usize)]) -> (Tensor<2>, Tensor<2>) {
    let column = |side: Vec<usize>| {
        let count = side.len();
        similarities
            .clone()
            .select(1, indices::<1, 2>(side, [count], similarities))
    };
    (
        column(pairs.iter().map(|pair| pair.0).collect()),
        column(pairs.iter().map(|pair| pair.1).collect()),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    const ROWS: [[f32; 5]; 4] = [
        [0.95, 0.86, 0.74, 0.64, 0.55],
        [0.1, 0.3, 0.2, 0.5, 0.4],
        [0.5, 0.5, 0.5, 0.5, 0.5],
        [-0.9, 1.0, -1.0, 0.7, 0.0],
    ];

    fn tensor() -> Tensor<2> {
        Tensor::from_data(ROWS, &Device::flex())
    }

    fn host(x: Tensor<2>) -> Vec<f64> {
        x.try_into_vec_as::<f64>().unwrap()
    }

    /// The definition, in plain loops.
    fn oracle(config: &RankingConfig, c: &[f32]) -> f64 {
        let mut sum = 1.0;
        for p in 0..c.len() {
            for q in p + 1..c.len() {
                if config.pairs == RankedPairs::Adjacent && q != p + 1 {
                    continue;
                }
                let steps = (q - p) as f64;
                let delta = if config.margin == MarginGrowth::Linear {
                    steps * config.delta
                } else {
                    config.delta
                };
                let (weak, strong) = (f64::from(c[p]), f64::from(c[q]));
                sum += (config.scale * (strong - weak + delta)).exp();
                if config.sides == Sides::Two {
                    sum += (config.scale * (weak - strong - config.kappa * steps * config.delta)).exp();
                }
            }
        }
        config.halves as f64 * sum.ln() / config.scale
    }

    #[test]
    fn equals_plain_loops_for_every_switch() {
        for pairs in [RankedPairs::All, RankedPairs::Adjacent] {
            for margin in [MarginGrowth::Constant, MarginGrowth::Linear] {
                for sides in [Sides::One, Sides::Two] {
                    for halves in [1, 2] {
                        for (delta, kappa, scale) in [(0.11, 2.0, 32.0), (0.05, 1.3, 7.0), (0.0, 1.0, 1.0)] {
                            let config = RankingConfig {
                                pairs,
                                margin,
                                sides,
                                delta,
                                kappa,
                                scale,
                                halves,
                            };
                            let got = host(config.loss(tensor()));
                            for (row, got) in ROWS.iter().zip(got) {
                                let expected = oracle(&config, row);
                                assert!(
                                    (got - expected).abs() < 1e-5 * expected.max(1.0),
                                    "{config:?}: {got}, not {expected}"
                                );
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn the_released_left_and_right_halves_coincide() {
        for pairs in [RankedPairs::All, RankedPairs::Adjacent] {
            for margin in [MarginGrowth::Constant, MarginGrowth::Linear] {
                let config = RankingConfig {
                    pairs,
                    margin,
                    ..Default::default()
                };
                let left = host(config.half(tensor(), Half::Left));
                let right = host(config.half(tensor(), Half::Right));
                let doubled = host(RankingConfig { halves: 2, ..config }.loss(tensor()));
                for ((left, right), doubled) in left.into_iter().zip(right).zip(doubled) {
                    assert!((left - right).abs() < 1e-6 && left > 0.0, "left {left}, right {right}");
                    assert!((doubled - 2.0 * left).abs() < 1e-5);
                }
            }
        }
    }

    #[test]
    fn goes_to_zero_when_order_is_right_by_far_and_falls_as_order_becomes_right() {
        let config = RankingConfig::default();
        let loss = |row: [f32; 5]| host(config.loss(Tensor::from_data([row], &Device::flex())))[0];
        assert!(loss([1.0, 0.0, -1.0, -2.0, -3.0]) < 1e-9);
        assert!(loss([1.0, 0.0, -1.0, -2.0, -3.0]) > 0.0);
        let reversed = loss([0.5, 0.6, 0.7, 0.8, 0.9]);
        let half = loss([0.9, 0.8, 0.7, 0.8, 0.9]);
        let right = loss([0.9, 0.8, 0.7, 0.6, 0.5]);
        let wide = loss([1.0, 0.8, 0.6, 0.4, 0.2]);
        assert!(
            reversed > half && half > right && right > wide,
            "{reversed} {half} {right} {wide}"
        );
        // Two sides punish the rings that fly apart.
        let two = RankingConfig {
            sides: Sides::Two,
            ..config
        };
        let loss = |row: [f32; 5]| host(two.loss(Tensor::from_data([row], &Device::flex())))[0];
        assert!(loss([1.0, 0.0, -1.0, -2.0, -3.0]) > loss([1.0, 0.84, 0.68, 0.52, 0.36]));
    }

    #[test]
    fn quality_counts_pairs() {
        let config = RankingConfig {
            pairs: RankedPairs::Adjacent,
            delta: 0.095,
            ..Default::default()
        };
        let (misordered, met) = config.quality(&tensor());
        assert_eq!(host(misordered), [0.0, 0.5, 1.0, 0.5]);
        // Gaps .09 .12 .10 .09; -.2 .1 -.3 .1; ties; -1.9 2 -1.7 .7
        assert_eq!(host(met), [0.5, 0.5, 0.0, 0.5]);
        let linear = RankingConfig {
            margin: MarginGrowth::Linear,
            ..RankingConfig::default()
        };
        assert_eq!(linear.level_pairs(3), [(0, 1), (0, 2), (1, 2)]);
        assert!((linear.margin_of(3) - 0.33).abs() < 1e-12);
    }

    #[test]
    fn one_level_gives_zero() {
        let config = RankingConfig::default();
        let one = Tensor::<2>::from_data([[0.3], [0.4]], &Device::flex());
        assert_eq!(host(config.loss(one.clone())), [0.0, 0.0]);
        assert_eq!(host(config.quality(&one).0), [0.0, 0.0]);
    }
}
