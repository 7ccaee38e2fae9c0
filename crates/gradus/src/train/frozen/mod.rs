//! Features of a frozen trunk, computed once, by this run or by an earlier one.

mod store;

use std::collections::BTreeMap;

use gradus_core::data::Item;
use gradus_core::data::fingerprint::Fingerprint;
use gradus_core::random::derive;

use self::store::{Store, Stored};
use super::embed::{self, Images};
use super::error::TrainError;
use super::events::Observer;
use crate::config::Config;
use crate::models::Embedder;
use crate::state::named_arrays;
use crate::tensor::{Device, Tensor, TensorData};

/// Raised whenever features come out differently for the same description.
const VERSION: u32 = 3;
/// Seed of the stored views: the same for all runs, so that runs of other seeds find them.
const VIEW_SEED: u64 = 0;

/// The features of all items as evaluation sees them, and of augmented views of the training items.
#[derive(Debug)]
pub struct FrozenFeatures {
    width: usize,
    /// Row of each item of the data set in `evaluation`.
    row_of: BTreeMap<usize, usize>,
    evaluation: Stored,
    views: Option<Views>,
}

/// Augmented views: `[views * items, (1 + levels) * width]`, all items of a view together.
#[derive(Debug)]
struct Views {
    count: usize,
    levels: usize,
    row_of: BTreeMap<usize, usize>,
    rows: Stored,
}

/// Which items of a run are needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Trained on: with views.
    pub(super) train: &'a [usize],
    /// Everything that is looked at without augmentation.
    pub(super) all: &'a [usize],
}

impl FrozenFeatures {
    /// Vectors that are given in place of features; of unit length where the head expects that.
    pub(super) fn given(items: &[Item], width: usize, normalise: bool) -> Self {
        let mut values = Vec::with_capacity(items.len() * width);
        for vector in items.iter().filter_map(|item| item.source.vector()) {
            let length = match normalise {
                true => vector.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt(),
                false => 1.0,
            };
            values.extend(vector.iter().map(|&value| (f64::from(value) / length) as f32));
        }
        Self {
            width,
            row_of: (0..items.len()).map(|item| (item, item)).collect(),
            evaluation: Stored::Memory { width, values },
            views: None,
        }
    }

    /// Runs the trunk over all images, unless their features are stored.
    pub(super) fn compute(
        embedder: &Embedder,
        images: &Images,
        wanted: Wanted<'_>,
        config: &Config,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let store = Store::new(&config.train);
        let width = embedder.feature_width();
        let trunk = describe_trunk(embedder, config)?;
        let description = describe_items(&trunk, images, wanted.all)?;
        let evaluation = store.find_or_make(&description, [wanted.all.len(), width], observer, |sink, observer| {
            let what = "features of the frozen trunk";
            embed::features(embedder, images, wanted.all, what, observer, sink)
        })?;
        let levels = config.intra_class.graded_levels();
        let views = if levels.is_some() || config.train.feature_views > 1 {
            Some(Views::compute(
                &store,
                &trunk,
                embedder,
                images,
                wanted.train,
                config,
                observer,
            )?)
        } else {
            None
        };
        Ok(Self {
            width,
            row_of: rows(wanted.all),
            evaluation,
            views,
        })
    }

    /// The features as evaluation sees the items, if an earlier run has stored them.
    pub(super) fn stored(
        embedder: &Embedder,
        images: &Images,
        all: &[usize],
        config: &Config,
    ) -> Result<Option<Self>, TrainError> {
        let width = embedder.feature_width();
        let description = describe_items(&describe_trunk(embedder, config)?, images, all)?;
        let found = Store::new(&config.train).find(&description, [all.len(), width]);
        Ok(found.map(|evaluation| Self {
            width,
            row_of: rows(all),
            evaluation,
            views: None,
        }))
    }

    /// Whether features of all these items are here.
    pub(super) fn covers(&self, items: &[usize]) -> bool {
        items.iter().all(|item| self.row_of.contains_key(item))
    }

    /// The features of some items as evaluation sees them, `[items, width]`.
    pub(super) fn of(&self, items: &[usize], device: &Device) -> Result<Tensor<2>, TrainError> {
        let values = self.evaluation.gather(items.iter().map(|item| self.row_of[item]))?;
        Ok(Tensor::from_data(
            TensorData::new(values, [items.len(), self.width]),
            device,
        ))
    }

    /// The features that training sees of a batch: `views` of each item, all first ones before all second ones,
    /// `[items * views, width]`; and of their graded augmentations, `[items * views * levels, width]`. `seed` draws the views.
    pub(super) fn training(
        &self,
        items: &[usize],
        views: usize,
        seed: u64,
        device: &Device,
    ) -> Result<(Tensor<2>, Option<Tensor<2>>), TrainError> {
        let Some(stored) = &self.views else {
            return Ok((self.of(&items.repeat(views), device)?, None));
        };
        let mut places = Vec::with_capacity(items.len() * views);
        for view in 0..views {
            for (place, item) in items.iter().enumerate() {
                // An item that comes twice in a batch is seen twice, not the same view twice.
                let occurrence = items[..place].iter().filter(|other| *other == item).count();
                let first = derive(seed, &[*item as u64, occurrence as u64]) % stored.count as u64;
                let chosen = (first as usize + view) % stored.count;
                places.push(chosen * stored.row_of.len() + stored.row_of[item]);
            }
        }
        let total = places.len();
        let values = stored.rows.gather(places.into_iter())?;
        let record = (1 + stored.levels) * self.width;
        if stored.levels == 0 {
            return Ok((
                Tensor::from_data(TensorData::new(values, [total, self.width]), device),
                None,
            ));
        }
        let (mut plain, mut graded) = (Vec::with_capacity(total * self.width), Vec::new());
        for record in values.chunks_exact(record) {
            plain.extend_from_slice(&record[..self.width]);
            graded.extend_from_slice(&record[self.width..]);
        }
        let plain = Tensor::from_data(TensorData::new(plain, [total, self.width]), device);
        let shape = [total * stored.levels, self.width];
        Ok((plain, Some(Tensor::from_data(TensorData::new(graded, shape), device))))
    }
}

impl Views {
    fn compute(
        store: &Store,
        trunk: &str,
        embedder: &Embedder,
        images: &Images,
        train: &[usize],
        config: &Config,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let count = config.train.feature_views.max(1);
        let graded = config.intra_class.graded_levels();
        let levels = graded.unwrap_or(0);
        let description = format!(
            "{}views = {count}\ngraded levels = {levels}\n",
            describe_items(trunk, images, train)?
        );
        let shape = [count * train.len(), (1 + levels) * embedder.feature_width()];
        let rows = store.find_or_make(&description, shape, observer, |sink, observer| {
            for view in 0..count {
                let what = format!("features of augmented views, {} of {count}", view + 1);
                embed::view_features(
                    embedder,
                    images,
                    train,
                    [VIEW_SEED, view as u64],
                    graded,
                    &what,
                    observer,
                    sink,
                )?;
            }
            Ok(())
        })?;
        Ok(Self {
            count,
            levels,
            row_of: self::rows(train),
            rows,
        })
    }
}

fn rows(items: &[usize]) -> BTreeMap<usize, usize> {
    items.iter().enumerate().map(|(row, &item)| (item, row)).collect()
}

/// What decides the features of an image: the weights, how images become tensors, and what computes.
fn describe_trunk(embedder: &Embedder, config: &Config) -> Result<String, TrainError> {
    let mut weights = Fingerprint::default();
    for array in named_arrays(embedder) {
        if embedder.is_frozen(&array.name) {
            weights.text(&array.name);
            let bytes: Vec<u8> = array.values.iter().flat_map(|value| value.to_le_bytes()).collect();
            weights.bytes(&bytes);
        }
    }
    let text = |value: Result<String, toml::ser::Error>| value.map_err(|error| TrainError::Config(error.to_string()));
    let model = &config.model;
    Ok(format!(
        "features of gradus {} ({VERSION})\ndevice = {} {:?}\nweights = {weights}\npooling = {:?}\nnormalise-features = {}\n\
         jpeg-short-side = {}\n[backbone]\n{}[transform]\n{}",
        env!("CARGO_PKG_VERSION"),
        config.device.on,
        config.device.kernels,
        model.pooling,
        model.normalise_features,
        config.data.jpeg_short_side,
        text(toml::to_string(&model.backbone))?,
        text(toml::to_string(&config.transform))?,
    ))
}

fn describe_items(trunk: &str, images: &Images, items: &[usize]) -> Result<String, TrainError> {
    let mut files = Fingerprint::default();
    for &item in items {
        let source = &images.items[item].source;
        files
            .source(source)
            .map_err(|error| TrainError::Data(format!("cannot look at {}: {error}", source.name())))?;
    }
    Ok(format!("{trunk}[items]\ncount = {}\nfiles = {files}\n", items.len()))
}
