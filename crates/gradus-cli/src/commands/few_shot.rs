//! `gradus few-shot`

use std::path::Path;

use gradus_core::EmbeddingSet;
use gradus_core::embeddings::{read_labels, read_matrix};
use gradus_core::evaluation::{FewShotOptions, UnitRows, few_shot};
use serde_json::json;

use super::trained::embed_test;
use crate::arguments::FewShot;
use crate::failure::{Failure, Outcome};
use crate::output;

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

/// The embeddings of all test items, queries and gallery together.
fn test_embeddings(run: &Path, arguments: &FewShot) -> Result<EmbeddingSet, Failure> {
    let embedded = embed_test(run, &arguments.data, arguments.device.as_deref(), false)?.embedded;
    let mut all = embedded.queries;
    if let Some(gallery) = embedded.gallery {
        all.values.extend(gallery.values);
        all.labels.extend(gallery.labels);
        all.ids.extend(gallery.ids);
    }
    Ok(all)
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
