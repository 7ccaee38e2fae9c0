//! Intra-class adaptive augmentation: further members drawn around each sample along the spread of its class.

use gradus_core::random::{self, Rng, purpose};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{AugmentationInput, Augmented, EmbeddingAugmentation, refuse};
use crate::batch::{Comparison, ItemSet};
use crate::intra_class::arithmetic::constant;
use crate::intra_class::synthesis::ClassCovarianceConfig;
use crate::losses::LossConfig;
use crate::numerics::normalize;
use crate::tensor::{Tensor, TensorData};

/// Further members of every class (IAA: Fu et al., Deep Metric Learning with Intra-class Adaptive Augmentation, TMM
/// 2022).
///
/// Of row `x_i` come `samples` rows of its class, `unit(x_i + sqrt(strength) e)` with `e ~ N(0, Sigma')`, `Sigma'`
/// the diagonal covariance of the class, blended with its neighbours' where the class is small
/// ([`ClassStatistics`](crate::intra_class::ClassStatistics)); the base loss takes them for images. Gradients flow
/// into `x_i`, none into the statistics, which are those of training embeddings as evaluation sees them, refreshed
/// every few epochs. Rows are put back on the unit sphere, where all embeddings here live (ours).
///
/// For losses of any kind but those that pick rows by their place. A miner chooses among all rows.
///
/// # Shapes
/// Rows `[b (1 + samples), d]`: the batch, then `samples` for each row in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClassCovariance {
    /// Further rows for each row. Default 3, the authors'.
    pub samples: usize,
    /// What the class covariance is multiplied by. Default 0.7; the authors' are 0.6 to 0.8.
    pub strength: f64,
    /// How the statistics of classes are kept.
    pub statistics: ClassCovarianceConfig,
}

impl Default for ClassCovariance {
    fn default() -> Self {
        Self {
            samples: 3,
            strength: 0.7,
            statistics: ClassCovarianceConfig::default(),
        }
    }
}

impl ClassCovariance {
    /// The noise of each row, `[rows * samples, d]`; each row has its own stream.
    fn noise(&self, deviations: &[&[f32]], dim: usize, seed: u64) -> Vec<f32> {
        let scale = self.strength.sqrt() as f32;
        let mut values = vec![0.0f32; deviations.len() * self.samples * dim];
        if values.is_empty() {
            return values;
        }
        let rows = values.par_chunks_mut(self.samples * dim).zip(deviations).enumerate();
        rows.for_each(|(row, (values, deviation))| {
            let mut stream = random::stream(seed, &[purpose::AUGMENTED_EMBEDDINGS, 1, row as u64]);
            for sample in values.chunks_mut(dim) {
                for (value, deviation) in sample.iter_mut().zip(*deviation) {
                    *value = scale * deviation * stream.sample::<f32, _>(rand_distr::StandardNormal);
                }
            }
        });
        values
    }
}

impl EmbeddingAugmentation for ClassCovariance {
    const SUMMARY: &'static str = "further members of every class, drawn along the spread of the class";
    const PAPER: &'static str = "Fu et al., Deep Metric Learning with Intra-class Adaptive Augmentation, TMM";
    const YEAR: u16 = 2022;

    fn validate(&self) -> Result<(), String> {
        if !(1..=100).contains(&self.samples) {
            return refuse("class-covariance", "samples", self.samples, "1 to 100");
        }
        if !(self.strength.is_finite() && self.strength > 0.0) {
            return refuse("class-covariance", "strength", self.strength, "a number above 0");
        }
        // The settings are checked where the generator of the same name is; here they stand elsewhere.
        let here = "embedding-augmentation.class-covariance.statistics";
        let statistics = self.statistics.validate();
        statistics.map_err(|problem| problem.replace("intra-class.generator.class-covariance", here))
    }

    fn fits(&self, loss: &LossConfig) -> Result<(), String> {
        if loss.info().order_matters {
            return Err("the loss picks rows by their place in the batch and would not see further ones; choose another loss".to_owned());
        }
        Ok(())
    }

    fn statistics(&self) -> Option<&ClassCovarianceConfig> {
        Some(&self.statistics)
    }

    fn augment(&self, input: &AugmentationInput<'_>) -> Augmented {
        let x = &input.embeddings;
        let [rows, dim] = x.dims();
        // Statistics of another width cannot be of this model: as good as none.
        let statistics = input.statistics.filter(|statistics| statistics.dim() == dim);
        let deviations: Option<Vec<&[f32]>> = statistics
            .and_then(|statistics| input.labels.iter().map(|&label| statistics.deviation(label)).collect());
        let Some(deviations) = deviations else {
            return Augmented {
                comparison: input.plain(),
                loss: None,
            };
        };
        let count = rows * self.samples;
        let noise = TensorData::new(self.noise(&deviations, dim, input.seed), [rows, self.samples, dim]);
        let moved: Tensor<3> = x.clone().unsqueeze_dim::<3>(1) + constant::<3, 2>(noise, x);
        let moved = normalize(moved.reshape([count, dim]));
        let mut labels = input.labels.to_vec();
        labels.extend(input.labels.iter().flat_map(|&label| std::iter::repeat_n(label, self.samples)));
        Augmented {
            comparison: Comparison::within(ItemSet::new(Tensor::cat(vec![x.clone(), moved], 0), labels)),
            loss: None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::{augmented_rows, unit_rows};
    use super::*;
    use crate::intra_class::ClassStatistics;
    use gradus_core::EmbeddingSet;

    /// Two large classes: class 0 varies along axis 1 by 0.2, class 1 along axes 0 and 2 by 0.3 and 0.4.
    fn statistics() -> ClassStatistics {
        let mut set = EmbeddingSet {
            dim: 4,
            ..Default::default()
        };
        for n in 0..100u32 {
            let sign = if n % 2 == 0 { 1.0 } else { -1.0 };
            let row = if n < 50 {
                [1.0, 0.2 * sign, 0.0, 0.0]
            } else {
                [0.3 * sign, 0.0, 0.4 * sign, 0.0]
            };
            set.values.extend(row);
            set.labels.push(u32::from(n >= 50));
            set.ids.push(String::new());
        }
        let mut statistics = ClassStatistics::default();
        statistics.observe(&set);
        statistics
    }

    #[test]
    fn members_are_drawn_from_the_covariance_of_their_class() {
        let augmentation = ClassCovariance {
            samples: 4000,
            strength: 0.5,
            ..Default::default()
        };
        let statistics = statistics();
        let deviations = [statistics.deviation(0).unwrap(), statistics.deviation(1).unwrap()];
        let noise = augmentation.noise(&deviations, 4, 7);
        for (class, expected) in [[0.0, 0.04, 0.0, 0.0], [0.09, 0.0, 0.16, 0.0]].iter().enumerate() {
            let rows: Vec<&[f32]> = noise[class * 16000..(class + 1) * 16000].chunks(4).collect();
            for (axis, expected) in expected.iter().enumerate() {
                let mean = rows.iter().map(|row| f64::from(row[axis])).sum::<f64>() / 4000.0;
                let square = rows.iter().map(|row| f64::from(row[axis]).powi(2)).sum::<f64>() / 4000.0;
                assert!(mean.abs() < 0.02 && (square - 0.5 * expected).abs() < 0.01, "{mean} {square} {expected}");
            }
        }
        // 3 standard errors of a variance over 4000 draws are 0.067 of it.
    }

    #[test]
    fn rows_are_source_plus_noise_on_the_sphere_and_keep_their_class() {
        let (x, labels) = (unit_rows(3, 4, 1), [1u32, 0, 1]);
        let augmentation = ClassCovariance {
            samples: 2,
            ..Default::default()
        };
        let statistics = statistics();
        let (rows, classes) = augmented_rows(&augmentation, &x, &labels, Some(&statistics), 5);
        assert_eq!(classes, [1, 0, 1, 1, 1, 0, 0, 1, 1]);
        let deviations: Vec<&[f32]> = labels.iter().map(|&label| statistics.deviation(label).unwrap()).collect();
        let noise = augmentation.noise(&deviations, 4, 5);
        for (number, row) in rows.chunks(4).enumerate() {
            let expected: Vec<f64> = if number < 3 {
                x[number * 4..][..4].to_vec()
            } else {
                let source = &x[(number - 3) / 2 * 4..][..4];
                let moved: Vec<f64> = source.iter().zip(&noise[(number - 3) * 4..]).map(|(x, e)| x + f64::from(*e)).collect();
                let norm = moved.iter().map(|value| value * value).sum::<f64>().sqrt();
                moved.iter().map(|value| value / norm).collect()
            };
            assert!(row.iter().zip(&expected).all(|(found, expected)| (f64::from(*found) - expected).abs() < 1e-6));
        }
        let (again, _) = augmented_rows(&augmentation, &x, &labels, Some(&statistics), 5);
        assert_eq!(again, rows);
        let (plain, classes) = augmented_rows(&augmentation, &x, &labels, None, 5);
        assert_eq!((plain.len(), classes.len()), (12, 3), "no statistics yet");
    }
}
