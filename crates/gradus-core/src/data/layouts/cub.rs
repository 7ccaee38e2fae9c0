//! CUB-200-2011 (Wah et al. 2011): `images.txt`, `image_class_labels.txt`, `classes.txt`, `images/`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::assemble::{ClassNames, Record, assemble};
use super::scan::{leading_number, malformed, text};
use super::{Layout, LayoutReader, published};
use crate::data::dataset::{DataError, Dataset, Part, Source};

pub(super) struct Cub;

impl LayoutReader for Cub {
    fn layout(&self) -> Layout {
        Layout::Cub
    }

    fn describe(&self) -> &'static str {
        "CUB-200-2011: images.txt, image_class_labels.txt, classes.txt and images/"
    }

    fn recognise(&self, path: &Path) -> bool {
        let root = root(path);
        root.join("images.txt").is_file() && root.join("image_class_labels.txt").is_file()
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        let root = root(path);
        let images_path = root.join("images.txt");
        let images = numbered(&images_path, "the list of images of CUB-200-2011")?;
        let labels_path = root.join("image_class_labels.txt");
        let labels = numbered(&labels_path, "the list of labels of CUB-200-2011")?;
        let names = class_names(&root)?;

        let mut label_of: HashMap<u32, u32> = HashMap::with_capacity(labels.len());
        for (line, id, label) in &labels {
            let label: u32 = label.trim().parse().map_err(|_| {
                malformed(
                    &labels_path,
                    format!("line {line}: a class number was expected, `{label}` found"),
                )
            })?;
            if !names.is_empty() && !names.contains_key(&label) {
                return Err(malformed(
                    &labels_path,
                    format!("line {line}: class {label} is not in classes.txt"),
                ));
            }
            label_of.insert(*id, label);
        }
        if images.is_empty() {
            return Err(malformed(
                &images_path,
                "the list is empty; expected lines like `1 001.Name/Name_0001.jpg`",
            ));
        }
        let mut records = Vec::with_capacity(images.len());
        let mut elsewhere = 0;
        let mut folders = ClassNames::new();
        for (line, id, path) in &images {
            let Some(label) = label_of.remove(id) else {
                let problem = format!("line {line}: image {id} has no line in image_class_labels.txt");
                return Err(malformed(&images_path, problem));
            };
            if let Some((folder, _)) = path.split_once('/') {
                elsewhere += usize::from(leading_number(folder).is_some_and(|number| number != label));
                folders.entry(label).or_insert_with(|| (folder.to_owned(), None));
            }
            records.push(Record::new(
                Source::File(root.join("images").join(path)),
                label,
                Part::Unassigned,
            ));
        }
        if let Some(id) = label_of.keys().min() {
            let problem = format!(
                "{} labelled images, the first being {id}, are not in images.txt",
                label_of.len()
            );
            return Err(malformed(&labels_path, problem));
        }
        let mut notes = Vec::new();
        if elsewhere > 0 {
            notes.push(format!(
                "{elsewhere} images lie in a folder whose number is not their class."
            ));
        }
        if root.join("train_test_split.txt").is_file() {
            notes.push(
                "train_test_split.txt is the closed-set split (every class on both sides) and is not used: metric learning \
                 is tested on classes never trained on."
                    .to_owned(),
            );
        }
        let names = if names.is_empty() { folders } else { names };
        let mut dataset = assemble(Layout::Cub, &root, records, &names, Vec::new(), notes);
        published::CUB.note(&mut dataset);
        Ok(dataset)
    }
}

/// The folder with the lists: the given one or its `CUB_200_2011`.
fn root(path: &Path) -> PathBuf {
    let inner = path.join("CUB_200_2011");
    if !path.join("images.txt").is_file() && inner.is_dir() {
        inner
    } else {
        path.to_owned()
    }
}

fn class_names(root: &Path) -> Result<ClassNames, DataError> {
    let path = root.join("classes.txt");
    if !path.is_file() {
        return Ok(ClassNames::new());
    }
    let lines = numbered(&path, "the list of classes of CUB-200-2011")?;
    Ok(lines
        .into_iter()
        .map(|(_, number, name)| (number, (name, None)))
        .collect())
}

/// Lines `<number> <rest>` as (line, number, rest); blank lines are skipped, a number may appear once.
fn numbered(path: &Path, what: &str) -> Result<Vec<(usize, u32, String)>, DataError> {
    let mut seen: HashMap<u32, usize> = HashMap::new();
    let mut rows = Vec::new();
    for (line, content) in (1..).zip(text(path, what)?.lines()) {
        let content = content.trim();
        if content.is_empty() {
            continue;
        }
        let row = content.split_once(char::is_whitespace);
        let Some((number, rest)) = row.and_then(|(number, rest)| Some((number.parse().ok()?, rest.trim()))) else {
            return Err(malformed(
                path,
                format!("line {line}: `<number> <text>` was expected, `{content}` found"),
            ));
        };
        if let Some(first) = seen.insert(number, line) {
            return Err(malformed(
                path,
                format!("line {line}: number {number} was already given in line {first}"),
            ));
        }
        rows.push((line, number, rest.to_owned()));
    }
    Ok(rows)
}
