//! What is evaluated: rows, how they are labelled, and what else is known of them.

use std::cell::OnceCell;

use super::cluster_scores::ClusterScores;
use super::factors::FactorTable;
use super::near_and_far::near_and_far;
use super::neighborhood_preservation::{NeighborhoodPreservation, neighborhood_preservation};
use super::order_preservation::{OrderPreservation, order_preservation};
use super::registry::Numbers;
use super::rows::Rows;
use super::spectral_decay::{Spectrum, spectrum};
use super::subclass_transfer::{SubclassTransfer, subclass_transfer};
use super::unit_rows::UnitRows;
use super::verification::Verification;
use super::{EvaluationError, Relevance, cluster_measures, verification_measures};
use crate::EmbeddingSet;
use crate::relations::Labels;

/// Neighbours compared with the reference space, fewer in classes of fewer than 21 members (at most half of the others).
pub(super) const COMPARED: usize = 10;

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

    /// The queries and the same items in the reference space, both ready to be compared.
    pub(super) fn beside_reference(
        &self,
        queries: &EmbeddingSet,
        reference: &EmbeddingSet,
    ) -> Result<(UnitRows, UnitRows), EvaluationError> {
        if reference.len() != queries.len() {
            return Err(EvaluationError::Options(format!(
                "there are {} reference embeddings for {} queries: give the same items in the same order",
                reference.len(),
                queries.len()
            )));
        }
        let reference = EmbeddingSet {
            labels: queries.labels.clone(),
            ..reference.clone()
        };
        Ok((
            UnitRows::new(queries, "query")?,
            UnitRows::new(&reference, "reference")?,
        ))
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
    near_and_far: OnceCell<[Numbers; 2]>,
    clusters: OnceCell<ClusterScores>,
    verification: OnceCell<Option<Verification>>,
    reference: OnceCell<NeighborhoodPreservation>,
    subclasses: OnceCell<Option<SubclassTransfer>>,
}

impl<'a> Whole<'a> {
    pub(super) fn new(subject: &'a Subject<'a>) -> Self {
        Self {
            subject,
            rows: OnceCell::new(),
            spectrum: OnceCell::new(),
            order: OnceCell::new(),
            near_and_far: OnceCell::new(),
            clusters: OnceCell::new(),
            verification: OnceCell::new(),
            reference: OnceCell::new(),
            subclasses: OnceCell::new(),
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

    /// Order among near members of the queries, and recall of far ones.
    pub(super) fn near_and_far(&self) -> Result<&[Numbers; 2], EvaluationError> {
        get_or_try(&self.near_and_far, || {
            let factors = self
                .subject
                .factors
                .ok_or_else(|| EvaluationError::Factors("no factors are given".into()))?;
            if self.subject.gallery.is_none() {
                return near_and_far(self.rows()?, factors);
            }
            near_and_far(&UnitRows::new(self.sets()?.0, "query")?, factors)
        })
    }

    /// Clusters of all rows against their classes.
    pub(super) fn clusters(
        &self,
        number: impl Fn(&ClusterScores) -> (&'static str, f64),
    ) -> Result<Numbers, EvaluationError> {
        let (name, value) = number(get_or_try(&self.clusters, || cluster_measures::scores(self.rows()?))?);
        Ok(vec![(name.into(), Some(value))])
    }

    fn curve(&self) -> Result<Option<&Verification>, EvaluationError> {
        let curve = get_or_try(&self.verification, || {
            let (queries, gallery) = self.sets()?;
            let sets: Vec<&EmbeddingSet> = std::iter::once(queries).chain(gallery).collect();
            verification_measures::curve(&sets, self.rows()?)
        })?;
        Ok(curve.as_ref())
    }

    /// A number of the receiver operating characteristic.
    pub(super) fn verification(
        &self,
        name: &str,
        number: impl Fn(&Verification) -> f64,
    ) -> Result<Numbers, EvaluationError> {
        Ok(vec![(name.into(), self.curve()?.map(number))])
    }

    /// The receiver operating characteristic at several rates.
    pub(super) fn rates(
        &self,
        name: &str,
        numbers: impl Fn(&Verification) -> Vec<(f64, f64)>,
    ) -> Result<Numbers, EvaluationError> {
        let all = self.curve()?.map(numbers).unwrap_or_default();
        Ok(all
            .into_iter()
            .map(|(rate, value)| (format!("{name}={rate}"), Some(value)))
            .collect())
    }

    /// The queries, sorted by `labels`.
    fn queries_by(&self, labels: &[u32]) -> Result<UnitRows, EvaluationError> {
        let set = EmbeddingSet {
            labels: labels.to_vec(),
            ..self.sets()?.0.clone()
        };
        UnitRows::new(&set, "query")
    }

    /// The queries beside themselves in the reference space.
    pub(super) fn reference(
        &self,
        numbers: impl Fn(&NeighborhoodPreservation) -> Numbers,
    ) -> Result<Numbers, EvaluationError> {
        let kept = get_or_try(&self.reference, || {
            let queries = self.sets()?.0;
            let reference = self
                .subject
                .reference
                .ok_or_else(|| EvaluationError::Options("no reference is given".into()))?;
            let (own, other) = self.subject.beside_reference(queries, reference)?;
            neighborhood_preservation(&own, &other, COMPARED)
        })?;
        Ok(numbers(kept))
    }

    /// The classes of the queries inside their categories.
    pub(super) fn subclasses(
        &self,
        name: &str,
        number: impl Fn(&SubclassTransfer) -> f64,
    ) -> Result<Numbers, EvaluationError> {
        let transfer = get_or_try(&self.subclasses, || {
            let none = || EvaluationError::Options("no categories are given".into());
            let categories = self.subject.categories.as_ref().ok_or_else(none)?;
            // Its only complaint about sets that fit is that no row has a choice: then the measure is undefined.
            Ok(subclass_transfer(&self.queries_by(categories)?, &self.sets()?.0.labels).ok())
        })?;
        Ok(vec![(name.into(), transfer.as_ref().map(number))])
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
