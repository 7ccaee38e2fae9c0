//! Embedding images or vectors with an ONNX model.

use std::path::Path;

use gradus::train::{Event, Observer};
use gradus_core::EmbeddingSet;
use gradus_core::data::Item;
use gradus_core::data::image::decode;
use gradus_onnx::{OnnxModel, Preprocessing, Runtime};
use rayon::prelude::*;

use crate::arguments::OnnxRuntime;
use crate::failure::Failure;
use crate::progress::Progress;

/// Images that go through a model together, unless told otherwise.
const BATCH_SIZE: usize = 32;
/// Vectors that go through a model together.
const VECTORS_AT_A_TIME: usize = 4096;

pub(crate) fn runtime(asked: OnnxRuntime) -> Runtime {
    match asked {
        OnnxRuntime::Rten => Runtime::Rten,
        OnnxRuntime::Onnxruntime => Runtime::Onnxruntime,
    }
}

/// An ONNX model with the preprocessing of its images.
pub(crate) struct OnnxEmbedder {
    pub(crate) model: OnnxModel,
    /// None for a model of vectors.
    pub(crate) preprocessing: Option<Preprocessing>,
    pub(crate) batch_size: Option<usize>,
}

impl OnnxEmbedder {
    /// A model and the description beside it.
    pub(crate) fn open(path: &Path, with: OnnxRuntime) -> Result<Self, Failure> {
        let model = OnnxModel::open_with(runtime(with), path, None)?;
        let beside = Preprocessing::path_beside(path);
        let preprocessing = if beside.exists() && model.takes_images() {
            Some(Preprocessing::read(&beside)?)
        } else {
            None
        };
        Ok(Self {
            model,
            preprocessing,
            batch_size: None,
        })
    }

    /// Embeds the items at `indices`, in that order; `labels` become the labels of the set.
    pub(crate) fn embed(
        &self,
        items: &[Item],
        indices: &[usize],
        labels: Vec<u32>,
        what: &str,
        progress: &mut Progress,
    ) -> Result<EmbeddingSet, Failure> {
        let usual = if self.preprocessing.is_some() {
            self.batch_size.unwrap_or(BATCH_SIZE)
        } else {
            self.batch_size.unwrap_or(VECTORS_AT_A_TIME)
        };
        let batch_size = self.model.fixed_batch().map_or(usual, |fixed| fixed.min(usual));
        let (mut values, mut dim) = (Vec::new(), 0);
        for (number, batch) in indices.chunks(batch_size.max(1)).enumerate() {
            let (rows, width) = match &self.preprocessing {
                Some(preprocessing) => {
                    let images = batch
                        .par_iter()
                        .map(|&index| {
                            let image = decode(&items[index].source).map_err(Failure::from)?;
                            preprocessing.pixels(&image).map_err(Failure::from)
                        })
                        .collect::<Result<Vec<_>, Failure>>()?;
                    self.model.embed_images(&images, preprocessing)?
                }
                None => {
                    let vectors: Vec<&[f32]> = batch.iter().filter_map(|&index| items[index].source.vector()).collect();
                    let width = vectors.first().map_or(0, |vector| vector.len());
                    self.model.embed_vectors(&vectors.concat(), width)?
                }
            };
            values.extend(rows);
            dim = width;
            progress.on(&Event::Progress {
                what: what.to_owned(),
                done: number * batch_size + batch.len(),
                total: indices.len(),
            });
        }
        Ok(EmbeddingSet {
            dim,
            values,
            labels,
            ids: indices.iter().map(|&index| items[index].source.name()).collect(),
        })
    }
}
