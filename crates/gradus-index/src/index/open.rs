//! Opening an index, and bringing its engine in line with its files.

use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use super::{BUILDING, Index, LOCK, MANIFEST, State};
use crate::IndexError;
use crate::engine::{EngineKind, VectorIndex};
use crate::item::Item;
use crate::log::{Extent, Log};
use crate::manifest::Manifest;

/// Rows handed to an engine at a time when it is filled from the files.
const ROWS_AT_A_TIME: usize = 4096;

impl Index {
    /// Opens an index.
    ///
    /// An engine that another process has open, or whose files cannot be written to, is replaced by exact search for as long as this lasts
    /// ([`notice`](Self::notice)). One that a killed process left behind is brought in line first.
    ///
    /// # Errors
    /// No index, one whose build did not finish, of another format, or with damaged files.
    pub fn open(folder: &Path) -> Result<Self, IndexError> {
        let Some(manifest) = Manifest::read(&folder.join(MANIFEST))? else {
            let path = folder.to_owned();
            return Err(if folder.join(BUILDING).exists() {
                IndexError::Unfinished { path }
            } else {
                IndexError::Missing { path }
            });
        };
        Self::of_manifest(folder, manifest, MANIFEST, None)
    }

    /// `held`: the lock of the folder, if this process has it already.
    pub(super) fn of_manifest(
        folder: &Path,
        manifest: Manifest,
        manifest_name: &'static str,
        held: Option<File>,
    ) -> Result<Self, IndexError> {
        let log = Log::open(folder, manifest.log.generation, manifest.dimension)?;
        log.check(&manifest.log)?;
        let items = log.items(&manifest.log)?;
        let deleted = log.deleted(&manifest.log)?;
        let state = State {
            by_id: names(folder, &items, &deleted, &manifest)?,
            manifest,
            items,
            deleted,
        };
        let (engine, notice) = match prepare_engine(folder, &log, &state, held.is_some()) {
            Ok(engine) => (engine, None),
            Err(IndexError::InUse { .. }) => (
                exact(&log, &state)?,
                Some("another process has the index open: searching exactly, without its engine".to_owned()),
            ),
            Err(error) if is_read_only(&error) => (
                exact(&log, &state)?,
                Some("the folder of the index cannot be written to: searching exactly, without its engine".to_owned()),
            ),
            Err(error) => return Err(error),
        };
        Ok(Self {
            folder: folder.to_owned(),
            manifest_name,
            log,
            engine,
            state: RwLock::new(state),
            changes: Mutex::new(held),
            notice,
        })
    }
}

fn is_read_only(error: &IndexError) -> bool {
    matches!(error, IndexError::File { source, .. } if matches!(source.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem))
}

fn names(
    folder: &Path,
    items: &[Arc<Item>],
    deleted: &[bool],
    manifest: &Manifest,
) -> Result<HashMap<String, u32>, IndexError> {
    let mut by_id = HashMap::with_capacity(manifest.count);
    for (row, (item, deleted)) in items.iter().zip(deleted).enumerate() {
        if !deleted {
            by_id.insert(item.id.clone(), row as u32);
        }
    }
    if by_id.len() != manifest.count {
        return Err(IndexError::damaged(
            &folder.join(MANIFEST),
            format!(
                "says that there are {} items, but the files hold {} of different names",
                manifest.count,
                by_id.len()
            ),
        ));
    }
    Ok(by_id)
}

/// Where an engine keeps its files.
pub(super) fn engine_folder(folder: &Path, extent: &Extent) -> PathBuf {
    folder.join(format!("engine-{}", extent.generation))
}

/// There while the files of an engine may differ from those of the index.
pub(super) fn changing_mark(folder: &Path, extent: &Extent) -> PathBuf {
    folder.join(format!("engine-{}.changing", extent.generation))
}

fn prepare_engine(
    folder: &Path,
    log: &Log,
    state: &State,
    is_locked: bool,
) -> Result<Box<dyn VectorIndex>, IndexError> {
    let manifest = &state.manifest;
    if !manifest.engine.keeps_files() {
        return exact(log, state);
    }
    let path = engine_folder(folder, &manifest.log);
    let mark = changing_mark(folder, &manifest.log);
    let opened = if path.exists() {
        match manifest.engine.open(&path, manifest.dimension) {
            Ok(engine) => Some(engine),
            Err(error @ IndexError::InUse { .. }) => return Err(error),
            Err(error) if is_read_only(&error) => return Err(error),
            // Its files are damaged: they can be made anew.
            Err(_) => None,
        }
    } else {
        None
    };
    let fits = match &opened {
        Some(engine) if mark.exists() => reconcile(engine.as_ref(), log, state).is_ok(),
        Some(engine) => engine
            .statistics()
            .is_ok_and(|statistics| statistics.rows == manifest.count),
        None => false,
    };
    if let (Some(engine), true) = (opened, fits) {
        remove(&mark)?;
        return Ok(engine);
    }
    let _lock = if is_locked {
        None
    } else {
        Some(lock(folder, "it makes its engine anew")?)
    };
    File::create(&mark).map_err(IndexError::file(&mark))?;
    if path.exists() {
        std::fs::remove_dir_all(&path).map_err(IndexError::file(&path))?;
    }
    let engine = manifest.engine.create(&path, manifest.dimension)?;
    engine.declare(&manifest.fields)?;
    let live: Vec<u32> = (0..manifest.log.rows).filter(|row| state.is_live(*row)).collect();
    fill(engine.as_ref(), log, state, &live)?;
    engine.optimize()?;
    engine.flush()?;
    remove(&mark)?;
    Ok(engine)
}

fn remove(mark: &Path) -> Result<(), IndexError> {
    match std::fs::remove_file(mark) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(IndexError::file(mark)(error)),
        _ => Ok(()),
    }
}

/// Adds what the engine lacks and removes what it has too much.
fn reconcile(engine: &dyn VectorIndex, log: &Log, state: &State) -> Result<(), IndexError> {
    let held: HashSet<u32> = engine.rows()?.into_iter().collect();
    let surplus: Vec<u32> = held.iter().copied().filter(|row| !state.is_live(*row)).collect();
    engine.delete(&surplus)?;
    engine.declare(&state.manifest.fields)?;
    let missing: Vec<u32> = (0..state.manifest.log.rows)
        .filter(|row| state.is_live(*row) && !held.contains(row))
        .collect();
    fill(engine, log, state, &missing)?;
    engine.flush()?;
    let rows = engine.statistics()?.rows;
    if rows == state.manifest.count {
        return Ok(());
    }
    Err(IndexError::Engine {
        engine: engine.kind().name(),
        problem: format!("it holds {rows} rows instead of {}", state.manifest.count),
    })
}

fn fill(engine: &dyn VectorIndex, log: &Log, state: &State, rows: &[u32]) -> Result<(), IndexError> {
    let dimension = state.manifest.dimension;
    let (mut values, mut part) = (Vec::new(), Vec::new());
    for some in rows.chunks(ROWS_AT_A_TIME) {
        let (Some(&first), Some(&last)) = (some.first(), some.last()) else {
            continue;
        };
        part.clear();
        if (last - first) as usize == some.len() - 1 {
            log.read(first..last + 1, &mut part)?;
        } else {
            for &row in some {
                log.read(row..row + 1, &mut values)?;
                part.extend_from_slice(&values);
            }
        }
        debug_assert_eq!(part.len(), some.len() * dimension);
        let items: Vec<Arc<Item>> = some.iter().map(|&row| Arc::clone(&state.items[row as usize])).collect();
        engine.add(some, &items, &part)?;
    }
    Ok(())
}

/// The exact engine, filled from the files.
fn exact(log: &Log, state: &State) -> Result<Box<dyn VectorIndex>, IndexError> {
    let engine = EngineKind::Flat.create(Path::new(""), state.manifest.dimension)?;
    let live: Vec<u32> = (0..state.manifest.log.rows).filter(|row| state.is_live(*row)).collect();
    fill(engine.as_ref(), log, state, &live)?;
    Ok(engine)
}

/// Takes the lock of an index.
pub(super) fn lock(folder: &Path, what: &'static str) -> Result<File, IndexError> {
    lock_file(&folder.join(LOCK), folder, what)
}

/// Takes the lock of a file.
pub(crate) fn lock_file(path: &Path, folder: &Path, what: &'static str) -> Result<File, IndexError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(IndexError::file(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IndexError::InUse {
            path: folder.to_owned(),
            what,
        }),
        Err(TryLockError::Error(error)) => Err(IndexError::file(path)(error)),
    }
}
