//! Embedding Expansion: points between positives, and the hardest pair between two classes as their negative pair.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{AugmentationInput, Augmented, EmbeddingAugmentation, refuse};
use crate::batch::InnerPoints;
use crate::distances::{self, DistanceConfig};
use crate::intra_class::arithmetic::{indices, rows_by_label};
use crate::losses::{LossConfig, Support};
use crate::numerics::normalize;
use crate::tensor::{Bool, Tensor, TensorData};

/// Losses of pairs that do not compare rows by the matrix of distances, which is where hardest pairs enter. A test
/// asks every loss.
const WITHOUT_MATRIX: &[&str] = &[
    "angular",
    "centroid-triplet",
    "manifold",
    "matryoshka",
    "multiple-losses",
    "n-pairs",
];

/// Embedding Expansion (Ko and Gu, Embedding Expansion: Augmentation in Embedding Space for Deep Metric Learning,
/// CVPR 2020).
///
/// Between each pair of members `a`, `b` of a class lie `n` points `unit((k a + (n + 1 - k) b) / (n + 1))`, `k =
/// 1..n`. The distance of a negative pair `(i, j)` is then that of the *hardest* pair, one end among members and
/// points of class `y_i`, the other among those of `y_j`: the least distance, or the greatest similarity. Positive
/// pairs are those of the batch, as they were. Gradients flow through points into the members they lie between.
///
/// For losses of pairs or triplets, which compare rows by a matrix of distances. A miner chooses among the rows of
/// the batch; a negative pair it chose has the distance of the hardest pair of its classes. Losses with proxies are
/// refused.
///
/// # Shapes
/// Members and points `[b + g, d]`; with m members of each class `g = b (m - 1) n / 2`. Memory: `(b + g)^2`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EmbeddingExpansion {
    /// Points between two members. Default 2, the authors'.
    pub points: usize,
}

impl Default for EmbeddingExpansion {
    fn default() -> Self {
        Self { points: 2 }
    }
}

impl EmbeddingAugmentation for EmbeddingExpansion {
    const SUMMARY: &'static str = "points between positives; the hardest pair of two classes is their negative pair";
    const PAPER: &'static str =
        "Ko and Gu, Embedding Expansion: Augmentation in Embedding Space for Deep Metric Learning, CVPR";
    const YEAR: u16 = 2020;
    const ADDS_ROWS: bool = false;

    fn validate(&self) -> Result<(), String> {
        if (1..=100).contains(&self.points) {
            return Ok(());
        }
        refuse("embedding-expansion", "points", self.points, "1 to 100; 2 is usual")
    }

    fn fits(&self, loss: &LossConfig) -> Result<(), String> {
        if loss.accepts().references == Support::Optional && !WITHOUT_MATRIX.contains(&loss.name()) {
            return Ok(());
        }
        Err(
            "hardest negative pairs enter by distances between the rows of a batch, which this loss does not look at; choose a \
             loss of pairs or triplets, for example triplet-margin or multi-similarity"
                .to_owned(),
        )
    }

    fn augment(&self, input: &AugmentationInput<'_>) -> Augmented {
        let x = &input.embeddings;
        let (mut pairs, mut labels) = (Vec::new(), Vec::new());
        for (label, members) in rows_by_label(input.labels) {
            for (place, &a) in members.iter().enumerate() {
                for &b in &members[place + 1..] {
                    pairs.push([a, b]);
                    labels.extend(std::iter::repeat_n(label, self.points));
                }
            }
        }
        let mut comparison = input.plain();
        if !pairs.is_empty() {
            let [_, dim] = x.dims();
            let count = pairs.len();
            let end = |side: usize| {
                let rows = indices(pairs.iter().map(|pair| pair[side]), [count], x);
                x.clone().select(0, rows).unsqueeze_dim::<3>(1) // [pairs, 1, d]
            };
            let shares: Vec<f64> = (1..=self.points).map(|k| k as f64 / (self.points + 1) as f64).collect();
            let rest: Vec<f64> = shares.iter().map(|share| 1.0 - share).collect();
            let along = |shares: Vec<f64>| {
                crate::intra_class::arithmetic::constant::<3, 2>(TensorData::new(shares, [1, self.points, 1]), x)
            };
            let points = end(0) * along(shares) + end(1) * along(rest); // [pairs, points, d]
            comparison.inner_points = Some(InnerPoints {
                points: normalize(points.reshape([count * self.points, dim])),
                labels: labels.into(),
            });
        }
        Augmented { comparison, loss: None }
    }
}

/// The distances between the rows of a batch, those of negative pairs replaced by the distances of hardest pairs.
///
/// # Shapes
/// `rows` `[b, d]` and their labels; the result `[b, b]`.
pub(crate) fn hardest_distances(
    distance: &DistanceConfig,
    rows: Tensor<2>,
    labels: &[u32],
    inner: &InnerPoints,
) -> Tensor<2> {
    let batch = labels.len();
    let all = Tensor::cat(vec![rows, inner.points.clone()], 0);
    let matrix = distances::matrix(distance, all, None); // [b + g, b + g]
    let own = matrix.clone().narrow(0, 0, batch).narrow(1, 0, batch);

    let all_labels: Vec<u32> = labels.iter().chain(&*inner.labels).copied().collect();
    let classes: BTreeMap<u32, Vec<usize>> = rows_by_label(&all_labels);
    let (count, width) = (classes.len(), classes.values().map(Vec::len).max().unwrap_or(1));
    // Classes with fewer rows have their first one several times.
    let padded = classes.values().flat_map(|rows| (0..width).map(|slot| rows.get(slot).copied().unwrap_or(rows[0])));
    let padded = indices(padded, [count * width], &matrix);
    let hardest_of_rows = |matrix: Tensor<2>| {
        let [_, columns] = matrix.dims();
        let groups = matrix.select(0, padded.clone()).reshape([count, width, columns]);
        let hardest = if distance.is_similarity() { groups.max_dim(1) } else { groups.min_dim(1) };
        hardest.reshape([count, columns])
    };
    let between = hardest_of_rows(hardest_of_rows(matrix).transpose()); // [classes, classes], turned round twice
    let places: BTreeMap<u32, usize> = classes.keys().enumerate().map(|(place, &label)| (label, place)).collect();
    let of_rows = indices(labels.iter().map(|label| places[label]), [batch], &own);
    let hardest = between.select(0, of_rows.clone()).select(1, of_rows); // [b, b]

    let negative: Vec<bool> = labels.iter().flat_map(|a| labels.iter().map(move |b| a != b)).collect();
    let negative = Tensor::<2, Bool>::from_data(TensorData::new(negative, [batch, batch]), &own.device().inner());
    own.mask_where(negative, hardest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::unit_rows;
    use super::*;
    use crate::losses::testing::{near, scalar};
    use crate::tensor::Device;

    const LABELS: [u32; 7] = [0, 1, 0, 2, 1, 0, 2];

    fn augmented(loss: &LossConfig, x: &[f64], points: usize, device: &Device) -> (crate::losses::Loss, Augmented) {
        let loss = loss.init(5, 3, 0, device);
        let labels: Arc<[u32]> = LABELS.into();
        let augmented = EmbeddingExpansion { points }.augment(&AugmentationInput {
            embeddings: Tensor::<2>::from_data(TensorData::new(x.to_vec(), [7, 5]), device),
            labels: &labels,
            loss: &loss,
            statistics: None,
            seed: 1,
        });
        (loss, augmented)
    }

    /// Members and points of each class in plain loops.
    fn groups(x: &[f64], n: usize) -> Vec<Vec<Vec<f64>>> {
        (0..3)
            .map(|class| {
                let members: Vec<Vec<f64>> = (0..7).filter(|&i| LABELS[i] == class).map(|i| x[i * 5..][..5].to_vec()).collect();
                let mut all = members.clone();
                for (place, a) in members.iter().enumerate() {
                    for b in &members[place + 1..] {
                        for k in 1..=n {
                            let share = k as f64 / (n + 1) as f64;
                            let point: Vec<f64> = a.iter().zip(b).map(|(a, b)| share * a + (1.0 - share) * b).collect();
                            let norm = point.iter().map(|v| v * v).sum::<f64>().sqrt();
                            all.push(point.iter().map(|v| v / norm).collect());
                        }
                    }
                }
                all
            })
            .collect()
    }

    #[test]
    fn a_triplet_loss_meets_the_hardest_pair_of_two_classes() {
        let x = unit_rows(7, 5, 3);
        let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        for n in [1, 2, 5] {
            let groups = groups(&x, n);
            let hardest = |a: usize, b: usize| {
                let pairs = groups[a].iter().flat_map(|a| groups[b].iter().map(move |b| distance(a, b)));
                pairs.fold(f64::INFINITY, f64::min)
            };
            let (mut sum, mut count) = (0.0, 0.0);
            for a in 0..7 {
                for p in (0..7).filter(|&p| p != a && LABELS[p] == LABELS[a]) {
                    for n in (0..7).filter(|&n| LABELS[n] != LABELS[a]) {
                        let near = distance(&x[a * 5..][..5], &x[p * 5..][..5]);
                        let violation = near - hardest(LABELS[a] as usize, LABELS[n] as usize) + 0.05;
                        sum += violation.max(0.0);
                        count += f64::from(u8::from(violation > 0.0));
                    }
                }
            }
            let config = LossConfig::by_name("triplet-margin").unwrap();
            let (loss, augmented) = augmented(&config, &x, n, &Device::flex());
            near(scalar(&loss.forward(&augmented.comparison)), sum / count);
        }
    }

    #[test]
    fn it_is_refused_by_the_losses_that_would_not_see_it_and_by_no_other() {
        let x = unit_rows(7, 5, 4);
        let device = Device::flex();
        for config in LossConfig::all() {
            let accepts = config.accepts();
            if ["matryoshka", "multiple-losses"].contains(&config.name()) {
                // Whether these would see it is up to the losses they hold.
                assert!(EmbeddingExpansion::default().fits(&config).is_err());
                continue;
            }
            if accepts.references != Support::Optional || accepts.mined == Support::Required {
                assert_eq!(
                    EmbeddingExpansion::default().fits(&config).is_err(),
                    accepts.references != Support::Optional
                );
                continue;
            }
            let (loss, augmented) = augmented(&config, &x, 2, &device);
            let mut plain = augmented.comparison.clone();
            plain.inner_points = None;
            let (with, without) = (loss.evaluate(&augmented.comparison), loss.evaluate(&plain));
            let differs = (scalar(&with.value) - scalar(&without.value)).abs() > 1e-6;
            assert_eq!(differs, EmbeddingExpansion::default().fits(&config).is_ok(), "{}", config.name());
        }
    }
}
