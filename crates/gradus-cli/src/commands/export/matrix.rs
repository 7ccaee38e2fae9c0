//! A linear head as two arrays.

use std::path::Path;

use gradus_core::embeddings::MatrixWriter;
use gradus_core::files::write_atomically;
use serde_json::json;

use crate::arguments::{Export, PreprocessWhere};
use crate::commands::trained::{load_embedder, stored_layers};
use crate::failure::{Failure, Outcome};
use crate::output;

pub(super) fn run(arguments: &Export) -> Outcome {
    let asked = [
        ("--f16", arguments.f16),
        ("--int8", arguments.int8),
        ("--check", arguments.check),
        ("--preprocess inside", arguments.preprocess == PreprocessWhere::Inside),
        ("--batch", arguments.batch != "dynamic"),
    ];
    if let Some((flag, _)) = asked.iter().find(|(_, asked)| *asked) {
        return Err(Failure::new(format!(
            "{flag} belongs to --format onnx: a matrix is numbers of single precision"
        )));
    }
    let mut layers = stored_layers(&arguments.run)?;
    layers.insert("device", "cpu");
    let config = layers.resolve()?;
    if config.model.vectors.is_none() {
        return Err(Failure::new(format!(
            "{} has a trunk ({}): its head alone embeds nothing. --format matrix is for heads on vectors of another model (`gradus train \
             --embeddings`); export the whole network with --format onnx",
            arguments.run.display(),
            config.model.backbone.info().name
        )));
    }
    let (embedder, _) = load_embedder(&arguments.run, &config)?;
    let Some((weight, bias)) = embedder.linear_head() else {
        return Err(Failure::new(format!(
            "the head of {} is not linear (`model.head`), so it is no matrix: export it with --format onnx",
            arguments.run.display()
        )));
    };
    let (inputs, width) = (embedder.feature_width(), embedder.dim());
    let out = arguments.out.clone().unwrap_or_else(|| arguments.run.join("head.npy"));
    if out.extension().is_none_or(|extension| extension != "npy") {
        return Err(Failure::new(format!(
            "--format matrix writes .npy files, but --out is {}",
            out.display()
        )));
    }
    let bias_path = out.with_extension("bias.npy");
    // Stored as PyTorch stores it; written the way vectors are multiplied: `vectors @ weight + bias`.
    let transposed: Vec<f32> = (0..inputs * width)
        .map(|index| weight[index % width * inputs + index / width])
        .collect();
    write(&out, inputs, width, &transposed)?;
    write_vector(&bias_path, &bias)?;
    let files = [out.display().to_string(), bias_path.display().to_string()];
    if arguments.json {
        return output::json(&json!({
            "files": files, "inputs": inputs, "width": width, "normalise_inputs": config.model.normalise_features,
        }));
    }
    let first = if config.model.normalise_features {
        "divide every vector by its length, then "
    } else {
        ""
    };
    output::text(&format!(
        "written: {} [{inputs}, {width}] and {} [{width}]\nto use: {first}vectors @ weight + bias, then divide by the length",
        files[0], files[1]
    ))
}

fn write(path: &Path, rows: usize, width: usize, values: &[f32]) -> Outcome {
    write_atomically(path, |file| {
        let mut writer = MatrixWriter::new(file, rows, width)?;
        writer.push(values)?;
        writer.finish()
    })
    .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

fn write_vector(path: &Path, values: &[f32]) -> Outcome {
    write_atomically(path, |file| {
        let mut writer = MatrixWriter::vector(file, values.len())?;
        writer.push(values)?;
        writer.finish()
    })
    .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
