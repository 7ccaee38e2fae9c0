//! What an exported model is worth: eight bits calibrated, the file run on real images, Recall@1 before and after.

use std::path::Path;

use gradus::config::Config;
use gradus::models::Embedder;
use gradus::train::embed::{Images, Output, embed};
use gradus::train::measure::{self, TestEmbeddings};
use gradus::train::{PreparedData, prepare};
use gradus_core::EmbeddingSet;
use gradus_core::data::image::decode;
use gradus_core::data::split::TestSet;
use gradus_core::data::{Item, layouts};
use gradus_onnx::{Calibration, Graph, OnnxError, Preprocessing, calibrate};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::model::{graph_of, precision};
use crate::arguments::{Export, PreprocessWhere};
use crate::commands::layers;
use crate::commands::onnx::OnnxEmbedder;
use crate::commands::trained::{stored_layers, without_selection};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// The largest difference of an embedding's numbers that rounding explains.
const MOST_DIFFERENCE: f32 = 1e-4;
/// Images whose activations are in memory together.
const CALIBRATED_TOGETHER: usize = 4;

/// The data of the run, or of the data that flags name.
fn prepared(arguments: &Export) -> Result<(Config, PreparedData), Failure> {
    let mut layers = stored_layers(&arguments.run)?;
    if !arguments.data.data.is_empty() {
        layers = without_selection(layers)?;
    }
    layers::put_data(&mut layers, &arguments.data)?;
    layers.insert("device", "cpu");
    layers.insert("data.rotations-as-classes", false);
    let config = layers.resolve()?;
    let mut progress = Progress::new("");
    let data = PreparedData::new(&config, &mut progress)?;
    Ok((config, data))
}

/// Rounds the trunk to eight bits, with ranges seen on training images.
pub(super) fn in_eight_bits(
    graph: Graph,
    embedder: &Embedder,
    config: &Config,
    arguments: &Export,
) -> Result<Graph, Failure> {
    let (_, data) = prepared(arguments)?;
    let chosen = spread(&data.train, arguments.calibration_images as usize);
    output::note(&format!("calibrating on {} training images", chosen.len()));
    // Ranges are those of the network on preprocessed images, wherever the preprocessing is done.
    let plain = graph_of(embedder, config, arguments.opset, PreprocessWhere::Outside);
    let preprocessing = Preprocessing::of(&config.transform);
    let size = config.transform.size;
    let batches = chosen.chunks(CALIBRATED_TOGETHER).map(|batch| {
        let views = batch
            .par_iter()
            .map(|&item| {
                let image = decode(&data.items[item].source).map_err(|error| error.to_string())?;
                preprocessing.pixels(&image).map_err(|error| error.to_string())
            })
            .collect::<Result<Vec<_>, String>>()
            .map_err(|problem| OnnxError::Preprocessing {
                origin: "of calibration images".to_owned(),
                problem,
            })?;
        let mut numbers = Vec::with_capacity(batch.len() * 3 * size * size);
        for view in &views {
            preprocessing.numbers(view, &mut numbers);
        }
        Ok((numbers, vec![batch.len(), 3, size, size]))
    });
    let found = calibrate(&plain, batches)?;
    // With the preprocessing inside, operators before the trunk shift the names, not the order.
    let names = plain.activations();
    let calibration: Calibration = graph
        .activations()
        .into_iter()
        .zip(&names)
        .filter_map(|(name, plain)| Some((name, found.get(plain)?.clone())))
        .collect();
    Ok(graph.quantised(&calibration))
}

/// At most `count` items, evenly spread over all.
fn spread(items: &[usize], count: usize) -> Vec<usize> {
    let count = count.min(items.len());
    (0..count).map(|place| items[place * items.len() / count]).collect()
}

/// Runs the written file and adds what came out to the result.
pub(super) fn verify(
    arguments: &Export,
    config: &Config,
    embedder: &Embedder,
    file: &Path,
    result: &mut Value,
    text: &mut String,
) -> Outcome {
    if !arguments.check && !arguments.int8 {
        return Ok(());
    }
    let model = OnnxEmbedder::open(file, arguments.runtime)?;
    if arguments.check {
        check(arguments, config, embedder, &model, result, text)?;
    }
    if arguments.int8 {
        recall(arguments, embedder, &model, result, text)?;
    }
    Ok(())
}

fn check(
    arguments: &Export,
    config: &Config,
    embedder: &Embedder,
    model: &OnnxEmbedder,
    result: &mut Value,
    text: &mut String,
) -> Outcome {
    let most = arguments.check_images as usize;
    let (items, all): (std::sync::Arc<[Item]>, Vec<usize>) = match &arguments.images {
        Some(folder) => {
            let (items, _) = layouts::list_images(folder)?;
            let all: Vec<usize> = (0..items.len()).collect();
            let bad = prepare::bad_images(&items, &all, 1.0)?;
            let good = all
                .into_iter()
                .filter(|index| bad.iter().all(|(item, _)| item != index))
                .collect();
            (items.into(), good)
        }
        None => {
            let (_, data) = prepared(arguments)?;
            let test = match &data.test {
                TestSet::Single(items) => items.clone(),
                TestSet::QueryGallery { query, .. } => query.clone(),
            };
            (data.items, test)
        }
    };
    let chosen = spread(&all, most);
    if chosen.is_empty() {
        return Err(Failure::new("there is no image to check with: give --images FOLDER"));
    }
    let labels = || vec![0; chosen.len()];
    let mut progress = Progress::new("");
    let images = Images::new(config, &items, &prepare::no_cache())?;
    let expected = embed(
        embedder,
        &images,
        &chosen,
        labels(),
        Output::Embedding,
        "gradus",
        &mut progress,
    )?;
    let found = model.embed(&items, &chosen, labels(), "onnx", &mut progress)?;
    drop(progress);
    if found.dim != expected.dim {
        return Err(Failure::new(format!(
            "the file gives {} numbers for an image, the run {}",
            found.dim, expected.dim
        )));
    }
    let difference = largest_difference(&expected, &found);
    let cosine = least_cosine(&expected, &found);
    result["check"] = json!({
        "runtime": arguments.runtime.name(), "images": chosen.len(), "largest_difference": difference, "least_cosine": cosine,
    });
    text.push_str(&format!(
        "\nchecked with {} on {} images: largest difference {difference:.2e}, least cosine {cosine:.6}",
        arguments.runtime.name(),
        chosen.len()
    ));
    if precision(arguments) == "f32"
        && arguments.preprocess == PreprocessWhere::Outside
        && difference >= MOST_DIFFERENCE
    {
        return Err(Failure::new(format!(
            "the written model differs from the run by {difference:.2e}, more than the {MOST_DIFFERENCE:.0e} that rounding explains: please \
             report this"
        )));
    }
    Ok(())
}

fn largest_difference(a: &EmbeddingSet, b: &EmbeddingSet) -> f32 {
    a.values
        .iter()
        .zip(&b.values)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn least_cosine(a: &EmbeddingSet, b: &EmbeddingSet) -> f32 {
    let rows = a.values.chunks_exact(a.dim).zip(b.values.chunks_exact(b.dim));
    rows.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum())
        .fold(1.0, f32::min)
}

/// Recall@1 on the test classes, of the run and of the file.
fn recall(
    arguments: &Export,
    embedder: &Embedder,
    model: &OnnxEmbedder,
    result: &mut Value,
    text: &mut String,
) -> Outcome {
    let (config, data) = prepared(arguments)?;
    let mut progress = Progress::new("");
    let images = Images::new(&config, &data.items, &data.cache)?;
    let single = measure::embed_test(
        embedder,
        &images,
        &data.dataset,
        &data.test,
        "in single precision",
        &mut progress,
    )?;
    let mut with_model = |items: &[usize]| {
        let labels = items.iter().map(|&item| data.items[item].class).collect();
        model.embed(&data.items, items, labels, "in eight bits", &mut progress)
    };
    let eight = match &data.test {
        TestSet::Single(items) => TestEmbeddings {
            queries: with_model(items)?,
            gallery: None,
            factors: single.factors.clone(),
        },
        TestSet::QueryGallery { query, gallery } => TestEmbeddings {
            queries: with_model(query)?,
            gallery: Some(with_model(gallery)?),
            factors: None,
        },
    };
    drop(progress);
    let recall = |embedded: &TestEmbeddings| -> Result<f64, Failure> {
        let evaluation = measure::evaluate(embedded, &data.dataset, &config)?;
        evaluation.get("recall@1").ok_or_else(|| {
            Failure::new(
                "the test classes have no Recall@1: no class has two images, or evaluation.recall leaves out 1",
            )
        })
    };
    let (before, after) = (recall(&single)?, recall(&eight)?);
    result["recall@1"] = json!({ "f32": before, "int8": after, "images": eight.queries.len() });
    text.push_str(&format!(
        "\nRecall@1 on {} test images: {before:.4} in f32, {after:.4} in int8 ({:+.2} points)",
        eight.queries.len(),
        100.0 * (after - before)
    ));
    Ok(())
}
