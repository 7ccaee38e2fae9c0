//! Samples generated inside a class as mixtures of its members, for members to be ranked against in the order of a teacher.

use gradus_core::random::{self, Rng, purpose};

use super::arithmetic::{constant, rows_by_label};
use super::synthesis::stream_of;
use crate::numerics::normalize;
use crate::tensor::{Tensor, TensorData};

/// Mixtures of the members of each class of a batch: convex weights, drawn evenly from all there are (a flat Dirichlet distribution).
///
/// The same weights mix embeddings and what the teacher says of the members, so that a generated sample has a place in the teacher's order
/// without being an image, and without an intensity having to stand for it.
pub(super) struct Mixtures {
    /// `[n, b]`, rows that sum to 1.
    weights: Vec<f64>,
    /// Members of the batch, `b`.
    members: usize,
    /// The class of each mixture, `n`.
    pub(super) labels: Vec<u32>,
}

impl Mixtures {
    /// `each` mixtures for every class with two members or more: one alone gives nothing but itself.
    pub(super) fn of(labels: &[u32], each: usize, seed: u64) -> Self {
        let mut mixtures = Self {
            weights: Vec::new(),
            members: labels.len(),
            labels: Vec::new(),
        };
        for (label, rows) in rows_by_label(labels).into_iter().filter(|(_, rows)| rows.len() > 1) {
            let mut stream = random::stream(seed, &[purpose::SYNTHESIS, stream_of::MIXTURES, u64::from(label)]);
            for _ in 0..each {
                let shares: Vec<f64> = rows.iter().map(|_| -(1.0 - stream.random::<f64>()).ln()).collect();
                // The sum is 0 with every draw at exactly 0.
                let total = shares.iter().sum::<f64>().max(f64::MIN_POSITIVE);
                let mut weights = vec![0.0; labels.len()];
                rows.iter()
                    .zip(&shares)
                    .for_each(|(&row, share)| weights[row] = share / total);
                mixtures.weights.extend(weights);
                mixtures.labels.push(label);
            }
        }
        mixtures
    }

    /// Rows `[b, d]` of any norm, with the mixtures of their directions below: `[b + n, d]`.
    pub(super) fn below(&self, rows: Tensor<2>) -> Tensor<2> {
        if self.labels.is_empty() {
            return rows;
        }
        let weights = TensorData::new(self.weights.clone(), [self.labels.len(), self.members]);
        let mixed = constant::<2, 2>(weights, &rows).matmul(normalize(rows.clone()));
        Tensor::cat(vec![rows, mixed], 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    #[test]
    fn mixtures_are_of_their_own_class_and_inside_it() {
        let labels = [4, 9, 4, 7, 4, 9];
        let mixtures = Mixtures::of(&labels, 300, 3);
        // Class 7 has a single member.
        assert_eq!(mixtures.labels, [vec![4; 300], vec![9; 300]].concat());
        let mut means = [0.0; 6];
        for (weights, &label) in mixtures.weights.chunks(6).zip(&mixtures.labels) {
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for (row, &weight) in weights.iter().enumerate() {
                assert!(if labels[row] == label {
                    weight > 0.0
                } else {
                    weight == 0.0
                });
                means[row] += weight / 300.0;
            }
        }
        for (row, mean) in means.iter().enumerate() {
            let expected = [1.0 / 3.0, 0.5, 1.0 / 3.0, 0.0, 1.0 / 3.0, 0.5][row];
            assert!((mean - expected).abs() < 0.06, "{means:?}");
        }
        assert_eq!(mixtures.weights, Mixtures::of(&labels, 300, 3).weights);
        assert_ne!(mixtures.weights, Mixtures::of(&labels, 300, 4).weights);
    }

    #[test]
    fn directions_are_mixed_whatever_the_lengths_of_rows() {
        let mixtures = Mixtures {
            weights: vec![0.25, 0.75],
            members: 2,
            labels: vec![0],
        };
        let rows = Tensor::<2>::from_data([[3.0, 0.0], [0.0, 0.5]], &Device::flex());
        let below = mixtures.below(rows).try_into_vec_as::<f32>().unwrap();
        assert_eq!(below, [3.0, 0.0, 0.0, 0.5, 0.25, 0.75]);
    }
}
