//! One folder per class, optionally below `train/` and `test/` (or `val/`, or `query/` and `gallery/`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::assemble::{ClassNames, Record, assemble};
use super::scan::{self, Entry, leading_number, malformed};
use super::{Layout, LayoutReader, thousands};
use crate::data::dataset::{DataError, Dataset, Part, Source};

pub(super) struct ImageFolder;

impl LayoutReader for ImageFolder {
    fn layout(&self) -> Layout {
        Layout::ImageFolder
    }

    fn describe(&self) -> &'static str {
        "one sub-folder per class; or train/ and test/ (or val/, or query/ and gallery/) with class folders in them"
    }

    fn generality(&self) -> u8 {
        2
    }

    fn recognise(&self, path: &Path) -> bool {
        let root = root(path);
        let Ok(folders) = scan::sub_folders(&root) else {
            return false;
        };
        if parts(&folders).is_some() {
            return true;
        }
        folders
            .iter()
            .any(|entry| scan::images_below(&entry.path).is_ok_and(|(images, _)| !images.is_empty()))
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        let root = root(path);
        let folders = scan::sub_folders(&root)?;
        if folders.is_empty() {
            return Err(super::unrecognised(&root));
        }
        let mut notes = Vec::new();
        let mut found: Vec<(OsString, PathBuf, Part)> = Vec::new();
        let mut others = 0;
        if let Some(parts) = parts(&folders) {
            let has_test = parts.iter().any(|(_, part)| matches!(part, Part::Test | Part::Query));
            for (folder, part) in parts {
                let part = match part {
                    Part::Unassigned if has_test => {
                        notes.push(format!(
                            "{} was left out: the test images are used, and validation classes are carved out of the training \
                             classes.",
                            folder.path.display()
                        ));
                        continue;
                    }
                    Part::Unassigned => Part::Test,
                    part => part,
                };
                let classes = scan::sub_folders(&folder.path)?;
                if classes.is_empty() {
                    return Err(malformed(
                        &folder.path,
                        "one sub-folder per class was expected here, there is none",
                    ));
                }
                others += class_images(classes, part, &mut found)?;
            }
        } else {
            let loose = scan::entries(&root)?
                .iter()
                .filter(|entry| !entry.is_folder && scan::is_image(&entry.path))
                .count();
            if loose > 0 {
                notes.push(format!(
                    "{} images directly in the folder have no class and were left out.",
                    thousands(loose)
                ));
            }
            others += class_images(folders, Part::Unassigned, &mut found)?;
        }
        if others > 0 {
            notes.push(format!("{} files that are no images were skipped.", thousands(others)));
        }
        let numbers = numbers(found.iter().map(|(name, _, _)| name).collect());
        let names: ClassNames = numbers
            .iter()
            .map(|(name, number)| (*number, (name.to_string_lossy().into_owned(), None)))
            .collect();
        let records = found
            .iter()
            .map(|(name, path, part)| Record::new(Source::File(path.clone()), numbers[name], *part))
            .collect();
        Ok(assemble(Layout::ImageFolder, &root, records, &names, Vec::new(), notes))
    }
}

/// Adds the images of class folders; returns how many other files lie there.
fn class_images(
    classes: Vec<Entry>,
    part: Part,
    found: &mut Vec<(OsString, PathBuf, Part)>,
) -> Result<usize, DataError> {
    let mut others = 0;
    for class in classes {
        let (images, skipped) = scan::images_below(&class.path)?;
        if images.is_empty() {
            return Err(malformed(
                &class.path,
                format!(
                    "this class folder holds no image (jpg, png, bmp, gif, tiff or webp; {skipped} other files); add images \
                     or remove the folder"
                ),
            ));
        }
        others += skipped;
        found.extend(images.into_iter().map(|path| (class.name.clone(), path, part)));
    }
    Ok(others)
}

/// The folder with the class folders: the given one, or its `images` when nothing else there holds images.
fn root(path: &Path) -> PathBuf {
    let inner = path.join("images");
    if !inner.is_dir() || scan::holds_image(&inner) || scan::holds_image(path) {
        return path.to_owned();
    }
    let alone = scan::sub_folders(path).is_ok_and(|folders| {
        folders.iter().all(|folder| {
            folder.name == "images" || scan::images_below(&folder.path).is_ok_and(|(images, _)| images.is_empty())
        })
    });
    let classes =
        scan::sub_folders(&inner).is_ok_and(|folders| folders.iter().any(|folder| scan::holds_image(&folder.path)));
    if alone && classes { inner } else { path.to_owned() }
}

/// The folders as parts of a protocol, if that is what all of them are; a validation folder is still unassigned.
fn parts(folders: &[Entry]) -> Option<Vec<(&Entry, Part)>> {
    let parts: Option<Vec<(&Entry, Part)>> = folders
        .iter()
        .map(|folder| {
            // A class may be called like a part: parts have class folders inside, classes have images.
            if scan::holds_image(&folder.path) {
                return None;
            }
            let part = match folder.name.to_str()?.to_ascii_lowercase().as_str() {
                "train" | "training" => Part::Train,
                "test" | "testing" => Part::Test,
                "val" | "valid" | "validation" => Part::Unassigned,
                "query" => Part::Query,
                "gallery" => Part::Gallery,
                _ => return None,
            };
            Some((folder, part))
        })
        .collect();
    let parts = parts?;
    let has = |wanted: &[Part]| parts.iter().any(|(_, part)| wanted.contains(part));
    let apart = has(&[Part::Query]) && has(&[Part::Gallery]) && !has(&[Part::Test]);
    let together = has(&[Part::Test, Part::Unassigned]) && !has(&[Part::Query, Part::Gallery]);
    (has(&[Part::Train]) && (apart || together)).then_some(parts)
}

/// Class numbers: those the folder names start with (`001.Albatross`) if all do, and differ; else 1, 2, … in byte order.
fn numbers(names: BTreeSet<&OsString>) -> BTreeMap<OsString, u32> {
    let leading: Vec<Option<u32>> = names
        .iter()
        .map(|name| name.to_str().and_then(leading_number))
        .collect();
    let distinct: BTreeSet<u32> = leading.iter().flatten().copied().collect();
    let numbered = distinct.len() == names.len();
    names
        .into_iter()
        .zip(leading)
        .zip(1..)
        .map(|((name, leading), place)| (name.clone(), leading.filter(|_| numbered).unwrap_or(place)))
        .collect()
}
