//! Where rows come from: memory, or a file that is read block by block.

use std::ops::Range;
use std::sync::OnceLock;

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

/// Rows in memory that somebody else owns, such as an array of NumPy: they are read where they lie.
///
/// The measures of structure sort rows by class, for which they need a set of their own: the rows are copied once, when the
/// first of them asks.
#[derive(Debug)]
pub struct RowSlice<'a> {
    dim: usize,
    values: &'a [f32],
    labels: Option<&'a [u32]>,
    set: OnceLock<EmbeddingSet>,
}

impl<'a> RowSlice<'a> {
    /// Rows of width `dim`, row-major; what does not make a whole row is left out.
    #[must_use]
    pub fn new(dim: usize, values: &'a [f32]) -> Self {
        Self {
            dim,
            values: &values[..values.len().checked_div(dim).unwrap_or(0) * dim],
            labels: None,
            set: OnceLock::new(),
        }
    }

    /// The same with the class of each row.
    #[must_use]
    pub fn with_labels(self, labels: &'a [u32]) -> Self {
        Self {
            labels: Some(labels),
            ..self
        }
    }
}

impl Rows for RowSlice<'_> {
    fn len(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    fn dim(&self) -> usize {
        self.dim
    }

    fn name(&self, _row: usize) -> String {
        "counted from 0".to_owned()
    }

    fn in_memory(&self) -> Option<&[f32]> {
        Some(self.values)
    }

    fn as_set(&self) -> Option<&EmbeddingSet> {
        let labels = self.labels?;
        Some(self.set.get_or_init(|| EmbeddingSet {
            dim: self.dim,
            values: self.values.to_vec(),
            labels: labels.to_vec(),
            ids: (0..labels.len()).map(|row| self.name(row)).collect(),
        }))
    }

    fn read<'a>(&'a self, rows: Range<usize>, _buffer: &'a mut Vec<f32>) -> Result<&'a [f32], EvaluationError> {
        Ok(&self.values[rows.start * self.dim..rows.end * self.dim])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;
    use crate::evaluation::{EvaluationOptions, ReportOptions, Subject, nearest, nearest_rows, report};

    #[test]
    fn borrowed_rows_are_measured_and_searched_as_owned_ones() {
        let set = random_set(3, 60, 7, 5);
        let rows = RowSlice::new(7, &set.values).with_labels(&set.labels);
        let owned = Subject::of_sets(&set, None);
        let borrowed = Subject {
            queries: &rows,
            ..owned.clone()
        };
        let options = EvaluationOptions::default();
        let measure = |subject| {
            report(subject, &options, None, &ReportOptions::default())
                .unwrap()
                .evaluation
        };
        assert_eq!(measure(&owned), measure(&borrowed));
        assert!(measure(&borrowed).get("density").is_some());
        let found = nearest_rows(&rows, None, 9, &options).unwrap();
        assert_eq!(found, nearest(&set, None, 9, &options).unwrap());
    }

    #[test]
    fn borrowed_rows_say_which_of_them_is_wrong() {
        let values = [1.0, 0.0, f32::NAN, 1.0, 1.0];
        let rows = RowSlice::new(2, &values);
        assert_eq!(rows.len(), 2);
        let message = nearest_rows(&rows, None, 1, &EvaluationOptions::default())
            .unwrap_err()
            .to_string();
        assert!(
            message.starts_with("row 1 (counted from 0) of the query set"),
            "{message}"
        );
        let empty = RowSlice::new(0, &values);
        assert!(nearest_rows(&empty, None, 1, &EvaluationOptions::default()).is_err());
    }
}
