//! Which rows of a batch are alike, and how far apart all of them are: what pair and triplet losses start from.

use crate::batch::EmbeddingBatch;
use crate::numerics::{normalize, safe_sqrt};
use crate::tensor::{Bool, Param, Tensor, TensorData};

/// Masks of the positive and negative pairs of a batch, made on the host from its labels.
///
/// # Shapes
/// Both masks `[batch, batch]`, row = anchor; the diagonal is in neither.
#[derive(Debug)]
pub(super) struct Pairs {
    /// Other rows of the anchor's class.
    pub(super) positives: Tensor<2, Bool>,
    /// Rows of other classes.
    pub(super) negatives: Tensor<2, Bool>,
    /// Number of positives of each anchor.
    pub(super) positive_counts: Vec<usize>,
    /// Number of negatives of each anchor.
    pub(super) negative_counts: Vec<usize>,
}

impl Pairs {
    /// The pairs of a batch that has at least one row.
    pub(super) fn of(batch: &EmbeddingBatch) -> Self {
        let labels = &batch.labels;
        let count = labels.len();
        let mut positives = Vec::with_capacity(count * count);
        let mut negatives = Vec::with_capacity(count * count);
        let (mut positive_counts, mut negative_counts) = (vec![0; count], vec![0; count]);
        for (anchor, label) in labels.iter().enumerate() {
            for (other, other_label) in labels.iter().enumerate() {
                let (positive, negative) = (label == other_label && anchor != other, label != other_label);
                positives.push(positive);
                negatives.push(negative);
                positive_counts[anchor] += usize::from(positive);
                negative_counts[anchor] += usize::from(negative);
            }
        }
        let device = batch.embeddings.device().inner();
        let mask = |values| Tensor::from_data(TensorData::new(values, [count, count]), &device);
        Self {
            positives: mask(positives),
            negatives: mask(negatives),
            positive_counts,
            negative_counts,
        }
    }

    /// Number of (anchor, positive) pairs.
    pub(super) fn positive_total(&self) -> usize {
        self.positive_counts.iter().sum()
    }

    /// Number of (anchor, positive, negative) triplets.
    pub(super) fn triplet_total(&self) -> usize {
        self.positive_counts
            .iter()
            .zip(&self.negative_counts)
            .map(|(positives, negatives)| positives * negatives)
            .sum()
    }
}

/// `[classes, batch]`, or transposed: true where the row has the class.
///
/// # Panics
/// If a label is not below `classes`: such a row would silently have no proxy of its own.
pub(super) fn class_mask(batch: &EmbeddingBatch, classes: usize, class_first: bool) -> Tensor<2, Bool> {
    let count = batch.len();
    let mut values = vec![false; classes * count];
    for (row, &label) in batch.labels.iter().enumerate() {
        let label = label as usize;
        assert!(
            label < classes,
            "label {label} has no proxy: the loss was made for {classes} classes"
        );
        values[if class_first {
            label * count + row
        } else {
            row * classes + label
        }] = true;
    }
    let shape = if class_first {
        [classes, count]
    } else {
        [count, classes]
    };
    Tensor::from_data(TensorData::new(values, shape), &batch.embeddings.device().inner())
}

/// Cosines between all rows of a batch, `[batch, batch]`.
pub(super) fn cosines(embeddings: Tensor<2>) -> Tensor<2> {
    let unit = normalize(embeddings);
    unit.clone().matmul(unit.transpose())
}

/// Euclidean distances between all normalised rows of a batch, `[batch, batch]`; slope 0 at distance 0.
pub(super) fn distances(embeddings: Tensor<2>) -> Tensor<2> {
    let unit = normalize(embeddings);
    // Squared lengths are 1, or 0 for zero vectors, whatever the embeddings: constants.
    let squares = unit.clone().without_autodiff().square().sum_dim(1);
    let products = unit.clone().matmul(unit.transpose());
    safe_sqrt(products.mul_scalar(-2.0) + squares.clone() + squares.transpose())
}

/// The differentiable zero that every loss starts from.
pub(super) fn zero(embeddings: &Tensor<2>) -> Tensor<1> {
    embeddings.clone().sum().mul_scalar(0.0)
}

/// One number per row as a column `[rows, 1]` in the precision of `like`.
pub(super) fn column(values: impl IntoIterator<Item = usize>, like: &Tensor<2>) -> Tensor<2> {
    let values: Vec<f64> = values.into_iter().map(|value| value as f64).collect();
    let shape = [values.len(), 1];
    Tensor::from_data(TensorData::new(values, shape), (&like.device().inner(), like.dtype()))
}

/// A parameter with new values that keeps its identity, device, precision and training state.
///
/// # Panics
/// If the shapes differ.
pub(super) fn replaced(parameter: Param<Tensor<2>>, values: &Tensor<2>) -> Param<Tensor<2>> {
    parameter.map(|old| {
        assert_eq!(
            old.dims(),
            values.dims(),
            "the new proxies must be [classes, dim] like the old ones"
        );
        Tensor::from_data(values.to_data(), (&old.device(), old.dtype())).set_require_grad(old.is_require_grad())
    })
}
