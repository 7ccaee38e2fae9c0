//! Batches of one coarse class each, so that negatives are hard by their meaning.

use serde::{Deserialize, Serialize};

use super::input::nested_members;
use super::m_per_class::deal;
use super::{BatchSampler, SamplerError, SamplerInput, positive};
use crate::random::{SliceRandom, purpose, stream};

const NAME: &str = "category-balanced";

/// Settings of [`CategoryBalanced`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CategoryBalancedConfig {
    /// Different classes in a batch, all of one coarse class (default 16).
    pub classes: usize,
    /// Images of each of them (default 4).
    pub samples: usize,
}

impl Default for CategoryBalancedConfig {
    fn default() -> Self {
        Self {
            classes: 16,
            samples: 4,
        }
    }
}

impl CategoryBalancedConfig {
    /// The sampler, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> CategoryBalanced {
        CategoryBalanced {
            config: self.clone(),
            seed,
        }
    }
}

/// `samples` images of each of `classes` classes of one coarse class in every batch.
///
/// Within a coarse class batches are those of [`MPerClass`](super::MPerClass), so every image is dealt at least once per
/// epoch and a coarse class has batches in proportion to its images; the batches of all coarse classes are mixed. One with
/// fewer than `classes` classes has smaller batches with all of them.
#[derive(Debug, Clone)]
pub struct CategoryBalanced {
    config: CategoryBalancedConfig,
    seed: u64,
}

impl BatchSampler for CategoryBalanced {
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>> {
        let (Ok(()), Some(super_labels)) = (self.validate(input), input.super_labels) else {
            return Vec::new();
        };
        let mut batches = Vec::new();
        for (number, classes) in nested_members(input.labels, super_labels).iter().enumerate() {
            let mut random = stream(self.seed, &[purpose::SAMPLER, epoch, number as u64]);
            let per_batch = self.config.classes.min(classes.len());
            batches.extend(deal(classes, per_batch, self.config.samples, &mut random));
        }
        batches.shuffle(&mut stream(self.seed, &[purpose::SAMPLER, epoch]));
        batches
    }

    fn batch_size(&self) -> usize {
        self.config.classes.saturating_mul(self.config.samples)
    }

    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError> {
        positive(&[("classes", self.config.classes), ("samples", self.config.samples)])?;
        if input.is_empty() {
            return Err(SamplerError::NoItems);
        }
        let super_labels = input.needed_super_labels(NAME)?;
        let most = nested_members(input.labels, super_labels).iter().map(Vec::len).max();
        if most.is_some_and(|most| most < 2) {
            return Err(SamplerError::TooFew {
                sampler: NAME,
                needed: "a coarse class with at least 2 classes, as a batch has negatives of one coarse class only"
                    .into(),
                found: 0,
            });
        }
        if self.batch_size() > input.len() {
            return Err(SamplerError::BatchTooLarge {
                batch: self.batch_size(),
                found: input.len(),
                settings: "`classes` or `samples` of the category-balanced sampler",
            });
        }
        Ok(())
    }

    fn warnings(&self, input: SamplerInput<'_>) -> Vec<String> {
        let Some(super_labels) = input.super_labels else {
            return Vec::new();
        };
        let sizes: Vec<usize> = nested_members(input.labels, super_labels)
            .iter()
            .map(Vec::len)
            .collect();
        let count = |wanted: &dyn Fn(usize) -> bool| sizes.iter().filter(|&&size| wanted(size)).count();
        let (single, small) = (
            count(&|size| size == 1),
            count(&|size| size > 1 && size < self.config.classes),
        );
        let mut warnings = Vec::new();
        if single > 0 {
            warnings.push(format!(
                "{single} of {} coarse classes have a single class: their batches have no negative",
                sizes.len()
            ));
        }
        if small > 0 {
            warnings.push(format!(
                "{small} of {} coarse classes have fewer than {} classes: their batches are smaller",
                sizes.len(),
                self.config.classes
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three coarse classes of 8, 4 and 1 classes with 6 images each.
    fn data() -> (Vec<u32>, Vec<u32>) {
        let labels: Vec<u32> = (0..13 * 6).map(|item| item % 13).collect();
        let coarse = labels
            .iter()
            .map(|&label| u32::from(label >= 8) + u32::from(label >= 12))
            .collect();
        (labels, coarse)
    }

    #[test]
    fn batches_stay_in_a_coarse_class_and_cover_every_image() {
        let (labels, coarse) = data();
        let sampler = CategoryBalancedConfig { classes: 4, samples: 3 }.init(3);
        let input = SamplerInput::new(&labels).with_super_labels(Some(&coarse));
        sampler.validate(input).unwrap();
        let batches = sampler.batches(input, 1);
        let mut of = [0; 3];
        let mut seen = vec![false; labels.len()];
        for batch in &batches {
            let category = coarse[batch[0]];
            assert!(batch.iter().all(|&item| coarse[item] == category));
            assert_eq!(batch.len(), if category == 2 { 3 } else { 12 });
            of[category as usize] += 1;
            batch.iter().for_each(|&item| seen[item] = true);
        }
        assert!(seen.iter().all(|&seen| seen));
        assert_eq!(of, [4, 2, 2]);
        assert_eq!(batches, sampler.batches(input, 1));
        assert_ne!(batches, sampler.batches(input, 2));
        let order: Vec<u32> = batches.iter().map(|batch| coarse[batch[0]]).collect();
        assert!(!order.is_sorted(), "{order:?}");
        let warnings = sampler.warnings(input);
        assert!(warnings.len() == 1 && warnings[0].starts_with("1 of 3"), "{warnings:?}");
    }

    #[test]
    fn data_without_coarse_classes_is_refused() {
        let (labels, coarse) = data();
        let sampler = CategoryBalancedConfig { classes: 4, samples: 3 }.init(3);
        let message = sampler.validate(SamplerInput::new(&labels)).unwrap_err().to_string();
        assert!(
            message.contains("category-balanced") && message.contains("coarse"),
            "{message}"
        );
        assert!(sampler.batches(SamplerInput::new(&labels), 0).is_empty());
        let short = SamplerInput::new(&labels).with_super_labels(Some(&coarse[1..]));
        assert!(
            sampler
                .validate(short)
                .unwrap_err()
                .to_string()
                .contains("77 coarse classes for 78")
        );
        let own: Vec<u32> = labels.clone();
        let alone = SamplerInput::new(&labels).with_super_labels(Some(&own));
        assert!(sampler.validate(alone).is_err());
    }
}
