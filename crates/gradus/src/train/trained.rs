//! A trained run, as whoever uses one loads it.

use std::path::Path;

use super::error::TrainError;
use super::run_folder::RunFolder;
use crate::config::{Config, Overlay};
use crate::models::Embedder;
use crate::state::{load_named_arrays, read_safetensors};
use crate::tensor::{Device, Module};

/// The configuration a run was trained with, as layers to put others over.
///
/// # Errors
/// If no run is there, or its configuration cannot be read.
pub fn stored_layers(folder: &Path) -> Result<Overlay, TrainError> {
    let run = RunFolder::open(folder)?;
    let mut layers = Overlay::default();
    layers
        .file(&run.config())
        .map_err(|error| TrainError::Config(error.to_string()))?;
    Ok(layers)
}

/// The final embedder of a run, outside autodiff, and the device it is on.
///
/// # Errors
/// A run that did not end, weights that do not fit its configuration, a device that is not there.
pub fn load_embedder(folder: &Path, config: &Config) -> Result<(Embedder, Device), TrainError> {
    let run = RunFolder::open(folder)?;
    let path = run.model();
    if !path.exists() {
        return Err(TrainError::Folder(format!(
            "{} has no model yet: the run did not end; continue it with `gradus train --resume {}`",
            folder.display(),
            folder.display()
        )));
    }
    let device = config.device.resolve().map_err(TrainError::Config)?;
    // The run's own weights follow: the pretrained file it started from need not exist any more.
    let mut model = config.model.clone();
    model.weights = None;
    let embedder = model.init(config.seed, &device)?;
    let (arrays, _) = read_safetensors(&path).map_err(TrainError::Folder)?;
    let embedder = load_named_arrays(embedder, &arrays).map_err(|problem| {
        TrainError::Folder(format!(
            "{} does not fit the configuration of its run: {problem}",
            path.display()
        ))
    })?;
    Ok((embedder.valid(), device))
}
