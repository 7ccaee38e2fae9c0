//! What a sampler knows of the items it deals.

use super::SamplerError;
use crate::embeddings::EmbeddingSet;

/// The items to deal: their classes, and what else is known of them.
#[derive(Debug, Clone, Copy)]
pub struct SamplerInput<'a> {
    /// Class of each item.
    pub labels: &'a [u32],
    /// Coarse class (super class, alphabet, genus) of each item, if the data set has them.
    pub super_labels: Option<&'a [u32]>,
    /// Embedding of each item at the beginning of the epoch, if there are any.
    pub embeddings: Option<&'a EmbeddingSet>,
}

impl<'a> SamplerInput<'a> {
    /// Items of which only the class is known.
    #[must_use]
    pub fn new(labels: &'a [u32]) -> Self {
        Self {
            labels,
            super_labels: None,
            embeddings: None,
        }
    }

    /// With the coarse class of each item.
    #[must_use]
    pub fn with_super_labels(self, super_labels: Option<&'a [u32]>) -> Self {
        Self { super_labels, ..self }
    }

    /// With the embedding of each item.
    #[must_use]
    pub fn with_embeddings(self, embeddings: Option<&'a EmbeddingSet>) -> Self {
        Self { embeddings, ..self }
    }

    /// Number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no item.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The coarse classes, which `sampler` cannot do without.
    pub(super) fn needed_super_labels(&self, sampler: &'static str) -> Result<&'a [u32], SamplerError> {
        let labels = self.super_labels.ok_or(SamplerError::NoSuperLabels { sampler })?;
        self.same_length("coarse classes", labels.len())?;
        Ok(labels)
    }

    /// The embeddings, which `sampler` cannot do without.
    pub(super) fn needed_embeddings(&self, sampler: &'static str) -> Result<&'a EmbeddingSet, SamplerError> {
        let set = self.embeddings.ok_or(SamplerError::NoEmbeddings { sampler })?;
        self.same_length("embeddings", set.values.len().checked_div(set.dim).unwrap_or(0))?;
        Ok(set)
    }

    fn same_length(&self, what: &'static str, found: usize) -> Result<(), SamplerError> {
        if found == self.len() {
            return Ok(());
        }
        Err(SamplerError::Lengths {
            what,
            found,
            items: self.len(),
        })
    }
}

/// Positions of the items of each class of each coarse class, both in order.
pub(super) fn nested_members(labels: &[u32], super_labels: &[u32]) -> Vec<Vec<Vec<usize>>> {
    let mut coarse = std::collections::BTreeMap::<u32, std::collections::BTreeMap<u32, Vec<usize>>>::new();
    for (position, (&label, &super_label)) in labels.iter().zip(super_labels).enumerate() {
        let classes = coarse.entry(super_label).or_default();
        classes.entry(label).or_default().push(position);
    }
    coarse
        .into_values()
        .map(|classes| classes.into_values().collect())
        .collect()
}
