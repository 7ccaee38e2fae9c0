//! Arrays in files of several kinds: what `gradus evaluate` reads.
//!
//! `.npy` (floats f2, f4, f8 and integers of any width, either byte order, C or Fortran order), `.npz` of such, `.safetensors`
//! and `.parquet`. Every promise of a header is checked against the file before anything is allocated for it.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::ops::Range;
use std::path::{Path, PathBuf};

use npyz::{NpyHeader, Order};
use safetensors::tensor::{Dtype, SafeTensors};

use super::npy::{check_header_length, half};
use super::{EmbeddingFileError, companion, companion_path, parquet};
use crate::files::read_exact_at;
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

/// Reads embeddings from `.npy`, `.npz`, `.safetensors` or `.parquet`.
///
/// In `.npz` and `.safetensors` the array is called `embeddings` or is the only matrix of floats, and the labels `labels`; in
/// `.parquet` the columns are `embedding` and `label` (or their plurals). Labels of `.npy` come from the table beside it, where
/// gradus wrote one.
///
/// # Errors
/// A file that is missing, truncated, of another kind or without a matrix of floats.
pub fn read_table(path: &Path) -> Result<EmbeddingTable, EmbeddingFileError> {
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
            let mut arrays = named(path)?;
            let embeddings = take(path, &mut arrays, &["embeddings", "embedding"], "embeddings", |array| {
                array.shape.len() == 2 && array.element.is_float()
            })?;
            let labels = ["labels", "label"]
                .into_iter()
                .find_map(|name| arrays.iter().find(|array| array.0 == name))
                .map(|(_, array)| {
                    array
                        .labels()
                        .map_err(|problem| EmbeddingFileError::malformed(path, problem))
                })
                .transpose()?;
            let (dim, values) = embeddings
                .matrix()
                .map_err(|problem| EmbeddingFileError::malformed(path, problem))?;
            Ok(EmbeddingTable {
                dim,
                values,
                labels,
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

/// Reads labels from `.npy`, `.npz` or `.safetensors`: integers `[rows]`, one class each, or 0 and 1 `[rows, labels]`, several.
///
/// # Errors
/// A file that is missing, truncated or holds something else.
pub fn read_relations(path: &Path) -> Result<Labels, EmbeddingFileError> {
    let array = match extension(path).as_str() {
        "npy" => read_npy(path)?,
        "npz" | "safetensors" => take(path, &mut named(path)?, &["labels", "label"], "labels", |array| {
            !array.element.is_float()
        })?,
        extension => {
            return Err(EmbeddingFileError::malformed(
                path,
                format!("expected labels in .npy, .npz or .safetensors, found the extension \"{extension}\""),
            ));
        }
    };
    array
        .labels()
        .map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

/// Reads a matrix of numbers, floats or integers, from `.npy`; a vector is one column.
///
/// # Errors
/// A file that is missing, truncated or holds something else.
pub fn read_numbers(path: &Path) -> Result<(usize, Vec<f32>), EmbeddingFileError> {
    let mut array = read_npy(path)?;
    if array.shape.len() == 1 {
        array.shape.push(1);
    }
    array
        .matrix()
        .map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

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
        let malformed = |problem| EmbeddingFileError::malformed(path, problem);
        let header = Header::read(&mut BufReader::new(&file), length).map_err(malformed)?;
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
                            element.float(element_bytes, self.header.big_endian);
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
                element.floats(&bytes, self.header.big_endian, &mut values[some]);
            }
        }
        Ok(())
    }

    fn read_at(&self, offset: usize, bytes: &mut [u8]) -> Result<(), EmbeddingFileError> {
        let offset = self.header.start + offset as u64;
        read_exact_at(&self.file, bytes, offset).map_err(EmbeddingFileError::read(&self.path))
    }
}

fn extension(path: &Path) -> String {
    let extension = path
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    extension.unwrap_or_default()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    Float(usize),
    /// The upper half of an f32.
    Brain,
    Integer {
        signed: bool,
        bytes: usize,
    },
    Bool,
}

impl Element {
    fn of(kind: &str) -> Option<Self> {
        let (sign, bytes) = kind.split_at_checked(1)?;
        let bytes: usize = bytes.parse().ok()?;
        match (sign, bytes) {
            ("f", 2 | 4 | 8) => Some(Self::Float(bytes)),
            ("i" | "u", 1 | 2 | 4 | 8) => Some(Self::Integer {
                signed: sign == "i",
                bytes,
            }),
            ("b", 1) => Some(Self::Bool),
            _ => None,
        }
    }

    fn of_tensor(dtype: Dtype) -> Option<Self> {
        let integer = |signed, bytes| Some(Self::Integer { signed, bytes });
        match dtype {
            Dtype::F16 => Some(Self::Float(2)),
            Dtype::BF16 => Some(Self::Brain),
            Dtype::F32 => Some(Self::Float(4)),
            Dtype::F64 => Some(Self::Float(8)),
            Dtype::I8 => integer(true, 1),
            Dtype::I16 => integer(true, 2),
            Dtype::I32 => integer(true, 4),
            Dtype::I64 => integer(true, 8),
            Dtype::U8 => integer(false, 1),
            Dtype::U16 => integer(false, 2),
            Dtype::U32 => integer(false, 4),
            Dtype::U64 => integer(false, 8),
            Dtype::BOOL => Some(Self::Bool),
            _ => None,
        }
    }

    fn is_float(self) -> bool {
        matches!(self, Self::Float(_) | Self::Brain)
    }

    fn bytes(self) -> usize {
        match self {
            Self::Float(bytes) | Self::Integer { bytes, .. } => bytes,
            Self::Brain => 2,
            Self::Bool => 1,
        }
    }

    fn bits(bytes: &[u8], big_endian: bool) -> u64 {
        let mut raw = [0_u8; 8];
        for (at, &byte) in bytes.iter().enumerate() {
            raw[if big_endian { bytes.len() - 1 - at } else { at }] = byte;
        }
        u64::from_le_bytes(raw)
    }

    fn float(self, bytes: &[u8], big_endian: bool) -> f32 {
        let bits = Self::bits(bytes, big_endian);
        match self {
            Self::Float(2) => half(bits as u16),
            Self::Float(4) => f32::from_bits(bits as u32),
            Self::Float(_) => f64::from_bits(bits) as f32,
            Self::Brain => f32::from_bits((bits as u32) << 16),
            Self::Integer { .. } | Self::Bool => self.integer(bytes, big_endian) as f32,
        }
    }

    /// Many at once; the commonest kind without a detour.
    fn floats(self, bytes: &[u8], big_endian: bool, values: &mut [f32]) {
        if self == Self::Float(4) && !big_endian {
            for (value, &bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(bytes);
            }
        } else {
            for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(self.bytes())) {
                *value = self.float(bytes, big_endian);
            }
        }
    }

    fn integer(self, bytes: &[u8], big_endian: bool) -> i128 {
        let bits = Self::bits(bytes, big_endian);
        match self {
            Self::Integer { signed: true, bytes } => {
                // Up to the sign bit and back, which fills with it.
                let unused = 64 - 8 * bytes as u32;
                i128::from((bits << unused).cast_signed() >> unused)
            }
            _ => i128::from(bits),
        }
    }
}

/// What an `.npy` header says, checked against the length of the file.
#[derive(Debug)]
struct Header {
    shape: Vec<usize>,
    element: Element,
    /// The element type as the file writes it.
    described: String,
    big_endian: bool,
    fortran: bool,
    /// Where the elements begin.
    start: u64,
}

impl Header {
    fn read(reader: &mut (impl Read + Seek), length: u64) -> Result<Self, String> {
        check_header_length(reader, length)?;
        let header =
            NpyHeader::from_reader(&mut *reader).map_err(|error| format!("not a readable .npy header: {error}"))?;
        let described = header.dtype().descr();
        let unknown = || format!("expected numbers, found the element type {described}");
        let npyz::DType::Plain(text) = header.dtype() else {
            return Err(unknown());
        };
        let text = text.to_string();
        let (order, kind) = text.split_at_checked(1).ok_or_else(unknown)?;
        let element = Element::of(kind).ok_or_else(unknown)?;
        let start = reader.stream_position().map_err(|error| error.to_string())?;
        let count = header
            .shape()
            .iter()
            .try_fold(1_u64, |count, &side| count.checked_mul(side));
        let promised = count.and_then(|count| count.checked_mul(element.bytes() as u64));
        let held = length.saturating_sub(start);
        if promised != Some(held) {
            return Err(format!(
                "the header promises the shape {:?} of {} bytes each, but {held} bytes follow it: the file is truncated or damaged",
                header.shape(),
                element.bytes()
            ));
        }
        Ok(Self {
            shape: header.shape().iter().map(|&side| side as usize).collect(),
            element,
            described,
            big_endian: order == ">",
            fortran: header.order() == Order::Fortran,
            start,
        })
    }
}

/// An array in memory, as it lay in its file.
struct Array {
    shape: Vec<usize>,
    element: Element,
    big_endian: bool,
    fortran: bool,
    bytes: Vec<u8>,
}

impl Array {
    /// The elements in row-major order.
    fn elements(&self) -> impl Iterator<Item = &[u8]> {
        let size = self.element.bytes();
        let columns = self.shape.get(1).copied().unwrap_or(1);
        let rows = self.shape.first().copied().unwrap_or(0);
        (0..rows * columns).map(move |at| {
            let place = if self.fortran {
                at % columns * rows + at / columns
            } else {
                at
            };
            &self.bytes[place * size..(place + 1) * size]
        })
    }

    fn matrix(&self) -> Result<(usize, Vec<f32>), String> {
        let [rows, dim] = self.shape[..] else {
            return Err(format!(
                "expected a matrix [rows, width], found the shape {:?}",
                self.shape
            ));
        };
        if rows == 0 || dim == 0 {
            return Err(format!("holds no row (shape {rows} x {dim})"));
        }
        Ok((
            dim,
            self.elements()
                .map(|bytes| self.element.float(bytes, self.big_endian))
                .collect(),
        ))
    }

    fn labels(&self) -> Result<Labels, String> {
        if self.element.is_float() {
            return Err(
                "expected integer labels (in NumPy `labels.astype(numpy.int64)`), found floating-point numbers".into(),
            );
        }
        let numbers = self
            .elements()
            .map(|bytes| self.element.integer(bytes, self.big_endian));
        match self.shape[..] {
            [_] => {
                let classes: Result<Vec<u32>, String> = numbers
                    .enumerate()
                    .map(|(row, value)| {
                        u32::try_from(value).map_err(|_| {
                            format!(
                                "the label of row {row} is {value}, but class numbers go from 0 to {}; rows are counted from 0",
                                u32::MAX
                            )
                        })
                    })
                    .collect();
                Ok(classes?.into())
            }
            [rows, columns] => {
                let mut all = vec![Vec::new(); rows];
                for (at, value) in numbers.enumerate() {
                    match value {
                        0 => {}
                        1 => all[at / columns].push((at % columns) as u32),
                        _ => {
                            return Err(format!(
                                "labels in two dimensions mean several labels per row, 0 or 1 each, but row {} column {} is {value}; \
                                 for one class per row give a vector",
                                at / columns,
                                at % columns
                            ));
                        }
                    }
                }
                Ok(Labels::MultiLabel(all.into()))
            }
            _ => Err(format!(
                "expected labels [rows], or 0 and 1 [rows, labels], found the shape {:?}",
                self.shape
            )),
        }
    }
}

fn read_npy(path: &Path) -> Result<Array, EmbeddingFileError> {
    let file = File::open(path).map_err(EmbeddingFileError::read(path))?;
    let length = file.metadata().map_err(EmbeddingFileError::read(path))?.len();
    parse_npy(&mut BufReader::new(file), length).map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

fn parse_npy(reader: &mut (impl Read + Seek), length: u64) -> Result<Array, String> {
    let header = Header::read(reader, length)?;
    let mut bytes = Vec::with_capacity((length - header.start) as usize);
    reader.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 != length - header.start {
        return Err("the file changed while it was read".into());
    }
    Ok(Array {
        shape: header.shape,
        element: header.element,
        big_endian: header.big_endian,
        fortran: header.fortran,
        bytes,
    })
}

/// All arrays of an `.npz` or `.safetensors` file; those of unknown element types are left out.
fn named(path: &Path) -> Result<Vec<(String, Array)>, EmbeddingFileError> {
    let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
    if extension(path) == "safetensors" {
        let bytes = std::fs::read(path).map_err(EmbeddingFileError::read(path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| {
            malformed(format!(
                "not a readable safetensors file (truncated or damaged): {error}"
            ))
        })?;
        let known = file.tensors().into_iter().filter_map(|(name, tensor)| {
            let array = Array {
                shape: tensor.shape().to_vec(),
                element: Element::of_tensor(tensor.dtype())?,
                big_endian: false,
                fortran: false,
                bytes: tensor.data().to_vec(),
            };
            Some((name, array))
        });
        return Ok(known.collect());
    }
    let file = File::open(path).map_err(EmbeddingFileError::read(path))?;
    let damaged =
        |error: zip::result::ZipError| malformed(format!("not a readable .npz file (truncated or damaged): {error}"));
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let mut arrays = Vec::new();
    for number in 0..archive.len() {
        let entry = archive.by_index(number).map_err(damaged)?;
        let name = entry.name().trim_end_matches(".npy").to_owned();
        let promised = entry.size();
        let mut bytes = Vec::new();
        // One more than promised shows a lie; nothing is allocated in advance.
        entry
            .take(promised.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| malformed(format!("the array {name} cannot be unpacked: {error}")))?;
        let length = bytes.len() as u64;
        if length != promised {
            return Err(malformed(format!(
                "the array {name} has {length} bytes, but {promised} were promised"
            )));
        }
        match parse_npy(&mut Cursor::new(bytes), length) {
            Ok(array) => arrays.push((name, array)),
            Err(problem) if problem.contains("expected numbers") => {}
            Err(problem) => return Err(malformed(format!("the array {name}: {problem}"))),
        }
    }
    Ok(arrays)
}

/// The array of one of these names, or the only one that fits.
fn take(
    path: &Path,
    arrays: &mut Vec<(String, Array)>,
    names: &[&str],
    what: &str,
    fits: impl Fn(&Array) -> bool,
) -> Result<Array, EmbeddingFileError> {
    let by_name = arrays.iter().position(|(name, _)| names.contains(&name.as_str()));
    let fitting: Vec<usize> = (0..arrays.len()).filter(|&at| fits(&arrays[at].1)).collect();
    match (by_name, fitting.as_slice()) {
        (Some(at), _) | (None, &[at]) => Ok(arrays.swap_remove(at).1),
        _ => {
            let mut found: Vec<String> = arrays
                .iter()
                .map(|(name, array)| format!("{name} {:?}", array.shape))
                .collect();
            found.sort_unstable();
            found.truncate(8);
            Err(EmbeddingFileError::malformed(
                path,
                format!(
                    "expected an array called {what}, or exactly one that could be it, found {}",
                    if found.is_empty() {
                        "none".into()
                    } else {
                        found.join(", ")
                    }
                ),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn npy(dtype: &str, fortran: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{dtype}', 'fortran_order': {fortran}, 'shape': {shape}, }}");
        header.push_str(&" ".repeat(117 - header.len()));
        header.push('\n');
        let mut content = b"\x93NUMPY\x01\x00".to_vec();
        content.extend((header.len() as u16).to_le_bytes());
        content.extend(header.as_bytes());
        content.extend(bytes);
        content
    }

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
                let table = read_table(&path).unwrap();
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
            let message = read_table(&path).unwrap_err().to_string();
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
            let table = read_table(&npz).unwrap();
            assert_eq!((table.dim, table.values.as_slice()), (2, &ROWS[..]));
            assert_eq!(table.labels, Some(Labels::from(vec![5, 5, 9])));
            assert_eq!(read_relations(&npz).unwrap(), Labels::from(vec![5, 5, 9]));
        }
        let mut cut = std::fs::read(&npz).unwrap();
        cut.truncate(cut.len() / 2);
        std::fs::write(&npz, cut).unwrap();
        assert!(read_table(&npz).unwrap_err().to_string().contains(".npz"));

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
            let table = read_table(&tensors).unwrap();
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
        let table = read_table(&columns).unwrap();
        assert_eq!((table.dim, table.values, table.ids), (2, set.values, Some(set.ids)));
        assert!(read_table(Path::new("e.txt")).unwrap_err().to_string().contains("txt"));
    }

    #[test]
    fn labels_of_one_and_of_several() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.npy");
        let read = |content: Vec<u8>| {
            std::fs::write(&path, content).unwrap();
            read_relations(&path).map_err(|error| error.to_string())
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
