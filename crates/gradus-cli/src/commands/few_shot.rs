//! `gradus few-shot`

use std::path::Path;

use gradus::train::PreparedData;
use gradus::train::embed::{Images, Output, embed};
use gradus_core::EmbeddingSet;
use gradus_core::data::split::TestSet;
use gradus_core::embeddings::{read_labels, read_matrix};
use gradus_core::evaluation::{FewShotOptions, UnitRows, few_shot};
use serde_json::json;

use super::evaluate::{load_embedder, stored_layers, without_selection};
use super::layers;
use crate::arguments::FewShot;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

pub(crate) fn run(arguments: &FewShot) -> Outcome {
    let set = match (&arguments.run, &arguments.embeddings, &arguments.labels) {
        (Some(run), _, _) => test_embeddings(run, arguments)?,
        (None, Some(embeddings), Some(labels)) => labelled(embeddings, labels)?,
        _ => return Err(Failure::new("either --run, or --embeddings and --labels, are needed")),
    };
    let options = FewShotOptions {
        ways: arguments.ways,
        shots: arguments.shots,
        queries: arguments.queries,
        episodes: arguments.episodes,
        seed: arguments.seed,
    };
    let found = few_shot(&UnitRows::new(&set, "query")?, &options)?;
    if arguments.json {
        return output::json(&json!({
            "accuracy": found.accuracy, "ci95": found.ci95, "ways": options.ways, "shots": options.shots,
            "queries": options.queries, "episodes": options.episodes, "seed": options.seed, "images": set.len(),
            "classes": found.classes, "small_classes": found.small_classes,
        }));
    }
    let interval = found
        .ci95
        .map_or(String::new(), |half| format!(" +- {:.2}", 100.0 * half));
    let mut text = format!(
        "{}-way {}-shot accuracy: {:.2}{interval} % ({} episodes of {} queries per class; {} images, {} classes)",
        options.ways,
        options.shots,
        100.0 * found.accuracy,
        options.episodes,
        options.queries,
        set.len(),
        found.classes
    );
    if found.small_classes > 0 {
        text.push_str(&format!(
            "\n{} classes with fewer than {} images took no part",
            found.small_classes,
            options.shots + options.queries
        ));
    }
    output::text(&text)
}

/// Embeds all test items of a run's data, or of other data.
fn test_embeddings(run: &Path, arguments: &FewShot) -> Result<EmbeddingSet, Failure> {
    let mut layers = stored_layers(run)?;
    if !arguments.data.data.is_empty() {
        layers = without_selection(layers)?;
    }
    layers::put_data(&mut layers, &arguments.data)?;
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    let config = layers.resolve()?;
    let mut progress = Progress::new("");
    let data = PreparedData::new(&config, &mut progress)?;
    let (embedder, _) = load_embedder(run, &config)?;
    let images = Images::new(&config, &data.items, &data.cache)?;
    let items = match &data.test {
        TestSet::Single(items) => items.clone(),
        TestSet::QueryGallery { query, gallery } => [query.as_slice(), gallery].concat(),
    };
    let labels = items.iter().map(|&item| data.dataset.items[item].class).collect();
    let what = "test classes";
    Ok(embed(
        &embedder,
        &images,
        &items,
        labels,
        Output::Embedding,
        what,
        &mut progress,
    )?)
}

/// Embeddings and labels that belong together.
pub(crate) fn labelled(embeddings: &Path, labels: &Path) -> Result<EmbeddingSet, Failure> {
    let (dim, values) = read_matrix(embeddings)?;
    let labels_path = labels;
    let labels = read_labels(labels_path)?;
    let rows = values.len() / dim;
    if labels.len() != rows {
        return Err(Failure::new(format!(
            "{} holds {rows} embeddings, but {} holds {} labels: one label for each embedding is needed",
            embeddings.display(),
            labels_path.display(),
            labels.len()
        )));
    }
    Ok(EmbeddingSet {
        dim,
        values: values.into_iter().map(|value| value as f32).collect(),
        labels,
        ids: (0..rows).map(|row| format!("row {row}")).collect(),
    })
}
