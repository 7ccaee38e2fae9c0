//! The point loss: every level stays recognisable as its source.

use serde::{Deserialize, Serialize};

use crate::numerics::log_one_plus_sum_exp;
use crate::tensor::Tensor;

/// The point loss of SSR (Fu et al., Deep Metric Learning with Self-Supervised Ranking, AAAI 2021); section
/// `[intra-class.point]`, at work where `intra-class.point-weight` is above 0.
///
/// With `c_j` the similarity of level j to its source: `L = 1/scale * log(1 + sum_j exp(-scale (c_j - threshold)))`:
/// no level, however strong, leaves its source by more than the threshold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PointConfig {
    /// Least similarity to the source. Default 0.5, SSR's.
    pub threshold: f64,
    /// Sharpness of the soft maximum. Default 12, SSR's.
    pub scale: f64,
}

impl Default for PointConfig {
    fn default() -> Self {
        Self {
            threshold: 0.5,
            scale: 12.0,
        }
    }
}

impl PointConfig {
    /// The loss of every row.
    ///
    /// # Shapes
    /// `similarities` of the levels to their source `[n, levels]`; result `[n, 1]`.
    #[must_use]
    pub fn loss(&self, similarities: Tensor<2>) -> Tensor<2> {
        let violation = similarities.neg().add_scalar(self.threshold).mul_scalar(self.scale);
        log_one_plus_sum_exp(violation, None).mul_scalar(1.0 / self.scale)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if !(-1.0..=1.0).contains(&self.threshold) {
            return Err(format!(
                "intra-class.point.threshold is {}: expected a similarity between -1 and 1",
                self.threshold
            ));
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(format!(
                "intra-class.point.scale is {}: expected a positive number",
                self.scale
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::batch::EmbeddingBatch;
    use crate::intra_class::{IntraClassConfig, IntraClassInput, RankedPairs, Source};
    use crate::tensor::{Device, TensorData};

    #[test]
    fn equals_plain_loops() {
        let rows = [[0.9f32, 0.5, 0.1], [-1.0, -0.5, 0.0], [1.0, 1.0, 1.0]];
        for (threshold, scale) in [(0.5, 12.0), (0.1, 3.0)] {
            let config = PointConfig { threshold, scale };
            let got = config.loss(Tensor::from_data(rows, &Device::flex()));
            for (row, got) in rows.iter().zip(got.try_into_vec_as::<f64>().unwrap()) {
                let sum: f64 = row.iter().map(|&s| (-scale * (f64::from(s) - threshold)).exp()).sum();
                let expected = (1.0 + sum).ln() / scale;
                assert!(
                    (got - expected).abs() < 1e-5 * expected.max(1.0),
                    "{got}, not {expected}"
                );
            }
        }
    }

    /// SSR as a whole: sort loss of neighbours and point loss of graded views, at weight 0.8.
    #[test]
    fn ssr_agrees_with_naive_loops() {
        let levels = 4;
        let config = IntraClassConfig {
            weight: 0.8,
            ranking_weight: 1.0,
            anchor_weight: 0.0,
            point_weight: 1.0,
            source: Source::Augmentations,
            levels,
            ranking: crate::intra_class::RankingConfig {
                pairs: RankedPairs::Adjacent,
                delta: 0.05,
                scale: 12.0,
                ..Default::default()
            },
            ..IntraClassConfig::members()
        };
        config.validate().unwrap();
        let device = Device::flex();
        let rows: Vec<f32> = (0..2 * (1 + levels) * 3).map(|i| ((i * i) as f32).sin()).collect();
        let x = Tensor::<2>::from_data(TensorData::new(rows[..6].to_vec(), [2, 3]), &device);
        let graded = Tensor::<3>::from_data(TensorData::new(rows[6..].to_vec(), [2, levels, 3]), &device);
        let batch = EmbeddingBatch::new(x, vec![0, 1]);
        let output = config.init(3, 1, &device).forward(&IntraClassInput {
            batch: &batch,
            proxies: None,
            teacher: None,
            graded: Some(graded),
            ranked: None,
            statistics: None,
            progress: 0.0,
            seed: 1,
        });
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let mut sum = 0.0;
        for row in 0..2 {
            let source = &rows[row * 3..][..3];
            let s: Vec<f64> = (0..levels)
                .map(|n| cosine(source, &rows[6 + (row * levels + n) * 3..][..3]))
                .collect();
            let sort: f64 = (1..levels).map(|n| (12.0 * (s[n] - s[n - 1] + 0.05)).exp()).sum();
            let point: f64 = s.iter().map(|s| (-12.0 * (s - 0.5)).exp()).sum();
            sum += ((1.0 + sort).ln() + (1.0 + point).ln()) / 12.0;
        }
        let value = output.loss.into_scalar::<f64>();
        assert!((value - 0.8 * sum / 2.0).abs() < 1e-5, "{value}, not {}", 0.4 * sum);
    }
}
