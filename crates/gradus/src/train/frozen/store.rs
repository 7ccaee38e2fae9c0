//! Where features of a frozen trunk lie: in memory, or in files that later runs find again.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use gradus_core::data::fingerprint::Fingerprint;
use gradus_core::embeddings::{MatrixWriter, NpyRows};
use gradus_core::files::write_atomically;

use super::super::cache_folder::user_cache_folder;
use super::super::error::TrainError;
use super::super::events::{Event, Observer};
use crate::config::{FeatureCache, TrainConfig};

/// Takes rows as they are made.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[f32]) -> Result<(), TrainError>;

/// Files up to this size are read as a whole: a step then takes rows from memory instead of asking for each of them.
const READ_WHOLE: usize = 256 << 20;

/// Rows of features.
#[derive(Debug)]
pub(super) enum Stored {
    Memory { width: usize, values: Vec<f32> },
    File(NpyRows),
}

impl Stored {
    /// Some rows, one after the other.
    pub(super) fn gather(&self, rows: impl ExactSizeIterator<Item = usize>) -> Result<Vec<f32>, TrainError> {
        match self {
            Self::Memory { width, values } => {
                let mut gathered = Vec::with_capacity(rows.len() * width);
                rows.for_each(|row| gathered.extend_from_slice(&values[row * width..(row + 1) * width]));
                Ok(gathered)
            }
            Self::File(file) => {
                let mut values = Vec::with_capacity(rows.len() * file.dim());
                let mut one = Vec::new();
                for row in rows {
                    file.read(row..row + 1, &mut one)
                        .map_err(|error| TrainError::Data(error.to_string()))?;
                    values.extend_from_slice(&one);
                }
                Ok(values)
            }
        }
    }
}

/// Files of features, each beside a text that says of what; `None`: features stay in memory.
#[derive(Debug)]
pub(super) struct Store {
    folder: Option<PathBuf>,
    /// Bytes of all files together.
    limit: u64,
    /// Bytes up to which a file is read as a whole.
    whole: usize,
}

const PREFIX: &str = "features-";
/// Temporary files of this age belong to no process any more.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

impl Store {
    pub(super) fn new(config: &TrainConfig) -> Self {
        let folder = match &config.feature_cache {
            FeatureCache::None => None,
            FeatureCache::Automatic => user_cache_folder().map(|folder| folder.join("features")),
            FeatureCache::Folder(folder) => Some(folder.clone()),
        };
        Self {
            folder,
            limit: (config.feature_cache_mib as u64) << 20,
            whole: READ_WHOLE,
        }
    }

    /// Features that were stored under this description.
    pub(super) fn find(&self, description: &str, [rows, width]: [usize; 2]) -> Option<Stored> {
        let path = self.path(description)?;
        let text = path.with_extension("txt");
        if std::fs::read_to_string(&text).ok()? != description {
            return None;
        }
        let found = NpyRows::open(&path).ok()?;
        if [found.len(), found.dim()] != [rows, width] {
            return None;
        }
        let mut values = Vec::new();
        if rows.saturating_mul(width).saturating_mul(4) <= self.whole {
            found.read(0..rows, &mut values).ok()?;
        }
        // When it was last of use decides what goes first; a folder that cannot be written to serves all the same.
        let touched = std::fs::File::options().append(true).open(&text);
        let _ = touched.and_then(|file| file.set_modified(SystemTime::now()));
        Some(if values.is_empty() {
            Stored::File(found)
        } else {
            Stored::Memory { width, values }
        })
    }

    /// Features that were stored under this description, or those that `make` hands over, which are stored.
    pub(super) fn find_or_make(
        &self,
        description: &str,
        [rows, width]: [usize; 2],
        observer: &mut dyn Observer,
        make: impl Fn(Sink<'_>, &mut dyn Observer) -> Result<(), TrainError>,
    ) -> Result<Stored, TrainError> {
        if let Some(found) = self.find(description, [rows, width]) {
            return Ok(found);
        }
        if let Some(path) = self.path(description) {
            match self.write(&path, description, [rows, width], &mut |sink| {
                make(sink, &mut *observer)
            })? {
                Ok(()) => {
                    if let Some(found) = self.find(description, [rows, width]) {
                        return Ok(found);
                    }
                }
                Err(problem) => {
                    let message = format!(
                        "features of the frozen trunk cannot be kept for later runs: {problem}; this run keeps them in memory \
                         (train.feature-cache names another folder)"
                    );
                    observer.on(&Event::Warning { message });
                }
            }
        }
        let mut values = Vec::new();
        let mut sink = |rows: &[f32]| {
            values.extend_from_slice(rows);
            Ok(())
        };
        make(&mut sink, observer)?;
        Ok(Stored::Memory { width, values })
    }

    /// Writes the rows to a file, or says why they cannot be stored; the outer error is that of making them.
    fn write(
        &self,
        path: &Path,
        description: &str,
        [rows, width]: [usize; 2],
        make: &mut dyn FnMut(Sink<'_>) -> Result<(), TrainError>,
    ) -> Result<Result<(), String>, TrainError> {
        // With the header.
        let bytes = (rows as u64 * width as u64).saturating_mul(4) + 128;
        if let Err(problem) = self.make_room(path, bytes) {
            return Ok(Err(problem));
        }
        let mut failure = None;
        let written = write_atomically(path, |file| {
            let mut matrix = MatrixWriter::new(file, rows, width)?;
            let mut unwritten = None;
            let mut sink = |rows: &[f32]| {
                matrix.push(rows).map_err(|error| {
                    unwritten = Some(error);
                    TrainError::Folder(String::new())
                })
            };
            if let Err(error) = make(&mut sink) {
                return Err(unwritten.unwrap_or_else(|| {
                    failure = Some(error);
                    io::Error::other("the features could not be made")
                }));
            }
            matrix.finish()
        });
        let described = || {
            write_atomically(&path.with_extension("txt"), |file| {
                file.write_all(description.as_bytes())
            })
        };
        match (failure, written.and_then(|()| described())) {
            (Some(failure), _) => Err(failure),
            (None, Ok(())) => Ok(Ok(())),
            (None, Err(error)) => Ok(Err(format!("cannot write {}: {error}", path.display()))),
        }
    }

    /// The file of a description.
    fn path(&self, description: &str) -> Option<PathBuf> {
        let mut fingerprint = Fingerprint::default();
        fingerprint.text(description);
        Some(self.folder.as_ref()?.join(format!("{PREFIX}{fingerprint}.npy")))
    }

    /// Creates the folder and removes the features that were not of use for longest, until `bytes` more fit.
    fn make_room(&self, path: &Path, bytes: u64) -> Result<(), String> {
        let limit = self.limit;
        if bytes > limit {
            return Err(format!(
                "they take {} MiB, and train.feature-cache-mib allows {}",
                bytes.div_ceil(1 << 20),
                limit >> 20
            ));
        }
        let Some(folder) = path.parent() else { return Ok(()) };
        let refused = |error: io::Error| format!("{}: {error}", folder.display());
        std::fs::create_dir_all(folder).map_err(refused)?;
        let (mut files, mut used) = (Vec::new(), 0);
        for entry in std::fs::read_dir(folder).map_err(refused)?.flatten() {
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            let Ok(metadata) = entry.metadata() else { continue };
            let age = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified());
            if name.starts_with(".gradus-") && name.ends_with(".tmp") {
                let old = age(&path).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
                if old {
                    let _ = std::fs::remove_file(&path);
                }
            } else if name.starts_with(PREFIX) && name.ends_with(".npy") {
                used += metadata.len();
                let last = age(&path.with_extension("txt")).unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((last, path, metadata.len()));
            }
        }
        files.sort();
        for (_, path, length) in files {
            if used + bytes <= limit {
                break;
            }
            let _ = std::fs::remove_file(path.with_extension("txt"));
            if std::fs::remove_file(&path).is_ok() {
                used -= length;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::train::Silent;

    fn store(folder: &Path, limit: u64) -> Store {
        Store {
            folder: Some(folder.to_owned()),
            limit,
            whole: READ_WHOLE,
        }
    }

    fn make(store: &Store, name: &str, made: &Cell<usize>) -> Stored {
        let rows = |sink: Sink<'_>, _: &mut dyn Observer| {
            made.set(made.get() + 1);
            sink(&[1.0, 2.0])?;
            sink(&[3.0, 4.0, 5.0, 6.0])
        };
        store.find_or_make(name, [3, 2], &mut Silent, rows).unwrap()
    }

    #[test]
    fn features_are_made_once_and_again_when_the_file_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (mut store, made) = (store(folder.path(), 1 << 20), Cell::new(0));
        for whole in [0, READ_WHOLE, 23] {
            store.whole = whole;
            let found = make(&store, "a", &made);
            assert_eq!(matches!(found, Stored::File(_)), whole < 24);
            assert_eq!(found.gather([2, 0].into_iter()).unwrap(), [5.0, 6.0, 1.0, 2.0]);
            assert_eq!(made.get(), 1);
        }
        make(&store, "b", &made);
        assert_eq!(made.get(), 2);
        assert!(store.find("a", [3, 1]).is_none() && store.find("a", [3, 2]).is_some());
        let path = store.path("a").unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(make(&store, "a", &made).gather([1].into_iter()).unwrap(), [3.0, 4.0]);
        assert_eq!(made.get(), 3);
    }

    #[test]
    fn the_oldest_features_make_room_and_what_cannot_be_stored_stays_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let made = Cell::new(0);
        // Two files of 128 + 24 bytes fit.
        let two = store(folder.path(), 330);
        for name in ["a", "b"] {
            make(&two, name, &made);
            std::thread::sleep(Duration::from_millis(20));
        }
        // "a" is of use again, so "b" goes.
        make(&two, "a", &made);
        make(&two, "c", &made);
        assert_eq!(made.get(), 3);
        assert!(two.find("a", [3, 2]).is_some() && two.find("b", [3, 2]).is_none());

        let small = store(folder.path(), 10);
        assert!(matches!(make(&small, "d", &made), Stored::Memory { .. }));
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let nowhere = store(&file.join("inside"), 1 << 20);
        let found = make(&nowhere, "e", &made);
        assert!(matches!(found, Stored::Memory { .. }));
        assert_eq!(found.gather([2, 1].into_iter()).unwrap(), [5.0, 6.0, 3.0, 4.0]);
    }

    #[test]
    fn what_fails_in_making_fails_the_run_and_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), 1 << 20);
        let broken = |sink: Sink<'_>, _: &mut dyn Observer| {
            sink(&[1.0])?;
            Err(TrainError::Data("no image".into()))
        };
        let error = store.find_or_make("a", [3, 2], &mut Silent, broken).unwrap_err();
        assert!(error.to_string().contains("no image"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
