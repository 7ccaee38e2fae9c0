//! The index folder.
//!
//! ```text
//! INDEX/
//!   index.toml         what the index is and how much of the files below belongs to it; replaced as the last act of every change
//!   vectors-1.f32      rows of unit length, little-endian single precision, row-major
//!   items-1.jsonl      one item per row
//!   deleted-1.u32      rows that were deleted
//!   engine-1/          files of the engine; made anew from those above when they do not fit
//!   building.toml      instead of index.toml while a build runs
//!   lock               held by the process that changes the index
//! ```

mod build;
mod change;
mod measure;
mod open;
mod search;

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::Serialize;

pub use build::{IndexBuilder, Settings};
pub use measure::Recall;
#[cfg(feature = "qdrant-edge")]
pub(crate) use open::lock_file;
pub use search::{Answer, Hit};

use crate::IndexError;
use crate::calibration::Thresholds;
use crate::engine::{EngineKind, EngineStatistics, VectorIndex};
use crate::item::{Fields, Item};
use crate::log::Log;
use crate::manifest::{Manifest, Model};

const MANIFEST: &str = "index.toml";
const BUILDING: &str = "building.toml";
const LOCK: &str = "lock";

/// Images that can be searched: a folder with vectors, items and an engine.
///
/// Any number of threads may search while one adds or deletes. Another process may search the same folder at the same time; it then sees the
/// index as it was when it was opened, and searches exactly where the engine can be open only once ([`notice`](Self::notice)).
#[derive(Debug)]
pub struct Index {
    folder: PathBuf,
    manifest_name: &'static str,
    log: Log,
    engine: Box<dyn VectorIndex>,
    state: RwLock<State>,
    /// One change at a time; holds the lock file of a build.
    changes: Mutex<Option<File>>,
    notice: Option<String>,
}

/// What is known of the rows.
#[derive(Debug)]
struct State {
    manifest: Manifest,
    items: Vec<Arc<Item>>,
    deleted: Vec<bool>,
    by_id: HashMap<String, u32>,
}

impl State {
    fn is_live(&self, row: u32) -> bool {
        self.deleted.get(row as usize).is_some_and(|deleted| !deleted)
    }
}

/// What an index holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Statistics {
    /// The engine that answers.
    pub engine: EngineKind,
    /// Width of the vectors.
    pub dimension: usize,
    /// Items that can be found.
    pub count: usize,
    /// Rows that were deleted and still take up room.
    pub deleted: usize,
    /// Different classes.
    pub classes: usize,
    /// Size of all files in bytes.
    pub bytes: u64,
    /// Rows in the graph of the engine; the others are compared one by one.
    pub approximate_rows: usize,
    /// Parts the engine searches one after the other.
    pub segments: usize,
    /// The model the vectors come from.
    pub model: Option<Model>,
    /// Folder of the images.
    pub image_root: Option<PathBuf>,
    /// Fields of the payload that can be filtered by.
    pub fields: Fields,
    /// Thresholds for matches.
    pub calibration: Option<Thresholds>,
}

impl Index {
    fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_mut(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Items that can be found.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state().manifest.count
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of its vectors.
    #[must_use]
    pub fn dimension(&self) -> usize {
        self.state().manifest.dimension
    }

    /// The engine it was made with.
    #[must_use]
    pub fn engine(&self) -> EngineKind {
        self.state().manifest.engine
    }

    /// Why another engine than [`engine`](Self::engine) answers, if one does.
    #[must_use]
    pub fn notice(&self) -> Option<&str> {
        self.notice.as_deref()
    }

    /// The model whose embeddings it holds, if they came from a run.
    #[must_use]
    pub fn model(&self) -> Option<Model> {
        self.state().manifest.model.clone()
    }

    /// Folder the paths of images start from.
    #[must_use]
    pub fn image_root(&self) -> Option<PathBuf> {
        self.state().manifest.image_root.clone()
    }

    /// Fields of the payload that can be filtered by.
    #[must_use]
    pub fn fields(&self) -> Fields {
        self.state().manifest.fields.clone()
    }

    /// Thresholds for matches, if it was calibrated.
    #[must_use]
    pub fn calibration(&self) -> Option<Thresholds> {
        self.state().manifest.calibration.clone()
    }

    /// The item of a name.
    #[must_use]
    pub fn item(&self, id: &str) -> Option<Arc<Item>> {
        let state = self.state();
        let row = *state.by_id.get(id)?;
        state.items.get(row as usize).cloned()
    }

    /// Whether there is an item of this name.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.state().by_id.contains_key(id)
    }

    /// All items that can be found with their rows, rows rising.
    #[must_use]
    pub fn items(&self) -> Vec<(u32, Arc<Item>)> {
        let state = self.state();
        let rows = state.items.iter().enumerate().map(|(row, item)| (row as u32, item));
        rows.filter(|(row, _)| state.is_live(*row))
            .map(|(row, item)| (row, Arc::clone(item)))
            .collect()
    }

    /// Rows, deleted ones included.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.state().manifest.log.rows
    }

    /// The vector of an item, of unit length.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn vector(&self, id: &str) -> Result<Option<Vec<f32>>, IndexError> {
        let Some(row) = self.state().by_id.get(id).copied() else {
            return Ok(None);
        };
        let mut values = Vec::new();
        self.log.read(row..row + 1, &mut values)?;
        Ok(Some(values))
    }

    /// Reads the vectors of rows (deleted ones included), row-major and of unit length.
    ///
    /// # Errors
    /// Rows that do not exist, or a file that cannot be read.
    pub fn vectors(&self, rows: Range<u32>, values: &mut Vec<f32>) -> Result<(), IndexError> {
        let end = self.rows();
        if rows.start > rows.end || rows.end > end {
            return Err(IndexError::Options(format!(
                "rows {} to {} were asked for, but the index has {end} rows",
                rows.start, rows.end
            )));
        }
        self.log.read(rows, values)
    }

    /// Calls `visit` with the live rows in blocks: their rows, and their vectors row-major.
    ///
    /// # Errors
    /// If the file cannot be read, or `visit` fails.
    pub fn each_block(
        &self,
        mut visit: impl FnMut(&[u32], &[f32]) -> Result<(), IndexError>,
    ) -> Result<(), IndexError> {
        const BYTES: usize = 16 << 20;
        let dimension = self.dimension();
        let block = (BYTES / (dimension * 4)).max(1) as u32;
        let end = self.rows();
        let mut values = Vec::new();
        let mut start = 0;
        while start < end {
            let stop = end.min(start.saturating_add(block));
            self.log.read(start..stop, &mut values)?;
            let live: Vec<u32> = {
                let state = self.state();
                (start..stop).filter(|row| state.is_live(*row)).collect()
            };
            if live.len() < (stop - start) as usize {
                for (place, row) in live.iter().enumerate() {
                    let from = (row - start) as usize * dimension;
                    values.copy_within(from..from + dimension, place * dimension);
                }
                values.truncate(live.len() * dimension);
            }
            if !live.is_empty() {
                visit(&live, &values)?;
            }
            start = stop;
        }
        Ok(())
    }

    /// What it holds.
    ///
    /// # Errors
    /// If its files cannot be looked at, or the engine fails.
    pub fn statistics(&self) -> Result<Statistics, IndexError> {
        let EngineStatistics {
            approximate_rows,
            segments,
            ..
        } = self.engine.statistics()?;
        let bytes = bytes_below(&self.folder).map_err(IndexError::file(&self.folder))?;
        let state = self.state();
        let manifest = &state.manifest;
        let classes: std::collections::HashSet<&str> = state
            .items
            .iter()
            .zip(&state.deleted)
            .filter(|(_, deleted)| !**deleted)
            .filter_map(|(item, _)| item.class.as_deref())
            .collect();
        Ok(Statistics {
            engine: self.engine.kind(),
            dimension: manifest.dimension,
            count: manifest.count,
            deleted: manifest.log.deleted as usize,
            classes: classes.len(),
            bytes,
            approximate_rows,
            segments,
            model: manifest.model.clone(),
            image_root: manifest.image_root.clone(),
            fields: manifest.fields.clone(),
            calibration: manifest.calibration.clone(),
        })
    }

    /// Refuses another model than the one the index was built with. An index without a model takes any, if the width fits.
    ///
    /// # Errors
    /// [`IndexError::Model`].
    pub fn check_model(&self, found: &Model) -> Result<(), IndexError> {
        check_models(self.model().as_ref(), found)
    }
}

/// Refuses another model than the stored one.
pub(crate) fn check_models(stored: Option<&Model>, found: &Model) -> Result<(), IndexError> {
    match stored {
        Some(model) if model.fingerprint != found.fingerprint => Err(IndexError::Model {
            index_run: model.run.clone(),
            index_fingerprint: model.fingerprint.clone(),
            found_run: found.run.clone(),
            found_fingerprint: found.fingerprint.clone(),
        }),
        _ => Ok(()),
    }
}

/// Bytes that files take up on the disk: what was set aside and never written does not count.
fn bytes_below(folder: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            bytes_below(&entry.path())?
        } else {
            on_disk(&metadata)
        };
    }
    Ok(bytes)
}

#[cfg(unix)]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(metadata) * 512
}

#[cfg(not(unix))]
fn on_disk(metadata: &std::fs::Metadata) -> u64 {
    metadata.len()
}
