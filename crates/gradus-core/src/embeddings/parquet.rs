//! Parquet: columns `path`, `label` and `embedding` (a list of floats), uncompressed, readable by any Parquet tool.

use std::fs::File;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, Type as Physical};
use parquet::column::reader::ColumnReader;
use parquet::data_type::{ByteArray, ByteArrayType, FloatType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::{EmbeddingFileError, EmbeddingSet};

const SCHEMA: &str = "message embeddings {
    required binary path (UTF8);
    required int64 label;
    required group embedding (LIST) { repeated group list { required float element; } }
}";

/// Rows per row group, and read or written at a time.
const ROWS: usize = 4096;

/// The key of the footer under which a part says what it was made of.
const ORIGIN: &str = "gradus.origin";

pub(super) fn encode(set: &EmbeddingSet, origin: Option<&str>, file: &mut dyn Write) -> std::io::Result<()> {
    let bytes = encode_bytes(set, origin).map_err(std::io::Error::other)?;
    file.write_all(&bytes)
}

/// What [`encode`] was told of the origin; none if the file has no such entry or cannot be read.
pub(super) fn origin(path: &Path) -> Option<String> {
    let file = File::open(path).ok()?;
    let read = catch_unwind(AssertUnwindSafe(|| SerializedFileReader::new(file)));
    let reader = read.ok()?.ok()?;
    let entries = reader.metadata().file_metadata().key_value_metadata()?;
    entries.iter().find(|entry| entry.key == ORIGIN)?.value.clone()
}

fn encode_bytes(set: &EmbeddingSet, origin: Option<&str>) -> Result<Vec<u8>, ParquetError> {
    let entry = origin.map(|origin| vec![KeyValue::new(ORIGIN.to_owned(), origin.to_owned())]);
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder()
        .set_compression(Compression::UNCOMPRESSED)
        // Embeddings do not repeat and are never searched by range.
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_created_by(concat!("gradus ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_key_value_metadata(entry)
        .build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    for first in (0..set.len()).step_by(ROWS) {
        let rows = first..(first + ROWS).min(set.len());
        let mut group = writer.next_row_group()?;
        let missing = || ParquetError::General("the schema has fewer columns than expected".into());
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let paths: Vec<ByteArray> = set.ids[rows.clone()]
            .iter()
            .map(|id| ByteArray::from(id.as_str()))
            .collect();
        column.typed::<ByteArrayType>().write_batch(&paths, None, None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let labels: Vec<i64> = set.labels[rows.clone()].iter().map(|&label| i64::from(label)).collect();
        column.typed::<Int64Type>().write_batch(&labels, None, None)?;
        column.close()?;
        let mut column = group.next_column()?.ok_or_else(missing)?;
        let values = &set.values[rows.start * set.dim..rows.end * set.dim];
        let present = vec![1_i16; values.len()];
        let continues: Vec<i16> = (0..values.len()).map(|at| i16::from(at % set.dim != 0)).collect();
        column
            .typed::<FloatType>()
            .write_batch(values, Some(&present), Some(&continues))?;
        column.close()?;
        group.close()?;
    }
    writer.into_inner()
}

pub(super) fn decode(path: &Path) -> Result<EmbeddingSet, EmbeddingFileError> {
    let set = decode_part(path)?;
    if set.is_empty() || set.dim == 0 {
        return Err(EmbeddingFileError::malformed(path, "holds no embedding"));
    }
    Ok(set)
}

/// [`decode`] of a file that may have no row.
pub(super) fn decode_part(path: &Path) -> Result<EmbeddingSet, EmbeddingFileError> {
    let file = File::open(path).map_err(EmbeddingFileError::read(path))?;
    let length = file.metadata().map_err(EmbeddingFileError::read(path))?.len();
    // The reader trusts some numbers of a damaged file and panics on them; no file may end the program.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_file(file, length)))
        .unwrap_or_else(|_| Err("the file is damaged beyond what the Parquet reader can report".into()));
    decoded.map_err(|problem| EmbeddingFileError::malformed(path, problem))
}

fn decode_file(file: File, length: u64) -> Result<EmbeddingSet, String> {
    let damaged = |error: ParquetError| format!("not a readable Parquet file (truncated or damaged): {error}");
    let reader = SerializedFileReader::new(file).map_err(damaged)?;
    let columns = Columns::find(&reader)?;
    let mut set = EmbeddingSet::default();
    for group in 0..reader.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged)?;
        check_sizes(group.as_ref(), length)?;
        let rows = usize::try_from(group.metadata().num_rows())
            .map_err(|_| "a row group has a negative number of rows".to_owned())?;
        let before = set.len();
        columns.read(group.as_ref(), rows, &mut set).map_err(damaged)??;
        if set.len() - before != rows {
            return Err(format!(
                "a row group promises {rows} rows and holds {}",
                set.len() - before
            ));
        }
    }
    Ok(set)
}

/// What the footer promises has to fit into the file before anything is allocated for it.
fn check_sizes(group: &dyn RowGroupReader, length: u64) -> Result<(), String> {
    for column in group.metadata().columns() {
        if !matches!(column.compression(), Compression::UNCOMPRESSED | Compression::SNAPPY) {
            return Err(format!(
                "the column {} is compressed ({}); only uncompressed and Snappy columns can be read: write it again with compression=\"snappy\" or none",
                column.column_path().string(),
                column.compression()
            ));
        }
        let size = u64::try_from(column.compressed_size()).unwrap_or(u64::MAX);
        if size > length {
            return Err(format!(
                "the column {} claims {size} bytes in a file of {length}",
                column.column_path().string()
            ));
        }
    }
    Ok(())
}

/// Where the three columns are, and how deep "present" is in the list.
struct Columns {
    /// Rows are named by their number without it.
    path: Option<usize>,
    label: usize,
    embedding: usize,
    present: i16,
}

impl Columns {
    fn find(reader: &SerializedFileReader<File>) -> Result<Self, String> {
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let names: Vec<String> = schema.columns().iter().map(|column| column.path().string()).collect();
        let find = |names_of: [&str; 2], kinds: &[Physical], list: bool| {
            let found = schema.columns().iter().position(|column| {
                column
                    .path()
                    .parts()
                    .first()
                    .is_some_and(|first| names_of.contains(&first.as_str()))
                    && kinds.contains(&column.physical_type())
                    && (column.max_rep_level() == 1) == list
                    && (list || column.max_def_level() == 0 || column.max_def_level() == 1)
            });
            found.ok_or_else(|| {
                let mut shown = names.clone();
                shown.truncate(8);
                format!(
                    "expected the columns label (integer) and embedding (list of float), and perhaps path (string); found {}",
                    shown.join(", ")
                )
            })
        };
        let embedding = find(["embedding", "embeddings"], &[Physical::FLOAT, Physical::DOUBLE], true)?;
        Ok(Self {
            path: find(["path", "paths"], &[Physical::BYTE_ARRAY], false).ok(),
            label: find(["label", "labels"], &[Physical::INT32, Physical::INT64], false)?,
            embedding,
            present: schema.column(embedding).max_def_level(),
        })
    }

    /// Appends the rows of a group. The outer result is the reader's, the inner one ours.
    fn read(
        &self,
        group: &dyn RowGroupReader,
        rows: usize,
        set: &mut EmbeddingSet,
    ) -> Result<Result<(), String>, ParquetError> {
        let (mut paths, mut labels): (Vec<ByteArray>, Vec<i64>) = (Vec::new(), Vec::new());
        let (mut singles, mut continues, mut present) = (Vec::new(), Vec::new(), Vec::new());
        let mut defined = Vec::new();
        if let Some(path) = self.path
            && let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(path)?
        {
            while column.read_records(ROWS, Some(&mut defined), None, &mut paths)?.0 > 0 {}
        }
        match group.get_column_reader(self.label)? {
            ColumnReader::Int64ColumnReader(mut column) => {
                while column.read_records(ROWS, Some(&mut defined), None, &mut labels)?.0 > 0 {}
            }
            ColumnReader::Int32ColumnReader(mut column) => {
                let mut narrow = Vec::new();
                while column.read_records(ROWS, Some(&mut defined), None, &mut narrow)?.0 > 0 {}
                labels.extend(narrow.into_iter().map(i64::from));
            }
            _ => {}
        }
        if self.path.is_none() {
            // As many as there are, not as many as are promised.
            paths.extend((0..labels.len()).map(|row| ByteArray::from((set.len() + row).to_string().as_str())));
        }
        match group.get_column_reader(self.embedding)? {
            ColumnReader::FloatColumnReader(mut column) => {
                while column
                    .read_records(ROWS, Some(&mut present), Some(&mut continues), &mut singles)?
                    .0
                    > 0
                {}
            }
            ColumnReader::DoubleColumnReader(mut column) => {
                let mut wide = Vec::new();
                while column
                    .read_records(ROWS, Some(&mut present), Some(&mut continues), &mut wide)?
                    .0
                    > 0
                {}
                singles.extend(wide.into_iter().map(|value: f64| value as f32));
            }
            _ => {}
        }
        Ok(self.append(rows, &paths, &labels, (&singles, &continues, &present), set))
    }

    fn append(
        &self,
        rows: usize,
        paths: &[ByteArray],
        labels: &[i64],
        (values, continues, present): (&[f32], &[i16], &[i16]),
        set: &mut EmbeddingSet,
    ) -> Result<(), String> {
        let first = set.len();
        if paths.len() != rows || labels.len() != rows {
            return Err(format!(
                "expected {rows} paths and labels, found {} and {}: null values are not allowed",
                paths.len(),
                labels.len()
            ));
        }
        if values.len() != present.len() || present.iter().any(|&level| level != self.present) {
            return Err("an embedding is null, empty or has a null element; expected a number everywhere".into());
        }
        let starts = continues.iter().filter(|&&level| level == 0).count();
        let dim = values.len().checked_div(rows).unwrap_or(0);
        let even = continues
            .iter()
            .enumerate()
            .all(|(at, &level)| (level == 0) == at.is_multiple_of(dim.max(1)));
        if starts != rows || !even || (first > 0 && rows > 0 && set.dim != dim) {
            return Err("the embeddings are not all of one width".into());
        }
        if rows > 0 {
            set.dim = dim;
        }
        for (offset, (path, &label)) in paths.iter().zip(labels).enumerate() {
            let row = first + offset;
            let id = std::str::from_utf8(path.data()).map_err(|_| format!("the path of row {row} is not text"))?;
            set.ids.push(id.to_owned());
            set.labels.push(
                u32::try_from(label)
                    .map_err(|_| format!("the label of row {row} is {label}; expected 0 to {}", u32::MAX))?,
            );
        }
        set.values.extend_from_slice(values);
        Ok(())
    }
}
