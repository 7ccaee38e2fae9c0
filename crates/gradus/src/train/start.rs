//! Where head and proxies start: at the principal components of the training features and at the class means.
//!
//! Worth more than most losses where the trunk is pretrained: the untrained model is then already a good one, and the
//! proxies' fast learning rate does not first have to find the classes.

use gradus_core::EmbeddingSet;
use gradus_core::projection::Pca;

use super::error::TrainError;
use super::objective::MetricModel;
use crate::tensor::{Device, Tensor, TensorData};

/// Puts the linear head at the principal components of the features.
///
/// # Errors
/// If the features are not finite, or fewer than the embedding is wide.
pub fn principal_head(model: MetricModel, features: &EmbeddingSet) -> Result<MetricModel, TrainError> {
    let width = model.embedder.dim();
    if width > features.dim {
        return Err(TrainError::Config(format!(
            "model.width = {width} is more than the {} features of the trunk have principal components: lower it, or set \
             model.initial = \"random\"",
            features.dim
        )));
    }
    let pca = Pca::fit(&features.values, features.len(), features.dim, width)
        .map_err(|error| TrainError::Data(format!("the principal components of the training features: {error}")))?;
    let bias: Vec<f32> = pca
        .components
        .chunks_exact(features.dim)
        .map(|row| {
            let product: f64 = row
                .iter()
                .zip(&pca.mean)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            -product as f32
        })
        .collect();
    let MetricModel { embedder, .. } = model;
    let embedder = embedder
        .set_linear_head(&pca.components, &bias)
        .map_err(|error| TrainError::Config(error.to_string()))?;
    Ok(MetricModel { embedder, ..model })
}

/// Puts the proxies of the loss, if it has any, at the normalised class means of the embeddings.
#[must_use]
pub fn class_mean_proxies(
    model: MetricModel,
    embeddings: &EmbeddingSet,
    classes: usize,
    device: &Device,
) -> MetricModel {
    if !model.loss.has_proxies() {
        return model;
    }
    let loss = model.loss.with_proxies(class_means(embeddings, classes, device));
    MetricModel { loss, ..model }
}

/// The normalised class means of embeddings, `[classes, dim]`.
#[must_use]
pub fn class_means(embeddings: &EmbeddingSet, classes: usize, device: &Device) -> Tensor<2> {
    let dim = embeddings.dim;
    let mut means = vec![0f64; classes * dim];
    for (row, &label) in embeddings.values.chunks_exact(dim).zip(&embeddings.labels) {
        let mean = &mut means[label as usize * dim..][..dim];
        mean.iter_mut()
            .zip(row)
            .for_each(|(sum, &value)| *sum += f64::from(value));
    }
    for mean in means.chunks_exact_mut(dim) {
        let norm = mean.iter().map(|value| value * value).sum::<f64>().sqrt().max(1e-12);
        mean.iter_mut().for_each(|value| *value /= norm);
    }
    let values: Vec<f32> = means.into_iter().map(|value| value as f32).collect();
    Tensor::from_data(TensorData::new(values, [classes, dim]), device)
}
