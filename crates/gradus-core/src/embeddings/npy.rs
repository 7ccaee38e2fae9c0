//! NumPy's `.npy`: the values alone, `[len, dim]`.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use npyz::{NpyHeader, Order, WriterBuilder};

use super::{EmbeddingFileError, EmbeddingSet};

/// No honest header of a matrix comes near this; a lying length is not allocated.
const LONGEST_HEADER: u64 = 1 << 16;

pub(super) fn encode(set: &EmbeddingSet, file: &mut dyn Write) -> std::io::Result<()> {
    let shape = [set.len() as u64, set.dim as u64];
    let mut writer = npyz::WriteOptions::<f32>::new()
        .default_dtype()
        .shape(&shape)
        .writer(file)
        .begin_nd()?;
    writer.extend(set.values.iter().copied())?;
    writer.finish()
}

/// Width and values, row-major.
pub(super) fn decode(path: &Path) -> Result<(usize, Vec<f32>), EmbeddingFileError> {
    let matrix = decode_doubles(path)?;
    let values = matrix.values.into_iter().map(|value| value as f32).collect();
    Ok((matrix.dim, values))
}

/// Width and values, row-major, in double precision.
pub(super) fn decode_doubles(path: &Path) -> Result<Matrix, EmbeddingFileError> {
    let raw = Raw::read(path, ["rows", "width"], FLOATS, Width::of)?;
    let [rows, dim] = raw.shape;
    if raw.bytes.is_empty() {
        let problem = format!("holds no embedding (shape {rows} x {dim})");
        return Err(EmbeddingFileError::malformed(path, problem));
    }
    let (rows, dim) = (rows as usize, dim as usize);
    let stored: Vec<f64> = raw.elements().map(|(width, bits)| width.value(bits)).collect();
    let values = match raw.order {
        Order::C => stored,
        Order::Fortran => (0..rows * dim).map(|at| stored[(at % dim) * rows + at / dim]).collect(),
    };
    Ok(Matrix {
        dim,
        values,
        is_double: matches!(raw.width, Width::Double),
    })
}

/// A vector as a matrix of one column, in double precision.
pub(super) fn decode_column(path: &Path) -> Result<Matrix, EmbeddingFileError> {
    let raw = Raw::read(path, ["rows"], FLOATS, Width::of)?;
    if raw.bytes.is_empty() {
        return Err(EmbeddingFileError::malformed(path, "holds no number"));
    }
    Ok(Matrix {
        dim: 1,
        values: raw.elements().map(|(width, bits)| width.value(bits)).collect(),
        is_double: matches!(raw.width, Width::Double),
    })
}

/// Number of sides of the array in a file.
pub(super) fn sides(path: &Path) -> Result<usize, EmbeddingFileError> {
    let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
    let mut file = BufReader::new(File::open(path).map_err(EmbeddingFileError::read(path))?);
    let length = file.get_ref().metadata().map_err(EmbeddingFileError::read(path))?.len();
    check_header_length(&mut file, length).map_err(&malformed)?;
    let header = NpyHeader::from_reader(&mut file);
    header
        .map(|header| header.shape().len())
        .map_err(|error| malformed(format!("not a readable .npy header: {error}")))
}

/// Writes integers as i8, which NumPy takes as an index.
pub(super) fn encode_labels(labels: &[u32], file: &mut dyn Write) -> std::io::Result<()> {
    let mut writer = npyz::WriteOptions::<i64>::new()
        .default_dtype()
        .shape(&[labels.len() as u64])
        .writer(file)
        .begin_nd()?;
    writer.extend(labels.iter().map(|&label| i64::from(label)))?;
    writer.finish()
}

/// Writes a matrix in single or double precision.
pub(super) fn encode_matrix(matrix: &Matrix, file: &mut dyn Write) -> std::io::Result<()> {
    let rows = matrix.values.len() / matrix.dim.max(1);
    let shape = [rows as u64, matrix.dim as u64];
    if matrix.is_double {
        let options = npyz::WriteOptions::<f64>::new().default_dtype().shape(&shape);
        let mut writer = options.writer(file).begin_nd()?;
        writer.extend(matrix.values.iter().copied())?;
        writer.finish()
    } else {
        let options = npyz::WriteOptions::<f32>::new().default_dtype().shape(&shape);
        let mut writer = options.writer(file).begin_nd()?;
        writer.extend(matrix.values.iter().map(|&value| value as f32))?;
        writer.finish()
    }
}

const FLOATS: &str = "floating-point numbers (f2, f4 or f8; in NumPy `embeddings.astype(numpy.float32)`)";

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

/// The elements of an array as they lie in the file, checked to be there.
pub(super) struct Raw<W, const SIDES: usize> {
    pub(super) shape: [u64; SIDES],
    pub(super) order: Order,
    width: W,
    size: usize,
    big_endian: bool,
    bytes: Vec<u8>,
}

/// An element type: what its bits mean is its own affair.
pub(super) trait Size: Copy {
    /// Bytes of an element.
    fn bytes(self) -> usize;
}

impl<W: Size, const SIDES: usize> Raw<W, SIDES> {
    /// Reads an array of the named sides whose element type (such as `f4`, without the byte order) `width` accepts.
    pub(super) fn read(
        path: &Path,
        sides: [&str; SIDES],
        expected: &str,
        width: impl Fn(&str) -> Option<W>,
    ) -> Result<Self, EmbeddingFileError> {
        let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
        let mut file = BufReader::new(File::open(path).map_err(EmbeddingFileError::read(path))?);
        let length = file.get_ref().metadata().map_err(EmbeddingFileError::read(path))?.len();
        check_header_length(&mut file, length).map_err(&malformed)?;
        let header = NpyHeader::from_reader(&mut file)
            .map_err(|error| malformed(format!("not a readable .npy header: {error}")))?;
        let (width, big_endian) = element(&header.dtype(), width)
            .ok_or_else(|| malformed(format!("expected {expected}, found {}", header.dtype().descr())))?;
        let size = width.bytes();
        let shape = <[u64; SIDES]>::try_from(header.shape()).map_err(|_| {
            let kind = if SIDES == 2 { "a matrix" } else { "a vector" };
            let (sides, found) = (sides.join(", "), header.shape());
            malformed(format!("expected {kind} [{sides}], found the shape {found:?}"))
        })?;
        let start = file.stream_position().map_err(EmbeddingFileError::read(path))?;
        // What the header promises has to be there before anything is allocated for it.
        let count = shape.iter().try_fold(1_u64, |count, &side| count.checked_mul(side));
        let promised = count.and_then(|count| count.checked_mul(size as u64));
        let held = length.saturating_sub(start);
        if promised != Some(held) {
            let sides = shape.map(|side| side.to_string());
            return Err(malformed(format!(
                "the header promises {} values of {size} bytes, but {held} bytes follow it: the file is truncated or damaged",
                sides.join(" x ")
            )));
        }
        let mut bytes = Vec::with_capacity(held as usize);
        file.take(held)
            .read_to_end(&mut bytes)
            .map_err(EmbeddingFileError::read(path))?;
        if bytes.len() as u64 != held {
            return Err(malformed("the file became shorter while it was read".into()));
        }
        Ok(Self {
            shape,
            order: header.order(),
            width,
            size,
            big_endian,
            bytes,
        })
    }

    /// The bits of each element, in the order of the file.
    pub(super) fn elements(&self) -> impl Iterator<Item = (W, u64)> + '_ {
        self.bytes.chunks_exact(self.size).map(|bytes| {
            let mut raw = [0_u8; 8];
            for (at, &byte) in bytes.iter().enumerate() {
                raw[if self.big_endian { bytes.len() - 1 - at } else { at }] = byte;
            }
            (self.width, u64::from_le_bytes(raw))
        })
    }
}

/// The accepted element type and whether it is big-endian; one byte has no order.
fn element<W>(dtype: &npyz::DType, width: impl Fn(&str) -> Option<W>) -> Option<(W, bool)> {
    let npyz::DType::Plain(text) = dtype else { return None };
    let text = text.to_string();
    let (order, kind) = text.split_at_checked(1)?;
    let big_endian = match order {
        "<" | "|" => false,
        ">" => true,
        _ => return None,
    };
    Some((width(kind)?, big_endian))
}

pub(super) fn check_header_length(file: &mut (impl Read + Seek), length: u64) -> Result<(), String> {
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

#[derive(Clone, Copy)]
enum Width {
    Half,
    Single,
    Double,
}

impl Size for Width {
    fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
            Self::Double => 8,
        }
    }
}

impl Width {
    fn of(kind: &str) -> Option<Self> {
        match kind {
            "f2" => Some(Self::Half),
            "f4" => Some(Self::Single),
            "f8" => Some(Self::Double),
            _ => None,
        }
    }

    fn value(self, bits: u64) -> f64 {
        match self {
            Self::Half => f64::from(half(bits as u16)),
            Self::Single => f64::from(f32::from_bits(bits as u32)),
            Self::Double => f64::from_bits(bits),
        }
    }
}

/// An IEEE 754 half-precision number; every one is an f32 exactly.
pub(super) fn half(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    sign * match exponent {
        0 => fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (fraction + 1024.0) * 2.0_f32.powi(exponent - 25),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_what_ieee_says() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0xfc00, f32::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan());
    }
}
