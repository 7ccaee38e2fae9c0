//! What a loss hands to reducers: named values of rows, pairs or triplets, and how much each counts.

use std::fmt;

use serde::Serialize;

use crate::batch::{Comparison, PairWeights};
use crate::tensor::{Int, Tensor, TensorData};

/// What one value of a term belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// A row: an anchor, or a proxy.
    Element,
    /// A positive or negative pair.
    Pair,
    /// An (anchor, positive, negative) triplet.
    Triplet,
    /// Nothing: the loss has reduced the term itself.
    Reduced,
}

/// Which items the rows of a term are, for reducers that weigh classes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rows {
    /// Row `i` is anchor `i`.
    Anchors,
    /// Row `c` is class `c`.
    Classes,
    /// Rows are no items, but axes of the embeddings for instance.
    Others,
}

/// The values of a term.
// A loss makes a handful of them: their size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
pub enum Values {
    /// One value per row or pair with its weight, 0 where there is none; values without weight are never looked at, but
    /// must not be NaN nor have infinite slopes.
    Dense {
        /// `[rows, 1]` or `[anchors, references]`.
        values: Tensor<2>,
        /// The same shape, outside autodiff.
        weights: Tensor<2>,
        /// Row or pair.
        unit: Unit,
        /// Which items the rows are.
        rows: Rows,
    },
    /// One value per triplet.
    Triplets(Box<Triplets>),
    /// The value of the term, `[1]`.
    Reduced(Tensor<1>),
}

/// A named part of a loss; the loss is the sum of its reduced terms.
#[derive(Debug)]
pub struct Term {
    /// The reference's name of the sub-loss in kebab-case; `loss` if there is only one.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
    /// What the reducer `divisor` divides by, `[1]`, outside autodiff.
    pub divisor: Option<Tensor<1>>,
}

impl Term {
    /// One value per row.
    ///
    /// # Shapes
    /// `values` `[rows, 1]`.
    #[must_use]
    pub fn elements(name: &'static str, values: Tensor<2>) -> Self {
        let weights = values.clone().without_autodiff().ones_like();
        Self::weighted_elements(name, values, weights)
    }

    /// One value per row, of which those with weight 0 do not exist.
    ///
    /// # Shapes
    /// `values` and `weights` `[rows, 1]`.
    #[must_use]
    pub fn weighted_elements(name: &'static str, values: Tensor<2>, weights: Tensor<2>) -> Self {
        Self::dense(name, values, weights, Unit::Element)
    }

    /// One value per pair, of which those with weight 0 do not exist.
    ///
    /// # Shapes
    /// `values` and `weights` `[anchors, references]`.
    #[must_use]
    pub fn pairs(name: &'static str, values: Tensor<2>, weights: Tensor<2>) -> Self {
        Self::dense(name, values, weights, Unit::Pair)
    }

    /// One value per triplet.
    #[must_use]
    pub fn triplets(name: &'static str, triplets: Triplets) -> Self {
        Self {
            name,
            values: Values::Triplets(Box::new(triplets)),
            divisor: None,
        }
    }

    /// A value `[1]` that no reducer touches.
    #[must_use]
    pub fn reduced(name: &'static str, value: Tensor<1>) -> Self {
        Self {
            name,
            values: Values::Reduced(value),
            divisor: None,
        }
    }

    /// Says what the reducer `divisor` divides by, `[1]`; a term divided by 0 is 0.
    #[must_use]
    pub fn with_divisor(self, divisor: Tensor<1>) -> Self {
        Self {
            divisor: Some(divisor),
            ..self
        }
    }

    /// Says that row `c` belongs to class `c` instead of anchor `c`.
    #[must_use]
    pub fn of_classes(mut self) -> Self {
        if let Values::Dense { rows, .. } = &mut self.values {
            *rows = Rows::Classes;
        }
        self
    }

    /// Says that rows are neither anchors nor classes.
    #[must_use]
    pub fn of_no_item(mut self) -> Self {
        if let Values::Dense { rows, .. } = &mut self.values {
            *rows = Rows::Others;
        }
        self
    }

    /// What one value belongs to.
    #[must_use]
    pub fn unit(&self) -> Unit {
        match &self.values {
            Values::Dense { unit, .. } => *unit,
            Values::Triplets(_) => Unit::Triplet,
            Values::Reduced(_) => Unit::Reduced,
        }
    }

    fn dense(name: &'static str, values: Tensor<2>, weights: Tensor<2>, unit: Unit) -> Self {
        assert_eq!(values.dims(), weights.dims(), "the values of {name} and their weights");
        Self {
            name,
            values: Values::Dense {
                values,
                weights,
                unit,
                rows: Rows::Anchors,
            },
            divisor: None,
        }
    }
}

/// Which triplets count: all positive pairs with all negative pairs of the same anchor, without listing them, or a list.
#[derive(Debug, Clone)]
pub struct TripletChoice {
    pairs: PairWeights,
    listed: Option<Vec<[u32; 3]>>,
    /// In how many triplets each positive pair is, `[anchors, references]`.
    pub times_positive: Tensor<2>,
    /// In how many triplets each negative pair is, `[anchors, references]`.
    pub times_negative: Tensor<2>,
    /// How many triplets each anchor has.
    pub anchor_counts: Vec<f64>,
}

impl TripletChoice {
    /// Every positive pair with every negative pair of its anchor.
    pub(super) fn all(pairs: PairWeights) -> Self {
        let column = |counts: &[f64]| crate::batch::column(counts.to_vec(), &pairs.positive);
        Self {
            times_positive: pairs.positive.clone() * column(&pairs.negative_counts),
            times_negative: pairs.negative.clone() * column(&pairs.positive_counts),
            anchor_counts: pairs
                .positive_counts
                .iter()
                .zip(&pairs.negative_counts)
                .map(|(positives, negatives)| positives * negatives)
                .collect(),
            pairs,
            listed: None,
        }
    }

    /// The triplets of a list, whose pairs are `pairs`.
    pub(super) fn listed(triplets: Vec<[u32; 3]>, pairs: PairWeights) -> Self {
        Self {
            times_positive: pairs.positive.clone(),
            times_negative: pairs.negative.clone(),
            anchor_counts: pairs.negative_counts.clone(),
            pairs,
            listed: Some(triplets),
        }
    }

    /// All triplets with their weights, read back to the host.
    pub(super) fn list(&self) -> Result<Vec<([u32; 3], f64)>, String> {
        if let Some(triplets) = &self.listed {
            return Ok(triplets.iter().map(|&triplet| (triplet, 1.0)).collect());
        }
        let [_, columns] = self.pairs.positive.dims();
        let negatives = self
            .pairs
            .negative
            .try_to_vec_as::<f64>()
            .map_err(|error| error.to_string())?;
        let mut triplets = Vec::new();
        let rows = self.pairs.positive_host.chunks(columns).zip(negatives.chunks(columns));
        for (anchor, (positives, negatives)) in rows.enumerate() {
            for (positive, &times_positive) in positives.iter().enumerate().filter(|(_, times)| **times > 0.0) {
                for (negative, &times_negative) in negatives.iter().enumerate().filter(|(_, times)| **times > 0.0) {
                    let triplet = [anchor, positive, negative].map(|position| position as u32);
                    triplets.push((triplet, f64::from(times_positive) * times_negative));
                }
            }
        }
        Ok(triplets)
    }

    /// Whether there is no triplet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.anchor_counts.iter().all(|&count| count == 0.0)
    }
}

/// The entries of some triplets, which broadcast against each other to `[anchors, positives, negatives]`.
#[derive(Debug)]
pub struct Entries {
    /// The first matrix at (anchor, positive), `[anchors, positives, 1]`.
    pub positive: Tensor<3>,
    /// The second matrix at (anchor, negative), `[anchors, 1, negatives]`.
    pub negative: Tensor<3>,
    /// The third matrix at (positive, negative), `[anchors, positives, negatives]`.
    pub opposite: Option<Tensor<3>>,
}

/// What a triplet costs, from its entries; elementwise, so that triplets can be looked at block by block.
pub type TripletCost = Box<dyn Fn(Entries) -> Tensor<3>>;

/// The values of a term with one value per triplet. They are never all in memory: reducers look at a block of triplets at
/// a time and attach the block's slopes to the matrices, so that the tape holds matrices only.
pub struct Triplets {
    /// Which triplets.
    pub choice: TripletChoice,
    /// Read at (anchor, positive), `[anchors, references]`.
    pub positive: Tensor<2>,
    /// Read at (anchor, negative), `[anchors, references]`.
    pub negative: Tensor<2>,
    /// Read at (positive, negative), `[references, references]`, where the cost needs it.
    pub opposite: Option<Tensor<2>>,
    /// The cost; none: the sum of both entries, which reducers without thresholds get from the pairs alone.
    pub cost: Option<TripletCost>,
}

impl fmt::Debug for Triplets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Triplets")
            .field("choice", &self.choice)
            .finish_non_exhaustive()
    }
}

/// Triplets looked at together: a few temporaries of half a MiB in single precision, which stay in a processor's cache.
pub(super) const LARGEST_BLOCK: usize = 1 << 17;

/// A weighted sum, `[1]`, and the weight of what was summed, `[1]`, outside autodiff.
pub(super) struct Total {
    pub(super) sum: Tensor<1>,
    pub(super) count: Tensor<1>,
}

/// The values that count: those strictly between two bounds.
#[derive(Clone, Copy, Default)]
pub(super) struct Bounds {
    pub(super) low: Option<f64>,
    pub(super) high: Option<f64>,
}

impl Bounds {
    fn are_none(self) -> bool {
        self.low.is_none() && self.high.is_none()
    }

    /// Sum of the values within the bounds, each times its weight and the factor of its row; weight of the values.
    pub(super) fn total<const D: usize>(
        self,
        values: Tensor<D>,
        weights: Tensor<D>,
        factor: Option<Tensor<D>>,
    ) -> Total {
        let bounds = [
            self.low.unwrap_or(f64::NEG_INFINITY),
            self.high.unwrap_or(f64::INFINITY),
        ];
        if factor.is_none()
            && let Some((sum, count)) = gradus_kernels::bounded_sum(&values, &weights, bounds)
        {
            return Total { sum, count };
        }
        let seen = values.clone().without_autodiff();
        let mut weights = weights;
        if let Some(low) = self.low {
            // Written so that NaN is kept: it must come out.
            weights = weights.mask_fill(seen.clone().lower_equal_scalar(low), 0.0);
        }
        if let Some(high) = self.high {
            weights = weights.mask_fill(seen.greater_equal_scalar(high), 0.0);
        }
        let none = weights.clone().equal_scalar(0.0);
        let weighted = values.mask_fill(none, 0.0) * weights.clone();
        let weighted = match factor {
            Some(factor) => weighted * factor,
            None => weighted,
        };
        Total {
            sum: weighted.sum(),
            count: weights.sum(),
        }
    }
}

impl Triplets {
    /// Sum and weight of the values within the bounds; `factor` `[anchors, 1]` multiplies the values of an anchor.
    pub(super) fn total(&self, bounds: Bounds, factor: Option<&Tensor<2>>) -> Total {
        if self.choice.is_empty() {
            let zero = self.negative.clone().sum().mul_scalar(0.0);
            return Total {
                count: zero.clone().without_autodiff(),
                sum: zero,
            };
        }
        if self.cost.is_none() && bounds.are_none() {
            return self.separate_total(factor);
        }
        match &self.choice.listed {
            Some(triplets) => self.listed_total(triplets, bounds, factor),
            None => self.streamed_total(bounds, factor, LARGEST_BLOCK),
        }
    }

    /// Shows the sum of both entries of all triplets with their weights, block by block and outside autodiff.
    pub(super) fn visit_sums(&self, mut look: impl FnMut(Tensor<3>, Tensor<3>)) {
        let [rows, columns] = self.positive.dims();
        let (positive, negative) = (
            self.positive.clone().without_autodiff(),
            self.negative.clone().without_autodiff(),
        );
        if let Some(triplets) = &self.choice.listed {
            let count = triplets.len();
            let read = |matrix: Tensor<2>, index: &dyn Fn(&[u32; 3]) -> u32| {
                let cells: Vec<i64> = triplets
                    .iter()
                    .map(|triplet| i64::from(triplet[0]) * columns as i64 + i64::from(index(triplet)))
                    .collect();
                let cells = Tensor::<1, Int>::from_data(TensorData::new(cells, [count]), &matrix.device());
                matrix.reshape([rows * columns]).select(0, cells).reshape([count, 1, 1])
            };
            if count > 0 {
                let sums: Tensor<3> = read(positive, &|triplet| triplet[1]) + read(negative, &|triplet| triplet[2]);
                let weights = sums.ones_like();
                look(sums, weights);
            }
            return;
        }
        let slots = Slots::of(&self.choice.pairs, [rows, columns], &positive);
        let positive = positive.gather(1, slots.index);
        let step = (LARGEST_BLOCK / (slots.width * columns).max(1)).clamp(1, rows.max(1));
        for start in (0..rows).step_by(step) {
            let block = |matrix: &Tensor<2>, dim: usize| {
                let rows = matrix.clone().narrow(0, start, step.min(rows - start));
                rows.unsqueeze_dim::<3>(dim)
            };
            look(
                block(&positive, 2) + block(&negative, 1),
                block(&slots.weights, 2) * block(&self.choice.pairs.negative, 1),
            );
        }
    }

    fn evaluate(&self, entries: Entries) -> Tensor<3> {
        match &self.cost {
            Some(cost) => cost(entries),
            None => entries.positive + entries.negative,
        }
    }

    fn separate_total(&self, factor: Option<&Tensor<2>>) -> Total {
        let sum = |values: &Tensor<2>, times: &Tensor<2>| {
            let values = values.clone().mask_fill(times.clone().equal_scalar(0.0), 0.0) * times.clone();
            match factor {
                Some(factor) => (values * factor.clone()).sum(),
                None => values.sum(),
            }
        };
        Total {
            sum: sum(&self.positive, &self.choice.times_positive) + sum(&self.negative, &self.choice.times_negative),
            count: crate::batch::column(self.choice.anchor_counts.clone(), &self.positive).sum(),
        }
    }

    /// The values of listed triplets, `[triplets, 1, 1]`.
    pub(super) fn listed_values(&self, triplets: &[[u32; 3]]) -> Tensor<3> {
        let [rows, columns] = self.positive.dims();
        let device = self.positive.device().inner();
        let count = triplets.len();
        let at = |index: &dyn Fn(&[u32; 3]) -> usize| {
            let index: Vec<i64> = triplets.iter().map(|triplet| index(triplet) as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(index, [count]), &device)
        };
        let read = |matrix: &Tensor<2>, cells: usize, index: Tensor<1, Int>| -> Tensor<3> {
            matrix.clone().reshape([cells]).select(0, index).reshape([count, 1, 1])
        };
        let cells = rows * columns;
        self.evaluate(Entries {
            positive: read(
                &self.positive,
                cells,
                at(&|&[a, p, _]| a as usize * columns + p as usize),
            ),
            negative: read(
                &self.negative,
                cells,
                at(&|&[a, _, n]| a as usize * columns + n as usize),
            ),
            opposite: self.opposite.as_ref().map(|opposite| {
                let index = at(&|&[_, p, n]| p as usize * columns + n as usize);
                read(opposite, columns * columns, index)
            }),
        })
    }

    fn listed_total(&self, triplets: &[[u32; 3]], bounds: Bounds, factor: Option<&Tensor<2>>) -> Total {
        let count = triplets.len();
        let values = self.listed_values(triplets);
        let factor = factor.map(|factor| {
            let anchors: Vec<i64> = triplets.iter().map(|triplet| i64::from(triplet[0])).collect();
            let anchors = Tensor::<1, Int>::from_data(TensorData::new(anchors, [count]), &factor.device().inner());
            factor.clone().select(0, anchors).reshape([count, 1, 1])
        });
        let weights = values.clone().without_autodiff().ones_like();
        bounds.total(values, weights, factor)
    }

    fn streamed_total(&self, bounds: Bounds, factor: Option<&Tensor<2>>, largest_block: usize) -> Total {
        let [rows, columns] = self.positive.dims();
        let slots = Slots::of(&self.choice.pairs, [rows, columns], &self.positive);
        let outside = |matrix: &Tensor<2>| matrix.clone().without_autodiff();
        let (positive, negative) = (
            outside(&self.positive).gather(1, slots.index.clone()),
            outside(&self.negative),
        );
        let opposite = self.opposite.as_ref().map(outside);
        let is_tracked = |matrix: &Tensor<2>| matrix.is_tracked();
        let tracked =
            is_tracked(&self.positive) || is_tracked(&self.negative) || self.opposite.as_ref().is_some_and(is_tracked);
        let leaf = |matrix: Tensor<2>| {
            if tracked {
                matrix.autodiff().require_grad()
            } else {
                matrix
            }
        };

        let step = (largest_block / (slots.width * columns).max(1)).clamp(1, rows);
        let (mut sums, mut counts) = (Vec::new(), Vec::new());
        let (mut positive_slopes, mut negative_slopes) = (Vec::new(), Vec::new());
        let mut opposite_slopes: Option<Tensor<2>> = None;
        for start in (0..rows).step_by(step) {
            let length = step.min(rows - start);
            let of_block = |matrix: &Tensor<2>| matrix.clone().narrow(0, start, length);
            let shape = [length, slots.width, columns];
            let to_positive = leaf(of_block(&positive));
            let to_negative = leaf(of_block(&negative));
            let between = opposite.clone().map(leaf);
            let index = slots
                .index
                .clone()
                .narrow(0, start, length)
                .reshape([length * slots.width]);
            let values = self.evaluate(Entries {
                positive: to_positive.clone().unsqueeze_dim::<3>(2),
                negative: to_negative.clone().unsqueeze_dim::<3>(1),
                opposite: between.clone().map(|between| between.select(0, index).reshape(shape)),
            });
            let weights = of_block(&slots.weights).unsqueeze_dim::<3>(2)
                * of_block(&self.choice.pairs.negative).unsqueeze_dim::<3>(1);
            let factor = factor.map(|factor| of_block(factor).unsqueeze_dim::<3>(2));
            let total = bounds.total(values, weights, factor);
            if tracked {
                let gradients = total.sum.backward();
                let slopes = |leaf: &Tensor<2>| {
                    let none = || leaf.clone().without_autodiff().zeros_like();
                    leaf.grad(&gradients).unwrap_or_else(none)
                };
                positive_slopes.push(slopes(&to_positive));
                negative_slopes.push(slopes(&to_negative));
                if let Some(between) = &between {
                    let slopes = slopes(between);
                    opposite_slopes = Some(match opposite_slopes {
                        Some(sum) => sum + slopes,
                        None => slopes,
                    });
                }
            }
            sums.push(total.sum.without_autodiff());
            counts.push(total.count);
        }
        let sum = Tensor::cat(sums, 0).sum();
        let count = Tensor::cat(counts, 0).sum();
        if !tracked {
            return Total { sum, count };
        }
        let mut slopes = (self.positive.clone().gather(1, slots.index) * Tensor::cat(positive_slopes, 0)).sum()
            + (self.negative.clone() * Tensor::cat(negative_slopes, 0)).sum();
        if let (Some(opposite), Some(of_opposite)) = (&self.opposite, opposite_slopes) {
            slopes = slopes + (opposite.clone() * of_opposite).sum();
        }
        // The value is `sum`; `slopes - slopes` adds nothing to it but carries the gradient.
        Total {
            sum: slopes.clone() - slopes.without_autodiff() + sum,
            count,
        }
    }
}

/// The positives of each anchor, padded to one width.
struct Slots {
    /// Most positives of any anchor.
    width: usize,
    /// `[anchors, width]`: index of the positive, or 0 where there is none.
    index: Tensor<2, Int>,
    /// `[anchors, width]`: weight of the pair, 0 where there is none.
    weights: Tensor<2>,
}

impl Slots {
    fn of(pairs: &PairWeights, [rows, columns]: [usize; 2], like: &Tensor<2>) -> Self {
        let positives: Vec<Vec<(usize, f32)>> = pairs
            .positive_host
            .chunks(columns)
            .map(|row| {
                row.iter()
                    .copied()
                    .enumerate()
                    .filter(|(_, weight)| *weight > 0.0)
                    .collect()
            })
            .collect();
        let width = positives.iter().map(Vec::len).max().unwrap_or(0);
        let (mut index, mut weights) = (vec![0_i64; rows * width], vec![0.0_f32; rows * width]);
        for (row, positives) in positives.iter().enumerate() {
            for (slot, &(position, weight)) in positives.iter().enumerate() {
                index[row * width + slot] = position as i64;
                weights[row * width + slot] = weight;
            }
        }
        let device = like.device().inner();
        Self {
            width,
            index: Tensor::from_data(TensorData::new(index, [rows, width]), &device),
            weights: Tensor::from_data(TensorData::new(weights, [rows, width]), (&device, like.dtype())),
        }
    }
}

/// The triplets a comparison offers: those mined, `per_anchor` drawn at random, or all.
pub(super) fn choose(comparison: &Comparison, per_anchor: Option<usize>) -> TripletChoice {
    use crate::batch::Mined;
    use gradus_core::random::{self, Rng};

    let pairs = comparison.pairs();
    match (&comparison.mined, per_anchor) {
        (Some(Mined::Triplets(triplets)), _) => TripletChoice::listed(triplets.clone(), pairs),
        (Some(Mined::Pairs(_)), _) | (None, None) => TripletChoice::all(pairs),
        (None, Some(number)) => {
            let (rows, columns) = (comparison.anchors.len(), comparison.reference_set().len());
            let mut triplets = Vec::new();
            for anchor in 0..rows {
                let relations = || (0..columns).map(|other| (other as u32, comparison.relation(anchor, other)));
                let positives: Vec<u32> = relations()
                    .filter(|(_, relation)| relation.positive_weight() > 0.0)
                    .map(|(other, _)| other)
                    .collect();
                let negatives: Vec<u32> = relations()
                    .filter(|(_, relation)| relation.is_negative())
                    .map(|(other, _)| other)
                    .collect();
                if positives.is_empty() || negatives.is_empty() {
                    continue;
                }
                let mut stream = random::stream(comparison.seed, &[random::purpose::SAMPLER, anchor as u64]);
                for _ in 0..number {
                    let positive = positives[stream.random_range(0..positives.len())];
                    let negative = negatives[stream.random_range(0..negatives.len())];
                    triplets.push([anchor as u32, positive, negative]);
                }
            }
            let pairs = comparison.clone().with_mined(Mined::Triplets(triplets.clone())).pairs();
            TripletChoice::listed(triplets, pairs)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{EmbeddingBatch, Mined};
    use crate::losses::testing::{near, scalar};
    use crate::tensor::Device;
    use gradus_core::random::{self, Rng};

    fn comparison() -> Comparison {
        let labels = vec![0_u32, 1, 0, 2, 1, 0, 2];
        let rows = Tensor::<2>::ones([labels.len(), 1], &Device::flex());
        Comparison::within(&EmbeddingBatch::new(rows, labels))
    }

    fn triplets(matrix: &Tensor<2>, choice: TripletChoice) -> Triplets {
        let cost = |entries: Entries| {
            let farther = entries.positive - entries.negative;
            let opposite = entries.opposite.expect("given");
            (farther.clone() * opposite).sin() + farther.square()
        };
        Triplets {
            choice,
            positive: matrix.clone(),
            negative: matrix.clone().mul_scalar(0.5),
            opposite: Some(matrix.clone().square()),
            cost: Some(Box::new(cost)),
        }
    }

    #[test]
    fn blocks_lists_and_slopes_agree() {
        let mut stream = random::stream(3, &[]);
        let values: Vec<f32> = (0..49).map(|_| stream.random::<f32>()).collect();
        let comparison = comparison();
        let mut listed = vec![];
        for a in 0..7_u32 {
            for p in 0..7_u32 {
                for n in 0..7_u32 {
                    let positive = comparison.relation(a as usize, p as usize).positive_weight() > 0.0;
                    if positive && comparison.relation(a as usize, n as usize).is_negative() {
                        listed.push([a, p, n]);
                    }
                }
            }
        }
        let bounds = Bounds {
            low: Some(0.05),
            high: Some(0.4),
        };
        let mut found = vec![];
        let factor = crate::batch::column((0..7).map(f64::from).collect(), &comparison.anchors.embeddings);
        for way in 0..4 {
            let leaf = Tensor::<2>::from_data(TensorData::new(values.clone(), [7, 7]), &Device::flex().autodiff());
            let leaf = leaf.require_grad();
            let total = match way {
                0..3 => {
                    let triplets = triplets(&leaf, choose(&comparison, None));
                    triplets.streamed_total(bounds, Some(&factor), [1, 30, LARGEST_BLOCK][way])
                }
                _ => {
                    let mined = comparison.clone().with_mined(Mined::Triplets(listed.clone()));
                    triplets(&leaf, choose(&mined, None)).total(bounds, Some(&factor))
                }
            };
            let slopes = leaf.grad(&total.sum.backward()).expect("tracked");
            found.push((
                scalar(&total.sum),
                scalar(&total.count),
                slopes.try_to_vec_as::<f32>().expect("floats"),
            ));
        }
        assert!(found[0].1 > 3.0 && found[0].1 < listed.len() as f64);
        for other in &found[1..] {
            near(other.0, found[0].0);
            near(other.1, found[0].1);
            for (a, b) in other.2.iter().zip(&found[0].2) {
                near(f64::from(*a), f64::from(*b));
            }
        }
    }

    #[test]
    fn what_separates_needs_no_triplets() {
        let matrix = Tensor::<2>::from_data(
            TensorData::new((0..49).map(|i| i as f32).collect::<Vec<_>>(), [7, 7]),
            &Device::flex(),
        );
        let both = |cost: Option<TripletCost>| {
            let choice = choose(&comparison(), None);
            let (positive, negative) = (matrix.clone(), matrix.clone().mul_scalar(-0.3));
            let triplets = Triplets {
                choice,
                positive,
                negative,
                opposite: None,
                cost,
            };
            let total = triplets.total(Bounds::default(), None);
            (scalar(&total.sum), scalar(&total.count))
        };
        let (fast, plain) = (both(None), both(Some(Box::new(|e| e.positive + e.negative))));
        near(fast.0, plain.0);
        near(fast.1, plain.1);
    }

    #[test]
    fn bounded_sums_agree_with_plain_operations_in_double_precision() {
        use crate::tensor::DType;

        let mut stream = random::stream(5, &[]);
        let count = 40_000; // several tasks of the kernel
        let mut draw = || -> Vec<f32> { (0..count).map(|_| stream.random::<f32>() * 2.0 - 0.5).collect() };
        let (mut values, mut weights) = (draw(), draw());
        weights.iter_mut().for_each(|weight| *weight = weight.max(0.0));
        (values[7], weights[7]) = (f32::INFINITY, 0.0);
        (values[8], weights[8]) = (0.25, 1.0); // a bound itself is outside
        let none = Bounds::default();
        let low = Bounds {
            low: Some(0.25),
            high: None,
        };
        let both = Bounds {
            low: Some(-0.25),
            high: Some(0.5),
        };
        for bounds in [none, low, both] {
            let [single, double] = [DType::F32, DType::F64].map(|dtype| {
                let device = Device::flex().autodiff();
                let tensor = |values: &[f32], device: &Device| {
                    Tensor::<2>::from_data(TensorData::new(values.to_vec(), [200, count / 200]), (device, dtype))
                };
                let leaf = tensor(&values, &device).require_grad();
                let total = bounds.total(leaf.clone(), tensor(&weights, &device.inner()), None);
                let slopes = leaf
                    .grad(&(total.sum.clone() * total.sum.clone()).backward())
                    .expect("tracked");
                let slopes = slopes.cast(DType::F64).try_to_vec_as::<f64>().expect("floats");
                (scalar(&total.sum), scalar(&total.count), slopes)
            });
            near(single.0 / double.0, 1.0);
            near(single.1 / double.1, 1.0);
            for (found, expected) in single.2.iter().zip(&double.2) {
                near(found / double.0, expected / double.0);
            }
        }
        let one = |value: f32| Tensor::<2>::from_data([[value]], &Device::flex());
        assert!(scalar(&low.total(one(f32::NAN), one(1.0), None).sum).is_nan());
    }

    #[test]
    fn drawn_triplets_are_triplets() {
        let comparison = comparison().with_seed(4);
        let choice = choose(&comparison, Some(5));
        let listed = choice.listed.as_ref().expect("a list");
        assert_eq!(listed.len(), 35);
        for &[a, p, n] in listed {
            assert_eq!(comparison.relation(a as usize, p as usize).positive_weight(), 1.0);
            assert!(comparison.relation(a as usize, n as usize).is_negative());
        }
        assert_eq!(choose(&comparison, Some(5)).listed, choice.listed);
        assert_ne!(choose(&comparison.with_seed(5), Some(5)).listed, choice.listed);
    }
}
