//! Batches from a few coarse classes, with several classes of each.

use serde::{Deserialize, Serialize};

use super::input::nested_members;
use super::{BatchSampler, SamplerError, SamplerInput, positive};
use crate::random::{Rng, SliceRandom, Xoshiro256PlusPlus, purpose, stream};

const NAME: &str = "hierarchical";
/// More batches than an epoch can sensibly have.
const MOST_BATCHES: usize = 1_000_000;

/// How many images of a class are taken together: a number, or `"all"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SamplesPerClass {
    /// This many.
    Number(usize),
    /// Every image of the class.
    Word(AllSamples),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllSamples {
    /// Every image of the class.
    All,
}

/// Settings of [`Hierarchical`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HierarchicalConfig {
    /// Images in a batch, a multiple of `super-classes-per-batch` (default 64).
    pub batch_size: usize,
    /// Images of each class in a batch: a number that divides the share of a coarse class, or `"all"` (default 4).
    pub samples_per_class: SamplesPerClass,
    /// Batches of each set of coarse classes (default 4, pytorch-metric-learning's).
    pub batches_per_super_tuple: usize,
    /// Coarse classes in a batch (default 2, pytorch-metric-learning's).
    pub super_classes_per_batch: usize,
}

impl Default for HierarchicalConfig {
    fn default() -> Self {
        Self {
            batch_size: 64,
            samples_per_class: SamplesPerClass::Number(4),
            batches_per_super_tuple: 4,
            super_classes_per_batch: 2,
        }
    }
}

impl HierarchicalConfig {
    /// The sampler, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> Hierarchical {
        Hierarchical {
            config: self.clone(),
            seed,
        }
    }
}

/// Each set of `super-classes-per-batch` coarse classes has `batches-per-super-tuple` batches; in each of them every coarse
/// class of the set has an equal share, filled with `samples-per-class` images of one class after the other
/// (pytorch-metric-learning's HierarchicalSampler, after Cakir et al., Deep Metric Learning to Rank, CVPR 2019).
///
/// - Which classes are taken is not drawn anew for each batch: those that were dealt the least of come first, and no image of
///   a class is dealt twice before all of them were. So an epoch with room for all images deals all; [`warnings`] say when
///   there is no room.
/// - A class with fewer images than `samples-per-class` repeats them. A coarse class with too few classes leaves its share
///   short, and with `"all"` a class that does not fit into what is left of the share is passed over.
///
/// [`warnings`]: BatchSampler::warnings
#[derive(Debug, Clone)]
pub struct Hierarchical {
    config: HierarchicalConfig,
    seed: u64,
}

impl BatchSampler for Hierarchical {
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>> {
        let (Ok(()), Some(super_labels)) = (self.validate(input), input.super_labels) else {
            return Vec::new();
        };
        let mut random = stream(self.seed, &[purpose::SAMPLER, epoch]);
        let mut coarse: Vec<Vec<Class>> = nested_members(input.labels, super_labels)
            .into_iter()
            .map(|classes| classes.into_iter().map(Class::new).collect())
            .collect();
        let mut tuples = combinations(coarse.len(), self.config.super_classes_per_batch);
        // In a random order: the first batches of a coarse class are dealt its least dealt classes.
        tuples.shuffle(&mut random);
        let share = self.config.batch_size / self.config.super_classes_per_batch;
        let mut batches = Vec::new();
        for _ in 0..self.config.batches_per_super_tuple {
            for tuple in &tuples {
                let mut batch = Vec::with_capacity(self.config.batch_size);
                for &number in tuple {
                    self.fill(&mut batch, &mut coarse[number], share, &mut random);
                }
                batch.shuffle(&mut random);
                batches.push(batch);
            }
        }
        batches.retain(|batch| !batch.is_empty());
        batches.shuffle(&mut random);
        batches
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError> {
        let config = &self.config;
        positive(&[
            ("batch-size", config.batch_size),
            ("batches-per-super-tuple", config.batches_per_super_tuple),
            ("super-classes-per-batch", config.super_classes_per_batch),
        ])?;
        let refuse = |setting, value: String, wanted: String| {
            Err(SamplerError::Setting {
                sampler: NAME,
                setting,
                value,
                wanted,
            })
        };
        if !config.batch_size.is_multiple_of(config.super_classes_per_batch) {
            let wanted = format!(
                "a multiple of super-classes-per-batch = {}",
                config.super_classes_per_batch
            );
            return refuse("batch-size", config.batch_size.to_string(), wanted);
        }
        let share = config.batch_size / config.super_classes_per_batch;
        if let SamplesPerClass::Number(samples) = config.samples_per_class {
            positive(&[("samples-per-class", samples)])?;
            if !share.is_multiple_of(samples) {
                let wanted =
                    format!("a divisor of the share of a coarse class, batch-size / super-classes-per-batch = {share}");
                return refuse("samples-per-class", samples.to_string(), wanted);
            }
        }
        if input.is_empty() {
            return Err(SamplerError::NoItems);
        }
        let coarse = nested_members(input.labels, input.needed_super_labels(NAME)?).len();
        if coarse < config.super_classes_per_batch {
            return Err(SamplerError::TooFew {
                sampler: NAME,
                needed: format!("{} coarse classes for a batch", config.super_classes_per_batch),
                found: coarse,
            });
        }
        let tuples = binomial(coarse, config.super_classes_per_batch);
        if tuples.saturating_mul(config.batches_per_super_tuple) > MOST_BATCHES {
            let wanted = format!("1 or 2 with {coarse} coarse classes: an epoch would have over a million batches");
            return refuse(
                "super-classes-per-batch",
                config.super_classes_per_batch.to_string(),
                wanted,
            );
        }
        Ok(())
    }

    fn warnings(&self, input: SamplerInput<'_>) -> Vec<String> {
        let (Ok(()), Some(super_labels)) = (self.validate(input), input.super_labels) else {
            return Vec::new();
        };
        let coarse = nested_members(input.labels, super_labels);
        let share = self.config.batch_size / self.config.super_classes_per_batch;
        let others = binomial(coarse.len() - 1, self.config.super_classes_per_batch - 1);
        let room = share
            .saturating_mul(others)
            .saturating_mul(self.config.batches_per_super_tuple);
        let full = coarse
            .iter()
            .filter(|classes| classes.iter().map(Vec::len).sum::<usize>() > room)
            .count();
        let short = match self.config.samples_per_class {
            SamplesPerClass::Number(samples) => coarse.iter().filter(|classes| classes.len() * samples < share).count(),
            SamplesPerClass::Word(AllSamples::All) => 0,
        };
        let mut warnings = Vec::new();
        if full > 0 {
            warnings.push(format!(
                "{full} of {} coarse classes have more than {room} images, which is what an epoch of the hierarchical sampler has \
                 room for: raise `batches-per-super-tuple` to see all of them in every epoch",
                coarse.len()
            ));
        }
        if short > 0 {
            warnings.push(format!(
                "{short} of {} coarse classes have too few classes to fill their share of a batch: their batches are smaller",
                coarse.len()
            ));
        }
        warnings
    }
}

impl Hierarchical {
    /// Fills the share of a coarse class, with the classes first that were dealt the least of.
    fn fill(&self, batch: &mut Vec<usize>, classes: &mut [Class], share: usize, random: &mut Xoshiro256PlusPlus) {
        let mut order: Vec<(f64, u64, usize)> = classes
            .iter()
            .enumerate()
            .map(|(number, class)| (class.dealt as f64 / class.items.len() as f64, random.random(), number))
            .collect();
        order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut left = share;
        for (_, _, number) in order {
            let class = &mut classes[number];
            let count = match self.config.samples_per_class {
                SamplesPerClass::Number(samples) => samples,
                SamplesPerClass::Word(AllSamples::All) => class.items.len(),
            };
            if count <= left {
                left -= count;
                class.take(count, batch, random);
            }
        }
    }
}

/// The images of a class, and those not dealt since all of them were.
struct Class {
    items: Vec<usize>,
    rest: Vec<usize>,
    dealt: usize,
}

impl Class {
    fn new(items: Vec<usize>) -> Self {
        Self {
            items,
            rest: Vec::new(),
            dealt: 0,
        }
    }

    fn take(&mut self, count: usize, batch: &mut Vec<usize>, random: &mut Xoshiro256PlusPlus) {
        let start = batch.len();
        while batch.len() - start < count {
            if self.rest.is_empty() {
                self.rest.clone_from(&self.items);
                self.rest.shuffle(random);
                // Those that are in this batch already come last, so that it repeats an image only if it must.
                self.rest.sort_by_key(|item| !batch[start..].contains(item));
            }
            batch.extend(self.rest.pop());
        }
        self.dealt += count;
    }
}

fn binomial(n: usize, k: usize) -> usize {
    // Exact at every step; saturates.
    (0..k.min(n)).fold(1, |product: usize, at| product.saturating_mul(n - at) / (at + 1))
}

/// All sets of `size` numbers below `count`, ascending.
fn combinations(count: usize, size: usize) -> Vec<Vec<usize>> {
    let mut all = Vec::new();
    if size > count {
        return all;
    }
    let mut current: Vec<usize> = (0..size).collect();
    loop {
        all.push(current.clone());
        let Some(at) = (0..size).rev().find(|&at| current[at] < count - size + at) else {
            break;
        };
        current[at] += 1;
        for next in at + 1..size {
            current[next] = current[next - 1] + 1;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four coarse classes of 5 classes with 4 to 8 images.
    fn data() -> (Vec<u32>, Vec<u32>) {
        let mut labels = Vec::new();
        for label in 0..20 {
            labels.extend(std::iter::repeat_n(label, 4 + label as usize % 5));
        }
        let coarse = labels.iter().map(|label| label / 5 * 10).collect();
        (labels, coarse)
    }

    fn sampler(samples_per_class: SamplesPerClass, batches_per_super_tuple: usize) -> Hierarchical {
        HierarchicalConfig {
            batch_size: 16,
            samples_per_class,
            batches_per_super_tuple,
            super_classes_per_batch: 2,
        }
        .init(5)
    }

    #[test]
    fn every_pair_of_coarse_classes_meets_in_equal_shares() {
        let (labels, coarse) = data();
        let input = SamplerInput::new(&labels).with_super_labels(Some(&coarse));
        let sampler = sampler(SamplesPerClass::Number(4), 3);
        sampler.validate(input).unwrap();
        let batches = sampler.batches(input, 2);
        assert_eq!(batches.len(), 6 * 3);
        let mut met = std::collections::BTreeMap::new();
        for batch in &batches {
            assert_eq!(batch.len(), 16);
            let count = |items: &[usize], of: &[u32]| {
                let mut times = std::collections::BTreeMap::new();
                items.iter().for_each(|&item| *times.entry(of[item]).or_insert(0) += 1);
                times
            };
            let supers = count(batch, &coarse);
            assert!(supers.len() == 2 && supers.values().all(|&times| times == 8));
            let classes = count(batch, &labels);
            assert!(classes.len() == 4 && classes.values().all(|&times| times == 4));
            *met.entry(supers.into_keys().collect::<Vec<_>>()).or_insert(0) += 1;
        }
        assert!(met.len() == 6 && met.values().all(|&times| times == 3), "{met:?}");
        // Room for 72 images of each coarse class of 30.
        let mut seen: Vec<usize> = batches.concat();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), labels.len());
        assert!(sampler.warnings(input).is_empty());
        assert_eq!(batches, sampler.batches(input, 2));
        assert_ne!(batches, sampler.batches(input, 3));
    }

    #[test]
    fn an_epoch_without_room_says_so_and_all_means_whole_classes() {
        let (labels, coarse) = data();
        let input = SamplerInput::new(&labels).with_super_labels(Some(&coarse));
        let small = sampler(SamplesPerClass::Number(4), 1);
        let warnings = small.warnings(input);
        assert!(warnings[0].contains("batches-per-super-tuple"), "{warnings:?}");
        let all = sampler(SamplesPerClass::Word(AllSamples::All), 2);
        for batch in all.batches(input, 0) {
            for &item in &batch {
                let of_class =
                    |items: &mut dyn Iterator<Item = usize>| items.filter(|&at| labels[at] == labels[item]).count();
                assert_eq!(of_class(&mut batch.iter().copied()), of_class(&mut (0..labels.len())));
            }
        }
        let config: HierarchicalConfig = serde_json::from_str(r#"{"samples-per-class": "all"}"#).unwrap();
        assert_eq!(config.samples_per_class, SamplesPerClass::Word(AllSamples::All));
        assert!(serde_json::from_str::<HierarchicalConfig>(r#"{"samples-per-class": "some"}"#).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let (labels, coarse) = data();
        let input = SamplerInput::new(&labels).with_super_labels(Some(&coarse));
        let message = |config: HierarchicalConfig| config.init(0).validate(input).unwrap_err().to_string();
        let default = HierarchicalConfig::default;
        let found = message(HierarchicalConfig {
            batch_size: 15,
            ..default()
        });
        assert!(found.contains("sampler.hierarchical.batch-size is 15"), "{found}");
        let found = message(HierarchicalConfig {
            samples_per_class: SamplesPerClass::Number(5),
            ..default()
        });
        assert!(found.contains("samples-per-class is 5"), "{found}");
        let found = message(HierarchicalConfig {
            super_classes_per_batch: 8,
            ..default()
        });
        assert!(found.contains("8 coarse classes") && found.contains("has 4"), "{found}");
        let many: Vec<u32> = (0..300).collect();
        let input = SamplerInput::new(&many).with_super_labels(Some(&many));
        let wide = HierarchicalConfig {
            super_classes_per_batch: 8,
            ..default()
        };
        assert!(
            wide.init(0)
                .validate(input)
                .unwrap_err()
                .to_string()
                .contains("million")
        );
        assert!(default().init(0).validate(SamplerInput::new(&many)).is_err());
    }

    #[test]
    fn combinations_are_complete() {
        assert_eq!(combinations(4, 2), [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
        assert_eq!(combinations(3, 3), [[0, 1, 2]]);
        for (n, k) in [(7, 3), (12, 2), (5, 5), (6, 1)] {
            assert_eq!(combinations(n, k).len(), binomial(n, k));
        }
        assert_eq!(binomial(300, 150), usize::MAX / 150);
    }
}
