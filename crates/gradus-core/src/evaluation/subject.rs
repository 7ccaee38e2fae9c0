//! What is evaluated: rows, how they are labelled, and what else is known of them.

use std::cell::OnceCell;

use super::factors::FactorTable;
use super::order_preservation::{OrderPreservation, order_preservation};
use super::registry::Numbers;
use super::rows::Rows;
use super::spectral_decay::{Spectrum, spectrum};
use super::unit_rows::UnitRows;
use super::{EvaluationError, Relevance};
use crate::EmbeddingSet;
use crate::relations::Labels;

/// Everything an evaluation may look at. Only `queries` and `query_labels` are needed.
#[allow(missing_debug_implementations, reason = "rows may be a file")]
#[derive(Clone)]
pub struct Subject<'a> {
    /// Embeddings that search.
    pub queries: &'a dyn Rows,
    /// Their classes, or several labels each.
    pub query_labels: Labels,
    /// Embeddings that are searched; `None`: the queries search each other.
    pub gallery: Option<(&'a dyn Rows, Labels)>,
    /// Camera of each query and of each row of the gallery, for re-identification.
    pub cameras: Option<[Vec<u32>; 2]>,
    /// A coarser group of each query, for a breakdown.
    pub categories: Option<Vec<u32>>,
    /// Known factors of each query.
    pub factors: Option<&'a FactorTable>,
    /// Embeddings of the same queries in a space to compare with.
    pub reference: Option<&'a EmbeddingSet>,
}

impl<'a> Subject<'a> {
    /// Queries that search each other, or a gallery.
    #[must_use]
    pub fn of_sets(queries: &'a EmbeddingSet, gallery: Option<&'a EmbeddingSet>) -> Self {
        Self {
            queries,
            query_labels: queries.labels.clone().into(),
            gallery: gallery.map(|gallery| (gallery as &dyn Rows, gallery.labels.clone().into())),
            cameras: None,
            categories: None,
            factors: None,
            reference: None,
        }
    }

    /// The rows that are searched, where they are not the queries.
    #[must_use]
    pub fn gallery_rows(&self) -> Option<&'a dyn Rows> {
        self.gallery.as_ref().map(|gallery| gallery.0)
    }

    /// What is relevant to what.
    ///
    /// # Errors
    /// If labels or cameras do not fit each other.
    pub fn relevance(&self) -> Result<Relevance, EvaluationError> {
        let gallery = self.gallery.as_ref().map(|gallery| gallery.1.clone());
        let relevance = Relevance::new(self.query_labels.clone(), gallery)?;
        match &self.cameras {
            Some([queries, gallery]) => relevance.without_same_camera(queries.clone(), gallery.clone()),
            None => Ok(relevance),
        }
    }

    /// Why measures by class cannot be computed, if they cannot.
    pub(super) fn no_classes(&self) -> Option<String> {
        let in_memory =
            self.queries.as_set().is_some() && self.gallery_rows().is_none_or(|rows| rows.as_set().is_some());
        if self.query_labels.classes().is_none() {
            Some("looks at one class per row, and these rows have several labels".into())
        } else if !in_memory {
            Some("needs all rows in memory, and they are read in blocks: allow more memory (--memory)".into())
        } else {
            None
        }
    }
}

/// The set as a whole, queries and gallery together, with what several measures share.
pub(super) struct Whole<'a> {
    pub(super) subject: &'a Subject<'a>,
    rows: OnceCell<UnitRows>,
    spectrum: OnceCell<Spectrum>,
    order: OnceCell<OrderPreservation>,
}

impl<'a> Whole<'a> {
    pub(super) fn new(subject: &'a Subject<'a>) -> Self {
        Self {
            subject,
            rows: OnceCell::new(),
            spectrum: OnceCell::new(),
            order: OnceCell::new(),
        }
    }

    fn sets(&self) -> Result<(&EmbeddingSet, Option<&EmbeddingSet>), EvaluationError> {
        let in_memory = |rows: &'a dyn Rows| {
            rows.as_set()
                .ok_or_else(|| EvaluationError::Options("measures of structure need all rows in memory".into()))
        };
        Ok((
            in_memory(self.subject.queries)?,
            self.subject.gallery_rows().map(in_memory).transpose()?,
        ))
    }

    /// All rows at unit length, sorted by class.
    pub(super) fn rows(&self) -> Result<&UnitRows, EvaluationError> {
        get_or_try(&self.rows, || {
            let (queries, gallery) = self.sets()?;
            match gallery {
                Some(gallery) => UnitRows::new(&joined(queries, gallery), "query and gallery"),
                None => UnitRows::new(queries, "query"),
            }
        })
    }

    /// Number of classes.
    pub(super) fn classes(&self) -> usize {
        let others = self.subject.gallery.as_ref().and_then(|gallery| gallery.1.classes());
        let mut all: Vec<u32> = self
            .subject
            .query_labels
            .classes()
            .into_iter()
            .chain(others)
            .flat_map(|c| c.iter().copied())
            .collect();
        all.sort_unstable();
        all.dedup();
        all.len()
    }

    pub(super) fn spectrum(
        &self,
        number: impl Fn(&Spectrum) -> (&'static str, f64),
    ) -> Result<Numbers, EvaluationError> {
        let spectrum = get_or_try(&self.spectrum, || spectrum(self.rows()?))?;
        let (name, value) = number(spectrum);
        Ok(vec![(name.into(), Some(value))])
    }

    /// Order preservation of the queries.
    pub(super) fn order(&self, numbers: impl Fn(&OrderPreservation) -> Numbers) -> Result<Numbers, EvaluationError> {
        let order = get_or_try(&self.order, || {
            let factors = self
                .subject
                .factors
                .ok_or_else(|| EvaluationError::Factors("no factors are given".into()))?;
            if self.subject.gallery.is_none() {
                return order_preservation(self.rows()?, factors);
            }
            order_preservation(&UnitRows::new(self.sets()?.0, "query")?, factors)
        })?;
        Ok(numbers(order))
    }

    /// Queries, summed over factors, without an order to preserve; `None` if nobody asked for the order.
    pub(super) fn order_skipped(&self) -> Option<usize> {
        Some(self.order.get()?.factors.iter().map(|factor| factor.skipped).sum())
    }
}

fn get_or_try<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T, EvaluationError>) -> Result<&T, EvaluationError> {
    if let Some(value) = cell.get() {
        return Ok(value);
    }
    let value = make()?;
    Ok(cell.get_or_init(|| value))
}

fn joined(queries: &EmbeddingSet, gallery: &EmbeddingSet) -> EmbeddingSet {
    let mut all = queries.clone();
    all.values.extend_from_slice(&gallery.values);
    all.labels.extend_from_slice(&gallery.labels);
    all.ids.extend_from_slice(&gallery.ids);
    all
}
