//! Images → embeddings on the host, batch by batch.

use std::sync::Arc;

use gradus_core::EmbeddingSet;
use gradus_core::data::Item;
use gradus_core::data::loader::{DecodedCache, HostBatch, Loader, LoaderOptions, Mode};
use gradus_core::data::transform::Transform;

use super::error::TrainError;
use super::events::{Event, Observer};
use super::frozen::FrozenFeatures;
use crate::config::Config;
use crate::models::{Embedder, Mode as ForwardMode};
use crate::tensor::{Device, Tensor, TensorData};

/// What reading images for a forward pass takes.
#[derive(Debug, Clone)]
pub struct Images {
    /// All items of the data set.
    pub items: Arc<[Item]>,
    /// How an image becomes a tensor.
    pub transform: Transform,
    /// Decoded images kept between passes.
    pub cache: Arc<DecodedCache>,
    /// Decoding threads, 0 for one per core.
    pub threads: usize,
    /// Images per forward pass.
    pub batch_size: usize,
    /// Features of the frozen trunk that every network embedding these images shares, if they were computed already.
    pub frozen: Option<Arc<FrozenFeatures>>,
}

impl Images {
    /// What a configuration says about reading images.
    ///
    /// # Errors
    /// If the transform is refused.
    pub fn new(config: &Config, items: &Arc<[Item]>, cache: &Arc<DecodedCache>) -> Result<Self, TrainError> {
        let vectors = items.first().and_then(|item| item.source.vector()).map(<[f32]>::len);
        if vectors != config.model.vectors {
            return Err(TrainError::Data(match (vectors, config.model.vectors) {
                (_, None) => "the data are vectors, but the model embeds images".to_owned(),
                (None, Some(width)) => format!(
                    "the model is a head on vectors of {width} numbers, made by another model: it cannot embed images; give their \
                     vectors (--embeddings)"
                ),
                (Some(found), Some(width)) => {
                    format!("the vectors have {found} numbers each, but the model is a head on vectors of {width}")
                }
            }));
        }
        Ok(Self {
            items: Arc::clone(items),
            transform: config
                .transform
                .init()
                .map_err(|error| TrainError::Config(error.to_string()))?,
            cache: Arc::clone(cache),
            threads: config.data.threads,
            batch_size: config.evaluation.batch_size,
            frozen: vectors.map(|width| Arc::new(FrozenFeatures::given(items, width, config.model.normalise_features))),
        })
    }

    /// Starts loading batches of items.
    #[must_use]
    pub fn load(&self, batches: Vec<Vec<usize>>, mode: Mode, seed: u64) -> Loader {
        self.load_after(0, batches, mode, seed)
    }

    /// Starts loading the batches of an epoch after the first `skip`, which were used before it was interrupted.
    #[must_use]
    pub fn load_after(&self, skip: usize, batches: Vec<Vec<usize>>, mode: Mode, seed: u64) -> Loader {
        let mut options = LoaderOptions {
            skip,
            seed,
            mode,
            cache: Some(Arc::clone(&self.cache)),
            ..LoaderOptions::default()
        };
        if self.threads > 0 {
            options.threads = self.threads;
        }
        Loader::start(Arc::clone(&self.items), batches, self.transform.clone(), options)
    }
}

/// Which output of the network is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// The unit-norm embedding.
    Embedding,
    /// The pooled features of the trunk.
    Features,
}

/// Puts a loaded batch on a device: its images `[batch, 3, height, width]` and, if there are any, their graded augmentations
/// `[batch * levels, 3, height, width]`. The memory is handed over, not copied.
#[must_use]
pub fn to_device(batch: HostBatch, device: &Device) -> (Tensor<4>, Option<Tensor<4>>) {
    let HostBatch {
        images, graded, size, ..
    } = batch;
    let tensor = |values: Vec<f32>| {
        let count = values.len() / (3 * size * size);
        Tensor::from_data(TensorData::new(values, [count, 3, size, size]), device)
    };
    (tensor(images), graded.map(tensor))
}

/// Reads a tensor back.
///
/// # Errors
/// If the device failed.
pub fn to_host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TrainError> {
    tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| TrainError::Device(error.to_string()))
}

/// Embeds the items at `indices` as evaluation sees them, in that order; `labels` become the labels of the set.
///
/// # Errors
/// If an image cannot be loaded or the device fails.
pub fn embed(
    embedder: &Embedder,
    images: &Images,
    indices: &[usize],
    labels: Vec<u32>,
    output: Output,
    what: &str,
    observer: &mut dyn Observer,
) -> Result<EmbeddingSet, TrainError> {
    let embedder = crate::tensor::Module::valid(embedder);
    let device = device_of(&embedder);
    let mut values = Vec::new();
    let mut take = |features: Tensor<2>| {
        let rows = match output {
            Output::Features => features,
            Output::Embedding => embedder.head(features),
        };
        values.extend(to_host(rows)?);
        Ok(())
    };
    match images.frozen.as_ref().filter(|frozen| frozen.covers(indices)) {
        Some(frozen) => {
            for items in indices.chunks(FEATURES_AT_A_TIME) {
                take(frozen.of(items, &device)?)?;
            }
        }
        None => each_batch(images, indices, Mode::Evaluate, 0, what, observer, |batch| {
            take(embedder.features(to_device(batch, &device).0, ForwardMode::Evaluate))
        })?,
    }
    let dim = match output {
        Output::Embedding => embedder.dim(),
        Output::Features => embedder.feature_width(),
    };
    let ids = indices.iter().map(|&index| images.items[index].source.name()).collect();
    Ok(EmbeddingSet {
        dim,
        values,
        labels,
        ids,
    })
}

/// Embeds the items at `indices` as evaluation sees them and hands every batch to `sink`, with the items it shows, in that order: for more
/// images than should be in memory together.
///
/// # Errors
/// If an image cannot be loaded, the device fails, or `sink` does.
pub fn embed_batches<E: From<TrainError>>(
    embedder: &Embedder,
    images: &Images,
    indices: &[usize],
    what: &str,
    observer: &mut dyn Observer,
    mut sink: impl FnMut(&[usize], &[f32]) -> Result<(), E>,
) -> Result<(), E> {
    let embedder = crate::tensor::Module::valid(embedder);
    let device = device_of(&embedder);
    let mut refused = None;
    let result = each_batch(images, indices, Mode::Evaluate, 0, what, observer, |batch| {
        let items = batch.items.clone();
        let features = embedder.features(to_device(batch, &device).0, ForwardMode::Evaluate);
        let rows = to_host(embedder.head(features))?;
        sink(&items, &rows).map_err(|error| {
            refused = Some(error);
            // Never seen: the sink's own error is handed back.
            TrainError::Device(String::new())
        })
    });
    match (refused, result) {
        (Some(error), _) => Err(error),
        (None, result) => result.map_err(E::from),
    }
}

/// Rows of stored features that go through the head together.
const FEATURES_AT_A_TIME: usize = 4096;

/// Hands the pooled features of items as evaluation sees them to `sink`, in the order of `indices`.
pub(super) fn features(
    embedder: &Embedder,
    images: &Images,
    indices: &[usize],
    what: &str,
    observer: &mut dyn Observer,
    sink: &mut dyn FnMut(&[f32]) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let embedder = crate::tensor::Module::valid(embedder);
    let device = device_of(&embedder);
    each_batch(images, indices, Mode::Evaluate, 0, what, observer, |batch| {
        let features = embedder.features(to_device(batch, &device).0, ForwardMode::Evaluate);
        sink(&to_host(features)?)
    })
}

/// Hands the pooled features of one training view of each item to `sink`, each followed by those of its graded augmentations,
/// in the order of `indices`.
#[expect(clippy::too_many_arguments, reason = "what is seen, how, and where it goes")]
pub(super) fn view_features(
    embedder: &Embedder,
    images: &Images,
    indices: &[usize],
    [seed, epoch]: [u64; 2],
    graded_levels: Option<usize>,
    what: &str,
    observer: &mut dyn Observer,
    sink: &mut dyn FnMut(&[f32]) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let embedder = crate::tensor::Module::valid(embedder);
    let (device, width) = (device_of(&embedder), embedder.feature_width());
    let levels = graded_levels.unwrap_or(0);
    let mode = Mode::Train { epoch, graded_levels };
    each_batch(images, indices, mode, seed, what, observer, |batch| {
        let run = |views: Tensor<4>| to_host(embedder.features(views, ForwardMode::Evaluate));
        let (images, graded) = to_device(batch, &device);
        let plain = run(images)?;
        let graded = graded.map(run).transpose()?.unwrap_or_default();
        for (row, plain) in plain.chunks_exact(width).enumerate() {
            sink(plain)?;
            sink(&graded[row * levels * width..(row + 1) * levels * width])?;
        }
        Ok(())
    })
}

fn each_batch(
    images: &Images,
    indices: &[usize],
    mode: Mode,
    seed: u64,
    what: &str,
    observer: &mut dyn Observer,
    mut work: impl FnMut(HostBatch) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let batches = indices.chunks(images.batch_size.max(1)).map(<[usize]>::to_vec);
    let mut done = 0;
    for batch in images.load(batches.collect(), mode, seed) {
        let batch = batch?;
        done += batch.items.len();
        work(batch)?;
        observer.on(&Event::Progress {
            what: what.to_owned(),
            done,
            total: indices.len(),
        });
    }
    Ok(())
}

fn device_of(embedder: &Embedder) -> Device {
    // A module without parameters does not exist here; were it so, any device would do.
    crate::tensor::Module::devices(embedder)
        .into_iter()
        .next()
        .unwrap_or_default()
}
