//! How another class varies, carried over to this one.

use gradus_core::random::{self, Rng, purpose};
use serde::{Deserialize, Serialize};

use super::{Directions, Sources, stream_of};
use crate::intra_class::arithmetic::{indices, rows_by_label};
use crate::numerics::normalize;

/// The difference of two members of *another* class, scaled to norm `j * step` (the idea of the delta-encoder: Schwartz et
/// al., NeurIPS 2018). Both members are drawn from the batch, anew for each sample and level.
///
/// Samples are left out where no other class has two members in the batch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DifferenceTransferConfig {}

pub(in super::super) fn generate(sources: &Sources<'_>) -> Directions {
    let rows = sources.labels.len();
    let [_, dim] = sources.embeddings.dims();
    let levels = sources.levels;
    let classes = rows_by_label(sources.labels);
    let donors: Vec<(u32, &Vec<usize>)> = classes
        .iter()
        .filter(|(_, members)| members.len() > 1)
        .map(|(&label, members)| (label, members))
        .collect();
    let mut from = vec![0; rows * levels];
    let mut to = vec![0; rows * levels];
    let mut eligible = vec![false; rows];
    for (row, label) in sources.labels.iter().enumerate() {
        let own = donors.binary_search_by_key(label, |donor| donor.0).ok();
        let choices = donors.len() - usize::from(own.is_some());
        if choices == 0 {
            continue;
        }
        eligible[row] = true;
        let mut stream = random::stream(sources.seed, &[purpose::SYNTHESIS, stream_of::PARTNERS, row as u64]);
        for level in 0..levels {
            let draw = stream.random_range(0..choices);
            let members = donors[if own.is_some_and(|own| draw >= own) {
                draw + 1
            } else {
                draw
            }]
            .1;
            let first = stream.random_range(0..members.len());
            let second = stream.random_range(0..members.len() - 1);
            from[row * levels + level] = members[first];
            to[row * levels + level] = members[if second < first { second } else { second + 1 }];
        }
    }
    let rows_at = |list: Vec<usize>| {
        sources
            .embeddings
            .clone()
            .select(0, indices::<1, 2>(list, [rows * levels], sources.embeddings))
    };
    Directions {
        direction: normalize(rows_at(to) - rows_at(from)).reshape([rows, levels, dim]),
        intensity: sources.even_intensities(),
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
    fn displacements_are_scaled_differences_inside_another_class() {
        let x = unit_rows(7, 5, 1);
        let labels = [3, 1, 3, 3, 1, 2, 2];
        let rows: Vec<Vec<f64>> = host(x.clone()).chunks(5).map(<[f64]>::to_vec).collect();
        for seed in 0..10 {
            let generated = generate(&sources(&x, &labels, seed));
            assert_eq!(generated.eligible, Some(vec![true; 7]));
            let moved = host(displacements(generated, &x, false));
            for (position, step) in moved.chunks(5).enumerate() {
                let (i, length) = (position / 5, (position % 5 + 1) as f64 * 0.3);
                let mut found = 0;
                for a in 0..7 {
                    for b in 0..7 {
                        if a == b || labels[a] != labels[b] {
                            continue;
                        }
                        let difference: Vec<f64> = (0..5).map(|k| rows[a][k] - rows[b][k]).collect();
                        let norm = difference.iter().map(|value| value * value).sum::<f64>().sqrt();
                        if (0..5).all(|k| (step[k] - length * difference[k] / norm).abs() < 1e-5) {
                            assert_ne!(labels[a], labels[i], "from its own class");
                            found += 1;
                        }
                    }
                }
                assert_eq!(found, 1);
            }
        }
    }

    #[test]
    fn without_a_donor_class_nothing_is_generated() {
        let x = unit_rows(4, 5, 1);
        assert_eq!(generate(&sources(&x, &[0, 0, 0, 0], 1)).eligible, Some(vec![false; 4]));
        assert_eq!(
            generate(&sources(&x, &[0, 0, 1, 2], 1)).eligible,
            Some(vec![false, false, true, true])
        );
    }

    #[test]
    fn duplicates_give_a_zero_displacement() {
        let x = unit_rows(1, 5, 1).repeat_dim(0, 4);
        let generated = generate(&sources(&x, &[0, 0, 1, 1], 1));
        assert!(
            host(displacements(generated, &x, false))
                .iter()
                .all(|&value| value == 0.0)
        );
    }
}
