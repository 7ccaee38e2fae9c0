//! Embeddings on the host: the border between the model and everything that measures or stores its output.
//!
//! [`write()`] and [`read`] store them; the extension of the file decides how ([`Format`]). To add a format: one file with
//! `encode` and `decode`, one variant of [`Format`].

mod array;
mod companion;
mod element;
mod error;
mod labels;
mod matrices;
mod npy;
mod npy_rows;
mod npy_writer;
mod parquet;
pub mod parts;
mod safetensors;
mod tables;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use error::EmbeddingFileError;
pub use labels::{
    LabelKind, read_cameras, read_categories, read_clusters, read_item_labels, read_labels, write_labels,
};
pub use matrices::{Matrix, read_factors, read_matrix, read_parameters, read_precise_matrix, write_matrix};
pub use npy_rows::NpyRows;
pub use npy_writer::MatrixWriter;
pub use tables::{EmbeddingTable, read_rows, read_table, read_width};

use crate::files::write_atomically;

/// Embeddings with the class and the name of each row.
///
/// # Shapes
/// `values` is row-major `[len, dim]`; `labels` and `ids` have `len` entries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EmbeddingSet {
    /// Width of one embedding.
    pub dim: usize,
    /// All rows, one after the other.
    pub values: Vec<f32>,
    /// Class of each row.
    pub labels: Vec<u32>,
    /// Name (usually the path) of each row.
    pub ids: Vec<String>,
}

impl EmbeddingSet {
    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// One row.
    ///
    /// # Panics
    /// If `index` is not below [`len`](Self::len).
    #[must_use]
    pub fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// The rows at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is not below [`len`](Self::len).
    #[must_use]
    pub fn select(&self, indices: &[usize]) -> Self {
        let mut values = Vec::with_capacity(indices.len() * self.dim);
        for &index in indices {
            values.extend_from_slice(self.row(index));
        }
        Self {
            dim: self.dim,
            values,
            labels: indices.iter().map(|&index| self.labels[index]).collect(),
            ids: indices.iter().map(|&index| self.ids[index].clone()).collect(),
        }
    }
}

/// How embeddings are stored in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NumPy: the values `[len, dim]` alone; paths and labels in the table beside it.
    Npy,
    /// safetensors: tensors `embeddings` `[len, dim]` f32 and `labels` `[len]` i64; paths in the table beside it.
    Safetensors,
    /// Parquet: columns `path` (string), `label` (64-bit integer), `embedding` (list of float), uncompressed.
    Parquet,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Npy, Self::Safetensors, Self::Parquet];

    /// The extension that asks for it.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Npy => "npy",
            Self::Safetensors => "safetensors",
            Self::Parquet => "parquet",
        }
    }

    /// The format a path asks for by its extension, in any case.
    ///
    /// # Errors
    /// An unknown extension or none; the message lists the known ones.
    pub fn of(path: &Path) -> Result<Self, EmbeddingFileError> {
        let extension = path
            .extension()
            .map(|extension| extension.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        Self::ALL
            .into_iter()
            .find(|format| format.extension() == extension)
            .ok_or_else(|| EmbeddingFileError::UnknownFormat {
                path: path.into(),
                extension,
            })
    }
}

/// The table beside an `.npy` or `.safetensors` file: the same name with the extension `.csv`, columns `row,path,label`.
#[must_use]
pub fn companion_path(path: &Path) -> PathBuf {
    path.with_extension("csv")
}

/// Names and labels of rows, in their order.
pub type NamesAndLabels = (Vec<String>, Vec<u32>);

/// Names and labels of the rows of an `.npy` file, from the table that gradus wrote beside it; none if there is no such table.
///
/// # Errors
/// A table that cannot be read or is damaged.
pub fn read_companion(path: &Path) -> Result<Option<NamesAndLabels>, EmbeddingFileError> {
    let beside = companion_path(path);
    if companion::is_ours(&beside) {
        companion::read(&beside, path).map(Some)
    } else {
        Ok(None)
    }
}

/// Writes embeddings in the format the extension of `path` asks for; returns the files written.
///
/// Beside `.npy` and `.safetensors` lies a table (see [`companion_path`]) with the path and the label of every row, in
/// row order; `.parquet` holds everything itself. Every file is written atomically. A table of another origin (one that
/// does not begin with `row,path,label`) is never overwritten.
///
/// # Errors
/// An unknown extension, an empty or inconsistent set, a foreign table in the way, or what the file system reports.
pub fn write(set: &EmbeddingSet, path: &Path) -> Result<Vec<PathBuf>, EmbeddingFileError> {
    let format = Format::of(path)?;
    let expected = set.labels.len().checked_mul(set.dim);
    if set.is_empty() || set.dim == 0 || expected != Some(set.values.len()) || set.ids.len() != set.labels.len() {
        return Err(EmbeddingFileError::Unwritable {
            path: path.into(),
            problem: format!(
                "expected at least one row and as many labels and names as rows, found {} values of width {}, {} labels and {} names",
                set.values.len(),
                set.dim,
                set.labels.len(),
                set.ids.len()
            ),
        });
    }
    let mut written = Vec::new();
    if format != Format::Parquet {
        let beside = companion_path(path);
        companion::write(set, &beside)?;
        written.push(beside);
    }
    let encoded: Result<(), std::io::Error> = write_atomically(path, |file| match format {
        Format::Npy => npy::encode(set, file),
        Format::Safetensors => safetensors::encode(set, file),
        Format::Parquet => parquet::encode(set, None, file),
    });
    encoded.map_err(|source| EmbeddingFileError::Write {
        path: path.into(),
        source,
    })?;
    written.insert(0, path.into());
    Ok(written)
}

/// Reads embeddings written by [`write()`], or by anything else that keeps to the same formats.
///
/// A folder is read as its `.parquet` [`parts`]. `.npy` may hold f2, f4 or f8 of either byte order, in C or Fortran order. Without a table beside it, the rows of a
/// `.safetensors` file are named by their number; `.npy` has no labels of its own and needs the table.
///
/// # Errors
/// An unknown extension; a file that is missing, truncated, inconsistent or of another kind.
pub fn read(path: &Path) -> Result<EmbeddingSet, EmbeddingFileError> {
    if path.is_dir() {
        return parts::read_all(path);
    }
    match Format::of(path)? {
        Format::Npy => {
            let stored = NpyRows::open(path)?;
            let (rows, dim) = (stored.len(), stored.dim());
            let mut values = Vec::new();
            stored.read(0..rows, &mut values)?;
            let (ids, labels) = companion::read(&companion_path(path), path)?;
            if labels.len() != rows {
                return Err(EmbeddingFileError::malformed(
                    &companion_path(path),
                    format!(
                        "describes {} rows, but {} holds {rows}: the two do not belong together",
                        labels.len(),
                        path.display()
                    ),
                ));
            }
            Ok(EmbeddingSet {
                dim,
                values,
                labels,
                ids,
            })
        }
        Format::Safetensors => {
            let (dim, values, labels) = safetensors::decode(path)?;
            let beside = companion_path(path);
            let ids = if beside.exists() {
                let (ids, table_labels) = companion::read(&beside, path)?;
                if table_labels != labels {
                    return Err(EmbeddingFileError::malformed(
                        &beside,
                        format!(
                            "its labels are not those of {}: the two do not belong together",
                            path.display()
                        ),
                    ));
                }
                ids
            } else {
                (0..labels.len()).map(|row| row.to_string()).collect()
            };
            Ok(EmbeddingSet {
                dim,
                values,
                labels,
                ids,
            })
        }
        Format::Parquet => parquet::decode(path),
    }
}
