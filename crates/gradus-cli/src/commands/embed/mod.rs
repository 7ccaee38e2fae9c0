//! `gradus embed`

mod parts;

use std::path::Path;
use std::sync::Arc;

use gradus::train::embed::{Images, Output, embed};
use gradus::train::prepare;
use gradus_core::data::{Item, layouts};
use gradus_core::embeddings;
use serde_json::json;

use super::trained::{load_embedder, stored_layers};
use crate::arguments::Embed;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

pub(crate) fn run(arguments: &Embed) -> Outcome {
    let into_folder = is_folder(&arguments.out);
    if !into_folder {
        embeddings::Format::of(&arguments.out)?;
        if arguments.shard.is_some() || arguments.part_rows.is_some() {
            return Err(Failure::new(format!(
                "--shard and --part-rows write parts into a folder, but {} is a file: give a folder to --out",
                arguments.out.display()
            )));
        }
    }
    let mut layers = stored_layers(&arguments.run)?;
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    let config = layers.resolve()?;
    let (items, folders) = match (&arguments.images, &arguments.embeddings) {
        (Some(folder), _) => layouts::list_images(folder)?,
        (None, Some(path)) => (layouts::list_vectors(path)?, Vec::new()),
        (None, None) => {
            return Err(Failure::new(
                "what is embedded? Give --images FOLDER or --embeddings FILE",
            ));
        }
    };
    let items: Arc<[Item]> = items.into();
    if into_folder {
        return parts::run(arguments, &config, &items);
    }
    let all: Vec<usize> = (0..items.len()).collect();
    let bad = match arguments.images {
        Some(_) => prepare::bad_images(&items, &all, arguments.max_bad_images)?,
        None => Vec::new(),
    };
    for (_, message) in bad.iter().take(10) {
        output::note(&format!("left out: {message}"));
    }
    let good: Vec<usize> = all
        .into_iter()
        .filter(|index| bad.iter().all(|(item, _)| item != index))
        .collect();
    let (embedder, _) = load_embedder(&arguments.run, &config)?;
    let images = Images::new(&config, &items, &prepare::new_cache(0, 0))?;
    let labels = good.iter().map(|&index| items[index].class).collect();
    let mut progress = Progress::new("");
    let set = embed(
        &embedder,
        &images,
        &good,
        labels,
        Output::Embedding,
        "embedding",
        &mut progress,
    )?;
    drop(progress);
    let written = embeddings::write(&set, &arguments.out)?;
    if arguments.json {
        let files: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
        return output::json(&json!({
            "images": set.len(), "width": set.dim, "bad_images": bad.len(), "folders": folders.len(), "files": files,
        }));
    }
    let files: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    let what = if arguments.images.is_some() {
        "images"
    } else {
        "vectors"
    };
    output::text(&format!(
        "{} {what} embedded, {} numbers each\nwritten: {}",
        set.len(),
        set.dim,
        files.join(", ")
    ))
}

/// Whether `--out` asks for a folder of parts: an existing folder, a trailing slash or a name without an extension.
fn is_folder(out: &Path) -> bool {
    out.is_dir() || out.extension().is_none() || out.as_os_str().to_string_lossy().ends_with(['/', '\\'])
}
