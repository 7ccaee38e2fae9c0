//! Sums of powers of differences between the rows of two matrices, which plain Burn can only do with a matrix per axis.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::memory::{tensor, values};
use crate::options::own_kernels_apply;

/// Differences up to this count as none, with slope 0.
const EPSILON: f32 = 1e-12;

/// The operation on primitives.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait PowerSums: Backend {
    fn power_sums(a: FloatTensor<Self>, b: FloatTensor<Self>, p: f64) -> FloatTensor<Self>;
}

/// `sum_k |a_ik - b_jk|^p` in memory of the inputs and the result. None if the kernels do not apply.
///
/// # Shapes
/// `a` `[n, dim]`, `b` `[m, dim]`; the result `[n, m]`.
///
/// # Panics
/// If the widths differ.
#[must_use]
pub fn power_sums(a: &Tensor<2>, b: &Tensor<2>, p: f64) -> Option<Tensor<2>> {
    let ([n, dim], [m, other]) = (a.dims(), b.dims());
    assert_eq!(dim, other, "power_sums: rows of different width");
    let applies = own_kernels_apply(&a.device(), &[a.dtype(), b.dtype()]) && n * m * dim > 0;
    applies.then(|| {
        let alike = |x: &Tensor<2>, y: &Tensor<2>| match y.is_autodiff() {
            true => x.clone().autodiff(),
            false => x.clone(),
        };
        let (a, b) = (alike(a, b).into_dispatch(), alike(b, a).into_dispatch());
        Tensor::from_dispatch(Dispatch::power_sums(a, b, p))
    })
}

fn width(x: &FlexTensor) -> usize {
    let [_, width] = x.shape().dims();
    width
}

/// Calls `work` with `|t|^p` or its slope, the common exponents in forms that vectors can take.
macro_rules! with_power {
    ($p:expr, |$power:ident, $slope:ident| $work:expr) => {{
        let p = $p as f32;
        if p == 1.0 {
            let $power = |t: f32| t.abs();
            let $slope = |t: f32| if t.abs() <= EPSILON { 0.0 } else { 1.0_f32.copysign(t) };
            $work
        } else if p == 3.0 {
            let $power = |t: f32| t.abs() * t * t;
            let $slope = |t: f32| 3.0 * t.abs() * t;
            $work
        } else if p == 4.0 {
            let $power = |t: f32| (t * t) * (t * t);
            let $slope = |t: f32| 4.0 * t * t * t;
            $work
        } else {
            let $power = |t: f32| if t.abs() <= EPSILON { 0.0 } else { t.abs().powf(p) };
            let $slope = |t: f32| {
                if t.abs() <= EPSILON {
                    0.0
                } else {
                    (p * t.abs().powf(p - 1.0)).copysign(t)
                }
            };
            $work
        }
    }};
}

/// Sum of a function of differences of two rows, in lanes that vectors can hold.
#[inline(always)]
fn sum(a: &[f32], b: &[f32], power: impl Fn(f32) -> f32) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    let (a_parts, a_rest) = a.as_chunks::<LANES>();
    let (b_parts, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_parts.iter().zip(b_parts) {
        for lane in 0..LANES {
            lanes[lane] += power(a[lane] - b[lane]);
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| power(a - b)).sum();
    lanes.iter().sum::<f32>() + rest
}

fn forward(a: &FlexTensor, b: &FlexTensor, p: f64) -> FlexTensor {
    let (a, b) = (a.to_contiguous(), b.to_contiguous());
    let (dim, source, other) = (width(&a), values(&a), values(&b));
    let (rows, columns) = (source.len() / dim, other.len() / dim);
    let mut sums = vec![0.0; rows * columns];
    with_power!(p, |power, _slope| {
        let tasks = sums.par_chunks_mut(columns).zip(source.par_chunks(dim));
        tasks.for_each(|(sums, row)| {
            for (value, other) in sums.iter_mut().zip(other.chunks(dim)) {
                *value = sum(row, other, power);
            }
        });
    });
    tensor(sums, &[rows, columns])
}

/// Slopes of `of`'s rows, given `gradient(row of it, row of the other)`.
fn slopes(of: &FlexTensor, other: &FlexTensor, p: f64, gradient: impl Fn(usize, usize) -> f32 + Sync) -> FlexTensor {
    let (dim, source, other) = (width(of), values(of), values(other));
    let mut found = vec![0.0; source.len()];
    with_power!(p, |_power, slope| {
        let tasks = found.par_chunks_mut(dim).zip(source.par_chunks(dim)).enumerate();
        tasks.for_each(|(row, (found, entries))| {
            for (position, other) in other.chunks(dim).enumerate() {
                let gradient = gradient(row, position);
                if gradient == 0.0 {
                    continue;
                }
                for ((found, entry), other) in found.iter_mut().zip(entries).zip(other) {
                    *found += gradient * slope(entry - other);
                }
            }
        });
    });
    tensor(found, &of.shape().to_vec())
}

impl PowerSums for Flex {
    fn power_sums(a: FlexTensor, b: FlexTensor, p: f64) -> FlexTensor {
        forward(&a, &b, p)
    }
}

/// Backward pass of the sums of powers.
#[derive(Debug)]
struct Sums;

impl Backward<Flex, 2> for Sums {
    type State = (FlexTensor, FlexTensor, f64);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (columns, gradient) = (width(&gradient), values(&gradient));
        let (a, b, p) = ops.state;
        let (a, b) = (a.to_contiguous(), b.to_contiguous());
        let [of_a, of_b] = ops.parents;
        if let Some(node) = of_a {
            let found = slopes(&a, &b, p, |row, other| gradient[row * columns + other]);
            grads.register::<Flex>(node.id, found);
        }
        if let Some(node) = of_b {
            let found = slopes(&b, &a, p, |row, other| gradient[other * columns + row]);
            grads.register::<Flex>(node.id, found);
        }
    }
}

type Tracked = FloatTensor<Autodiff<Flex>>;

impl<C: CheckpointStrategy> PowerSums for Autodiff<Flex, C> {
    fn power_sums(a: Tracked, b: Tracked, p: f64) -> Tracked {
        let found = forward(a.primitive(), b.primitive(), p);
        match Sums.prepare::<C>([a.node(), b.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let state = (a.primitive().clone(), b.primitive().clone(), p);
                prepared.finish(state, found)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(found),
        }
    }
}
