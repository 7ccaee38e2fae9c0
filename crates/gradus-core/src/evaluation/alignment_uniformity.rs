//! Alignment and uniformity on the sphere.

use rayon::prelude::*;

use super::blocks::similarities;
use super::unit_rows::UnitRows;

/// Rows of one block of similarities: fixed, so that sums do not depend on the number of threads.
const QUERIES: usize = 256;
const GALLERY: usize = 1024;

/// Alignment: mean over pairs of one class of `||x - y||^2` (Wang and Isola 2020, alpha = 2); 0 when each class is a point.
///
/// `None` without a pair.
#[must_use]
pub fn alignment(rows: &UnitRows) -> Option<f64> {
    let (mut sum, mut pairs) = (0.0, 0.0);
    for class in rows.classes() {
        let len = class.rows.len() as f64;
        // sum_{i<j} ||x_i - x_j||^2 = n sum_i ||x_i - mean||^2: no pair is looked at.
        let mean = super::gram::mean(class.rows.len(), rows.dim(), |member| {
            rows.row(class.rows.start + member)
        });
        for row in class.rows.clone() {
            let apart = rows
                .row(row)
                .iter()
                .zip(&mean)
                .map(|(&value, mean)| (f64::from(value) - mean).powi(2));
            sum += len * apart.sum::<f64>();
        }
        pairs += len * (len - 1.0) / 2.0;
    }
    (pairs > 0.0).then(|| sum / pairs)
}

/// Uniformity: `log` of the mean over all pairs of `exp(-2 ||x - y||^2)` (Wang and Isola 2020, t = 2); lower is more uniform.
///
/// All pairs of two different rows, whatever their class, block by block. `None` without a pair.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{UnitRows, alignment, uniformity};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.0, 1.0],
///     labels: vec![0, 0],
///     ids: vec![String::new(); 2],
/// };
/// let rows = UnitRows::new(&set, "query")?;
/// assert!((alignment(&rows).unwrap_or(0.0) - 2.0).abs() < 1e-9);
/// assert!((uniformity(&rows).unwrap_or(0.0) + 4.0).abs() < 1e-6);
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
#[must_use]
pub fn uniformity(rows: &UnitRows) -> Option<f64> {
    let (len, padded) = (rows.len(), rows.padded_len());
    if len < 2 {
        return None;
    }
    let blocks: Vec<usize> = (0..len).step_by(QUERIES).collect();
    let sums: Vec<f64> = blocks
        .into_par_iter()
        .map_init(Vec::new, |scores, first| {
            let queries = first..(first + QUERIES).min(padded);
            let mut sum = 0.0;
            for start in (first..padded).step_by(GALLERY) {
                let gallery = start..(start + GALLERY).min(padded);
                similarities(rows, queries.clone(), rows, gallery.clone(), scores);
                for (i, scores) in queries
                    .clone()
                    .zip(scores.chunks_exact(gallery.len()))
                    .take(len - first)
                {
                    for j in (i + 1).max(gallery.start)..gallery.end.min(len) {
                        // ||x - y||^2 = 2 - 2 x.y
                        sum += f64::from((4.0 * (scores[j - gallery.start] - 1.0)).exp());
                    }
                }
            }
            sum
        })
        .collect();
    let pairs = len as f64 * (len as f64 - 1.0) / 2.0;
    Some((sums.iter().sum::<f64>() / pairs).ln())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::distance;
    use crate::evaluation::testing::random_set;

    #[test]
    fn both_equal_plain_loops_on_any_number_of_threads() {
        for (len, classes) in [(50, 4), (1500, 30)] {
            let set = random_set(len as u64, len, 11, classes);
            let rows = UnitRows::new(&set, "query").unwrap();
            let (mut inside, mut inside_pairs, mut all, mut pairs) = (0.0, 0.0, 0.0, 0.0);
            for i in 0..len {
                for j in 0..i {
                    let squared = f64::from(distance(rows.row(i), rows.row(j))).powi(2);
                    all += (-2.0 * squared).exp();
                    pairs += 1.0;
                    if rows
                        .classes()
                        .iter()
                        .any(|class| class.rows.contains(&i) && class.rows.contains(&j))
                    {
                        inside += squared;
                        inside_pairs += 1.0;
                    }
                }
            }
            assert!((alignment(&rows).unwrap() - inside / inside_pairs).abs() < 1e-6);
            let found = uniformity(&rows).unwrap();
            assert!(
                (found - (all / pairs).ln()).abs() < 1e-6,
                "{found} {}",
                (all / pairs).ln()
            );
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(Some(found), alone.install(|| uniformity(&rows)));
        }
    }

    #[test]
    fn without_pairs_there_is_no_number() {
        let rows = UnitRows::new(&random_set(1, 1, 3, 1), "query").unwrap();
        assert_eq!((alignment(&rows), uniformity(&rows)), (None, None));
    }
}
