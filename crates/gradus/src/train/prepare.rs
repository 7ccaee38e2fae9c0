//! From a path to training, validation and test items: read, check images, split by classes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gradus_core::data::cache::DecodedCache;
use gradus_core::data::image::{DEFAULT_PIXEL_LIMIT, Decoding, ImageError, ScanOptions, decode_within, scan_by};
use gradus_core::data::split::{TestSet, dense_labels, fold_split, validation_split};
use gradus_core::data::turns::add_quarter_turns;
use gradus_core::data::{ClassSelection, Dataset, Item, Layout, SplitOptions, flora, layouts};
use gradus_core::samplers::SamplerInput;

use super::cache_folder::user_cache_folder;
use super::error::TrainError;
use super::events::{Event, Observer};
use crate::config::{CacheKind, Config, DataConfig};

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

/// The path that means the embedded plants.
const EMBEDDED: &str = "flora";

/// Whether the configuration asks for the embedded plants: by the path `flora`, whatever lies there, unless a layout of files is
/// named. (A folder of that name is `./flora`.)
fn is_embedded(config: &DataConfig) -> bool {
    config.path.as_os_str() == EMBEDDED && config.layout.is_none_or(|layout| layout == Layout::Flora)
}

/// Reads the data set of a configuration: the embedded one for the path `flora`, else what lies there.
///
/// # Errors
/// If nothing usable lies there.
pub fn read(config: &DataConfig) -> Result<Dataset, TrainError> {
    if is_embedded(config) {
        let mut dataset = flora::generate(&config.flora)?;
        if Path::new(EMBEDDED).exists() {
            dataset.notes.push(format!(
                "data.path = \"{EMBEDDED}\" means the embedded plants; what is here under that name would be ./{EMBEDDED}"
            ));
        }
        return Ok(dataset);
    }
    if let Some(labels) = &config.labels {
        if config.layout.is_some_and(|layout| layout != Layout::Embeddings) || !config.with.is_empty() {
            return Err(TrainError::Config(format!(
                "data.labels = {} gives the classes of vectors in one file: leave data.layout and further paths out",
                labels.display()
            )));
        }
        return Ok(layouts::read_vectors(&config.path, Some(labels))?);
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
        check_input(&dataset, config)?;
        let mut split = dataset.split(&options)?;
        for note in &dataset.notes {
            observer.on(&Event::Warning { message: note.clone() });
        }
        let items: Arc<[Item]> = dataset.items.clone().into();
        let cache = cache_of(&config.data, items.len(), observer);
        let used: Vec<usize> = split.train.iter().copied().chain(split.test.items()).collect();
        let check = |item: usize| cache.check(&items[item].source);
        let bad = match dataset.vector_width() {
            // Their reader has looked at every one.
            Some(_) => Vec::new(),
            None => bad_images_by(&used, config.data.max_bad_images, &check)?,
        };
        cache.finish();
        for message in cache.notes() {
            observer.on(&Event::Warning { message });
        }
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
        let (train, validation) = if let Some(fold) = config.data.validation_fold {
            fold_split(&split.train, &dataset, fold, config.seed)?
        } else if config.data.validation > 0.0 {
            validation_split(&split.train, &dataset, config.data.validation, config.seed)
        } else {
            (split.train, Vec::new())
        };
        let (mut train_labels, classes) = dense_labels(&train, &dataset);
        let mut train_classes = classes.len();
        let mut train_super_labels = super_labels(&train, &dataset);
        let (mut items, mut train) = (items, train);
        if config.data.rotations_as_classes {
            let mut all = items.to_vec();
            add_quarter_turns(&mut all, &mut train, &mut train_labels, classes.len() as u32);
            train_classes *= 4;
            train_super_labels = train_super_labels.map(|coarse| coarse.repeat(4));
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

/// Whether data set and network agree on what goes in: images, or vectors of one width.
fn check_input(dataset: &Dataset, config: &Config) -> Result<(), TrainError> {
    let path = config.data.path.display();
    let problem = match (dataset.vector_width(), config.model.vectors) {
        (None, None) => return Ok(()),
        (Some(found), Some(expected)) if found == expected => {
            if config.data.rotations_as_classes {
                "data.rotations-as-classes turns images, but the data are vectors: leave it out".to_owned()
            } else {
                return Ok(());
            }
        }
        (Some(found), Some(expected)) => format!(
            "the vectors in {path} have {found} numbers each, but model.vectors = {expected}: give vectors of the model the head was \
             made for"
        ),
        (Some(found), None) => format!(
            "{path} holds vectors of {found} numbers, not images: set model.vectors = {found} to train a head on them (`gradus train \
             --embeddings` does)"
        ),
        (None, Some(expected)) => format!(
            "model.vectors = {expected} asks for vectors, but {path} holds images: leave model.vectors out, or give a file of vectors"
        ),
    };
    Err(TrainError::Data(problem))
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

/// A cache that keeps nothing and decodes every image whole.
#[must_use]
pub fn no_cache() -> Arc<DecodedCache> {
    Arc::new(DecodedCache::new(0, 0, Decoding::default()))
}

/// The cache that a configuration asks for. With turned copies of the training images, which stand behind all others, there
/// are at most four times as many items.
fn cache_of(config: &DataConfig, items: usize, observer: &mut dyn Observer) -> Arc<DecodedCache> {
    let items = if config.rotations_as_classes { 4 * items } else { items };
    let decoding = Decoding {
        jpeg_short_side: config.jpeg_short_side,
        ..Decoding::default()
    };
    let mebibytes = |count: usize| count as u64 * 1024 * 1024;
    let none = || Arc::new(DecodedCache::new(0, 0, decoding));
    match config.cache {
        CacheKind::Ram => Arc::new(DecodedCache::new(items, mebibytes(config.cache_mib), decoding)),
        CacheKind::None => none(),
        CacheKind::Disk => {
            let Some(folder) = config.cache_folder.clone().or_else(user_cache_folder) else {
                let message = "data.cache = \"disk\", but this user has no cache folder: images are decoded in every epoch; name a \
                               folder with data.cache-folder"
                    .to_owned();
                observer.on(&Event::Warning { message });
                return none();
            };
            let path = folder.join(cache_name(config));
            Arc::new(DecodedCache::on_disk(path, mebibytes(config.disk_cache_mib), decoding))
        }
    }
}

/// The name of a data set's cache: that of its folder or file, and a number made of all of its paths and of the size at which
/// images are decoded.
fn cache_name(config: &DataConfig) -> String {
    let paths: Vec<PathBuf> = std::iter::once(&config.path)
        .chain(&config.with)
        .map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        .collect();
    let bytes: Vec<u64> = paths
        .iter()
        .flat_map(|path| {
            path.as_os_str()
                .as_encoded_bytes()
                .iter()
                .map(|&byte| u64::from(byte))
                .chain([256])
        })
        .chain((config.jpeg_short_side > 0).then_some(u64::from(config.jpeg_short_side)))
        .collect();
    let name = paths[0]
        .file_name()
        .map_or_else(|| "data".to_owned(), |name| name.to_string_lossy().into_owned());
    format!("{name}-{:016x}.pixels", gradus_core::random::derive(0, &bytes))
}

/// Decodes the items at `used` and returns the broken ones with what is wrong.
///
/// # Errors
/// If their share is above `limit`.
pub fn bad_images(items: &[Item], used: &[usize], limit: f64) -> Result<Vec<(usize, String)>, TrainError> {
    let check = |item: usize| decode_within(&items[item].source, DEFAULT_PIXEL_LIMIT).map(drop);
    bad_images_by(used, limit, &check)
}

/// [`bad_images`] of items that `check` decodes, or knows to be whole.
fn bad_images_by(
    used: &[usize],
    limit: f64,
    check: &(dyn Fn(usize) -> Result<(), ImageError> + Sync),
) -> Result<Vec<(usize, String)>, TrainError> {
    let options = ScanOptions {
        max_bad_images: limit,
        ..ScanOptions::default()
    };
    let bad = scan_by(used.len(), &options, &|position| check(used[position]), &|_| {})?;
    Ok(bad
        .into_iter()
        .map(|(position, message)| (used[position], message))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::events::Silent;

    /// Four classes of two pictures each, in a folder per class.
    fn folder_of_pictures(width: u32, height: u32, format: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..8_u8 {
            let class = folder.path().join(format!("data/{}", number / 2));
            std::fs::create_dir_all(&class).unwrap();
            let picture = image::RgbImage::from_pixel(width, height, image::Rgb([number * 30, 7, 200]));
            picture.save(class.join(format!("{number}.{format}"))).unwrap();
        }
        folder
    }

    #[test]
    fn a_disk_cache_lies_where_it_was_asked_for_and_holds_every_image_used() {
        let folder = folder_of_pictures(20, 10, "png");
        let caches = folder.path().join("caches");
        let mut config = Config::default();
        config.data.path = folder.path().join("data");
        config.data.cache = CacheKind::Disk;
        config.data.cache_folder = Some(caches.clone());
        let used = |config: &Config| PreparedData::new(config, &mut Silent).unwrap().cache.used();
        assert_eq!(used(&config), 8 * 20 * 10 * 3);
        let files: Vec<_> = std::fs::read_dir(&caches)
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        assert_eq!(files.len(), 1);
        assert_eq!(
            files[0].file_name().unwrap().to_str(),
            Some(cache_name(&config.data).as_str())
        );
        // The next run finds it; turned copies need no room; other data have another file.
        let written = std::fs::metadata(&files[0]).unwrap().modified().unwrap();
        config.data.rotations_as_classes = true;
        assert_eq!(used(&config), 8 * 20 * 10 * 3);
        assert_eq!(std::fs::metadata(&files[0]).unwrap().modified().unwrap(), written);
        config.data.with = vec!["more".into()];
        assert_ne!(
            files[0].file_name().unwrap().to_str(),
            Some(cache_name(&config.data).as_str())
        );
        // No room and no cache at all are no reason to fail.
        config.data.with.clear();
        config.data.cache_folder = Some(folder.path().join("elsewhere"));
        config.data.disk_cache_mib = 0;
        assert_eq!(used(&config), 0);
        config.data.cache = CacheKind::None;
        assert_eq!(used(&config), 0);
    }

    #[test]
    fn photographs_are_decoded_at_the_size_asked_for_and_kept_apart() {
        let folder = folder_of_pictures(64, 48, "jpg");
        let mut config = Config::default();
        config.data.path = folder.path().join("data");
        config.data.cache = CacheKind::Disk;
        config.data.cache_folder = Some(folder.path().join("cache"));
        for (short_side, size) in [(0, (64, 48)), (16, (32, 24)), (0, (64, 48))] {
            config.data.jpeg_short_side = short_side;
            let data = PreparedData::new(&config, &mut Silent).unwrap();
            assert!(data.cache.notes().is_empty());
            for item in 0..8 {
                let pixels = data.cache.get(item, &data.items[item].source).unwrap();
                assert_eq!(pixels.dimensions(), size);
            }
        }
        assert_eq!(std::fs::read_dir(folder.path().join("cache")).unwrap().count(), 2);
    }
}
