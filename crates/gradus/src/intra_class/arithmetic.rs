//! Small helpers of this folder: constants that follow the type of the embeddings, and rows by label.

use std::collections::BTreeMap;

use crate::numerics::normalize;
use crate::tensor::{Bool, Int, Tensor, TensorData};

/// A constant outside autodiff, on the device and of the number type of `like`.
pub(crate) fn constant<const D: usize, const L: usize>(data: TensorData, like: &Tensor<L>) -> Tensor<D> {
    Tensor::from_data(data, (&like.device().inner(), like.dtype()))
}

/// A vector of indices outside autodiff, on the device of `like`.
pub(crate) fn indices<const D: usize, const L: usize>(
    values: impl IntoIterator<Item = usize>,
    shape: [usize; D],
    like: &Tensor<L>,
) -> Tensor<D, Int> {
    let values: Vec<i64> = values.into_iter().map(|value| value as i64).collect();
    Tensor::from_data(TensorData::new(values, shape), &like.device().inner())
}

/// 1 where the mask holds and 0 elsewhere, of the number type of `like` (`Bool::float` would give the default type).
pub(crate) fn ones_where<const D: usize>(mask: Tensor<D, Bool>, like: &Tensor<D>) -> Tensor<D> {
    like.clone().without_autodiff().zeros_like().mask_fill(mask, 1.0)
}

/// Scales each vector of the last axis to unit Euclidean norm; a zero vector stays zero with gradient 0.
pub(crate) fn normalize_last(x: Tensor<3>) -> Tensor<3> {
    let [rows, levels, dim] = x.dims();
    normalize(x.reshape([rows * levels, dim])).reshape([rows, levels, dim])
}

/// The rows of each label, in ascending order of labels and rows.
pub(crate) fn rows_by_label(labels: &[u32]) -> BTreeMap<u32, Vec<usize>> {
    let mut rows: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for (row, &label) in labels.iter().enumerate() {
        rows.entry(label).or_default().push(row);
    }
    rows
}
