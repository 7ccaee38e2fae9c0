//! Similarities in blocks: never more than one tile of the query x gallery matrix per worker.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::EvaluationError;
use super::unit_rows::{ROW_MULTIPLE, UnitRows};

/// Columns added into a similarity at a time. Kernels may cut a longer sum wherever their caches like, which would make the
/// last bit of a similarity depend on the block size; below this depth no kernel cuts.
const DEPTH: usize = 256;

/// The largest tile: its scores (1 MiB) stay in the second-level cache between product and selection.
const LARGEST: Tile = Tile {
    queries: 256,
    gallery: 1024,
};

/// Rows of one block of similarities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) queries: usize,
    pub(super) gallery: usize,
}

impl Tile {
    /// The largest tile whose scores, once per worker, fit into what `memory` bytes leave beside the rows themselves.
    pub(super) fn for_memory(memory: usize, queries: &UnitRows, gallery: &UnitRows, workers: usize) -> Self {
        let workers = workers.max(1);
        let rows =
            (queries.padded_len() * queries.stride() + gallery.padded_len() * gallery.stride()) * size_of::<f32>();
        let each = memory.saturating_sub(rows) / workers;
        let mut tile = LARGEST;
        // Several tiles per worker, so that small sets use all of them.
        while tile.queries > ROW_MULTIPLE && tile.queries * workers * 4 > queries.padded_len() {
            tile.queries /= 2;
        }
        while tile.queries * tile.gallery * size_of::<f32>() > each && tile.gallery > ROW_MULTIPLE {
            if tile.queries > ROW_MULTIPLE && tile.queries * 4 >= tile.gallery {
                tile.queries /= 2;
            } else {
                tile.gallery /= 2;
            }
        }
        tile
    }
}

/// The consecutive ranges of at most `size` that cover `rows`.
pub(super) fn ranges(rows: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    (0..rows.len().div_ceil(size))
        .map(move |tile| rows.start + tile * size..(rows.start + (tile + 1) * size).min(rows.end))
}

/// Gives the numbers below `count` to the threads, one after the other, so that none is idle at the end; `kept` is what each thread
/// keeps from one to the next, and from call to call. The outcomes come in no order.
pub(super) fn handed_out<K: Default + Send, T: Send>(
    count: usize,
    kept: &mut Vec<K>,
    work: impl Fn(&mut K, usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    kept.resize_with(rayon::current_num_threads().max(kept.len()), K::default);
    let outcomes = kept.par_iter_mut().with_max_len(1).map(|kept| {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Relaxed)).take_while(|&number| number < count);
        numbers.map(|number| work(kept, number)).collect::<Vec<T>>()
    });
    outcomes.flatten_iter().collect()
}

/// Inner products of two blocks of rows, both of width `stride` and a multiple of [`ROW_MULTIPLE`] long.
///
/// # Shapes
/// `scores` becomes row-major `[queries, gallery]`.
pub(super) fn products(queries: &[f32], gallery: &[f32], stride: usize, scores: &mut Vec<f32>) {
    let (q, g) = (queries.len() / stride, gallery.len() / stride);
    scores.resize(q * g, 0.0);
    let query_block = MatRef::from_row_major_slice(queries, q, stride);
    let gallery_block = MatRef::from_row_major_slice(gallery, g, stride);
    for start in (0..stride).step_by(DEPTH) {
        let depth = DEPTH.min(stride - start);
        // Transposed, so that the scores of one query lie side by side for the selection.
        matmul(
            MatMut::from_column_major_slice_mut(scores.as_mut_slice(), g, q),
            if start == 0 { Accum::Replace } else { Accum::Add },
            gallery_block.subcols(start, depth),
            query_block.subcols(start, depth).transpose(),
            1.0,
            Par::Seq,
        );
    }
}

/// Cosine similarities of a block of queries with a block of the gallery.
///
/// # Shapes
/// `scores` becomes row-major `[queries, gallery]` (padded rows included).
pub(super) fn similarities(
    queries: &UnitRows,
    query_rows: Range<usize>,
    gallery: &UnitRows,
    gallery_rows: Range<usize>,
    scores: &mut Vec<f32>,
) {
    products(
        queries.padded(query_rows),
        gallery.padded(gallery_rows),
        queries.stride(),
        scores,
    );
}

/// Runs `work` on `threads` threads (0: the ones rayon already has).
pub(super) fn on_threads<T: Send>(
    threads: usize,
    work: impl FnOnce() -> Result<T, EvaluationError> + Send,
) -> Result<T, EvaluationError> {
    if threads == 0 {
        return work();
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| {
            EvaluationError::Options(format!("{threads} evaluation threads could not be started: {error}"))
        })?;
    pool.install(work)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[test]
    fn a_similarity_is_the_same_number_in_every_block() {
        for dim in [1, 3, 16, 100, 257, 700] {
            let set = random_set(dim as u64, 150, dim, 10);
            let rows = UnitRows::in_given_order(&set, "query").unwrap();
            let len = rows.padded_len();
            let mut whole = Vec::new();
            similarities(&rows, 0..len, &rows, 0..len, &mut whole);
            for (q_size, g_size) in [(32, 32), (64, 32), (32, 96), (160, 64)] {
                let mut part = Vec::new();
                for q in ranges(0..len, q_size) {
                    for g in ranges(0..len, g_size) {
                        similarities(&rows, q.clone(), &rows, g.clone(), &mut part);
                        for (i, row) in q.clone().zip(part.chunks_exact(g.len())) {
                            let expected = &whole[i * len + g.start..i * len + g.end];
                            assert!(
                                row.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()),
                                "{dim} {q:?} {g:?}"
                            );
                        }
                    }
                }
            }
            for i in 0..set.len() {
                for j in 0..set.len() {
                    let naive: f64 = rows
                        .row(i)
                        .iter()
                        .zip(rows.row(j))
                        .map(|(a, b)| f64::from(*a) * f64::from(*b))
                        .sum();
                    assert!((f64::from(whole[i * len + j]) - naive).abs() < 1e-6);
                    assert_eq!(whole[i * len + j].to_bits(), whole[j * len + i].to_bits());
                }
            }
        }
    }

    #[test]
    fn every_number_is_handed_out_once() {
        for count in [0, 1, 100] {
            let mut kept = Vec::new();
            for calls in 1..3 {
                let mut found = handed_out(count, &mut kept, |seen: &mut usize, number| {
                    *seen += 1;
                    number
                });
                found.sort_unstable();
                assert_eq!(found, (0..count).collect::<Vec<_>>());
                assert_eq!(kept.iter().sum::<usize>(), calls * count);
            }
        }
    }

    #[test]
    fn tiles_shrink_with_the_memory_and_never_vanish() {
        let set = random_set(1, 3000, 8, 10);
        let rows = UnitRows::new(&set, "query").unwrap();
        let bytes = |memory| {
            let tile = Tile::for_memory(memory, &rows, &rows, 2);
            tile.queries * tile.gallery * 4
        };
        let fixed = 2 * rows.padded_len() * rows.stride() * 4;
        assert!(bytes(fixed + 2 * 100_000) <= 100_000);
        assert!(bytes(fixed + 2 * 10_000) <= 10_000);
        assert_eq!(bytes(0), 32 * 32 * 4);
        assert!(bytes(1 << 30) > 500_000);
    }
}
