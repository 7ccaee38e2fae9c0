//! What the unit tests of augmentations share.

use std::sync::Arc;

use gradus_core::random::{self, Rng};

use super::{AugmentationInput, EmbeddingAugmentation};
use crate::intra_class::ClassStatistics;
use crate::losses::LossConfig;
use crate::tensor::{Device, Tensor, TensorData};

/// Rows of unit length, row-major.
pub(crate) fn unit_rows(rows: usize, dim: usize, seed: u64) -> Vec<f64> {
    let mut stream = random::stream(seed, &[]);
    let mut values: Vec<f64> = (0..rows * dim)
        .map(|_| stream.sample(rand_distr::StandardNormal))
        .collect();
    for row in values.chunks_mut(dim) {
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter_mut().for_each(|value| *value /= norm);
    }
    values
}

/// The rows that the base loss sees, and their classes.
pub(crate) fn augmented_rows<A: EmbeddingAugmentation>(
    augmentation: &A,
    x: &[f64],
    labels: &[u32],
    statistics: Option<&ClassStatistics>,
    seed: u64,
) -> (Vec<f32>, Vec<u32>) {
    let device = Device::flex();
    let dim = x.len() / labels.len();
    let loss = LossConfig::default().init(dim, 4, 0, &device);
    let labels: Arc<[u32]> = labels.into();
    let augmented = augmentation.augment(&AugmentationInput {
        embeddings: Tensor::from_data(TensorData::new(x.to_vec(), [labels.len(), dim]), &device),
        labels: &labels,
        loss: &loss,
        statistics,
        seed,
    });
    let anchors = augmented.comparison.anchors;
    let classes = anchors.labels.classes().expect("classes").to_vec();
    (anchors.embeddings.try_to_vec_as::<f32>().expect("floats"), classes)
}

/// Proxy-Anchor in plain loops, at its default settings.
pub(crate) fn proxy_anchor(rows: &[Vec<f64>], classes: &[u32], proxies: &[Vec<f64>]) -> f64 {
    let (alpha, margin) = (32.0, 0.1);
    let (mut pull, mut push, mut present) = (0.0, 0.0, 0.0);
    for (class, proxy) in proxies.iter().enumerate() {
        let (mut own, mut others, mut any) = (0.0, 0.0, false);
        for (row, &label) in rows.iter().zip(classes) {
            let cosine: f64 = row.iter().zip(proxy).map(|(a, b)| a * b).sum();
            if label as usize == class {
                own += (-alpha * (cosine - margin)).exp();
                any = true;
            } else {
                others += (alpha * (cosine + margin)).exp();
            }
        }
        pull += (1.0 + own).ln();
        push += (1.0 + others).ln();
        present += f64::from(u8::from(any));
    }
    pull / present + push / proxies.len() as f64
}
