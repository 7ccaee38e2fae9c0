//! `gradus embed`

mod parts;
#[cfg(feature = "onnx")]
mod with_onnx;
mod with_run;

use std::path::Path;
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
    if into_folder {
        return match &arguments.run {
            Some(run) if arguments.data.data.is_empty() => with_run::embed_parts(run, arguments),
            _ => Err(Failure::new(format!(
                "parts in a folder are for --run with --images or --embeddings: name a file instead of {}, such as vectors.npy",
                arguments.out.display()
            ))),
        };
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

/// The images of a folder or the vectors of a file, and how many folders hold them.
fn listed(arguments: &Embed) -> Result<(Arc<[Item]>, usize), Failure> {
    let (items, folders) = match (&arguments.images, &arguments.embeddings) {
        (Some(folder), _) => layouts::list_images(folder)?,
        (None, Some(path)) => (layouts::list_vectors(path)?, Vec::new()),
        (None, None) => {
            return Err(Failure::new(
                "what is embedded? Give --images FOLDER, --embeddings FILE or --data PATH",
            ));
        }
    };
    Ok((items.into(), folders.len()))
}

/// The share of broken images that is tolerated.
fn tolerated(arguments: &Embed) -> f64 {
    arguments.data.max_bad_images.unwrap_or(TOLERATED)
}

/// What is listed, broken images left out.
fn inputs(arguments: &Embed) -> Result<Inputs, Failure> {
    let (items, folders) = listed(arguments)?;
    let all: Vec<usize> = (0..items.len()).collect();
    let bad = match arguments.images {
        Some(_) => prepare::bad_images(&items, &all, tolerated(arguments))?,
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
        items,
        good,
        bad_images: bad.len(),
        folders,
    })
}

/// Whether `--out` asks for a folder of parts: an existing folder, a trailing slash or a name without an extension.
fn is_folder(out: &Path) -> bool {
    out.is_dir() || out.extension().is_none() || out.as_os_str().to_string_lossy().ends_with(['/', '\\'])
}
