//! A fixed set of triplets: training as if nothing but them were known.

use rand::seq::index;
use serde::{Deserialize, Serialize};

use super::{BatchSampler, SamplerError, SamplerInput, members, positive};
use crate::random::{Rng, SliceRandom, purpose, stream};

const NAME: &str = "fixed-triplets";

/// Settings of [`FixedTriplets`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FixedTripletsConfig {
    /// Triplets in all (default 10000).
    pub num_triplets: usize,
    /// Triplets in a batch, which has three times as many images (default 20).
    pub triplets_per_batch: usize,
}

impl Default for FixedTripletsConfig {
    fn default() -> Self {
        Self {
            num_triplets: 10_000,
            triplets_per_batch: 20,
        }
    }
}

impl FixedTripletsConfig {
    /// The sampler, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> FixedTriplets {
        FixedTriplets {
            config: self.clone(),
            seed,
        }
    }
}

/// `num-triplets` triplets drawn once from the seed, dealt as anchor, positive, negative, anchor, … in another order each
/// epoch (pytorch-metric-learning's FixedSetOfTriplets). The miner `embeddings-already-packaged-as-triplets` reads them.
///
/// A triplet is drawn as a class that has at least two images and another class, then two different images of the first and
/// one of the second, all uniformly. The last batch of an epoch may have fewer triplets.
#[derive(Debug, Clone)]
pub struct FixedTriplets {
    config: FixedTripletsConfig,
    seed: u64,
}

impl FixedTriplets {
    /// The triplets `[anchor, positive, negative]` of all epochs.
    #[must_use]
    pub fn triplets(&self, labels: &[u32]) -> Vec<[usize; 3]> {
        let classes = members(labels);
        let paired: Vec<usize> = (0..classes.len()).filter(|&class| classes[class].len() >= 2).collect();
        if paired.is_empty() || classes.len() < 2 {
            return Vec::new();
        }
        let mut random = stream(self.seed, &[purpose::SAMPLER]);
        let triplet = |_| {
            let class = paired[random.random_range(0..paired.len())];
            // One of the others: those from `class` on move up by one.
            let other = random.random_range(0..classes.len() - 1);
            let other = other + usize::from(other >= class);
            let two = index::sample(&mut random, classes[class].len(), 2);
            let negative = classes[other][random.random_range(0..classes[other].len())];
            [classes[class][two.index(0)], classes[class][two.index(1)], negative]
        };
        (0..self.config.num_triplets).map(triplet).collect()
    }
}

impl BatchSampler for FixedTriplets {
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>> {
        if self.validate(input).is_err() {
            return Vec::new();
        }
        let mut triplets = self.triplets(input.labels);
        triplets.shuffle(&mut stream(self.seed, &[purpose::SAMPLER, epoch]));
        triplets
            .chunks(self.config.triplets_per_batch)
            .map(<[[usize; 3]]>::concat)
            .collect()
    }

    fn batch_size(&self) -> usize {
        self.config.triplets_per_batch.saturating_mul(3)
    }

    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError> {
        positive(&[
            ("num-triplets", self.config.num_triplets),
            ("triplets-per-batch", self.config.triplets_per_batch),
        ])?;
        if input.is_empty() {
            return Err(SamplerError::NoItems);
        }
        let classes = members(input.labels);
        let too_few = |needed: &str, found| {
            Err(SamplerError::TooFew {
                sampler: NAME,
                needed: needed.to_owned(),
                found,
            })
        };
        if classes.len() < 2 {
            return too_few("2 classes", classes.len());
        }
        if classes.iter().all(|items| items.len() < 2) {
            return too_few("a class with at least 2 images", 0);
        }
        Ok(())
    }

    fn warnings(&self, input: SamplerInput<'_>) -> Vec<String> {
        let possible = 3 * self.config.num_triplets;
        if possible >= input.len() {
            return Vec::new();
        }
        vec![format!(
            "{} triplets show at most {possible} of {} images: raise `num-triplets` to see all of them",
            self.config.num_triplets,
            input.len()
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triplets_are_fixed_and_drawn_evenly() {
        let labels = [0, 0, 0, 1, 1, 2];
        let sampler = FixedTripletsConfig {
            num_triplets: 6000,
            triplets_per_batch: 7,
        }
        .init(4);
        let input = SamplerInput::new(&labels);
        sampler.validate(input).unwrap();
        let mut fixed = sampler.triplets(&labels);
        let mut anchors = [0; 3];
        let mut negatives = [0; 3];
        for &[anchor, positive, negative] in &fixed {
            assert!(anchor != positive && labels[anchor] == labels[positive] && labels[anchor] != labels[negative]);
            anchors[labels[anchor] as usize] += 1;
            negatives[labels[negative] as usize] += 1;
        }
        // The lone image is no anchor; negatives of class 0 follow only from anchors of class 1, half of the time.
        assert_eq!(anchors[2], 0);
        assert!(
            (2800..3200).contains(&anchors[0]) && (1350..1650).contains(&negatives[0]),
            "{anchors:?} {negatives:?}"
        );
        assert!((2800..3200).contains(&negatives[2]), "{negatives:?}");
        let (first, second) = (sampler.batches(input, 0), sampler.batches(input, 1));
        assert_eq!(first.len(), 6000_usize.div_ceil(7));
        assert!(first.iter().all(|batch| batch.len() % 3 == 0 && batch.len() <= 21));
        assert_ne!(first, second);
        assert_eq!(first, sampler.batches(input, 0));
        fixed.sort_unstable();
        for batches in [first, second] {
            let all = batches.concat();
            let mut dealt: Vec<[usize; 3]> = all.chunks(3).map(|three| [three[0], three[1], three[2]]).collect();
            dealt.sort_unstable();
            assert_eq!(dealt, fixed);
        }
    }

    #[test]
    fn data_without_triplets_is_refused() {
        let sampler = FixedTripletsConfig::default().init(0);
        for labels in [&[1, 1, 1][..], &[0, 1, 2], &[]] {
            assert!(sampler.validate(SamplerInput::new(labels)).is_err());
            assert!(sampler.batches(SamplerInput::new(labels), 0).is_empty());
        }
        let few = FixedTripletsConfig {
            num_triplets: 1,
            triplets_per_batch: 1,
        };
        assert_eq!(few.init(0).warnings(SamplerInput::new(&[0, 0, 1, 1])).len(), 1);
    }
}
