//! `gradus evaluate`

use std::path::Path;

use gradus::config::{Config, Overlay};
use gradus::models::Embedder;
use gradus::state::{load_named_arrays, read_safetensors};
use gradus::tensor::{Device, Module};
use gradus::train::embed::Images;
use gradus::train::{PreparedData, RunFolder, trainer};
use serde_json::Value;

use super::layers;
use super::train::number;
use crate::arguments::Evaluate;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

pub(crate) fn run(arguments: &Evaluate) -> Outcome {
    let mut layers = stored_layers(&arguments.run)?;
    if !arguments.data.data.is_empty() {
        // Another data set has other classes: the run's selection must not be applied to it silently.
        layers = without_selection(layers)?;
    }
    layers::put_data(&mut layers, &arguments.data)?;
    if !arguments.recall.is_empty() {
        let levels = arguments
            .recall
            .iter()
            .map(|&level| toml::Value::Integer(i64::try_from(level).unwrap_or(i64::MAX)));
        layers.insert("evaluation.recall", toml::Value::Array(levels.collect()));
    }
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    let config = layers.resolve()?;
    let mut progress = Progress::new("");
    let data = PreparedData::new(&config, &mut progress)?;
    let (embedder, _) = load_embedder(&arguments.run, &config)?;
    let images = Images::new(&config, &data.items, &data.cache)?;
    let result = trainer::measure(
        &embedder,
        &images,
        &data.dataset,
        &data.test,
        &config,
        "test classes",
        &mut progress,
    )?;
    drop(progress);
    let measures = trainer::measures(&result);
    if arguments.json {
        return output::json(&Value::Object(measures));
    }
    let mut rows = vec![vec!["measure".to_owned(), "value".to_owned()]];
    rows.extend(measures.iter().map(|(name, value)| vec![name.clone(), number(value)]));
    output::text(&output::table(&rows))
}

/// The configuration a run was trained with, as layers to put others over.
pub(crate) fn stored_layers(folder: &Path) -> Result<Overlay, Failure> {
    let run = RunFolder::open(folder)?;
    let mut layers = Overlay::default();
    layers.file(&run.config())?;
    Ok(layers)
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

/// The final embedder of a run.
pub(crate) fn load_embedder(folder: &Path, config: &Config) -> Result<(Embedder, Device), Failure> {
    let run = RunFolder::open(folder)?;
    let path = run.model();
    if !path.exists() {
        return Err(Failure::new(format!(
            "{} has no model yet: the run did not end; continue it with `gradus train --resume {}`",
            folder.display(),
            folder.display()
        )));
    }
    let device = config.device.resolve().map_err(Failure::new)?;
    // The run's own weights follow: the pretrained file it started from need not exist any more.
    let mut model = config.model.clone();
    model.weights = None;
    let embedder = model.init(config.seed, &device)?;
    let (arrays, _) = read_safetensors(&path).map_err(Failure::new)?;
    let embedder = load_named_arrays(embedder, &arrays).map_err(|problem| {
        Failure::new(format!(
            "{} does not fit the configuration of its run: {problem}",
            path.display()
        ))
    })?;
    Ok((embedder.valid(), device))
}
