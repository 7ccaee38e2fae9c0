//! What is known of items, in files: classes, several labels, levels of a hierarchy.

use std::path::Path;

use super::EmbeddingFileError;
use super::array::{Array, Role};
use super::element::Element;
use super::npy::encode_labels;
use super::tables::{is_table, read_table};
use crate::files::write_atomically;
use crate::relations::Labels;

/// What a file of labels says of every item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LabelKind {
    /// One class: a vector `[rows]`.
    #[default]
    Classes,
    /// Any number of labels: a matrix `[rows, labels]` of 0 and 1.
    MultiLabel,
    /// Classes from the coarsest level to the finest: a matrix `[rows, levels]`.
    Hierarchy,
}

/// Reads what is known of items from integers in `.npy`, `.npz` or `.safetensors`, or the classes of the embeddings in `.parquet` or a
/// folder of `.parquet` parts.
///
/// Without a `kind`, a vector is one class per item and a matrix of 0 and 1 several labels. Among several arrays in a file, the
/// one called `labels` is read, or the only one of integers.
///
/// # Errors
/// A file that is missing, damaged, or not of integers; an array of another shape than `kind` says; a class number out of range
/// or, where there are several labels, something else than 0 and 1, with its row.
pub fn read_item_labels(path: &Path, kind: Option<LabelKind>) -> Result<Labels, EmbeddingFileError> {
    if is_table(path) {
        let labels = read_table(path, kind)?.labels;
        return labels.ok_or_else(|| EmbeddingFileError::malformed(path, "it has no labels"));
    }
    let array = Array::read(path, &Role::LABELS)?;
    labels_of(&array, kind).map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

/// Reads one class number per item from `.npy`, `.npz` or `.safetensors`: a vector of any integer type, from 0 to 4294967295; or
/// the classes of the embeddings in `.parquet` or a folder of `.parquet` parts.
///
/// Among several arrays in a file, the one called `labels` is read, or the only one of integers.
///
/// # Errors
/// A file that is missing, damaged, not a vector or not of integers; a number out of range, with its row.
pub fn read_labels(path: &Path) -> Result<Vec<u32>, EmbeddingFileError> {
    if is_table(path) {
        let labels = read_item_labels(path, Some(LabelKind::Classes))?;
        let classes = labels.classes().map(|classes| classes.to_vec());
        return classes.ok_or_else(|| EmbeddingFileError::malformed(path, "it has no classes"));
    }
    read_classes(path, &Role::LABELS)
}

/// Reads the camera of every item, as [`read_labels`] reads classes; among several arrays, the one called `cameras`.
///
/// # Errors
/// Those of [`read_labels`].
pub fn read_cameras(path: &Path) -> Result<Vec<u32>, EmbeddingFileError> {
    read_classes(path, &Role::named(&["cameras", "camera"]))
}

/// Reads the category of every item, as [`read_labels`] reads classes; among several arrays, the one called `categories`.
///
/// # Errors
/// Those of [`read_labels`].
pub fn read_categories(path: &Path) -> Result<Vec<u32>, EmbeddingFileError> {
    read_classes(path, &Role::named(&["categories", "category"]))
}

/// Reads the cluster of every item, as [`read_labels`] reads classes; among several arrays, the one called `clusters`.
///
/// # Errors
/// Those of [`read_labels`].
pub fn read_clusters(path: &Path) -> Result<Vec<u32>, EmbeddingFileError> {
    read_classes(path, &Role::named(&["clusters", "cluster"]))
}

fn read_classes(path: &Path, role: &Role) -> Result<Vec<u32>, EmbeddingFileError> {
    let classes = Array::read(path, role).map(|array| integers(&array).and_then(|()| classes(&array)))?;
    classes.map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

/// Writes one number per item to an `.npy` file of i8; the file appears whole or not at all. [`read_labels`] reads it back.
///
/// # Errors
/// If the file cannot be written.
pub fn write_labels(path: &Path, labels: &[u32]) -> std::io::Result<()> {
    write_atomically(path, |file| encode_labels(labels, file))
}

/// What an array of labels says.
pub(super) fn labels_of(array: &Array, kind: Option<LabelKind>) -> Result<Labels, String> {
    // Truth values are labels of a matrix; a vector of them is two classes only where nothing else is said.
    if array.element != Element::Bool || kind == Some(LabelKind::Classes) {
        integers(array)?;
    }
    match (kind, array.shape.len()) {
        (Some(LabelKind::Classes), _) | (None, 1) => Ok(classes(array)?.into()),
        (Some(LabelKind::Hierarchy), _) => levels(array),
        (Some(LabelKind::MultiLabel), _) | (None, 2) => several(array, kind.is_some()),
        (None, _) => Err(format!(
            "expected labels [rows], or 0 and 1 [rows, labels], found the shape {:?}",
            array.shape
        )),
    }
}

fn integers(array: &Array) -> Result<(), String> {
    match array.element {
        Element::Integer { .. } => Ok(()),
        _ => Err(format!(
            "expected integer labels (i1, i2, i4, i8, u1, u2, u4 or u8; in NumPy `labels.astype(numpy.int64)`), found {}",
            array.described
        )),
    }
}

pub(super) fn classes(array: &Array) -> Result<Vec<u32>, String> {
    if array.shape.len() != 1 {
        return Err(format!("expected a vector [rows], found the shape {:?}", array.shape));
    }
    let numbers = array.integers().enumerate();
    numbers.map(|(row, value)| class_number(row, value)).collect()
}

fn levels(array: &Array) -> Result<Labels, String> {
    let columns = columns(array)?;
    let mut all = Vec::with_capacity(array.shape[0]);
    for (at, value) in array.integers().enumerate() {
        if at % columns == 0 {
            all.push(Vec::with_capacity(columns));
        }
        all[at / columns].push(class_number(at / columns, value)?);
    }
    Ok(Labels::Hierarchy(all.into()))
}

/// Labels present; what a matrix means is explained where nobody said it.
fn several(array: &Array, said: bool) -> Result<Labels, String> {
    let columns = columns(array)?;
    let mut all = vec![Vec::new(); array.shape[0]];
    for (at, value) in array.integers().enumerate() {
        let (row, column) = (at / columns, at % columns);
        match value {
            0 => {}
            1 => all[row].push(column as u32),
            _ if said => {
                return Err(format!(
                    "row {row} holds {value}, but a matrix of several labels holds 0 and 1; rows are counted from 0"
                ));
            }
            _ => {
                return Err(format!(
                    "labels in two dimensions mean several labels per row, 0 or 1 each, but row {row} column {column} is \
                     {value}; for one class per row give a vector, and for levels of a hierarchy say that they are"
                ));
            }
        }
    }
    Ok(Labels::MultiLabel(all.into()))
}

/// Columns of a matrix of labels; with none, the number of rows would be an empty promise.
fn columns(array: &Array) -> Result<usize, String> {
    let [rows, columns] = array.sides()?;
    if columns == 0 {
        return Err(format!("holds no label (shape {rows} x {columns})"));
    }
    Ok(columns)
}

fn class_number(row: usize, value: i128) -> Result<u32, String> {
    u32::try_from(value).map_err(|_| {
        format!(
            "the label of row {row} is {value}, but class numbers go from 0 to {}; rows are counted from 0",
            u32::MAX
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::read_matrix;
    use super::super::tests::npy;
    use super::*;

    /// An `.npy` file with these bytes.
    fn file(folder: &Path, dtype: &str, shape: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = folder.join("file.npy");
        std::fs::write(&path, npy(dtype, "False", shape, bytes)).unwrap();
        path
    }

    #[test]
    fn integers_of_every_type_are_labels() {
        let folder = tempfile::tempdir().unwrap();
        let read = |dtype, bytes: &[u8]| read_labels(&file(folder.path(), dtype, "(2,)", bytes));
        for (dtype, bytes, expected) in [
            ("|u1", vec![7, 200], [7, 200]),
            ("|i1", vec![7, 100], [7, 100]),
            ("<i2", vec![1, 2, 0, 1], [513, 256]),
            (">u2", vec![1, 2, 255, 0], [258, 65_280]),
            (">i4", vec![0, 0, 1, 0, 0, 0, 0, 9], [256, 9]),
            ("<u4", vec![255; 8], [u32::MAX, u32::MAX]),
            ("<i8", vec![5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0], [5, 256]),
            (">u8", vec![0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4], [3, 4]),
        ] {
            assert_eq!(read(dtype, &bytes).unwrap(), expected, "{dtype}");
        }
        let message = read("<i4", &[0, 0, 0, 0, 255, 255, 255, 255]).unwrap_err().to_string();
        assert!(
            message.contains("row 1 is -1") && message.contains("file.npy"),
            "{message}"
        );
        let message = read("<u8", &[255; 16]).unwrap_err().to_string();
        assert!(message.contains("row 0 is 18446744073709551615"), "{message}");
    }

    #[test]
    fn several_labels_and_levels_are_matrices() {
        let folder = tempfile::tempdir().unwrap();
        let read = |kind, bytes: &[u8]| read_item_labels(&file(folder.path(), "|u1", "(2, 3)", bytes), Some(kind));
        let several = Labels::MultiLabel(vec![vec![0, 2], vec![]].into());
        assert_eq!(read(LabelKind::MultiLabel, &[1, 0, 1, 0, 0, 0]).unwrap(), several);
        let levels = Labels::Hierarchy(vec![vec![1, 4, 9], vec![1, 5, 3]].into());
        assert_eq!(read(LabelKind::Hierarchy, &[1, 4, 9, 1, 5, 3]).unwrap(), levels);
        let message = read(LabelKind::MultiLabel, &[1, 0, 1, 0, 2, 0])
            .unwrap_err()
            .to_string();
        assert!(message.contains("row 1 holds 2"), "{message}");
        assert!(
            read(LabelKind::Classes, &[0; 6])
                .unwrap_err()
                .to_string()
                .contains("a vector")
        );
    }

    #[test]
    fn labels_are_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.npy");
        for labels in [vec![3, 0, u32::MAX], Vec::new()] {
            write_labels(&path, &labels).unwrap();
            assert_eq!(read_labels(&path).unwrap(), labels);
        }
    }

    #[test]
    fn other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let labels = |dtype, shape, bytes: &[u8]| {
            read_labels(&file(folder.path(), dtype, shape, bytes))
                .unwrap_err()
                .to_string()
        };
        let message = labels("<f8", "(2,)", &[0; 16]);
        assert!(
            message.contains("integer labels") && message.contains("f8"),
            "{message}"
        );
        assert!(labels("|b1", "(2,)", &[0; 2]).contains("integer labels"));
        assert!(labels("<i4", "(2, 1)", &[0; 8]).contains("[2, 1]"));
        assert!(labels("<i4", "(3,)", &[0; 8]).contains("truncated"));
        assert!(labels("<i4", "()", &[0; 4]).contains("[]"));
        let path = file(folder.path(), "<i8", "(0,)", &[]);
        assert!(read_labels(&path).unwrap().is_empty());
        let mut bytes = vec![0; 24];
        bytes.extend(f64::NAN.to_le_bytes());
        let message = read_matrix(&file(folder.path(), "<f8", "(2, 2)", &bytes))
            .unwrap_err()
            .to_string();
        assert!(message.contains("row 1 holds NaN"), "{message}");
        let (dim, values) = read_matrix(&file(folder.path(), "<f8", "(1, 3)", &bytes[..24])).unwrap();
        assert_eq!((dim, values), (3, vec![0.0; 3]));
        let message = read_matrix(&file(folder.path(), "<i8", "(1, 3)", &bytes[..24]))
            .unwrap_err()
            .to_string();
        assert!(message.contains("floating-point"), "{message}");
        assert!(
            read_labels(&folder.path().join("nowhere.npy"))
                .unwrap_err()
                .to_string()
                .contains("nowhere")
        );
    }

    #[test]
    fn labels_of_one_and_of_several() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.npy");
        let read = |content: Vec<u8>| {
            std::fs::write(&path, content).unwrap();
            read_item_labels(&path, None).map_err(|error| error.to_string())
        };
        assert_eq!(
            read(npy(">u2", "False", "(2,)", &[1, 0, 0, 3])).unwrap(),
            Labels::from(vec![256, 3])
        );
        let several = Labels::MultiLabel(vec![vec![0, 2], vec![], vec![1]].into());
        assert_eq!(
            read(npy("|u1", "False", "(3, 3)", &[1, 0, 1, 0, 0, 0, 0, 1, 0])).unwrap(),
            several
        );
        assert_eq!(
            read(npy("|b1", "True", "(3, 3)", &[1, 0, 0, 0, 0, 1, 1, 0, 0])).unwrap(),
            several
        );
        assert!(
            read(npy("|u1", "False", "(1, 2)", &[1, 7]))
                .unwrap_err()
                .contains("row 0 column 1 is 7")
        );
        assert!(
            read(npy("|i1", "False", "(2,)", &[1, 255]))
                .unwrap_err()
                .contains("row 1 is -1")
        );
        assert!(
            read(npy("<f4", "False", "(1,)", &[0; 4]))
                .unwrap_err()
                .contains("integer labels")
        );
    }
}
