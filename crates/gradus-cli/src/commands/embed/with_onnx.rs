//! With an ONNX model: one of ours, or any that gives one vector for each image.

use std::path::Path;

use gradus::train::PreparedData;
use gradus_core::data::split::TestSet;
use gradus_core::data::transform::Interpolation;
use gradus_onnx::{InputKind, OnnxModel, Preprocessing, Resize};

use super::{Embedded, Inputs, inputs};
use crate::arguments::{Embed, OnnxFlags, Source};
use crate::commands::layers;
use crate::commands::onnx::{OnnxEmbedder, runtime};
use crate::failure::Failure;
use crate::progress::Progress;

pub(super) fn embed(path: &Path, arguments: &Embed) -> Result<Embedded, Failure> {
    let flags = &arguments.model;
    let model = OnnxModel::open_with(runtime(flags.runtime), path, flags.output.as_deref())?;
    let on_vectors = arguments.embeddings.is_some();
    if on_vectors && !model.takes_vectors() {
        return Err(Failure::new(format!(
            "{} does not take vectors: give it --images or --data",
            path.display()
        )));
    }
    if !on_vectors && !model.takes_images() {
        return Err(Failure::new(format!(
            "{} takes no images (its input has not four axes): if it is a head on vectors, give them with --embeddings",
            path.display()
        )));
    }
    let preprocessing = if on_vectors {
        None
    } else {
        Some(preprocessing_of(path, flags, model.kind())?)
    };
    let embedder = OnnxEmbedder {
        model,
        preprocessing,
        batch_size: flags.batch_size.map(|size| size as usize),
    };
    let found = if arguments.data.data.is_empty() {
        inputs(arguments)?
    } else {
        test_items(arguments)?
    };
    let labels = found.good.iter().map(|&index| found.items[index].class).collect();
    let mut progress = Progress::new("");
    let mut set = embedder.embed(&found.items, &found.good, labels, "embedding", &mut progress)?;
    drop(progress);
    if let Some(row) = set.values.iter().position(|value| !value.is_finite()) {
        return Err(Failure::new(format!(
            "{} gives a number that is not finite for {}: is the preprocessing the one it was trained with?",
            path.display(),
            set.ids[row / set.dim.max(1)]
        )));
    }
    if flags.normalize {
        for row in set.values.chunks_exact_mut(set.dim.max(1)) {
            let length = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
            if length > 0.0 {
                row.iter_mut()
                    .for_each(|value| *value = (f64::from(*value) / length) as f32);
            }
        }
    }
    Ok(Embedded {
        set,
        bad_images: found.bad_images,
        folders: found.folders,
    })
}

/// The test items of a data set.
fn test_items(arguments: &Embed) -> Result<Inputs, Failure> {
    let mut layers = layers::of_source(&Source::default())?;
    layers::put_data(&mut layers, &arguments.data)?;
    layers.insert("device", "cpu");
    let config = layers.resolve()?;
    let data = PreparedData::new(&config, &mut Progress::new(""))?;
    let good = match data.test {
        TestSet::Single(items) => items,
        TestSet::QueryGallery { query, gallery } => [query, gallery].concat(),
    };
    Ok(Inputs {
        items: data.items,
        good,
        bad_images: 0,
        folders: 0,
    })
}

/// The JSON file that is named, or that stands beside the model, under the flags.
fn preprocessing_of(path: &Path, flags: &OnnxFlags, kind: InputKind) -> Result<Preprocessing, Failure> {
    let beside = Preprocessing::path_beside(path);
    let stored = match &flags.preprocessing {
        Some(file) => Some(Preprocessing::read(file)?),
        None if beside.exists() => Some(Preprocessing::read(&beside)?),
        None => None,
    };
    let (mean, std) = (
        three("--mean", flags.mean.as_deref())?,
        three("--std", flags.std.as_deref())?,
    );
    let mut found = match (stored, kind, mean, std) {
        (Some(stored), ..) => stored,
        (None, InputKind::Pixels, ..) => Preprocessing::none(),
        (None, InputKind::Float, Some(mean), Some(std)) => Preprocessing {
            mean,
            std,
            ..Preprocessing::plain()
        },
        (None, InputKind::Float, ..) => {
            return Err(Failure::new(format!(
                "how does an image become the input of {}? There is no {} that says so. Name one (--preprocessing FILE), or give --mean and \
                 --std with --resize, --center-crop and --filter as the model was trained with",
                path.display(),
                beside.display()
            )));
        }
    };
    found.mean = mean.unwrap_or(found.mean);
    found.std = std.unwrap_or(found.std);
    if let Some(text) = &flags.resize {
        found.resize = resize(text)?;
    }
    if let Some(text) = &flags.center_crop {
        found.center_crop = match text.as_str() {
            "none" => None,
            number => Some(number.parse().map_err(|_| {
                Failure::new(format!(
                    "--center-crop must be a number of pixels or `none`, but is `{number}`"
                ))
            })?),
        };
    }
    if let Some(name) = &flags.filter {
        found.filter = match name.as_str() {
            "bilinear" => Interpolation::Bilinear,
            "bicubic" => Interpolation::Bicubic,
            "lanczos" => Interpolation::Lanczos,
            _ => {
                return Err(Failure::new(format!(
                    "--filter must be bilinear, bicubic or lanczos, but is `{name}`"
                )));
            }
        };
    }
    found.validate("of the flags")?;
    Ok(found)
}

fn three(flag: &str, numbers: Option<&[f32]>) -> Result<Option<[f32; 3]>, Failure> {
    numbers
        .map(|numbers| {
            <[f32; 3]>::try_from(numbers).map_err(|_| {
                Failure::new(format!(
                    "{flag} takes three numbers, one for each channel, but {} were given",
                    numbers.len()
                ))
            })
        })
        .transpose()
}

fn resize(text: &str) -> Result<Option<Resize>, Failure> {
    let refuse = || {
        Failure::new(format!(
            "--resize must be the pixels of the short side, HEIGHTxWIDTH or `none`, but is `{text}`"
        ))
    };
    if text == "none" {
        return Ok(None);
    }
    let number = |text: &str| text.parse::<usize>().map_err(|_| refuse());
    Ok(Some(match text.split_once('x') {
        Some((height, width)) => Resize::Exact([number(height)?, number(width)?]),
        None => Resize::ShortSide(number(text)?),
    }))
}
