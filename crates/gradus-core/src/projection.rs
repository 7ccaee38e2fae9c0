//! Principal components: where an embedding head starts.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use crate::evaluation::gram::{eigen, mean, scatter};

/// Variances below this share of the largest are rounding: their directions carry nothing of the data.
const RANK_TOLERANCE: f64 = 1e-12;

/// Why principal components could not be fitted or applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProjectionError {
    /// The rows are not `rows x dim` numbers.
    #[error("expected {rows} rows of width {dim}, found {values} values")]
    Shape {
        /// Rows expected.
        rows: usize,
        /// Width expected.
        dim: usize,
        /// Values found.
        values: usize,
    },
    /// No rows or no columns.
    #[error("there is nothing to fit principal components to: {rows} rows of width {dim}")]
    Empty {
        /// Rows found.
        rows: usize,
        /// Width found.
        dim: usize,
    },
    /// More components than columns, or none.
    #[error("{components} principal components were asked of rows of width {dim}; expected between 1 and {dim}")]
    Components {
        /// Components asked for.
        components: usize,
        /// Width of the rows.
        dim: usize,
    },
    /// A row holds NaN or infinity.
    #[error(
        "row {row} holds a value that is not finite: principal components are undefined; look at the model and the image behind it"
    )]
    NotFinite {
        /// The row.
        row: usize,
    },
    /// The decomposition did not converge.
    #[error("the principal components of {dim} columns could not be computed: the decomposition did not converge")]
    Decomposition {
        /// Width of the rows.
        dim: usize,
    },
}

/// Principal components of a set of rows.
///
/// Pearson (1901): the orthonormal directions of greatest variance, eigenvectors of the covariance by falling eigenvalue.
#[derive(Clone, Debug, PartialEq)]
pub struct Pca {
    /// Width of the rows.
    pub dim: usize,
    /// Mean row, `[dim]`.
    pub mean: Vec<f32>,
    /// Orthonormal directions as rows, `[components, dim]`, by falling variance; the entry of largest magnitude of each is
    /// positive, so that the sign is determined.
    pub components: Vec<f32>,
    /// Variance along each direction (divided by `rows - 1`); 0 where the data have none left.
    pub variances: Vec<f32>,
}

impl Pca {
    /// Fits `components` directions to `n` rows of width `d`.
    ///
    /// Sums are in double precision and do not depend on the number of threads. Where more directions are asked for than the
    /// data span, the rest is an orthonormal completion made from the coordinate axes in order, with variance 0.
    ///
    /// # Shapes
    /// `rows` is row-major `[n, d]`.
    ///
    /// # Errors
    /// A wrong number of values, no rows, `components` not in 1..=d, a value that is not finite.
    pub fn fit(rows: &[f32], n: usize, d: usize, components: usize) -> Result<Self, ProjectionError> {
        if n.checked_mul(d) != Some(rows.len()) {
            return Err(ProjectionError::Shape {
                rows: n,
                dim: d,
                values: rows.len(),
            });
        }
        if n == 0 || d == 0 {
            return Err(ProjectionError::Empty { rows: n, dim: d });
        }
        if components == 0 || components > d {
            return Err(ProjectionError::Components { components, dim: d });
        }
        if let Some(at) = rows.iter().position(|value| !value.is_finite()) {
            return Err(ProjectionError::NotFinite { row: at / d });
        }
        let row = |index: usize| &rows[index * d..(index + 1) * d];
        let centre = mean(n, d, row);
        let scatter = scatter(n, d, &centre, row);
        let (values, vectors) = eigen(&scatter, d, true).ok_or(ProjectionError::Decomposition { dim: d })?;
        let floor = values[0] * RANK_TOLERANCE;
        let rank = values
            .iter()
            .take(components.min(n - 1))
            .take_while(|&&value| value > floor && value > 0.0)
            .count();
        let mut basis: Vec<f64> = vectors[..rank * d].to_vec();
        complete(&mut basis, d, components);
        for direction in basis.chunks_exact_mut(d) {
            let largest = direction.iter().fold(
                0.0_f64,
                |largest, &value| if value.abs() > largest.abs() { value } else { largest },
            );
            if largest < 0.0 {
                direction.iter_mut().for_each(|value| *value = -*value);
            }
        }
        let variance = |place: usize| {
            if place < rank {
                values[place] / (n - 1) as f64
            } else {
                0.0
            }
        };
        Ok(Self {
            dim: d,
            mean: centre.iter().map(|&value| value as f32).collect(),
            components: basis.iter().map(|&value| value as f32).collect(),
            variances: (0..components).map(|place| variance(place) as f32).collect(),
        })
    }

    /// Number of directions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.variances.len()
    }

    /// Whether there is no direction (never the case after a fit).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.variances.is_empty()
    }

    /// Coordinates of rows along the directions: `(x - mean) . component`.
    ///
    /// # Shapes
    /// `[n, dim]` becomes `[n, components]`, both row-major.
    ///
    /// # Errors
    /// If `rows` is not a whole number of rows.
    pub fn transform(&self, rows: &[f32]) -> Result<Vec<f32>, ProjectionError> {
        const BLOCK: usize = 256;
        if !rows.len().is_multiple_of(self.dim) {
            return Err(ProjectionError::Shape {
                rows: rows.len().div_ceil(self.dim),
                dim: self.dim,
                values: rows.len(),
            });
        }
        let (n, k) = (rows.len() / self.dim, self.len());
        let components = MatRef::from_row_major_slice(&self.components, k, self.dim);
        let mut projected = vec![0.0_f32; n * k];
        projected
            .par_chunks_mut(BLOCK * k)
            .zip(rows.par_chunks(BLOCK * self.dim))
            .for_each(|(target, block)| {
                let centred: Vec<f32> = block
                    .chunks_exact(self.dim)
                    .flat_map(|row| row.iter().zip(&self.mean).map(|(value, mean)| value - mean))
                    .collect();
                let count = centred.len() / self.dim;
                let centred = MatRef::from_row_major_slice(&centred, count, self.dim);
                let target = MatMut::from_row_major_slice_mut(target, count, k);
                matmul(target, Accum::Replace, centred, components.transpose(), 1.0, Par::Seq);
            });
        Ok(projected)
    }
}

/// Adds orthonormal directions, made from the coordinate axes in order, until there are `count`.
fn complete(basis: &mut Vec<f64>, d: usize, count: usize) {
    let mut axis = 0;
    while basis.len() < count * d && axis < d {
        let mut direction = vec![0.0; d];
        direction[axis] = 1.0;
        axis += 1;
        // Twice: one pass of Gram-Schmidt loses digits when little is left.
        for _ in 0..2 {
            for known in basis.chunks_exact(d) {
                let along: f64 = direction.iter().zip(known).map(|(a, b)| a * b).sum();
                direction
                    .iter_mut()
                    .zip(known)
                    .for_each(|(value, known)| *value -= along * known);
            }
        }
        let norm = direction.iter().map(|value| value * value).sum::<f64>().sqrt();
        // Of the d axes, those kept must span what is missing; this share is left of at least one of them.
        if norm > 0.5 / (d as f64).sqrt() {
            basis.extend(direction.iter().map(|value| value / norm));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        rows: usize,
        width: usize,
        values: Vec<f32>,
        mean: Vec<f64>,
        variances: Vec<f64>,
        components: Vec<f64>,
    }

    fn close(ours: &[f32], theirs: &[f64], tolerance: f64) {
        for (ours, theirs) in ours.iter().zip(theirs) {
            assert!((f64::from(*ours) - theirs).abs() < tolerance, "{ours} {theirs}");
        }
    }

    fn assert_orthonormal(pca: &Pca) {
        for a in 0..pca.len() {
            for b in 0..=a {
                let row = |at: usize| &pca.components[at * pca.dim..(at + 1) * pca.dim];
                let product: f64 = row(a)
                    .iter()
                    .zip(row(b))
                    .map(|(x, y)| f64::from(*x) * f64::from(*y))
                    .sum();
                assert!(
                    (product - f64::from(u8::from(a == b))).abs() < 1e-5,
                    "{a} {b} {product}"
                );
            }
        }
    }

    /// Numbers of numpy, written by tools/golden/ranks.py.
    #[test]
    fn it_equals_numpy() {
        let golden: Golden = serde_json::from_str(include_str!("evaluation/golden/spectra.json")).unwrap();
        for case in golden.cases {
            let kept = case.variances.len();
            let pca = Pca::fit(&case.values, case.rows, case.width, case.width).unwrap();
            close(&pca.mean, &case.mean, 1e-6);
            close(&pca.variances, &case.variances, 1e-5);
            close(&pca.components[..kept * case.width], &case.components, 1e-5);
            assert!(pca.variances[kept..].iter().all(|&variance| variance == 0.0));
            assert_orthonormal(&pca);
        }
    }

    #[test]
    fn projections_are_centred_uncorrelated_and_have_the_variances() {
        let set = random_set(3, 700, 30, 4);
        let pca = Pca::fit(&set.values, 700, 30, 8).unwrap();
        let projected = pca.transform(&set.values).unwrap();
        for a in 0..8 {
            for b in 0..=a {
                let covariance: f64 = projected
                    .chunks_exact(8)
                    .map(|row| f64::from(row[a]) * f64::from(row[b]))
                    .sum::<f64>()
                    / 699.0;
                let expected = if a == b { f64::from(pca.variances[a]) } else { 0.0 };
                assert!((covariance - expected).abs() < 1e-4, "{a} {b} {covariance} {expected}");
            }
            assert!(projected.chunks_exact(8).map(|row| row[a]).sum::<f32>().abs() < 0.02);
        }
        let two = pca.transform(&set.values[..60]).unwrap();
        assert!(two.iter().zip(&projected).all(|(a, b)| (a - b).abs() < 1e-5) && two.len() == 16);
        assert!(pca.variances.windows(2).all(|pair| pair[0] >= pair[1]));
    }

    #[test]
    fn more_directions_than_the_data_span_are_completed() {
        // Three rows span two directions at most; one row, or equal rows, none.
        let set = random_set(5, 3, 20, 1);
        for (values, n, rank) in [
            (set.values.clone(), 3, 2),
            (set.values[..20].to_vec(), 1, 0),
            (set.values[..20].repeat(4), 4, 0),
        ] {
            let pca = Pca::fit(&values, n, 20, 20).unwrap();
            assert_orthonormal(&pca);
            assert_eq!(pca.variances.iter().filter(|&&variance| variance > 0.0).count(), rank);
            assert_eq!(pca, Pca::fit(&values, n, 20, 20).unwrap());
        }
        // Directions that nearly hide the first axes.
        let line: Vec<f32> = (0..10)
            .flat_map(|step| [1.0_f32; 6].map(|one| one * step as f32))
            .collect();
        assert_orthonormal(&Pca::fit(&line, 10, 6, 6).unwrap());
    }

    #[test]
    fn the_largest_entry_is_positive_and_threads_change_nothing() {
        let set = random_set(6, 300, 40, 4);
        let pca = Pca::fit(&set.values, 300, 40, 40).unwrap();
        for component in pca.components.chunks_exact(40) {
            let largest = component
                .iter()
                .copied()
                .max_by(|a, b| a.abs().total_cmp(&b.abs()))
                .unwrap();
            assert!(largest > 0.0);
        }
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(pca, alone.install(|| Pca::fit(&set.values, 300, 40, 40).unwrap()));
    }

    #[test]
    fn bad_input_is_refused() {
        assert!(matches!(
            Pca::fit(&[1.0; 5], 2, 3, 1),
            Err(ProjectionError::Shape { .. })
        ));
        assert!(matches!(Pca::fit(&[], 0, 3, 1), Err(ProjectionError::Empty { .. })));
        assert!(matches!(Pca::fit(&[], 3, 0, 1), Err(ProjectionError::Empty { .. })));
        assert!(matches!(
            Pca::fit(&[1.0; 6], 2, 3, 4),
            Err(ProjectionError::Components { .. })
        ));
        assert!(matches!(
            Pca::fit(&[1.0; 6], 2, 3, 0),
            Err(ProjectionError::Components { .. })
        ));
        assert!(matches!(
            Pca::fit(&[1.0, 1.0, 1.0, f32::NAN], 2, 2, 1),
            Err(ProjectionError::NotFinite { row: 1 })
        ));
        assert!(matches!(
            Pca::fit(&[1.0; 6], 2, 3, 1).unwrap().transform(&[1.0; 4]),
            Err(ProjectionError::Shape { .. })
        ));
    }
}
