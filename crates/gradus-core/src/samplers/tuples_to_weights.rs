//! Images drawn as often as a miner chooses them.

use rand::seq::index;
use serde::{Deserialize, Serialize};

use super::{BatchSampler, SamplerError, SamplerInput, positive};
use crate::miners::{MinerConfig, MiningError, MiningInput};
use crate::random::{Rng, derive, purpose, stream};
use crate::relations::Labels;

const NAME: &str = "tuples-to-weights";

/// Settings of [`TuplesToWeights`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TuplesToWeightsConfig {
    /// Images in a batch (default 64).
    pub batch_size: usize,
    /// Images mined, and images dealt in an epoch (default 1000; 0 is all of them, as in pytorch-metric-learning: a miner then
    /// holds a matrix of all images by all images).
    pub subset_size: usize,
    /// The miner (default `multi-similarity`).
    pub miner: MinerConfig,
}

impl Default for TuplesToWeightsConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            subset_size: 1000,
            miner: MinerConfig::default(),
        }
    }
}

impl TuplesToWeightsConfig {
    /// The sampler, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> TuplesToWeights {
        TuplesToWeights {
            config: self.clone(),
            seed,
        }
    }
}

/// At the beginning of an epoch a miner works on a random part of the data; an image of it is then drawn with a probability in
/// proportion to how often it was chosen, with replacement (pytorch-metric-learning's TuplesToWeightsSampler). Where nothing
/// was chosen all images of the part are alike. Hard images are seen often, easy ones not at all in that epoch.
///
/// The input must hold embeddings; batches are full but for the last.
#[derive(Debug, Clone)]
pub struct TuplesToWeights {
    config: TuplesToWeightsConfig,
    seed: u64,
}

impl TuplesToWeights {
    /// The part of the data mined in this epoch, and the weight of each of its images, the largest being 1.
    ///
    /// # Errors
    /// If there are no embeddings or they cannot be mined.
    pub fn weights(&self, input: SamplerInput<'_>, epoch: u64) -> Result<(Vec<usize>, Vec<f32>), SamplerError> {
        let set = input.needed_embeddings(NAME)?;
        let count = match self.config.subset_size {
            0 => input.len(),
            size => size.min(input.len()),
        };
        let mut random = stream(self.seed, &[purpose::SAMPLER, epoch]);
        let mut chosen = index::sample(&mut random, input.len(), count).into_vec();
        chosen.sort_unstable();
        let labels: Vec<u32> = chosen.iter().map(|&item| input.labels[item]).collect();
        let labels = Labels::from(labels);
        let rows: Vec<f64> = chosen
            .iter()
            .flat_map(|&item| set.row(item).iter().copied().map(f64::from))
            .collect();
        let seed = derive(self.seed, &[purpose::SAMPLER, epoch]);
        let unusable = |error: MiningError| SamplerError::Setting {
            sampler: NAME,
            setting: "miner",
            value: self.config.miner.name().to_owned(),
            wanted: format!("one that works on the embeddings: {error}"),
        };
        let mining = MiningInput::batch(rows, &labels, set.dim, seed).map_err(unusable)?;
        let mined = self.config.miner.mine(&mining).map_err(unusable)?;
        Ok((chosen, mined.weights(count, true)))
    }
}

impl BatchSampler for TuplesToWeights {
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>> {
        if self.validate(input).is_err() {
            return Vec::new();
        }
        let Ok((chosen, weights)) = self.weights(input, epoch) else {
            return Vec::new();
        };
        let mut total = 0.0;
        let running: Vec<f64> = weights
            .iter()
            .map(|&weight| {
                total += f64::from(weight);
                total
            })
            .collect();
        let mut random = stream(self.seed, &[purpose::SAMPLER, epoch, 1]);
        let last = running.partition_point(|&sum| sum < total);
        let drawn: Vec<usize> = (0..chosen.len())
            .map(|_| {
                let target = random.random::<f64>() * total;
                chosen[running.partition_point(|&sum| sum <= target).min(last)]
            })
            .collect();
        drawn.chunks(self.config.batch_size).map(<[usize]>::to_vec).collect()
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError> {
        positive(&[("batch-size", self.config.batch_size)])?;
        if let Err(problem) = self.config.miner.validate() {
            return Err(SamplerError::Setting {
                sampler: NAME,
                setting: "miner",
                value: self.config.miner.name().to_owned(),
                wanted: format!("a valid one: {problem}"),
            });
        }
        if input.is_empty() {
            return Err(SamplerError::NoItems);
        }
        if self.config.batch_size > input.len() {
            return Err(SamplerError::BatchTooLarge {
                batch: self.config.batch_size,
                found: input.len(),
                settings: "`batch-size`",
            });
        }
        input.needed_embeddings(NAME).map(|_| ())
    }

    fn needs_embeddings(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::EmbeddingSet;

    /// Class 0 far from class 1, class 2 on top of class 3.
    fn data() -> EmbeddingSet {
        let angles = [0.0_f32, 0.02, 2.0, 2.02, 4.0, 4.3, 4.01, 4.31];
        EmbeddingSet {
            dim: 2,
            values: angles.iter().flat_map(|angle| [angle.cos(), angle.sin()]).collect(),
            labels: vec![0, 0, 1, 1, 2, 2, 3, 3],
            ids: vec![String::new(); 8],
        }
    }

    fn sampler(subset_size: usize, seed: u64) -> TuplesToWeights {
        TuplesToWeightsConfig {
            batch_size: 3,
            subset_size,
            miner: serde_json::from_str(r#"{"multi-similarity": {"epsilon": 0.01}}"#).unwrap(),
        }
        .init(seed)
    }

    #[test]
    fn hard_images_are_drawn_and_easy_ones_are_not() {
        let set = data();
        let input = SamplerInput::new(&set.labels).with_embeddings(Some(&set));
        let sampler = sampler(0, 1);
        sampler.validate(input).unwrap();
        let (chosen, weights) = sampler.weights(input, 0).unwrap();
        assert_eq!(chosen, (0..8).collect::<Vec<_>>());
        assert!(weights[..4].iter().all(|&weight| weight == 0.0), "{weights:?}");
        assert!(weights[4..].iter().all(|&weight| weight > 0.5), "{weights:?}");
        let mut times = [0.0_f64; 8];
        for epoch in 0..2000 {
            let batches = sampler.batches(input, epoch);
            assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
            batches.concat().into_iter().for_each(|item| times[item] += 1.0);
        }
        let total: f32 = weights.iter().sum();
        for (times, weight) in times.iter().zip(&weights) {
            let expected = 16_000.0 * f64::from(weight / total);
            assert!(
                (times - expected).abs() <= 5.0 * expected.sqrt(),
                "{times} of {expected}"
            );
        }
        assert_eq!(sampler.batches(input, 3), sampler.batches(input, 3));
        assert_ne!(sampler.batches(input, 3), sampler.batches(input, 4));
    }

    #[test]
    fn a_part_is_mined_and_dealt() {
        let set = data();
        let input = SamplerInput::new(&set.labels).with_embeddings(Some(&set));
        let sampler = sampler(5, 1);
        let (chosen, weights) = sampler.weights(input, 7).unwrap();
        assert_eq!((chosen.len(), weights.len()), (5, 5));
        let dealt = sampler.batches(input, 7).concat();
        assert!(dealt.len() == 5 && dealt.iter().all(|item| chosen.contains(item)));
    }

    #[test]
    fn missing_embeddings_are_explained() {
        let set = data();
        let input = SamplerInput::new(&set.labels);
        let message = sampler(0, 1).validate(input).unwrap_err().to_string();
        assert!(message.contains("tuples-to-weights needs embeddings"), "{message}");
        assert!(sampler(0, 1).needs_embeddings() && sampler(0, 1).batches(input, 0).is_empty());
        let short = set.select(&[0, 1]);
        let message = sampler(0, 1)
            .validate(input.with_embeddings(Some(&short)))
            .unwrap_err()
            .to_string();
        assert!(message.contains("2 embeddings for 8 images"), "{message}");
    }
}
