//! Which items meet in a batch: a pure function of (seed, epoch), so a resumed run sees the batches it would have seen.
//!
//! A new sampler is one file with a configuration and a [`BatchSampler`], and one line of the registry below.

mod category_balanced;
mod fixed_triplets;
mod greedy_coreset;
mod hierarchical;
mod input;
mod m_per_class;
mod shuffle;
mod tuples_to_weights;

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

pub use category_balanced::{CategoryBalanced, CategoryBalancedConfig};
pub use fixed_triplets::{FixedTriplets, FixedTripletsConfig};
pub use greedy_coreset::{GreedyCoreset, GreedyCoresetConfig, greedy_k_center};
pub use hierarchical::{Hierarchical, HierarchicalConfig, SamplesPerClass};
pub use input::SamplerInput;
pub use m_per_class::{MPerClass, MPerClassConfig};
pub use shuffle::{Shuffle, ShuffleConfig};
pub use tuples_to_weights::{TuplesToWeights, TuplesToWeightsConfig};

/// Deals items into batches.
pub trait BatchSampler: Debug + Send + Sync {
    /// The batches of an epoch: lists of positions in the input's labels.
    ///
    /// The same arguments give the same batches. Call [`BatchSampler::validate`] first: data it refuses gives no batch.
    fn batches(&self, input: SamplerInput<'_>, epoch: u64) -> Vec<Vec<usize>>;

    /// Items in a full batch.
    fn batch_size(&self) -> usize;

    /// Checks that batches can be made of this data.
    ///
    /// # Errors
    /// [`SamplerError`], saying what is missing and what to change.
    fn validate(&self, input: SamplerInput<'_>) -> Result<(), SamplerError>;

    /// What is unfortunate but allowed, as sentences for the user.
    fn warnings(&self, input: SamplerInput<'_>) -> Vec<String> {
        let _ = input;
        Vec::new()
    }

    /// Whether the input must hold embeddings of the items, as they are at the beginning of the epoch.
    fn needs_embeddings(&self) -> bool {
        false
    }
}

/// Why a sampler cannot make batches of the data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SamplerError {
    /// There is nothing to sample from.
    #[error("there are no images to make batches of")]
    NoItems,
    /// A setting that must be at least 1 is 0.
    #[error("sampler setting {setting} must be at least 1")]
    Zero {
        /// The setting, as written in the configuration.
        setting: &'static str,
    },
    /// A batch needs more classes than there are.
    #[error(
        "a batch needs {needed} different classes, but the training data has {found}: lower `classes` of the \
         m-per-class sampler to at most {found}, or train on more classes"
    )]
    FewerClasses {
        /// Classes in a batch.
        needed: usize,
        /// Classes in the data.
        found: usize,
    },
    /// A setting does not fit the others or the data.
    #[error("sampler.{sampler}.{setting} is {value}, but it must be {wanted}")]
    Setting {
        /// The sampler.
        sampler: &'static str,
        /// The setting, as written in the configuration.
        setting: &'static str,
        /// What it is.
        value: String,
        /// What it must be.
        wanted: String,
    },
    /// The sampler needs a coarser level of classes.
    #[error(
        "the sampler {sampler} needs data whose classes belong to coarse classes (super classes, alphabets, genera), but these \
         have none: take another sampler, such as m-per-class"
    )]
    NoSuperLabels {
        /// The sampler.
        sampler: &'static str,
    },
    /// The sampler needs embeddings of the items.
    #[error(
        "the sampler {sampler} needs embeddings of all images it deals, but got none: take another sampler, such as m-per-class, \
         or give it embeddings (SamplerInput::with_embeddings)"
    )]
    NoEmbeddings {
        /// The sampler.
        sampler: &'static str,
    },
    /// What belongs to the items is not as long as their labels.
    #[error("there are {found} {what} for {items} images: one each is needed")]
    Lengths {
        /// What has another length.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// Number of items.
        items: usize,
    },
    /// The data has too few classes.
    #[error("the sampler {sampler} needs {needed}, but the training data has {found}")]
    TooFew {
        /// The sampler.
        sampler: &'static str,
        /// What is needed.
        needed: String,
        /// How many there are.
        found: usize,
    },
    /// A batch is larger than the whole data.
    #[error("a batch of {batch} images is larger than the training data of {found}: lower {settings}, or add images")]
    BatchTooLarge {
        /// Images in a batch.
        batch: usize,
        /// Images in the data.
        found: usize,
        /// Which settings to lower.
        settings: &'static str,
    },
}

/// What `gradus list samplers` shows of a sampler.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerInfo {
    /// The name used in configurations.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its settings and their defaults.
    pub defaults: SamplerConfig,
}

macro_rules! register_samplers {
    ($($variant:ident($config:ident) $name:literal: $summary:literal,)+) => {
        /// Which sampler, with its settings; the default is `m-per-class`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum SamplerConfig {
            $(
                #[doc = concat!("`[sampler.", $name, "]`: ", $summary, ".")]
                #[serde(rename = $name)]
                $variant($config),
            )+
        }

        impl SamplerConfig {
            /// The sampler of this configuration, drawing from `seed`.
            #[must_use]
            pub fn init(&self, seed: u64) -> Box<dyn BatchSampler> {
                match self {
                    $(Self::$variant(config) => Box::new(config.init(seed)),)+
                }
            }

            /// The name used in configurations.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }
        }

        /// All samplers, sorted by name.
        #[must_use]
        pub fn registry() -> Vec<SamplerInfo> {
            vec![$(
                SamplerInfo {
                    name: $name,
                    summary: $summary,
                    defaults: SamplerConfig::$variant($config::default()),
                },
            )+]
        }
    };
}

// Sorted; the only place that lists samplers.
register_samplers! {
    CategoryBalanced(CategoryBalancedConfig) "category-balanced":
        "classes of one coarse class in every batch, coarse classes in proportion to their images; every image at least once per epoch",
    FixedTriplets(FixedTripletsConfig) "fixed-triplets":
        "a fixed set of random triplets, one after the other, in another order each epoch",
    GreedyCoreset(GreedyCoresetConfig) "greedy-coreset":
        "as m-per-class, but groups that lie far apart meet in a batch (needs embeddings)",
    Hierarchical(HierarchicalConfig) "hierarchical":
        "every set of coarse classes in several batches, with images of several of their classes",
    MPerClass(MPerClassConfig) "m-per-class":
        "`samples` images of each of `classes` classes in every batch; every image at least once per epoch",
    Shuffle(ShuffleConfig) "shuffle":
        "all images in random order, whatever their class",
    TuplesToWeights(TuplesToWeightsConfig) "tuples-to-weights":
        "images drawn as often as a miner chooses them on a random part of the data (needs embeddings)",
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self::MPerClass(MPerClassConfig::default())
    }
}

/// Refuses a setting that must be at least 1.
fn positive(settings: &[(&'static str, usize)]) -> Result<(), SamplerError> {
    match settings.iter().find(|(_, value)| *value == 0) {
        Some(&(setting, _)) => Err(SamplerError::Zero { setting }),
        None => Ok(()),
    }
}

/// Positions of the items of each class, ordered by class then position.
fn members(labels: &[u32]) -> Vec<Vec<usize>> {
    let mut classes: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (position, &label) in labels.iter().enumerate() {
        classes.entry(label).or_default().push(position);
    }
    classes.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_registered_sampler_is_reached_by_its_name() {
        let names: Vec<&str> = registry().iter().map(|info| info.name).collect();
        assert!(names.is_sorted());
        for info in registry() {
            let config: SamplerConfig = serde_json::from_str(&format!("{{\"{}\": {{}}}}", info.name)).unwrap();
            assert_eq!((config.name(), &config), (info.name, &info.defaults));
            let written = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<SamplerConfig>(&written).unwrap(), config);
        }
        assert_eq!(SamplerConfig::default().init(1).batch_size(), 64);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = serde_json::from_str::<SamplerConfig>(r#"{"m-per-class": {"clases": 8}}"#).unwrap_err();
        assert!(error.to_string().contains("clases"), "{error}");
        assert!(serde_json::from_str::<SamplerConfig>(r#"{"m-per-klass": {}}"#).is_err());
    }

    #[test]
    fn members_are_ordered_whatever_the_labels() {
        assert_eq!(members(&[7, 3, 7, 900]), [vec![1], vec![0, 2], vec![3]]);
    }
}
