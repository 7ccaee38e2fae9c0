//! In-Shop Clothes Retrieval of DeepFashion (Liu et al. 2016): `list_eval_partition.txt`, query and gallery apart.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::assemble::{ClassNames, Record, assemble};
use super::scan::{malformed, text};
use super::{Layout, LayoutReader, published, thousands};
use crate::data::dataset::{DataError, Dataset, Part, Source};

pub(super) struct InShop;

const LIST: &str = "list_eval_partition.txt";

impl LayoutReader for InShop {
    fn layout(&self) -> Layout {
        Layout::InShop
    }

    fn describe(&self) -> &'static str {
        "In-Shop Clothes Retrieval: Eval/list_eval_partition.txt and Img/img/ (query and gallery apart)"
    }

    fn recognise(&self, path: &Path) -> bool {
        list(path).is_some()
    }

    fn read(&self, path: &Path) -> Result<Dataset, DataError> {
        let Some((root, list)) = list(path) else {
            return Err(DataError::Missing {
                what: "the partition list of In-Shop".to_owned(),
                path: path.join("Eval").join(LIST),
            });
        };
        let mut notes = Vec::new();
        let images = images(&root, &mut notes);
        let content = text(&list, "the partition list of In-Shop")?;
        let mut lines = (1..).zip(content.lines());
        let declared = lines.next().and_then(|(_, line)| line.trim().parse::<usize>().ok());
        let Some(declared) = declared else {
            return Err(malformed(&list, "line 1: the number of images was expected"));
        };
        let header: Vec<&str> = lines
            .next()
            .map(|(_, line)| line.split_whitespace().collect())
            .unwrap_or_default();
        if header != ["image_name", "item_id", "evaluation_status"] {
            let problem = format!(
                "line 2: the header `image_name item_id evaluation_status` was expected, `{}` found (the list of another \
                 DeepFashion benchmark?)",
                header.join(" ")
            );
            return Err(malformed(&list, problem));
        }
        let mut records = Vec::new();
        let mut names = ClassNames::new();
        let mut seen = HashSet::new();
        for (line, content) in lines {
            let cells: Vec<&str> = content.split_whitespace().collect();
            let (file, item, status) = match cells.as_slice() {
                [] => continue,
                [file, item, status] => (*file, *item, *status),
                _ => {
                    let problem = format!(
                        "line {line}: `image item status` was expected, `{}` found",
                        content.trim()
                    );
                    return Err(malformed(&list, problem));
                }
            };
            let part = match status {
                "train" => Part::Train,
                "query" => Part::Query,
                "gallery" => Part::Gallery,
                other => {
                    let problem = format!("line {line}: train, query or gallery was expected, `{other}` found");
                    return Err(malformed(&list, problem));
                }
            };
            let digits = item.trim_start_matches(|letter: char| !letter.is_ascii_digit());
            let Ok(number) = digits.parse::<u32>() else {
                let problem = format!("line {line}: an item like id_00000002 was expected, `{item}` found");
                return Err(malformed(&list, problem));
            };
            if !seen.insert(file) {
                return Err(malformed(&list, format!("line {line}: `{file}` is listed twice")));
            }
            let inside = file.strip_prefix("img/").unwrap_or(file);
            names
                .entry(number)
                .or_insert_with(|| (item.to_owned(), category(inside)));
            records.push(Record::new(Source::File(images.join(inside)), number, part));
        }
        if records.is_empty() {
            return Err(malformed(&list, "the list has a header and no images"));
        }
        if declared != records.len() {
            notes.push(format!(
                "The first line of {LIST} declares {} images, and {} are listed.",
                thousands(declared),
                thousands(records.len())
            ));
        }
        let mut dataset = assemble(Layout::InShop, &root, records, &names, Vec::new(), notes);
        published::IN_SHOP.note(&mut dataset);
        Ok(dataset)
    }
}

/// The root folder and its list.
fn list(path: &Path) -> Option<(PathBuf, PathBuf)> {
    if path.file_name().is_some_and(|name| name == "Eval") && path.join(LIST).is_file() {
        return Some((path.parent()?.to_owned(), path.join(LIST)));
    }
    [
        path.to_owned(),
        path.join("In-shop Clothes Retrieval Benchmark"),
        path.join("In-shop"),
    ]
    .into_iter()
    .find_map(|root| {
        let list = [root.join("Eval").join(LIST), root.join(LIST)]
            .into_iter()
            .find(|list| list.is_file())?;
        Some((root, list))
    })
}

/// The folder the paths after `img/` are relative to.
fn images(root: &Path, notes: &mut Vec<String>) -> PathBuf {
    let small = [root.join("Img/img"), root.join("img")];
    let large = [root.join("Img/img_highres"), root.join("img_highres")];
    if let Some(folder) = small.iter().find(|folder| folder.is_dir()) {
        return folder.clone();
    }
    if let Some(folder) = large.iter().find(|folder| folder.is_dir()) {
        notes.push("The images are those of img_highres; published results use the 256 x 256 ones of img.".to_owned());
        return folder.clone();
    }
    root.join("Img/img")
}

/// The two folders after `img/`, for example `WOMEN/Dresses`.
fn category(inside: &str) -> Option<String> {
    let mut folders = inside.split('/');
    let (first, second) = (folders.next()?, folders.next()?);
    folders.next()?;
    Some(format!("{first}/{second}"))
}
