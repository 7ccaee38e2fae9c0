//! Dynamic soft margin: triplets weighed by how hard they are among those seen so far.

use serde::{Deserialize, Serialize};

use super::terms::Bounds;
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Triplets, Unit, View, check};
use crate::models::running::RunningStatistic;
use crate::tensor::{Device, IndexingUpdateOp, Int, Module, Tensor};

/// Settings of [`DynamicSoftMarginLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DynamicSoftMarginConfig {
    /// Smallest difference of distances, below 0; -2. The largest is its opposite.
    pub min_val: f64,
    /// Number of bins of the histogram; 10.
    pub num_bins: usize,
    /// How much one triplet of a batch counts against the whole histogram so far; 0.01.
    pub momentum: f64,
}

impl Default for DynamicSoftMarginConfig {
    fn default() -> Self {
        Self {
            min_val: -2.0,
            num_bins: 10,
            momentum: 0.01,
        }
    }
}

impl MetricLossConfig for DynamicSoftMarginConfig {
    type Loss = DynamicSoftMarginLoss;
    const SUMMARY: &'static str = "triplets weighed by their rank among the differences of distances seen so far";
    const PAPER: &'static str =
        "Zhang and Rusinkiewicz, Learning Local Descriptors with a CDF-Based Dynamic Soft Margin, ICCV";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        let name = "dynamic-soft-margin";
        if !(self.min_val.is_finite() && self.min_val < 0.0) {
            return Err(format!(
                "loss.{name}.min-val is {}, but it must be a finite number below 0; leave it out to get the default {}.",
                self.min_val, default.min_val
            ));
        }
        check::count(name, "num-bins", self.num_bins, default.num_bins)?;
        check::within(name, "momentum", self.momentum, default.momentum, [0.0, 1.0 + f64::EPSILON])
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, device: &Device) -> DynamicSoftMarginLoss {
        let device = device.clone().without_autodiff();
        DynamicSoftMarginLoss {
            histogram: RunningStatistic::new(Tensor::zeros([self.num_bins], &device)),
            config: self.clone(),
        }
    }
}

/// Dynamic soft margin loss (Zhang and Rusinkiewicz, Learning Local Descriptors with a CDF-Based Dynamic Soft Margin, ICCV
/// 2019).
///
/// With `x = d_ap - d_an` of every triplet, Euclidean distances of normalised embeddings: mean of `CDF(x) x`, where `CDF(x)`
/// is the share of the differences seen so far in the bin of `x` and below. The histogram has `num-bins` bins of width
/// `2 |min-val| / num-bins` from `min-val` on; a difference counts in its bin and the next one, by where between them it
/// lies. A batch adds `momentum` times its counts to `1 - momentum` times the histogram, which is then divided by its sum;
/// the first batch is the histogram. The batch counts before it is weighed.
///
/// The gradient is that of pytorch-metric-learning's first batch: through the differences and through the batch's own
/// part of the histogram. What was seen before is a constant (there, a second batch fails because the histogram keeps the
/// spent graph of the first). Differences in the last bin count in it whole (there, an index out of range). The histogram
/// moves only in passes whose embeddings are tracked (training), and is saved with the loss, so that training resumes
/// exactly. No reducer touches the mean. Without labels pytorch-metric-learning takes row `i` of the references as the
/// positive of row `i` and the hardest negative; give every pair a class of its own here, which takes all negatives.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length. Memory: `batch x batch`, and blocks of triplets.
#[derive(Module, Debug)]
pub struct DynamicSoftMarginLoss {
    histogram: RunningStatistic,
    #[module(skip)]
    config: DynamicSoftMarginConfig,
}

impl DynamicSoftMarginLoss {
    /// The shares of the bins, `[num-bins]`; zeros before the first batch.
    #[must_use]
    pub fn histogram(&self) -> Tensor<1> {
        self.histogram.value()
    }
}

/// The bins of a histogram of differences.
#[derive(Clone, Copy)]
struct Bins {
    lowest: f64,
    width: f64,
    count: usize,
}

impl Bins {
    /// The bin of each difference, as a whole number, and where in it the difference lies, in `[0, 1)`.
    fn place(self, differences: Tensor<1>) -> (Tensor<1, Int>, Tensor<1>) {
        let place = (differences.sub_scalar(self.lowest))
            .mul_scalar(self.width.recip())
            .clamp(0.0, self.count as f64);
        let bin = place.clone().floor();
        let rest = place - bin.clone();
        // NaN must not become an index.
        let bin = bin.clone().mask_fill(bin.is_nan(), 0.0);
        (bin.clamp_max((self.count - 1) as f64).int(), rest)
    }
}

impl MetricLoss for DynamicSoftMarginLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let DynamicSoftMarginConfig {
            min_val,
            num_bins,
            momentum,
        } = self.config;
        let choice = view.triplets(None);
        if choice.is_empty() {
            return vec![];
        }
        let number: f64 = choice.anchor_counts.iter().sum();
        let bins = Bins {
            lowest: min_val,
            width: -2.0 * min_val / num_bins as f64,
            count: num_bins,
        };
        let distances = view.distances(); // [anchors, references]
        let mut triplets = Triplets {
            choice,
            positive: distances.clone(),
            negative: distances.neg(),
            opposite: None,
            cost: None,
        };

        // Counts of the batch, and the sum of the differences in each bin.
        let mut counts = view.number(0.0).repeat_dim(0, num_bins);
        let mut sums = counts.clone();
        triplets.visit_sums(|differences, weights| {
            let cells = differences.dims().iter().product::<usize>();
            let (differences, weights) = (differences.reshape([cells]), weights.reshape([cells]));
            let (bin, rest) = bins.place(differences.clone());
            let next = bin.clone().add_scalar(1).clamp_max(num_bins as i64 - 1);
            let add = |to: &mut Tensor<1>, at: Tensor<1, Int>, values: Tensor<1>| {
                *to = to.clone().select_assign(0, at, values, IndexingUpdateOp::Add);
            };
            add(&mut counts, bin.clone(), weights.clone() * rest.clone().neg().add_scalar(1.0));
            add(&mut counts, next, weights.clone() * rest);
            add(&mut sums, bin, weights * differences);
        });

        // The first batch is the histogram: its momentum is 1.
        let known = self.histogram.value().cast(counts.dtype());
        let first = known.clone().sum().equal_scalar(0.0);
        let share = view.number(momentum).mask_fill(first, 1.0);
        let mixed = known * share.clone().neg().add_scalar(1.0) + counts * share.clone();
        let total = mixed.clone().sum();
        let histogram = mixed / total.clone();
        if view.anchors().is_tracked() {
            let stored = histogram.clone().cast(self.histogram.value().dtype());
            self.histogram.update(stored, 1.0);
        }
        let cumulative = histogram.cumsum(0);

        // A difference that grows leaves its bin: the share up to it falls by 1 / width, but for the last bin, whose share
        // is always 1. Its slope is that times what the bin weighs.
        let slopes = (sums * share / total).mul_scalar(-bins.width.recip());
        let slopes = Tensor::cat(
            vec![slopes.clone().narrow(0, 0, num_bins - 1), view.number(0.0)],
            0,
        );
        triplets.cost = Some(Box::new(move |entries| {
            let difference = entries.positive + entries.negative;
            let seen = difference.clone().without_autodiff();
            let shape = seen.dims();
            let (bin, _) = bins.place(seen.clone().reshape([shape.iter().product::<usize>()]));
            let weight = cumulative.clone().select(0, bin.clone()).reshape(shape);
            let slope = slopes.clone().select(0, bin).reshape(shape);
            difference * (weight + slope.clone()) - slope * seen
        }));
        let sum = triplets.total(Bounds::default(), None).sum;
        vec![Term::reduced("loss", sum.mul_scalar(number.recip()))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::EmbeddingBatch;
    use crate::losses::LossConfig;
    use crate::losses::testing::{chord, circle, near, scalar};
    use crate::state::{load_named_arrays, named_arrays};

    #[test]
    fn agrees_with_naive_loops_and_remembers() {
        let batches = [
            ([0.0f64, 0.5, 0.6, 2.0, 2.1, 3.1], [0_u32, 0, 1, 1, 1, 2]),
            ([0.1f64, 3.2, 0.0, 1.0, -1.1, 2.9], [0, 0, 1, 1, 1, 0]),
        ];
        let (bins, momentum) = (8, 0.2);
        let config = LossConfig::from(DynamicSoftMarginConfig {
            num_bins: bins,
            momentum,
            ..Default::default()
        });
        let device = Device::flex().autodiff();
        let loss = config.init(2, 3, 0, &device);
        let mut histogram = vec![0.0; bins];
        for (angles, labels) in batches {
            let mut differences = vec![];
            for a in 0..6 {
                for p in (0..6).filter(|&p| p != a && labels[p] == labels[a]) {
                    for n in (0..6).filter(|&n| labels[n] != labels[a]) {
                        differences.push(chord(angles[a] - angles[p]) - chord(angles[a] - angles[n]));
                    }
                }
            }
            let first = histogram.iter().sum::<f64>() == 0.0;
            let share = if first { 1.0 } else { momentum };
            histogram.iter_mut().for_each(|bin| *bin *= 1.0 - share);
            let place = |x: f64| (x + 2.0) / 0.5;
            for &x in &differences {
                let bin = place(x).floor() as usize;
                histogram[bin] += share * (1.0 - place(x).fract());
                histogram[(bin + 1).min(bins - 1)] += share * place(x).fract();
            }
            let total: f64 = histogram.iter().sum();
            histogram.iter_mut().for_each(|bin| *bin /= total);
            let weighed = |&x: &f64| x * histogram[..=place(x).floor() as usize].iter().sum::<f64>();
            let expected = differences.iter().map(weighed).sum::<f64>() / differences.len() as f64;

            let batch = circle(&angles, &labels);
            let tracked = EmbeddingBatch::new(batch.embeddings.autodiff().require_grad(), batch.labels);
            let copy = loss.clone();
            near(scalar(&loss.forward_batch(&tracked)), expected);
            // An untracked pass weighs alike but remembers nothing.
            let batch = circle(&angles, &labels);
            near(scalar(&copy.forward_batch(&batch)), expected);
            near(scalar(&copy.forward_batch(&batch)), expected);
        }
        let restored = load_named_arrays(config.init(2, 3, 9, &device), &named_arrays(&loss)).expect("fits");
        let batch = circle(&batches[0].0, &batches[0].1);
        near(
            scalar(&restored.forward_batch(&batch)),
            scalar(&loss.forward_batch(&batch)),
        );
        assert!(named_arrays(&loss).iter().any(|array| array.name.contains("histogram")));
    }
}
