//! `gradus embed`

#[cfg(feature = "onnx")]
mod with_onnx;
mod with_run;

use std::sync::Arc;

use gradus::train::prepare;
use gradus_core::EmbeddingSet;
use gradus_core::data::{Item, layouts};
use gradus_core::embeddings;
use serde_json::json;

use crate::arguments::Embed;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Share of broken images that is tolerated, unless told otherwise.
const TOLERATED: f64 = 0.001;

/// What is embedded.
struct Inputs {
    items: Arc<[Item]>,
    /// Items that can be used.
    good: Vec<usize>,
    bad_images: usize,
    folders: usize,
}

/// What came out.
struct Embedded {
    set: EmbeddingSet,
    bad_images: usize,
    folders: usize,
}

pub(crate) fn run(arguments: &Embed) -> Outcome {
    embeddings::Format::of(&arguments.out)?;
    let selection = [
        ("--layout", arguments.data.layout.is_some()),
        ("--train-classes", arguments.data.train_classes.is_some()),
        ("--test-classes", arguments.data.test_classes.is_some()),
    ];
    if let Some((flag, _)) = selection.iter().find(|(_, given)| *given)
        && arguments.data.data.is_empty()
    {
        return Err(Failure::new(format!(
            "{flag} selects from a data set: name it with --data"
        )));
    }
    let Embedded {
        set,
        bad_images,
        folders,
    } = match (&arguments.run, &arguments.onnx) {
        (Some(run), _) => with_run::embed(run, arguments)?,
        #[cfg(feature = "onnx")]
        (None, Some(model)) => with_onnx::embed(model, arguments)?,
        #[cfg(not(feature = "onnx"))]
        (None, Some(_)) => {
            return Err(Failure::new(
                "this gradus was built without the ONNX runtime (feature `onnx`)",
            ));
        }
        (None, None) => return Err(Failure::new("what embeds? Give --run FOLDER or --onnx FILE")),
    };
    let written = embeddings::write(&set, &arguments.out)?;
    let files: Vec<String> = written.iter().map(|path| path.display().to_string()).collect();
    if arguments.json {
        return output::json(&json!({
            "images": set.len(), "width": set.dim, "bad_images": bad_images, "folders": folders, "files": files,
        }));
    }
    let what = if arguments.embeddings.is_some() {
        "vectors"
    } else {
        "images"
    };
    output::text(&format!(
        "{} {what} embedded, {} numbers each\nwritten: {}",
        set.len(),
        set.dim,
        files.join(", ")
    ))
}

/// The images of a folder, broken ones left out, or the vectors of a file.
fn inputs(arguments: &Embed) -> Result<Inputs, Failure> {
    let (items, folders) = match (&arguments.images, &arguments.embeddings) {
        (Some(folder), _) => layouts::list_images(folder)?,
        (None, Some(path)) => (layouts::list_vectors(path)?, Vec::new()),
        (None, None) => {
            return Err(Failure::new(
                "what is embedded? Give --images FOLDER, --embeddings FILE or --data PATH",
            ));
        }
    };
    let all: Vec<usize> = (0..items.len()).collect();
    let bad = match arguments.images {
        Some(_) => prepare::bad_images(&items, &all, arguments.data.max_bad_images.unwrap_or(TOLERATED))?,
        None => Vec::new(),
    };
    for (_, message) in bad.iter().take(10) {
        output::note(&format!("left out: {message}"));
    }
    let good = all
        .into_iter()
        .filter(|index| bad.iter().all(|(item, _)| item != index))
        .collect();
    Ok(Inputs {
        items: items.into(),
        good,
        bad_images: bad.len(),
        folders: folders.len(),
    })
}
