//! What losses compare: embeddings with labels, a batch against a reference set, and what was mined of it.

use std::sync::Arc;

pub use gradus_core::miners::{Mined, Pairs as MinedPairs};
use gradus_core::relations::{Labels, Relation};

use crate::tensor::{Bool, Int, Tensor, TensorData};

/// A batch of embeddings with the class of each row.
///
/// Labels live on the host, where samplers make them: a loss builds masks from them without reading anything back.
///
/// # Shapes
/// `embeddings` `[batch, dim]`, unit norm unless a loss says otherwise; `labels` `[batch]`, dense class indices from 0.
#[derive(Clone, Debug)]
pub struct EmbeddingBatch {
    /// The embeddings.
    pub embeddings: Tensor<2>,
    /// The class of each row.
    pub labels: Arc<[u32]>,
}

impl EmbeddingBatch {
    /// Puts embeddings and labels together.
    ///
    /// # Panics
    /// If their numbers differ.
    #[must_use]
    pub fn new(embeddings: Tensor<2>, labels: impl Into<Arc<[u32]>>) -> Self {
        let labels = labels.into();
        let [rows, _] = embeddings.dims();
        assert_eq!(rows, labels.len(), "{rows} embeddings but {} labels", labels.len());
        Self { embeddings, labels }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The labels as a tensor `[batch]` on the device of the embeddings, outside autodiff.
    #[must_use]
    pub fn label_tensor(&self) -> Tensor<1, Int> {
        let values: Vec<i64> = self.labels.iter().map(|&label| i64::from(label)).collect();
        let length = values.len();
        Tensor::from_data(TensorData::new(values, [length]), &self.embeddings.device().inner())
    }
}

/// Embeddings of one set with what is known of their items.
///
/// # Shapes
/// `embeddings` `[rows, dim]`, `labels` and `ids` one per row.
#[derive(Debug, Clone)]
pub struct ItemSet {
    /// The embeddings.
    pub embeddings: Tensor<2>,
    /// How the items are related.
    pub labels: Labels,
    /// Which item each row shows: a row is never compared with a row of the same item.
    pub ids: Option<Arc<[u64]>>,
}

impl ItemSet {
    /// Puts embeddings and labels together.
    ///
    /// # Panics
    /// If their numbers differ.
    #[must_use]
    pub fn new(embeddings: Tensor<2>, labels: impl Into<Labels>) -> Self {
        let labels = labels.into();
        let [rows, _] = embeddings.dims();
        assert_eq!(rows, labels.len(), "{rows} embeddings but {} labels", labels.len());
        Self {
            embeddings,
            labels,
            ids: None,
        }
    }

    /// Says which item each row shows.
    ///
    /// # Panics
    /// If the numbers differ.
    #[must_use]
    pub fn with_ids(self, ids: impl Into<Arc<[u64]>>) -> Self {
        let ids = ids.into();
        assert_eq!(
            ids.len(),
            self.labels.len(),
            "{} ids but {} rows",
            ids.len(),
            self.labels.len()
        );
        Self { ids: Some(ids), ..self }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }
}

impl From<&EmbeddingBatch> for ItemSet {
    fn from(batch: &EmbeddingBatch) -> Self {
        Self::new(batch.embeddings.clone(), Labels::Classes(Arc::clone(&batch.labels)))
    }
}

/// What a loss looks at: anchors, what they are compared with, and perhaps a choice of pairs or triplets.
///
/// Without a reference set the anchors are compared with each other, no row with itself. With one, every anchor is compared
/// with every reference, but for rows that show the same item (where both sets have ids).
#[derive(Debug, Clone)]
pub struct Comparison {
    /// The anchors.
    pub anchors: ItemSet,
    /// What they are compared with; none: each other.
    pub references: Option<ItemSet>,
    /// Which pairs or triplets count; none: all.
    pub mined: Option<Mined>,
    /// Seed of what a loss draws at random, such as some triplets per anchor; 0.
    pub seed: u64,
    /// Points between members of a class, through which anchors that are compared with each other find the hardest negative
    /// pair of two classes; none.
    pub inner_points: Option<InnerPoints>,
}

/// Points generated between the members of a class; see
/// [`EmbeddingExpansion`](crate::embedding_augmentation::EmbeddingExpansion).
///
/// # Shapes
/// `points` `[points, dim]`, one label per point.
#[derive(Debug, Clone)]
pub struct InnerPoints {
    /// The points.
    pub points: Tensor<2>,
    /// The class of each point.
    pub labels: Arc<[u32]>,
}

impl Comparison {
    /// Anchors compared with each other.
    #[must_use]
    pub fn within(anchors: impl Into<ItemSet>) -> Self {
        Self {
            anchors: anchors.into(),
            references: None,
            mined: None,
            seed: 0,
            inner_points: None,
        }
    }

    /// Anchors compared with a separate set.
    #[must_use]
    pub fn with_references(anchors: impl Into<ItemSet>, references: impl Into<ItemSet>) -> Self {
        Self {
            references: Some(references.into()),
            ..Self::within(anchors)
        }
    }

    /// Looks only at what was mined.
    #[must_use]
    pub fn with_mined(self, mined: Mined) -> Self {
        Self {
            mined: Some(mined),
            ..self
        }
    }

    /// Sets the seed of random draws.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Whether the anchors are compared with each other.
    #[must_use]
    pub fn is_within(&self) -> bool {
        self.references.is_none()
    }

    /// The set the anchors are compared with.
    #[must_use]
    pub fn reference_set(&self) -> &ItemSet {
        self.references.as_ref().unwrap_or(&self.anchors)
    }

    /// Whether there is nothing to compare.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchors.is_empty() || self.reference_set().is_empty()
    }

    /// What reference `reference` is to anchor `anchor`.
    ///
    /// # Panics
    /// If there is no such row.
    #[must_use]
    pub fn relation(&self, anchor: usize, reference: usize) -> Relation {
        let references = self.reference_set();
        let same_row = self.is_within() && anchor == reference;
        let same_item = match (&self.anchors.ids, &references.ids) {
            (Some(a), Some(b)) => a[anchor] == b[reference],
            _ => false,
        };
        if same_row || same_item {
            return Relation::Ignore;
        }
        self.anchors.labels.relation(anchor, &references.labels, reference)
    }

    /// Checks that widths and kinds of labels fit together and that mined positions exist.
    ///
    /// # Errors
    /// A sentence that says what does not fit.
    pub fn check(&self) -> Result<(), String> {
        let references = self.reference_set();
        let ([anchors, width], [_, other]) = (self.anchors.embeddings.dims(), references.embeddings.dims());
        if width != other {
            return Err(format!(
                "the embeddings have width {width}, but the reference embeddings have width {other}."
            ));
        }
        if std::mem::discriminant(&self.anchors.labels) != std::mem::discriminant(&references.labels) {
            return Err("the labels of the embeddings and of the references are of different kinds.".into());
        }
        let limits = |positions: &[u32], limits: &[usize]| {
            let mut pairs = positions.iter().zip(limits);
            pairs.all(|(&position, &limit)| (position as usize) < limit)
        };
        let within = [anchors, references.len(), references.len()];
        let fits = match &self.mined {
            None => true,
            Some(Mined::Triplets(triplets)) => triplets.iter().all(|triplet| limits(triplet, &within)),
            Some(Mined::Pairs(pairs)) => {
                let mut all = pairs.positive.iter().chain(&pairs.negative);
                all.all(|pair| limits(pair, &within))
            }
        };
        if fits {
            Ok(())
        } else {
            Err(format!(
                "a mined position is out of range: there are {anchors} embeddings and {} references.",
                references.len()
            ))
        }
    }

    /// The weights of all pairs: 1 (or the degree of a [`Relation::Weighted`]) for a pair that counts once, 0 for none.
    #[must_use]
    pub fn pairs(&self) -> PairWeights {
        let (rows, columns) = (self.anchors.len(), self.reference_set().len());
        let mut positive = vec![0.0_f32; rows * columns];
        let mut negative = positive.clone();
        match &self.mined {
            None => {
                let rows = positive
                    .chunks_mut(columns.max(1))
                    .zip(negative.chunks_mut(columns.max(1)));
                for (anchor, (positive, negative)) in rows.enumerate() {
                    self.relate(anchor, positive, negative);
                }
            }
            Some(mined) => {
                let mined = mined.clone().into_pairs();
                let cell = |[anchor, other]: [u32; 2]| anchor as usize * columns + other as usize;
                for pair in mined.positive {
                    // A miner's word counts; the relation only says to what degree.
                    let weight = match self.relation(pair[0] as usize, pair[1] as usize) {
                        Relation::Weighted(weight) => weight,
                        _ => 1.0,
                    };
                    positive[cell(pair)] += weight;
                }
                for pair in mined.negative {
                    negative[cell(pair)] += 1.0;
                }
            }
        }
        PairWeights::new(positive, negative, [rows, columns], &self.anchors.embeddings)
    }

    /// The weights of the pairs of one anchor, `[references]` each.
    fn relate(&self, anchor: usize, positive: &mut [f32], negative: &mut [f32]) {
        let references = self.reference_set();
        let has_ids = self.anchors.ids.is_some() && references.ids.is_some();
        if let (Some(of_anchors), Some(of_references), false) =
            (self.anchors.labels.classes(), references.labels.classes(), has_ids)
        {
            // The usual case, in loops that vectors can take.
            let class = of_anchors[anchor];
            for (positive, other) in positive.iter_mut().zip(&**of_references) {
                *positive = f32::from(u8::from(*other == class));
            }
            for (negative, other) in negative.iter_mut().zip(&**of_references) {
                *negative = f32::from(u8::from(*other != class));
            }
            if self.is_within() {
                positive[anchor] = 0.0;
            }
            return;
        }
        for (reference, (positive, negative)) in positive.iter_mut().zip(negative).enumerate() {
            let relation = self.relation(anchor, reference);
            *positive = relation.positive_weight();
            *negative = f32::from(u8::from(relation.is_negative()));
        }
    }

    /// How much each anchor counts in a loss that knows no pairs, `[anchors, 1]`: how often it was mined over how often the
    /// most mined item was; 1 for all where nothing was mined. Compared with a separate set, only anchors count.
    #[must_use]
    pub fn anchor_weights(&self) -> Tensor<2> {
        let mut times = vec![0_u64; self.anchors.len()];
        let same = self.is_within();
        let mut add = |position: u32, is_anchor: bool| {
            if same || is_anchor {
                times[position as usize] += 1;
            }
        };
        match &self.mined {
            None => {}
            Some(Mined::Pairs(pairs)) => {
                for &[anchor, other] in pairs.positive.iter().chain(&pairs.negative) {
                    add(anchor, true);
                    add(other, false);
                }
            }
            Some(Mined::Triplets(triplets)) => {
                for &[anchor, positive, negative] in triplets {
                    add(anchor, true);
                    add(positive, false);
                    add(negative, false);
                }
            }
        }
        let weights = match times.iter().max() {
            Some(&most) if most > 0 => times.iter().map(|&times| times as f64 / most as f64).collect(),
            _ => vec![1.0; times.len()],
        };
        column(weights, &self.anchors.embeddings)
    }
}

/// Weights of the positive and negative pairs of a comparison, constants outside autodiff.
///
/// # Shapes
/// Both matrices `[anchors, references]`, row = anchor.
#[derive(Debug, Clone)]
pub struct PairWeights {
    /// How much each positive pair counts; 0 where there is none.
    pub positive: Tensor<2>,
    /// How much each negative pair counts; 0 where there is none.
    pub negative: Tensor<2>,
    /// Sum of each row of `positive`.
    pub positive_counts: Vec<f64>,
    /// Sum of each row of `negative`.
    pub negative_counts: Vec<f64>,
    /// `positive` on the host, row-major.
    pub positive_host: Vec<f32>,
}

impl PairWeights {
    fn new(positive: Vec<f32>, negative: Vec<f32>, shape: [usize; 2], like: &Tensor<2>) -> Self {
        let counts = |weights: &[f32]| -> Vec<f64> {
            let rows = weights.chunks(shape[1].max(1));
            rows.map(|row| row.iter().copied().map(f64::from).sum()).collect()
        };
        let options = (&like.device().inner(), like.dtype());
        let tensor = |weights: Vec<f32>| Tensor::from_data(TensorData::new(weights, shape), options);
        Self {
            positive_counts: counts(&positive),
            negative_counts: counts(&negative),
            negative: tensor(negative),
            positive: tensor(positive.clone()),
            positive_host: positive,
        }
    }

    /// Where there is a positive pair.
    #[must_use]
    pub fn positive_mask(&self) -> Tensor<2, Bool> {
        self.positive.clone().greater_scalar(0.0)
    }

    /// Where there is a negative pair.
    #[must_use]
    pub fn negative_mask(&self) -> Tensor<2, Bool> {
        self.negative.clone().greater_scalar(0.0)
    }

    /// Weight of all positive pairs.
    #[must_use]
    pub fn positive_total(&self) -> f64 {
        self.positive_counts.iter().sum()
    }

    /// Weight of all negative pairs.
    #[must_use]
    pub fn negative_total(&self) -> f64 {
        self.negative_counts.iter().sum()
    }

    /// Weight of all (anchor, positive, negative) triplets.
    #[must_use]
    pub fn triplet_total(&self) -> f64 {
        let pairs = self.positive_counts.iter().zip(&self.negative_counts);
        pairs.map(|(positives, negatives)| positives * negatives).sum()
    }
}

/// One number per row as a column `[rows, 1]` with the precision and device of `like`, outside autodiff.
#[must_use]
pub fn column(values: Vec<f64>, like: &Tensor<2>) -> Tensor<2> {
    let shape = [values.len(), 1];
    Tensor::from_data(TensorData::new(values, shape), (&like.device().inner(), like.dtype()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    fn rows(count: usize) -> Tensor<2> {
        Tensor::ones([count, 2], &Device::flex())
    }

    fn host(x: &Tensor<2>) -> Vec<f32> {
        x.try_to_vec_as::<f32>().expect("floats")
    }

    #[test]
    fn a_row_is_not_compared_with_itself_nor_with_its_own_item() {
        let batch = EmbeddingBatch::new(rows(3), vec![0, 0, 1]);
        let within = Comparison::within(&batch).pairs();
        assert_eq!(host(&within.positive), [0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(host(&within.negative), [0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
        let set = ItemSet::from(&batch).with_ids(vec![7, 8, 9]);
        let across = Comparison::with_references(set.clone(), set).pairs();
        assert_eq!(host(&across.positive), host(&within.positive));
        assert_eq!(within.triplet_total(), 2.0);
        let all = Comparison::with_references(&batch, &batch).pairs();
        assert_eq!(all.positive_total(), 5.0);
    }

    #[test]
    fn weights_of_classes_are_those_of_their_relations() {
        let classes = |classes: &[u32]| ItemSet::new(rows(classes.len()), classes.to_vec());
        let (some, others) = (classes(&[2, 0, 1, 0, 2]), classes(&[0, 2, 5]));
        let with_ids = || {
            (
                some.clone().with_ids(vec![1, 2, 3, 4, 5]),
                others.clone().with_ids(vec![4, 2, 9]),
            )
        };
        let comparisons = [
            Comparison::within(some.clone()),
            Comparison::within(some.clone().with_ids(vec![1, 2, 3, 2, 1])),
            Comparison::with_references(some.clone(), others.clone()),
            Comparison::with_references(with_ids().0, with_ids().1),
            Comparison::with_references(with_ids().0, others.clone()),
        ];
        for comparison in comparisons {
            let pairs = comparison.pairs();
            let (positive, negative) = (host(&pairs.positive), host(&pairs.negative));
            let columns = comparison.reference_set().len();
            for (cell, (positive, negative)) in positive.into_iter().zip(negative).enumerate() {
                let relation = comparison.relation(cell / columns, cell % columns);
                assert_eq!(positive, relation.positive_weight(), "{cell}");
                assert_eq!(negative > 0.0, relation.is_negative(), "{cell}");
            }
        }
    }

    #[test]
    fn mined_pairs_count_as_often_as_they_occur() {
        let batch = EmbeddingBatch::new(rows(3), vec![0, 0, 1]);
        let mined = Comparison::within(&batch).with_mined(Mined::Triplets(vec![[0, 1, 2], [0, 1, 2], [1, 0, 2]]));
        mined.check().expect("fits");
        assert_eq!(mined.pairs().positive_counts, [2.0, 1.0, 0.0]);
        assert_eq!(host(&mined.anchor_weights()), [1.0, 1.0, 1.0]);
        let pairs = MinedPairs {
            positive: vec![[0, 1]],
            negative: vec![[0, 2]],
        };
        let mined = Comparison::within(&batch).with_mined(Mined::Pairs(pairs));
        assert_eq!(host(&mined.anchor_weights()), [1.0, 0.5, 0.5]);
        let wrong = Comparison::within(&batch).with_mined(Mined::Triplets(vec![[0, 1, 3]]));
        assert!(wrong.check().expect_err("out of range").contains("out of range"));
    }
}
