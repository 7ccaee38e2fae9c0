//! The table beside formats that only hold numbers: `row,path,label`.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{EmbeddingFileError, EmbeddingSet};
use crate::files::write_atomically;

const HEADER: [&str; 3] = ["row", "path", "label"];

pub(super) fn write(set: &EmbeddingSet, path: &Path) -> Result<(), EmbeddingFileError> {
    if path.exists() && !is_ours(path) {
        return Err(EmbeddingFileError::Unwritable {
            path: path.into(),
            problem:
                "a file that gradus did not write stands there (its first line is not \"row,path,label\") and would be \
                      overwritten by the paths and labels of the rows; choose another name for the embeddings"
                    .into(),
        });
    }
    write_atomically(path, |file| {
        let mut table = csv::Writer::from_writer(file);
        table.write_record(HEADER)?;
        for (row, (id, label)) in set.ids.iter().zip(&set.labels).enumerate() {
            table.write_record([row.to_string().as_str(), id, label.to_string().as_str()])?;
        }
        table.flush()
    })
    .map_err(|source| EmbeddingFileError::Write {
        path: path.into(),
        source,
    })
}

pub(super) fn is_ours(path: &Path) -> bool {
    let Ok(file) = std::fs::File::open(path) else {
        return false;
    };
    let mut line = String::new();
    // A foreign file may have no line end at all: look no farther than the header could reach.
    let found = BufReader::new(file.take(64)).read_line(&mut line);
    found.is_ok() && line.trim_end() == HEADER.join(",")
}

/// Paths and labels of the rows of `embeddings`.
pub(super) fn read(path: &Path, embeddings: &Path) -> Result<(Vec<String>, Vec<u32>), EmbeddingFileError> {
    let file = std::fs::File::open(path).map_err(|source| {
        if source.kind() == std::io::ErrorKind::NotFound {
            let problem = format!(
                "not found; expected the table row,path,label of {} there",
                embeddings.display()
            );
            EmbeddingFileError::malformed(path, problem)
        } else {
            EmbeddingFileError::Read {
                path: path.into(),
                source,
            }
        }
    })?;
    let mut table = csv::Reader::from_reader(file);
    let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
    let header = table.headers().map_err(|error| malformed(error.to_string()))?;
    if header.iter().ne(HEADER) {
        let found: Vec<&str> = header.iter().take(8).collect();
        return Err(malformed(format!(
            "expected the columns row,path,label, found {}",
            found.join(",")
        )));
    }
    let (mut ids, mut labels) = (Vec::new(), Vec::new());
    for (row, record) in table.records().enumerate() {
        let record = record.map_err(|error| malformed(error.to_string()))?;
        let line = row + 2;
        if record.get(0) != Some(row.to_string().as_str()) {
            return Err(malformed(format!(
                "line {line}: expected row {row}, found {}",
                record.get(0).unwrap_or_default()
            )));
        }
        let label = record.get(2).unwrap_or_default();
        let label = label.parse().map_err(|_| {
            malformed(format!(
                "line {line}: expected a label between 0 and {}, found \"{label}\"",
                u32::MAX
            ))
        })?;
        ids.push(record.get(1).unwrap_or_default().to_owned());
        labels.push(label);
    }
    Ok((ids, labels))
}
