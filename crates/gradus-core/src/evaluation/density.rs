//! Density: how wide the classes are beside how far they lie apart.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

use super::measure::Measure;
use super::unit_rows::{UnitRows, distance};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "density",
    summary: "mean distance inside classes over mean distance between class means; near 0 the classes have collapsed",
    source: "Roth et al., Revisiting Training Strategies and Generalization Performance in Deep Metric Learning, ICML 2020",
};

/// Distances inside and between classes, and their ratio.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Density {
    /// `pi_intra`: mean Euclidean distance over all pairs of one class; `None` without a pair.
    pub intra: Option<f64>,
    /// `pi_inter`: mean Euclidean distance over all pairs of class means (not normalised again); `None` for one class.
    pub inter: Option<f64>,
    /// `pi_intra / pi_inter`; `None` if either is missing or the means coincide.
    pub ratio: Option<f64>,
}

/// `density = pi_intra / pi_inter` of unit embeddings (Roth et al. 2020).
#[must_use]
pub fn density(rows: &UnitRows) -> Density {
    let intra = intra(rows);
    let inter = inter(rows);
    let ratio = match (intra, inter) {
        (Some(intra), Some(inter)) if inter > 0.0 => Some(intra / inter),
        _ => None,
    };
    Density { intra, inter, ratio }
}

fn intra(rows: &UnitRows) -> Option<f64> {
    let pairs: f64 = rows.classes().iter().map(|class| pairs(class.rows.len())).sum();
    // One sum per row, added in order: the same number on any number of threads.
    let sums: Vec<f64> = rows
        .classes()
        .par_iter()
        .flat_map(|class| {
            let end = class.rows.end;
            class.rows.clone().into_par_iter().map(move |row| {
                (row + 1..end)
                    .map(|other| f64::from(distance(rows.row(row), rows.row(other))))
                    .sum::<f64>()
            })
        })
        .collect();
    (pairs > 0.0).then(|| sums.iter().sum::<f64>() / pairs)
}

fn inter(rows: &UnitRows) -> Option<f64> {
    const BLOCK: usize = 128;
    let (count, dim) = (rows.classes().len(), rows.dim());
    if count < 2 {
        return None;
    }
    let mut means = vec![0.0_f64; count * dim];
    for (mean, class) in means.chunks_exact_mut(dim).zip(rows.classes()) {
        for row in class.rows.clone() {
            for (mean, &value) in mean.iter_mut().zip(rows.row(row)) {
                *mean += f64::from(value);
            }
        }
        for mean in mean {
            *mean /= class.rows.len() as f64;
        }
    }
    let squares: Vec<f64> = means
        .chunks_exact(dim)
        .map(|mean| mean.iter().map(|value| value * value).sum())
        .collect();
    let all = MatRef::from_row_major_slice(&means, count, dim);
    let sums: Vec<f64> = (0..count.div_ceil(BLOCK))
        .into_par_iter()
        .map(|block| {
            let first = block * BLOCK;
            let some = all.subrows(first, BLOCK.min(count - first));
            let others = all.subrows(first, count - first);
            let mut products = Mat::<f64>::zeros(others.nrows(), some.nrows());
            matmul(&mut products, Accum::Replace, others, some.transpose(), 1.0, Par::Seq);
            let mut sum = 0.0;
            for column in 0..some.nrows() {
                for row in column + 1..others.nrows() {
                    let squared = squares[first + column] + squares[first + row] - 2.0 * products[(row, column)];
                    sum += squared.max(0.0).sqrt();
                }
            }
            sum
        })
        .collect();
    Some(sums.iter().sum::<f64>() / pairs(count))
}

fn pairs(len: usize) -> f64 {
    len as f64 * (len as f64 - 1.0) / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::random_set;

    fn naive(rows: &UnitRows) -> (f64, f64) {
        let far = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt();
        let wide = |row: usize| {
            rows.row(row)
                .iter()
                .map(|&value| f64::from(value))
                .collect::<Vec<f64>>()
        };
        let (mut inside, mut inside_pairs, mut means) = (0.0, 0, Vec::new());
        for class in rows.classes() {
            for a in class.rows.clone() {
                for b in class.rows.clone().filter(|&b| b < a) {
                    inside += far(&wide(a), &wide(b));
                    inside_pairs += 1;
                }
            }
            let members: Vec<Vec<f64>> = class.rows.clone().map(wide).collect();
            means.push(
                (0..rows.dim())
                    .map(|d| members.iter().map(|m| m[d]).sum::<f64>() / members.len() as f64)
                    .collect::<Vec<_>>(),
            );
        }
        let (mut between, mut between_pairs) = (0.0, 0);
        for a in 0..means.len() {
            for b in 0..a {
                between += far(&means[a], &means[b]);
                between_pairs += 1;
            }
        }
        (inside / f64::from(inside_pairs), between / f64::from(between_pairs))
    }

    #[test]
    fn both_distances_equal_plain_loops() {
        for (len, classes) in [(60, 4), (700, 300)] {
            let rows = UnitRows::new(&random_set(9, len, 19, classes), "query").unwrap();
            let found = density(&rows);
            let (intra, inter) = naive(&rows);
            assert!((found.intra.unwrap() - intra).abs() < 1e-6 && (found.inter.unwrap() - inter).abs() < 1e-9);
            assert!((found.ratio.unwrap() - intra / inter).abs() < 1e-6);
        }
    }

    #[test]
    fn by_hand_and_at_the_edges() {
        let mut set = EmbeddingSet {
            dim: 2,
            values: vec![1.0, 0.0, 0.0, 1.0, -1.0, 0.0],
            labels: vec![0, 0, 1],
            ids: vec![String::new(); 3],
        };
        let found = density(&UnitRows::new(&set, "query").unwrap());
        // Means (1/2, 1/2) and (-1, 0).
        assert!((found.intra.unwrap() - 2.0_f64.sqrt()).abs() < 1e-6);
        assert!((found.inter.unwrap() - 2.5_f64.sqrt()).abs() < 1e-12);
        set.labels = vec![0, 1, 2];
        assert_eq!(density(&UnitRows::new(&set, "query").unwrap()).intra, None);
        set.labels = vec![0, 0, 0];
        assert_eq!(density(&UnitRows::new(&set, "query").unwrap()).ratio, None);
        set.labels = vec![0, 0, 1];
        set.values = [1.0, 0.0].repeat(3);
        assert_eq!(density(&UnitRows::new(&set, "query").unwrap()).ratio, None);
    }
}
