//! Arithmetic on rows.

use std::cmp::Ordering;

use crate::IndexError;

/// Inner product in single precision, in partial sums that the compiler can keep in vectors.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a_blocks, b_blocks) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0.0_f32; LANES];
    for (x, y) in a_blocks.0.iter().zip(b_blocks.0) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_blocks.1.iter().zip(b_blocks.1).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Cosine similarity in double precision.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let [mut product, mut left, mut right] = [0.0_f64; 3];
    for (&x, &y) in a.iter().zip(b) {
        let (x, y) = (f64::from(x), f64::from(y));
        product += x * y;
        left += x * x;
        right += y * y;
    }
    product / (left * right).sqrt()
}

/// Greater scores first, then smaller rows.
pub(crate) fn nearer(a: (f64, u32), b: (f64, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// Brings a row to unit length.
///
/// # Errors
/// A row that is zero or not finite; `id` names it.
pub(crate) fn normalize(row: &mut [f32], id: impl FnOnce() -> String) -> Result<(), IndexError> {
    let length = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let problem = if !length.is_finite() {
        "holds a value that is not finite"
    } else if length == 0.0 {
        "is zero"
    } else {
        for value in row {
            *value = (f64::from(*value) / length) as f32;
        }
        return Ok(());
    };
    Err(IndexError::Vector { id: id(), problem })
}
