//! Omniglot (Lake et al. 2015): `images_background` and `images_evaluation`, as folders or straight from their archives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::archive;
use super::assemble::{ClassNames, Record, assemble};
use super::scan::{self, malformed};
use super::{Layout, LayoutReader, published};
use crate::data::dataset::{DataError, Dataset, Part, Source};

pub(super) struct Omniglot;

const PARTS: [&str; 2] = ["images_background", "images_evaluation"];

impl LayoutReader for Omniglot {
    fn layout(&self) -> Layout {
        Layout::Omniglot
    }

    fn describe(&self) -> &'static str {
        "Omniglot: images_background and images_evaluation as folders, .tar.gz or .zip; or one of them"
    }

    fn recognise(&self, path: &Path) -> bool {
        if path.is_file() {
            return archive::is_archive(path);
        }
        !sources(path).is_empty() || alphabets(path)
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        let mut sources = sources(path);
        if sources.is_empty() {
            sources = vec![path.to_owned()];
        }
        let mut dataset = read_parts(&sources)?;
        dataset.root = path.to_owned();
        Ok(dataset)
    }
}

/// One drawing, with what its path says.
struct Drawing {
    alphabet: String,
    character: String,
    /// 0 for background, 1 for evaluation; `None` when the path does not say.
    part: Option<usize>,
    /// Number before the `_` of the file name: the character's official number.
    number: Option<u32>,
    name: String,
    source: Source,
}

/// Folders and archives of the two parts in a folder; of each part the folder, else the archive, else small sets.
fn sources(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = scan::entries(path) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for part in PARTS {
        let matches = |wanted: &dyn Fn(&scan::Entry, &str) -> bool| -> Option<PathBuf> {
            let entry = entries
                .iter()
                .find(|entry| entry.name.to_str().is_some_and(|name| wanted(entry, name)))?;
            Some(entry.path.clone())
        };
        let folder = matches(&|entry, name| entry.is_folder && name == part && alphabets(&entry.path));
        let whole = || {
            matches(&|entry, name| {
                archive::is_archive(&entry.path) && name.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'))
            })
        };
        let small = || matches(&|entry, name| archive::is_archive(&entry.path) && name.starts_with(part));
        found.extend(folder.or_else(whole).or_else(small));
    }
    found
}

/// Whether a folder is made of `<Alphabet>/character01` folders.
fn alphabets(path: &Path) -> bool {
    scan::sub_folders(path).is_ok_and(|folders| {
        folders.iter().any(|folder| {
            scan::sub_folders(&folder.path)
                .is_ok_and(|inner| inner.iter().any(|entry| entry.name.to_str().is_some_and(is_character)))
        })
    })
}

fn is_character(name: &str) -> bool {
    name.strip_prefix("character")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Reads folders and archives; background trains and evaluation tests if both are there.
pub(super) fn read_parts(sources: &[PathBuf]) -> Result<Dataset, DataError> {
    let mut drawings = Vec::new();
    for source in sources {
        let before = drawings.len();
        if source.is_dir() {
            for image in scan::images_below(source)?.0 {
                let name = image.display().to_string();
                drawings.extend(drawing(name, Source::File(image)));
            }
        } else {
            let outer = source
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            for (name, bytes) in archive::images(source)? {
                let source = Source::Encoded {
                    name: name.clone(),
                    bytes: Arc::from(bytes),
                };
                // An archive may lack the top folder that names its part.
                if let Some(mut found) = drawing(name, source) {
                    found.part = found.part.or_else(|| part_of(&outer));
                    drawings.push(found);
                }
            }
        }
        if drawings.len() == before {
            return Err(malformed(
                source,
                "no drawings of Omniglot were found: images at <Alphabet>/character<NN>/<number>_<drawer>.png were expected. \
                 For other data unpack the archive to one folder per class",
            ));
        }
    }
    // An overlap (the same archive twice) would make every image its own nearest neighbour.
    drawings.sort_by(|a, b| {
        (a.part, &a.alphabet, &a.character, &a.name).cmp(&(b.part, &b.alphabet, &b.character, &b.name))
    });
    if let Some(pair) = drawings
        .windows(2)
        .find(|pair| pair[0].part == pair[1].part && pair[0].name == pair[1].name)
    {
        return Err(DataError::Unusable(format!(
            "the drawing `{}` was read twice: the given folders or archives overlap; give each part of Omniglot once",
            pair[0].name
        )));
    }
    let both = (0..2).all(|part| drawings.iter().any(|drawing| drawing.part == Some(part)));
    let numbers = numbers(&drawings);
    let mut names = ClassNames::new();
    let mut records = Vec::with_capacity(drawings.len());
    for drawing in drawings {
        let number = numbers[&(drawing.part, drawing.alphabet.clone(), drawing.character.clone())];
        let part = match drawing.part {
            Some(0) if both => Part::Train,
            Some(_) if both => Part::Test,
            _ => Part::Unassigned,
        };
        names.entry(number).or_insert_with(|| {
            (
                format!("{}/{}", drawing.alphabet, drawing.character),
                Some(drawing.alphabet),
            )
        });
        records.push(Record::new(drawing.source, number, part));
    }
    let root = sources.first().map_or_else(PathBuf::new, Clone::clone);
    let root = if sources.len() > 1 {
        root.parent().map_or(root.clone(), Path::to_owned)
    } else {
        root
    };
    let mut dataset = assemble(Layout::Omniglot, &root, records, &names, Vec::new(), Vec::new());
    published::OMNIGLOT.note(&mut dataset);
    Ok(dataset)
}

fn part_of(component: &str) -> Option<usize> {
    PARTS.iter().position(|part| component.starts_with(part))
}

/// Understands `…/<Alphabet>/character<NN>/<number>_<drawer>.png`; other images are none of Omniglot.
fn drawing(name: String, source: Source) -> Option<Drawing> {
    let components: Vec<&str> = name.split(['/', '\\']).collect();
    let [above @ .., alphabet, character, file] = components.as_slice() else {
        return None;
    };
    if !is_character(character) {
        return None;
    }
    let part = above.iter().rev().find_map(|component| part_of(component));
    let number = file.split_once('_').and_then(|(number, _)| number.parse().ok());
    Some(Drawing {
        alphabet: (*alphabet).to_owned(),
        character: (*character).to_owned(),
        part,
        number,
        source,
        name: name.clone(),
    })
}

/// Numbers of the characters: the official ones of the file names if they are consistent, else 1, 2, … in order.
fn numbers(drawings: &[Drawing]) -> BTreeMap<(Option<usize>, String, String), u32> {
    let mut official: BTreeMap<_, Option<u32>> = BTreeMap::new();
    for drawing in drawings {
        let key = (drawing.part, drawing.alphabet.clone(), drawing.character.clone());
        let number = official.entry(key).or_insert(drawing.number);
        if *number != drawing.number {
            *number = None;
        }
    }
    let distinct: std::collections::BTreeSet<u32> = official.values().flatten().copied().collect();
    let usable = distinct.len() == official.len();
    (1..)
        .zip(official)
        .map(|(place, (key, number))| (key, number.filter(|_| usable).unwrap_or(place)))
        .collect()
}
