//! Spectral decay and effective rank: how many directions the embeddings use.

use rayon::prelude::*;

use super::EvaluationError;
use super::gram::{eigen, inner_products, mean, scatter};
use super::measure::Measure;
use super::unit_rows::UnitRows;

/// Name and origin of rho.
pub(super) const RHO: Measure = Measure {
    name: "rho",
    summary: "KL divergence of the singular values from uniform; lower means more directions in use",
    source: "Roth et al., Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML 2020",
};

/// Name and origin of rho inside classes.
pub(super) const RHO_INTRA: Measure = Measure {
    name: "rho_intra",
    summary: "the same on class-centred members, mean over classes of three and more; lower means richer classes",
    source: "gradus, after Roth et al. 2020",
};

/// Name and origin of the effective rank.
pub(super) const EFFECTIVE_RANK: Measure = Measure {
    name: "effective_rank",
    summary: "exp of the entropy of the normalised singular values: the number of directions in use",
    source: "Roy and Vetterli, The Effective Rank, EUSIPCO 2007",
};

/// Singular values below this share of the largest are raised to it: f32 embeddings cannot tell them from zero, and one
/// zero alone would make rho infinite.
pub(super) const FLOOR: f64 = 1e-6;

/// Spectral decay and effective rank of all embeddings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spectrum {
    /// `rho = KL(uniform || s) = 1/k sum_i log((1/k) / s_i)`.
    pub rho: f64,
    /// `exp(-sum_i s_i log s_i)`.
    pub effective_rank: f64,
}

/// `rho` and effective rank of the unit embeddings, not centred (Roth et al. 2020; Roy and Vetterli 2007).
///
/// `s` are the `k = min(rows, width)` singular values divided by their sum: with fewer rows than columns only as many
/// directions are compared with uniform as the rows could fill.
///
/// # Errors
/// If the decomposition does not converge.
pub fn spectrum(rows: &UnitRows) -> Result<Spectrum, EvaluationError> {
    let shares = singular_value_shares(rows)?;
    Ok(Spectrum {
        rho: divergence(&shares),
        effective_rank: effective_rank(&shares),
    })
}

/// The singular values of the unit embeddings, not centred, divided by their sum: `min(rows, width)` of them, falling. Those below
/// one millionth of the largest are raised to it.
///
/// # Errors
/// If the decomposition does not converge.
pub fn singular_value_shares(rows: &UnitRows) -> Result<Vec<f64>, EvaluationError> {
    let (len, dim) = (rows.len(), rows.dim());
    let zero = vec![0.0; dim];
    let (matrix, size) = if len < dim {
        (inner_products(len, dim, &zero, |row| rows.row(row)), len)
    } else {
        (scatter(len, dim, &zero, |row| rows.row(row)), dim)
    };
    let (values, _) =
        eigen(&matrix, size, false).ok_or_else(|| EvaluationError::Decomposition("the embeddings".into()))?;
    Ok(shares(&values))
}

/// Mean over classes of `rho` of the members minus their mean.
///
/// A class of n members has at most `min(n - 1, width)` directions left after centring; those are compared with uniform.
/// Classes with fewer than three members have one direction at most and are left out; `None` if no class is left. A class
/// whose members coincide counts as using a single direction.
///
/// # Errors
/// If a decomposition does not converge.
pub fn rho_intra(rows: &UnitRows) -> Result<Option<f64>, EvaluationError> {
    let dim = rows.dim();
    let per_class: Vec<Option<f64>> = rows
        .classes()
        .par_iter()
        .filter(|class| class.rows.len() >= 3)
        .map(|class| {
            let (first, len) = (class.rows.start, class.rows.len());
            let row = |index: usize| rows.row(first + index);
            let centre = mean(len, dim, row);
            let (matrix, size) = if len < dim {
                (inner_products(len, dim, &centre, row), len)
            } else {
                (scatter(len, dim, &centre, row), dim)
            };
            let (mut values, _) = eigen(&matrix, size, false)?;
            values.truncate(dim.min(len - 1));
            // What f32 rounding of unit rows leaves of a class that is a point.
            if values[0] <= len as f64 * FLOOR * FLOOR {
                values.fill(0.0);
                values[0] = 1.0;
            }
            Some(divergence(&shares(&values)))
        })
        .collect();
    if per_class.is_empty() {
        return Ok(None);
    }
    let mut sum = 0.0;
    for value in &per_class {
        sum += value.ok_or_else(|| EvaluationError::Decomposition("a class".into()))?;
    }
    Ok(Some(sum / per_class.len() as f64))
}

/// Normalised singular values from falling squared ones.
fn shares(squared: &[f64]) -> Vec<f64> {
    let largest = squared.first().copied().unwrap_or(0.0).max(0.0).sqrt();
    let singular: Vec<f64> = squared
        .iter()
        .map(|value| value.max(0.0).sqrt().max(FLOOR * largest))
        .collect();
    let sum: f64 = singular.iter().sum();
    singular.iter().map(|value| value / sum).collect()
}

fn divergence(shares: &[f64]) -> f64 {
    let uniform = 1.0 / shares.len() as f64;
    shares
        .iter()
        .map(|share| uniform * (uniform / share).ln())
        .sum::<f64>()
        .max(0.0)
}

fn effective_rank(shares: &[f64]) -> f64 {
    (-shares.iter().map(|share| share * share.ln()).sum::<f64>()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;

    fn set(dim: usize, values: Vec<f32>, labels: Vec<u32>) -> UnitRows {
        let ids = vec![String::new(); labels.len()];
        UnitRows::new(
            &EmbeddingSet {
                dim,
                values,
                labels,
                ids,
            },
            "query",
        )
        .unwrap()
    }

    #[test]
    fn an_orthonormal_set_is_uniform_and_a_point_is_not() {
        let identity: Vec<f32> = (0..16).map(|at| f32::from(u8::from(at % 5 == 0))).collect();
        let even = spectrum(&set(4, identity, vec![0, 1, 2, 3])).unwrap();
        assert!(even.rho.abs() < 1e-12 && (even.effective_rank - 4.0).abs() < 1e-9);
        let point = spectrum(&set(4, [1.0, 0.0, 0.0, 0.0].repeat(5), vec![0; 5])).unwrap();
        // One share of 1, three of about FLOOR.
        assert!(
            (point.rho - (0.25_f64.ln() - 0.75 * FLOOR.ln())).abs() < 1e-4 && (point.effective_rank - 1.0).abs() < 1e-3
        );
    }

    #[test]
    fn fewer_rows_than_columns_compare_only_the_directions_there_are() {
        // Singular values of rows e1, e1, e2: sqrt 2, 1 and 0 of three possible ones.
        let found = spectrum(&set(
            8,
            [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
                .map(|[a, b]| [a, b, 0., 0., 0., 0., 0., 0.])
                .concat(),
            vec![0, 1, 2],
        ))
        .unwrap();
        let sum = 2.0_f64.sqrt() * (1.0 + FLOOR) + 1.0;
        let expected: f64 = [2.0_f64.sqrt() / sum, 1.0 / sum, 2.0_f64.sqrt() * FLOOR / sum]
            .iter()
            .map(|s| (1.0 / 3.0 / s).ln() / 3.0)
            .sum();
        assert!((found.rho - expected).abs() < 1e-6, "{} {expected}", found.rho);
    }

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        rows: usize,
        width: usize,
        values: Vec<f32>,
        rho: f64,
        effective_rank: f64,
        rho_centred: f64,
    }

    /// Numbers of numpy, written by tools/golden/ranks.py: more rows than columns and fewer.
    #[test]
    fn it_equals_numpy() {
        let golden: Golden = serde_json::from_str(include_str!("golden/spectra.json")).unwrap();
        for case in golden.cases {
            let rows = set(case.width, case.values, vec![1; case.rows]);
            let found = spectrum(&rows).unwrap();
            assert!(
                (found.rho - case.rho).abs() < 1e-6 && (found.effective_rank - case.effective_rank).abs() < 1e-5,
                "{found:?}"
            );
            assert!((rho_intra(&rows).unwrap().unwrap() - case.rho_centred).abs() < 1e-6);
        }
    }

    #[test]
    fn classes_on_a_line_use_fewer_directions_than_round_ones() {
        let mut line = Vec::new();
        let mut round = Vec::new();
        for step in 0..12 {
            let t = step as f32 * 0.05;
            line.extend([1.0, t, 0.0, 0.0]);
            round.extend([
                1.0,
                (t * 37.0).sin() * 0.1,
                (t * 53.0).cos() * 0.1,
                (t * 91.0).sin() * 0.1,
            ]);
        }
        let labels = vec![3; 12];
        let line = rho_intra(&set(4, line, labels.clone())).unwrap().unwrap();
        let round = rho_intra(&set(4, round, labels.clone())).unwrap().unwrap();
        let point = rho_intra(&set(4, [0.6, 0.8, 0.0, 0.0].repeat(12), labels))
            .unwrap()
            .unwrap();
        assert!(round < line && line < point, "{round} {line} {point}");
        assert_eq!(rho_intra(&set(2, vec![1.0, 0.0, 0.0, 1.0], vec![0, 0])).unwrap(), None);
    }
}
