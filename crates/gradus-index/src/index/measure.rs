//! How much of the exact answer the engine finds.

use std::time::Instant;

use gradus_core::EmbeddingSet;
use gradus_core::evaluation::{EvaluationOptions, nearest};
use serde::Serialize;

use super::Index;
use crate::IndexError;
use crate::filter::Filter;
use crate::vectors::nearer;

/// How much of the exact answer the engine finds, and how fast.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Recall {
    /// Share of the exact `k` nearest that the engine finds.
    pub recall: f64,
    /// Neighbours asked for.
    pub k: usize,
    /// Queries of the sample.
    pub queries: usize,
    /// Milliseconds of a search, the middle one.
    pub p50_ms: f64,
    /// Milliseconds that 99 of 100 searches stay below.
    pub p99_ms: f64,
}

impl Index {
    /// Compares the engine with exact search, on vectors of the index itself (each left out of its own answer). None if the index holds
    /// fewer than two items.
    ///
    /// A neighbour as near as the last exact one counts as found, whichever of equal ones it is.
    ///
    /// # Errors
    /// An engine or a file that fails.
    pub fn recall(&self, k: usize, queries: usize) -> Result<Option<Recall>, IndexError> {
        let live: Vec<u32> = self.items().into_iter().map(|(row, _)| row).collect();
        let (k, queries) = (k.min(live.len().saturating_sub(1)), queries.min(live.len()));
        if k == 0 || queries == 0 {
            return Ok(None);
        }
        let rows: Vec<u32> = (0..queries).map(|query| live[query * live.len() / queries]).collect();
        let mut values = Vec::new();
        let mut sample = Vec::new();
        for &row in &rows {
            self.log.read(row..row + 1, &mut values)?;
            sample.extend_from_slice(&values);
        }
        self.recall_of(&sample, &rows, k).map(Some)
    }

    /// Compares the engine with exact search on any queries.
    ///
    /// # Shapes
    /// `queries` is row-major `[queries, dimension]`.
    ///
    /// # Errors
    /// An engine or a file that fails.
    pub fn recall_on(&self, queries: &[f32], k: usize) -> Result<Recall, IndexError> {
        self.recall_of(queries, &[], k)
    }

    /// `own`: the row of each query that is left out of its answer.
    fn recall_of(&self, queries: &[f32], own: &[u32], k: usize) -> Result<Recall, IndexError> {
        let dimension = self.dimension();
        let wanted = k + usize::from(!own.is_empty());
        let exact = self.exact(queries, wanted)?;
        let (mut found, mut all) = (0, 0);
        let mut seconds = Vec::new();
        for (number, (query, exact)) in queries.chunks_exact(dimension).zip(&exact).enumerate() {
            let started = Instant::now();
            let hits = self.search(query, wanted, &Filter::default(), None)?;
            seconds.push(started.elapsed().as_secs_f64());
            let is_other = |row: u32| own.get(number) != Some(&row);
            let exact: Vec<f64> = exact
                .iter()
                .filter(|(_, row)| is_other(*row))
                .take(k)
                .map(|(score, _)| *score)
                .collect();
            let Some(last) = exact.last() else { continue };
            let near = hits.iter().filter(|hit| is_other(hit.row)).take(k);
            // Single precision rounds differently in both.
            found += near.filter(|hit| f64::from(hit.score) >= last - 1e-6).count();
            all += exact.len();
        }
        seconds.sort_unstable_by(f64::total_cmp);
        let at =
            |share: f64| seconds.get(((seconds.len() as f64 * share) as usize).min(seconds.len().saturating_sub(1)));
        let milliseconds = |share| at(share).map_or(0.0, |seconds| seconds * 1e3);
        Ok(Recall {
            recall: found as f64 / f64::from(all.max(1) as u32),
            k,
            queries: seconds.len(),
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
        })
    }

    /// The exact `count` nearest rows of every query with their scores, by gradus-core's search, block by block.
    pub(crate) fn exact(&self, queries: &[f32], count: usize) -> Result<Vec<Vec<(f64, u32)>>, IndexError> {
        let dimension = self.dimension();
        let set = |values: &[f32]| {
            let rows = values.len() / dimension;
            EmbeddingSet {
                dim: dimension,
                values: values.to_vec(),
                labels: vec![0; rows],
                ids: vec![String::new(); rows],
            }
        };
        let queries = set(queries);
        let mut best: Vec<Vec<(f64, u32)>> = vec![Vec::new(); queries.len()];
        if queries.is_empty() {
            return Ok(best);
        }
        self.each_block(|rows, values| {
            let found = nearest(&queries, Some(&set(values)), count, &EvaluationOptions::default())?;
            for (query, best) in best.iter_mut().enumerate() {
                let scores = &found.similarities[query * found.count..(query + 1) * found.count];
                best.extend(
                    found
                        .of(query)
                        .iter()
                        .zip(scores)
                        .map(|(&place, &score)| (f64::from(score), rows[place as usize])),
                );
                best.sort_unstable_by(|a, b| nearer(*a, *b));
                best.truncate(count);
            }
            Ok(())
        })?;
        Ok(best)
    }
}
