//! Isotropic noise: the generator of the paper as described.

use gradus_core::random::{self, Rng, purpose};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Directions, Sources, stream_of};
use crate::intra_class::arithmetic::constant;
use crate::tensor::TensorData;

/// A fresh unit Gaussian direction for each sample and level, at intensity `j * step` (arXiv 2304.10941).
///
/// In high dimension the cosine of level j to its source is `1 / sqrt(1 + (j step)^2)`: .958 .857 .743 .640 .555 at step 0.3.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GaussianConfig {}

pub(in super::super) fn generate(sources: &Sources<'_>) -> Directions {
    let [rows, dim] = sources.embeddings.dims();
    let values = unit_directions(sources, |_, _, _| 1.0);
    Directions {
        direction: constant(TensorData::new(values, [rows, sources.levels, dim]), sources.embeddings),
        intensity: sources.even_intensities(),
        eligible: None,
        renormalise: false,
    }
}

/// Unit vectors `[rows, levels, dim]` along normal draws whose coordinate k has the deviation `deviation(row, level, k)`; zero
/// where every deviation is. Each row has its own stream.
pub(super) fn unit_directions(
    sources: &Sources<'_>,
    deviation: impl Fn(usize, usize, usize) -> f32 + Sync,
) -> Vec<f32> {
    let [rows, dim] = sources.embeddings.dims();
    let mut values = vec![0.0f32; rows * sources.levels * dim];
    if values.is_empty() {
        return values;
    }
    values
        .par_chunks_mut(sources.levels * dim)
        .enumerate()
        .for_each(|(row, levels)| {
            let mut stream = random::stream(sources.seed, &[purpose::SYNTHESIS, stream_of::DIRECTIONS, row as u64]);
            for (level, direction) in levels.chunks_mut(dim).enumerate() {
                for (k, value) in direction.iter_mut().enumerate() {
                    *value = stream.sample::<f32, _>(rand_distr::StandardNormal) * deviation(row, level, k);
                }
                let norm = direction
                    .iter()
                    .map(|&value| f64::from(value).powi(2))
                    .sum::<f64>()
                    .sqrt();
                if norm > 0.0 {
                    direction
                        .iter_mut()
                        .for_each(|value| *value = (f64::from(*value) / norm) as f32);
                }
            }
        });
    values
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::displacements;
    use super::super::tests::{host, norms, sources, unit_rows};
    use super::*;

    #[test]
    fn displacements_have_norm_level_times_step() {
        let x = unit_rows(7, 16, 1);
        let labels = [0; 7];
        let lengths = norms(displacements(generate(&sources(&x, &labels, 5)), &x, false));
        for (position, length) in lengths.into_iter().enumerate() {
            let expected = (position % 5 + 1) as f64 * 0.3;
            assert!((length - expected).abs() < 1e-5, "{length}, not {expected}");
        }
    }

    #[test]
    fn cosines_to_the_source_are_nearly_even_in_high_dimension() {
        let x = unit_rows(64, 2048, 2);
        let labels = [0; 64];
        let moved = displacements(generate(&sources(&x, &labels, 5)), &x, false) + x.clone().unsqueeze_dim::<3>(1);
        let product = (moved.clone() * x.clone().unsqueeze_dim::<3>(1)).sum_dim(2);
        let cosines = host((product / moved.powi_scalar(2).sum_dim(2).sqrt()).mean_dim(0));
        for (cosine, expected) in cosines.into_iter().zip([0.958, 0.857, 0.743, 0.640, 0.555]) {
            assert!((cosine - expected).abs() < 0.006, "{cosine}, not {expected}");
        }
    }

    #[test]
    fn directions_are_fresh_for_each_sample_level_and_seed_and_never_for_the_same() {
        let x = unit_rows(3, 4, 1);
        let labels = [0; 3];
        let draw = |seed| host(generate(&sources(&x, &labels, seed)).direction);
        assert_eq!(draw(1), draw(1));
        let values = draw(1);
        let mut rows: Vec<&[f64]> = values.chunks(4).collect();
        let other = draw(2);
        rows.extend(other.chunks(4));
        for a in 0..rows.len() {
            for b in 0..a {
                assert_ne!(rows[a], rows[b]);
            }
        }
    }
}
