//! With the network of a run.

use std::path::Path;

use gradus::train::embed::{Images, Output, embed as embed_items};
use gradus::train::prepare;

use super::{Embedded, inputs, listed, parts};
use crate::arguments::Embed;
use crate::commands::trained::{embed_test, load_embedder, stored_layers};
use crate::failure::{Failure, Outcome};
use crate::progress::Progress;

/// Part by part into a folder.
pub(super) fn embed_parts(run: &Path, arguments: &Embed) -> Outcome {
    let mut layers = stored_layers(run)?;
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    let (items, _) = listed(arguments)?;
    parts::run(run, arguments, &layers.resolve()?, &items)
}

pub(super) fn embed(run: &Path, arguments: &Embed) -> Result<Embedded, Failure> {
    if !arguments.data.data.is_empty() {
        let tested = embed_test(run, &arguments.data, arguments.device.as_deref(), false)?;
        let mut set = tested.embedded.queries;
        if let Some(gallery) = tested.embedded.gallery {
            set.values.extend(gallery.values);
            set.labels.extend(gallery.labels);
            set.ids.extend(gallery.ids);
        }
        return Ok(Embedded {
            set,
            bad_images: 0,
            folders: 0,
        });
    }
    let mut layers = stored_layers(run)?;
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    let config = layers.resolve()?;
    let found = inputs(arguments)?;
    let (embedder, _) = load_embedder(run, &config)?;
    let images = Images::new(&config, &found.items, &prepare::no_cache())?;
    let labels = found.good.iter().map(|&index| found.items[index].class).collect();
    let set = embed_items(
        &embedder,
        &images,
        &found.good,
        labels,
        Output::Embedding,
        "embedding",
        &mut Progress::new(""),
    )?;
    Ok(Embedded {
        set,
        bad_images: found.bad_images,
        folders: found.folders,
    })
}
