//! Batches of a fixed number of images of each of a fixed number of classes, covering every image in every epoch.
//!
//! The usual sampler of this kind draws classes anew for each batch, so that an epoch never sees some images and the
//! epoch length is arbitrary. Here each class is shuffled and cut into groups of `samples` images; an epoch consists of
//! all groups, dealt so that no batch has two groups of one class.

use rand::seq::IndexedRandom;
use serde::{Deserialize, Serialize};

use super::{BatchSampler, SamplerError, SamplerInput, members};
use crate::random::{Rng, SliceRandom, Xoshiro256PlusPlus, purpose, stream};

/// Settings of [`MPerClass`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MPerClassConfig {
    /// Different classes in a batch (default 16).
    pub classes: usize,
    /// Images of each of them (default 4).
    pub samples: usize,
}

impl Default for MPerClassConfig {
    fn default() -> Self {
        Self {
            classes: 16,
            samples: 4,
        }
    }
}

impl MPerClassConfig {
    /// The sampler, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> MPerClass {
        MPerClass {
            config: self.clone(),
            seed,
        }
    }
}

/// `samples` images of each of `classes` classes in every batch, class after class; every image at least once per epoch.
///
/// - The last group of a class is filled with other images of the class, drawn at random; a class with fewer images
///   than `samples` repeats them as evenly as possible.
/// - With `T` groups in all and at most `k` of one class, an epoch has `max(k, T / classes rounded up)` batches, the
///   fewest possible. What is left over is filled with extra groups of classes drawn at random, spread over the epoch.
///
/// ```
/// use gradus_core::samplers::{BatchSampler, MPerClassConfig, SamplerInput};
/// let sampler = MPerClassConfig { classes: 2, samples: 2 }.init(7);
/// let batches = sampler.batches(SamplerInput::new(&[0, 0, 0, 1, 1, 2, 2]), 0);
/// assert_eq!(batches.len(), 2);
/// assert!(batches.iter().all(|batch| batch.len() == 4));
/// ```
#[derive(Debug, Clone)]
pub struct MPerClass {
    config: MPerClassConfig,
    seed: u64,
}

impl BatchSampler for MPerClass {
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>> {
        if self.validate(input).is_err() {
            return Vec::new();
        }
        let mut random = stream(self.seed, &[purpose::SAMPLER, epoch]);
        let classes = members(input.labels);
        deal(&classes, self.config.classes, self.config.samples, &mut random)
    }

    fn batch_size(&self) -> usize {
        self.config.classes.saturating_mul(self.config.samples)
    }

    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError> {
        for (setting, value) in [("classes", self.config.classes), ("samples", self.config.samples)] {
            if value == 0 {
                return Err(SamplerError::Zero { setting });
            }
        }
        if input.is_empty() {
            return Err(SamplerError::NoItems);
        }
        let found = members(input.labels).len();
        if found < self.config.classes {
            return Err(SamplerError::FewerClasses {
                needed: self.config.classes,
                found,
            });
        }
        let batch = self.batch_size();
        if batch > input.len() {
            let settings = "`classes` or `samples` of the m-per-class sampler";
            return Err(SamplerError::BatchTooLarge {
                batch,
                found: input.len(),
                settings,
            });
        }
        Ok(())
    }

    fn warnings(&self, input: SamplerInput<'_>) -> Vec<String> {
        let sizes: Vec<usize> = members(input.labels).iter().map(Vec::len).collect();
        let single = sizes.iter().filter(|&&size| size == 1).count();
        let small = sizes
            .iter()
            .filter(|&&size| size > 1 && size < self.config.samples)
            .count();
        let (total, samples) = (sizes.len(), self.config.samples);
        let mut warnings = Vec::new();
        if single > 0 && samples > 1 {
            warnings.push(format!(
                "{single} of {total} classes have a single image, which is repeated {samples} times in its batches: \
                 these classes have no pair of different images to learn from"
            ));
        }
        if small > 0 {
            warnings.push(format!(
                "{small} of {total} classes have fewer than {samples} images: some are repeated in their batches"
            ));
        }
        warnings
    }
}

/// Batches of one group of `samples` images of each of `per_batch` classes, every image at least once; `classes` holds the
/// images of at least `per_batch` classes.
pub(super) fn deal(
    classes: &[Vec<usize>],
    per_batch: usize,
    samples: usize,
    random: &mut Xoshiro256PlusPlus,
) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<Vec<usize>>> = classes.iter().map(|items| groups_of(items, samples, random)).collect();
    let sizes: Vec<usize> = groups.iter().map(Vec::len).collect();
    let schedule = schedule(&sizes, per_batch, random);
    let mut batches = Vec::with_capacity(schedule.len());
    for chosen in schedule {
        let mut batch = Vec::with_capacity(per_batch * samples);
        for class in chosen {
            // A class met as a filler may use a group early; the place meant for that group is then a random one.
            let group = groups[class].pop().unwrap_or_else(|| {
                let mut group = Vec::with_capacity(samples);
                fill(&mut group, &classes[class], samples, random);
                group
            });
            batch.extend(group);
        }
        batches.push(batch);
    }
    batches
}

/// Shuffles a class and cuts it into groups of `samples`; the last is filled with other images of the class.
fn groups_of(items: &[usize], samples: usize, random: &mut Xoshiro256PlusPlus) -> Vec<Vec<usize>> {
    let mut order = items.to_vec();
    order.shuffle(random);
    let mut groups: Vec<Vec<usize>> = order.chunks(samples).map(<[usize]>::to_vec).collect();
    if let Some(last) = groups.last_mut() {
        fill(last, items, samples, random);
    }
    groups
}

/// Fills a group up to `samples` images: first those of the class it has not got, then repeats, each equally often.
fn fill(group: &mut Vec<usize>, items: &[usize], samples: usize, random: &mut Xoshiro256PlusPlus) {
    while group.len() < samples {
        let mut order: Vec<usize> = if group.len() < items.len() {
            items.iter().copied().filter(|item| !group.contains(item)).collect()
        } else {
            items.to_vec()
        };
        order.shuffle(random);
        order.truncate(samples - group.len());
        group.extend(order);
    }
}

/// Which classes each batch takes a group of, given how many groups each class has to place.
///
/// Each batch places an equal share of the remaining groups. A class with as many groups left as there are batches left
/// must be taken (otherwise its last groups could not be placed); the others are drawn without replacement with
/// probability in proportion to what they have left, so that large and small classes mix all through the epoch. Classes
/// beyond the share are drawn from all others and have no group to place.
fn schedule(groups: &[usize], per_batch: usize, random: &mut Xoshiro256PlusPlus) -> Vec<Vec<usize>> {
    let mut left = groups.to_vec();
    let mut total: usize = left.iter().sum();
    let longest = left.iter().copied().max().unwrap_or(0);
    let count = longest.max(total.div_ceil(per_batch));
    let mut open: Vec<usize> = (0..left.len()).filter(|&class| left[class] > 0).collect();
    let mut keys: Vec<(f64, usize)> = Vec::with_capacity(open.len());
    let mut batches = Vec::with_capacity(count);
    for remaining in (1..=count).rev() {
        let share = total.div_ceil(remaining);
        keys.clear();
        keys.extend(open.iter().map(|&class| {
            // The largest of u^(1/weight) make a weighted sample without replacement (Efraimidis & Spirakis 2006); in
            // logarithms, as a key of a forced class must be the largest of all.
            let uniform: f64 = random.random::<f64>().max(f64::MIN_POSITIVE);
            let key = if left[class] == remaining {
                f64::INFINITY
            } else {
                uniform.ln() / left[class] as f64
            };
            (key, class)
        }));
        if share < keys.len() {
            keys.select_nth_unstable_by(share, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        }
        let mut batch: Vec<usize> = keys.iter().take(share).map(|&(_, class)| class).collect();
        // The selection leaves its part in an order that is an accident of the algorithm.
        batch.sort_unstable();
        for &class in &batch {
            left[class] -= 1;
        }
        total -= batch.len();
        open.retain(|&class| left[class] > 0);
        if batch.len() < per_batch {
            let others: Vec<usize> = (0..left.len()).filter(|class| !batch.contains(class)).collect();
            batch.extend(others.choose_multiple(random, per_batch - batch.len()));
        }
        batch.shuffle(random);
        batches.push(batch);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sampler(classes: usize, samples: usize, seed: u64) -> MPerClass {
        MPerClassConfig { classes, samples }.init(seed)
    }

    /// Labels of classes of the given sizes, interleaved so that positions and classes are unrelated.
    fn labels(sizes: &[usize]) -> Vec<u32> {
        let longest = sizes.iter().copied().max().unwrap_or(0);
        let rounds = (0..longest).flat_map(|round| {
            sizes
                .iter()
                .enumerate()
                .filter(move |&(_, &size)| round < size)
                .map(|(class, _)| class as u32 * 3 + 1)
        });
        rounds.collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn batches_are_exact_and_cover_every_image(
            sizes in prop::collection::vec(1_usize..40, 1..30),
            classes in 1_usize..9,
            samples in 1_usize..7,
            seed: u64,
            epoch in 0_u64..5,
        ) {
            let labels = labels(&sizes);
            let sampler = sampler(classes, samples, seed);
            prop_assume!(sampler.validate(SamplerInput::new(&labels)).is_ok());
            let batches = sampler.batches(SamplerInput::new(&labels), epoch);

            let mut count = vec![0; labels.len()];
            for batch in &batches {
                prop_assert_eq!(batch.len(), classes * samples);
                let mut seen = Vec::new();
                for group in batch.chunks(samples) {
                    let class = labels[group[0]];
                    prop_assert!(group.iter().all(|&item| labels[item] == class));
                    prop_assert!(!seen.contains(&class));
                    seen.push(class);
                    // As many different images as there are, each repeated equally often.
                    let times: Vec<usize> =
                        group.iter().map(|item| group.iter().filter(|other| *other == item).count()).collect();
                    let size = labels.iter().filter(|&&label| label == class).count();
                    prop_assert!(times.iter().all(|&t| t == samples / size || t == samples.div_ceil(size)));
                }
                batch.iter().for_each(|&item| count[item] += 1);
            }
            prop_assert!(count.iter().all(|&times| times >= 1), "not covered: {:?}", count);
            let groups: Vec<usize> = sizes.iter().map(|size| size.div_ceil(samples)).collect();
            let fewest = groups.iter().sum::<usize>().div_ceil(classes).max(*groups.iter().max().unwrap());
            prop_assert_eq!(batches.len(), fewest);
        }
    }

    #[test]
    fn equal_classes_are_seen_equally_often() {
        // 20 classes of 12 images in groups of 4: 60 groups, 12 batches of 5, nothing to fill.
        let labels = labels(&[12; 20]);
        let mut all = sampler(5, 4, 9).batches(SamplerInput::new(&labels), 2).concat();
        all.sort_unstable();
        assert_eq!(all, (0..240).collect::<Vec<_>>());
    }

    #[test]
    fn a_class_is_spread_over_the_epoch() {
        // One class has 10 groups of the 60; it must not be used up at the beginning nor left to the end.
        let mut sizes = vec![4; 50];
        sizes.push(40);
        let labels = labels(&sizes);
        let large = 50 * 3 + 1;
        let mut halves = [0, 0];
        for seed in 0..40 {
            let batches = sampler(2, 4, seed).batches(SamplerInput::new(&labels), 0);
            assert_eq!(batches.len(), 30);
            for (position, batch) in batches.iter().enumerate() {
                let present = batch.iter().any(|&item| labels[item] == large);
                halves[position / 15] += usize::from(present);
            }
        }
        assert_eq!(halves[0] + halves[1], 400);
        assert!((150..=250).contains(&halves[0]), "{halves:?}");
    }

    #[test]
    fn fillers_are_spread_when_one_class_dominates() {
        let mut sizes = vec![2; 10];
        sizes.push(80);
        let labels = labels(&sizes);
        let sampler = sampler(3, 2, 1);
        let batches = sampler.batches(SamplerInput::new(&labels), 0);
        assert_eq!(batches.len(), 40);
        let dominant = |batch: &Vec<usize>| batch.iter().filter(|&&item| labels[item] == 31).count();
        assert!(batches.iter().all(|batch| dominant(batch) == 2));
    }

    #[test]
    fn order_depends_on_seed_and_epoch_only() {
        let labels = labels(&[9; 12]);
        let first = sampler(4, 2, 3).batches(SamplerInput::new(&labels), 4);
        assert_eq!(first, sampler(4, 2, 3).batches(SamplerInput::new(&labels), 4));
        assert_ne!(first, sampler(4, 2, 3).batches(SamplerInput::new(&labels), 5));
        assert_ne!(first, sampler(4, 2, 4).batches(SamplerInput::new(&labels), 4));
    }

    #[test]
    fn impossible_batches_are_explained() {
        let message = sampler(16, 4, 0)
            .validate(SamplerInput::new(&labels(&[30; 5])))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("needs 16 different classes") && message.contains("has 5"),
            "{message}"
        );
        let message = sampler(4, 8, 0)
            .validate(SamplerInput::new(&labels(&[3; 4])))
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("batch of 32 images") && message.contains("data of 12"),
            "{message}"
        );
        assert_eq!(
            sampler(2, 1, 0).validate(SamplerInput::new(&[])),
            Err(SamplerError::NoItems)
        );
        assert_eq!(
            sampler(0, 1, 0).validate(SamplerInput::new(&[1])),
            Err(SamplerError::Zero { setting: "classes" })
        );
        assert_eq!(
            sampler(1, 0, 0).validate(SamplerInput::new(&[1])),
            Err(SamplerError::Zero { setting: "samples" })
        );
        assert!(
            sampler(usize::MAX, usize::MAX, 0)
                .validate(SamplerInput::new(&[1]))
                .is_err()
        );
        assert!(
            sampler(16, 4, 0)
                .batches(SamplerInput::new(&labels(&[30; 5])), 0)
                .is_empty()
        );
    }

    #[test]
    fn repeated_images_are_announced() {
        let warnings = sampler(2, 3, 0).warnings(SamplerInput::new(&labels(&[1, 2, 5, 1])));
        assert_eq!(warnings.len(), 2);
        assert!(
            warnings[0].starts_with("2 of 4 classes have a single image"),
            "{warnings:?}"
        );
        assert!(
            warnings[1].starts_with("1 of 4 classes have fewer than 3"),
            "{warnings:?}"
        );
        assert!(
            sampler(2, 3, 0)
                .warnings(SamplerInput::new(&labels(&[3, 3])))
                .is_empty()
        );
    }

    #[test]
    fn a_large_data_set_is_sampled_in_a_moment() {
        // The size of Stanford Online Products' training half.
        let sizes: Vec<usize> = (0..11_318).map(|class| 2 + class % 9).collect();
        let labels = labels(&sizes);
        let started = std::time::Instant::now();
        assert!(!sampler(32, 4, 0).batches(SamplerInput::new(&labels), 0).is_empty());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }
}
