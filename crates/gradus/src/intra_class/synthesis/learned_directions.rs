//! Trainable directions shared by all samples: the generator of the paper's released code.

use gradus_core::random::{self, SliceRandom, purpose};
use serde::{Deserialize, Serialize};

use super::{Directions, Sources, stream_of};
use crate::initial;
use crate::intra_class::arithmetic::indices;
use crate::numerics::normalize;
use crate::tensor::{Device, Param, Tensor};

/// As many trainable vectors as levels, shared by all samples; each is brought to norm 1, then scaled to `j * step`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LearnedDirectionsConfig {
    /// Whether scaled directions are normalised again, which **cancels the intensity**: all levels then lie at distance 1. The
    /// paper's released code does. Default false.
    pub renormalise_directions: bool,
    /// Whether levels are dealt to the directions anew in each call, as in the released code. Default true.
    pub shuffle: bool,
}

impl Default for LearnedDirectionsConfig {
    fn default() -> Self {
        Self {
            renormalise_directions: false,
            shuffle: true,
        }
    }
}

/// The vectors at the start: independent normal ones of about unit norm, `[levels, dim]`.
pub(in super::super) fn parameter(levels: usize, dim: usize, seed: u64, device: &Device) -> Param<Tensor<2>> {
    initial::normal(
        [levels, dim],
        1.0 / (dim.max(1) as f64).sqrt(),
        seed,
        "intra-class.directions",
        device,
    )
}

pub(in super::super) fn generate(
    config: &LearnedDirectionsConfig,
    directions: Tensor<2>,
    sources: &Sources<'_>,
) -> Directions {
    let mut order: Vec<usize> = (0..sources.levels).collect();
    if config.shuffle {
        order.shuffle(&mut random::stream(
            sources.seed,
            &[purpose::SYNTHESIS, stream_of::ORDER],
        ));
    }
    let order = indices::<1, 2>(order, [sources.levels], sources.embeddings);
    Directions {
        direction: normalize(directions.select(0, order)).unsqueeze_dim::<3>(0),
        intensity: sources.even_intensities(),
        eligible: None,
        renormalise: config.renormalise_directions,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::displacements;
    use super::super::tests::{host, norms, sources, unit_rows};
    use super::*;

    fn lengths(config: &LearnedDirectionsConfig, tangent: bool) -> Vec<f64> {
        let x = unit_rows(3, 8, 1);
        let labels = [0; 3];
        let vectors = parameter(5, 8, 4, &Device::flex()).val();
        norms(displacements(
            generate(config, vectors, &sources(&x, &labels, 2)),
            &x,
            tangent,
        ))
    }

    #[test]
    fn norms_are_level_times_step_and_one_once_renormalised() {
        for tangent in [false, true] {
            let plain = LearnedDirectionsConfig::default();
            for (position, length) in lengths(&plain, tangent).into_iter().enumerate() {
                assert!((length - (position % 5 + 1) as f64 * 0.3).abs() < 1e-5);
            }
            let released = LearnedDirectionsConfig {
                renormalise_directions: true,
                shuffle: true,
            };
            assert!(
                lengths(&released, tangent)
                    .into_iter()
                    .all(|length| (length - 1.0).abs() < 1e-5)
            );
        }
    }

    #[test]
    fn order_is_dealt_anew_for_each_call_and_only_then() {
        let x = unit_rows(3, 8, 1);
        let labels = [0; 3];
        let vectors = parameter(5, 8, 4, &Device::flex()).val();
        let draw = |shuffle, seed| {
            let config = LearnedDirectionsConfig {
                renormalise_directions: false,
                shuffle,
            };
            host(generate(&config, vectors.clone(), &sources(&x, &labels, seed)).direction)
        };
        assert_eq!(draw(false, 1), draw(false, 2));
        assert_eq!(draw(true, 1), draw(true, 1));
        assert!((2..6).any(|seed| draw(true, seed) != draw(true, 1)));
        let sorted = |values: Vec<f64>| {
            let mut rows: Vec<Vec<f64>> = values.chunks(8).map(<[f64]>::to_vec).collect();
            rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
            rows
        };
        assert_eq!(
            sorted(draw(true, 1)),
            sorted(draw(false, 1)),
            "the same vectors, in another order"
        );
    }
}
