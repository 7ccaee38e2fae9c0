//! Batches whose images lie far apart.

use serde::{Deserialize, Serialize};

use super::m_per_class::deal;
use super::{BatchSampler, MPerClassConfig, SamplerError, SamplerInput, members, positive};
use crate::random::{Rng, purpose, stream};

const NAME: &str = "greedy-coreset";

/// Settings of [`GreedyCoreset`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GreedyCoresetConfig {
    /// Different classes in a batch (default 16).
    pub classes: usize,
    /// Images of each of them (default 4).
    pub samples: usize,
    /// Batches worth of candidates that a batch is chosen from (default 4; fewer where there are too few classes).
    pub pool: usize,
}

impl Default for GreedyCoresetConfig {
    fn default() -> Self {
        Self {
            classes: 16,
            samples: 4,
            pool: 4,
        }
    }
}

impl GreedyCoresetConfig {
    /// The sampler, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> GreedyCoreset {
        GreedyCoreset {
            config: self.clone(),
            seed,
        }
    }
}

/// As [`MPerClass`](super::MPerClass), but which groups meet in a batch is decided by their embeddings: greedy k-centre on a
/// pool of candidates, so that a batch covers the space (batch selection by greedy coreset: Sinha et al., Small-GAN, 2019; in
/// metric learning Roth et al., Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML
/// 2020).
///
/// A pool is `pool` batches worth of groups (`samples` images of a class, all classes different), dealt as by `m-per-class`.
/// The first group of a batch is drawn at random, each further one is the group of the pool whose centre is farthest from the
/// nearest centre in the batch; what is left of the pool makes its next batches. So every image is still dealt at least once
/// per epoch. The input must hold embeddings.
#[derive(Debug, Clone)]
pub struct GreedyCoreset {
    config: GreedyCoresetConfig,
    seed: u64,
}

impl BatchSampler for GreedyCoreset {
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>> {
        let (Ok(()), Some(set)) = (self.validate(input), input.embeddings) else {
            return Vec::new();
        };
        let classes = members(input.labels);
        let (per_batch, samples) = (self.config.classes, self.config.samples);
        let mut random = stream(self.seed, &[purpose::SAMPLER, epoch]);
        let wide = (classes.len() / per_batch).clamp(1, self.config.pool) * per_batch;
        let mut batches = Vec::new();
        for pool in deal(&classes, wide, samples, &mut random) {
            let mut groups: Vec<&[usize]> = pool.chunks(samples).collect();
            while !groups.is_empty() {
                let mut centres = vec![0.0_f32; groups.len() * set.dim];
                for (centre, group) in centres.chunks_mut(set.dim.max(1)).zip(&groups) {
                    for &item in *group {
                        let share = centre.iter_mut().zip(set.row(item));
                        share.for_each(|(sum, value)| *sum += value / samples as f32);
                    }
                }
                let first = random.random_range(0..groups.len());
                let chosen = greedy_k_center(&centres, set.dim, per_batch, first);
                batches.push(chosen.iter().flat_map(|&at| groups[at].iter().copied()).collect());
                let mut at = 0;
                groups.retain(|_| {
                    at += 1;
                    !chosen.contains(&(at - 1))
                });
            }
        }
        batches
    }

    fn batch_size(&self) -> usize {
        self.config.classes.saturating_mul(self.config.samples)
    }

    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError> {
        positive(&[("pool", self.config.pool)])?;
        // The same is needed of the data.
        let inner = MPerClassConfig {
            classes: self.config.classes,
            samples: self.config.samples,
        };
        inner.init(self.seed).validate(input).map_err(|error| match error {
            SamplerError::FewerClasses { needed, found } => SamplerError::TooFew {
                sampler: NAME,
                needed: format!("{needed} different classes for a batch (its `classes`)"),
                found,
            },
            SamplerError::BatchTooLarge { batch, found, .. } => SamplerError::BatchTooLarge {
                batch,
                found,
                settings: "`classes` or `samples` of the greedy-coreset sampler",
            },
            other => other,
        })?;
        input.needed_embeddings(NAME).map(|_| ())
    }

    fn warnings(&self, input: SamplerInput<'_>) -> Vec<String> {
        let inner = MPerClassConfig {
            classes: self.config.classes,
            samples: self.config.samples,
        };
        inner.init(self.seed).warnings(input)
    }

    fn needs_embeddings(&self) -> bool {
        true
    }
}

/// Positions of `count` rows (all, if there are fewer) chosen one after the other: `first`, then always the row whose
/// Euclidean distance to the nearest chosen row is largest, the first of equal ones (Gonzalez, Clustering to Minimize the
/// Maximum Intercluster Distance, 1985). The largest distance of any row to the chosen ones is at most twice the least
/// possible.
///
/// # Shapes
/// `rows` is row-major `[n, dim]`.
///
/// ```
/// use gradus_core::samplers::greedy_k_center;
/// assert_eq!(greedy_k_center(&[0.0, 1.0, 10.0, 6.0], 1, 3, 0), [0, 2, 3]);
/// ```
#[must_use]
pub fn greedy_k_center(rows: &[f32], dim: usize, count: usize, first: usize) -> Vec<usize> {
    let rows: Vec<&[f32]> = rows.chunks_exact(dim.max(1)).collect();
    let mut chosen = Vec::new();
    // Distance to the nearest chosen row; -1 for those chosen.
    let mut nearest = vec![f32::INFINITY; rows.len()];
    let mut next = Some(first).filter(|&first| first < rows.len());
    while let Some(at) = next.filter(|_| chosen.len() < count) {
        chosen.push(at);
        for (nearest, row) in nearest.iter_mut().zip(&rows) {
            let squares = row.iter().zip(rows[at]).map(|(x, y)| (x - y) * (x - y)).sum::<f32>();
            *nearest = nearest.min(squares);
        }
        nearest[at] = -1.0;
        let candidates = nearest.iter().enumerate().filter(|(_, distance)| **distance >= 0.0);
        next = candidates
            .reduce(|best, other| if other.1 > best.1 { other } else { best })
            .map(|(at, _)| at);
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::EmbeddingSet;

    /// 24 classes in 6 clusters of 4 on a line, 8 images each.
    fn data() -> EmbeddingSet {
        let labels: Vec<u32> = (0..24 * 8).map(|item| item % 24).collect();
        let values = labels
            .iter()
            .enumerate()
            .map(|(item, &label)| (label / 4) as f32 * 100.0 + (label % 4) as f32 + item as f32 * 1e-3);
        EmbeddingSet {
            dim: 1,
            values: values.collect(),
            ids: vec![String::new(); labels.len()],
            labels,
        }
    }

    #[test]
    fn batches_cover_the_space_and_the_epoch() {
        let set = data();
        let input = SamplerInput::new(&set.labels).with_embeddings(Some(&set));
        let config = GreedyCoresetConfig {
            classes: 6,
            samples: 4,
            pool: 4,
        };
        let sampler = config.init(3);
        sampler.validate(input).unwrap();
        let batches = sampler.batches(input, 0);
        assert_eq!(batches.len(), 8);
        let mut seen: Vec<usize> = batches.concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..192).collect::<Vec<_>>());
        for batch in &batches {
            assert_eq!(batch.len(), 24);
            let mut clusters: Vec<u32> = batch.iter().map(|&item| set.labels[item] / 4).collect();
            clusters.sort_unstable();
            clusters.dedup();
            assert_eq!(clusters.len(), 6, "one class of every cluster");
        }
        assert_eq!(batches, sampler.batches(input, 0));
        assert_ne!(batches, sampler.batches(input, 1));
        assert!(sampler.validate(SamplerInput::new(&set.labels)).is_err());
        let message = config
            .init(3)
            .validate(SamplerInput::new(&[0, 1, 2]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("greedy-coreset needs 6 different classes"),
            "{message}"
        );
        assert!(sampler.batches(SamplerInput::new(&set.labels), 0).is_empty());
    }

    #[test]
    fn the_farthest_is_next() {
        let rows = [0.0, 0.0, 3.0, 0.0, 0.0, 5.0, 3.0, 5.0, 3.0, 0.0];
        assert_eq!(greedy_k_center(&rows, 2, 4, 0), [0, 3, 1, 2]);
        assert_eq!(greedy_k_center(&rows, 2, 9, 1).len(), 5);
        assert!(greedy_k_center(&rows, 2, 3, 7).is_empty());
        assert!(greedy_k_center(&[], 2, 3, 0).is_empty() && greedy_k_center(&rows, 2, 0, 0).is_empty());
    }
}
