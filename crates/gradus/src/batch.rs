//! Embeddings with their labels, as losses see them.

use std::sync::Arc;

use crate::tensor::{Int, Tensor, TensorData};

/// A batch of embeddings with the class of each row.
///
/// Labels live on the host, where samplers make them: a loss builds masks from them without reading anything back.
///
/// # Shapes
/// `embeddings` `[batch, dim]`, unit norm unless a loss says otherwise; `labels` `[batch]`, dense class indices from 0.
#[derive(Clone, Debug)]
pub struct EmbeddingBatch {
    /// The embeddings.
    pub embeddings: Tensor<2>,
    /// The class of each row.
    pub labels: Arc<[u32]>,
}

impl EmbeddingBatch {
    /// Puts embeddings and labels together.
    ///
    /// # Panics
    /// If their numbers differ.
    #[must_use]
    pub fn new(embeddings: Tensor<2>, labels: impl Into<Arc<[u32]>>) -> Self {
        let labels = labels.into();
        let [rows, _] = embeddings.dims();
        assert_eq!(rows, labels.len(), "{rows} embeddings but {} labels", labels.len());
        Self { embeddings, labels }
    }

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

    /// The labels as a tensor `[batch]` on the device of the embeddings, outside autodiff.
    #[must_use]
    pub fn label_tensor(&self) -> Tensor<1, Int> {
        let values: Vec<i64> = self.labels.iter().map(|&label| i64::from(label)).collect();
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), &self.embeddings.device().inner())
    }
}
