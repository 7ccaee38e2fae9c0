//! A network as an ONNX model.

use std::path::{Path, PathBuf};

use gradus::config::Config;
use gradus::models::Embedder;
use gradus_core::files::write_atomically;
use gradus_onnx::{Batch, Graph, Preprocessing};
use serde_json::{Value, json};

use crate::arguments::{Export, PreprocessWhere};
use crate::commands::trained::{load_embedder, stored_layers};
use crate::failure::{Failure, Outcome};
use crate::output;

/// What is written where.
struct Target {
    model: PathBuf,
    /// None for a head on vectors: there is no image to preprocess.
    preprocessing: Option<(PathBuf, Preprocessing)>,
    batch: Batch,
}

pub(super) fn run(arguments: &Export) -> Outcome {
    let batch = batch_of(arguments)?;
    let mut layers = stored_layers(&arguments.run)?;
    // Weights are read from host memory, and the file is compared with what a processor computes.
    layers.insert("device", "cpu");
    let config = layers.resolve()?;
    let on_vectors = config.model.vectors.is_some();
    for (flag, asked) in [
        ("--int8", arguments.int8),
        ("--preprocess inside", arguments.preprocess == PreprocessWhere::Inside),
        ("--images", arguments.images.is_some()),
    ] {
        if asked && on_vectors {
            return Err(Failure::new(format!(
                "{} is a head on vectors of another model: it has no trunk and sees no image, so {flag} means nothing",
                arguments.run.display()
            )));
        }
    }
    if cfg!(not(feature = "onnx")) && (arguments.check || arguments.int8) {
        return Err(Failure::new(
            "this gradus was built without the ONNX runtime (feature `onnx`), which --check and --int8 need",
        ));
    }
    let target = target_of(arguments, &config, batch)?;
    let (embedder, _) = load_embedder(&arguments.run, &config)?;
    let graph = graph_of(&embedder, &config, arguments.opset, arguments.preprocess);
    #[cfg(feature = "onnx")]
    let graph = if arguments.int8 {
        super::verified::in_eight_bits(graph, &embedder, &config, arguments)?
    } else {
        graph
    };
    let graph = if arguments.f16 {
        graph.with_half_weights()
    } else {
        graph
    };
    let bytes = write(&graph, &target, &config)?;

    let mut files = vec![target.model.display().to_string()];
    files.extend(target.preprocessing.iter().map(|(path, _)| path.display().to_string()));
    let precision = precision(arguments);
    let mut result = json!({
        "files": files, "bytes": bytes, "opset": arguments.opset, "precision": precision, "width": embedder.dim(),
    });
    let mut text = format!(
        "written: {} ({:.1} MB, opset {}, {precision}, embeddings of {} numbers)",
        files.join(" and "),
        bytes as f64 / 1e6,
        arguments.opset,
        embedder.dim()
    );
    #[cfg(feature = "onnx")]
    super::verified::verify(arguments, &config, &embedder, &target.model, &mut result, &mut text)?;
    finish(arguments, &mut result, &mut text)
}

fn finish(arguments: &Export, result: &mut Value, text: &mut str) -> Outcome {
    if arguments.json {
        output::json(result)
    } else {
        output::text(text)
    }
}

/// How numbers are stored.
pub(super) fn precision(arguments: &Export) -> &'static str {
    match (arguments.f16, arguments.int8) {
        (true, _) => "f16",
        (_, true) => "int8",
        _ => "f32",
    }
}

fn batch_of(arguments: &Export) -> Result<Batch, Failure> {
    let opsets = Graph::OLDEST_OPSET..=Graph::NEWEST_OPSET;
    if !opsets.contains(&arguments.opset) {
        return Err(Failure::new(format!(
            "--opset must be from {} to {}, but is {}",
            opsets.start(),
            opsets.end(),
            arguments.opset
        )));
    }
    match arguments.batch.as_str() {
        "dynamic" => Ok(Batch::Dynamic),
        number => match number.parse() {
            Ok(size @ 1..=65536) => Ok(Batch::Fixed(size)),
            _ => Err(Failure::new(format!(
                "--batch must be `dynamic` or a number of images from 1 to 65536, but is `{number}`"
            ))),
        },
    }
}

fn target_of(arguments: &Export, config: &Config, batch: Batch) -> Result<Target, Failure> {
    let model = arguments
        .out
        .clone()
        .unwrap_or_else(|| arguments.run.join("model.onnx"));
    if model.extension().is_none_or(|extension| extension != "onnx") {
        return Err(Failure::new(format!(
            "--format onnx writes an .onnx file, but --out is {}",
            model.display()
        )));
    }
    let preprocessing = match (config.model.vectors, arguments.preprocess) {
        (Some(_), _) => None,
        (None, PreprocessWhere::Inside) => Some(Preprocessing::none()),
        (None, PreprocessWhere::Outside) => Some(Preprocessing::of(&config.transform)),
    };
    let preprocessing = preprocessing.map(|preprocessing| (Preprocessing::path_beside(&model), preprocessing));
    Ok(Target {
        model,
        preprocessing,
        batch,
    })
}

/// The graph of a network, from images, pixels or vectors to embeddings.
pub(super) fn graph_of(embedder: &Embedder, config: &Config, opset: i64, preprocess: PreprocessWhere) -> Graph {
    let mut graph = Graph::new(opset);
    let size = config.transform.size;
    let input = match (config.model.vectors, preprocess) {
        (Some(width), _) => graph.input("vectors", &[width]),
        (None, PreprocessWhere::Outside) => graph.input("images", &[3, size, size]),
        (None, PreprocessWhere::Inside) => graph.preprocessed_pixels("images", &config.transform),
    };
    let embeddings = embedder.graph(&mut graph, input);
    graph.output("embeddings", &embeddings);
    graph
}

/// Writes the model and the description beside it; returns the bytes of the model.
fn write(graph: &Graph, target: &Target, config: &Config) -> Result<usize, Failure> {
    let backbone = config.model.backbone.info().name;
    let notes: &[(&str, &str)] = match &target.preprocessing {
        Some((_, preprocessing)) => &[("backbone", backbone), ("preprocessing", &preprocessing.to_json()?)],
        None => &[],
    };
    let bytes = graph.encode(target.batch, notes)?;
    write_file(&target.model, &bytes)?;
    if let Some((path, preprocessing)) = &target.preprocessing {
        write_file(path, preprocessing.to_json()?.as_bytes())?;
    }
    Ok(bytes.len())
}

fn write_file(path: &Path, bytes: &[u8]) -> Outcome {
    write_atomically(path, |file| file.write_all(bytes))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
