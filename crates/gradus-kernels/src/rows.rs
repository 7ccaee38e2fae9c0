//! Operations of losses on the rows of a matrix, each in one pass forward and one backward, rows shared among threads.
//!
//! Plain Burn makes a pass over memory, on one thread, of every step of a formula. The functions here return nothing where
//! they do not apply, so that the plain formula stays with its caller.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::memory::{tensor, values};
use crate::options::own_kernels_apply;

/// Numbers that one task gets at least.
const TASK: usize = 1 << 14;

/// The row operations on primitives; matrices are `[rows, columns]`.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait RowKernels: Backend {
    fn gram(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn unit_rows(x: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self>;
    fn elementwise(x: FloatTensor<Self>, function: Elementwise) -> FloatTensor<Self>;
    fn log_sum_exp_rows(x: FloatTensor<Self>, weights: FloatTensor<Self>, one_more: bool) -> FloatTensor<Self>;
    /// Sum and count.
    fn bounded_sum(
        x: FloatTensor<Self>,
        weights: FloatTensor<Self>,
        bounds: [f64; 2],
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

/// A function of every number alone.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Elementwise {
    SafeRoot(f32),
    Softplus,
    Gelu,
    Silu,
}

fn apply<const D: usize>(x: &[&Tensor<D>]) -> bool {
    let dtypes: Vec<_> = x.iter().map(|x| x.dtype()).collect();
    own_kernels_apply(&x[0].device(), &dtypes) && x.iter().all(|x| x.dims().iter().all(|&extent| extent > 0))
}

/// Products of all rows, `x x^T`, whose backward pass takes one matrix product instead of two: `(g + g^T) x`.
///
/// # Shapes
/// `x` `[rows, dim]`; the result `[rows, rows]`. None if the kernels do not apply.
#[must_use]
pub fn gram(x: &Tensor<2>) -> Option<Tensor<2>> {
    apply(&[x]).then(|| Tensor::from_dispatch(Dispatch::gram(x.clone().into_dispatch())))
}

/// Rows over their Euclidean length; a row whose entries are all smaller than `epsilon` becomes 0 with gradient 0.
///
/// # Shapes
/// `x` `[rows, dim]`; the result too. None if the kernels do not apply.
#[must_use]
pub fn unit_rows(x: &Tensor<2>, epsilon: f64) -> Option<Tensor<2>> {
    apply(&[x]).then(|| Tensor::from_dispatch(Dispatch::unit_rows(x.clone().into_dispatch(), epsilon)))
}

/// Square root that is 0 with gradient 0 at and below `epsilon`. None if the kernels do not apply.
#[must_use]
pub fn safe_root<const D: usize>(x: &Tensor<D>, epsilon: f64) -> Option<Tensor<D>> {
    elementwise(x, Elementwise::SafeRoot(epsilon as f32))
}

/// `log(1 + exp(x))`. None if the kernels do not apply.
#[must_use]
pub fn softplus<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    elementwise(x, Elementwise::Softplus)
}

/// `x Φ(x)`, Φ the distribution function of the standard normal. None if the kernels do not apply.
#[must_use]
pub fn gelu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    elementwise(x, Elementwise::Gelu)
}

/// `x / (1 + exp(-x))`. None if the kernels do not apply.
#[must_use]
pub fn silu<const D: usize>(x: &Tensor<D>) -> Option<Tensor<D>> {
    elementwise(x, Elementwise::Silu)
}

fn elementwise<const D: usize>(x: &Tensor<D>, function: Elementwise) -> Option<Tensor<D>> {
    apply(&[x]).then(|| Tensor::from_dispatch(Dispatch::elementwise(x.clone().into_dispatch(), function)))
}

/// `log(sum(weight exp(x)))` of each row, or `log(1 + sum(weight exp(x)))` with `one_more`.
///
/// Entries without weight are not looked at. A row without weights is minus infinity, or 0 with `one_more`, with gradient 0.
///
/// # Shapes
/// `x` and `weights` (outside autodiff) `[rows, columns]`; the result `[rows, 1]`. None if the kernels do not apply.
///
/// # Panics
/// If the shapes differ.
#[must_use]
pub fn log_sum_exp_rows(x: &Tensor<2>, weights: &Tensor<2>, one_more: bool) -> Option<Tensor<2>> {
    assert_eq!(x.dims(), weights.dims(), "values and their weights");
    apply(&[x, weights]).then(|| {
        let (x, weights) = (x.clone().into_dispatch(), alike(x, weights).into_dispatch());
        Tensor::from_dispatch(Dispatch::log_sum_exp_rows(x, weights, one_more))
    })
}

/// The sum of values times weights, `[1]`, and the sum of the weights, `[1]` outside autodiff, over the values strictly
/// between two bounds; infinite bounds for none. Values without weight are not looked at; one that is not a number counts.
///
/// # Shapes
/// `x` and `weights` (outside autodiff) of one shape. None if the kernels do not apply.
///
/// # Panics
/// If the shapes differ.
#[must_use]
pub fn bounded_sum<const D: usize>(
    x: &Tensor<D>,
    weights: &Tensor<D>,
    bounds: [f64; 2],
) -> Option<(Tensor<1>, Tensor<1>)> {
    assert_eq!(x.dims(), weights.dims(), "values and their weights");
    apply(&[x, weights]).then(|| {
        let (x, weights) = (x.clone().into_dispatch(), alike(x, weights).into_dispatch());
        let (sum, count) = Dispatch::bounded_sum(x, weights, bounds);
        (
            Tensor::from_dispatch(sum),
            Tensor::from_dispatch(count).without_autodiff(),
        )
    })
}

/// `weights` on the device of `x`, which may have autodiff.
fn alike<const D: usize>(x: &Tensor<D>, weights: &Tensor<D>) -> Tensor<D> {
    let weights = weights.clone().without_autodiff();
    if x.is_autodiff() { weights.autodiff() } else { weights }
}

/// Sum of a function of numbers, in lanes that vectors can hold.
#[inline(always)]
fn sum(length: usize, value: impl Fn(usize) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    for start in (0..length / LANES * LANES).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += value(start + lane);
        }
    }
    let rest: f32 = (length / LANES * LANES..length).map(&value).sum();
    lanes.iter().sum::<f32>() + rest
}

fn columns_of(x: &FlexTensor) -> usize {
    let [_, columns] = x.shape().dims();
    columns
}

/// Rows of a task.
fn step(columns: usize) -> usize {
    TASK.div_ceil(columns.max(1))
}

fn products(x: FlexTensor) -> FlexTensor {
    let transposed = Flex::float_transpose(x.clone());
    Flex::float_matmul(x, transposed)
}

/// `x + x^T` of a square matrix, block by block, so that columns are read while they are near.
fn plus_transpose(x: &FlexTensor) -> FlexTensor {
    const BLOCK: usize = 32;
    let x = x.to_contiguous();
    let (source, size) = (values(&x), columns_of(&x));
    let mut sums = source.to_vec();
    let stripes = sums.par_chunks_mut(BLOCK * size).enumerate();
    stripes.for_each(|(stripe, sums)| {
        for first in (0..size).step_by(BLOCK) {
            let columns = first..(first + BLOCK).min(size);
            for (row, sums) in sums.chunks_mut(size).enumerate() {
                let own = stripe * BLOCK + row;
                for column in columns.clone() {
                    sums[column] += source[column * size + own];
                }
            }
        }
    });
    tensor(sums, &[size, size])
}

/// Unit rows, and what each row was multiplied with: 0 for a zero row.
fn normalised(x: &FlexTensor, epsilon: f64) -> (FlexTensor, Vec<f32>) {
    let x = x.to_contiguous();
    let columns = columns_of(&x);
    let rows = step(columns);
    let mut unit = values(&x).to_vec();
    let mut factors = vec![0.0; unit.len() / columns];
    let tasks = unit.par_chunks_mut(rows * columns).zip(factors.par_chunks_mut(rows));
    tasks.for_each(|(unit, factors)| {
        for (row, factor) in unit.chunks_mut(columns).zip(factors) {
            *factor = normalise(row, epsilon as f32);
        }
    });
    (tensor(unit, &x.shape().to_vec()), factors)
}

fn normalise(row: &mut [f32], epsilon: f32) -> f32 {
    let squares = sum(row.len(), |at| row[at] * row[at]);
    let mut factor = squares.sqrt().recip();
    if !(1e-20..1e30).contains(&squares) && !squares.is_nan() {
        // Squares would overflow or vanish: rows are scaled by their largest entry first.
        let largest = row.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
        if largest < epsilon {
            row.fill(0.0);
            return 0.0;
        }
        row.iter_mut().for_each(|value| *value /= largest);
        let length = sum(row.len(), |at| row[at] * row[at]).sqrt();
        row.iter_mut().for_each(|value| *value /= length);
        return (largest * length).recip();
    }
    if squares.is_nan() {
        factor = f32::NAN;
    }
    row.iter_mut().for_each(|value| *value *= factor);
    factor
}

impl Elementwise {
    /// The value and, if asked for, the slope of each number.
    fn of(self, x: &FlexTensor, with_slopes: bool) -> (FlexTensor, Option<FlexTensor>) {
        match self {
            Self::SafeRoot(epsilon) => map(x, with_slopes, |x| {
                let root = x.sqrt();
                if x <= epsilon { [0.0, 0.0] } else { [root, 0.5 / root] }
            }),
            Self::Softplus => map(x, with_slopes, |x| {
                let small = (-x.abs()).exp();
                let value = x.max(0.0) + small.ln_1p();
                let value = if x.is_nan() { x } else { value };
                [value, if x < 0.0 { small } else { 1.0 } / (1.0 + small)]
            }),
            // Without slopes there is no exponential, and the loop is one of vectors.
            Self::Gelu if !with_slopes => map(x, false, |x| [x * below(x), 0.0]),
            Self::Gelu => map(x, true, |x| {
                let density =
                    (-0.5 * x * x).exp() * (0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2);
                [x * below(x), below(x) + x * density]
            }),
            Self::Silu => map(x, with_slopes, |x| {
                let share = 1.0 / (1.0 + (-x).exp());
                [x * share, share + x * share * (1.0 - share)]
            }),
        }
    }
}

/// The distribution function of the standard normal, to 2e-7: `(1 + erf(x / sqrt(2))) / 2`, erf as a quotient of polynomials.
#[inline(always)]
fn below(x: f32) -> f32 {
    // Coefficients of XLA's and Eigen's single-precision erf, of which the tests check the error.
    const ABOVE: [f32; 7] = [
        -2.726_142_3e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_5e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const UNDER: [f32; 5] = [
        -1.456_607_2e-5,
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329e-3,
        -1.426_473_9e-2,
    ];
    let z = (x * std::f32::consts::FRAC_1_SQRT_2).clamp(-4.0, 4.0);
    let square = z * z;
    let horner = |coefficients: &[f32]| {
        coefficients
            .iter()
            .fold(0.0, |sum, coefficient| sum * square + coefficient)
    };
    let erf = z * horner(&ABOVE) / horner(&UNDER);
    // At the ends exactly 0 and 1, so that a large negative number becomes 0.
    let erf = if z.abs() >= 4.0 { z.signum() } else { erf };
    0.5 + 0.5 * erf
}

fn map(
    x: &FlexTensor,
    with_slopes: bool,
    function: impl Fn(f32) -> [f32; 2] + Sync,
) -> (FlexTensor, Option<FlexTensor>) {
    let x = x.to_contiguous();
    let shape = x.shape().to_vec();
    let mut found = values(&x).to_vec();
    if !with_slopes {
        found
            .par_chunks_mut(TASK)
            .for_each(|chunk| chunk.iter_mut().for_each(|x| [*x, _] = function(*x)));
        return (tensor(found, &shape), None);
    }
    let mut slopes = vec![0.0; found.len()];
    let tasks = found.par_chunks_mut(TASK).zip(slopes.par_chunks_mut(TASK));
    tasks.for_each(|(found, slopes)| {
        for (x, slope) in found.iter_mut().zip(slopes) {
            [*x, *slope] = function(*x);
        }
    });
    (tensor(found, &shape), Some(tensor(slopes, &shape)))
}

/// The values of the rows and the slopes of their entries.
fn log_sums(x: &FlexTensor, weights: &FlexTensor, one_more: bool) -> (FlexTensor, FlexTensor) {
    let (x, weights) = (x.to_contiguous(), weights.to_contiguous());
    let columns = columns_of(&x);
    let rows = step(columns);
    let mut slopes = values(&x).to_vec();
    let mut sums = vec![0.0; slopes.len() / columns];
    let tasks = slopes
        .par_chunks_mut(rows * columns)
        .zip(values(&weights).par_chunks(rows * columns))
        .zip(sums.par_chunks_mut(rows));
    tasks.for_each(|((slopes, weights), sums)| {
        let rows = slopes.chunks_mut(columns).zip(weights.chunks(columns));
        for ((row, weights), value) in rows.zip(sums) {
            *value = log_sum(row, weights, one_more);
        }
    });
    let shape = x.shape().to_vec();
    (tensor(sums, &[shape[0], 1]), tensor(slopes, &shape))
}

/// Overwrites a row with its slopes.
fn log_sum(row: &mut [f32], weights: &[f32], one_more: bool) -> f32 {
    let floor = if one_more { 0.0 } else { f32::NEG_INFINITY };
    let present = row.iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
    let largest = present.fold(floor, |largest, (value, _)| largest.max(*value));
    if largest == f32::NEG_INFINITY && !row.iter().zip(weights).any(|(x, weight)| *weight > 0.0 && x.is_nan()) {
        row.fill(0.0);
        return largest;
    }
    for (value, weight) in row.iter_mut().zip(weights) {
        *value = if *weight > 0.0 {
            weight * (*value - largest).exp()
        } else {
            0.0
        };
    }
    let total = sum(row.len(), |at| row[at]);
    let (whole, value) = if one_more {
        // log(exp(-largest) + total) + largest, written so that a small sum keeps its digits.
        let one = (-largest).exp();
        (total + one, (total + (one - 1.0)).ln_1p() + largest)
    } else {
        (total, total.ln() + largest)
    };
    let over = whole.recip();
    row.iter_mut().for_each(|value| *value *= over);
    value
}

fn is_outside(value: f32, [low, high]: [f32; 2]) -> bool {
    value <= low || value >= high
}

/// Sum and count.
fn sums(x: &FlexTensor, weights: &FlexTensor, bounds: [f64; 2]) -> (FlexTensor, FlexTensor) {
    let (x, weights) = (x.to_contiguous(), weights.to_contiguous());
    let bounds = bounds.map(|bound| bound as f32);
    let parts: Vec<[f64; 2]> = values(&x)
        .par_chunks(TASK)
        .zip(values(&weights).par_chunks(TASK))
        .map(|(x, weights)| {
            // Few enough for single precision inside, many enough for double outside.
            let rows = x.chunks(256).zip(weights.chunks(256));
            rows.fold([0.0; 2], |[total, count], (x, weights)| {
                let active = |at: usize| if is_outside(x[at], bounds) { 0.0 } else { weights[at] };
                let value = |at: usize| if active(at) == 0.0 { 0.0 } else { x[at] * weights[at] };
                [
                    total + f64::from(sum(x.len(), value)),
                    count + f64::from(sum(x.len(), active)),
                ]
            })
        })
        .collect();
    let part = |index: usize| tensor(vec![parts.iter().map(|part| part[index]).sum::<f64>() as f32], &[1]);
    (part(0), part(1))
}

impl RowKernels for Flex {
    fn gram(x: FlexTensor) -> FlexTensor {
        products(x)
    }

    fn unit_rows(x: FlexTensor, epsilon: f64) -> FlexTensor {
        normalised(&x, epsilon).0
    }

    fn elementwise(x: FlexTensor, function: Elementwise) -> FlexTensor {
        function.of(&x, false).0
    }

    fn log_sum_exp_rows(x: FlexTensor, weights: FlexTensor, one_more: bool) -> FlexTensor {
        log_sums(&x, &weights, one_more).0
    }

    fn bounded_sum(x: FlexTensor, weights: FlexTensor, bounds: [f64; 2]) -> (FlexTensor, FlexTensor) {
        sums(&x, &weights, bounds)
    }
}

/// Backward pass of the products of all rows.
#[derive(Debug)]
struct Gram;

impl Backward<Flex, 1> for Gram {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = plus_transpose(&grads.consume::<Flex>(&ops.node));
        let [Some(node)] = ops.parents else { return };
        grads.register::<Flex>(node.id, Flex::float_matmul(gradient, ops.state));
    }
}

/// Backward pass of unit rows: `(g - y (y . g)) factor`.
#[derive(Debug)]
struct UnitRows;

impl Backward<Flex, 1> for UnitRows {
    type State = (FlexTensor, Vec<f32>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [Some(node)] = ops.parents else { return };
        let (unit, factors) = ops.state;
        let columns = columns_of(&unit);
        let rows = step(columns);
        let mut slopes = values(&gradient).to_vec();
        slopes
            .par_chunks_mut(rows * columns)
            .zip(values(&unit).par_chunks(rows * columns))
            .zip(factors.par_chunks(rows))
            .for_each(|((slopes, unit), factors)| {
                let rows = slopes.chunks_mut(columns).zip(unit.chunks(columns));
                for ((slope, unit), &factor) in rows.zip(factors) {
                    let along = sum(columns, |at| slope[at] * unit[at]);
                    for (slope, unit) in slope.iter_mut().zip(unit) {
                        *slope = (*slope - unit * along) * factor;
                    }
                }
            });
        grads.register::<Flex>(node.id, tensor(slopes, &unit.shape().to_vec()));
    }
}

/// Backward pass where the slope of every entry is known: the gradient of its row, or of itself, times the slope.
#[derive(Debug)]
struct Slopes;

impl<const N: usize> Backward<Flex, N> for Slopes {
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let Some(node) = &ops.parents[0] else { return };
        let gradient = values(&gradient);
        let shape = ops.state.shape().to_vec();
        let mut slopes = values(&ops.state).to_vec();
        // Entries that share a gradient.
        let shared = slopes.len() / gradient.len();
        if shared == 1 {
            let tasks = slopes.par_chunks_mut(TASK).zip(gradient.par_chunks(TASK));
            tasks.for_each(|(slopes, gradient)| {
                let pairs = slopes.iter_mut().zip(gradient);
                pairs.for_each(|(slope, gradient)| *slope *= gradient);
            });
        } else {
            let rows = step(shared);
            let tasks = slopes.par_chunks_mut(rows * shared).zip(gradient.par_chunks(rows));
            tasks.for_each(|(slopes, gradient)| {
                for (row, gradient) in slopes.chunks_mut(shared).zip(gradient) {
                    row.iter_mut().for_each(|slope| *slope *= gradient);
                }
            });
        }
        grads.register::<Flex>(node.id, tensor(slopes, &shape));
    }
}

/// Backward pass of the bounded sum.
#[derive(Debug)]
struct BoundedSum;

impl Backward<Flex, 2> for BoundedSum {
    type State = (FlexTensor, FlexTensor, [f64; 2]);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [Some(node), _] = ops.parents else { return };
        let (x, weights, bounds) = ops.state;
        let gradient = values(&gradient)[0];
        let bounds = bounds.map(|bound| bound as f32);
        let (x, weights) = (x.to_contiguous(), weights.to_contiguous());
        let mut slopes = values(&weights).to_vec();
        let tasks = slopes.par_chunks_mut(TASK).zip(values(&x).par_chunks(TASK));
        tasks.for_each(|(slopes, x)| {
            for (slope, &x) in slopes.iter_mut().zip(x) {
                *slope = if is_outside(x, bounds) || *slope == 0.0 {
                    0.0
                } else {
                    *slope * gradient
                };
            }
        });
        grads.register::<Flex>(node.id, tensor(slopes, &x.shape().to_vec()));
    }
}

type Tracked = FloatTensor<Autodiff<Flex>>;

impl<C: CheckpointStrategy> RowKernels for Autodiff<Flex, C> {
    fn gram(x: Tracked) -> Tracked {
        let found = products(x.primitive().clone());
        match Gram.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(x.into_primitive(), found),
            OpsKind::UnTracked(prepared) => prepared.finish(found),
        }
    }

    fn unit_rows(x: Tracked, epsilon: f64) -> Tracked {
        let (unit, factors) = normalised(x.primitive(), epsilon);
        match UnitRows.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((unit.clone(), factors), unit),
            OpsKind::UnTracked(prepared) => prepared.finish(unit),
        }
    }

    fn elementwise(x: Tracked, function: Elementwise) -> Tracked {
        let (found, slopes) = function.of(x.primitive(), x.is_tracked());
        match (Slopes.prepare::<C>([x.node()]).compute_bound().stateful(), slopes) {
            (OpsKind::Tracked(prepared), Some(slopes)) => prepared.finish(slopes, found),
            (OpsKind::Tracked(_), None) => unreachable!("slopes are computed for tracked tensors"),
            (OpsKind::UnTracked(prepared), _) => prepared.finish(found),
        }
    }

    fn log_sum_exp_rows(x: Tracked, weights: Tracked, one_more: bool) -> Tracked {
        let (found, slopes) = log_sums(x.primitive(), weights.primitive(), one_more);
        let nodes = [x.node(), weights.node()];
        match Slopes.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(slopes, found),
            OpsKind::UnTracked(prepared) => prepared.finish(found),
        }
    }

    fn bounded_sum(x: Tracked, weights: Tracked, bounds: [f64; 2]) -> (Tracked, Tracked) {
        let (sum, count) = sums(x.primitive(), weights.primitive(), bounds);
        let nodes = [x.node(), weights.node()];
        let sum = match BoundedSum.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = (x.primitive().clone(), weights.primitive().clone(), bounds);
                prepared.finish(state, sum)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(sum),
        };
        (sum, Tracked::new(count))
    }
}
