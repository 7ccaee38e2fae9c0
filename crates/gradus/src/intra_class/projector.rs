//! The projector `q`: a linear map in front of the ranking, used only in training.

use gradus_core::random::{self, Rng, purpose};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::initial;
use crate::numerics::normalize;
use crate::tensor::{Device, Module, Param, Tensor, TensorData, activation};

/// Where the projector rectifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relu {
    /// Nowhere: `q(a) . q(b)` is a cosine in `[-1, 1]`.
    #[default]
    None,
    /// Before the norm: `q(a) . q(b)` is a cosine in `[0, 1]`.
    BeforeNorm,
    /// After the norm, as in arXiv 2304.10941: `q(a) . q(b)` is then no cosine but lives in about `[0, 0.5]`.
    AfterNorm,
}

/// The projector; section `[intra-class.projector]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProjectorConfig {
    /// Whether there is one; without, the ranking acts on the normalised embedding itself. Default true.
    pub enabled: bool,
    /// Where it rectifies. Default `none`.
    pub relu: Relu,
}

impl Default for ProjectorConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            relu: Relu::None,
        }
    }
}

/// `q(x) = x W + b`, then the L2 norm, rectified as [`Relu`] says. `W` starts orthogonal and `b` at zero, so that at first `q`
/// keeps every angle.
#[derive(Module, Debug)]
pub struct Projector {
    /// `W`, `[dim, dim]`; the embedding multiplies it from the left.
    pub weight: Param<Tensor<2>>,
    /// `b`, `[dim]`.
    pub bias: Param<Tensor<1>>,
    #[module(skip)]
    relu: Relu,
}

impl Projector {
    /// A projector of the given width, a function of the seed alone.
    #[must_use]
    pub fn new(dim: usize, relu: Relu, seed: u64, device: &Device) -> Self {
        let weight = TensorData::new(orthogonal(dim, seed), [dim, dim]);
        Self {
            weight: Param::from_tensor(Tensor::from_data(weight, device)),
            bias: initial::constant([dim], 0.0, device),
            relu,
        }
    }

    /// Projects every row.
    ///
    /// # Shapes
    /// `x` `[n, dim]`; result `[n, dim]`, of unit norm unless rectified after the norm.
    #[must_use]
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.val()) + self.bias.val().unsqueeze_dim::<2>(0);
        match self.relu {
            Relu::None => normalize(y),
            Relu::BeforeNorm => normalize(activation::relu(y)),
            Relu::AfterNorm => activation::relu(normalize(y)),
        }
    }

    /// Whether every row of the output has unit norm.
    pub(super) fn gives_unit_rows(&self) -> bool {
        self.relu != Relu::AfterNorm
    }
}

/// A random orthogonal matrix (Haar), row-major: modified Gram-Schmidt on independent normal rows in `f64`.
///
/// The rows still to be treated are cleaned in parallel; each is one sequential computation, so that the result does
/// not depend on the number of threads.
fn orthogonal(dim: usize, seed: u64) -> Vec<f32> {
    const WEIGHT: u64 = 0x7072_6f6a_6563_7431;
    let mut stream = random::stream(seed, &[purpose::INITIAL, WEIGHT]);
    let mut rows: Vec<Vec<f64>> = (0..dim)
        .map(|_| (0..dim).map(|_| stream.sample(rand_distr::StandardNormal)).collect())
        .collect();
    for k in 0..dim {
        let (done, rest) = rows.split_at_mut(k + 1);
        let row = &mut done[k];
        let norm = dot(row, row).sqrt();
        row.iter_mut().for_each(|value| *value /= norm);
        let row = &*row;
        rest.par_iter_mut().with_min_len(16).for_each(|other| {
            let share = dot(other, row);
            other
                .iter_mut()
                .zip(row)
                .for_each(|(value, direction)| *value -= share * direction);
        });
    }
    rows.into_iter().flatten().map(|value| value as f32).collect()
}

/// A scalar product in eight independent sums, which the compiler can vectorise without changing their order.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let (a_blocks, b_blocks) = (a.chunks_exact(8), b.chunks_exact(8));
    let tail: f64 = a_blocks
        .remainder()
        .iter()
        .zip(b_blocks.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in a_blocks.zip(b_blocks) {
        for lane in 0..8 {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f64>() + tail
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn starts_orthogonal_whatever_the_width() {
        for dim in [1, 2, 7, 33, 64] {
            let w = orthogonal(dim, 3);
            for a in 0..dim {
                for b in 0..dim {
                    let product: f64 = (0..dim)
                        .map(|k| f64::from(w[a * dim + k]) * f64::from(w[b * dim + k]))
                        .sum();
                    let expected = if a == b { 1.0 } else { 0.0 };
                    assert!(
                        (product - expected).abs() < 1e-6,
                        "rows {a} and {b} of {dim}: {product}"
                    );
                }
            }
        }
        assert_ne!(orthogonal(4, 3), orthogonal(4, 4));
        assert_eq!(orthogonal(4, 3), orthogonal(4, 3));
    }

    #[test]
    fn rectifies_where_it_says() {
        let device = Device::flex();
        let mut q = Projector::new(2, Relu::None, 0, &device);
        q.weight = Param::from_tensor(Tensor::from_data([[1.0, 0.0], [0.0, 1.0]], &device));
        q.bias = Param::from_tensor(Tensor::from_data([0.0, 1.0], &device));
        let mut rows = |relu, x: [f32; 2]| {
            q.relu = relu;
            q.forward(Tensor::from_data([x], &device))
                .try_into_vec_as::<f32>()
                .unwrap()
        };
        let close = |a: Vec<f32>, b: [f32; 2]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(close(rows(Relu::None, [-3.0, 3.0]), [-0.6, 0.8]));
        assert!(close(rows(Relu::BeforeNorm, [-3.0, 3.0]), [0.0, 1.0]));
        assert!(close(rows(Relu::AfterNorm, [-3.0, 3.0]), [0.0, 0.8]));
        // Everything rectified away: zero, not NaN.
        assert!(close(rows(Relu::BeforeNorm, [-3.0, -2.0]), [0.0, 0.0]));
    }
}
