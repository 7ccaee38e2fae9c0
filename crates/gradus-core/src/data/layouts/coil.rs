//! COIL-20 and COIL-100 (Nene, Nayar and Murase 1996): objects on a turntable, the angle of every view known.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::assemble::{ClassNames, Record, assemble};
use super::scan::{entries, is_image, malformed};
use super::{Layout, LayoutReader, published};
use crate::data::dataset::{DataError, Dataset, Factor, Part, Source};

pub(super) struct Coil;

const COIL100: &str = "coil-100";
const COIL20: &str = "coil-20-proc";

impl LayoutReader for Coil {
    fn layout(&self) -> Layout {
        Layout::Coil
    }

    fn describe(&self) -> &'static str {
        "COIL-20 or COIL-100: obj<object>__<view>.png in one folder; the angle is a known factor"
    }

    fn recognise(&self, path: &Path) -> bool {
        let (folder, _) = folder(path);
        entries(&folder).is_ok_and(|found| {
            let mut images = found
                .iter()
                .filter(|entry| !entry.is_folder && is_image(&entry.path))
                .peekable();
            images.peek().is_some() && images.all(|entry| view(&entry.path).is_some())
        })
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        let (folder, both) = folder(path);
        let mut notes = Vec::new();
        if both {
            notes.push(format!(
                "{COIL100} and {COIL20} are both here and share objects, so only {COIL100} was read; give {COIL20} itself to \
                 use that."
            ));
        }
        let mut views = Vec::new();
        for entry in entries(&folder)?
            .into_iter()
            .filter(|entry| !entry.is_folder && is_image(&entry.path))
        {
            let Some((object, number)) = view(&entry.path) else {
                let name = entry.name.to_string_lossy().into_owned();
                let problem = format!("every image should be named obj<object>__<view>.png, `{name}` is not");
                return Err(malformed(&folder, problem));
            };
            views.push((object, number, entry.path));
        }
        if views.is_empty() {
            return Err(malformed(&folder, "no image named obj<object>__<view>.png was found"));
        }
        views.sort();
        let twenty = is_twenty(&folder, &views);
        let (degrees, largest) = if twenty { (5, 71) } else { (1, 359) };
        let mut names = ClassNames::new();
        let mut seen = HashSet::new();
        let mut records = Vec::with_capacity(views.len());
        for (object, number, file) in views {
            if number > largest {
                return Err(malformed(
                    &file,
                    format!("view {number} is beyond {largest}, the last one of a turn"),
                ));
            }
            if !seen.insert((object, number)) {
                return Err(malformed(
                    &file,
                    format!("view {number} of object {object} is there twice"),
                ));
            }
            names.entry(object).or_insert_with(|| (format!("obj{object}"), None));
            records.push(Record {
                source: Source::File(file),
                number: object,
                part: Part::Unassigned,
                factors: vec![(number * degrees) as f32],
            });
        }
        let factors = vec![Factor {
            name: "angle".to_owned(),
            period: Some(360.0),
        }];
        let mut dataset = assemble(Layout::Coil, &folder, records, &names, factors, notes);
        if twenty {
            published::COIL20.note(&mut dataset)
        } else {
            published::COIL100.note(&mut dataset)
        }
        Ok(dataset)
    }
}

/// The folder with the views, and whether the other set lies beside it.
fn folder(path: &Path) -> (PathBuf, bool) {
    let (hundred, twenty) = (path.join(COIL100), path.join(COIL20));
    match (hundred.is_dir(), twenty.is_dir()) {
        (true, both) => (hundred, both),
        (false, true) => (twenty, false),
        (false, false) => (path.to_owned(), false),
    }
}

/// Object and view of a file name.
fn view(path: &Path) -> Option<(u32, u32)> {
    let (object, number) = path.file_stem()?.to_str()?.strip_prefix("obj")?.split_once("__")?;
    Some((object.parse().ok()?, number.parse().ok()?))
}

/// COIL-20 counts views (0-71), COIL-100 names degrees: told by the folder's name, else by the numbers.
fn is_twenty(folder: &Path, views: &[(u32, u32, PathBuf)]) -> bool {
    let name = folder
        .file_name()
        .map(|name| name.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    if name.contains("100") {
        return false;
    }
    if name.contains("coil-20") || name.contains("coil20") || name.contains("coil_20") {
        return true;
    }
    views.iter().all(|(_, number, _)| *number <= 71) && views.iter().any(|(_, number, _)| number % 5 != 0)
}
