//! `gradus search`

mod gallery;

use std::path::Path;
use std::sync::Arc;

use gradus::train::embed::{Images, Output, embed};
use gradus::train::prepare;
use gradus_core::data::{Item as Image, Part, Source};
use gradus_core::embeddings::{NpyRows, read_companion, read_rows};
use gradus_core::files::write_atomically;
use gradus_index::{Answer, Filter, Hit};
use serde_json::{Value, json};

use super::index::{Target, run_of};
use super::trained::{load_embedder, model_of, stored_layers};
use crate::arguments::Search;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// A query with what it was taken for.
struct Searched {
    name: String,
    /// Its picture, if it is one.
    image: Option<Source>,
    answer: Answer,
}

pub(crate) fn run(arguments: &Search) -> Outcome {
    if let Some(threshold) = arguments.threshold
        && !(-1.0..=1.0).contains(&threshold)
    {
        return Err(Failure::new(format!(
            "--threshold {threshold}: a score is a cosine similarity between -1 and 1"
        )));
    }
    let index = Target::open(&arguments.place)?;
    let filter = Filter::parse(&arguments.filters, &index.fields())?;
    let queries = match &arguments.embeddings {
        Some(path) => embeddings(path, arguments.row)?,
        None => images(&index, arguments)?,
    };
    let mut searched = Vec::with_capacity(queries.len());
    for (name, image, vector) in queries {
        let answer = index.identify(&vector, arguments.k as usize, &filter, arguments.threshold)?;
        searched.push(Searched { name, image, answer });
    }
    if let Some(path) = &arguments.html {
        let page = gallery::page(
            index.count()?,
            index.image_root().as_deref(),
            &searched,
            &arguments.filters,
        );
        write_atomically(path, |file| file.write_all(page.as_bytes()))?;
    }
    if arguments.json {
        let queries: Result<Vec<Value>, _> = searched.iter().map(to_json).collect();
        return output::json(&json!({
            "index": index.name(), "engine": index.engine()?, "k": arguments.k, "filter": arguments.filters,
            "queries": queries?,
        }));
    }
    let texts: Vec<String> = searched.iter().map(text).collect();
    let mut text = texts.join("\n\n");
    if let Some(path) = &arguments.html {
        text.push_str(&format!("\nwritten: {}", path.display()));
    }
    output::text(&text)
}

fn to_json(searched: &Searched) -> Result<Value, serde_json::Error> {
    let mut value = json!({"query": searched.name});
    if let (Some(object), Value::Object(answer)) = (value.as_object_mut(), serde_json::to_value(&searched.answer)?) {
        object.extend(answer);
    }
    Ok(value)
}

/// What is said of an answer in one line.
fn verdict(answer: &Answer) -> String {
    let bound = answer
        .threshold
        .map_or_else(String::new, |threshold| format!(" (threshold {threshold:.4})"));
    match (&answer.class, answer.unknown, answer.hits.is_empty()) {
        (_, _, true) => "nothing to find".to_owned(),
        (_, true, _) => format!("unknown{bound}"),
        (Some(class), false, _) => format!("{class}{bound}"),
        (None, false, _) => format!("a match{bound}"),
    }
}

fn text(searched: &Searched) -> String {
    let heading = ["score", "item", "class"].map(str::to_owned).to_vec();
    let rows = searched.answer.hits.iter().map(|hit| {
        let payload = if hit.payload.is_empty() {
            String::new()
        } else {
            Value::Object(hit.payload.clone()).to_string()
        };
        vec![
            format!("{:.4}", hit.score),
            hit.id.clone(),
            hit.class.clone().unwrap_or_default(),
            payload,
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(heading).chain(rows).collect();
    format!("{}: {}\n{}", searched.name, verdict(&searched.answer), columns(&rows))
}

/// Left-aligned columns.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

type Query = (String, Option<Source>, Vec<f32>);

/// Rows of a file as queries.
fn embeddings(path: &Path, row: Option<usize>) -> Result<Vec<Query>, Failure> {
    let is_npy = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
    let table = if is_npy { None } else { Some(read_rows(path)?) };
    let (rows, dim, names) = match &table {
        Some(table) => (table.values.len() / table.dim.max(1), table.dim, table.ids.clone()),
        None => {
            let rows = NpyRows::open(path)?;
            (rows.len(), rows.dim(), read_companion(path)?.map(|(names, _)| names))
        }
    };
    if let Some(row) = row.filter(|row| *row >= rows) {
        return Err(Failure::new(format!(
            "--row {row}: {} has {rows} rows, counted from 0",
            path.display()
        )));
    }
    let chosen = row.map_or(0..rows, |row| row..row + 1);
    let mut buffer = Vec::new();
    let values = match &table {
        Some(table) => &table.values[chosen.start * dim..chosen.end * dim],
        None => {
            NpyRows::open(path)?.read(chosen.clone(), &mut buffer)?;
            &buffer
        }
    };
    let queries = chosen.zip(values.chunks_exact(dim)).map(|(row, vector)| {
        let name = names.as_ref().and_then(|names| names.get(row).cloned());
        let image = name
            .as_ref()
            .map(std::path::PathBuf::from)
            .filter(|path| path.is_file())
            .map(Source::File);
        (name.unwrap_or_else(|| format!("row {row}")), image, vector.to_vec())
    });
    Ok(queries.collect())
}

/// Images as queries, embedded by the run of the index.
fn images(index: &Target, arguments: &Search) -> Result<Vec<Query>, Failure> {
    let run = run_of(index, arguments.run.as_ref())?;
    let mut layers = stored_layers(&run)?;
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    let config = layers.resolve()?;
    index.check_model(&model_of(&run, &config)?)?;
    if let Some(missing) = arguments.images.iter().find(|path| !path.is_file()) {
        return Err(Failure::new(format!(
            "{} is no file: give image files to search for (check the spelling)",
            missing.display()
        )));
    }
    let items: Arc<[Image]> = arguments
        .images
        .iter()
        .map(|path| Image {
            source: Source::File(path.clone()),
            class: 0,
            part: Part::Unassigned,
            factors: Vec::new(),
        })
        .collect();
    let (embedder, _) = load_embedder(&run, &config)?;
    let all: Vec<usize> = (0..items.len()).collect();
    let images = Images::new(&config, &items, &prepare::no_cache())?;
    let mut progress = Progress::new("");
    let labels = vec![0; items.len()];
    let set = embed(
        &embedder,
        &images,
        &all,
        labels,
        Output::Embedding,
        "embedding",
        &mut progress,
    )?;
    let queries = items.iter().zip(set.values.chunks_exact(set.dim));
    Ok(queries
        .map(|(item, vector)| (item.source.name(), Some(item.source.clone()), vector.to_vec()))
        .collect())
}

/// Whether a hit counts as a match: of the threshold that applied to the nearest one.
fn is_match(answer: &Answer, hit: &Hit) -> bool {
    answer.threshold.is_none_or(|threshold| hit.score >= threshold)
}
