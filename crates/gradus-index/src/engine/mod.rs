//! What answers searches. An engine is one file with a [`VectorIndex`] and one line in [`EngineKind`].
//!
//! Engines know rows, not names: the row of an item is its position in the files of the index. Rows are never used twice for different
//! items, except those of a batch that was not committed.

mod flat;
#[cfg(feature = "qdrant-edge")]
mod qdrant_edge;
#[cfg(any(feature = "qdrant-edge", feature = "remote"))]
pub(crate) mod qdrant_filter;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use flat::Flat;
#[cfg(feature = "qdrant-edge")]
pub use qdrant_edge::QdrantEdge;

use crate::IndexError;
use crate::filter::Filter;
use crate::item::{Fields, Item};

/// A row that was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbor {
    /// The row.
    pub row: u32,
    /// Its cosine similarity to the query.
    pub score: f32,
}

/// What an engine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct EngineStatistics {
    /// Rows that can be found.
    pub rows: usize,
    /// Rows in a graph or another approximate structure; the others are compared one by one.
    pub approximate_rows: usize,
    /// Parts that are searched one after the other.
    pub segments: usize,
}

/// An engine: rows of unit length, searched by cosine similarity.
///
/// Searches may come from many threads, also while one thread adds or deletes.
pub trait VectorIndex: Send + Sync + fmt::Debug {
    /// Which engine it is.
    fn kind(&self) -> EngineKind;

    /// Prepares for filters on these fields; called before items with new fields are added.
    ///
    /// # Errors
    /// If the engine fails.
    fn declare(&self, fields: &Fields) -> Result<(), IndexError>;

    /// Adds rows, durably once [`flush`](Self::flush) returned. Rows that are there are replaced.
    ///
    /// # Shapes
    /// `vectors` is row-major `[rows, dimension]`, of unit length.
    ///
    /// # Errors
    /// If the engine fails.
    fn add(&self, rows: &[u32], items: &[Arc<Item>], vectors: &[f32]) -> Result<(), IndexError>;

    /// Removes rows; rows that are not there are passed over.
    ///
    /// # Errors
    /// If the engine fails.
    fn delete(&self, rows: &[u32]) -> Result<(), IndexError>;

    /// The `count` rows nearest to a query of unit length that pass the filter, nearest first.
    ///
    /// # Errors
    /// If the engine fails.
    fn search(&self, query: &[f32], count: usize, filter: &Filter) -> Result<Vec<Neighbor>, IndexError>;

    /// The rows it holds, rising.
    ///
    /// # Errors
    /// If the engine fails.
    fn rows(&self) -> Result<Vec<u32>, IndexError>;

    /// Makes everything so far survive a crash.
    ///
    /// # Errors
    /// If the engine fails.
    fn flush(&self) -> Result<(), IndexError>;

    /// Brings what was added into the form that is searched fastest; may take minutes.
    ///
    /// # Errors
    /// If the engine fails.
    fn optimize(&self) -> Result<(), IndexError>;

    /// What it holds.
    ///
    /// # Errors
    /// If the engine fails.
    fn statistics(&self) -> Result<EngineStatistics, IndexError>;
}

/// Which engine answers searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineKind {
    /// Exact: every row is compared. Rows are read into memory when the index is opened.
    Flat,
    /// Approximate: the graph (HNSW) of Qdrant Edge, inside this process.
    QdrantEdge,
}

impl Default for EngineKind {
    fn default() -> Self {
        if cfg!(feature = "qdrant-edge") {
            Self::QdrantEdge
        } else {
            Self::Flat
        }
    }
}

impl EngineKind {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Flat, Self::QdrantEdge];

    /// The name on the command line and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::QdrantEdge => "qdrant-edge",
        }
    }

    /// Whether it keeps files of its own, beside those of the index.
    pub(crate) fn keeps_files(self) -> bool {
        match self {
            Self::Flat => false,
            Self::QdrantEdge => true,
        }
    }

    /// Makes an empty engine, with files at `path` if it keeps any.
    pub(crate) fn create(self, path: &Path, dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
        match self {
            Self::Flat => Ok(Box::new(Flat::new(dimension))),
            #[cfg(feature = "qdrant-edge")]
            Self::QdrantEdge => Ok(Box::new(QdrantEdge::create(path, dimension)?)),
            #[cfg(not(feature = "qdrant-edge"))]
            Self::QdrantEdge => Err(absent(path)),
        }
    }

    /// Opens the files of an engine at `path`.
    pub(crate) fn open(self, path: &Path, dimension: usize) -> Result<Box<dyn VectorIndex>, IndexError> {
        match self {
            Self::Flat => Ok(Box::new(Flat::new(dimension))),
            #[cfg(feature = "qdrant-edge")]
            Self::QdrantEdge => Ok(Box::new(QdrantEdge::open(path, dimension)?)),
            #[cfg(not(feature = "qdrant-edge"))]
            Self::QdrantEdge => Err(absent(path)),
        }
    }
}

#[cfg(not(feature = "qdrant-edge"))]
fn absent(path: &Path) -> IndexError {
    IndexError::Options(format!(
        "{} needs the engine qdrant-edge, which this gradus was built without: build it with the feature qdrant-edge, or use --engine flat",
        path.display()
    ))
}

impl fmt::Display for EngineKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for EngineKind {
    type Err = IndexError;

    fn from_str(text: &str) -> Result<Self, IndexError> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|kind| kind.name()).collect();
            IndexError::Options(format!("unknown engine {text}; the engines are {}", names.join(", ")))
        })
    }
}
