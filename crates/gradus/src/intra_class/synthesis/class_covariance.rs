//! Noise along the directions the class really varies along.

use serde::{Deserialize, Serialize};

use super::gaussian::unit_directions;
use super::{Directions, Sources};
use crate::intra_class::arithmetic::constant;
use crate::tensor::TensorData;

/// Directions drawn from `N(0, diag variance of the class)`, at intensity `j * step` in units of the class spread
/// `sqrt(trace Sigma')` (after IAA: Fu et al., TMM 2022). See [`ClassStatistics`](crate::intra_class::ClassStatistics) for the
/// blending of small classes with their neighbours.
///
/// Before the first statistics nothing is generated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ClassCovarianceConfig {
    /// Epochs between two refreshes of the statistics. Default 4, IAA's.
    pub refresh_epochs: usize,
    /// Share of the old statistics kept in a refresh. Default 0.8, IAA's.
    pub momentum: f64,
    /// How many neighbouring classes lend their variance. Default 25, IAA's.
    pub neighbours: usize,
    /// Classes of up to this many samples borrow. Default 40, IAA's.
    pub small_class: usize,
}

impl Default for ClassCovarianceConfig {
    fn default() -> Self {
        Self {
            refresh_epochs: 4,
            momentum: 0.8,
            neighbours: 25,
            small_class: 40,
        }
    }
}

impl ClassCovarianceConfig {
    pub(crate) fn validate(&self) -> Result<(), String> {
        if self.refresh_epochs == 0 {
            return Err("intra-class.generator.class-covariance.refresh-epochs is 0: expected at least 1".to_owned());
        }
        if !(0.0..1.0).contains(&self.momentum) {
            return Err(format!(
                "intra-class.generator.class-covariance.momentum is {}: expected at least 0 and below 1",
                self.momentum
            ));
        }
        Ok(())
    }
}

pub(in super::super) fn generate(sources: &Sources<'_>) -> Directions {
    let [rows, dim] = sources.embeddings.dims();
    let levels = sources.levels;
    // Statistics of another width cannot be of this model: as good as none.
    let statistics = sources.statistics.filter(|statistics| statistics.dim() == dim);
    let known: Option<Vec<&[f32]>> = statistics.and_then(|statistics| {
        sources
            .labels
            .iter()
            .map(|&label| statistics.deviation(label))
            .collect()
    });
    let Some(deviations) = known else {
        return Directions {
            direction: constant(
                TensorData::new(vec![0.0f32; rows * levels * dim], [rows, levels, dim]),
                sources.embeddings,
            ),
            intensity: sources.even_intensities(),
            eligible: Some(vec![false; rows]),
            renormalise: false,
        };
    };
    let values = unit_directions(sources, |row, _, k| deviations[row][k]);
    let spread = |row: &[f32]| row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let intensity: Vec<f64> = deviations
        .iter()
        .flat_map(|row| {
            let unit = spread(row) * sources.step;
            (1..=levels).map(move |level| level as f64 * unit)
        })
        .collect();
    Directions {
        direction: constant(TensorData::new(values, [rows, levels, dim]), sources.embeddings),
        intensity: constant(TensorData::new(intensity, [rows, levels, 1]), sources.embeddings),
        eligible: None,
        renormalise: false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::displacements;
    use super::super::tests::{host, norms, sources, unit_rows};
    use super::*;
    use crate::intra_class::ClassStatistics;
    use gradus_core::EmbeddingSet;

    fn statistics() -> ClassStatistics {
        // Large enough classes not to borrow; class 0 varies along coordinate 1 only, class 1 along 0 and 2.
        let mut set = EmbeddingSet {
            dim: 4,
            ..Default::default()
        };
        for n in 0..100u8 {
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
    fn moves_only_along_what_varies_by_multiples_of_the_spread() {
        let x = unit_rows(4, 4, 1);
        let labels = [0, 1, 0, 1];
        let statistics = statistics();
        let input = Sources {
            statistics: Some(&statistics),
            ..sources(&x, &labels, 3)
        };
        let moved = displacements(generate(&input), &x, false);
        for (position, length) in norms(moved.clone()).into_iter().enumerate() {
            let spread = if labels[position / 5] == 0 { 0.2 } else { 0.5 };
            assert!((length - spread * 0.3 * (position % 5 + 1) as f64).abs() < 1e-5);
        }
        for (position, row) in host(moved).chunks(4).enumerate() {
            let still: &[usize] = if labels[position / 5] == 0 { &[0, 2, 3] } else { &[1, 3] };
            assert!(still.iter().all(|&k| row[k].abs() < 1e-5), "{row:?}");
        }
    }

    #[test]
    fn a_class_never_seen_moves_like_all_together_and_without_statistics_nothing_moves() {
        let x = unit_rows(1, 4, 1);
        let labels = [9];
        let statistics = statistics();
        let input = Sources {
            statistics: Some(&statistics),
            ..sources(&x, &labels, 3)
        };
        let pooled = ((0.04f64 + 0.25) / 2.0).sqrt();
        let length = norms(displacements(generate(&input), &x, false))[4];
        assert!((length - pooled * 1.5).abs() < 1e-5);
        let nothing = generate(&sources(&x, &labels, 3));
        assert_eq!(nothing.eligible, Some(vec![false]));
        let narrow = unit_rows(1, 3, 1);
        let input = Sources {
            embeddings: &narrow,
            ..input
        };
        assert_eq!(generate(&input).eligible, Some(vec![false]));
    }
}
