//! Exact nearest neighbours by cosine similarity.

use rayon::prelude::*;

use super::blocks::{Tile, on_threads, ranges, similarities};
use super::rows::Rows;
use super::unit_rows::{UnitRows, check};
use super::{EvaluationError, EvaluationOptions};
use crate::EmbeddingSet;

/// The nearest gallery rows of every query, nearest first.
///
/// # Shapes
/// `indices` and `similarities` are row-major `[queries, count]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Neighbors {
    /// Neighbours per query: the number asked for, or all there are.
    pub count: usize,
    /// Index of each neighbour in the gallery.
    pub indices: Vec<u32>,
    /// Its cosine similarity.
    pub similarities: Vec<f32>,
}

impl Neighbors {
    /// The neighbours of one query, nearest first.
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn of(&self, query: usize) -> &[u32] {
        &self.indices[query * self.count..(query + 1) * self.count]
    }
}

/// Finds the `count` nearest rows of the gallery for every query; without a gallery, among the other queries.
///
/// Exact: blocks of inner products, each reduced to the best candidates at once, so memory is that of the rows plus one
/// block per thread. Equal similarities are ordered by index. A query never finds itself (left out by index, not by
/// rank, so exact duplicates are found).
///
/// # Errors
/// Sets that are empty, inconsistent, of different widths, or hold a zero or non-finite row.
pub fn nearest(
    queries: &EmbeddingSet,
    gallery: Option<&EmbeddingSet>,
    count: usize,
    options: &EvaluationOptions,
) -> Result<Neighbors, EvaluationError> {
    check(queries, "query")?;
    if let Some(gallery) = gallery {
        check(gallery, "gallery")?;
    }
    nearest_rows(queries, gallery.map(|gallery| gallery as &dyn Rows), count, options)
}

/// [`nearest`] of rows that have no labels, wherever they lie.
///
/// # Errors
/// Sets that are empty, of different widths, hold a zero or non-finite row, or cannot be read.
///
/// ```
/// use gradus_core::evaluation::{EvaluationOptions, RowSlice, nearest_rows};
/// let rows = RowSlice::new(2, &[1.0, 0.0, 0.0, 1.0, 0.9, 0.1]);
/// let found = nearest_rows(&rows, None, 1, &EvaluationOptions::default())?;
/// assert_eq!(found.indices, [2, 2, 0]);
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn nearest_rows(
    queries: &dyn Rows,
    gallery: Option<&dyn Rows>,
    count: usize,
    options: &EvaluationOptions,
) -> Result<Neighbors, EvaluationError> {
    let query_rows = UnitRows::of_rows(queries, "query")?;
    let separate = gallery
        .map(|gallery| UnitRows::of_rows(gallery, "gallery"))
        .transpose()?;
    let gallery_rows = separate.as_ref().unwrap_or(&query_rows);
    if gallery_rows.dim() != query_rows.dim() {
        return Err(EvaluationError::Width {
            queries: query_rows.dim(),
            gallery: gallery_rows.dim(),
        });
    }
    let available = gallery_rows.len() - usize::from(separate.is_none());
    let count = count.min(available);
    on_threads(options.threads, || {
        let tile = Tile::for_memory(options.memory, &query_rows, gallery_rows, rayon::current_num_threads());
        let tiles: Vec<_> = ranges(0..query_rows.padded_len(), tile.queries).collect();
        let lists: Vec<Vec<(f32, u32)>> = tiles
            .into_par_iter()
            .map_init(Vec::new, |scores, rows| {
                let mut best: Vec<Best> = rows
                    .clone()
                    .take_while(|&row| row < query_rows.len())
                    .map(|_| Best::new(count))
                    .collect();
                for gallery_block in ranges(0..gallery_rows.padded_len(), tile.gallery) {
                    similarities(&query_rows, rows.clone(), gallery_rows, gallery_block.clone(), scores);
                    let real = gallery_block
                        .len()
                        .min(gallery_rows.len() - gallery_block.start.min(gallery_rows.len()));
                    for ((query, row), best) in rows
                        .clone()
                        .zip(scores.chunks_exact(gallery_block.len()))
                        .zip(&mut best)
                    {
                        let skip = if separate.is_none() { query } else { usize::MAX };
                        best.offer(&row[..real], gallery_block.start, skip);
                    }
                }
                best.into_iter().map(Best::sorted).collect::<Vec<_>>()
            })
            .flatten_iter()
            .collect();
        let mut found = Neighbors {
            count,
            indices: Vec::new(),
            similarities: Vec::new(),
        };
        for list in lists {
            for (similarity, index) in list {
                found.indices.push(index);
                found.similarities.push(similarity);
            }
        }
        Ok(found)
    })
}

/// The order of neighbours: greater similarity first, then smaller index.
pub(super) fn nearer(a: (f32, u32), b: (f32, u32)) -> std::cmp::Ordering {
    // Similarities are finite; -0 and 0 are the same similarity.
    b.0.partial_cmp(&a.0)
        .unwrap_or(std::cmp::Ordering::Equal)
        .then(a.1.cmp(&b.1))
}

/// The best candidates so far: a buffer that is cut back to `count` whenever it has doubled.
struct Best {
    count: usize,
    /// No similarity below it can be among the best.
    threshold: f32,
    candidates: Vec<(f32, u32)>,
}

impl Best {
    fn new(count: usize) -> Self {
        let threshold = if count == 0 { f32::INFINITY } else { f32::NEG_INFINITY };
        Self {
            count,
            threshold,
            candidates: Vec::new(),
        }
    }

    fn offer(&mut self, scores: &[f32], first: usize, skip: usize) {
        for (offset, &score) in scores.iter().enumerate() {
            if score >= self.threshold && first + offset != skip {
                self.candidates.push((score, (first + offset) as u32));
                if self.candidates.len() >= 2 * self.count + 64 {
                    self.cut();
                }
            }
        }
    }

    fn cut(&mut self) {
        if self.candidates.len() > self.count {
            self.candidates
                .select_nth_unstable_by(self.count - 1, |a, b| nearer(*a, *b));
            self.candidates.truncate(self.count);
            self.threshold = self.candidates[self.count - 1].0;
        }
    }

    fn sorted(mut self) -> Vec<(f32, u32)> {
        if self.count > 0 {
            self.cut();
        }
        self.candidates.sort_unstable_by(|a, b| nearer(*a, *b));
        self.candidates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::{random_set, scattered_duplicates, similarity_matrix};

    fn naive(queries: &EmbeddingSet, gallery: Option<&EmbeddingSet>, count: usize) -> Vec<Vec<u32>> {
        let matrix = similarity_matrix(queries, gallery.unwrap_or(queries));
        matrix
            .iter()
            .enumerate()
            .map(|(query, row)| {
                let mut all: Vec<(f32, u32)> = row
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| gallery.is_some() || *index != query)
                    .map(|(index, &score)| (score, index as u32))
                    .collect();
                all.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap().then(a.1.cmp(&b.1)));
                all.truncate(count);
                all.into_iter().map(|(_, index)| index).collect()
            })
            .collect()
    }

    #[test]
    fn neighbors_equal_a_full_sort_with_and_without_gallery() {
        let queries = random_set(3, 90, 20, 7);
        let gallery = random_set(4, 131, 20, 7);
        for (gallery, count) in [
            (None, 5),
            (Some(&gallery), 40),
            (None, 1000),
            (Some(&gallery), 0),
            (None, 1),
        ] {
            let expected = naive(&queries, gallery, count);
            for (memory, threads) in [(0, 1), (0, 3), (1 << 30, 2)] {
                let options = EvaluationOptions {
                    memory,
                    threads,
                    ..EvaluationOptions::default()
                };
                let found = nearest(&queries, gallery, count, &options).unwrap();
                for (query, expected) in expected.iter().enumerate() {
                    assert_eq!(found.of(query), expected.as_slice(), "query {query} count {count}");
                }
            }
        }
    }

    #[test]
    fn duplicates_are_found_and_ordered_by_index_and_the_query_is_not() {
        let set = scattered_duplicates(5, 40, 24);
        let found = nearest(&set, None, 39, &EvaluationOptions::default()).unwrap();
        assert_eq!(
            naive(&set, None, 39),
            (0..40).map(|query| found.of(query).to_vec()).collect::<Vec<_>>()
        );
        for query in 0..40_u32 {
            let twin = if query < 20 { query + 20 } else { query - 20 };
            assert_eq!(found.of(query as usize)[0], twin);
        }
    }

    #[test]
    fn sets_of_different_width_are_refused() {
        let error = nearest(
            &random_set(1, 4, 3, 2),
            Some(&random_set(1, 4, 5, 2)),
            1,
            &EvaluationOptions::default(),
        );
        assert!(matches!(error, Err(EvaluationError::Width { queries: 3, gallery: 5 })));
    }
}
