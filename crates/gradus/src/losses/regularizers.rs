//! Regularisers: a cost on embeddings, or on the proxies of a loss, whatever the labels.

use serde::{Deserialize, Serialize};

use crate::numerics::{lengths, normalize, safe_power, safe_sqrt};
use crate::tensor::{Bool, Tensor, TensorData};

fn two() -> f64 {
    2.0
}

fn one() -> f64 {
    1.0
}

/// A regulariser with its settings, written `embedding-regularizer = "lp"` or as a table; names and meaning of
/// pytorch-metric-learning.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
pub enum RegularizerConfig {
    /// Mean over rows of `|x|_p^power`.
    Lp {
        /// Which norm, at least 1; 2.
        #[serde(default = "two")]
        p: f64,
        /// What the norm is raised to, above 0; 1.
        #[serde(default = "one")]
        power: f64,
    },
    /// Mean over rows of `|sum of the entries|`.
    ZeroMean {},
    /// Mean over rows of `(|x|^2 - mean |x|^2)^2 / 4` (Wu et al., Deep Face Recognition with Center Invariant Loss, ACM
    /// Multimedia Workshops 2017).
    CenterInvariant {},
    /// Mean over rows of the cosine with the most alike other row (Zhao et al., RegularFace: Deep Face Recognition via
    /// Exclusive Regularization, CVPR 2019).
    RegularFace {},
    /// Mean over the pairs of centres of one class of `sqrt(2 - 2 cosine) / 2` (Qian et al., SoftTriple Loss: Deep Metric
    /// Learning Without Triplet Sampling, ICCV 2019); for losses with several proxies per class.
    SparseCenters {},
}

gradus_core::name_or_table!(
    RegularizerConfig,
    "the name of a regulariser (lp, zero-mean, center-invariant, regular-face, sparse-centers), or a table with one of \
     them"
);

/// What `gradus list regularizers` shows of a regulariser.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RegularizerInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// First author, title, venue and year; empty for what needs none.
    pub paper: &'static str,
    /// The settings with their default values.
    pub defaults: RegularizerConfig,
}

impl RegularizerConfig {
    /// What there is to show of all regularisers.
    #[must_use]
    pub fn registry() -> Vec<RegularizerInfo> {
        let info = |name, summary, paper, defaults| RegularizerInfo {
            name,
            summary,
            paper,
            defaults,
        };
        vec![
            info(
                "center-invariant",
                "equal squared lengths",
                "Wu et al., Deep Face Recognition with Center Invariant Loss, ACM Multimedia Workshops, 2017",
                Self::CenterInvariant {},
            ),
            info("lp", "short rows", "", Self::Lp { p: two(), power: one() }),
            info(
                "regular-face",
                "no two rows alike",
                "Zhao et al., RegularFace: Deep Face Recognition via Exclusive Regularization, CVPR, 2019",
                Self::RegularFace {},
            ),
            info(
                "sparse-centers",
                "centres of one class alike",
                "Qian et al., SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV, 2019",
                Self::SparseCenters {},
            ),
            info("zero-mean", "entries of a row that sum to 0", "", Self::ZeroMean {}),
        ]
    }

    /// The name in configuration files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Lp { .. } => "lp",
            Self::ZeroMean {} => "zero-mean",
            Self::CenterInvariant {} => "center-invariant",
            Self::RegularFace {} => "regular-face",
            Self::SparseCenters {} => "sparse-centers",
        }
    }

    /// Checks the settings; `key` is where they stand, `rows_per_class` how many rows of what is regularised belong to a
    /// class (none: rows are embeddings).
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    pub fn validate(&self, key: &str, rows_per_class: Option<usize>) -> Result<(), String> {
        match *self {
            Self::Lp { p, .. } if !(p.is_finite() && p >= 1.0) => Err(format!(
                "{key}.lp.p is {p}, but it must be a finite number of at least 1; leave it out to get the default 2."
            )),
            Self::Lp { power, .. } if !(power.is_finite() && power > 0.0) => Err(format!(
                "{key}.lp.power is {power}, but it must be a finite number above 0; leave it out to get the default 1."
            )),
            Self::SparseCenters {} if rows_per_class.is_none_or(|rows| rows < 2) => Err(format!(
                "{key} is sparse-centers, which needs a loss with at least 2 proxies per class, and stands under \
                 weight-regularizer; choose another regulariser."
            )),
            _ => Ok(()),
        }
    }

    /// The cost of some rows, `[1]`; 0 with gradient 0 for none.
    ///
    /// # Shapes
    /// `rows` `[n, dim]`; with `rows_per_class` the rows of a class stand together.
    #[must_use]
    pub fn cost(&self, rows: Tensor<2>, rows_per_class: usize) -> Tensor<1> {
        let [count, _] = rows.dims();
        let zero = rows.clone().sum().mul_scalar(0.0);
        if count == 0 {
            return zero;
        }
        match *self {
            Self::Lp { p, power } => {
                let norms = if p == 2.0 {
                    lengths(rows)
                } else {
                    safe_power(safe_power(rows.abs(), p).sum_dim(1), p.recip())
                };
                safe_power(norms, power).mean()
            }
            Self::ZeroMean {} => rows.sum_dim(1).abs().mean(),
            Self::CenterInvariant {} => {
                let squares = rows.square().sum_dim(1);
                let mean = squares.clone().mean_dim(0);
                (squares - mean).square().mean().mul_scalar(0.25)
            }
            Self::RegularFace {} => {
                if count < 2 {
                    return zero;
                }
                let unit = normalize(rows);
                let cosines = unit.clone().matmul(unit.transpose());
                let itself = mask(&cosines, |row, column| row == column);
                cosines.mask_fill(itself, f64::NEG_INFINITY).max_dim(1).mean()
            }
            Self::SparseCenters {} => {
                let pairs = count * rows_per_class.saturating_sub(1) / 2;
                if pairs == 0 {
                    return zero;
                }
                let unit = normalize(rows);
                let cosines = unit.clone().matmul(unit.transpose());
                let others = mask(&cosines, |row, column| {
                    row >= column || row / rows_per_class != column / rows_per_class
                });
                let distances = safe_sqrt(cosines.mul_scalar(-2.0).add_scalar(2.0));
                distances.mask_fill(others, 0.0).sum().mul_scalar(0.5 / pairs as f64)
            }
        }
    }
}

fn mask(like: &Tensor<2>, holds: impl Fn(usize, usize) -> bool) -> Tensor<2, Bool> {
    let [rows, columns] = like.dims();
    let values: Vec<bool> = (0..rows * columns)
        .map(|cell| holds(cell / columns, cell % columns))
        .collect();
    Tensor::from_data(TensorData::new(values, [rows, columns]), &like.device().inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::testing::{matrix, near, scalar};
    use crate::tensor::Device;

    #[test]
    fn each_is_its_formula() {
        let rows = || matrix(vec![3.0, 4.0, 0.0, -2.0, 1.0, 0.0, -1.0, 0.0], [4, 2]);
        let cost = |config: RegularizerConfig| scalar(&config.cost(rows(), 2));
        near(cost(RegularizerConfig::Lp { p: 2.0, power: 1.0 }), 9.0 / 4.0);
        near(
            cost(RegularizerConfig::Lp { p: 1.0, power: 2.0 }),
            (49.0 + 4.0 + 1.0 + 1.0) / 4.0,
        );
        near(cost(RegularizerConfig::ZeroMean {}), (7.0 + 2.0 + 1.0 + 1.0) / 4.0);
        let squares = [25.0, 4.0, 1.0, 1.0_f64];
        let expected: f64 = squares.iter().map(|square| (square - 7.75).powi(2) / 16.0).sum();
        near(cost(RegularizerConfig::CenterInvariant {}), expected);
        near(cost(RegularizerConfig::RegularFace {}), (0.6 + 0.0 + 0.6 + 0.0) / 4.0);
        near(cost(RegularizerConfig::SparseCenters {}), (3.6_f64.sqrt() + 2.0) / 4.0);
    }

    #[test]
    fn extremes_are_finite() {
        for info in RegularizerConfig::registry() {
            for values in [vec![0.0; 8], vec![1.0; 8], vec![1e4; 8], vec![-1.0; 2]] {
                let rows = values.len() / 2;
                let leaf = Tensor::<2>::from_data(TensorData::new(values, [rows, 2]), &Device::flex().autodiff());
                let leaf = leaf.require_grad();
                let value = info.defaults.cost(leaf.clone(), 2);
                let slopes = leaf.grad(&value.backward()).expect("tracked");
                assert!(scalar(&value).is_finite(), "{}", info.name);
                assert!(
                    slopes
                        .try_to_vec_as::<f32>()
                        .expect("floats")
                        .iter()
                        .all(|slope| slope.is_finite())
                );
            }
        }
    }
}
