//! What losses on the rows of a comparison share: sums of exponentials over an anchor's pairs, and values of rows that are
//! computed a block at a time.

use super::View;
use super::terms::LARGEST_BLOCK;
use crate::batch::{Comparison, PairWeights};
use crate::numerics::{log_sum_exp, softplus};
use crate::tensor::{Bool, Int, Tensor, TensorData};

/// The weights of all pairs, whatever was mined.
pub(super) fn all_pairs(view: &View<'_>) -> PairWeights {
    let all = Comparison {
        mined: None,
        ..view.comparison().clone()
    };
    all.pairs()
}

/// 1 where there is a weight: a pair that was mined twice counts once.
pub(super) fn once(weights: &Tensor<2>) -> Tensor<2> {
    weights.zeros_like().mask_fill(weights.clone().greater_scalar(0.0), 1.0)
}

/// `log(sum(weight * exp(x)))` along one axis; minus infinity with gradient 0 where all weights are 0.
pub(super) fn weighted_log_sum_exp(x: Tensor<2>, weights: &Tensor<2>, dim: usize) -> Tensor<2> {
    if dim == 1
        && let Some(value) = gradus_kernels::log_sum_exp_rows(&x, weights, false)
    {
        return value;
    }
    let none = weights.clone().lower_equal_scalar(0.0);
    let times = weights.clone().mask_fill(none.clone(), 1.0).log();
    log_sum_exp((x + times).mask_fill(none, f64::NEG_INFINITY), dim)
}

/// Minus infinity as 0 with gradient 0, and where it was.
pub(super) fn without_empty(x: Tensor<2>) -> (Tensor<2>, Tensor<2, Bool>) {
    let empty = x.clone().without_autodiff().equal_scalar(f64::NEG_INFINITY);
    (x.mask_fill(empty.clone(), 0.0), empty)
}

/// `log(exp(x) + exp(y))` of broadcast operands, where minus infinity is nothing; 0 with gradient 0 where both are nothing.
pub(super) fn log_add_exp(x: Tensor<2>, y: Tensor<2>, shape: [usize; 2]) -> Tensor<2> {
    let (x, no_x) = without_empty(x.expand(shape));
    let (y, no_y) = without_empty(y.expand(shape));
    let both = x.clone() + softplus(y.clone() - x.clone());
    both.mask_where(no_x, y).mask_where(no_y.clone(), x.clone())
}

/// `sum / count`, 0 with gradient 0 where the count is 0.
pub(super) fn ratio<const D: usize>(sum: Tensor<D>, count: Tensor<D>) -> Tensor<D> {
    let none = count.clone().equal_scalar(0.0);
    sum.mask_fill(none.clone(), 0.0) / count.mask_fill(none, 1.0)
}

/// One value per row of a matrix, each of its own row only, computed a block of rows at a time: the tape holds slopes of
/// the matrix's size and nothing that a block needed.
///
/// `value` gets the first row of a block and the block `[rows of the block, columns]`, and gives `[rows of the block, 1]`
/// which depends on the block; `cells` is how many numbers it needs for a row.
pub(super) fn by_rows(matrix: &Tensor<2>, cells: usize, value: impl Fn(usize, Tensor<2>) -> Tensor<2>) -> Tensor<2> {
    let [rows, _] = matrix.dims();
    let tracked = matrix.is_tracked();
    let outside = matrix.clone().without_autodiff();
    let step = (LARGEST_BLOCK / cells.max(1)).clamp(1, rows.max(1));
    let (mut values, mut slopes) = (Vec::new(), Vec::new());
    for start in (0..rows).step_by(step) {
        let block = outside.clone().narrow(0, start, step.min(rows - start));
        if tracked {
            let block = block.autodiff().require_grad();
            let found = value(start, block.clone());
            let gradients = found.clone().sum().backward();
            let none = || block.clone().without_autodiff().zeros_like();
            slopes.push(block.grad(&gradients).unwrap_or_else(none));
            values.push(found.without_autodiff());
        } else {
            values.push(value(start, block));
        }
    }
    let values = Tensor::cat(values, 0);
    if !tracked {
        return values;
    }
    // `slopes - slopes` adds nothing to the values but carries the gradient.
    let slopes = (matrix.clone() * Tensor::cat(slopes, 0)).sum_dim(1);
    slopes.clone() - slopes.without_autodiff() + values
}

/// The similarities of a ranking that the anchor itself heads, and who is relevant in it.
pub(super) struct Ranking {
    /// `[anchors, references + 1]`: 1 where an item is relevant, the anchor itself last.
    pub(super) relevant: Tensor<2>,
    /// The same shape: 1 where an item is not relevant.
    pub(super) irrelevant: Tensor<2>,
    /// `[anchors, width]`: positions of the relevant items, padded.
    positions: Tensor<2, Int>,
    /// `[anchors, width]`: how relevant they are, 0 for padding.
    pub(super) weights: Tensor<2>,
    /// `[anchors, 1]`: 1 for anchors with a relevant item besides themselves.
    pub(super) exists: Tensor<2>,
}

impl Ranking {
    /// The ranking of a comparison; the anchor itself is relevant if `with_self`, else it is not looked at.
    pub(super) fn of(pairs: &PairWeights, with_self: bool) -> Self {
        let [rows, columns] = pairs.positive.dims();
        let own = f32::from(u8::from(with_self));
        let listed: Vec<Vec<(usize, f32)>> = pairs
            .positive_host
            .chunks(columns)
            .map(|row| {
                let others = row.iter().copied().enumerate().filter(|(_, weight)| *weight > 0.0);
                others.chain(with_self.then_some((columns, 1.0))).collect()
            })
            .collect();
        let width = listed.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut positions, mut weights) = (vec![0_i64; rows * width], vec![0.0_f32; rows * width]);
        for (row, listed) in listed.iter().enumerate() {
            for (slot, &(position, weight)) in listed.iter().enumerate() {
                positions[row * width + slot] = position as i64;
                weights[row * width + slot] = weight;
            }
        }
        let options = (&pairs.positive.device().inner(), pairs.positive.dtype());
        let itself = Tensor::<2>::full([rows, 1], own, options);
        let exists = pairs
            .positive_counts
            .iter()
            .map(|&count| f64::from(u8::from(count > 0.0)));
        Self {
            relevant: Tensor::cat(vec![once(&pairs.positive), itself.clone()], 1),
            irrelevant: Tensor::cat(vec![once(&pairs.negative), itself.zeros_like()], 1),
            positions: Tensor::from_data(TensorData::new(positions, [rows, width]), options.0),
            weights: Tensor::from_data(TensorData::new(weights, [rows, width]), options),
            exists: crate::batch::column(exists.collect(), &pairs.positive),
        }
    }

    /// Numbers a row needs to compare its relevant items with all.
    pub(super) fn cells(&self) -> usize {
        let ([_, columns], [_, width]) = (self.relevant.dims(), self.weights.dims());
        2 * columns * width
    }

    /// Rows of a matrix of this ranking that belong to a block, `[block, columns]`.
    pub(super) fn block(matrix: &Tensor<2>, start: usize, length: usize) -> Tensor<2> {
        matrix.clone().narrow(0, start, length)
    }

    /// `similarity(j) - similarity(i)` over the temperature, of all items `j` and relevant items `i`:
    /// `[block, width, columns]`.
    pub(super) fn ahead(&self, start: usize, block: Tensor<2>, temperature: f64) -> Tensor<3> {
        let [length, _] = block.dims();
        let itself = block.clone().narrow(1, 0, 1).mul_scalar(0.0).add_scalar(1.0);
        let all = Tensor::cat(vec![block, itself], 1); // [block, columns]
        let positions = self.positions.clone().narrow(0, start, length);
        let relevant = all.clone().gather(1, positions); // [block, width]
        (all.unsqueeze_dim::<3>(1) - relevant.unsqueeze_dim::<3>(2)).mul_scalar(temperature.recip())
    }

    /// The mean of values of relevant items `[block, width]` by their weights, `[block, 1]`.
    pub(super) fn mean(&self, start: usize, values: Tensor<2>) -> Tensor<2> {
        let [length, _] = values.dims();
        let weights = Self::block(&self.weights, start, length);
        ratio((values * weights.clone()).sum_dim(1), weights.sum_dim(1))
    }
}

/// How many items of a set are ahead, softly: sums of `ahead` `[block, width, columns]` over the items of `set`
/// `[block, columns]`, `[block, width]`.
pub(super) fn count_of(ahead: Tensor<3>, set: Tensor<2>) -> Tensor<2> {
    (ahead * set.unsqueeze_dim::<3>(1)).sum_dim(2).squeeze_dim::<2>(2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    fn tracked(values: &[f32], shape: [usize; 2]) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), shape);
        Tensor::from_data(data, &Device::flex().autodiff()).require_grad()
    }

    fn host(x: &Tensor<2>) -> Vec<f32> {
        x.try_to_vec_as::<f32>().expect("floats")
    }

    #[test]
    fn values_and_slopes_do_not_depend_on_blocks() {
        let numbers: Vec<f32> = (0..12).map(|i| (i as f32).sin()).collect();
        let found: Vec<_> = [1, LARGEST_BLOCK / 2, usize::MAX]
            .into_iter()
            .map(|cells| {
                let leaf = tracked(&numbers, [4, 3]);
                let value = by_rows(&leaf, cells, |_, block| block.exp().sum_dim(1).square());
                let weights = Tensor::from_data([[1.0], [2.0], [3.0], [4.0]], &Device::flex());
                let slopes = leaf.grad(&(value.clone() * weights).sum().backward()).expect("tracked");
                (host(&value), host(&slopes))
            })
            .collect();
        assert_eq!(found[0], found[1]);
        assert_eq!(found[0], found[2]);
        for (row, value) in found[0].0.iter().enumerate() {
            let sum: f32 = numbers[row * 3..][..3].iter().map(|x| x.exp()).sum();
            assert!((value / sum.powi(2) - 1.0).abs() < 1e-5);
            let slope = 2.0 * (row + 1) as f32 * sum * numbers[row * 3].exp();
            assert!((found[0].1[row * 3] / slope - 1.0).abs() < 1e-5);
        }
    }

    #[test]
    fn nothing_is_no_summand() {
        let none = f32::NEG_INFINITY;
        let (x, y) = (tracked(&[1.0, none, none], [3, 1]), tracked(&[2.0, 3.0, none], [3, 1]));
        let sum = log_add_exp(x.clone(), y.clone(), [3, 1]);
        let expected = [(1.0f32.exp() + 2.0f32.exp()).ln(), 3.0, 0.0];
        for (found, expected) in host(&sum).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6);
        }
        let gradients = sum.sum().backward();
        let slopes = [x, y].map(|leaf| host(&leaf.grad(&gradients).expect("tracked")));
        let share = 1.0 / (1.0 + 1.0f32.exp());
        for (found, expected) in slopes.concat().iter().zip([share, 0.0, 0.0, 1.0 - share, 1.0, 0.0]) {
            assert!((found - expected).abs() < 1e-6, "{slopes:?}");
        }
    }
}
