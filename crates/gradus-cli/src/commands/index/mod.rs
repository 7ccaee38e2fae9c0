//! `gradus index`

mod add;
mod build;
mod delete;
mod payload;
mod source;
mod stats;
mod target;

use std::path::{Path, PathBuf};

use gradus_index::Index;

use super::trained::stored_layers;
pub(crate) use target::Target;

use crate::arguments::{IndexAction, IndexCommand};
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &IndexCommand) -> Outcome {
    match &arguments.command {
        IndexAction::Build(arguments) => build::run(arguments),
        IndexAction::Add(arguments) => add::run(arguments),
        IndexAction::Delete(arguments) => delete::run(arguments),
        IndexAction::Stats(arguments) => stats::run(arguments),
    }
}

/// Opens an index, and says so if another engine than its own answers.
pub(crate) fn open(path: &Path) -> Result<Index, Failure> {
    let index = Index::open(path)?;
    if let Some(notice) = index.notice() {
        output::note(notice);
    }
    Ok(index)
}

/// The run that embeds images for an index: the one given, or the one it was built with.
pub(crate) fn run_of(target: &Target, given: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(run) = given {
        return Ok(run.clone());
    }
    let Some(model) = target.model() else {
        return Err(Failure::new(format!(
            "{} was built from embeddings, so it names no run that could embed images: name it with --run, or give --embeddings",
            target.name()
        )));
    };
    let run = PathBuf::from(&model.run);
    if stored_layers(&run).is_err() {
        return Err(Failure::new(format!(
            "the run {} that {} was built with is not there any more: name its folder with --run",
            model.run,
            target.name()
        )));
    }
    Ok(run)
}

/// Bytes in MiB, with three digits behind the point.
pub(crate) fn mib(bytes: u64) -> f64 {
    rounded(bytes as f64 / f64::from(1 << 20))
}

/// A number with three digits behind the point.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
