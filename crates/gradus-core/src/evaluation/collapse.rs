//! Collapse: how much spread inside classes is left beside the spread of the class means.

use super::EvaluationError;
use super::class_centred::{class_means, cross_scatter};
use super::gram::eigen;
use super::unit_rows::UnitRows;

/// Variances between classes below this share of the largest are rounding: the pseudo-inverse leaves their directions out.
const RANK_TOLERANCE: f64 = 1e-12;

/// `NC1 = 1/C tr(Sigma_W Sigma_B^+)`, the first measure of neural collapse (Papyan, Han and Donoho 2020).
///
/// `Sigma_W = 1/N sum_i (x_i - mu_c)(x_i - mu_c)^T` inside classes, `Sigma_B = 1/C sum_c (mu_c - mu)(mu_c - mu)^T` between the C
/// class means, `mu` the mean of all N rows, `^+` the pseudo-inverse. 0: every class has become one point. Unit embeddings,
/// double precision. `None` for one class, or where all class means coincide.
///
/// # Errors
/// If the eigenvalue decomposition does not converge.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{UnitRows, collapse};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 1.0],
///     labels: vec![0, 0, 1, 1],
///     ids: vec![String::new(); 4],
/// };
/// assert_eq!(collapse(&UnitRows::new(&set, "query")?)?, Some(0.0));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn collapse(rows: &UnitRows) -> Result<Option<f64>, EvaluationError> {
    let (dim, count) = (rows.dim(), rows.classes().len());
    if count < 2 {
        return Ok(None);
    }
    let means = class_means(rows);
    let mut centre = vec![0.0_f64; dim];
    for (mean, class) in means.chunks_exact(dim).zip(rows.classes()) {
        for (sum, value) in centre.iter_mut().zip(mean) {
            *sum += value * class.rows.len() as f64 / rows.len() as f64;
        }
    }
    let mut between = vec![0.0_f64; dim * dim];
    for mean in means.chunks_exact(dim) {
        let apart: Vec<f64> = mean.iter().zip(&centre).map(|(value, centre)| value - centre).collect();
        for (row, x) in between.chunks_exact_mut(dim).zip(&apart) {
            for (sum, y) in row.iter_mut().zip(&apart) {
                *sum += x * y / count as f64;
            }
        }
    }
    let (values, vectors) =
        eigen(&between, dim, true).ok_or_else(|| EvaluationError::Decomposition("the class means".into()))?;
    // Unit rows in single precision: means nearer than this are the same.
    if values[0] < 1e-14 {
        return Ok(None);
    }
    let within = cross_scatter(rows, rows);
    let mut trace = 0.0;
    for (value, vector) in values.iter().zip(vectors.chunks_exact(dim)) {
        if *value <= values[0] * RANK_TOLERANCE {
            break;
        }
        let along: f64 = within
            .chunks_exact(dim)
            .zip(vector)
            .map(|(row, x)| x * row.iter().zip(vector).map(|(a, b)| a * b).sum::<f64>())
            .sum();
        trace += along / rows.len() as f64 / value;
    }
    Ok(Some(trace / count as f64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::random_set;

    #[derive(serde::Deserialize)]
    struct Case {
        dim: usize,
        values: Vec<f32>,
        labels: Vec<u32>,
        nc1: f64,
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    /// Numbers of numpy's pseudo-inverse, written by tools/golden/structure.py.
    #[test]
    fn nc1_equals_numpy() {
        let golden: Golden = serde_json::from_str(include_str!("golden/structure.json")).unwrap();
        assert!(golden.cases.len() > 3);
        for case in golden.cases {
            let set = EmbeddingSet {
                dim: case.dim,
                ids: vec![String::new(); case.labels.len()],
                values: case.values,
                labels: case.labels,
            };
            let found = collapse(&UnitRows::new(&set, "query").unwrap()).unwrap().unwrap();
            assert!((found / case.nc1 - 1.0).abs() < 1e-5, "{found} {}", case.nc1);
        }
    }

    #[test]
    fn nothing_between_classes_is_no_number() {
        let mut set = random_set(1, 20, 4, 1);
        assert_eq!(collapse(&UnitRows::new(&set, "query").unwrap()).unwrap(), None);
        set.labels[0] = 7;
        set.values.fill(1.0);
        assert_eq!(collapse(&UnitRows::new(&set, "query").unwrap()).unwrap(), None);
    }
}
