//! The exact engine: every row is compared.

use std::sync::{Arc, PoisonError, RwLock};

use rayon::prelude::*;

use super::{EngineKind, EngineStatistics, Neighbor, VectorIndex};
use crate::IndexError;
use crate::filter::Filter;
use crate::item::{Fields, Item};
use crate::vectors::{cosine, dot, nearer};

/// Rows compared by one thread at a time.
const BLOCK: usize = 2048;

/// The exact engine, and the reference of every other: rows in memory, compared one by one.
///
/// Single-precision products screen; what their error bound leaves open is compared in double precision, so that the ranking is that of
/// double precision and does not depend on the number of threads. Equal scores are ordered by row.
#[derive(Debug)]
pub struct Flat {
    dimension: usize,
    stored: RwLock<Stored>,
}

#[derive(Debug, Default)]
struct Stored {
    values: Vec<f32>,
    /// `None`: no row, or a deleted one.
    items: Vec<Option<Arc<Item>>>,
    count: usize,
}

impl Flat {
    /// An empty engine.
    #[must_use]
    pub fn new(dimension: usize) -> Self {
        Self {
            dimension,
            stored: RwLock::default(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Stored> {
        self.stored.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Stored> {
        self.stored.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl VectorIndex for Flat {
    fn kind(&self) -> EngineKind {
        EngineKind::Flat
    }

    fn declare(&self, _fields: &Fields) -> Result<(), IndexError> {
        Ok(())
    }

    fn add(&self, rows: &[u32], items: &[Arc<Item>], vectors: &[f32]) -> Result<(), IndexError> {
        let mut stored = self.write();
        for ((&row, item), vector) in rows.iter().zip(items).zip(vectors.chunks_exact(self.dimension)) {
            let row = row as usize;
            if row >= stored.items.len() {
                stored.items.resize(row + 1, None);
                stored.values.resize((row + 1) * self.dimension, 0.0);
            }
            stored.values[row * self.dimension..(row + 1) * self.dimension].copy_from_slice(vector);
            if stored.items[row].replace(Arc::clone(item)).is_none() {
                stored.count += 1;
            }
        }
        Ok(())
    }

    fn delete(&self, rows: &[u32]) -> Result<(), IndexError> {
        let mut stored = self.write();
        for &row in rows {
            if stored
                .items
                .get_mut(row as usize)
                .is_some_and(|item| item.take().is_some())
            {
                stored.count -= 1;
            }
        }
        Ok(())
    }

    fn search(&self, query: &[f32], count: usize, filter: &Filter) -> Result<Vec<Neighbor>, IndexError> {
        let stored = self.read();
        if count == 0 || stored.count == 0 {
            return Ok(Vec::new());
        }
        let dimension = self.dimension;
        // Twice what sums of products of unit rows can be off in single precision.
        let slack = 2.0 * (dimension + 8) as f32 * f32::EPSILON;
        let candidates: Vec<Neighbor> = stored
            .items
            .par_chunks(BLOCK)
            .enumerate()
            .flat_map_iter(|(block, items)| {
                let first = block * BLOCK;
                let values = &stored.values[first * dimension..(first + items.len()) * dimension];
                let mut found: Vec<Neighbor> = items
                    .iter()
                    .zip(values.chunks_exact(dimension))
                    .enumerate()
                    .filter(|(_, (item, _))| item.as_ref().is_some_and(|item| filter.matches(item)))
                    .map(|(offset, (_, row))| Neighbor {
                        row: (first + offset) as u32,
                        score: dot(query, row),
                    })
                    .collect();
                screen(&mut found, count, slack);
                found
            })
            .collect();
        let mut candidates = candidates;
        screen(&mut candidates, count, slack);
        let mut exact: Vec<(f64, u32)> = candidates
            .into_iter()
            .map(|found| {
                let row = found.row as usize;
                (
                    cosine(query, &stored.values[row * dimension..(row + 1) * dimension]),
                    found.row,
                )
            })
            .collect();
        exact.sort_unstable_by(|a, b| nearer(*a, *b));
        exact.truncate(count);
        Ok(exact
            .into_iter()
            .map(|(score, row)| Neighbor {
                row,
                score: score as f32,
            })
            .collect())
    }

    fn rows(&self) -> Result<Vec<u32>, IndexError> {
        let stored = self.read();
        let held = stored.items.iter().enumerate().filter(|(_, item)| item.is_some());
        Ok(held.map(|(row, _)| row as u32).collect())
    }

    fn flush(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn optimize(&self) -> Result<(), IndexError> {
        Ok(())
    }

    fn statistics(&self) -> Result<EngineStatistics, IndexError> {
        Ok(EngineStatistics {
            rows: self.read().count,
            approximate_rows: 0,
            segments: 1,
        })
    }
}

/// Leaves what can be among the `count` best.
fn screen(found: &mut Vec<Neighbor>, count: usize, slack: f32) {
    if found.len() <= count {
        return;
    }
    let (_, last, _) = found.select_nth_unstable_by(count - 1, |a, b| b.score.total_cmp(&a.score));
    let bound = last.score - slack;
    found.retain(|neighbor| neighbor.score >= bound);
}
