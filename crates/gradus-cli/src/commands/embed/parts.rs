//! `gradus embed --out FOLDER`: parts of a set too large for one go.

use std::path::Path;
use std::sync::Arc;

use gradus::config::Config;
use gradus::train::embed::{Images, embed_batches};
use gradus::train::prepare;
use gradus_core::EmbeddingSet;
use gradus_core::data::Item;
use gradus_core::data::fingerprint::Fingerprint;
use gradus_core::embeddings::parts;
use serde_json::json;

use super::tolerated;
use crate::arguments::Embed;
use crate::commands::trained::{load_embedder, model_of};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::ProgressInParts;

/// Images in a part: 32 MiB of embeddings with 512 numbers.
const PART_ROWS: usize = 16_384;

/// Broken images that are named.
const SHOWN: usize = 10;

pub(super) fn run(run: &Path, arguments: &Embed, config: &Config, items: &Arc<[Item]>) -> Outcome {
    let folder = arguments.out.as_path();
    let shard = arguments.shard.unwrap_or_default();
    let rows: Vec<usize> = shard.rows(items.len()).collect();
    let size = arguments.part_rows.map_or(PART_ROWS, |rows| rows as usize);
    let model = model_of(run, config)?.fingerprint;
    let (embedder, _) = load_embedder(run, config)?;
    let images = Images::new(config, items, &prepare::no_cache())?;
    std::fs::create_dir_all(folder)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", folder.display())))?;
    let surplus = shard.claim(folder, rows.len().div_ceil(size))?;
    if surplus > 0 {
        output::note(&format!("{surplus} parts beyond the images of this shard were removed"));
    }
    let mut progress = ProgressInParts::new(rows.len());
    let (mut embedded, mut kept, mut bad_images, mut parts_written) = (0, 0, 0, 0);
    for (number, part) in rows.chunks(size).enumerate() {
        let path = shard.file(folder, number);
        let origin = origin(&model, items, part)?;
        if parts::is_made_of(&path, &origin) {
            kept += 1;
            progress.done(part.len());
            continue;
        }
        let bad = match arguments.images {
            Some(_) => prepare::bad_images(items, part, 1.0)?,
            None => Vec::new(),
        };
        for (_, message) in bad.iter().take(SHOWN.saturating_sub(bad_images)) {
            output::note(&format!("left out: {message}"));
        }
        bad_images += bad.len();
        if bad_images as f64 > tolerated(arguments) * rows.len() as f64 {
            return Err(Failure::new(format!(
                "{bad_images} of {} images are broken, more than --max-bad-images {} tolerates: repair or remove them, or tolerate more; the \
                 parts that were done are kept, and the same command goes on",
                rows.len(),
                tolerated(arguments)
            )));
        }
        let good: Vec<usize> = part
            .iter()
            .copied()
            .filter(|item| bad.iter().all(|(broken, _)| broken != item))
            .collect();
        let mut set = EmbeddingSet {
            dim: embedder.dim(),
            ..EmbeddingSet::default()
        };
        embed_batches(
            &embedder,
            &images,
            &good,
            "embedding",
            &mut progress,
            |shown, values| {
                set.values.extend_from_slice(values);
                set.labels.extend(shown.iter().map(|&item| items[item].class));
                set.ids.extend(shown.iter().map(|&item| items[item].source.name()));
                Ok::<(), Failure>(())
            },
        )?;
        parts::write(&set, &origin, &path)?;
        embedded += set.len();
        parts_written += 1;
        progress.done(part.len());
    }
    drop(progress);
    summary(
        arguments,
        folder,
        embedder.dim(),
        [embedded, bad_images, parts_written, kept],
    )
}

fn summary(arguments: &Embed, folder: &Path, width: usize, counts: [usize; 4]) -> Outcome {
    let [embedded, bad_images, written, kept] = counts;
    if arguments.json {
        return output::json(&json!({
            "images": embedded, "width": width, "bad_images": bad_images, "folder": folder, "parts": written, "kept_parts": kept,
        }));
    }
    let before = if kept > 0 {
        format!("; {kept} were there from before")
    } else {
        String::new()
    };
    output::text(&format!(
        "{embedded} embedded, {width} numbers each, {bad_images} broken images left out\nwritten: {written} parts in {}{before}",
        folder.display()
    ))
}

/// What a part is made of: the model and the files, by name, length and time of change.
fn origin(model: &str, items: &[Item], part: &[usize]) -> Result<String, Failure> {
    let mut fingerprint = Fingerprint::default();
    fingerprint.text(model);
    for &item in part {
        let source = &items[item].source;
        fingerprint
            .source(source)
            .map_err(|error| Failure::new(format!("cannot look at {}: {error}", source.name())))?;
    }
    Ok(fingerprint.to_string())
}
