//! Changes: each is committed by replacing `index.toml`, after the files and the engine have taken it in.

use std::collections::HashSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::open::{changing_mark, lock};
use super::{Index, State};
use crate::IndexError;
use crate::calibration::Thresholds;
use crate::filter::Filter;
use crate::item::{self, Fields, Item};
use crate::log::Extent;
use crate::manifest::Manifest;
use crate::vectors::normalize;

/// The right to change an index.
struct Change<'a> {
    _one_at_a_time: MutexGuard<'a, Option<File>>,
    _lock: Option<File>,
}

impl Index {
    fn begin(&self) -> Result<Change<'_>, IndexError> {
        let held = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if self.notice.is_some() {
            return Err(IndexError::InUse {
                path: self.folder.clone(),
                what: "it has the engine open, or the folder cannot be written to",
            });
        }
        // A build holds the lock already.
        let lock = match held.as_ref() {
            Some(_) => None,
            None => Some(lock(&self.folder, "it changes the index")?),
        };
        let stored = Manifest::read(&self.manifest_path())?;
        if stored.map(|manifest| (manifest.revision, manifest.log.generation))
            != Some((self.state().manifest.revision, self.state().manifest.log.generation))
        {
            return Err(IndexError::Changed {
                path: self.folder.clone(),
            });
        }
        Ok(Change {
            _one_at_a_time: held,
            _lock: lock,
        })
    }

    fn manifest_path(&self) -> PathBuf {
        self.folder.join(self.manifest_name)
    }

    /// Marks the engine as perhaps different from the files.
    fn mark(&self, extent: &Extent) -> Result<(), IndexError> {
        if self.engine.kind().keeps_files() {
            let path = changing_mark(&self.folder, extent);
            File::create(&path).map_err(IndexError::file(&path))?;
        }
        Ok(())
    }

    /// Writes the manifest of a change that files and engine have taken in.
    fn commit(&self, mut manifest: Manifest) -> Result<Manifest, IndexError> {
        manifest.revision += 1;
        manifest.write(&self.manifest_path())?;
        if self.engine.kind().keeps_files() {
            let path = changing_mark(&self.folder, &manifest.log);
            // A mark that stays costs a comparison at the next opening, nothing else.
            let _ = std::fs::remove_file(path);
        }
        Ok(manifest)
    }

    /// Adds items with their vectors, which are brought to unit length: all of them or, on an error, none.
    ///
    /// # Shapes
    /// `vectors` is row-major `[items, dimension]`.
    ///
    /// # Errors
    /// Vectors of another width, zero or not finite; names that are there already or twice; payload of another kind than its field;
    /// another process at work; files or an engine that fail.
    pub fn add(&self, items: &[Item], vectors: &[f32]) -> Result<(), IndexError> {
        let change = self.begin()?;
        let mut manifest = self.state().manifest.clone();
        let dimension = manifest.dimension;
        if items.is_empty() && vectors.is_empty() {
            return Ok(());
        }
        if items.len() * dimension != vectors.len() {
            return Err(IndexError::Width {
                expected: dimension,
                found: vectors.len() / items.len().max(1),
            });
        }
        let first = manifest.log.rows;
        if u32::try_from(first as usize + items.len()).is_err() {
            return Err(IndexError::Options(format!("an index holds at most {} rows", u32::MAX)));
        }
        self.check_names(items)?;
        item::declare(&mut manifest.fields, items)?;
        let mut unit = vectors.to_vec();
        for (row, item) in unit.chunks_exact_mut(dimension).zip(items) {
            normalize(row, || item.id.clone())?;
        }
        let items: Vec<Arc<Item>> = items.iter().cloned().map(Arc::new).collect();
        let rows: Vec<u32> = (first..first + items.len() as u32).collect();

        let before = manifest.log.clone();
        manifest.log = self.log.append(&before, &items, &unit)?;
        manifest.count += items.len();
        self.mark(&before)?;
        let entered = self
            .engine
            .declare(&manifest.fields)
            .and_then(|()| self.engine.add(&rows, &items, &unit))
            .and_then(|()| self.engine.flush())
            .and_then(|()| self.commit(manifest));
        let manifest = match entered {
            Ok(manifest) => manifest,
            Err(error) => {
                // Searches must not find what is not there; what this leaves behind is removed at the next opening.
                let _ = self.engine.delete(&rows);
                return Err(error);
            }
        };
        let mut state = self.state_mut();
        for (row, item) in rows.into_iter().zip(items) {
            state.by_id.insert(item.id.clone(), row);
            state.items.push(item);
            state.deleted.push(false);
        }
        state.manifest = manifest;
        drop(state);
        drop(change);
        Ok(())
    }

    fn check_names(&self, items: &[Item]) -> Result<(), IndexError> {
        let state = self.state();
        let mut new = HashSet::new();
        for item in items {
            if item.id.is_empty() {
                return Err(IndexError::Item("an item without a name cannot be stored".into()));
            }
            if state.by_id.contains_key(&item.id) || !new.insert(&item.id) {
                return Err(IndexError::Duplicate { id: item.id.clone() });
            }
        }
        Ok(())
    }

    /// Deletes items by name; returns how many there were. Their rows take up room until the index is built again.
    ///
    /// # Errors
    /// Another process at work; files or an engine that fail.
    pub fn delete(&self, ids: &[&str]) -> Result<usize, IndexError> {
        let rows = |state: &State| {
            let found: HashSet<u32> = ids.iter().filter_map(|id| state.by_id.get(*id).copied()).collect();
            found.into_iter().collect()
        };
        self.delete_rows(rows)
    }

    /// Deletes the items that pass a filter; returns how many there were.
    ///
    /// # Errors
    /// A filter that every item passes; another process at work; files or an engine that fail.
    pub fn delete_matching(&self, filter: &Filter) -> Result<usize, IndexError> {
        if filter.is_empty() {
            return Err(IndexError::Filter(
                "a filter without conditions would delete every item: name what is to be deleted".into(),
            ));
        }
        self.delete_rows(|state| {
            let rows = state.items.iter().enumerate().map(|(row, item)| (row as u32, item));
            rows.filter(|(row, item)| state.is_live(*row) && filter.matches(item))
                .map(|(row, _)| row)
                .collect()
        })
    }

    fn delete_rows(&self, choose: impl FnOnce(&State) -> Vec<u32>) -> Result<usize, IndexError> {
        let change = self.begin()?;
        let (mut rows, mut manifest) = {
            let state = self.state();
            (choose(&state), state.manifest.clone())
        };
        rows.sort_unstable();
        if rows.is_empty() {
            return Ok(0);
        }
        manifest.log = self.log.delete(&manifest.log, &rows)?;
        manifest.count -= rows.len();
        self.mark(&manifest.log)?;
        self.engine.delete(&rows)?;
        self.engine.flush()?;
        let manifest = self.commit(manifest)?;
        let mut state = self.state_mut();
        for &row in &rows {
            state.deleted[row as usize] = true;
            let id = state.items[row as usize].id.clone();
            state.by_id.remove(&id);
        }
        state.manifest = manifest;
        drop(state);
        drop(change);
        Ok(rows.len())
    }

    /// Declares fields of the payload before items with them come, so that filters on them are known.
    ///
    /// # Errors
    /// Another process at work, or an engine that fails.
    pub fn declare(&self, fields: &Fields) -> Result<(), IndexError> {
        let change = self.begin()?;
        let mut manifest = self.state().manifest.clone();
        for (name, kind) in fields {
            let known = *manifest.fields.entry(name.clone()).or_insert(*kind);
            if known != *kind {
                return Err(IndexError::Item(format!(
                    "the field {name} of the index is {}, it cannot become {}",
                    known.name(),
                    kind.name()
                )));
            }
        }
        self.engine.declare(&manifest.fields)?;
        let manifest = self.commit(manifest)?;
        self.state_mut().manifest = manifest;
        drop(change);
        Ok(())
    }

    /// Stores thresholds with the index; with none, every hit is a match again.
    ///
    /// # Errors
    /// Another process at work, or a file that cannot be written.
    pub fn set_calibration(&self, thresholds: Option<Thresholds>) -> Result<(), IndexError> {
        let change = self.begin()?;
        let mut manifest = self.state().manifest.clone();
        manifest.calibration = thresholds;
        let manifest = self.commit(manifest)?;
        self.state_mut().manifest = manifest;
        drop(change);
        Ok(())
    }

    /// Brings what was added into the form that is searched fastest; may take minutes. Searches go on meanwhile.
    ///
    /// # Errors
    /// Another process at work, or an engine that fails.
    pub fn optimize(&self) -> Result<(), IndexError> {
        let change = self.begin()?;
        let extent = self.state().manifest.log.clone();
        self.mark(&extent)?;
        self.engine.optimize()?;
        self.engine.flush()?;
        if self.engine.kind().keeps_files() {
            let _ = std::fs::remove_file(changing_mark(&self.folder, &extent));
        }
        drop(change);
        Ok(())
    }
}
