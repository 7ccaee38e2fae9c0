//! Checkpoints: everything a run needs to go on as if it had never stopped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::TrainError;
use super::run_folder::RunFolder;
use crate::state::{NamedArray, read_safetensors, write_safetensors};

/// Where a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// Complete epochs.
    pub epoch: usize,
    /// Steps done of the epoch after that.
    pub step: usize,
    /// The batches of that epoch, where they depend on the embeddings at its beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<Vec<Vec<usize>>>,
    /// Sums of what [`Event::Epoch`](super::Event::Epoch) reports, over the steps done of the epoch.
    pub sums: BTreeMap<String, f64>,
    /// Best validation so far: epoch and value.
    pub best: Option<(usize, f64)>,
    /// Validations since the best one.
    pub since_best: usize,
    /// Bytes of `events.jsonl` written.
    pub events: u64,
    /// Seconds of training so far.
    pub seconds: f64,
}

/// Arrays of a checkpoint by file name.
pub type Arrays = BTreeMap<String, Vec<NamedArray>>;

/// The folder name of a position: `epoch-0003` or, in the middle of an epoch, `epoch-0003-step-0012`.
fn folder_name(position: &Position) -> String {
    if position.step == 0 {
        format!("epoch-{:04}", position.epoch)
    } else {
        format!("epoch-{:04}-step-{:05}", position.epoch, position.step)
    }
}

/// Writes a checkpoint completely under a temporary name, then renames it; older ones beyond `keep` are removed.
///
/// # Errors
/// If the place cannot be written to; older checkpoints are then untouched.
pub fn save(run: &RunFolder, position: &Position, arrays: &Arrays, keep: usize) -> Result<(), TrainError> {
    let folder = run.checkpoints();
    let name = folder_name(position);
    let temporary = folder.join(format!(".{name}.tmp"));
    let unwritable = |error: std::io::Error| run.unwritable(&error);
    let write = || -> Result<(), TrainError> {
        if temporary.exists() {
            std::fs::remove_dir_all(&temporary).map_err(unwritable)?;
        }
        std::fs::create_dir_all(&temporary).map_err(unwritable)?;
        for (file, arrays) in arrays {
            write_safetensors(&temporary.join(format!("{file}.safetensors")), arrays, &BTreeMap::new())
                .map_err(|error| run.unwritable(&std::io::Error::other(error)))?;
        }
        let text = serde_json::to_string_pretty(position).map_err(|error| TrainError::Folder(error.to_string()))?;
        run.write_text(&temporary.join("position.json"), &text)
    };
    if let Err(error) = write() {
        // Half a checkpoint must not fill the disk that may just have run full.
        let _ = std::fs::remove_dir_all(&temporary);
        return Err(error);
    }
    let target = folder.join(&name);
    if target.exists() {
        std::fs::remove_dir_all(&target).map_err(unwritable)?;
    }
    std::fs::rename(&temporary, &target).map_err(unwritable)?;
    let best = position.best.map(|(epoch, _)| format!("epoch-{epoch:04}"));
    let all = list(&folder)?;
    for old in all.iter().rev().skip(keep) {
        let is_best = old.file_name().and_then(|name| name.to_str()) == best.as_deref();
        if !is_best {
            std::fs::remove_dir_all(old).map_err(unwritable)?;
        }
    }
    Ok(())
}

/// Complete checkpoints, oldest first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = folder
        .read_dir()
        .map_err(|error| TrainError::Folder(format!("cannot read the checkpoints in {}: {error}", folder.display())))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("epoch-"))
                && path.join("position.json").exists()
        })
        .collect();
    // `epoch-0003` < `epoch-0003-step-00012` < `epoch-0004`, as the run went.
    found.sort();
    Ok(found)
}

/// The newest checkpoint, if there is one.
///
/// # Errors
/// If it cannot be read.
pub fn load_latest(run: &RunFolder) -> Result<Option<(Position, Arrays)>, TrainError> {
    match list(&run.checkpoints())?.last() {
        Some(path) => load(path).map(Some),
        None => Ok(None),
    }
}

/// The checkpoint at the end of an epoch.
///
/// # Errors
/// If it cannot be read.
pub fn load_epoch(run: &RunFolder, epoch: usize) -> Result<(Position, Arrays), TrainError> {
    load(&run.checkpoints().join(format!("epoch-{epoch:04}")))
}

fn load(path: &Path) -> Result<(Position, Arrays), TrainError> {
    let broken = |problem: String| {
        TrainError::Folder(format!(
            "the checkpoint {} cannot be used: {problem}; delete that folder to continue from the one before",
            path.display()
        ))
    };
    let text = std::fs::read_to_string(path.join("position.json")).map_err(|error| broken(error.to_string()))?;
    let position = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
    let mut arrays = Arrays::new();
    for entry in path.read_dir().map_err(|error| broken(error.to_string()))? {
        let file = entry.map_err(|error| broken(error.to_string()))?.path();
        if file.extension().is_some_and(|extension| extension == "safetensors") {
            let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let (values, _) = read_safetensors(&file).map_err(broken)?;
            arrays.insert(name, values);
        }
    }
    Ok((position, arrays))
}
