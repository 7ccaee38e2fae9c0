//! Reader of MATLAB level 5 files (`.mat`, versions 5 to 7.2), as far as annotation files need it.
//!
//! Numeric, char, cell and struct arrays; plain and zlib-compressed elements; both byte orders. After the format
//! description "MAT-File Format" of The MathWorks. Every declared size is checked against the bytes that are there, so a
//! damaged or hostile file is an error and never a panic or a large allocation.

use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::ZlibDecoder;

use super::scan::malformed;
use crate::data::dataset::DataError;

/// Largest file, and largest total of decompressed bytes. The annotation files of Cars196 take under 10 MiB.
const MAX_BYTES: usize = 128 << 20;
/// Most values (arrays) in a file, which bounds the memory the tree takes.
const MAX_VALUES: usize = 4 << 20;
/// Deepest nesting of cells and structs.
const MAX_DEPTH: usize = 16;

/// A variable's value; dimensions are dropped, elements stay in the file's (column-major) order.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    /// Any numeric or logical array (real part).
    Numbers(Vec<f64>),
    /// A char array; the rows of a matrix are joined by line feeds.
    Text(String),
    /// A cell array.
    Cell(Vec<Value>),
    /// A struct array.
    Struct(StructArray),
    /// An array of a kind that is not read (sparse, function, object).
    Unsupported,
}

/// A struct array: every element has every field.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct StructArray {
    fields: Vec<String>,
    /// Element by element, in the order of the fields.
    values: Vec<Value>,
}

impl StructArray {
    /// How many elements.
    pub(super) fn len(&self) -> usize {
        if self.fields.is_empty() {
            0
        } else {
            self.values.len() / self.fields.len()
        }
    }

    /// Position of a field.
    pub(super) fn field(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field == name)
    }

    /// Names of the fields.
    pub(super) fn fields(&self) -> &[String] {
        &self.fields
    }

    /// A field of an element.
    pub(super) fn get(&self, element: usize, field: usize) -> Option<&Value> {
        if field < self.fields.len() {
            self.values.get(element * self.fields.len() + field)
        } else {
            None
        }
    }
}

impl Value {
    /// The text of a char array.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Numbers(numbers) if numbers.is_empty() => Some(""),
            _ => None,
        }
    }

    /// A 1 x 1 array holding a whole number from 0 to 2^32-1.
    pub(super) fn whole(&self) -> Option<u32> {
        match self {
            Self::Numbers(numbers) if numbers.len() == 1 => {
                let value = numbers[0];
                (value >= 0.0 && value <= f64::from(u32::MAX) && value.fract() == 0.0).then_some(value as u32)
            }
            _ => None,
        }
    }
}

/// Reads all variables of a file.
///
/// # Errors
/// A missing or unreadable file, another format (MATLAB 4, 7.3), and damaged content.
pub(super) fn read(path: &Path) -> Result<Vec<(String, Value)>, DataError> {
    let failed = |source| DataError::Read {
        path: path.to_owned(),
        source,
    };
    if !path.is_file() {
        return Err(DataError::Missing {
            what: "a MATLAB annotation file".to_owned(),
            path: path.to_owned(),
        });
    }
    let size = fs::metadata(path).map_err(failed)?.len();
    if size > MAX_BYTES as u64 {
        return Err(malformed(
            path,
            format!("{size} bytes; an annotation file of at most {MAX_BYTES} was expected"),
        ));
    }
    parse(&fs::read(path).map_err(failed)?).map_err(|problem| malformed(path, problem))
}

/// Parses the bytes of a file into named variables.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<(String, Value)>, String> {
    if bytes.starts_with(b"MATLAB 7.3") || bytes.starts_with(b"\x89HDF") {
        return Err("a MATLAB 7.3 (HDF5) file; save it with `save -v7` instead".to_owned());
    }
    let Some(header) = bytes.get(..128) else {
        return Err(format!(
            "not a MATLAB level 5 file: {} bytes are shorter than its 128-byte header",
            bytes.len()
        ));
    };
    let big = match &header[126..128] {
        b"IM" => false,
        b"MI" => true,
        _ => return Err("not a MATLAB level 5 file: its header has no byte-order mark".to_owned()),
    };
    let mut parser = Parser {
        big,
        values: 0,
        inflated: 0,
    };
    let mut variables = Vec::new();
    let mut rest = Bytes { bytes, at: 128 };
    while rest.left() > 0 {
        // Some writers pad the end of the file with zeros.
        if rest.bytes[rest.at..].iter().all(|byte| *byte == 0) {
            break;
        }
        let element = parser.element(&mut rest, false)?;
        match element.kind {
            MATRIX => variables.push(parser.matrix(element.data, 0)?),
            COMPRESSED => {
                let plain = parser.inflate(element.data)?;
                let mut inner = Bytes { bytes: &plain, at: 0 };
                let element = parser.element(&mut inner, true)?;
                if element.kind == MATRIX {
                    variables.push(parser.matrix(element.data, 0)?);
                }
            }
            // Anything else at the top is data of MATLAB's own subsystems.
            _ => {}
        }
    }
    Ok(variables)
}

const INT8: u32 = 1;
const UINT8: u32 = 2;
const INT16: u32 = 3;
const UINT16: u32 = 4;
const INT32: u32 = 5;
const UINT32: u32 = 6;
const SINGLE: u32 = 7;
const DOUBLE: u32 = 9;
const INT64: u32 = 12;
const UINT64: u32 = 13;
const MATRIX: u32 = 14;
const COMPRESSED: u32 = 15;
const UTF8: u32 = 16;
const UTF16: u32 = 17;
const UTF32: u32 = 18;

/// Bytes with a reading position.
struct Bytes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], String> {
        if count > self.left() {
            return Err(format!(
                "{what} at byte {} declares {count} bytes, but only {} are left: the file is truncated or damaged",
                self.at,
                self.left()
            ));
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }
}

/// A data element: its type and its bytes.
struct Element<'a> {
    kind: u32,
    data: &'a [u8],
}

struct Parser {
    big: bool,
    values: usize,
    inflated: usize,
}

impl Parser {
    fn word(&self, bytes: [u8; 4]) -> u32 {
        if self.big {
            u32::from_be_bytes(bytes)
        } else {
            u32::from_le_bytes(bytes)
        }
    }

    /// Reads one element; inside arrays elements are padded to eight bytes.
    fn element<'a>(&self, from: &mut Bytes<'a>, padded: bool) -> Result<Element<'a>, String> {
        let tag = from.take(4, "an element")?;
        let first = self.word([tag[0], tag[1], tag[2], tag[3]]);
        if first >> 16 != 0 {
            // Small element: size and type share the first word, and the data the second.
            let size = (first >> 16) as usize;
            if size > 4 {
                return Err(format!(
                    "a small element at byte {} declares {size} bytes, more than its four",
                    from.at - 4
                ));
            }
            let data = from.take(4, "a small element")?;
            return Ok(Element {
                kind: first & 0xffff,
                data: &data[..size],
            });
        }
        let size = from.take(4, "an element")?;
        let size = self.word([size[0], size[1], size[2], size[3]]) as usize;
        let data = from.take(size, "an element")?;
        if padded || first != COMPRESSED {
            // The last element's padding may be missing.
            from.at += (size.next_multiple_of(8) - size).min(from.left());
        }
        Ok(Element { kind: first, data })
    }

    fn inflate(&mut self, data: &[u8]) -> Result<Vec<u8>, String> {
        let budget = MAX_BYTES - self.inflated;
        let mut plain = Vec::new();
        ZlibDecoder::new(data)
            .take(budget as u64 + 1)
            .read_to_end(&mut plain)
            .map_err(|error| format!("a compressed variable is damaged ({error})"))?;
        if plain.len() > budget {
            return Err(format!("compressed variables grow beyond {MAX_BYTES} bytes"));
        }
        self.inflated += plain.len();
        Ok(plain)
    }

    /// Parses the content of a matrix element into its name and value.
    fn matrix(&mut self, data: &[u8], depth: usize) -> Result<(String, Value), String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} arrays"));
        }
        if depth > MAX_DEPTH {
            return Err(format!("cells or structs nested more than {MAX_DEPTH} deep"));
        }
        if data.is_empty() {
            return Ok((String::new(), Value::Numbers(Vec::new())));
        }
        let mut from = Bytes { bytes: data, at: 0 };
        let flags = self.element(&mut from, true)?;
        let [a, b, c, d, ..] = flags.data else {
            return Err("an array without flags".to_owned());
        };
        let class = self.word([*a, *b, *c, *d]) & 0xff;
        if class == 17 {
            // Opaque objects have no dimensions.
            return Ok((String::new(), Value::Unsupported));
        }
        let dimensions = self.element(&mut from, true)?;
        let dimensions = self.numbers(&dimensions)?;
        let mut count = 1usize;
        for dimension in &dimensions {
            if !(0.0..=f64::from(u32::MAX)).contains(dimension) {
                return Err(format!("an array with the dimension {dimension}"));
            }
            count = count
                .checked_mul(*dimension as usize)
                .ok_or("an array with impossibly large dimensions")?;
        }
        let name = self.element(&mut from, true)?;
        let name = String::from_utf8_lossy(name.data).into_owned();
        let value = match class {
            1 => Value::Cell(self.children(&mut from, count, depth)?),
            2 => Value::Struct(self.structure(&mut from, count, depth)?),
            4 => {
                let characters = self.element(&mut from, true)?;
                Value::Text(self.characters(&characters, &dimensions)?)
            }
            6..=15 => {
                let real = self.element(&mut from, true)?;
                let numbers = self.numbers(&real)?;
                if numbers.len() != count {
                    return Err(format!(
                        "array `{name}` declares {count} numbers and holds {}",
                        numbers.len()
                    ));
                }
                Value::Numbers(numbers)
            }
            3 | 5 | 16 => Value::Unsupported,
            other => return Err(format!("array `{name}` is of the unknown class {other}")),
        };
        Ok((name, value))
    }

    /// Parses `count` nested matrices.
    fn children(&mut self, from: &mut Bytes<'_>, count: usize, depth: usize) -> Result<Vec<Value>, String> {
        // Each takes at least its tag of eight bytes.
        if count > from.left() / 8 {
            return Err(format!(
                "{count} nested arrays are declared where {} bytes are left",
                from.left()
            ));
        }
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            let element = self.element(from, true)?;
            if element.kind != MATRIX {
                return Err(format!(
                    "a nested array was expected, an element of type {} found",
                    element.kind
                ));
            }
            children.push(self.matrix(element.data, depth + 1)?.1);
        }
        Ok(children)
    }

    fn structure(&mut self, from: &mut Bytes<'_>, count: usize, depth: usize) -> Result<StructArray, String> {
        let width = self.element(from, true)?;
        let width = match self.numbers(&width)?.as_slice() {
            [width] if (1.0..=4096.0).contains(width) => *width as usize,
            other => return Err(format!("a struct with field names of width {other:?}")),
        };
        let names = self.element(from, true)?;
        if names.data.len() % width != 0 {
            return Err(format!("{} bytes of field names of width {width}", names.data.len()));
        }
        let fields: Vec<String> = names
            .data
            .chunks_exact(width)
            .map(|name| {
                let end = name.iter().position(|byte| *byte == 0).unwrap_or(width);
                String::from_utf8_lossy(&name[..end]).into_owned()
            })
            .collect();
        let values = count
            .checked_mul(fields.len())
            .ok_or("a struct with impossibly large dimensions")?;
        Ok(StructArray {
            values: self.children(from, values, depth)?,
            fields,
        })
    }

    /// The numbers of an element, whatever type they are stored as.
    fn numbers(&self, element: &Element<'_>) -> Result<Vec<f64>, String> {
        let data = element.data;
        Ok(match element.kind {
            INT8 => data.iter().map(|byte| f64::from(*byte as i8)).collect(),
            UINT8 | UTF8 => data.iter().map(|byte| f64::from(*byte)).collect(),
            INT16 => self.each(data, |bytes| f64::from(i16::from_le_bytes(bytes)))?,
            UINT16 | UTF16 => self.each(data, |bytes| f64::from(u16::from_le_bytes(bytes)))?,
            INT32 => self.each(data, |bytes| f64::from(i32::from_le_bytes(bytes)))?,
            UINT32 | UTF32 => self.each(data, |bytes| f64::from(u32::from_le_bytes(bytes)))?,
            SINGLE => self.each(data, |bytes| f64::from(f32::from_le_bytes(bytes)))?,
            DOUBLE => self.each(data, f64::from_le_bytes)?,
            INT64 => self.each(data, |bytes| i64::from_le_bytes(bytes) as f64)?,
            UINT64 => self.each(data, |bytes| u64::from_le_bytes(bytes) as f64)?,
            other => return Err(format!("numbers were expected, an element of type {other} found")),
        })
    }

    fn each<const N: usize>(&self, data: &[u8], convert: impl Fn([u8; N]) -> f64) -> Result<Vec<f64>, String> {
        if !data.len().is_multiple_of(N) {
            return Err(format!("{} bytes cannot hold numbers of {N} bytes each", data.len()));
        }
        let mut bytes = [0; N];
        Ok(data
            .chunks_exact(N)
            .map(|chunk| {
                bytes.copy_from_slice(chunk);
                if self.big {
                    bytes.reverse();
                }
                convert(bytes)
            })
            .collect())
    }

    fn characters(&self, element: &Element<'_>, dimensions: &[f64]) -> Result<String, String> {
        let text: Vec<char> = match element.kind {
            UTF8 | UINT8 | INT8 => match std::str::from_utf8(element.data) {
                Ok(text) => text.chars().collect(),
                // Bytes that are no UTF-8 are Latin-1 in old files.
                Err(_) if element.kind != UTF8 => element.data.iter().map(|byte| char::from(*byte)).collect(),
                Err(_) => return Err("text that is not UTF-8".to_owned()),
            },
            UINT16 | UTF16 => {
                let units = self.numbers(element)?.into_iter().map(|unit| unit as u16);
                char::decode_utf16(units)
                    .map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER))
                    .collect()
            }
            UINT32 | UTF32 => self
                .numbers(element)?
                .into_iter()
                .map(|unit| char::from_u32(unit as u32).unwrap_or(char::REPLACEMENT_CHARACTER))
                .collect(),
            other => return Err(format!("text was expected, an element of type {other} found")),
        };
        let rows = dimensions.first().map_or(1, |rows| *rows as usize);
        if rows > 1 && rows <= text.len() && text.len().is_multiple_of(rows) {
            let lines: Vec<String> = (0..rows)
                .map(|row| text.iter().skip(row).step_by(rows).collect::<String>())
                .collect();
            return Ok(lines.join("\n"));
        }
        Ok(text.into_iter().collect())
    }
}

#[cfg(test)]
#[path = "mat_tests.rs"]
pub(super) mod tests;
