//! Triplet margin: every positive closer to its anchor than every negative, by a margin.

use serde::{Deserialize, Serialize};

use super::pairs::{Pairs, distances, zero};
use super::{MetricLoss, MetricLossConfig, check};
use crate::batch::EmbeddingBatch;
use crate::numerics::softplus;
use crate::tensor::{Bool, Device, Int, Module, Tensor, TensorData, activation};

/// Settings of [`TripletMarginLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TripletMarginConfig {
    /// How much farther the negative must be; 0.05.
    pub margin: f64,
    /// Whether to take the negative's distance to anchor or positive, whichever is smaller; false.
    pub swap: bool,
    /// Whether to use `log(1 + exp(x))` for `max(x, 0)`; false.
    pub smooth: bool,
}

impl Default for TripletMarginConfig {
    fn default() -> Self {
        Self {
            margin: 0.05,
            swap: false,
            smooth: false,
        }
    }
}

impl MetricLossConfig for TripletMarginConfig {
    type Loss = TripletMarginLoss;
    const SUMMARY: &'static str = "positives closer than negatives by a margin, over all triplets";
    const PAPER: &'static str =
        "Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR";
    const YEAR: u16 = 2015;

    fn validate(&self) -> Result<(), String> {
        check::finite("triplet-margin", "margin", self.margin, Self::default().margin)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> TripletMarginLoss {
        TripletMarginLoss {
            config: self.clone(),
            largest_block: LARGEST_BLOCK,
        }
    }
}

/// Triplets looked at together: a few temporaries of 16 MiB in single precision.
const LARGEST_BLOCK: usize = 1 << 22;

/// Triplet margin loss (Schroff et al., FaceNet: A Unified Embedding for Face Recognition and Clustering, CVPR 2015)
/// over all triplets of the batch.
///
/// With Euclidean distances `d` between normalised embeddings, over all (anchor, positive, negative):
/// `max(d_ap - d_an + margin, 0)`, or `log(1 + exp(d_ap - d_an + margin))` if smooth; mean over the non-zero ones.
/// `swap` (Balntas et al., BMVC 2016) replaces `d_an` by `min(d_an, d_pn)`.
///
/// The cost of a triplet depends on two entries of the distance matrix, so its gradient is a `batch x batch` matrix of
/// slopes. Costs and slopes are summed block by block outside autodiff and attached to the distance matrix at the end:
/// no `batch^3` tensor exists, and the tape holds only `batch x batch` ones.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length.
#[derive(Module, Debug)]
pub struct TripletMarginLoss {
    #[module(skip)]
    config: TripletMarginConfig,
    #[module(skip)]
    largest_block: usize,
}

/// The positives of each anchor, padded to one width.
struct PositiveSlots {
    /// Most positives of any anchor.
    width: usize,
    /// `[batch, width]`: index of the positive, or of the anchor where there is none.
    index: Tensor<2, Int>,
    /// `[batch, width]`: whether there is one.
    filled: Tensor<2, Bool>,
}

impl PositiveSlots {
    fn of(batch: &EmbeddingBatch, pairs: &Pairs) -> Self {
        let count = batch.len();
        let width = pairs.positive_counts.iter().copied().max().unwrap_or(0);
        let mut index = Vec::with_capacity(count * width);
        let mut filled = Vec::with_capacity(count * width);
        for anchor in 0..count {
            let alike = (0..count).filter(|&other| other != anchor && batch.labels[other] == batch.labels[anchor]);
            index.extend(alike.map(|other| other as i64));
            index.resize((anchor + 1) * width, anchor as i64);
            filled.extend((0..width).map(|slot| slot < pairs.positive_counts[anchor]));
        }
        let device = batch.embeddings.device().inner();
        Self {
            width,
            index: Tensor::from_data(TensorData::new(index, [count, width]), &device),
            filled: Tensor::from_data(TensorData::new(filled, [count, width]), &device),
        }
    }
}

/// Costs and slopes of the triplets of some anchors.
struct Block {
    /// `[1]`: sum of costs.
    cost: Tensor<1>,
    /// `[1]`: number of non-zero costs.
    active: Tensor<1>,
    /// `[anchors, width]`: slope along each positive distance.
    toward_positive: Tensor<2>,
    /// `[anchors, batch]`: minus the slope along each negative distance.
    from_negative: Tensor<2>,
}

impl TripletMarginLoss {
    /// The triplets of `length` anchors from `start`; nothing here is on the tape.
    fn block(&self, distances: &Tensor<2>, pairs: &Pairs, slots: &PositiveSlots, start: usize, length: usize) -> Block {
        let [count, _] = distances.dims();
        let shape = [length, slots.width, count];
        let rows = distances.clone().narrow(0, start, length); // [length, count]
        let index = slots.index.clone().narrow(0, start, length);
        let positive = rows
            .clone()
            .gather(1, index.clone())
            .unsqueeze_dim::<3>(2)
            .expand(shape);
        let negative = rows.unsqueeze_dim::<3>(1).expand(shape);
        let from_positive = self.config.swap.then(|| {
            distances
                .clone()
                .select(0, index.reshape([length * slots.width]))
                .reshape(shape)
        });
        let nearest = match &from_positive {
            Some(from_positive) => negative.clone().min_pair(from_positive.clone()),
            None => negative.clone(),
        };
        let violation = positive - nearest + self.config.margin;
        let filled = slots
            .filled
            .clone()
            .narrow(0, start, length)
            .unsqueeze_dim::<3>(2)
            .expand(shape);
        let other = pairs
            .negatives
            .clone()
            .narrow(0, start, length)
            .unsqueeze_dim::<3>(1)
            .expand(shape);
        let none = filled.bool_and(other).bool_not();
        let zeros = violation.zeros_like();
        let (cost, slope) = if self.config.smooth {
            (softplus(violation.clone()), activation::sigmoid(violation))
        } else {
            (
                activation::relu(violation.clone()),
                zeros.clone().mask_fill(violation.greater_scalar(0.0), 1.0),
            )
        };
        let cost = cost.mask_fill(none.clone(), 0.0);
        let slope = slope.mask_fill(none, 0.0);
        let active = zeros.clone().mask_fill(cost.clone().greater_scalar(0.0), 1.0).sum();
        // With swap, (anchor, positive, n) and (positive, anchor, n) cost the same and both pull on the smaller of
        // d_an and d_pn. Seen from the anchor's row: twice on d_an where that is the smaller one, once in a tie.
        let share = match from_positive {
            Some(from_positive) => {
                let tie = negative.clone().equal(from_positive.clone());
                slope.clone() * zeros.mask_fill(negative.lower(from_positive), 2.0).mask_fill(tie, 1.0)
            }
            None => slope.clone(),
        };
        Block {
            cost: cost.sum(),
            active,
            toward_positive: slope.sum_dim(2).squeeze_dim::<2>(2),
            from_negative: share.sum_dim(1).squeeze_dim::<2>(1),
        }
    }
}

impl MetricLoss for TripletMarginLoss {
    fn forward(&self, batch: &EmbeddingBatch) -> Tensor<1> {
        let zero = zero(&batch.embeddings);
        if batch.is_empty() {
            return zero;
        }
        let pairs = Pairs::of(batch);
        if pairs.triplet_total() == 0 {
            return zero;
        }
        let count = batch.len();
        let slots = PositiveSlots::of(batch, &pairs);
        let distances = distances(batch.embeddings.clone()); // [batch, batch]
        let constant = distances.clone().without_autodiff();
        let length = (self.largest_block / (slots.width * count)).max(1);
        let blocks: Vec<Block> = (0..count)
            .step_by(length)
            .map(|start| self.block(&constant, &pairs, &slots, start, length.min(count - start)))
            .collect();

        let sum = |part: fn(&Block) -> &Tensor<1>| {
            Tensor::cat(blocks.iter().map(|block| part(block).clone()).collect(), 0).sum()
        };
        let rows =
            |part: fn(&Block) -> &Tensor<2>| Tensor::cat(blocks.iter().map(|block| part(block).clone()).collect(), 0);
        let cost = sum(|block| &block.cost);
        let active = sum(|block| &block.active).clamp_min(1.0);
        // The value is `cost`; `slopes - slopes` adds nothing to it but carries the gradient.
        let slopes = (distances.clone().gather(1, slots.index) * rows(|block| &block.toward_positive)).sum()
            - (distances * rows(|block| &block.from_negative)).sum();
        let tracked = slopes.clone() - slopes.without_autodiff() + cost;
        zero + tracked / active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::testing::{chord, circle, near, scalar};

    const ANGLES: [f64; 7] = [0.0, 0.5, 0.6, 2.0, 2.1, 0.9, 5.0];
    const LABELS: [u32; 7] = [0, 0, 1, 1, 2, 0, 2];

    fn naive(config: &TripletMarginConfig) -> f64 {
        let d = |a: usize, b: usize| chord(ANGLES[a] - ANGLES[b]);
        let (mut sum, mut count) = (0.0, 0.0);
        for (a, label) in LABELS.iter().enumerate() {
            for p in (0..7).filter(|&p| p != a && LABELS[p] == *label) {
                for n in (0..7).filter(|&n| LABELS[n] != *label) {
                    let negative = if config.swap { d(a, n).min(d(p, n)) } else { d(a, n) };
                    let violation = d(a, p) - negative + config.margin;
                    let cost = if config.smooth {
                        (1.0 + violation.exp()).ln()
                    } else {
                        violation.max(0.0)
                    };
                    sum += cost;
                    count += if cost > 0.0 { 1.0 } else { 0.0 };
                }
            }
        }
        assert!(count > 3.0);
        sum / count
    }

    #[test]
    fn agrees_with_naive_loops() {
        for (swap, smooth) in [(false, false), (true, false), (false, true), (true, true)] {
            let config = TripletMarginConfig {
                margin: 0.3,
                swap,
                smooth,
            };
            let loss = config.init(2, 3, 0, &Device::flex());
            near(scalar(&loss.forward(&circle(&ANGLES, &LABELS))), naive(&config));
        }
    }

    #[test]
    fn blocks_change_nothing() {
        for swap in [false, true] {
            let config = TripletMarginConfig {
                margin: 0.3,
                swap,
                smooth: true,
            };
            let mut found = vec![];
            for largest_block in [1, 30, LARGEST_BLOCK] {
                let loss = TripletMarginLoss {
                    config: config.clone(),
                    largest_block,
                };
                let mut batch = circle(&ANGLES, &LABELS);
                batch.embeddings = batch.embeddings.autodiff().require_grad();
                let value = loss.forward(&batch);
                let gradient = batch.embeddings.grad(&value.backward()).expect("tracked");
                found.push((scalar(&value), gradient.try_to_vec_as::<f32>().expect("floats")));
            }
            for (value, gradient) in &found[1..] {
                near(*value, found[0].0);
                gradient
                    .iter()
                    .zip(&found[0].1)
                    .for_each(|(a, b)| near(f64::from(*a), f64::from(*b)));
            }
        }
    }
}
