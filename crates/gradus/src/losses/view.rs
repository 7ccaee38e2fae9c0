//! What a loss sees: a comparison together with the distance it was composed with.

use super::terms::{self, TripletChoice};
use crate::batch::{Comparison, PairWeights};
use crate::distances::{self, DistanceConfig};
use crate::embedding_augmentation::embedding_expansion::hardest_distances;
use crate::tensor::{Bool, Tensor, TensorData};

/// A comparison that is not empty, and the distance to compare by.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) comparison: &'a Comparison,
    pub(super) distance: &'a DistanceConfig,
}

impl View<'_> {
    /// The comparison itself.
    #[must_use]
    pub fn comparison(&self) -> &Comparison {
        self.comparison
    }

    /// The distance to compare by.
    #[must_use]
    pub fn distance(&self) -> &DistanceConfig {
        self.distance
    }

    /// The anchors' embeddings `[anchors, dim]`, as they came.
    #[must_use]
    pub fn anchors(&self) -> Tensor<2> {
        self.comparison.anchors.embeddings.clone()
    }

    /// The references' embeddings `[references, dim]`, as they came; the anchors' where there are no others.
    #[must_use]
    pub fn references(&self) -> Tensor<2> {
        self.comparison.reference_set().embeddings.clone()
    }

    /// Whether the anchors are compared with each other.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.comparison.is_within()
    }

    /// Distances (or similarities) between anchors and references, `[anchors, references]`. With inner points those of
    /// negative pairs are of the hardest pair of their classes.
    #[must_use]
    pub fn distances(&self) -> Tensor<2> {
        if let (Some(inner), Some(classes), true) = (
            &self.comparison.inner_points,
            self.comparison.anchors.labels.classes(),
            self.is_within(),
        ) {
            return hardest_distances(self.distance, self.anchors(), classes, inner);
        }
        let references = self.comparison.references.as_ref();
        distances::matrix(
            self.distance,
            self.anchors(),
            references.map(|references| references.embeddings.clone()),
        )
    }

    /// Distances (or similarities) between the references, `[references, references]`.
    #[must_use]
    pub fn distances_between_references(&self) -> Tensor<2> {
        distances::matrix(self.distance, self.references(), None)
    }

    /// Distances (or similarities) between anchors and some rows such as proxies, `[anchors, rows]`.
    #[must_use]
    pub fn distances_to(&self, rows: Tensor<2>) -> Tensor<2> {
        distances::matrix(self.distance, self.anchors(), Some(rows))
    }

    /// By how much `x` is farther than `y`: `x - y` of distances, `y - x` of similarities.
    #[must_use]
    pub fn margin(&self, x: Tensor<2>, y: Tensor<2>) -> Tensor<2> {
        distances::margin(self.distance, x, y)
    }

    /// By how much `x` is farther than a fixed bound.
    #[must_use]
    pub fn beyond(&self, x: Tensor<2>, bound: f64) -> Tensor<2> {
        if self.distance.is_similarity() {
            x.neg().add_scalar(bound)
        } else {
            x.sub_scalar(bound)
        }
    }

    /// By how much `x` is nearer than a fixed bound.
    #[must_use]
    pub fn inside(&self, x: Tensor<2>, bound: f64) -> Tensor<2> {
        self.beyond(x, bound).neg()
    }

    /// `x` as a similarity: itself, or minus a distance.
    #[must_use]
    pub fn as_similarity(&self, x: Tensor<2>) -> Tensor<2> {
        if self.distance.is_similarity() { x } else { x.neg() }
    }

    /// Which pairs are positive and negative, and how much each counts.
    #[must_use]
    pub fn pairs(&self) -> PairWeights {
        self.comparison.pairs()
    }

    /// Which triplets count: those mined, else `per_anchor` drawn for each anchor, else all.
    #[must_use]
    pub fn triplets(&self, per_anchor: Option<usize>) -> TripletChoice {
        terms::choose(self.comparison, per_anchor)
    }

    /// How much each anchor counts, `[anchors, 1]`: 1, or by how often it was mined.
    #[must_use]
    pub fn anchor_weights(&self) -> Tensor<2> {
        self.comparison.anchor_weights()
    }

    /// The class of each anchor.
    ///
    /// # Panics
    /// If the labels are no classes, which [`Loss::check`](super::Loss::check) refuses for losses that need classes.
    #[must_use]
    pub fn classes(&self) -> &[u32] {
        let classes = self.comparison.anchors.labels.classes();
        classes.expect("this loss needs one class per item: check() refuses other labels")
    }

    /// True where a row has the class, `[anchors, classes]`.
    ///
    /// # Panics
    /// If a label is not below `classes`: such a row would silently have no proxy of its own.
    #[must_use]
    pub fn class_mask(&self, classes: usize) -> Tensor<2, Bool> {
        let labels = self.classes();
        let mut values = vec![false; classes * labels.len()];
        for (row, &label) in labels.iter().enumerate() {
            let label = label as usize;
            assert!(
                label < classes,
                "label {label} has no proxy: the loss was made for {classes} classes"
            );
            values[row * classes + label] = true;
        }
        let data = TensorData::new(values, [labels.len(), classes]);
        Tensor::from_data(data, &self.comparison.anchors.embeddings.device().inner())
    }

    /// One number per row as a column `[rows, 1]` in the precision of the embeddings, outside autodiff.
    #[must_use]
    pub fn column(&self, values: Vec<f64>) -> Tensor<2> {
        crate::batch::column(values, &self.comparison.anchors.embeddings)
    }

    /// One number as `[1]` in the precision of the embeddings, outside autodiff.
    #[must_use]
    pub fn number(&self, value: f64) -> Tensor<1> {
        self.column(vec![value]).reshape([1])
    }

    /// The differentiable zero.
    #[must_use]
    pub fn zero(&self) -> Tensor<1> {
        zero(self.comparison)
    }
}

/// `0 * sum(embeddings)`: the differentiable zero that every loss starts from.
pub(super) fn zero(comparison: &Comparison) -> Tensor<1> {
    comparison.anchors.embeddings.clone().sum().mul_scalar(0.0)
}
