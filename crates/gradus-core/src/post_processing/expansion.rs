//! Expansion: a row becomes the weighted mean of itself and its nearest rows.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::PostProcessingError;
use crate::EmbeddingSet;
use crate::evaluation::{EvaluationOptions, nearest};

/// How rows are expanded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExpansionOptions {
    /// Nearest rows that join; default 10. Fewer where there are fewer.
    pub neighbors: usize,
    /// Power of the similarity that is a neighbour's weight; default 3 (Radenović et al. 2018). 0: plain average query expansion
    /// (Chum et al. 2007), all weights 1.
    pub alpha: f64,
}

impl Default for ExpansionOptions {
    fn default() -> Self {
        Self {
            neighbors: 10,
            alpha: 3.0,
        }
    }
}

/// Alpha query expansion (Radenović, Tolias and Chum 2018): `q' = q + sum_i max(0, q.x_i)^alpha x_i`, brought to unit length, over
/// the nearest rows `x_i` of the gallery; without a gallery, of the other queries.
///
/// Rows of unit length are expected to be compared by cosine and are brought to it first. Labels and names stay.
///
/// # Errors
/// Sets that cannot be searched (see [`nearest`]), or a negative or non-finite alpha.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::EvaluationOptions;
/// use gradus_core::post_processing::{ExpansionOptions, query_expansion};
///
/// let set = |values: Vec<f32>| EmbeddingSet { dim: 2, labels: vec![0], ids: vec![String::new()], values };
/// let options = ExpansionOptions { neighbors: 1, alpha: 0.0 };
/// let expanded = query_expansion(
///     &set(vec![1.0, 0.0]),
///     Some(&set(vec![0.0, 1.0])),
///     &options,
///     &EvaluationOptions::default(),
/// )?;
/// assert!(expanded.values.iter().all(|value| (value - 0.5_f32.sqrt()).abs() < 1e-6));
/// # Ok::<(), gradus_core::post_processing::PostProcessingError>(())
/// ```
pub fn query_expansion(
    queries: &EmbeddingSet,
    gallery: Option<&EmbeddingSet>,
    options: &ExpansionOptions,
    search: &EvaluationOptions,
) -> Result<EmbeddingSet, PostProcessingError> {
    if !options.alpha.is_finite() || options.alpha < 0.0 {
        return Err(PostProcessingError::Options(format!(
            "the power of similarities in an expansion is {}: expected a number of 0 or more (3 is usual)",
            options.alpha
        )));
    }
    let found = nearest(queries, gallery, options.neighbors, search)?;
    let others = gallery.unwrap_or(queries);
    let dim = queries.dim;
    let mut expanded = queries.clone();
    expanded
        .values
        .par_chunks_exact_mut(dim)
        .enumerate()
        .for_each(|(query, target)| {
            let mut sum = unit(queries.row(query));
            let places = query * found.count..(query + 1) * found.count;
            for (&index, &similarity) in found.indices[places.clone()].iter().zip(&found.similarities[places]) {
                let weight = f64::from(similarity).max(0.0).powf(options.alpha);
                for (sum, value) in sum.iter_mut().zip(unit(others.row(index as usize))) {
                    *sum += weight * value;
                }
            }
            let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
            // Opposite rows may cancel (alpha 0 only): the row then stays what it was.
            let (sum, norm) = if norm > 1e-12 {
                (sum, norm)
            } else {
                (unit(queries.row(query)), 1.0)
            };
            for (target, value) in target.iter_mut().zip(sum) {
                *target = (value / norm) as f32;
            }
        });
    Ok(expanded)
}

/// Database-side augmentation (Turcot and Lowe 2009; Arandjelović and Zisserman 2012): every row of the gallery is expanded by its
/// nearest other rows of the gallery, with the weights of [`query_expansion`].
///
/// # Errors
/// Those of [`query_expansion`].
pub fn database_augmentation(
    gallery: &EmbeddingSet,
    options: &ExpansionOptions,
    search: &EvaluationOptions,
) -> Result<EmbeddingSet, PostProcessingError> {
    query_expansion(gallery, None, options, search)
}

/// The row at unit length; the search has refused rows without one.
fn unit(row: &[f32]) -> Vec<f64> {
    let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    row.iter().map(|&value| f64::from(value) / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;
    use crate::evaluation::{EvaluationOptions, evaluate};

    #[test]
    fn rows_equal_the_formula() {
        let (queries, gallery) = (random_set(1, 20, 8, 4), random_set(2, 50, 8, 4));
        for (alpha, other) in [(3.0, Some(&gallery)), (0.0, Some(&gallery)), (1.5, None)] {
            let options = ExpansionOptions { neighbors: 4, alpha };
            let found = query_expansion(&queries, other, &options, &EvaluationOptions::default()).unwrap();
            assert_eq!((&found.labels, &found.ids), (&queries.labels, &queries.ids));
            let rows = other.unwrap_or(&queries);
            for query in 0..queries.len() {
                let own = unit(queries.row(query));
                let mut near: Vec<(f64, usize)> = (0..rows.len())
                    .filter(|&row| other.is_some() || row != query)
                    .map(|row| {
                        (
                            own.iter().zip(unit(rows.row(row))).map(|(a, b)| a * b).sum::<f64>(),
                            row,
                        )
                    })
                    .collect();
                near.sort_by(|a, b| b.partial_cmp(a).unwrap());
                let mut sum = own.clone();
                for &(similarity, row) in &near[..4] {
                    for (sum, value) in sum.iter_mut().zip(unit(rows.row(row))) {
                        *sum += similarity.max(0.0).powf(alpha) * value;
                    }
                }
                let norm = sum.iter().map(|value| value * value).sum::<f64>().sqrt();
                for (found, expected) in found.row(query).iter().zip(sum) {
                    assert!((f64::from(*found) - expected / norm).abs() < 1e-6);
                }
            }
        }
    }

    #[test]
    fn augmentation_helps_noisy_classes_and_no_neighbors_change_nothing() {
        let set = random_set(7, 300, 16, 10);
        let search = EvaluationOptions::default();
        let map = |set: &EmbeddingSet| evaluate(set, None, &search, None).unwrap().get("map@r").unwrap();
        let augmented = database_augmentation(&set, &ExpansionOptions::default(), &search).unwrap();
        assert!(map(&augmented) > map(&set) + 0.02, "{} {}", map(&augmented), map(&set));
        let none = ExpansionOptions {
            neighbors: 0,
            ..ExpansionOptions::default()
        };
        let same = database_augmentation(&set, &none, &search).unwrap();
        assert_eq!(map(&same), map(&set));
    }

    #[test]
    fn rows_that_cancel_stay_and_bad_powers_are_refused() {
        let set = EmbeddingSet {
            dim: 1,
            values: vec![2.0, -3.0],
            labels: vec![0, 1],
            ids: vec![String::new(); 2],
        };
        let search = EvaluationOptions::default();
        let options = |alpha| ExpansionOptions { neighbors: 1, alpha };
        let found = query_expansion(&set, None, &options(0.0), &search).unwrap();
        assert_eq!(found.values, [1.0, -1.0]);
        for alpha in [-1.0, f64::NAN] {
            let error = query_expansion(&set, None, &options(alpha), &search).unwrap_err();
            assert!(error.to_string().contains("0 or more"), "{error}");
        }
    }

    #[test]
    fn rows_on_the_other_side_have_no_weight() {
        let set = |values: Vec<f32>| EmbeddingSet {
            dim: 2,
            values,
            labels: vec![0],
            ids: vec![String::new()],
        };
        let (query, gallery) = (set(vec![1.0, 0.0]), set(vec![-0.6, 0.8]));
        let options = ExpansionOptions {
            neighbors: 1,
            alpha: 2.0,
        };
        let found = query_expansion(&query, Some(&gallery), &options, &EvaluationOptions::default()).unwrap();
        assert_eq!(found.values, [1.0, 0.0]);
    }
}
