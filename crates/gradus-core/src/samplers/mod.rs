//! Which items meet in a batch: a pure function of (seed, epoch), so a resumed run sees the batches it would have seen.
//!
//! A new sampler is one file with a configuration and a [`BatchSampler`], one variant of [`SamplerConfig`] and one line
//! of [`registry`].

mod m_per_class;
mod shuffle;

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::{Deserialize, Serialize};

pub use m_per_class::{MPerClass, MPerClassConfig};
pub use shuffle::{Shuffle, ShuffleConfig};

/// Deals items into batches.
pub trait BatchSampler: Debug + Send + Sync {
    /// The batches of an epoch: lists of positions in `labels`, where `labels[i]` is the class of item `i`.
    ///
    /// The same arguments give the same batches. Call [`BatchSampler::validate`] first: data it refuses gives no batch.
    fn batches(&self, labels: &[u32], epoch: u64) -> Vec<Vec<usize>>;

    /// Items in a full batch.
    fn batch_size(&self) -> usize;

    /// Checks that batches can be made of this data.
    ///
    /// # Errors
    /// [`SamplerError`], saying what is missing and what to change.
    fn validate(&self, labels: &[u32]) -> Result<(), SamplerError>;

    /// What is unfortunate but allowed, as sentences for the user.
    fn warnings(&self, labels: &[u32]) -> Vec<String> {
        let _ = labels;
        Vec::new()
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

/// Which sampler, with its settings; the default is `m-per-class`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SamplerConfig {
    /// A fixed number of images of each of a fixed number of classes.
    MPerClass(MPerClassConfig),
    /// All images in random order, whatever their class.
    Shuffle(ShuffleConfig),
}

impl Default for SamplerConfig {
    fn default() -> Self {
        Self::MPerClass(MPerClassConfig::default())
    }
}

impl SamplerConfig {
    /// The sampler of this configuration, drawing from `seed`.
    #[must_use]
    pub fn init(&self, seed: u64) -> Box<dyn BatchSampler> {
        match self {
            Self::MPerClass(config) => Box::new(config.init(seed)),
            Self::Shuffle(config) => Box::new(config.init(seed)),
        }
    }

    /// The name used in configurations.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::MPerClass(_) => "m-per-class",
            Self::Shuffle(_) => "shuffle",
        }
    }
}

/// A line of the list of samplers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SamplerInfo {
    /// The name used in configurations.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Its settings and their defaults.
    pub defaults: SamplerConfig,
}

/// All samplers, sorted by name.
#[must_use]
pub fn registry() -> Vec<SamplerInfo> {
    vec![
        SamplerInfo {
            name: "m-per-class",
            summary: "`samples` images of each of `classes` classes in every batch; every image at least once per epoch",
            defaults: SamplerConfig::MPerClass(MPerClassConfig::default()),
        },
        SamplerInfo {
            name: "shuffle",
            summary: "all images in random order, whatever their class",
            defaults: SamplerConfig::Shuffle(ShuffleConfig::default()),
        },
    ]
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
