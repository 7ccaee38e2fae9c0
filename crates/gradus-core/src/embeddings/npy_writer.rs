//! A matrix that is written to an `.npy` file part by part.

use std::io::Write;

use npyz::{NpyWriter, WriterBuilder};

/// Writes rows of f4 as they come, so that they never stand in memory together.
#[allow(missing_debug_implementations, reason = "a file being written")]
pub struct MatrixWriter<'a> {
    writer: NpyWriter<f32, &'a mut dyn Write>,
}

impl<'a> MatrixWriter<'a> {
    /// Begins a matrix `[rows, width]`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(file: &'a mut dyn Write, rows: usize, width: usize) -> std::io::Result<Self> {
        Self::of_shape(file, &[rows as u64, width as u64])
    }

    /// Begins a vector `[length]`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn vector(file: &'a mut dyn Write, length: usize) -> std::io::Result<Self> {
        Self::of_shape(file, &[length as u64])
    }

    fn of_shape(file: &'a mut dyn Write, shape: &[u64]) -> std::io::Result<Self> {
        let writer = npyz::WriteOptions::<f32>::new()
            .default_dtype()
            .shape(shape)
            .writer(file)
            .begin_nd()?;
        Ok(Self { writer })
    }

    /// Appends values, row-major.
    ///
    /// # Errors
    /// If they cannot be written, or are more than the matrix has.
    pub fn push(&mut self, values: &[f32]) -> std::io::Result<()> {
        self.writer.extend(values.iter().copied())
    }

    /// Ends the matrix.
    ///
    /// # Errors
    /// If values are missing, or the last ones cannot be written.
    pub fn finish(self) -> std::io::Result<()> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::NpyRows;
    use crate::files::write_atomically;

    #[test]
    fn what_was_written_in_parts_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.npy");
        write_atomically(&path, |file| {
            let mut matrix = MatrixWriter::new(file, 3, 2)?;
            matrix.push(&[1.0, 2.0, 3.0])?;
            matrix.push(&[4.0])?;
            matrix.push(&[5.0, 6.0])?;
            matrix.finish()
        })
        .unwrap();
        let (rows, mut values) = (NpyRows::open(&path).unwrap(), Vec::new());
        rows.read(1..3, &mut values).unwrap();
        assert_eq!((rows.dim(), values), (2, vec![3.0, 4.0, 5.0, 6.0]));
    }

    #[test]
    fn a_matrix_that_lacks_values_is_an_error() {
        let mut bytes = Vec::new();
        let mut matrix = MatrixWriter::new(&mut bytes, 2, 2).unwrap();
        matrix.push(&[1.0; 3]).unwrap();
        assert!(matrix.finish().is_err());
    }
}
