//! The rows of an `.npy` file that stays where it is.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::EmbeddingFileError;
use super::npy::{Header, HeaderProblem};
use crate::files::read_exact_at;

/// A matrix of floats in an `.npy` file that stays there: rows are read where they are needed, from any number of threads.
///
/// Positioned reads do what a memory map would do, without `unsafe` and with an error, not a signal, when the file shrinks.
#[derive(Debug)]
pub struct NpyRows {
    path: PathBuf,
    file: File,
    header: Header,
}

impl NpyRows {
    /// Opens a matrix `[rows, width]` of f2, f4 or f8.
    ///
    /// # Errors
    /// A file that is missing, truncated, empty, or no matrix of floats.
    pub fn open(path: &Path) -> Result<Self, EmbeddingFileError> {
        let file = File::open(path).map_err(EmbeddingFileError::read(path))?;
        let length = file.metadata().map_err(EmbeddingFileError::read(path))?.len();
        let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
        let header = Header::read(&mut BufReader::new(&file), length)
            .map_err(HeaderProblem::text)
            .map_err(malformed)?;
        if !header.element.is_float() {
            return Err(malformed(format!(
                "expected floating-point numbers (f2, f4 or f8), found {}: convert them with `.astype(numpy.float32)`",
                header.described
            )));
        }
        let [rows, dim] = header.shape[..] else {
            return Err(malformed(format!(
                "expected a matrix [rows, width], found the shape {:?}",
                header.shape
            )));
        };
        if rows == 0 || dim == 0 {
            return Err(malformed(format!("holds no embedding (shape {rows} x {dim})")));
        }
        header.check_promise(length).map_err(malformed)?;
        Ok(Self {
            path: path.into(),
            file,
            header,
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.header.shape[0]
    }

    /// Whether there is no row (never the case for a file that was opened).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Width of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.header.shape[1]
    }

    /// Reads the rows `rows` into `values`, row-major.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Panics
    /// If there are no such rows.
    pub fn read(&self, rows: Range<usize>, values: &mut Vec<f32>) -> Result<(), EmbeddingFileError> {
        let (len, dim, element) = (self.len(), self.dim(), self.header.element);
        assert!(rows.start <= rows.end && rows.end <= len, "rows {rows:?} of {len}");
        let size = element.bytes();
        values.clear();
        values.resize(rows.len() * dim, 0.0);
        // A part at a time, so that the bytes never stand in memory beside all the numbers.
        const PART: usize = 1 << 20;
        let mut bytes = Vec::new();
        if self.header.fortran {
            let part = (PART / size).max(1);
            for column in 0..dim {
                for first in (rows.start..rows.end).step_by(part) {
                    let some = first..(first + part).min(rows.end);
                    bytes.resize(some.len() * size, 0);
                    self.read_at((column * len + some.start) * size, &mut bytes)?;
                    for (row, element_bytes) in some.zip(bytes.chunks_exact(size)) {
                        values[(row - rows.start) * dim + column] =
                            element.number(element_bytes, self.header.big_endian) as f32;
                    }
                }
            }
        } else {
            let total = rows.len() * dim;
            let part = (PART / size).max(1);
            for first in (0..total).step_by(part) {
                let some = first..(first + part).min(total);
                bytes.resize(some.len() * size, 0);
                self.read_at((rows.start * dim + first) * size, &mut bytes)?;
                element.singles(&bytes, self.header.big_endian, &mut values[some]);
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<(), EmbeddingFileError> {
        let offset = self.header.start + offset as u64;
        read_exact_at(&self.file, bytes, offset).map_err(EmbeddingFileError::read(&self.path))
    }
}
