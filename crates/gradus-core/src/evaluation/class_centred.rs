//! Sums over members of classes, measured from the mean of their class.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::gram::mean;
use super::unit_rows::UnitRows;

/// Columns of the result per unit of parallel work, and rows at a time: fixed, so that sums never depend on the threads.
const PANEL: usize = 64;
const ROWS: usize = 1024;

/// Mean of each class, row-major `[classes, dim]`.
pub(super) fn class_means(rows: &UnitRows) -> Vec<f64> {
    let means = rows.classes().par_iter();
    means
        .flat_map_iter(|class| {
            mean(class.rows.len(), rows.dim(), |member| {
                rows.row(class.rows.start + member)
            })
        })
        .collect()
}

/// `sum_i (a_i - mean of its class)(b_i - mean of its class)^T`, row-major `[width of a, width of b]`.
///
/// Both hold the same classes at the same positions.
pub(super) fn cross_scatter(a: &UnitRows, b: &UnitRows) -> Vec<f64> {
    let (a_means, b_means) = (class_means(a), class_means(b));
    let mut class_of = Vec::with_capacity(a.len());
    for (number, class) in a.classes().iter().enumerate() {
        class_of.resize(class.rows.end, number);
    }
    let (height, width) = (a.dim(), b.dim());
    let mut sum = vec![0.0_f64; height * width];
    for first in (0..a.len()).step_by(ROWS) {
        let positions = first..(first + ROWS).min(a.len());
        let centred = |rows: &UnitRows, means: &[f64]| -> Vec<f64> {
            let dim = rows.dim();
            positions
                .clone()
                .into_par_iter()
                .flat_map_iter(|row| {
                    let mean = &means[class_of[row] * dim..(class_of[row] + 1) * dim];
                    rows.row(row)
                        .iter()
                        .zip(mean)
                        .map(|(&value, mean)| f64::from(value) - mean)
                })
                .collect()
        };
        let (a_block, b_block) = (centred(a, &a_means), centred(b, &b_means));
        let a_block = MatRef::from_row_major_slice(&a_block, positions.len(), height);
        let b_block = MatRef::from_row_major_slice(&b_block, positions.len(), width);
        sum.par_chunks_mut(PANEL * width)
            .enumerate()
            .for_each(|(panel, target)| {
                let count = target.len() / width;
                matmul(
                    MatMut::from_row_major_slice_mut(target, count, width),
                    Accum::Add,
                    a_block.subcols(panel * PANEL, count).transpose(),
                    b_block,
                    1.0,
                    Par::Seq,
                );
            });
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[test]
    fn cross_scatter_equals_plain_loops_on_any_number_of_threads() {
        let (mut one, mut other) = (random_set(1, 1300, 70, 9), random_set(2, 1300, 5, 9));
        one.labels.clone_from(&other.labels);
        other.labels.clone_from(&one.labels);
        let (a, b) = (
            UnitRows::new(&one, "query").unwrap(),
            UnitRows::new(&other, "query").unwrap(),
        );
        let found = cross_scatter(&a, &b);
        for (i, j) in [(0, 0), (69, 4), (64, 2)] {
            let mut naive = 0.0;
            for class in a.classes() {
                let len = class.rows.len() as f64;
                let mean = |rows: &UnitRows, column: usize| {
                    class
                        .rows
                        .clone()
                        .map(|row| f64::from(rows.row(row)[column]))
                        .sum::<f64>()
                        / len
                };
                let (x, y) = (mean(&a, i), mean(&b, j));
                for row in class.rows.clone() {
                    naive += (f64::from(a.row(row)[i]) - x) * (f64::from(b.row(row)[j]) - y);
                }
            }
            assert!((found[i * 5 + j] - naive).abs() < 1e-9, "{} {naive}", found[i * 5 + j]);
        }
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(found, alone.install(|| cross_scatter(&a, &b)));
    }
}
