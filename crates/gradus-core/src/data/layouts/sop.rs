//! Stanford Online Products (Oh Song et al. 2016): `Ebay_train.txt` and `Ebay_test.txt`.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::assemble::{ClassNames, Record, assemble};
use super::scan::{malformed, text};
use super::{Layout, LayoutReader, published};
use crate::data::dataset::{DataError, Dataset, Part, Source};

pub(super) struct Sop;

const TRAIN: &str = "Ebay_train.txt";
const TEST: &str = "Ebay_test.txt";
/// Folders the lists are kept in, with images relative to the folder above.
const LIST_FOLDERS: [&str; 2] = ["Info_Files", "sop_layout"];

impl LayoutReader for Sop {
    fn layout(&self) -> Layout {
        Layout::Sop
    }

    fn describe(&self) -> &'static str {
        "Stanford Online Products: Ebay_train.txt and Ebay_test.txt, at the top, in Info_Files/ or in sop_layout/"
    }

    fn recognise(&self, path: &Path) -> bool {
        let lists = lists(path);
        lists.join(TRAIN).is_file() || lists.join(TEST).is_file()
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        let lists = lists(path);
        let mut rows = Vec::new();
        let mut ids = HashMap::new();
        let mut paths = HashSet::new();
        for (file, part) in [(TRAIN, Part::Train), (TEST, Part::Test)] {
            read_list(&lists.join(file), part, &mut ids, &mut paths, &mut rows)?;
        }
        let base = base(&lists, &rows[0].path);
        let names = names(&lists, &rows)?;
        let records = rows
            .into_iter()
            .map(|row| Record::new(Source::File(base.join(row.path)), row.class, row.part))
            .collect();
        let mut dataset = assemble(Layout::Sop, &base, records, &names, Vec::new(), Vec::new());
        published::SOP.note(&mut dataset);
        Ok(dataset)
    }
}

struct Row {
    class: u32,
    super_class: String,
    path: String,
    part: Part,
}

/// The folder the two lists lie in.
fn lists(path: &Path) -> PathBuf {
    let tops = [path.to_owned(), path.join("Stanford_Online_Products")];
    let all = tops
        .iter()
        .flat_map(|top| std::iter::once(top.clone()).chain(LIST_FOLDERS.iter().map(move |folder| top.join(folder))));
    all.into_iter()
        .find(|folder| folder.join(TRAIN).is_file() || folder.join(TEST).is_file())
        .unwrap_or(path.to_owned())
}

/// The folder the listed paths are relative to: where the first one is found, else what the folder names say.
fn base(lists: &Path, first: &str) -> PathBuf {
    let apart = lists
        .file_name()
        .is_some_and(|name| LIST_FOLDERS.iter().any(|folder| name == *folder));
    let above = match lists.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => lists.join(".."),
    };
    let top = if apart { above } else { lists.to_owned() };
    let candidates = [top.clone(), top.join("images"), lists.to_owned()];
    candidates
        .into_iter()
        .find(|folder| folder.join(first).is_file())
        .unwrap_or(top)
}

fn read_list(
    path: &Path,
    part: Part,
    ids: &mut HashMap<u32, String>,
    paths: &mut HashSet<String>,
    rows: &mut Vec<Row>,
) -> Result<(), DataError> {
    let content = text(
        path,
        "a list of Stanford Online Products (both Ebay_train.txt and Ebay_test.txt are needed)",
    )?;
    let mut lines = (1..).zip(content.lines());
    let header = lines
        .next()
        .map(|(_, header)| header.split_whitespace().collect::<Vec<_>>())
        .unwrap_or_default();
    if header != ["image_id", "class_id", "super_class_id", "path"] {
        let problem = format!(
            "line 1: the header `image_id class_id super_class_id path` was expected, `{}` found",
            header.join(" ")
        );
        return Err(malformed(path, problem));
    }
    let before = rows.len();
    for (line, content) in lines {
        if content.trim().is_empty() {
            continue;
        }
        let mut cells = content.split_whitespace();
        let id = cells.next().and_then(|cell| cell.parse::<u32>().ok());
        let class = cells.next().and_then(|cell| cell.parse::<u32>().ok());
        let super_class = cells.next();
        let file = cells.collect::<Vec<_>>().join(" ");
        let (Some(id), Some(class), Some(super_class), false) = (id, class, super_class, file.is_empty()) else {
            let problem =
                format!("line {line}: `image_id class_id super_class_id path` was expected, `{content}` found");
            return Err(malformed(path, problem));
        };
        if let Some(first) = ids.insert(id, format!("line {line} of {}", path.display())) {
            return Err(malformed(
                path,
                format!("line {line}: image id {id} was already given in {first}"),
            ));
        }
        if !paths.insert(file.clone()) {
            return Err(malformed(path, format!("line {line}: `{file}` is listed twice")));
        }
        rows.push(Row {
            class,
            super_class: super_class.to_owned(),
            path: file,
            part,
        });
    }
    if rows.len() == before {
        return Err(malformed(path, "the list has a header and no images"));
    }
    Ok(())
}

/// A class is named by its folder if it has one of its own, else by the listing's number in the file names.
fn names(lists: &Path, rows: &[Row]) -> Result<ClassNames, DataError> {
    let mut owner: HashMap<&str, Option<u32>> = HashMap::new();
    for row in rows {
        let folder = row.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        owner
            .entry(folder)
            .and_modify(|class| *class = class.filter(|class| *class == row.class))
            .or_insert(Some(row.class));
    }
    let mut names = ClassNames::new();
    let mut super_classes: HashMap<u32, &str> = HashMap::new();
    for row in rows {
        if *super_classes.entry(row.class).or_insert(&row.super_class) != row.super_class {
            let problem = format!("class {} has two super classes, e.g. at `{}`", row.class, row.path);
            return Err(malformed(lists, problem));
        }
        names.entry(row.class).or_insert_with(|| {
            let (folder, file) = row.path.rsplit_once('/').unwrap_or(("", &row.path));
            let last = folder.rsplit('/').next().unwrap_or(folder);
            let product = last.strip_suffix("_final");
            let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
            let listing = stem.rsplit_once('_').map_or(stem, |(listing, _)| listing);
            let own = product.is_none() && owner.get(folder).is_some_and(Option::is_some);
            let name = match product {
                _ if own && !last.is_empty() => last.to_owned(),
                Some(product) => format!("{product} {listing}"),
                None => row.class.to_string(),
            };
            (
                name,
                Some(product.map_or_else(|| row.super_class.clone(), str::to_owned)),
            )
        });
    }
    Ok(names)
}
