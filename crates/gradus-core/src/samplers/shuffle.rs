//! Plain shuffling.

use serde::{Deserialize, Serialize};

use super::{BatchSampler, SamplerError, SamplerInput};
use crate::random::{SliceRandom, purpose, stream};

/// Settings of [`Shuffle`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ShuffleConfig {
    /// Images in a batch (default 64).
    pub batch_size: usize,
    /// Whether the last batch is left out when it is not full (default true: a loss over pairs of a batch of one or
    /// two images is noise). Which images are left out changes from epoch to epoch.
    pub drop_last: bool,
}

impl Default for ShuffleConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            drop_last: true,
        }
    }
}

impl ShuffleConfig {
    /// The sampler, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> Shuffle {
        Shuffle {
            config: self.clone(),
            seed,
        }
    }
}

/// All images in random order, cut into batches; classes are not looked at.
///
/// ```
/// use gradus_core::samplers::{BatchSampler, SamplerInput, ShuffleConfig};
/// let sampler = ShuffleConfig { batch_size: 2, drop_last: false }.init(7);
/// assert_eq!(sampler.batches(SamplerInput::new(&[0, 0, 1, 1, 1]), 0).len(), 3);
/// ```
#[derive(Debug, Clone)]
pub struct Shuffle {
    config: ShuffleConfig,
    seed: u64,
}

impl BatchSampler for Shuffle {
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>> {
        if self.validate(input).is_err() {
            return Vec::new();
        }
        let mut order: Vec<usize> = (0..input.len()).collect();
        order.shuffle(&mut stream(self.seed, &[purpose::SAMPLER, epoch]));
        let size = self.config.batch_size;
        let kept = if self.config.drop_last {
            order.len() / size * size
        } else {
            order.len()
        };
        order[..kept].chunks(size).map(<[usize]>::to_vec).collect()
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError> {
        let batch = self.config.batch_size;
        if batch == 0 {
            return Err(SamplerError::Zero { setting: "batch-size" });
        }
        if input.is_empty() {
            return Err(SamplerError::NoItems);
        }
        if batch > input.len() {
            return Err(SamplerError::BatchTooLarge {
                batch,
                found: input.len(),
                settings: "`batch-size`",
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(batch_size: usize, drop_last: bool, seed: u64) -> Shuffle {
        ShuffleConfig { batch_size, drop_last }.init(seed)
    }

    proptest! {
        #[test]
        fn every_item_appears_exactly_once(count in 1_usize..200, size in 1_usize..40, seed: u64, epoch in 0_u64..9) {
            prop_assume!(size <= count);
            let labels = vec![0; count];
            let whole = sampler(size, false, seed).batches(SamplerInput::new(&labels), epoch);
            let mut seen: Vec<usize> = whole.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..count).collect::<Vec<_>>());
            let full = sampler(size, true, seed).batches(SamplerInput::new(&labels), epoch);
            prop_assert_eq!(full.len(), count / size);
            prop_assert!(full.iter().all(|batch| batch.len() == size));
            prop_assert_eq!(&whole[..full.len()], &full[..]);
        }
    }

    #[test]
    fn order_depends_on_seed_and_epoch_only() {
        let labels = vec![0; 50];
        let first = sampler(10, true, 3).batches(SamplerInput::new(&labels), 4);
        assert_eq!(first, sampler(10, true, 3).batches(SamplerInput::new(&labels), 4));
        assert_ne!(first, sampler(10, true, 3).batches(SamplerInput::new(&labels), 5));
        assert_ne!(first, sampler(10, true, 4).batches(SamplerInput::new(&labels), 4));
    }

    #[test]
    fn impossible_batches_are_explained() {
        let message = sampler(64, true, 0)
            .validate(SamplerInput::new(&[0; 10]))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("64 images") && message.contains("data of 10"),
            "{message}"
        );
        assert_eq!(
            sampler(0, true, 0).validate(SamplerInput::new(&[0])),
            Err(SamplerError::Zero { setting: "batch-size" })
        );
        assert_eq!(
            sampler(1, true, 0).validate(SamplerInput::new(&[])),
            Err(SamplerError::NoItems)
        );
        assert!(sampler(0, true, 0).batches(SamplerInput::new(&[0, 1]), 0).is_empty());
        assert!(sampler(64, true, 0).batches(SamplerInput::new(&[0, 1]), 0).is_empty());
    }
}
