//! safetensors: tensors `embeddings` (f32 `[len, dim]`) and `labels` (i64 `[len]`).

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use super::array::Arrays;
use super::element::Element;
use super::labels::classes;
use super::{EmbeddingFileError, EmbeddingSet};

pub(super) fn encode(set: &EmbeddingSet, file: &mut dyn Write) -> std::io::Result<()> {
    let values: Vec<u8> = set.values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let labels: Vec<u8> = set
        .labels
        .iter()
        .flat_map(|&label| i64::from(label).to_le_bytes())
        .collect();
    let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).map_err(std::io::Error::other);
    let tensors = [
        ("embeddings", view(Dtype::F32, vec![set.len(), set.dim], &values)?),
        ("labels", view(Dtype::I64, vec![set.len()], &labels)?),
    ];
    // One entry only: with more, their order (and so the bytes of the file) would change from run to run.
    let metadata = HashMap::from([("dim".to_owned(), set.dim.to_string())]);
    let bytes = safetensors::serialize(tensors, Some(metadata)).map_err(std::io::Error::other)?;
    file.write_all(&bytes)
}

/// Width, values and labels.
pub(super) fn decode(path: &Path) -> Result<(usize, Vec<f32>, Vec<u32>), EmbeddingFileError> {
    let arrays = Arrays::read(path)?;
    content(&arrays).map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

fn content(arrays: &Arrays<'_>) -> Result<(usize, Vec<f32>, Vec<u32>), String> {
    let tensor = |name: &str, element: Element, dtype: Dtype| {
        let array = arrays
            .called(&[name])
            .ok_or_else(|| format!("expected the tensors embeddings and labels, found {}", arrays.found()))?;
        if array.element != element {
            return Err(format!(
                "expected the tensor {name} as {dtype:?}, found {}",
                array.described
            ));
        }
        Ok(array)
    };
    let long = Element::Integer { signed: true, bytes: 8 };
    let embeddings = tensor("embeddings", Element::Float(4), Dtype::F32)?;
    let labels = tensor("labels", long, Dtype::I64)?;
    let (&[rows, dim], &[label_count]) = (&embeddings.shape[..], &labels.shape[..]) else {
        return Err(format!(
            "expected embeddings [rows, width] and labels [rows], found the shapes {:?} and {:?}",
            embeddings.shape, labels.shape
        ));
    };
    if rows != label_count || rows == 0 || dim == 0 {
        return Err(format!(
            "expected a label for each of at least one row, found {rows} rows of width {dim} and {label_count} labels"
        ));
    }
    Ok((dim, embeddings.singles(), classes(labels)?))
}
