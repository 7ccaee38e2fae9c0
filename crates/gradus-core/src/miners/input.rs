//! What a miner looks at.

use std::borrow::Cow;

use super::{Labels, MiningError};
use crate::relations::Relation;

/// How the items of a batch relate to those of the reference set, which may be the batch itself.
#[derive(Debug, Clone, Copy)]
pub struct Relations<'a> {
    query: &'a Labels,
    reference: &'a Labels,
    same: bool,
    /// Which item each anchor and each reference shows.
    ids: Option<(&'a [u64], &'a [u64])>,
}

/// The references an anchor makes pairs with, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partners {
    /// Those that are [`Relation::Same`] or [`Relation::Weighted`], without the anchor itself.
    pub positives: Vec<u32>,
    /// Those that are [`Relation::Different`].
    pub negatives: Vec<u32>,
}

impl<'a> Relations<'a> {
    /// The items of a batch among themselves; an item is no partner of its own.
    #[must_use]
    pub fn within(labels: &'a Labels) -> Self {
        Self {
            query: labels,
            reference: labels,
            same: true,
            ids: None,
        }
    }

    /// The items of a batch and those of a reference set.
    ///
    /// # Errors
    /// If the two sets know different things of their items.
    pub fn between(query: &'a Labels, reference: &'a Labels) -> Result<Self, MiningError> {
        if std::mem::discriminant(query) == std::mem::discriminant(reference) {
            return Ok(Self {
                query,
                reference,
                same: false,
                ids: None,
            });
        }
        Err(MiningError::Mismatch(
            "the labels of the embeddings and of the reference embeddings must be of one kind: both classes, several labels, \
             or levels of a hierarchy"
                .to_owned(),
        ))
    }

    /// Says which item each anchor and each reference shows: two views of one item make no pair.
    ///
    /// # Errors
    /// If the numbers of ids and items differ.
    pub fn with_ids(self, query: &'a [u64], reference: &'a [u64]) -> Result<Self, MiningError> {
        if (query.len(), reference.len()) == (self.query.len(), self.reference.len()) {
            let ids = Some((query, reference));
            return Ok(Self { ids, ..self });
        }
        Err(MiningError::Mismatch(format!(
            "there are {} and {} ids for {} embeddings and {} references: one each is needed",
            query.len(),
            reference.len(),
            self.query.len(),
            self.reference.len()
        )))
    }

    /// Number of anchors.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.query.len()
    }

    /// Number of references.
    #[must_use]
    pub fn references(&self) -> usize {
        self.reference.len()
    }

    /// Whether the references are the anchors.
    #[must_use]
    pub fn same(&self) -> bool {
        self.same
    }

    /// The references that anchor `query` makes pairs with.
    ///
    /// # Panics
    /// If there is no such anchor.
    #[must_use]
    pub fn partners(&self, query: usize) -> Partners {
        let mut partners = Partners::default();
        for reference in 0..self.reference.len() {
            let same_item = self
                .ids
                .is_some_and(|(queries, references)| queries[query] == references[reference]);
            if same_item || self.same && reference == query {
                continue;
            }
            match self.query.relation(query, self.reference, reference) {
                Relation::Same | Relation::Weighted(_) => partners.positives.push(reference as u32),
                Relation::Different => partners.negatives.push(reference as u32),
                Relation::Ignore => {}
            }
        }
        partners
    }
}

/// Embeddings of a batch, what is known of its items, the reference set, and the seed of random miners.
#[derive(Debug, Clone)]
pub struct MiningInput<'a> {
    query: Cow<'a, [f64]>,
    /// `None` where the batch is its own reference.
    reference: Option<Cow<'a, [f64]>>,
    relations: Relations<'a>,
    dim: usize,
    seed: u64,
}

impl<'a> MiningInput<'a> {
    /// A batch that is its own reference set.
    ///
    /// # Shapes
    /// `rows` is row-major `[labels.len(), dim]`.
    ///
    /// # Errors
    /// If rows, width and labels do not belong together or a value is not finite.
    pub fn batch(
        rows: impl Into<Cow<'a, [f64]>>,
        labels: &'a Labels,
        dim: usize,
        seed: u64,
    ) -> Result<Self, MiningError> {
        let query = rows.into();
        check("embeddings", &query, labels, dim)?;
        Ok(Self {
            query,
            reference: None,
            relations: Relations::within(labels),
            dim,
            seed,
        })
    }

    /// A batch of anchors, with positives and negatives from another set.
    ///
    /// # Shapes
    /// `query` is row-major `[query_labels.len(), dim]`, `reference` is `[reference_labels.len(), dim]`.
    ///
    /// # Errors
    /// If rows, width and labels do not belong together, the labels are of different kinds or a value is not finite.
    pub fn between(
        query: impl Into<Cow<'a, [f64]>>,
        query_labels: &'a Labels,
        reference: impl Into<Cow<'a, [f64]>>,
        reference_labels: &'a Labels,
        dim: usize,
        seed: u64,
    ) -> Result<Self, MiningError> {
        let (query, reference) = (query.into(), reference.into());
        check("embeddings", &query, query_labels, dim)?;
        check("reference embeddings", &reference, reference_labels, dim)?;
        Ok(Self {
            query,
            reference: Some(reference),
            relations: Relations::between(query_labels, reference_labels)?,
            dim,
            seed,
        })
    }

    /// Says which item each anchor and each reference shows: two views of one item make no pair.
    ///
    /// # Errors
    /// If the numbers of ids and items differ.
    pub fn with_ids(self, query: &'a [u64], reference: &'a [u64]) -> Result<Self, MiningError> {
        let relations = self.relations.with_ids(query, reference)?;
        Ok(Self { relations, ..self })
    }

    /// The rows of the anchors.
    #[must_use]
    pub fn query(&self) -> &[f64] {
        &self.query
    }

    /// The rows positives and negatives are taken from.
    #[must_use]
    pub fn reference(&self) -> &[f64] {
        self.reference.as_deref().unwrap_or(&self.query)
    }

    /// How the items relate.
    #[must_use]
    pub fn relations(&self) -> &Relations<'a> {
        &self.relations
    }

    /// Number of anchors.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.relations.queries()
    }

    /// Number of references.
    #[must_use]
    pub fn references(&self) -> usize {
        self.relations.references()
    }

    /// Whether the references are the anchors.
    #[must_use]
    pub fn same(&self) -> bool {
        self.relations.same
    }

    /// Width of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What random miners draw from.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }
}

fn check(set: &'static str, rows: &[f64], labels: &Labels, dim: usize) -> Result<(), MiningError> {
    let expected = labels.len().checked_mul(dim);
    if dim == 0 || expected != Some(rows.len()) || u32::try_from(labels.len()).is_err() {
        return Err(MiningError::Mismatch(format!(
            "the {set} must be one row of {dim} numbers for each of the {} labels, but there are {} numbers",
            labels.len(),
            rows.len()
        )));
    }
    match rows.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(MiningError::NotFinite {
            set,
            row: at / dim,
            value: rows[at].to_string(),
        }),
        None => Ok(()),
    }
}
