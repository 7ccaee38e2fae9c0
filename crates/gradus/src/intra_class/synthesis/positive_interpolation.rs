//! Toward and beyond another member of the class.

use gradus_core::random::{self, Rng, purpose};
use serde::{Deserialize, Serialize};

use super::{Directions, Sources, stream_of};
use crate::intra_class::arithmetic::{constant, indices, rows_by_label};
use crate::tensor::TensorData;

/// Which part of the line through both members is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Path {
    /// Between them: fractions `j / (N + 1)`.
    #[default]
    Inter,
    /// Beyond the other: fractions `1 + j / (N + 1)`.
    Extra,
    /// Through the other: fractions `2 j / (N + 1)`.
    Both,
}

/// Points on the line from a sample through another real member of its class (after Embedding Expansion: Ko and Gu, CVPR
/// 2020). The intensity is the fraction of the way; the other member is drawn from the batch, one for each sample.
///
/// Samples alone in their class are left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PositiveInterpolationConfig {
    /// Which part of the line. Default `inter`.
    pub path: Path,
}

pub(in super::super) fn generate(config: &PositiveInterpolationConfig, sources: &Sources<'_>) -> Directions {
    let rows = sources.labels.len();
    let [_, dim] = sources.embeddings.dims();
    let levels = sources.levels;
    let classes = rows_by_label(sources.labels);
    let mut partner: Vec<usize> = (0..rows).collect();
    let mut eligible = vec![false; rows];
    for members in classes.values().filter(|members| members.len() > 1) {
        for (position, &row) in members.iter().enumerate() {
            let mut stream = random::stream(sources.seed, &[purpose::SYNTHESIS, stream_of::PARTNERS, row as u64]);
            let draw = stream.random_range(0..members.len() - 1);
            partner[row] = members[if draw < position { draw } else { draw + 1 }];
            eligible[row] = true;
        }
    }
    let partner = sources
        .embeddings
        .clone()
        .select(0, indices::<1, 2>(partner, [rows], sources.embeddings));
    let direction = (partner - sources.embeddings.clone())
        .unsqueeze_dim::<3>(1)
        .expand([rows, levels, dim]);
    let fractions: Vec<f64> = (1..=levels)
        .map(|level| {
            let fraction = level as f64 / (levels + 1) as f64;
            match config.path {
                Path::Inter => fraction,
                Path::Extra => 1.0 + fraction,
                Path::Both => 2.0 * fraction,
            }
        })
        .collect();
    Directions {
        direction,
        intensity: constant(TensorData::new(fractions, [1, levels, 1]), sources.embeddings),
        eligible: Some(eligible),
        renormalise: false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::displacements;
    use super::super::tests::{host, sources, unit_rows};
    use super::*;

    #[test]
    fn levels_lie_on_the_line_to_another_member() {
        let x = unit_rows(6, 4, 1);
        let labels = [3, 1, 3, 3, 1, 2];
        let rows: Vec<Vec<f64>> = host(x.clone()).chunks(4).map(<[f64]>::to_vec).collect();
        for (path, fractions) in [
            (Path::Inter, [1.0, 2.0, 3.0, 4.0, 5.0].map(|j: f64| j / 6.0)),
            (Path::Extra, [1.0, 2.0, 3.0, 4.0, 5.0].map(|j: f64| 1.0 + j / 6.0)),
            (Path::Both, [1.0, 2.0, 3.0, 4.0, 5.0].map(|j: f64| j / 3.0)),
        ] {
            let generated = generate(&PositiveInterpolationConfig { path }, &sources(&x, &labels, 7));
            assert_eq!(generated.eligible, Some(vec![true, true, true, true, true, false]));
            let moved = host(displacements(generated, &x, false));
            for (i, levels) in moved.chunks(20).enumerate().take(5) {
                let fits = |j: usize| {
                    levels.chunks(4).zip(fractions).all(|(step, fraction)| {
                        (0..4).all(|k| (step[k] - fraction * (rows[j][k] - rows[i][k])).abs() < 1e-6)
                    })
                };
                let partners: Vec<usize> = (0..6).filter(|&j| j != i && fits(j)).collect();
                assert_eq!(partners.len(), 1);
                assert_eq!(labels[partners[0]], labels[i]);
            }
        }
    }

    #[test]
    fn every_other_member_is_drawn_sooner_or_later() {
        let x = unit_rows(4, 4, 1);
        let labels = [0; 4];
        let config = PositiveInterpolationConfig::default();
        let mut seen: Vec<Vec<f64>> = Vec::new();
        for seed in 0..60 {
            let first = host(generate(&config, &sources(&x, &labels, seed)).direction)[..4].to_vec();
            if !seen.contains(&first) {
                seen.push(first);
            }
        }
        assert_eq!(seen.len(), 3);
    }
}
