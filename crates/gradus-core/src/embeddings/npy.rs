//! NumPy's `.npy`: its header, checked against the file, and how arrays are written.

use std::io::{Read, Seek, SeekFrom, Write};

use npyz::{NpyHeader, Order, WriterBuilder};

use super::element::Element;
use super::{EmbeddingSet, Matrix};

/// No honest header of a matrix comes near this; a lying length is not allocated.
const LONGEST_HEADER: u64 = 1 << 16;

/// What an `.npy` header says.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) shape: Vec<usize>,
    pub(super) element: Element,
    /// The element type as the file writes it.
    pub(super) described: String,
    pub(super) big_endian: bool,
    pub(super) fortran: bool,
    /// Where the elements begin.
    pub(super) start: u64,
}

/// Why a header could not be understood.
pub(super) enum HeaderProblem {
    /// The array is no array of numbers.
    Element(String),
    Damaged(String),
}

impl HeaderProblem {
    pub(super) fn text(self) -> String {
        match self {
            Self::Element(found) => format!(
                "expected floating-point numbers (f2, f4, f8) or integers (i1 to i8, u1 to u8, b1), found the element type {found}"
            ),
            Self::Damaged(problem) => problem,
        }
    }
}

impl Header {
    /// Reads the header of a file of `length` bytes.
    pub(super) fn read(reader: &mut (impl Read + Seek), length: u64) -> Result<Self, HeaderProblem> {
        let damaged = |error: &dyn std::fmt::Display| {
            HeaderProblem::Damaged(format!("not a readable .npy header (truncated or damaged): {error}"))
        };
        check_header_length(reader, length).map_err(HeaderProblem::Damaged)?;
        let header = NpyHeader::from_reader(&mut *reader).map_err(|error| damaged(&error))?;
        let described = header.dtype().descr();
        let known = match header.dtype() {
            npyz::DType::Plain(text) => text.to_string().split_at_checked(1).and_then(|(order, kind)| {
                let big_endian = match order {
                    // One byte has no order.
                    "<" | "|" => false,
                    ">" => true,
                    _ => return None,
                };
                Some((Element::of_numpy(kind)?, big_endian))
            }),
            _ => None,
        };
        let (element, big_endian) = known.ok_or_else(|| HeaderProblem::Element(described.clone()))?;
        let shape = header.shape().iter().map(|&side| usize::try_from(side));
        Ok(Self {
            shape: shape.collect::<Result<_, _>>().map_err(|error| damaged(&error))?,
            element,
            described,
            big_endian,
            fortran: header.order() == Order::Fortran,
            start: reader.stream_position().map_err(|error| damaged(&error))?,
        })
    }

    /// Checks that a file of `length` bytes holds what is promised: before anything is allocated for it.
    pub(super) fn check_promise(&self, length: u64) -> Result<(), String> {
        let count = self
            .shape
            .iter()
            .try_fold(1_u64, |count, &side| count.checked_mul(side as u64));
        let size = self.element.bytes();
        let held = length.saturating_sub(self.start);
        if count.and_then(|count| count.checked_mul(size as u64)) == Some(held) {
            return Ok(());
        }
        let sides: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        Err(format!(
            "the header promises {} values of {size} bytes, but {held} bytes follow it: the file is truncated or damaged",
            sides.join(" x ")
        ))
    }
}

fn check_header_length(file: &mut (impl Read + Seek), length: u64) -> Result<(), String> {
    let mut start = [0_u8; 12];
    let problem = || "not an .npy file: too short or without NumPy's signature".to_owned();
    file.read_exact(&mut start).map_err(|_| problem())?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(problem());
    }
    let text = if start[6] == 1 {
        u64::from(u16::from_le_bytes([start[8], start[9]]))
    } else {
        u64::from(u32::from_le_bytes([start[8], start[9], start[10], start[11]]))
    };
    if text > LONGEST_HEADER || text > length {
        return Err(format!(
            "the header claims to be {text} bytes long in a file of {length}: the file is damaged"
        ));
    }
    file.seek(SeekFrom::Start(0))
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn write<T: npyz::Serialize + npyz::AutoSerialize>(
    shape: &[usize],
    values: impl Iterator<Item = T>,
    file: &mut dyn Write,
) -> std::io::Result<()> {
    let shape: Vec<u64> = shape.iter().map(|&side| side as u64).collect();
    let options = npyz::WriteOptions::<T>::new().default_dtype().shape(&shape);
    let mut writer = options.writer(file).begin_nd()?;
    writer.extend(values)?;
    writer.finish()
}

/// Writes the values alone, `[len, dim]` f4.
pub(super) fn encode(set: &EmbeddingSet, file: &mut dyn Write) -> std::io::Result<()> {
    write(&[set.len(), set.dim], set.values.iter().copied(), file)
}

/// Writes integers as i8, which NumPy takes as an index.
pub(super) fn encode_labels(labels: &[u32], file: &mut dyn Write) -> std::io::Result<()> {
    write(&[labels.len()], labels.iter().map(|&label| i64::from(label)), file)
}

/// Writes a matrix in single or double precision.
pub(super) fn encode_matrix(matrix: &Matrix, file: &mut dyn Write) -> std::io::Result<()> {
    let shape = [matrix.values.len() / matrix.dim.max(1), matrix.dim];
    if matrix.is_double {
        write(&shape, matrix.values.iter().copied(), file)
    } else {
        write(&shape, matrix.values.iter().map(|&value| value as f32), file)
    }
}
