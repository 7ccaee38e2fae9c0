//! Cars196 (Krause et al. 2013) in its three layouts: `cars_annos.mat`, the devkit, and folders with `anno_*.csv`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::assemble::{ClassNames, Record, assemble};
use super::mat::{self, StructArray, Value};
use super::scan::{malformed, text};
use super::{Layout, LayoutReader, published, thousands};
use crate::data::dataset::{DataError, Dataset, Part, Source};

pub(super) struct Cars196;

const ONE_FILE: &str = "cars_annos.mat";
const TRAIN: &str = "cars_train_annos.mat";
const TEST: &str = "cars_test_annos.mat";
const TEST_LABELLED: &str = "cars_test_annos_withlabels.mat";
const META: &str = "cars_meta.mat";

impl LayoutReader for Cars196 {
    fn layout(&self) -> Layout {
        Layout::Cars196
    }

    fn describe(&self) -> &'static str {
        "Cars196: car_ims/ and cars_annos.mat, or cars_train/, cars_test/ and devkit/, or anno_train.csv and names.csv"
    }

    fn recognise(&self, path: &Path) -> bool {
        path.join(ONE_FILE).is_file() || devkit(path).is_some() || csv_folder(path).is_some()
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        let mut dataset = if path.join(ONE_FILE).is_file() {
            one_file(path)?
        } else if let Some(devkit) = devkit(path) {
            from_devkit(path, &devkit)?
        } else if let Some(lists) = csv_folder(path) {
            from_folders(&lists)?
        } else {
            return Err(DataError::Missing {
                what: format!("the annotations of Cars196 ({ONE_FILE}, or a devkit with {TRAIN}, or anno_train.csv)"),
                path: path.to_owned(),
            });
        };
        published::CARS.note(&mut dataset);
        Ok(dataset)
    }
}

/// The devkit folder: the given one or its `devkit`.
fn devkit(path: &Path) -> Option<PathBuf> {
    [path.to_owned(), path.join("devkit")]
        .into_iter()
        .find(|folder| folder.join(TRAIN).is_file())
}

/// The folder with `anno_train.csv`.
fn csv_folder(path: &Path) -> Option<PathBuf> {
    [path.to_owned(), path.join("car_data")]
        .into_iter()
        .find(|folder| folder.join("anno_train.csv").is_file())
}

/// Takes a variable out of a file.
fn variable(path: &Path, name: &str) -> Result<Value, DataError> {
    let variables = mat::read(path)?;
    let names: Vec<String> = variables.iter().map(|(name, _)| name.clone()).collect();
    let found = variables.into_iter().find(|(found, _)| found == name);
    found.map(|(_, value)| value).ok_or_else(|| {
        malformed(
            path,
            format!("a variable `{name}` was expected, the file holds: {}", names.join(", ")),
        )
    })
}

fn annotations(path: &Path) -> Result<StructArray, DataError> {
    match variable(path, "annotations")? {
        Value::Struct(annotations) if annotations.len() > 0 => Ok(annotations),
        _ => Err(malformed(
            path,
            "`annotations` should be a struct array with one element per image",
        )),
    }
}

fn field(path: &Path, annotations: &StructArray, name: &str) -> Result<usize, DataError> {
    annotations.field(name).ok_or_else(|| {
        let found = annotations.fields().join(", ");
        malformed(
            path,
            format!("`annotations` should have the field `{name}`; it has: {found}"),
        )
    })
}

fn class_names(path: &Path, value: &Value) -> Result<ClassNames, DataError> {
    let Value::Cell(cells) = value else {
        return Err(malformed(path, "`class_names` should be a cell array of text"));
    };
    let mut names = ClassNames::new();
    for (number, cell) in (1..).zip(cells) {
        let Some(name) = cell.text() else {
            return Err(malformed(path, format!("class name {number} is no text")));
        };
        names.insert(number, (name.to_owned(), None));
    }
    Ok(names)
}

/// One annotated image: file name as given and class.
fn rows(
    path: &Path,
    annotations: &StructArray,
    file: &str,
    names: &ClassNames,
) -> Result<Vec<(String, u32)>, DataError> {
    let file = field(path, annotations, file)?;
    let class = field(path, annotations, "class")?;
    let mut seen = HashSet::new();
    let mut rows = Vec::with_capacity(annotations.len());
    for element in 0..annotations.len() {
        let name = annotations
            .get(element, file)
            .and_then(Value::text)
            .filter(|name| !name.is_empty());
        let class = annotations.get(element, class).and_then(Value::whole);
        let (Some(name), Some(class)) = (name, class) else {
            let problem = format!(
                "annotation {}: a file name and a whole class number were expected",
                element + 1
            );
            return Err(malformed(path, problem));
        };
        if class == 0 || (!names.is_empty() && !names.contains_key(&class)) {
            let problem = format!(
                "annotation {}: class {class} is not among the {} class names",
                element + 1,
                names.len()
            );
            return Err(malformed(path, problem));
        }
        if !seen.insert(name.to_owned()) {
            return Err(malformed(
                path,
                format!("annotation {}: `{name}` is listed twice", element + 1),
            ));
        }
        rows.push((name.to_owned(), class));
    }
    Ok(rows)
}

fn one_file(root: &Path) -> Result<Dataset, DataError> {
    let path = root.join(ONE_FILE);
    let variables = mat::read(&path)?;
    let names = match variables.iter().find(|(name, _)| name == "class_names") {
        Some((_, value)) => class_names(&path, value)?,
        None => ClassNames::new(),
    };
    let Some((_, Value::Struct(annotations))) = variables.iter().find(|(name, _)| name == "annotations") else {
        return Err(malformed(
            &path,
            "a struct array `annotations` with one element per image was expected",
        ));
    };
    if annotations.len() == 0 {
        return Err(malformed(&path, "`annotations` is empty"));
    }
    let records = rows(&path, annotations, "relative_im_path", &names)?
        .into_iter()
        .map(|(file, class)| Record::new(Source::File(root.join(file)), class, Part::Unassigned))
        .collect();
    Ok(assemble(Layout::Cars196, root, records, &names, Vec::new(), Vec::new()))
}

fn from_devkit(given: &Path, devkit: &Path) -> Result<Dataset, DataError> {
    // The images lie beside the devkit.
    let root = if given == devkit {
        match given.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => given.join(".."),
        }
    } else {
        given.to_owned()
    };
    let meta = devkit.join(META);
    let names = if meta.is_file() {
        class_names(&meta, &variable(&meta, "class_names")?)?
    } else {
        ClassNames::new()
    };

    let mut records = Vec::new();
    let mut notes = Vec::new();
    let train = devkit.join(TRAIN);
    append(
        &mut records,
        &root,
        "cars_train",
        rows(&train, &annotations(&train)?, "fname", &names)?,
    );
    let labelled = [devkit.join(TEST_LABELLED), root.join(TEST_LABELLED)]
        .into_iter()
        .find(|path| path.is_file());
    let test = devkit.join(TEST);
    if let Some(labelled) = labelled {
        append(
            &mut records,
            &root,
            "cars_test",
            rows(&labelled, &annotations(&labelled)?, "fname", &names)?,
        );
    } else if test.is_file() {
        let annotations = annotations(&test)?;
        if annotations.field("class").is_some() {
            append(
                &mut records,
                &root,
                "cars_test",
                rows(&test, &annotations, "fname", &names)?,
            );
        } else {
            notes.push(format!(
                "{TEST} lists {} test images without classes, as published, so they were left out; put {TEST_LABELLED} into \
                 the devkit to have all {} images.",
                thousands(annotations.len()),
                thousands(annotations.len() + records.len())
            ));
        }
    } else {
        notes.push(format!(
            "The devkit has no {TEST_LABELLED}, so only the images of {TRAIN} are known."
        ));
    }
    Ok(assemble(Layout::Cars196, &root, records, &names, Vec::new(), notes))
}

fn append(records: &mut Vec<Record>, root: &Path, folder: &str, rows: Vec<(String, u32)>) {
    // Some archives hold the folder twice (cars_train/cars_train/00001.jpg).
    let plain = root.join(folder);
    let nested = plain.join(folder);
    let folder = if nested.is_dir() { nested } else { plain };
    records.extend(
        rows.into_iter()
            .map(|(file, class)| Record::new(Source::File(folder.join(file)), class, Part::Unassigned)),
    );
}

/// Lists without header: `anno_{train,test}.csv` with `fname,x1,y1,x2,y2,class` and `names.csv` with one name a line.
fn from_folders(lists: &Path) -> Result<Dataset, DataError> {
    let names_path = lists.join("names.csv");
    let names: ClassNames = (1..)
        .zip(text(&names_path, "the class names of Cars196")?.lines())
        .map(|(number, name)| (number, (name.trim().trim_matches('"').to_owned(), None)))
        .filter(|(_, (name, _)): &(u32, (String, _))| !name.is_empty())
        .collect();
    let images = [
        lists.join("car_data/car_data"),
        lists.join("car_data"),
        lists.to_owned(),
    ]
    .into_iter()
    .find(|folder| folder.join("train").is_dir())
    .unwrap_or_else(|| lists.join("car_data/car_data"));
    let mut records = Vec::new();
    let mut notes = Vec::new();
    for side in ["train", "test"] {
        let path = lists.join(format!("anno_{side}.csv"));
        if side == "test" && !path.is_file() {
            notes.push("anno_test.csv is not there, so only the images of anno_train.csv are known.".to_owned());
            continue;
        }
        // File names repeat between train and test: only inside one list are they unique.
        let mut seen = HashSet::new();
        for (line, row) in (1..).zip(text(&path, "an annotation list of Cars196")?.lines()) {
            if row.trim().is_empty() {
                continue;
            }
            let cells: Vec<&str> = row.split(',').map(|cell| cell.trim().trim_matches('"')).collect();
            let (Some(file), Some(class)) = (
                cells.first().filter(|file| !file.is_empty()),
                cells.get(5).and_then(|class| class.parse::<u32>().ok()),
            ) else {
                let problem = format!("line {line}: `file name,x1,y1,x2,y2,class number` was expected, `{row}` found");
                return Err(malformed(&path, problem));
            };
            let Some((name, _)) = names.get(&class) else {
                return Err(malformed(
                    &path,
                    format!("line {line}: class {class} has no line in names.csv"),
                ));
            };
            if !seen.insert((*file).to_owned()) {
                return Err(malformed(&path, format!("line {line}: `{file}` is listed twice")));
            }
            let source = images.join(side).join(name.replace('/', "-")).join(file);
            records.push(Record::new(Source::File(source), class, Part::Unassigned));
        }
    }
    if records.is_empty() {
        return Err(malformed(&lists.join("anno_train.csv"), "the list is empty"));
    }
    Ok(assemble(Layout::Cars196, lists, records, &names, Vec::new(), notes))
}
