//! PCA whitening: directions of equal variance.

use serde::{Deserialize, Serialize};

use super::{PostProcessingError, unit_rows};
use crate::EmbeddingSet;
use crate::projection::Pca;

/// How whitening is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct WhiteningOptions {
    /// Width after whitening; default all directions in which the training embeddings vary.
    pub dim: Option<usize>,
    /// Added to every variance, as a share of the largest, so that directions of hardly any are not blown up; default 1e-6
    /// (0: none).
    pub shrinkage: f64,
}

impl Default for WhiteningOptions {
    fn default() -> Self {
        Self {
            dim: None,
            shrinkage: 1e-6,
        }
    }
}

/// PCA whitening of unit rows (Jégou and Chum 2012): `y = diag(variance)^-1/2 P (x - mean)`, then unit length.
///
/// Fit it on training embeddings, never on the test set: whitening with the statistics of what is measured looks at it.
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening {
    pca: Pca,
    /// `1 / sqrt(variance + shrinkage * largest)` of each direction.
    scales: Vec<f32>,
}

impl Whitening {
    /// Fits mean, directions and variances to the rows of a set, brought to unit length.
    ///
    /// # Errors
    /// A set that is empty, inconsistent or holds a zero or non-finite row; a width of 0, or greater than that of the rows or
    /// than the number of directions in which they vary; a shrinkage that is negative or not finite.
    ///
    /// ```
    /// use gradus_core::EmbeddingSet;
    /// use gradus_core::post_processing::{Whitening, WhiteningOptions};
    ///
    /// let training = EmbeddingSet {
    ///     dim: 2,
    ///     values: vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.2, 0.2, 1.0],
    ///     labels: vec![0; 4],
    ///     ids: vec![String::new(); 4],
    /// };
    /// let whitening = Whitening::fit(&training, &WhiteningOptions { dim: Some(1), ..WhiteningOptions::default() })?;
    /// assert_eq!(whitening.apply(&training)?.dim, 1);
    /// # Ok::<(), gradus_core::post_processing::PostProcessingError>(())
    /// ```
    pub fn fit(training: &EmbeddingSet, options: &WhiteningOptions) -> Result<Self, PostProcessingError> {
        if !options.shrinkage.is_finite() || options.shrinkage < 0.0 {
            return Err(PostProcessingError::Options(format!(
                "a shrinkage of {} cannot be: expected a share of the largest variance, 0 or more",
                options.shrinkage
            )));
        }
        let values = unit_rows(training, "training")?;
        let dim = training.dim;
        let mut pca = Pca::fit(&values, training.len(), dim, options.dim.unwrap_or(dim))?;
        let rank = pca.variances.iter().take_while(|&&variance| variance > 0.0).count();
        if let Some(wanted) = options.dim.filter(|&wanted| wanted > rank) {
            return Err(PostProcessingError::Options(format!(
                "the {} training embeddings vary in {rank} directions only, so {wanted} cannot be whitened: ask for at most {rank}, or \
                 fit on more embeddings",
                training.len()
            )));
        }
        if rank == 0 {
            return Err(PostProcessingError::Options(
                "the training embeddings do not differ from each other: there is no variance to whiten".into(),
            ));
        }
        pca.components.truncate(rank * dim);
        pca.variances.truncate(rank);
        let floor = options.shrinkage * f64::from(pca.variances[0]);
        let scales = pca
            .variances
            .iter()
            .map(|&variance| (1.0 / (f64::from(variance) + floor).sqrt()) as f32)
            .collect();
        Ok(Self { pca, scales })
    }

    /// Width after whitening.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.scales.len()
    }

    /// Whitens rows, which are brought to unit length before and after. Labels and names stay.
    ///
    /// # Errors
    /// A set of another width, or one that [`Whitening::fit`] would refuse; a row that coincides with the training mean, which
    /// has no direction after whitening.
    pub fn apply(&self, set: &EmbeddingSet) -> Result<EmbeddingSet, PostProcessingError> {
        if set.dim != self.pca.dim {
            return Err(PostProcessingError::Options(format!(
                "whitening was fitted to embeddings of width {}, but these are {} wide: both must come from the same model",
                self.pca.dim, set.dim
            )));
        }
        let mut values = self.pca.transform(&unit_rows(set, "embedding")?)?;
        for (index, row) in values.chunks_exact_mut(self.dim()).enumerate() {
            row.iter_mut()
                .zip(&self.scales)
                .for_each(|(value, scale)| *value *= scale);
            let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            if norm == 0.0 {
                return Err(PostProcessingError::Options(format!(
                    "row {index} ({}) is the mean of the training embeddings and has no direction after whitening",
                    set.ids[index]
                )));
            }
            row.iter_mut()
                .for_each(|value| *value = (f64::from(*value) / norm) as f32);
        }
        Ok(EmbeddingSet {
            dim: self.dim(),
            values,
            labels: set.labels.clone(),
            ids: set.ids.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[test]
    fn training_rows_become_uncorrelated_with_equal_variances() {
        let set = random_set(1, 400, 6, 5);
        let options = WhiteningOptions {
            shrinkage: 0.0,
            ..WhiteningOptions::default()
        };
        let whitening = Whitening::fit(&set, &options).unwrap();
        assert_eq!(whitening.dim(), 6);
        // Before the last normalisation.
        let mut values = whitening.pca.transform(&unit_rows(&set, "training").unwrap()).unwrap();
        for row in values.chunks_exact_mut(6) {
            row.iter_mut()
                .zip(&whitening.scales)
                .for_each(|(value, scale)| *value *= scale);
        }
        for a in 0..6 {
            for b in 0..6 {
                let products = values.chunks_exact(6).map(|row| f64::from(row[a]) * f64::from(row[b]));
                let covariance = products.sum::<f64>() / 399.0;
                assert!(
                    (covariance - f64::from(u8::from(a == b))).abs() < 1e-4,
                    "{a} {b} {covariance}"
                );
            }
        }
        let whitened = whitening.apply(&set).unwrap();
        for (row, raw) in whitened.values.chunks_exact(6).zip(values.chunks_exact(6)) {
            let norm = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
            for (value, raw) in row.iter().zip(raw) {
                assert!((value - raw / norm).abs() < 1e-5);
            }
        }
        assert_eq!((whitened.labels, whitened.ids), (set.labels, set.ids));
    }

    #[test]
    fn only_directions_that_vary_are_whitened() {
        let mut set = random_set(2, 50, 5, 3);
        set.values.chunks_exact_mut(5).for_each(|row| row[4] = 0.0);
        let options = WhiteningOptions::default();
        assert_eq!(Whitening::fit(&set, &options).unwrap().dim(), 4);
        let wide = WhiteningOptions {
            dim: Some(5),
            ..options
        };
        let error = Whitening::fit(&set, &wide).unwrap_err().to_string();
        assert!(error.contains("4 directions only"), "{error}");
        let narrow = WhiteningOptions {
            dim: Some(2),
            ..options
        };
        assert_eq!(Whitening::fit(&set, &narrow).unwrap().apply(&set).unwrap().dim, 2);
    }

    #[test]
    fn what_cannot_be_whitened_is_refused() {
        let mut set = random_set(2, 10, 5, 3);
        let options = WhiteningOptions::default();
        let whitening = Whitening::fit(&set, &options).unwrap();
        let error = whitening.apply(&random_set(2, 10, 4, 3)).unwrap_err().to_string();
        assert!(error.contains("width 5") && error.contains("4 wide"), "{error}");
        let negative = WhiteningOptions {
            shrinkage: -1.0,
            ..options
        };
        assert!(Whitening::fit(&set, &negative).unwrap_err().to_string().contains("-1"));
        set.values.fill(2.0);
        assert!(
            Whitening::fit(&set, &options)
                .unwrap_err()
                .to_string()
                .contains("do not differ")
        );
        set.values[3] = f32::NAN;
        assert!(
            Whitening::fit(&set, &options)
                .unwrap_err()
                .to_string()
                .contains("training set")
        );
    }

    #[test]
    fn shrinkage_adds_a_share_of_the_largest_variance() {
        let set = random_set(3, 100, 4, 3);
        let options = WhiteningOptions {
            shrinkage: 0.5,
            ..WhiteningOptions::default()
        };
        let found = Whitening::fit(&set, &options).unwrap();
        for (scale, variance) in found.scales.iter().zip(&found.pca.variances) {
            let expected = (variance + 0.5 * found.pca.variances[0]).powf(-0.5);
            assert!((scale - expected).abs() < 1e-5 * expected, "{scale} {expected}");
        }
    }
}
