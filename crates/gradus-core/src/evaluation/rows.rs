//! Where rows come from: memory, or a file that is read block by block.

use std::ops::Range;

use super::EvaluationError;
use crate::EmbeddingSet;
use crate::embeddings::NpyRows;

/// Embeddings that can be read in blocks, from several threads at once.
pub trait Rows: Sync {
    /// Number of rows.
    fn len(&self) -> usize;

    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of a row.
    fn dim(&self) -> usize;

    /// What a row is called in messages.
    fn name(&self, row: usize) -> String {
        format!("row {row}")
    }

    /// All rows, if they lie in memory.
    fn in_memory(&self) -> Option<&[f32]> {
        None
    }

    /// The set they are, if they lie in memory with their labels.
    fn as_set(&self) -> Option<&EmbeddingSet> {
        None
    }

    /// The rows `rows`, row-major, in memory or read into `buffer`.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read<'a>(&'a self, rows: Range<usize>, buffer: &'a mut Vec<f32>) -> Result<&'a [f32], EvaluationError>;
}

impl Rows for EmbeddingSet {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn name(&self, row: usize) -> String {
        self.ids.get(row).cloned().unwrap_or_default()
    }

    fn in_memory(&self) -> Option<&[f32]> {
        Some(&self.values)
    }

    fn as_set(&self) -> Option<&EmbeddingSet> {
        Some(self)
    }

    fn read<'a>(&'a self, rows: Range<usize>, _buffer: &'a mut Vec<f32>) -> Result<&'a [f32], EvaluationError> {
        Ok(&self.values[rows.start * self.dim..rows.end * self.dim])
    }
}

impl Rows for NpyRows {
    fn len(&self) -> usize {
        self.len()
    }

    fn dim(&self) -> usize {
        self.dim()
    }

    fn read<'a>(&'a self, rows: Range<usize>, buffer: &'a mut Vec<f32>) -> Result<&'a [f32], EvaluationError> {
        self.read(rows, buffer)?;
        Ok(buffer)
    }
}
