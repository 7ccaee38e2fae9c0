//! Matrices of numbers in files.

use std::path::Path;

use super::EmbeddingFileError;
use super::array::{Array, Role};
use super::npy::encode_matrix;
use super::tables::{is_table, read_rows};
use crate::files::write_atomically;

/// Numbers in rows, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Width of a row.
    pub dim: usize,
    /// The numbers.
    pub values: Vec<f64>,
    /// Whether they are in double precision in the file.
    pub is_double: bool,
}

/// Reads embeddings `[rows, width]` of floats from `.npy`, `.npz`, `.safetensors`, `.parquet` or a folder of `.parquet` parts:
/// their width and their values, row-major, in double precision.
///
/// Among several arrays in a file, the one called `embeddings` is read, or the only matrix of floats.
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
    let malformed = |problem| EmbeddingFileError::malformed(path, problem);
    if is_table(path) {
        let table = read_rows(path)?;
        let values: Vec<f64> = table.values.into_iter().map(f64::from).collect();
        return of_finite(table.dim, values, false).map_err(malformed);
    }
    let array = Array::read(path, &Role::EMBEDDINGS)?;
    finite(&array).map_err(malformed)
}

/// Reads parameters: a matrix, or a vector as a matrix of one column.
///
/// Among several arrays in a file, the one called `parameters` is read.
///
/// # Errors
/// Those of [`read_matrix`].
pub fn read_parameters(path: &Path) -> Result<Matrix, EmbeddingFileError> {
    let array = column(Array::read(path, &Role::named(&["parameters"]))?);
    finite(&array).map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

/// Reads a matrix of numbers, floats or integers, in single precision; a vector is one column.
///
/// Among several arrays in a file, the one called `factors` is read.
///
/// # Errors
/// A file that is missing, truncated or holds something else.
pub fn read_factors(path: &Path) -> Result<(usize, Vec<f32>), EmbeddingFileError> {
    let array = column(Array::read(path, &Role::named(&["factors", "factor"]))?);
    singles(&array).map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

/// Writes a matrix to an `.npy` file of f4 or f8; the file appears whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_matrix(path: &Path, matrix: &Matrix) -> std::io::Result<()> {
    write_atomically(path, |file| encode_matrix(matrix, file))
}

/// A vector as a matrix of one column.
fn column(mut array: Array) -> Array {
    if array.shape.len() == 1 {
        array.shape.push(1);
    }
    array
}

/// Width and numbers of a matrix of any element type.
pub(super) fn singles(array: &Array) -> Result<(usize, Vec<f32>), String> {
    let dim = filled(array)?;
    Ok((dim, array.singles()))
}

/// The width of a matrix that is not empty.
fn filled(array: &Array) -> Result<usize, String> {
    let [rows, dim] = array.sides()?;
    if rows == 0 || dim == 0 {
        return Err(format!("holds no embedding or number (shape {rows} x {dim})"));
    }
    Ok(dim)
}

fn finite(array: &Array) -> Result<Matrix, String> {
    if !array.element.is_float() {
        return Err(format!(
            "expected floating-point numbers (f2, f4 or f8; in NumPy `embeddings.astype(numpy.float32)`), found {}",
            array.described
        ));
    }
    let dim = filled(array)?;
    of_finite(dim, array.numbers().collect(), array.element.bytes() == 8)
}

fn of_finite(dim: usize, values: Vec<f64>, is_double: bool) -> Result<Matrix, String> {
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return Err(format!(
            "row {} holds {}, which is not a finite number; rows are counted from 0",
            at / dim,
            values[at]
        ));
    }
    Ok(Matrix { dim, values, is_double })
}
