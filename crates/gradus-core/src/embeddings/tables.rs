//! Embeddings with what their file says of them: what `gradus evaluate` reads.

use std::path::Path;

use super::array::{Arrays, Role, extension};
use super::labels::labels_of;
use super::matrices::singles;
use super::{EmbeddingFileError, LabelKind, NpyRows, companion, companion_path, parquet, parts};
use crate::relations::Labels;

/// Rows of embeddings and what the same file says of them.
#[derive(Clone, Debug, Default)]
pub struct EmbeddingTable {
    /// Width of a row.
    pub dim: usize,
    /// All rows, row-major; double precision is rounded to single.
    pub values: Vec<f32>,
    /// How the rows are labelled, if the file (or the table beside it) says so.
    pub labels: Option<Labels>,
    /// Names of the rows, if the file says so.
    pub ids: Option<Vec<String>>,
}

/// Reads embeddings and their labels from `.npy`, `.npz`, `.safetensors`, `.parquet` or a folder of `.parquet` parts.
///
/// In `.npz` and `.safetensors` the array is called `embeddings` or is the only matrix of floats, and the labels `labels`; in
/// `.parquet` the columns are `embedding` and `label` (or their plurals). Labels of `.npy` come from the table beside it, where
/// gradus wrote one. `kind` says what the labels are, as in [`read_item_labels`](super::read_item_labels).
///
/// # Errors
/// A file that is missing, truncated, of another kind or without a matrix of floats; labels of another kind.
pub fn read_table(path: &Path, kind: Option<LabelKind>) -> Result<EmbeddingTable, EmbeddingFileError> {
    read(path, |array| labels_of(array, kind).map(Some)).and_then(|table| {
        let is_classes = table.labels.as_ref().is_some_and(|labels| labels.classes().is_some());
        if is_classes && kind.is_some_and(|kind| kind != LabelKind::Classes) {
            let problem = "its labels are one class per row: give labels of another kind in a file of their own";
            return Err(EmbeddingFileError::malformed(path, problem));
        }
        Ok(table)
    })
}

/// [`read_table`] without looking at the labels.
///
/// # Errors
/// Those of [`read_table`] that do not concern labels.
pub fn read_rows(path: &Path) -> Result<EmbeddingTable, EmbeddingFileError> {
    let table = read(path, |_| Ok(None))?;
    Ok(EmbeddingTable { labels: None, ..table })
}

/// Whether a path is `.parquet` or a folder of such parts: embeddings with their classes, instead of arrays of one kind.
pub(super) fn is_table(path: &Path) -> bool {
    path.is_dir() || extension(path) == "parquet"
}

/// The width of the rows; of `.npy` without reading all of them.
///
/// # Errors
/// Those of [`read_rows`].
pub fn read_width(path: &Path) -> Result<usize, EmbeddingFileError> {
    if extension(path) == "npy" {
        return Ok(NpyRows::open(path)?.dim());
    }
    Ok(read_rows(path)?.dim)
}

fn read(
    path: &Path,
    labels: impl FnOnce(&super::array::Array) -> Result<Option<Labels>, String>,
) -> Result<EmbeddingTable, EmbeddingFileError> {
    if path.is_dir() {
        let set = parts::read_all(path)?;
        return Ok(EmbeddingTable {
            dim: set.dim,
            values: set.values,
            labels: Some(set.labels.into()),
            ids: Some(set.ids),
        });
    }
    match extension(path).as_str() {
        "npy" => {
            let rows = NpyRows::open(path)?;
            let mut values = Vec::new();
            rows.read(0..rows.len(), &mut values)?;
            let beside = companion_path(path);
            let (ids, labels) = if companion::is_ours(&beside) {
                let (ids, labels) = companion::read(&beside, path)?;
                (Some(ids), Some(labels.into()))
            } else {
                (None, None)
            };
            Ok(EmbeddingTable {
                dim: rows.dim(),
                values,
                labels,
                ids,
            })
        }
        "npz" | "safetensors" => {
            let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
            let mut arrays = Arrays::read(path)?;
            let embeddings = arrays.take(&Role::EMBEDDINGS)?;
            let labels = arrays.called(Role::LABELS.names).map(labels).transpose();
            let (dim, values) = singles(&embeddings).map_err(malformed)?;
            Ok(EmbeddingTable {
                dim,
                values,
                labels: labels.map_err(malformed)?.flatten(),
                ids: None,
            })
        }
        "parquet" => {
            let set = parquet::decode(path)?;
            Ok(EmbeddingTable {
                dim: set.dim,
                values: set.values,
                labels: Some(set.labels.into()),
                ids: Some(set.ids),
            })
        }
        extension => Err(EmbeddingFileError::UnknownFormat {
            path: path.into(),
            extension: extension.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use safetensors::tensor::Dtype;

    use super::super::tests::npy;
    use super::super::{NpyRows, read_item_labels};
    use super::*;

    const ROWS: [f32; 6] = [1.0, 2.0, 3.0, -4.0, 5.5, 0.25];

    /// [`ROWS`] as `[3, 2]`, or its transpose where columns come first.
    fn bytes(fortran: bool, element: impl Fn(f32) -> Vec<u8>) -> Vec<u8> {
        let order: &[usize] = if fortran {
            &[0, 2, 4, 1, 3, 5]
        } else {
            &[0, 1, 2, 3, 4, 5]
        };
        order.iter().flat_map(|&at| element(ROWS[at])).collect()
    }

    /// Half-precision bits of the numbers in [`ROWS`], which are exact there.
    fn half_bits(value: f32) -> u16 {
        let bits = value.to_bits();
        let exponent = ((bits >> 23) & 0xff) as i32 - 127 + 15;
        (((bits >> 16) & 0x8000) | (exponent as u32) << 10 | (bits >> 13) & 0x3ff) as u16
    }

    #[test]
    fn npy_of_every_kind_is_read_whole_and_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.npy");
        for fortran in [false, true] {
            for (dtype, content) in [
                ("<f4", bytes(fortran, |value| value.to_le_bytes().to_vec())),
                (">f4", bytes(fortran, |value| value.to_be_bytes().to_vec())),
                ("<f8", bytes(fortran, |value| f64::from(value).to_le_bytes().to_vec())),
                (">f8", bytes(fortran, |value| f64::from(value).to_be_bytes().to_vec())),
                ("<f2", bytes(fortran, |value| half_bits(value).to_le_bytes().to_vec())),
                (">f2", bytes(fortran, |value| half_bits(value).to_be_bytes().to_vec())),
            ] {
                std::fs::write(
                    &path,
                    npy(dtype, if fortran { "True" } else { "False" }, "(3, 2)", &content),
                )
                .unwrap();
                let table = read_table(&path, None).unwrap();
                assert_eq!(
                    (table.dim, table.values.as_slice()),
                    (2, &ROWS[..]),
                    "{dtype} {fortran}"
                );
                let rows = NpyRows::open(&path).unwrap();
                let mut values = Vec::new();
                rows.read(1..3, &mut values).unwrap();
                assert_eq!(values, ROWS[2..], "{dtype} {fortran}");
            }
        }
    }

    #[test]
    fn damaged_npy_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.npy");
        let whole = npy("<f4", "False", "(3, 2)", &[0; 24]);
        for (content, word) in [
            (whole[..whole.len() - 1].to_vec(), "truncated"),
            (whole[..40].to_vec(), "damaged"),
            (b"PK\x03\x04".to_vec(), "not an .npy file"),
            (npy("<f4", "False", "(0, 2)", &[]), "no embedding"),
            (npy("<f4", "False", "(6,)", &[0; 24]), "matrix"),
            (npy("<i8", "False", "(3, 1)", &[0; 24]), "floating-point"),
            (npy("<c8", "False", "(3, 1)", &[0; 24]), "element type"),
            (
                npy("<f4", "False", "(4611686018427387904, 4611686018427387904)", &[0; 24]),
                "truncated",
            ),
        ] {
            std::fs::write(&path, content).unwrap();
            let message = read_table(&path, None).unwrap_err().to_string();
            assert!(message.contains(word) && message.contains("e.npy"), "{word}: {message}");
        }
    }

    #[test]
    fn npz_safetensors_and_parquet_bring_their_labels() {
        let folder = tempfile::tempdir().unwrap();
        let values = bytes(false, |value| value.to_le_bytes().to_vec());
        let labels: Vec<u8> = [5_i64, 5, 9].iter().flat_map(|label| label.to_le_bytes()).collect();
        let npz = folder.path().join("e.npz");
        for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
            let mut archive = zip::ZipWriter::new(File::create(&npz).unwrap());
            let options = zip::write::SimpleFileOptions::default().compression_method(method);
            archive.start_file("labels.npy", options).unwrap();
            archive.write_all(&npy("<i8", "False", "(3,)", &labels)).unwrap();
            archive.start_file("arr_0.npy", options).unwrap();
            archive.write_all(&npy("<f4", "False", "(3, 2)", &values)).unwrap();
            archive.finish().unwrap();
            let table = read_table(&npz, None).unwrap();
            assert_eq!((table.dim, table.values.as_slice()), (2, &ROWS[..]));
            assert_eq!(table.labels, Some(Labels::from(vec![5, 5, 9])));
            assert_eq!(read_item_labels(&npz, None).unwrap(), Labels::from(vec![5, 5, 9]));
        }
        let mut cut = std::fs::read(&npz).unwrap();
        cut.truncate(cut.len() / 2);
        std::fs::write(&npz, cut).unwrap();
        assert!(read_table(&npz, None).unwrap_err().to_string().contains(".npz"));

        let tensors = folder.path().join("e.safetensors");
        let view =
            |dtype, shape: &[usize], bytes| safetensors::tensor::TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
        let brain = bytes(false, |value| ((value.to_bits() >> 16) as u16).to_le_bytes().to_vec());
        for (dtype, content) in [(Dtype::F32, &values), (Dtype::BF16, &brain)] {
            let all = [
                ("embeddings", view(dtype, &[3, 2], content)),
                ("labels", view(Dtype::I64, &[3], &labels)),
            ];
            std::fs::write(&tensors, safetensors::serialize(all, None).unwrap()).unwrap();
            let table = read_table(&tensors, None).unwrap();
            assert_eq!(table.values, ROWS, "{dtype:?}");
            assert_eq!(table.labels, Some(Labels::from(vec![5, 5, 9])));
        }
        let set = crate::EmbeddingSet {
            dim: 2,
            values: ROWS.to_vec(),
            labels: vec![5, 5, 9],
            ids: ["a", "b", "c"].map(String::from).to_vec(),
        };
        let columns = folder.path().join("e.parquet");
        crate::embeddings::write(&set, &columns).unwrap();
        let table = read_table(&columns, None).unwrap();
        assert_eq!((table.dim, table.values, table.ids), (2, set.values, Some(set.ids)));
        assert!(
            read_table(Path::new("e.txt"), None)
                .unwrap_err()
                .to_string()
                .contains("txt")
        );
    }
}
