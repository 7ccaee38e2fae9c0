//! Searching.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Index;
use crate::IndexError;
use crate::filter::Filter;
use crate::vectors::{cosine, nearer, normalize};

/// An item that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// Its name.
    pub id: String,
    /// Cosine similarity to the query, -1 to 1.
    pub score: f32,
    /// Its class, if known.
    pub class: Option<String>,
    /// Path of its image relative to the image root.
    pub image: Option<String>,
    /// What else is known of it.
    pub payload: Map<String, Value>,
    /// Its row in the files of the index.
    #[serde(skip)]
    pub row: u32,
}

/// What an image was taken for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// Whether the nearest item is too far away to be a match (or there is none).
    pub unknown: bool,
    /// Class of the nearest item, if it is a match.
    pub class: Option<String>,
    /// From which score on the nearest item is a match; without one, it always is.
    pub threshold: Option<f32>,
    /// The nearest items, matches or not, nearest first.
    pub hits: Vec<Hit>,
}

impl Answer {
    /// What hits mean, nearest first, under the threshold for the first of them.
    #[must_use]
    pub fn of(hits: Vec<Hit>, threshold: Option<f32>) -> Self {
        let nearest = hits.first();
        let unknown = nearest.is_none_or(|hit| threshold.is_some_and(|threshold| hit.score < threshold));
        Self {
            unknown,
            class: nearest.and_then(|hit| hit.class.clone()).filter(|_| !unknown),
            threshold,
            hits,
        }
    }
}

impl Index {
    /// The `k` items nearest to a vector that pass the filter, nearest first; with a threshold, only those that score at least as much.
    ///
    /// The engine finds them; scores are exact, and equal ones are ordered by age in the index.
    ///
    /// # Errors
    /// A query of another width, zero or not finite; an engine that fails.
    pub fn search(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter,
        threshold: Option<f32>,
    ) -> Result<Vec<Hit>, IndexError> {
        let dimension = self.dimension();
        if query.len() != dimension {
            return Err(IndexError::Width {
                expected: dimension,
                found: query.len(),
            });
        }
        let mut unit = query.to_vec();
        normalize(&mut unit, || "the query".to_owned())?;
        let found = self.engine.search(&unit, k, filter)?;
        let mut scored = Vec::with_capacity(found.len());
        let mut values = Vec::new();
        let state = self.state();
        for neighbor in found {
            // The engine may be ahead of what is committed.
            if state.is_live(neighbor.row) {
                self.log.read(neighbor.row..neighbor.row + 1, &mut values)?;
                scored.push((cosine(&unit, &values), neighbor.row));
            }
        }
        scored.sort_unstable_by(|a, b| nearer(*a, *b));
        let hits = scored.into_iter().map(|(score, row)| {
            let item = &state.items[row as usize];
            Hit {
                id: item.id.clone(),
                score: score as f32,
                class: item.class.clone(),
                image: item.image.clone(),
                payload: item.payload.clone(),
                row,
            }
        });
        Ok(hits
            .filter(|hit| threshold.is_none_or(|threshold| hit.score >= threshold))
            .collect())
    }

    /// What a vector is: a match of the nearest item, or unknown where that scores less than the threshold given, else the calibrated one
    /// of its class, else the calibrated global one.
    ///
    /// # Errors
    /// As [`search`](Self::search).
    pub fn identify(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter,
        threshold: Option<f32>,
    ) -> Result<Answer, IndexError> {
        let hits = self.search(query, k.max(1), filter, None)?;
        let class = hits.first().and_then(|hit| hit.class.as_deref());
        let threshold = threshold.or_else(|| Some(self.state().manifest.calibration.as_ref()?.of(class)));
        Ok(Answer::of(hits, threshold))
    }
}
