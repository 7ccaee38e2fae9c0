//! Angular: negatives outside the cone that a positive pair spans.

use serde::{Deserialize, Serialize};

use super::rows::{all_pairs, once};
use super::{Accepts, DistanceNeed, MetricLoss, MetricLossConfig, Term, Unit, View, check};
use crate::batch::Comparison;
use crate::numerics::{gram, normalize, softplus};
use crate::tensor::{Bool, DType, Device, Int, Module, Tensor};

/// Settings of [`AngularLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AngularConfig {
    /// Half the opening angle of the cone in degrees, above 0 and below 90; 40.
    pub alpha: f64,
}

impl Default for AngularConfig {
    fn default() -> Self {
        Self { alpha: 40.0 }
    }
}

impl MetricLossConfig for AngularConfig {
    type Loss = AngularLoss;
    const SUMMARY: &'static str = "negatives outside the cone that a positive pair spans";
    const PAPER: &'static str = "Wang et al., Deep Metric Learning with Angular Loss, ICCV";
    const YEAR: u16 = 2017;
    const ACCEPTS: Accepts = Accepts {
        distances: DistanceNeed::Own,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Pair)];
    // Negatives count with their lengths.
    const LENGTHS_MATTER: bool = true;

    fn validate(&self) -> Result<(), String> {
        check::above_zero("angular", "alpha", self.alpha, 40.0)?;
        check::within("angular", "alpha", self.alpha, 40.0, [0.0, 90.0])
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> AngularLoss {
        AngularLoss { config: self.clone() }
    }
}

/// Angular loss (Wang et al., Deep Metric Learning with Angular Loss, ICCV 2017).
///
/// For each positive pair of normalised embeddings `a`, `p`, with `t = tan(alpha)^2`:
/// `log(1 + sum_n exp(4 t (a + p).n - 2 (1 + t) a.p))` over the negatives `n` of `a`; mean over positive pairs. All negatives
/// count, whatever was mined; a pair without any costs 0.
///
/// As in pytorch-metric-learning the negatives keep the length they came with (the paper has all embeddings of one
/// length), so feed embeddings of unit length to get the paper's value.
///
/// `exp(4 t (a + p).n) = exp(4 t a.n) exp(4 t p.n)`, so the sums over negatives are one product of matrices, after the
/// largest exponents of `a` and of `p` were taken out, in double precision where the device has it. Where that product
/// vanishes (no negative is near the largest exponent of both, by more than the range of the number type) the larger of the
/// two leading terms stands for the sum.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct AngularLoss {
    #[module(skip)]
    config: AngularConfig,
}

impl MetricLoss for AngularLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let chosen = view.pairs();
        if chosen.positive_total() == 0.0 || chosen.negative_total() == 0.0 {
            return vec![];
        }
        let all = all_pairs(view);
        let negative = once(&all.negative);
        let tangent = self.config.alpha.to_radians().tan().powi(2);
        let anchors = normalize(view.anchors());
        let references = if view.is_within() {
            anchors.clone()
        } else {
            normalize(view.references())
        };
        // The slope of a length is the unit row itself.
        let lengths = (view.references() * references.clone().without_autodiff()).sum_dim(1);
        let lengths = lengths.transpose().mul_scalar(4.0 * tangent); // [1, references]
        let products = if view.is_within() {
            gram(anchors)
        } else {
            anchors.matmul(references.clone().transpose())
        }; // [anchors, references]
        let of_anchor = products.clone() * lengths.clone();
        let of_positive = if view.is_within() {
            of_anchor.clone()
        } else {
            references.clone().matmul(references.transpose()) * lengths
        };

        let apart = negative.clone().greater_scalar(0.0);
        let (left, first, lead) = leading(of_anchor.clone(), &apart);
        let Comparison { anchors, mined, .. } = view.comparison();
        let one_class_each = anchors.labels.classes().is_some() && anchors.ids.is_none();
        let (right, first_of_positive, lead_of_positive) = if view.is_within() && mined.is_none() && one_class_each {
            // A positive has the class of its anchor, so their negatives are the same.
            (None, first.clone(), lead.clone())
        } else {
            // The negatives of a positive are those of the anchors it belongs to.
            let positive = once(&(once(&all.positive) + once(&chosen.positive)));
            let apart_of_positive = positive.transpose().matmul(negative).greater_scalar(0.0); // [references, references]
            let (right, first, lead) = leading(of_positive.clone(), &apart_of_positive);
            (Some(right), first, lead)
        };
        let sums = match right {
            Some(right) => left.matmul(right.transpose()),
            None => gram(left),
        }; // [anchors, references]

        let Range { raised, smallest } = Range::of(&sums);
        let vanished = sums.clone().without_autodiff().lower_equal_scalar(smallest);
        let shift = (lead + lead_of_positive.transpose()).sub_scalar(2.0 * raised);
        let sums = sums.mask_fill(vanished.clone(), 1.0).log() + shift;
        let at_first = entry(of_anchor.clone(), &first) + of_positive.clone().select(1, first).transpose();
        let at_other =
            of_anchor.select(1, first_of_positive.clone()) + entry(of_positive, &first_of_positive).transpose();
        let further = at_other
            .clone()
            .without_autodiff()
            .greater(at_first.clone().without_autodiff());
        let sums = sums.mask_where(vanished, at_first.mask_where(further, at_other));

        let costs = softplus(sums - products.mul_scalar(2.0 * (1.0 + tangent)));
        let alone = view.column(all.negative_counts).equal_scalar(0.0);
        let shape = costs.dims();
        vec![Term::pairs(
            "loss",
            costs.mask_fill(alone.expand(shape), 0.0),
            chosen.positive,
        )]
    }
}

/// How the range of a float type is used for sums of products of two exponentials.
struct Range {
    /// What is added to exponents whose largest is 0: their products then use the upper half of the range too.
    raised: f64,
    /// Sums at most this may lack terms, because a factor of them vanished.
    smallest: f64,
}

impl Range {
    fn of(x: &Tensor<2>) -> Self {
        match x.dtype() {
            DType::F64 => Self {
                raised: 300.0,
                smallest: (-380.0_f64).exp(),
            },
            _ => Self {
                raised: 36.0,
                smallest: (-43.0_f64).exp(),
            },
        }
    }
}

/// Exponentials of each row's marked entries over their largest (raised by [`Range::raised`]), where the largest is, `[rows]`,
/// and its value `[rows, 1]`, a constant; entries that are not marked are 0.
fn leading(x: Tensor<2>, marked: &Tensor<2, Bool>) -> (Tensor<2>, Tensor<1, Int>, Tensor<2>) {
    let others = marked.clone().bool_not();
    let seen = x
        .clone()
        .without_autodiff()
        .mask_fill(others.clone(), f64::NEG_INFINITY);
    let (largest, at) = seen.max_dim_with_indices(1);
    let [rows, _] = largest.dims();
    let none = largest.clone().equal_scalar(f64::NEG_INFINITY);
    let largest = largest.mask_fill(none, 0.0);
    let raised = Range::of(&x).raised;
    let exponents = (x - largest.clone()).add_scalar(raised);
    let exponents = exponents.mask_fill(others, f64::NEG_INFINITY);
    (exponents.exp(), at.reshape([rows]), largest)
}

/// One entry of each row, `[rows, 1]`.
fn entry(x: Tensor<2>, at: &Tensor<1, Int>) -> Tensor<2> {
    let [rows, _] = x.dims();
    x.gather(1, at.clone().reshape([rows, 1]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::EmbeddingBatch;
    use crate::losses::LossConfig;
    use crate::losses::testing::{matrix, near, scalar};
    use gradus_core::random::{Rng, stream};

    /// The loss written out: mean over positive pairs of log(1 + sum over negatives of exp(4 t² (a + p)·n - 2 (1 + t²) a·p)),
    /// `a` and `p` of unit length, `n` as it came.
    fn naive(rows: &[Vec<f64>], labels: &[u32], alpha: f64) -> f64 {
        let tangent = alpha.to_radians().tan().powi(2);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let unit: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| row.iter().map(|x| x / dot(row, row).sqrt()).collect())
            .collect();
        let mut costs = vec![];
        for a in 0..rows.len() {
            for p in (0..rows.len()).filter(|&p| p != a && labels[p] == labels[a]) {
                let exponent = |n: usize| {
                    let sum = dot(&unit[a], &rows[n]) + dot(&unit[p], &rows[n]);
                    4.0 * tangent * sum - 2.0 * (1.0 + tangent) * dot(&unit[a], &unit[p])
                };
                let negatives = (0..rows.len()).filter(|&n| labels[n] != labels[a]);
                let exponents: Vec<f64> = negatives.map(exponent).chain([0.0]).collect();
                let most = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                costs.push(most + exponents.iter().map(|x| (x - most).exp()).sum::<f64>().ln());
            }
        }
        costs.iter().sum::<f64>() / costs.len() as f64
    }

    fn agrees(rows: &[Vec<f64>], labels: &[u32], alpha: f64) {
        let values = rows.iter().flatten().map(|&x| x as f32).collect();
        let rows_in_single: Vec<Vec<f64>> = rows
            .iter()
            .map(|row| row.iter().map(|&x| f64::from(x as f32)).collect())
            .collect();
        let batch = EmbeddingBatch::new(matrix(values, [rows.len(), rows[0].len()]), labels.to_vec());
        let loss = LossConfig::from(AngularConfig { alpha }).init(rows[0].len(), 9, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&batch)),
            naive(&rows_in_single, labels, alpha),
        );
    }

    #[test]
    fn agrees_with_naive_loops_also_where_products_vanish() {
        let labels = [0, 0, 1, 1, 2, 0, 2];
        let angles = [0.0_f64, 0.5, 1.6, 2.0, 2.1, 0.9, 4.0];
        for (alpha, length) in [(40.0, 1.0), (55.0, 3.0), (40.0, 12.0), (40.0, 60.0), (40.0, 1e3)] {
            let rows: Vec<Vec<f64>> = angles
                .iter()
                .map(|angle| vec![length * angle.cos(), length * angle.sin()])
                .collect();
            agrees(&rows, &labels, alpha);
        }
        // In more directions the largest terms of anchor and positive are others than those of their sum.
        let mut random = stream(5, &[]);
        let labels: Vec<u32> = (0..16).map(|row| row / 4).collect();
        for length in [1.0, 5.0, 15.0] {
            let rows: Vec<Vec<f64>> = (0..16)
                .map(|_| (0..8).map(|_| length * (random.random::<f64>() - 0.5)).collect())
                .collect();
            agrees(&rows, &labels, 40.0);
        }
    }
}
