//! The one reader of arrays of numbers: `.npy`, `.npz` and `.safetensors`.
//!
//! Floats f2, f4, f8 (and BF16 in `.safetensors`), integers of any width and truth values, either byte order, C or Fortran
//! order. Every promise of a header is checked against the file before anything is allocated for it. Any other extension is
//! taken for `.npy`, whose signature tells whether it is.

use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use safetensors::tensor::SafeTensors;

use super::EmbeddingFileError;
use super::element::Element;
use super::npy::{Header, HeaderProblem};

/// How an array is found among several in a file.
pub(super) struct Role {
    /// What it may be called; the first is how it should be.
    pub(super) names: &'static [&'static str],
    /// Of arrays with other names, the only one that fits is taken; without a condition only one that is alone in its file.
    fits: Option<fn(&Array) -> bool>,
}

impl Role {
    pub(super) const EMBEDDINGS: Self = Self {
        names: &["embeddings", "embedding"],
        fits: Some(|array| array.shape.len() == 2 && array.element.is_float()),
    };
    pub(super) const LABELS: Self = Self {
        names: &["labels", "label"],
        fits: Some(|array| !array.element.is_float()),
    };

    /// An array that must be called by its name, or be the only one.
    pub(super) const fn named(names: &'static [&'static str]) -> Self {
        Self { names, fits: None }
    }

    /// The place of the array among `arrays`.
    fn find(&self, arrays: &[(String, Array)]) -> Option<usize> {
        let by_name = |name: &&str| arrays.iter().position(|(found, _)| found == name);
        self.names.iter().find_map(by_name).or_else(|| {
            let fits = |array| self.fits.map_or(arrays.len() == 1, |fits| fits(array));
            let mut fitting = (0..arrays.len()).filter(|&at| fits(&arrays[at].1));
            fitting.next().filter(|_| fitting.next().is_none())
        })
    }
}

/// An array in memory, as it lay in its file.
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) element: Element,
    /// The element type as the file writes it.
    pub(super) described: String,
    big_endian: bool,
    fortran: bool,
    bytes: Vec<u8>,
}

impl Array {
    /// The array of a role in a file.
    pub(super) fn read(path: &Path, role: &Role) -> Result<Self, EmbeddingFileError> {
        if holds_several(path) {
            return Arrays::read(path)?.take(role);
        }
        let file = File::open(path).map_err(EmbeddingFileError::read(path))?;
        let length = file.metadata().map_err(EmbeddingFileError::read(path))?.len();
        Self::parse_npy(&mut BufReader::new(file), length)
            .map_err(|problem| EmbeddingFileError::malformed(path, problem.text()))
    }

    fn parse_npy(reader: &mut (impl Read + Seek), length: u64) -> Result<Self, HeaderProblem> {
        let header = Header::read(reader, length)?;
        header.check_promise(length).map_err(HeaderProblem::Damaged)?;
        let held = length - header.start;
        let mut bytes = Vec::with_capacity(held as usize);
        reader
            .take(held)
            .read_to_end(&mut bytes)
            .map_err(|error| HeaderProblem::Damaged(error.to_string()))?;
        if bytes.len() as u64 != held {
            return Err(HeaderProblem::Damaged(
                "the file became shorter while it was read".into(),
            ));
        }
        Ok(Self {
            shape: header.shape,
            element: header.element,
            described: header.described,
            big_endian: header.big_endian,
            fortran: header.fortran,
            bytes,
        })
    }

    /// The sides of a matrix.
    pub(super) fn sides(&self) -> Result<[usize; 2], String> {
        <[usize; 2]>::try_from(self.shape.as_slice())
            .map_err(|_| format!("expected a matrix [rows, width], found the shape {:?}", self.shape))
    }

    /// The bytes of the elements of a vector or a matrix, row after row.
    fn elements(&self) -> impl Iterator<Item = &[u8]> {
        let size = self.element.bytes();
        let rows = self.shape.first().copied().unwrap_or(1);
        let columns = self.shape.get(1).copied().unwrap_or(1);
        (0..self.bytes.len() / size).map(move |at| {
            let place = if self.fortran {
                at % columns * rows + at / columns
            } else {
                at
            };
            &self.bytes[place * size..(place + 1) * size]
        })
    }

    /// The numbers of a vector or a matrix, row after row.
    pub(super) fn numbers(&self) -> impl Iterator<Item = f64> {
        self.elements().map(|bytes| self.element.number(bytes, self.big_endian))
    }

    /// [`numbers`](Self::numbers) in single precision.
    pub(super) fn singles(&self) -> Vec<f32> {
        if self.fortran {
            return self.numbers().map(|value| value as f32).collect();
        }
        let mut values = vec![0.0; self.bytes.len() / self.element.bytes()];
        self.element.singles(&self.bytes, self.big_endian, &mut values);
        values
    }

    /// The integers of a vector or a matrix, row after row.
    pub(super) fn integers(&self) -> impl Iterator<Item = i128> {
        self.elements()
            .map(|bytes| self.element.integer(bytes, self.big_endian))
    }
}

/// Whether arrays have names in this kind of file.
fn holds_several(path: &Path) -> bool {
    matches!(extension(path).as_str(), "npz" | "safetensors")
}

/// The extension in lower case, empty if there is none.
pub(super) fn extension(path: &Path) -> String {
    path.extension()
        .map(|extension| extension.to_string_lossy().to_lowercase())
        .unwrap_or_default()
}

/// All arrays of numbers in an `.npz` or `.safetensors` file; others are left out.
pub(super) struct Arrays<'a> {
    path: &'a Path,
    named: Vec<(String, Array)>,
}

impl<'a> Arrays<'a> {
    pub(super) fn read(path: &'a Path) -> Result<Self, EmbeddingFileError> {
        let named = if extension(path) == "npz" {
            from_npz(path)?
        } else {
            from_safetensors(path)?
        };
        Ok(Self { path, named })
    }

    /// The array of this name, if there is one.
    pub(super) fn called(&self, names: &[&str]) -> Option<&Array> {
        let find = |name: &&str| self.named.iter().find(|(found, _)| found == name);
        names.iter().find_map(find).map(|(_, array)| array)
    }

    /// Takes the array of a role out.
    pub(super) fn take(&mut self, role: &Role) -> Result<Array, EmbeddingFileError> {
        match role.find(&self.named) {
            Some(at) => Ok(self.named.swap_remove(at).1),
            None => Err(EmbeddingFileError::malformed(
                self.path,
                format!(
                    "expected an array called {}, or exactly one that could be it, found {}",
                    role.names[0],
                    self.found()
                ),
            )),
        }
    }

    /// What is there, for a message.
    pub(super) fn found(&self) -> String {
        let mut found: Vec<String> = self
            .named
            .iter()
            .map(|(name, array)| format!("{name} {:?}", array.shape))
            .collect();
        found.sort_unstable();
        found.truncate(8);
        if found.is_empty() {
            "none".into()
        } else {
            found.join(", ")
        }
    }
}

fn from_safetensors(path: &Path) -> Result<Vec<(String, Array)>, EmbeddingFileError> {
    let bytes = std::fs::read(path).map_err(EmbeddingFileError::read(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        let problem = format!("not a readable safetensors file (truncated or damaged): {error}");
        EmbeddingFileError::malformed(path, problem)
    })?;
    let known = file.tensors().into_iter().filter_map(|(name, tensor)| {
        let array = Array {
            shape: tensor.shape().to_vec(),
            element: Element::of_tensor(tensor.dtype())?,
            described: format!("{:?}", tensor.dtype()),
            big_endian: false,
            fortran: false,
            bytes: tensor.data().to_vec(),
        };
        Some((name, array))
    });
    Ok(known.collect())
}

fn from_npz(path: &Path) -> Result<Vec<(String, Array)>, EmbeddingFileError> {
    let malformed = |problem: String| EmbeddingFileError::malformed(path, problem);
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
        match Array::parse_npy(&mut Cursor::new(bytes), length) {
            Ok(array) => arrays.push((name, array)),
            Err(HeaderProblem::Element(_)) => {}
            Err(problem) => return Err(malformed(format!("the array {name}: {}", problem.text()))),
        }
    }
    Ok(arrays)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::tests::npy;
    use super::super::{
        Format, LabelKind, read_cameras, read_factors, read_item_labels, read_labels, read_matrix, read_parameters,
        read_rows, read_table, write,
    };
    use super::*;
    use crate::EmbeddingSet;

    fn npz(path: &Path, arrays: &[(&str, Vec<u8>)]) {
        let mut archive = zip::ZipWriter::new(File::create(path).unwrap());
        for (name, content) in arrays {
            let options = zip::write::SimpleFileOptions::default();
            archive.start_file(format!("{name}.npy"), options).unwrap();
            archive.write_all(content).unwrap();
        }
        archive.finish().unwrap();
    }

    fn floats(values: &[f64]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn every_role_finds_its_array_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.npz");
        let rows = ("embeddings", npy("<f8", "False", "(2, 1)", &floats(&[1.5, 2.5])));
        let names = ("names", npy("<U3", "False", "(2,)", &[0; 24]));
        npz(
            &path,
            &[
                rows.clone(),
                names.clone(),
                ("labels", npy("|u1", "False", "(2,)", &[3, 4])),
                ("cameras", npy("|u1", "False", "(2,)", &[5, 6])),
                ("parameters", npy(">f8", "False", "(1,)", &7.0_f64.to_be_bytes())),
                ("factors", npy("|i1", "True", "(2, 2)", &[1, 255, 3, 4])),
            ],
        );
        assert_eq!(read_matrix(&path).unwrap(), (1, vec![1.5, 2.5]));
        assert_eq!(read_labels(&path).unwrap(), [3, 4]);
        assert_eq!(read_cameras(&path).unwrap(), [5, 6]);
        let parameters = read_parameters(&path).unwrap();
        assert_eq!(
            (parameters.dim, parameters.values, parameters.is_double),
            (1, vec![7.0], true)
        );
        assert_eq!(read_factors(&path).unwrap(), (2, vec![1.0, 3.0, -1.0, 4.0]));

        npz(
            &path,
            &[rows.clone(), names.clone(), ("y", npy("|u1", "False", "(2,)", &[3, 4]))],
        );
        assert_eq!(read_labels(&path).unwrap(), [3, 4]);
        let message = read_cameras(&path).unwrap_err().to_string();
        assert!(
            message.contains("called cameras") && message.contains("y [2]"),
            "{message}"
        );
        assert!(read_parameters(&path).is_err());
        npz(&path, &[names, ("c", npy("|u1", "False", "(2,)", &[5, 6]))]);
        assert_eq!(read_cameras(&path).unwrap(), [5, 6], "the only array");
        assert!(
            read_matrix(&path)
                .unwrap_err()
                .to_string()
                .contains("called embeddings")
        );
        npz(&path, &[rows, ("other", npy("<f4", "False", "(1, 1)", &[0; 4]))]);
        assert_eq!(read_matrix(&path).unwrap().1, [1.5, 2.5]);
        let message = read_table(&path, Some(LabelKind::Classes)).unwrap();
        assert!(message.labels.is_none());
    }

    #[test]
    fn labels_beside_embeddings_are_read_as_what_they_are_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("all.npz");
        let rows = npy("<f8", "False", "(2, 1)", &floats(&[1.5, 2.5]));
        npz(
            &path,
            &[("x", rows), ("labels", npy("|u1", "False", "(2, 2)", &[3, 4, 3, 5]))],
        );
        let levels = crate::relations::Labels::Hierarchy(vec![vec![3, 4], vec![3, 5]].into());
        let read = |kind| read_table(&path, kind).map(|table| table.labels);
        assert_eq!(read(Some(LabelKind::Hierarchy)).unwrap(), Some(levels));
        assert!(read(None).unwrap_err().to_string().contains("two dimensions"));
        assert!(read(Some(LabelKind::Classes)).is_err());
        assert!(
            read_rows(&path).unwrap().labels.is_none(),
            "labels that nobody asked for do not matter"
        );

        let set = EmbeddingSet {
            dim: 1,
            values: vec![1.0],
            labels: vec![3],
            ids: vec!["a".into()],
        };
        for format in Format::ALL {
            let path = folder.path().join(format!("e.{}", format.extension()));
            write(&set, &path).unwrap();
            assert!(read_table(&path, Some(LabelKind::Classes)).unwrap().labels.is_some());
            assert!(read_table(&path, Some(LabelKind::Hierarchy)).is_err(), "{format:?}");
        }
    }

    #[test]
    fn rows_without_columns_are_an_empty_promise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("l.npy");
        fs::write(&path, npy("|u1", "False", "(4611686018427387904, 0)", &[])).unwrap();
        for kind in [None, Some(LabelKind::MultiLabel), Some(LabelKind::Hierarchy)] {
            let message = read_item_labels(&path, kind).unwrap_err().to_string();
            assert!(message.contains("holds no label"), "{message}");
        }
    }

    /// All readers, for their panics.
    fn read_all(path: &Path) {
        let _ = (
            read_table(path, None),
            read_rows(path),
            read_matrix(path),
            read_parameters(path),
        );
        let _ = (read_labels(path), read_cameras(path), read_factors(path));
        for kind in [None, Some(LabelKind::MultiLabel), Some(LabelKind::Hierarchy)] {
            let _ = read_item_labels(path, kind);
        }
    }

    #[test]
    fn no_cut_of_a_file_is_taken_for_whole() {
        let folder = tempfile::tempdir().unwrap();
        let set = EmbeddingSet {
            dim: 2,
            values: vec![1.0; 4],
            labels: vec![3, 4],
            ids: vec!["a".into(), "b".into()],
        };
        for extension in ["npy", "npz", "safetensors", "parquet"] {
            let path = folder.path().join(format!("e.{extension}"));
            if extension == "npz" {
                let rows = npy("<f4", "True", "(2, 2)", &[0; 16]);
                npz(
                    &path,
                    &[("embeddings", rows), ("labels", npy("|b1", "False", "(2,)", &[0, 1]))],
                );
            } else {
                write(&set, &path).unwrap();
            }
            let whole = fs::read(&path).unwrap();
            read_table(&path, None).unwrap();
            for length in 0..whole.len() {
                fs::write(&path, &whole[..length]).unwrap();
                assert!(
                    read_table(&path, None).is_err(),
                    "{extension} cut to {length} of {}",
                    whole.len()
                );
                read_all(&path);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damaged_files_never_panic(
            noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
            random in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let rows = npy("<f4", "True", "(2, 2)", &[0; 16]);
            let labels = npy("|u1", "False", "(2, 2)", &[0, 1, 1, 0]);
            let archive = folder.path().join("e.npz");
            npz(&archive, &[("embeddings", rows.clone()), ("labels", labels.clone())]);
            let set = EmbeddingSet { dim: 1, values: vec![1.0], labels: vec![3], ids: vec!["a".into()] };
            let tensors = folder.path().join("e.safetensors");
            write(&set, &tensors).unwrap();
            for (name, whole) in [
                ("e.npz", fs::read(&archive).unwrap()),
                ("e.safetensors", fs::read(&tensors).unwrap()),
                ("e.npy", rows),
                ("l.npy", labels),
            ] {
                let path = folder.path().join(name);
                let mut damaged = whole;
                for (place, value) in &noise {
                    let place = place.index(damaged.len());
                    damaged[place] = *value;
                }
                fs::write(&path, damaged).unwrap();
                read_all(&path);
                fs::write(&path, &random).unwrap();
                read_all(&path);
            }
        }
    }
}
