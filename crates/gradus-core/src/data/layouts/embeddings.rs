//! Vectors that another model made, with a class each: metric learning without images.

use std::path::Path;
use std::sync::Arc;

use super::assemble::{ClassNames, Record, assemble};
use super::scan::malformed;
use super::{Layout, LayoutReader};
use crate::data::dataset::{DataError, Dataset, Item, Part, Source, Vectors};
use crate::embeddings::{self, EmbeddingFileError, EmbeddingTable, Format};

pub(super) struct Embeddings;

impl LayoutReader for Embeddings {
    fn layout(&self) -> Layout {
        Layout::Embeddings
    }

    fn describe(&self) -> &'static str {
        "vectors of another model: .npy with its table of labels, .npz, .safetensors or .parquet; a head is trained on them"
    }

    fn recognise(&self, path: &Path) -> bool {
        let npz = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("npz"));
        path.is_file() && (npz || Format::of(path).is_ok())
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        read_vectors(path, None)
    }
}

/// Reads vectors and the class of each: from the file of `labels`, else from what lies in or beside the file of vectors.
///
/// Classes are numbered from 0 in such files; the number of a class is that, not one more.
///
/// # Errors
/// A file that is missing, damaged or of another kind; vectors and labels that do not belong together; a vector that is not
/// finite or zero throughout.
pub fn read_vectors(path: &Path, labels: Option<&Path>) -> Result<Dataset, DataError> {
    let unreadable = |error: EmbeddingFileError| DataError::Unusable(error.to_string());
    let table = match labels {
        Some(_) => embeddings::read_rows(path),
        None => embeddings::read_table(path, None),
    }
    .map_err(unreadable)?;
    let EmbeddingTable { dim, values, .. } = table;
    let count = values.len() / dim.max(1);
    let classes = match (labels, table.labels) {
        (Some(labels), _) => {
            let classes = embeddings::read_labels(labels).map_err(unreadable)?;
            if classes.len() != count {
                return Err(malformed(
                    labels,
                    format!(
                        "{} labels, but {} holds {count} vectors: expected one label for each vector, in the same order",
                        classes.len(),
                        path.display()
                    ),
                ));
            }
            classes
        }
        (None, Some(labels)) => match labels.classes() {
            Some(classes) => classes.to_vec(),
            None => {
                return Err(malformed(
                    path,
                    "its labels are not one class per vector, which training needs",
                ));
            }
        },
        (None, None) => {
            let problem = "nothing says which class a vector belongs to: give the labels in a file of their own (--labels L.npy, \
                           data.labels)";
            return Err(malformed(path, problem));
        }
    };
    let records = sources(path, dim, values, table.ids)?.into_iter().zip(classes);
    let records = records.map(|(source, class)| Record::new(source, class, Part::Unassigned));
    Ok(assemble(
        Layout::Embeddings,
        path,
        records.collect(),
        &ClassNames::new(),
        Vec::new(),
        Vec::new(),
    ))
}

/// Reads vectors of which no class needs to be known, for embedding; classes that the file has are kept.
///
/// # Errors
/// As [`read_vectors`], but for the labels.
pub fn list_vectors(path: &Path) -> Result<Vec<Item>, DataError> {
    let table = embeddings::read_rows(path).map_err(|error| DataError::Unusable(error.to_string()))?;
    let labels = embeddings::read_table(path, None).ok().and_then(|table| table.labels);
    let classes = labels.as_ref().and_then(|labels| labels.classes());
    let sources = sources(path, table.dim, table.values, table.ids)?
        .into_iter()
        .enumerate();
    let items = sources.map(|(row, source)| Item {
        source,
        class: classes.as_ref().map_or(0, |classes| classes[row]),
        part: Part::Unassigned,
        factors: Vec::new(),
    });
    Ok(items.collect())
}

/// One source for each vector.
fn sources(path: &Path, dim: usize, values: Vec<f32>, names: Option<Vec<String>>) -> Result<Vec<Source>, DataError> {
    let count = values.len() / dim.max(1);
    if count == 0 {
        return Err(malformed(path, "there is no vector in it"));
    }
    for (row, vector) in values.chunks_exact(dim).enumerate() {
        let problem = if vector.iter().any(|value| !value.is_finite()) {
            "holds a value that is not finite"
        } else if vector.iter().all(|value| *value == 0.0) {
            "is zero throughout and has no direction"
        } else {
            continue;
        };
        return Err(malformed(path, format!("row {row} {problem}")));
    }
    let names = names.unwrap_or_else(|| (0..count).map(|row| row.to_string()).collect());
    let vectors = Arc::new(Vectors { dim, values });
    let sources = names.into_iter().enumerate().map(|(row, name)| {
        let vectors = Arc::clone(&vectors);
        Source::Vector { name, vectors, row }
    });
    Ok(sources.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::{EmbeddingSet, write, write_labels};

    #[test]
    fn vectors_come_with_their_own_labels_or_those_of_another_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.npy");
        let set = EmbeddingSet {
            dim: 2,
            values: vec![1.0, 0.0, 0.0, 2.0, 3.0, 3.0],
            labels: vec![7, 2, 7],
            ids: ["a.jpg", "b.jpg", "c.jpg"].map(str::to_owned).to_vec(),
        };
        write(&set, &path).unwrap();
        let read = super::super::read(&path, None).unwrap();
        assert_eq!((read.layout, read.vector_width()), (Layout::Embeddings, Some(2)));
        let numbers: Vec<u32> = read
            .items
            .iter()
            .map(|item| read.classes[item.class as usize].number)
            .collect();
        assert_eq!(numbers, [7, 2, 7]);
        assert_eq!(read.items[2].source.name(), "c.jpg");
        assert_eq!(read.items[1].source.vector().unwrap(), [0.0, 2.0]);

        let labels = folder.path().join("l.npy");
        write_labels(&labels, &[0, 1, 1]).unwrap();
        let read = read_vectors(&path, Some(&labels)).unwrap();
        assert_eq!(read.items.iter().map(|item| item.class).collect::<Vec<_>>(), [0, 1, 1]);
        write_labels(&labels, &[0, 1]).unwrap();
        let error = read_vectors(&path, Some(&labels)).unwrap_err().to_string();
        assert!(error.contains("2 labels") && error.contains("3 vectors"), "{error}");
        std::fs::remove_file(path.with_extension("csv")).unwrap();
        let error = read_vectors(&path, None).unwrap_err().to_string();
        assert!(error.contains("--labels"), "{error}");
    }

    #[test]
    fn vectors_without_direction_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("e.safetensors");
        for (value, word) in [(f32::NAN, "finite"), (0.0, "zero")] {
            let set = EmbeddingSet {
                dim: 2,
                values: vec![1.0, 0.0, value, 0.0],
                labels: vec![0, 1],
                ids: vec![String::new(); 2],
            };
            write(&set, &path).unwrap();
            let error = read_vectors(&path, None).unwrap_err().to_string();
            assert!(error.contains("row 1") && error.contains(word), "{error}");
        }
    }
}
