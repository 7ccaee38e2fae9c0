//! A trained run, as the commands that use one load it.

use std::path::Path;

use gradus::config::{Config, Overlay};
use gradus::train::embed::Images;
use gradus::train::measure::{self, TestEmbeddings};
pub(crate) use gradus::train::trained::{load_embedder, stored_layers};
use gradus::train::{PreparedData, RunFolder};
use gradus_core::EmbeddingSet;
use gradus_core::data::split::TestSet;
use gradus_index::Model;

use super::layers;
use crate::arguments::DataFlags;
use crate::failure::Failure;
use crate::progress::Progress;

/// A run with the embeddings of the test classes of its data, or of other data.
pub(crate) struct TestedRun {
    pub(crate) config: Config,
    pub(crate) data: PreparedData,
    pub(crate) embedded: TestEmbeddings,
    /// Embeddings of the training classes, if they were asked for.
    pub(crate) training: Option<EmbeddingSet>,
}

/// Embeds the test classes of a run's data, or of the data that flags name; on demand the training classes, too.
pub(crate) fn embed_test(
    folder: &Path,
    flags: &DataFlags,
    device: Option<&str>,
    with_training: bool,
) -> Result<TestedRun, Failure> {
    let mut layers = stored_layers(folder)?;
    if !flags.data.is_empty() {
        // Another data set has other classes: the run's selection must not be applied to it silently.
        layers = without_selection(layers)?;
    }
    layers::put_data(&mut layers, flags)?;
    if let Some(device) = device {
        layers.insert("device", device);
    }
    // Turned classes are trained on only.
    layers.insert("data.rotations-as-classes", false);
    let config = layers.resolve()?;
    let mut progress = Progress::new("");
    let data = PreparedData::new(&config, &mut progress)?;
    let (embedder, _) = load_embedder(folder, &config)?;
    let images = Images::new(&config, &data.items, &data.cache)?;
    let (dataset, test) = (&data.dataset, &data.test);
    let embedded = measure::embed_test(&embedder, &images, dataset, test, "test classes", &mut progress)?;
    let training = if with_training {
        let train = TestSet::Single(data.train.clone());
        let all = measure::embed_test(&embedder, &images, dataset, &train, "training classes", &mut progress)?;
        Some(all.queries)
    } else {
        None
    };
    Ok(TestedRun {
        config,
        data,
        embedded,
        training,
    })
}

/// The same without what selects classes of the run's own data.
pub(crate) fn without_selection(layers: Overlay) -> Result<Overlay, Failure> {
    let mut config = layers.resolve()?;
    config.data.layout = None;
    config.data.with = Vec::new();
    config.data.train_classes = None;
    config.data.test_classes = None;
    let mut fresh = Overlay::default();
    fresh.put(toml::Table::try_from(&config)?);
    Ok(fresh)
}

/// What tells the embeddings of a run from those of another: its weights, its network and how it sees an image.
pub(crate) fn model_of(folder: &Path, config: &Config) -> Result<Model, Failure> {
    let path = RunFolder::open(folder)?.model();
    let weights = std::fs::read(&path).map_err(|error| {
        Failure::new(format!(
            "cannot read {} ({error}): the run did not end; continue it with `gradus train --resume {}`",
            path.display(),
            folder.display()
        ))
    })?;
    let mut network = config.model.clone();
    network.weights = None;
    let network = toml::to_string(&network)?;
    let transform = toml::to_string(&config.transform)?;
    let run = std::fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    Ok(Model::of(
        run.display().to_string(),
        &[&weights, network.as_bytes(), transform.as_bytes()],
    ))
}
