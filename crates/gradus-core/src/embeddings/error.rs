//! Why embeddings could not be stored or read.

use std::path::{Path, PathBuf};

/// Why embeddings could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmbeddingFileError {
    /// The extension names no format.
    #[error("{}: the extension \"{extension}\" names no format of embeddings; use .npy, .safetensors or .parquet (.npz can be read as well, but not written)", path.display())]
    UnknownFormat {
        /// The path.
        path: PathBuf,
        /// Its extension, empty if there is none.
        extension: String,
    },
    /// The set cannot be stored.
    #[error("embeddings cannot be written to {}: {problem}", path.display())]
    Unwritable {
        /// The path.
        path: PathBuf,
        /// Why not.
        problem: String,
    },
    /// The file could not be written.
    #[error("cannot write {}: {source}; what stood there before is untouched", path.display())]
    Write {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The path.
        path: PathBuf,
        /// What was expected and what was found.
        problem: String,
    },
}

impl EmbeddingFileError {
    pub(super) fn malformed(path: &Path, problem: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.into(),
            problem: problem.into(),
        }
    }

    pub(super) fn read(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }
}
