//! Labels and matrices on their own, as NumPy writes them: what `gradus mine` and `gradus loss` read.

use std::path::Path;

use npyz::Order;

use super::EmbeddingFileError;
use super::npy::{Matrix, Raw, Size, decode_column, decode_doubles, encode_labels, encode_matrix, sides};
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

/// Reads what is known of items from an `.npy` file of integers.
///
/// # Errors
/// Those of [`read_labels`]; a matrix of several labels with something else than 0 and 1.
pub fn read_item_labels(path: &Path, kind: LabelKind) -> Result<Labels, EmbeddingFileError> {
    if kind == LabelKind::Classes {
        return Ok(Labels::from(read_labels(path)?));
    }
    let rows = read_label_rows(path)?;
    if kind == LabelKind::Hierarchy {
        return Ok(Labels::Hierarchy(rows.into()));
    }
    let mut all = Vec::with_capacity(rows.len());
    for (at, row) in rows.into_iter().enumerate() {
        if let Some(value) = row.iter().find(|value| **value > 1) {
            return Err(EmbeddingFileError::malformed(
                path,
                format!(
                    "row {at} holds {value}, but a matrix of several labels holds 0 and 1; rows are counted from 0"
                ),
            ));
        }
        let present = (0..).zip(row).filter(|(_, value)| *value == 1);
        all.push(present.map(|(label, _)| label).collect());
    }
    Ok(Labels::MultiLabel(all.into()))
}

/// A matrix of integers, row by row.
fn read_label_rows(path: &Path) -> Result<Vec<Vec<u32>>, EmbeddingFileError> {
    let raw = Raw::read(path, ["rows", "columns"], INTEGERS, Integer::of)?;
    let [rows, columns] = raw.shape.map(|side| side as usize);
    let mut matrix = vec![vec![0; columns]; rows];
    for (at, (integer, bits)) in raw.elements().enumerate() {
        let (row, column) = match raw.order {
            Order::C => (at / columns, at % columns),
            Order::Fortran => (at % rows, at / rows),
        };
        matrix[row][column] = class_number(path, row, integer.value(bits))?;
    }
    Ok(matrix)
}

const INTEGERS: &str = "integer labels (i1, i2, i4, i8, u1, u2, u4 or u8; in NumPy `labels.astype(numpy.int64)`)";

fn class_number(path: &Path, row: usize, value: i128) -> Result<u32, EmbeddingFileError> {
    u32::try_from(value).map_err(|_| {
        let problem = format!(
            "the label of row {row} is {value}, but class numbers go from 0 to {}; rows are counted from 0",
            u32::MAX
        );
        EmbeddingFileError::malformed(path, problem)
    })
}

/// Reads one class number per item from an `.npy` file: a vector of any integer type and byte order, from 0 to 4294967295.
///
/// # Errors
/// A file that is missing, damaged, not a vector or not of integers; a number out of range, with its row.
pub fn read_labels(path: &Path) -> Result<Vec<u32>, EmbeddingFileError> {
    let raw = Raw::read(path, ["rows"], INTEGERS, Integer::of)?;
    let values = raw.elements().enumerate();
    values
        .map(|(row, (integer, bits))| class_number(path, row, integer.value(bits)))
        .collect()
}

/// Reads a matrix `[rows, width]` from an `.npy` file of f2, f4 or f8: its width and its values, row-major, in double
/// precision.
///
/// # Errors
/// A file that is missing, damaged, empty, not a matrix or not of floating-point numbers; a value that is not finite, with its
/// row.
pub fn read_matrix(path: &Path) -> Result<(usize, Vec<f64>), EmbeddingFileError> {
    let matrix = read_precise_matrix(path)?;
    Ok((matrix.dim, matrix.values))
}

/// [`read_matrix`], with the precision of the file.
///
/// # Errors
/// Those of [`read_matrix`].
pub fn read_precise_matrix(path: &Path) -> Result<Matrix, EmbeddingFileError> {
    finite(path, decode_doubles(path)?)
}

/// Reads parameters: a matrix, or a vector as a matrix of one column.
///
/// # Errors
/// Those of [`read_matrix`].
pub fn read_parameters(path: &Path) -> Result<Matrix, EmbeddingFileError> {
    let matrix = if sides(path)? == 1 {
        decode_column(path)?
    } else {
        decode_doubles(path)?
    };
    finite(path, matrix)
}

/// Writes a matrix to an `.npy` file of f4 or f8; the file appears whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_matrix(path: &Path, matrix: &Matrix) -> std::io::Result<()> {
    write_atomically(path, |file| encode_matrix(matrix, file))
}

/// Writes one number per item to an `.npy` file of i8; the file appears whole or not at all. [`read_labels`] reads it back.
///
/// # Errors
/// If the file cannot be written.
pub fn write_labels(path: &Path, labels: &[u32]) -> std::io::Result<()> {
    write_atomically(path, |file| encode_labels(labels, file))
}

fn finite(path: &Path, matrix: Matrix) -> Result<Matrix, EmbeddingFileError> {
    match matrix.values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(EmbeddingFileError::malformed(
            path,
            format!(
                "row {} holds {}, which is not a finite number; rows are counted from 0",
                at / matrix.dim,
                matrix.values[at]
            ),
        )),
        None => Ok(matrix),
    }
}

#[derive(Clone, Copy)]
struct Integer {
    signed: bool,
    bytes: usize,
}

impl Integer {
    fn of(kind: &str) -> Option<Self> {
        let (sign, bytes) = kind.split_at_checked(1)?;
        let signed = match sign {
            "i" => true,
            "u" => false,
            _ => return None,
        };
        let bytes = bytes.parse().ok().filter(|bytes| [1, 2, 4, 8].contains(bytes))?;
        Some(Self { signed, bytes })
    }

    fn value(self, bits: u64) -> i128 {
        if !self.signed {
            return i128::from(bits);
        }
        // Up to the sign bit and back, which fills with it.
        let unused = 64 - 8 * self.bytes as u32;
        i128::from((bits << unused).cast_signed() >> unused)
    }
}

impl Size for Integer {
    fn bytes(self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An `.npy` file of version 1.0 with these bytes.
    fn file(folder: &Path, dtype: &str, shape: &str, bytes: &[u8]) -> std::path::PathBuf {
        let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
        header.push_str(&" ".repeat(117 - header.len()));
        header.push('\n');
        let mut content = b"\x93NUMPY\x01\x00".to_vec();
        content.extend((header.len() as u16).to_le_bytes());
        content.extend(header.as_bytes());
        content.extend(bytes);
        let path = folder.join("file.npy");
        std::fs::write(&path, content).unwrap();
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
        let read = |kind, bytes: &[u8]| read_item_labels(&file(folder.path(), "|u1", "(2, 3)", bytes), kind);
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
}
