//! A folder of Parquet files that together are one set of embeddings: what many images are embedded into, part by part.
//!
//! Rows `first..last` of a shard make one part. A part appears whole or not at all and says in its footer what it was made of, so that a run that
//! was interrupted goes on with the part it was in. Any Parquet tool reads the folder as one data set.

use std::path::{Path, PathBuf};

use super::{EmbeddingFileError, EmbeddingSet, parquet};
use crate::files::write_atomically;

/// One of several processes that embed the same items: `index` of `count`, from 1.
///
/// ```
/// use gradus_core::embeddings::parts::Shard;
///
/// let shard: Shard = "2/3".parse()?;
/// assert_eq!(shard.rows(10), 3..6);
/// assert!("4/3".parse::<Shard>().is_err());
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Default for Shard {
    fn default() -> Self {
        Self { index: 1, count: 1 }
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) => Ok(Self { index, count }),
            _ => Err(format!(
                "`{text}` is no shard: expected INDEX/COUNT, for example 1/4 for the first of four"
            )),
        }
    }
}

impl Shard {
    /// The items of this shard among `len`: the shards follow each other and differ by at most one item in size.
    #[must_use]
    pub fn rows(&self, len: usize) -> std::ops::Range<usize> {
        let start = |index: usize| (len as u128 * index as u128 / self.count as u128) as usize;
        start(self.index - 1)..start(self.index)
    }

    fn prefix(&self) -> String {
        format!("shard-{:04}-of-{:04}-", self.index, self.count)
    }

    /// The file of a part of this shard.
    #[must_use]
    pub fn file(&self, folder: &Path, part: usize) -> PathBuf {
        folder.join(format!("{}part-{part:06}.parquet", self.prefix()))
    }

    /// Refuses a folder whose parts come from another division, and removes the parts of this shard from `parts` on, which an earlier, larger set of
    /// items left behind; returns how many.
    ///
    /// # Errors
    /// Foreign files in the folder, or what the file system reports.
    pub fn claim(&self, folder: &Path, parts: usize) -> Result<usize, EmbeddingFileError> {
        let division = format!("-of-{:04}-part-", self.count);
        let mut removed = 0;
        for path in files(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !name.starts_with("shard-") || !name.contains(&division) {
                return Err(EmbeddingFileError::Unwritable {
                    path: folder.into(),
                    problem: format!(
                        "it holds {name}, which is no part of a division into {} shards: rows would stand there twice; give a new folder",
                        self.count
                    ),
                });
            }
            let number = name.strip_prefix(&self.prefix()).and_then(|rest| {
                let digits = rest.strip_prefix("part-")?.strip_suffix(".parquet")?;
                digits.parse::<usize>().ok()
            });
            if number.is_some_and(|number| number >= parts) {
                std::fs::remove_file(&path).map_err(|source| EmbeddingFileError::Write { path, source })?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// Whether the part at `path` is there and was made of `origin`.
#[must_use]
pub fn is_made_of(path: &Path, origin: &str) -> bool {
    parquet::origin(path).as_deref() == Some(origin)
}

/// Writes a part, atomically, with what it was made of. It may be empty: all its images may be broken.
///
/// # Errors
/// What the file system reports.
pub fn write(set: &EmbeddingSet, origin: &str, path: &Path) -> Result<(), EmbeddingFileError> {
    write_atomically(path, |file| parquet::encode(set, Some(origin), file)).map_err(|source| {
        EmbeddingFileError::Write {
            path: path.into(),
            source,
        }
    })
}

/// The parts of a folder in order.
///
/// # Errors
/// A folder that cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, EmbeddingFileError> {
    let entries = std::fs::read_dir(folder).map_err(EmbeddingFileError::read(folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(EmbeddingFileError::read(folder))?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !is_hidden && path.extension().is_some_and(|extension| extension == "parquet") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Hands the parts of a folder to `take`, one after the other.
///
/// # Errors
/// A folder without a part, a part that cannot be read or is of another width, or what `take` refuses.
pub fn each<E: From<EmbeddingFileError>>(
    folder: &Path,
    mut take: impl FnMut(EmbeddingSet) -> Result<(), E>,
) -> Result<(), E> {
    let files = files(folder)?;
    let mut dim = None;
    for path in &files {
        let set = parquet::decode_part(path)?;
        if set.is_empty() {
            continue;
        }
        let expected = *dim.get_or_insert(set.dim);
        if set.dim != expected {
            let problem = format!(
                "its embeddings have {} numbers, those of the parts before it {expected}",
                set.dim
            );
            return Err(EmbeddingFileError::malformed(path, problem).into());
        }
        take(set)?;
    }
    if dim.is_none() {
        let problem =
            "the folder holds no embedding: expected .parquet files as `gradus embed --out FOLDER` writes them";
        return Err(EmbeddingFileError::malformed(folder, problem).into());
    }
    Ok(())
}

pub(super) fn read_all(folder: &Path) -> Result<EmbeddingSet, EmbeddingFileError> {
    let mut all = EmbeddingSet::default();
    each(folder, |part| {
        all.dim = part.dim;
        all.values.extend(part.values);
        all.labels.extend(part.labels);
        all.ids.extend(part.ids);
        Ok::<(), EmbeddingFileError>(())
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(first: usize, len: usize) -> EmbeddingSet {
        EmbeddingSet {
            dim: 2,
            values: (2 * first..2 * (first + len)).map(|value| value as f32).collect(),
            labels: (first..first + len).map(|row| row as u32).collect(),
            ids: (first..first + len).map(|row| row.to_string()).collect(),
        }
    }

    #[test]
    fn shards_cover_everything_once() {
        for (len, count) in [(0, 3), (1, 4), (10, 3), (1_000_003, 7)] {
            let mut next = 0;
            for index in 1..=count {
                let rows = Shard { index, count }.rows(len);
                assert_eq!(rows.start, next);
                assert!(rows.len().abs_diff(len / count) <= 1);
                next = rows.end;
            }
            assert_eq!(next, len);
        }
        for bad in ["", "1", "0/2", "3/2", "a/b", "1/0", "-1/2"] {
            assert!(bad.parse::<Shard>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_folder_of_parts_is_one_set_and_knows_its_origin() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let [one, two] = [1, 2].map(|index| Shard { index, count: 2 });
        write(&set(3, 2), "b", &two.file(folder, 0)).unwrap();
        write(&set(0, 2), "a", &one.file(folder, 0)).unwrap();
        write(&EmbeddingSet::default(), "empty", &one.file(folder, 1)).unwrap();
        write(&set(2, 1), "c", &one.file(folder, 2)).unwrap();
        assert_eq!(read_all(folder).unwrap(), set(0, 5));
        assert!(is_made_of(&one.file(folder, 0), "a") && !is_made_of(&one.file(folder, 0), "b"));
        assert!(!is_made_of(&one.file(folder, 7), "a"));
        assert!(is_made_of(&one.file(folder, 1), "empty"));
        std::fs::write(one.file(folder, 9), b"PAR1 and no more").unwrap();
        assert!(!is_made_of(&one.file(folder, 9), "a"));
        assert!(read_all(folder).unwrap_err().to_string().contains("000009.parquet"));

        assert_eq!(one.claim(folder, 2).unwrap(), 2);
        assert_eq!(read_all(folder).unwrap().labels, [0, 1, 3, 4]);
        let error = Shard::default().claim(folder, 9).unwrap_err().to_string();
        assert!(error.contains("division into 1 shards"), "{error}");
    }

    #[test]
    fn parts_of_two_widths_and_empty_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        assert!(read_all(folder).unwrap_err().to_string().contains("no embedding"));
        let shard = Shard::default();
        write(&set(0, 2), "a", &shard.file(folder, 0)).unwrap();
        let wide = EmbeddingSet {
            dim: 4,
            labels: vec![0],
            ids: vec!["x".into()],
            ..set(0, 2)
        };
        write(&wide, "a", &shard.file(folder, 1)).unwrap();
        assert!(read_all(folder).unwrap_err().to_string().contains("have 4 numbers"));
    }
}
