//! Embeddings on the host: the border between the model and everything that measures or stores its output.

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
