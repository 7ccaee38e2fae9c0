//! The files of an index: vectors, items and deletions, only ever appended to.
//!
//! What lies behind the committed lengths ([`Extent`]) was left by a process that was killed; the next batch overwrites it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gradus_core::files::read_exact_at;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::IndexError;
use crate::item::Item;

/// How much of the files belongs to the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Extent {
    /// Number in the names of the files; a new build writes files of its own.
    pub(crate) generation: u64,
    /// Rows, deleted ones included.
    pub(crate) rows: u32,
    /// Bytes of the file of items.
    pub(crate) item_bytes: u64,
    /// Deleted rows.
    pub(crate) deleted: u32,
}

impl Extent {
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            generation,
            rows: 0,
            item_bytes: 0,
            deleted: 0,
        }
    }
}

/// The files of one generation.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    generation: u64,
    dimension: usize,
    /// Vectors, open for reading.
    vectors: File,
}

/// Names of the files of a generation.
pub(crate) fn names(generation: u64) -> [String; 3] {
    [
        format!("vectors-{generation}.f32"),
        format!("items-{generation}.jsonl"),
        format!("deleted-{generation}.u32"),
    ]
}

impl Log {
    /// Makes empty files, in place of any of the same generation.
    pub(crate) fn create(folder: &Path, generation: u64, dimension: usize) -> Result<Self, IndexError> {
        for name in names(generation) {
            let path = folder.join(name);
            File::create(&path).map_err(IndexError::file(&path))?;
        }
        Self::open(folder, generation, dimension)
    }

    pub(crate) fn open(folder: &Path, generation: u64, dimension: usize) -> Result<Self, IndexError> {
        let path = folder.join(&names(generation)[0]);
        Ok(Self {
            vectors: File::open(&path).map_err(IndexError::file(&path))?,
            folder: folder.to_owned(),
            generation,
            dimension,
        })
    }

    fn path(&self, which: usize) -> PathBuf {
        self.folder.join(&names(self.generation)[which])
    }

    /// Appends rows behind `extent`; returns the extent that includes them, which is for the caller to commit.
    pub(crate) fn append(&self, extent: &Extent, items: &[Arc<Item>], vectors: &[f32]) -> Result<Extent, IndexError> {
        let row_bytes = self.dimension as u64 * 4;
        let mut bytes = Vec::with_capacity(vectors.len() * 4);
        vectors.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        write_behind(&self.path(0), u64::from(extent.rows) * row_bytes, &bytes)?;
        let mut lines = Vec::new();
        for item in items {
            serde_json::to_writer(&mut lines, item.as_ref()).map_err(|error| IndexError::Item(error.to_string()))?;
            lines.push(b'\n');
        }
        write_behind(&self.path(1), extent.item_bytes, &lines)?;
        Ok(Extent {
            rows: extent.rows + items.len() as u32,
            item_bytes: extent.item_bytes + lines.len() as u64,
            ..extent.clone()
        })
    }

    /// Appends deletions behind `extent`.
    pub(crate) fn delete(&self, extent: &Extent, rows: &[u32]) -> Result<Extent, IndexError> {
        let bytes: Vec<u8> = rows.iter().flat_map(|row| row.to_le_bytes()).collect();
        write_behind(&self.path(2), u64::from(extent.deleted) * 4, &bytes)?;
        Ok(Extent {
            deleted: extent.deleted + rows.len() as u32,
            ..extent.clone()
        })
    }

    pub(crate) fn items(&self, extent: &Extent) -> Result<Vec<Arc<Item>>, IndexError> {
        let path = self.path(1);
        let bytes = read_beginning(&path, extent.item_bytes)?;
        let lines: Vec<&[u8]> = bytes.split_inclusive(|&byte| byte == b'\n').collect();
        let damaged = |problem: String| IndexError::damaged(&path, problem);
        if lines.len() != extent.rows as usize {
            return Err(damaged(format!(
                "expected {} items, found {}",
                extent.rows,
                lines.len()
            )));
        }
        lines
            .par_iter()
            .enumerate()
            .map(|(number, line)| {
                serde_json::from_slice(line)
                    .map(Arc::new)
                    .map_err(|error| damaged(format!("line {}: {error}", number + 1)))
            })
            .collect()
    }

    /// Whether each row was deleted.
    pub(crate) fn deleted(&self, extent: &Extent) -> Result<Vec<bool>, IndexError> {
        let path = self.path(2);
        let bytes = read_beginning(&path, u64::from(extent.deleted) * 4)?;
        let mut deleted = vec![false; extent.rows as usize];
        for row in bytes.as_chunks::<4>().0 {
            let row = u32::from_le_bytes(*row);
            *deleted
                .get_mut(row as usize)
                .ok_or_else(|| IndexError::damaged(&path, format!("row {row} of {} was deleted", extent.rows)))? = true;
        }
        Ok(deleted)
    }

    /// Checks that the vectors are all there.
    pub(crate) fn check(&self, extent: &Extent) -> Result<(), IndexError> {
        let path = self.path(0);
        let found = self.vectors.metadata().map_err(IndexError::file(&path))?.len();
        let expected = u64::from(extent.rows) * self.dimension as u64 * 4;
        if found < expected {
            return Err(IndexError::damaged(
                &path,
                format!("expected {expected} bytes, found {found}: the file was cut off"),
            ));
        }
        Ok(())
    }

    /// Reads rows, row-major.
    pub(crate) fn read(&self, rows: Range<u32>, values: &mut Vec<f32>) -> Result<(), IndexError> {
        let row_bytes = self.dimension * 4;
        let mut bytes = vec![0; rows.len() * row_bytes];
        read_exact_at(&self.vectors, &mut bytes, u64::from(rows.start) * row_bytes as u64)
            .map_err(IndexError::file(&self.path(0)))?;
        values.clear();
        values.extend(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)));
        Ok(())
    }
}

fn write_behind(path: &Path, length: u64, bytes: &[u8]) -> Result<(), IndexError> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() < length {
            return Err(std::io::Error::other(
                "the file is shorter than index.toml says: it was cut off; build the index again",
            ));
        }
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        file.write_all(bytes)?;
        file.sync_data()
    };
    write().map_err(IndexError::file(path))
}

fn read_beginning(path: &Path, length: u64) -> Result<Vec<u8>, IndexError> {
    let file = File::open(path).map_err(IndexError::file(path))?;
    let mut bytes = Vec::new();
    file.take(length)
        .read_to_end(&mut bytes)
        .map_err(IndexError::file(path))?;
    if bytes.len() as u64 != length {
        return Err(IndexError::damaged(
            path,
            format!("expected {length} bytes, found {}: the file was cut off", bytes.len()),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(names: &[&str]) -> Vec<Arc<Item>> {
        names.iter().map(|name| Arc::new(Item::new(*name))).collect()
    }

    #[test]
    fn what_was_not_committed_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(folder.path(), 1, 2).unwrap();
        let start = Extent::new(1);
        let first = log
            .append(&start, &items(&["a", "b\n"]), &[1.0, 2.0, 3.0, 4.0])
            .unwrap();
        // Two batches that nobody committed, the second longer than the third.
        log.append(&first, &items(&["lost", "lost as well"]), &[9.0; 4])
            .unwrap();
        log.delete(&first, &[0, 1]).unwrap();
        let second = log.append(&first, &items(&["c"]), &[5.0, 6.0]).unwrap();
        let second = log.delete(&second, &[1]).unwrap();
        let log = Log::open(folder.path(), 1, 2).unwrap();
        let found: Vec<String> = log.items(&second).unwrap().iter().map(|item| item.id.clone()).collect();
        assert_eq!(found, ["a", "b\n", "c"]);
        assert_eq!(log.deleted(&second).unwrap(), [false, true, false]);
        let mut values = Vec::new();
        log.read(1..3, &mut values).unwrap();
        assert_eq!(values, [3.0, 4.0, 5.0, 6.0]);
        log.check(&second).unwrap();
    }

    #[test]
    fn files_that_were_cut_off_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::create(folder.path(), 1, 2).unwrap();
        let extent = log.append(&Extent::new(1), &items(&["a", "b"]), &[1.0; 4]).unwrap();
        for name in names(1).iter().take(2) {
            let file = OpenOptions::new().write(true).open(folder.path().join(name)).unwrap();
            file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        }
        assert!(log.check(&extent).unwrap_err().to_string().contains("cut off"));
        assert!(log.items(&extent).unwrap_err().to_string().contains("cut off"));
        assert!(
            log.append(&extent, &items(&["c"]), &[1.0; 2])
                .unwrap_err()
                .to_string()
                .contains("cut off")
        );
    }
}
