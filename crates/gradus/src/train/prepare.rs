//! From a path to training, validation and test items: read, check images, split by classes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gradus_core::data::image::{ScanOptions, scan_with};
use gradus_core::data::loader::DecodedCache;
use gradus_core::data::split::{TestSet, dense_labels, validation_split};
use gradus_core::data::turns::add_quarter_turns;
use gradus_core::data::{ClassSelection, Dataset, Item, Layout, SplitOptions, flora, layouts};
use gradus_core::samplers::SamplerInput;

use super::error::TrainError;
use super::events::{Event, Observer};
use crate::config::{Config, DataConfig};

/// Everything a run needs to know about its data.
#[derive(Debug, Clone)]
pub struct PreparedData {
    /// The data set.
    pub dataset: Dataset,
    /// All items, shared with the loading threads.
    pub items: Arc<[Item]>,
    /// Items trained on.
    pub train: Vec<usize>,
    /// Dense class of each training item.
    pub train_labels: Vec<u32>,
    /// Number of training classes.
    pub train_classes: usize,
    /// Dense coarse class of each training item, if all of their classes have one.
    pub train_super_labels: Option<Vec<u32>>,
    /// Items of the held-out training classes.
    pub validation: Vec<usize>,
    /// Items of the test classes.
    pub test: TestSet,
    /// What the split is, in words.
    pub description: String,
    /// Decoded images kept between epochs.
    pub cache: Arc<DecodedCache>,
}

/// Reads the data set of a configuration: the embedded one for the path `flora`, else what lies there.
///
/// # Errors
/// If nothing usable lies there.
pub fn read(config: &DataConfig) -> Result<Dataset, TrainError> {
    let embedded = config.path.as_os_str() == "flora" && !Path::new("flora").exists();
    if embedded && config.layout.is_none_or(|layout| layout == Layout::Flora) {
        return Ok(flora::generate(&config.flora)?);
    }
    let paths: Vec<PathBuf> = std::iter::once(&config.path).chain(&config.with).cloned().collect();
    Ok(layouts::read_several(&paths, config.layout)?)
}

impl PreparedData {
    /// Reads, checks and splits the data of a configuration.
    ///
    /// # Errors
    /// If the data cannot be read or used, or too many images are broken.
    pub fn new(config: &Config, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        Self::from_dataset(read(&config.data)?, config, observer)
    }

    /// Checks and splits a data set that was read already.
    ///
    /// # Errors
    /// If the data cannot be used, or too many images are broken.
    pub fn from_dataset(dataset: Dataset, config: &Config, observer: &mut dyn Observer) -> Result<Self, TrainError> {
        let options = SplitOptions {
            train_classes: selection(config.data.train_classes.as_deref(), "data.train-classes")?,
            test_classes: selection(config.data.test_classes.as_deref(), "data.test-classes")?,
        };
        let mut split = dataset.split(&options)?;
        for note in &dataset.notes {
            observer.on(&Event::Warning { message: note.clone() });
        }
        let items: Arc<[Item]> = dataset.items.clone().into();
        let cache = new_cache(items.len(), config.data.cache_mib);
        let used: Vec<usize> = split.train.iter().copied().chain(split.test.items()).collect();
        let bad = bad_images(&items, &used, config.data.max_bad_images)?;
        if !bad.is_empty() {
            for (_, message) in bad.iter().take(10) {
                observer.on(&Event::Warning {
                    message: format!("left out: {message}"),
                });
            }
            let is_bad = |index: &usize| bad.iter().any(|(item, _)| item == index);
            split.train.retain(|index| !is_bad(index));
            split.test = match split.test {
                TestSet::Single(items) => TestSet::Single(items.into_iter().filter(|index| !is_bad(index)).collect()),
                TestSet::QueryGallery { query, gallery } => TestSet::QueryGallery {
                    query: query.into_iter().filter(|index| !is_bad(index)).collect(),
                    gallery: gallery.into_iter().filter(|index| !is_bad(index)).collect(),
                },
            };
        }
        let (train, validation) = if config.data.validation > 0.0 {
            validation_split(&split.train, &dataset, config.data.validation, config.seed)
        } else {
            (split.train, Vec::new())
        };
        let (mut train_labels, classes) = dense_labels(&train, &dataset);
        let mut train_classes = classes.len();
        let mut train_super_labels = super_labels(&train, &dataset);
        let (mut items, mut train, mut cache) = (items, train, cache);
        if config.data.rotations_as_classes {
            let mut all = items.to_vec();
            add_quarter_turns(&mut all, &mut train, &mut train_labels, classes.len() as u32);
            train_classes *= 4;
            train_super_labels = train_super_labels.map(|coarse| coarse.repeat(4));
            cache = new_cache(all.len(), config.data.cache_mib);
            items = all.into();
        }
        observer.on(&Event::Data {
            split: split.description.clone(),
            train_images: train.len(),
            train_classes,
            validation_images: validation.len(),
            test_images: split.test.len(),
        });
        Ok(Self {
            train_classes,
            train_super_labels,
            items,
            dataset,
            train,
            train_labels,
            validation,
            test: split.test,
            description: split.description,
            cache,
        })
    }

    /// What a sampler is told of the training items.
    #[must_use]
    pub fn sampler_input(&self) -> SamplerInput<'_> {
        SamplerInput::new(&self.train_labels).with_super_labels(self.train_super_labels.as_deref())
    }
}

/// Dense coarse classes, numbered in the order of their names.
fn super_labels(items: &[usize], dataset: &Dataset) -> Option<Vec<u32>> {
    let coarse = |item: &usize| dataset.classes[dataset.items[*item].class as usize].coarse.as_deref();
    let names: Option<BTreeSet<&str>> = items.iter().map(coarse).collect();
    let names: Vec<&str> = names?.into_iter().collect();
    let number = |name: &str| names.binary_search(&name).ok().map(|at| at as u32);
    items.iter().map(|item| number(coarse(item)?)).collect()
}

fn selection(text: Option<&str>, key: &str) -> Result<Option<ClassSelection>, TrainError> {
    text.map(|text| {
        text.parse::<ClassSelection>()
            .map_err(|problem| TrainError::Config(format!("{key}: {problem}")))
    })
    .transpose()
}

/// A cache for the decoded images of a data set.
#[must_use]
pub fn new_cache(items: usize, mebibytes: usize) -> Arc<DecodedCache> {
    Arc::new(DecodedCache::new(items, mebibytes as u64 * 1024 * 1024))
}

/// Decodes the items at `used` and returns the broken ones with what is wrong.
///
/// # Errors
/// If their share is above `limit`.
pub fn bad_images(items: &[Item], used: &[usize], limit: f64) -> Result<Vec<(usize, String)>, TrainError> {
    let chosen: Vec<Item> = used.iter().map(|&index| items[index].clone()).collect();
    let options = ScanOptions {
        max_bad_images: limit,
        ..ScanOptions::default()
    };
    let bad = scan_with(&chosen, &options, &|_| {})?;
    Ok(bad
        .into_iter()
        .map(|(position, message)| (used[position], message))
        .collect())
}
