//! Sums of outer products in double precision, the same on any number of threads.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

/// Columns of the result per unit of parallel work; fixed, so that sums never depend on the number of threads.
const PANEL: usize = 64;
/// Rows widened to double precision at a time.
const ROWS: usize = 1024;

/// `sum_i (x_i - mean)(x_i - mean)^T`, row-major `[dim, dim]`.
///
/// `row(i)` gives the `dim` values of row i.
pub(crate) fn scatter<'a>(len: usize, dim: usize, mean: &[f64], row: impl Fn(usize) -> &'a [f32] + Sync) -> Vec<f64> {
    let mut scatter = vec![0.0_f64; dim * dim];
    let mut block = vec![0.0_f64; ROWS.min(len) * dim];
    for first in (0..len).step_by(ROWS) {
        let count = ROWS.min(len - first);
        let block = &mut block[..count * dim];
        block
            .par_chunks_exact_mut(dim)
            .enumerate()
            .for_each(|(offset, target)| {
                for ((target, &value), mean) in target.iter_mut().zip(row(first + offset)).zip(mean) {
                    *target = f64::from(value) - mean;
                }
            });
        let block = MatRef::from_row_major_slice(&*block, count, dim);
        scatter
            .par_chunks_mut(PANEL * dim)
            .enumerate()
            .for_each(|(panel, target)| {
                // Rows `start..` of the result, columns up to the diagonal block only: the rest follows by symmetry.
                let start = panel * PANEL;
                let rows = target.len() / dim;
                let columns = start + rows;
                let target = MatMut::from_row_major_slice_mut(target, rows, dim).subcols_mut(0, columns);
                matmul(
                    target,
                    Accum::Add,
                    block.subcols(start, rows).transpose(),
                    block.subcols(0, columns),
                    1.0,
                    Par::Seq,
                );
            });
    }
    for row in 0..dim {
        for column in row + 1..dim {
            scatter[row * dim + column] = scatter[column * dim + row];
        }
    }
    scatter
}

/// `x_i . x_j` after centring at `mean`, row-major `[len, len]`.
pub(crate) fn inner_products<'a>(len: usize, dim: usize, mean: &[f64], row: impl Fn(usize) -> &'a [f32]) -> Vec<f64> {
    let mut rows = Vec::with_capacity(len * dim);
    for index in 0..len {
        rows.extend(
            row(index)
                .iter()
                .zip(mean)
                .map(|(&value, mean)| f64::from(value) - mean),
        );
    }
    let rows = MatRef::from_row_major_slice(&rows, len, dim);
    let mut products = vec![0.0_f64; len * len];
    let target = MatMut::from_row_major_slice_mut(&mut products, len, len);
    matmul(target, Accum::Replace, rows, rows.transpose(), 1.0, Par::Seq);
    products
}

/// Mean row.
pub(crate) fn mean<'a>(len: usize, dim: usize, row: impl Fn(usize) -> &'a [f32]) -> Vec<f64> {
    let mut mean = vec![0.0_f64; dim];
    for index in 0..len {
        for (mean, &value) in mean.iter_mut().zip(row(index)) {
            *mean += f64::from(value);
        }
    }
    for mean in &mut mean {
        *mean /= len.max(1) as f64;
    }
    mean
}

/// Falling eigenvalues of a symmetric row-major `[size, size]` matrix and, if asked for, its eigenvectors as rows.
///
/// On one thread, so that the numbers do not depend on how many there are. `None` if the iteration did not converge.
pub(crate) fn eigen(matrix: &[f64], size: usize, vectors: bool) -> Option<(Vec<f64>, Vec<f64>)> {
    let matrix = MatRef::from_row_major_slice(matrix, size, size);
    let mut values = faer::diag::Diag::<f64>::zeros(size);
    let mut basis = if vectors {
        Mat::<f64>::zeros(size, size)
    } else {
        Mat::new()
    };
    let wanted = if vectors {
        ComputeEigenvectors::Yes
    } else {
        ComputeEigenvectors::No
    };
    let scratch = self_adjoint_evd_scratch::<f64>(size, wanted, Par::Seq, Default::default());
    self_adjoint_evd(
        matrix,
        values.as_mut(),
        vectors.then(|| basis.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    )
    .ok()?;
    // faer sorts them rising.
    let falling: Vec<f64> = values.column_vector().iter().rev().copied().collect();
    let rows = if vectors {
        (0..size)
            .rev()
            .flat_map(|column| (0..size).map(move |row| (row, column)))
            .map(|at| basis[at])
            .collect()
    } else {
        Vec::new()
    };
    Some((falling, rows))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[test]
    fn scatter_and_products_equal_plain_loops_on_any_number_of_threads() {
        for (len, dim) in [(1, 1), (70, 67), (1500, 130)] {
            let set = random_set(2, len, dim, 3);
            let centre = mean(len, dim, |row| set.row(row));
            let found = scatter(len, dim, &centre, |row| set.row(row));
            for (a, b) in [(0, 0), (dim / 2, dim - 1), (dim - 1, dim / 3)] {
                let naive: f64 = (0..len)
                    .map(|row| (f64::from(set.row(row)[a]) - centre[a]) * (f64::from(set.row(row)[b]) - centre[b]))
                    .sum();
                assert!((found[a * dim + b] - naive).abs() < 1e-9 * len as f64);
            }
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(found, alone.install(|| scatter(len, dim, &centre, |row| set.row(row))));
        }
        let set = random_set(2, 20, 33, 3);
        let products = inner_products(20, 33, &[0.0; 33], |row| set.row(row));
        let naive: f64 = set
            .row(3)
            .iter()
            .zip(set.row(17))
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum();
        assert!((products[3 * 20 + 17] - naive).abs() < 1e-12);
    }

    #[test]
    fn eigenvectors_solve_the_equation_and_fall() {
        let set = random_set(2, 50, 20, 3);
        let matrix = scatter(50, 20, &[0.0; 20], |row| set.row(row));
        let (values, vectors) = eigen(&matrix, 20, true).unwrap();
        assert!(values.windows(2).all(|pair| pair[0] >= pair[1]));
        for (value, vector) in values.iter().zip(vectors.chunks_exact(20)) {
            for row in 0..20 {
                let image: f64 = (0..20).map(|column| matrix[row * 20 + column] * vector[column]).sum();
                assert!((image - value * vector[row]).abs() < 1e-10 * values[0]);
            }
        }
        assert_eq!(eigen(&matrix, 20, false).unwrap().0.len(), 20);
    }
}
