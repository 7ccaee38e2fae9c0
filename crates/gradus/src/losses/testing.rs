//! What the unit tests of losses share.

use crate::batch::EmbeddingBatch;
use crate::tensor::{Device, Tensor, TensorData};

/// A matrix on the processor, outside autodiff.
pub(crate) fn matrix(values: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

/// Points on a circle of radius 1.7 (losses must not depend on the length), by angle in radians.
pub(crate) fn circle(angles: &[f64], labels: &[u32]) -> EmbeddingBatch {
    let values = angles
        .iter()
        .flat_map(|angle| [(1.7 * angle.cos()) as f32, (1.7 * angle.sin()) as f32])
        .collect();
    EmbeddingBatch::new(matrix(values, [angles.len(), 2]), labels.to_vec())
}

/// Distance between two points of the unit circle.
pub(crate) fn chord(angle: f64) -> f64 {
    2.0 * (angle / 2.0).sin().abs()
}

/// The value of a tensor of one number.
pub(crate) fn scalar(x: &Tensor<1>) -> f64 {
    assert_eq!(x.dims(), [1]);
    x.clone().into_scalar::<f64>()
}

/// Asserts equality up to single precision.
pub(crate) fn near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() <= 2e-5 * expected.abs().max(1.0),
        "{found} is not {expected}"
    );
}

/// Rows of some length that point where the angles say.
pub(crate) fn directions(angles: &[f64], length: f64) -> Tensor<2> {
    let values = angles
        .iter()
        .flat_map(|angle| [(length * angle.cos()) as f32, (length * angle.sin()) as f32])
        .collect();
    matrix(values, [angles.len(), 2])
}
