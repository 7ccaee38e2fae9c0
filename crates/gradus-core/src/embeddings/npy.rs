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
    let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
    let mut file = BufReader::new(File::open(path).map_err(EmbeddingFileError::read(path))?);
    let length = file.get_ref().metadata().map_err(EmbeddingFileError::read(path))?.len();
    check_header_length(&mut file, length).map_err(&malformed)?;
    let header =
        NpyHeader::from_reader(&mut file).map_err(|error| malformed(format!("not a readable .npy header: {error}")))?;
    let element = Element::of(&header.dtype()).ok_or_else(|| {
        malformed(format!(
            "expected floating-point numbers (f2, f4 or f8), found {}",
            header.dtype().descr()
        ))
    })?;
    let &[rows, dim] = header.shape() else {
        return Err(malformed(format!(
            "expected a matrix [rows, width], found the shape {:?}",
            header.shape()
        )));
    };
    let start = file.stream_position().map_err(EmbeddingFileError::read(path))?;
    // What the header promises has to be there before anything is allocated for it.
    let promised = rows
        .checked_mul(dim)
        .and_then(|count| count.checked_mul(element.bytes() as u64));
    let held = length.saturating_sub(start);
    if promised != Some(held) {
        return Err(malformed(format!(
            "the header promises {rows} x {dim} values of {} bytes, but {held} bytes follow it: the file is truncated or damaged",
            element.bytes()
        )));
    }
    if held == 0 {
        return Err(malformed(format!("holds no embedding (shape {rows} x {dim})")));
    }
    let mut bytes = Vec::with_capacity(held as usize);
    file.take(held)
        .read_to_end(&mut bytes)
        .map_err(EmbeddingFileError::read(path))?;
    if bytes.len() as u64 != held {
        return Err(malformed("the file became shorter while it was read".into()));
    }
    let (rows, dim) = (rows as usize, dim as usize);
    let stored: Vec<f32> = bytes
        .chunks_exact(element.bytes())
        .map(|bytes| element.value(bytes))
        .collect();
    let values = match header.order() {
        Order::C => stored,
        Order::Fortran => (0..rows * dim).map(|at| stored[(at % dim) * rows + at / dim]).collect(),
    };
    Ok((dim, values))
}

fn check_header_length(file: &mut BufReader<File>, length: u64) -> Result<(), String> {
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
struct Element {
    width: Width,
    big_endian: bool,
}

#[derive(Clone, Copy)]
enum Width {
    Half,
    Single,
    Double,
}

impl Element {
    fn of(dtype: &npyz::DType) -> Option<Self> {
        let npyz::DType::Plain(text) = dtype else { return None };
        let text = text.to_string();
        let (order, kind) = text.split_at_checked(1)?;
        let big_endian = match order {
            "<" => false,
            ">" => true,
            _ => return None,
        };
        let width = match kind {
            "f2" => Width::Half,
            "f4" => Width::Single,
            "f8" => Width::Double,
            _ => return None,
        };
        Some(Self { width, big_endian })
    }

    fn bytes(self) -> usize {
        match self.width {
            Width::Half => 2,
            Width::Single => 4,
            Width::Double => 8,
        }
    }

    /// `bytes` has exactly [`bytes`](Self::bytes) of them.
    fn value(self, bytes: &[u8]) -> f32 {
        let mut raw = [0_u8; 8];
        for (at, &byte) in bytes.iter().enumerate() {
            raw[if self.big_endian { bytes.len() - 1 - at } else { at }] = byte;
        }
        let bits = u64::from_le_bytes(raw);
        match self.width {
            Width::Half => half(bits as u16),
            Width::Single => f32::from_bits(bits as u32),
            Width::Double => f64::from_bits(bits) as f32,
        }
    }
}

/// An IEEE 754 half-precision number; every one is an f32 exactly.
fn half(bits: u16) -> f32 {
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
