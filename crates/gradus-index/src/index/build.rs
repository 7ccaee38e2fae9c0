//! Building an index: the old one, if there is one, stays in place until the new one is whole.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::open::{changing_mark, engine_folder, lock};
use super::{BUILDING, Index, LOCK, MANIFEST};
use crate::IndexError;
use crate::engine::EngineKind;
use crate::item::{Fields, Item};
use crate::log::{self, Log};
use crate::manifest::{Manifest, Model};

/// What an index is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The engine that answers searches; default Qdrant Edge where gradus was built with it.
    pub engine: EngineKind,
    /// Width of the vectors.
    pub dimension: usize,
    /// The model the vectors come from; default none.
    pub model: Option<Model>,
    /// Folder the paths of images start from; default none.
    pub image_root: Option<PathBuf>,
    /// What is indexed, in a few words: a build of the same goes on where one was interrupted; default none.
    pub source: String,
}

impl Settings {
    /// An index of vectors of any origin.
    #[must_use]
    pub fn new(engine: EngineKind, dimension: usize) -> Self {
        Self {
            engine,
            dimension,
            model: None,
            image_root: None,
            source: String::new(),
        }
    }
}

/// An index that is being built. Dropped or killed, it leaves the old index as it was, and can be gone on with.
#[derive(Debug)]
pub struct IndexBuilder {
    index: Index,
}

impl Index {
    /// Begins to build an index, or goes on with a build of the same [`Settings`] that was interrupted
    /// ([`resumed`](IndexBuilder::resumed)). An index that is there stays in place until [`finish`](IndexBuilder::finish).
    ///
    /// # Errors
    /// A dimension of 0, a folder of other files, another process at work, or files that cannot be written.
    pub fn create(folder: &Path, settings: Settings) -> Result<IndexBuilder, IndexError> {
        if settings.dimension == 0 {
            return Err(IndexError::Options(
                "an index of vectors of width 0 was asked for".into(),
            ));
        }
        check_folder(folder)?;
        std::fs::create_dir_all(folder).map_err(IndexError::file(folder))?;
        let lock = lock(folder, "it is being built or changed")?;
        let begun = Manifest::read(&folder.join(BUILDING))
            .ok()
            .flatten()
            .filter(|manifest| fits(manifest, &settings));
        let manifest = match begun {
            Some(manifest) => manifest,
            None => begin(folder, settings)?,
        };
        let index = Self::of_manifest(folder, manifest, BUILDING, Some(lock))?;
        if index.notice.is_some() {
            return Err(IndexError::InUse {
                path: folder.to_owned(),
                what: "it has the engine open",
            });
        }
        Ok(IndexBuilder { index })
    }
}

/// Whether an interrupted build is of the same.
fn fits(manifest: &Manifest, settings: &Settings) -> bool {
    let fingerprint = |model: &Option<Model>| model.as_ref().map(|model| model.fingerprint.clone());
    !settings.source.is_empty()
        && manifest.source == settings.source
        && manifest.engine == settings.engine
        && manifest.dimension == settings.dimension
        && manifest.image_root == settings.image_root
        && fingerprint(&manifest.model) == fingerprint(&settings.model)
}

fn begin(folder: &Path, settings: Settings) -> Result<Manifest, IndexError> {
    let old = Manifest::read(&folder.join(MANIFEST)).ok().flatten();
    let generation = generations(folder)
        .map_err(IndexError::file(folder))?
        .last()
        .map_or(1, |last| last + 1);
    remove_others(folder, old.as_ref().map(|manifest| manifest.log.generation))?;
    let mut manifest = Manifest::new(settings.engine, settings.dimension, generation);
    manifest.model = settings.model;
    manifest.image_root = settings.image_root;
    manifest.source = settings.source;
    Log::create(folder, generation, settings.dimension)?;
    manifest.write(&folder.join(BUILDING))?;
    Ok(manifest)
}

/// Refuses folders that hold something else: they must not be filled, let alone be tidied up.
fn check_folder(folder: &Path) -> Result<(), IndexError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(IndexError::file(folder)(error)),
    };
    if folder.join(MANIFEST).exists() || folder.join(BUILDING).exists() {
        return Ok(());
    }
    for entry in entries {
        let name = entry.map_err(IndexError::file(folder))?.file_name();
        // A build that was killed before its first act leaves this behind.
        let ours = name == LOCK
            || name
                .to_str()
                .is_some_and(|name| name.starts_with(".gradus-") || generation_of(name).is_some());
        if !ours {
            return Err(IndexError::NotEmpty {
                path: folder.to_owned(),
            });
        }
    }
    Ok(())
}

/// The generation a file of an index belongs to.
fn generation_of(name: &str) -> Option<u64> {
    let (kind, rest) = name.split_once('-')?;
    let (number, extension) = rest.split_once('.').unwrap_or((rest, ""));
    let known = matches!(
        (kind, extension),
        ("vectors", "f32") | ("items", "jsonl") | ("deleted", "u32") | ("engine", "" | "changing" | "lock")
    );
    number.parse().ok().filter(|_| known)
}

/// Generations of which there are files, rising.
fn generations(folder: &Path) -> std::io::Result<Vec<u64>> {
    let mut found = HashSet::new();
    for entry in std::fs::read_dir(folder)? {
        found.extend(entry?.file_name().to_str().and_then(generation_of));
    }
    let mut found: Vec<u64> = found.into_iter().collect();
    found.sort_unstable();
    Ok(found)
}

/// Removes the files of all generations but one.
fn remove_others(folder: &Path, keep: Option<u64>) -> Result<(), IndexError> {
    for generation in generations(folder).map_err(IndexError::file(folder))? {
        if Some(generation) == keep {
            continue;
        }
        let extent = log::Extent::new(generation);
        let engine = engine_folder(folder, &extent);
        if engine.exists() {
            std::fs::remove_dir_all(&engine).map_err(IndexError::file(&engine))?;
        }
        let lock = folder.join(format!("engine-{generation}.lock"));
        let files = log::names(generation).map(|name| folder.join(name));
        for file in files.into_iter().chain([lock, changing_mark(folder, &extent)]) {
            if file.exists() {
                std::fs::remove_file(&file).map_err(IndexError::file(&file))?;
            }
        }
    }
    Ok(())
}

impl IndexBuilder {
    /// Items that are in it already: more than none where an interrupted build goes on.
    #[must_use]
    pub fn resumed(&self) -> usize {
        self.index.len()
    }

    /// Whether there is an item of this name already.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        self.index.contains(id)
    }

    /// Declares fields of the payload before the items with them come.
    ///
    /// # Errors
    /// If the engine fails.
    pub fn declare(&self, fields: &Fields) -> Result<(), IndexError> {
        self.index.declare(fields)
    }

    /// Adds a batch of items, durably: once it returned, a killed build goes on behind it.
    ///
    /// # Errors
    /// As [`Index::add`].
    pub fn add(&self, items: &[Item], vectors: &[f32]) -> Result<(), IndexError> {
        self.index.add(items, vectors)
    }

    /// Makes what was built the index, in place of the old one, whose files are removed.
    ///
    /// # Errors
    /// If the engine or the file system fails; the old index is then still in place.
    pub fn finish(self) -> Result<Index, IndexError> {
        let mut index = self.index;
        index.optimize()?;
        let (building, published) = (index.folder.join(BUILDING), index.folder.join(MANIFEST));
        std::fs::rename(&building, &published).map_err(IndexError::file(&published))?;
        if let Ok(folder) = std::fs::File::open(&index.folder) {
            // So that the renaming itself survives; not every system lets a folder be synchronised.
            let _ = folder.sync_all();
        }
        index.manifest_name = MANIFEST;
        let generation = index.state().manifest.log.generation;
        remove_others(&index.folder, Some(generation))?;
        *index.changes.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = None;
        Ok(index)
    }
}
