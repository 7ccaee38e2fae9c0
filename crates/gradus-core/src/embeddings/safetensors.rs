//! safetensors: tensors `embeddings` (f32 `[len, dim]`) and `labels` (i64 `[len]`).

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

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
    let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
    let bytes = std::fs::read(path).map_err(EmbeddingFileError::read(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        malformed(format!(
            "not a readable safetensors file (truncated or damaged): {error}"
        ))
    })?;
    let tensor = |name: &str, dtype: Dtype| {
        let tensor = file.tensor(name).map_err(|_| {
            let mut names: Vec<&str> = file.names().into_iter().collect();
            names.sort_unstable();
            names.truncate(8);
            malformed(format!(
                "expected the tensors embeddings and labels, found {}",
                names.join(", ")
            ))
        })?;
        if tensor.dtype() != dtype {
            return Err(malformed(format!(
                "expected the tensor {name} as {dtype:?}, found {:?}",
                tensor.dtype()
            )));
        }
        Ok(tensor)
    };
    let (embeddings, labels) = (tensor("embeddings", Dtype::F32)?, tensor("labels", Dtype::I64)?);
    let (&[rows, dim], &[label_count]) = (embeddings.shape(), labels.shape()) else {
        return Err(malformed(format!(
            "expected embeddings [rows, width] and labels [rows], found the shapes {:?} and {:?}",
            embeddings.shape(),
            labels.shape()
        )));
    };
    if rows != label_count || rows == 0 || dim == 0 {
        return Err(malformed(format!(
            "expected a label for each of at least one row, found {rows} rows of width {dim} and {label_count} labels"
        )));
    }
    let values = embeddings
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&bytes| f32::from_le_bytes(bytes))
        .collect();
    let labels = labels
        .data()
        .as_chunks::<8>()
        .0
        .iter()
        .map(|&bytes| i64::from_le_bytes(bytes));
    let labels = labels
        .enumerate()
        .map(|(row, label)| {
            u32::try_from(label)
                .map_err(|_| malformed(format!("the label of row {row} is {label}; expected 0 to {}", u32::MAX)))
        })
        .collect::<Result<_, _>>()?;
    Ok((dim, values, labels))
}
