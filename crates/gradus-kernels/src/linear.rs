//! A linear layer as one operation: a product and a bias forward, the gradient of the weight in the order of the weight.
//!
//! In plain Burn the gradient of `x wᵀ` with respect to `w` comes out transposed and is turned round in a pass of its own, and the
//! bias costs one pass forward and one backward. For a head on stored features that is more than the products.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use crate::dense::{Matrix, multiply};
use crate::memory::{Output, SharedPointer, tensor, values};
use crate::options::own_kernels_apply;

/// The operation on primitives.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait LinearKernel: Backend {
    fn linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// `x weightᵀ + bias`.
///
/// # Shapes
/// `x` `[rows, inputs]`, `weight` `[outputs, inputs]`, `bias` `[outputs]`; the result `[rows, outputs]`.
///
/// # Panics
/// If the shapes do not fit.
#[must_use]
pub fn linear(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let ([rows, inputs], [outputs, expected], [biases]) = (x.dims(), weight.dims(), bias.dims());
    assert!(
        inputs == expected && outputs == biases,
        "linear: {inputs} inputs and {biases} biases do not fit a weight of {outputs} x {expected}"
    );
    let dtypes = [x.dtype(), weight.dtype(), bias.dtype()];
    if rows * inputs * outputs == 0 || !own_kernels_apply(&x.device(), &dtypes) {
        return x.matmul(weight.transpose()) + bias.unsqueeze::<2>();
    }
    Tensor::from_dispatch(Dispatch::linear(
        x.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
    ))
}

/// Columns of a product that one task computes.
const BLOCK: usize = 64;
/// Multiplications below which a product is one task.
const SMALL: usize = 1 << 18;

/// `left right`, `[m, k]` times `[k, n]`; a matrix is given by its values and the steps between its rows and columns. The columns
/// are shared among threads: the matrices of a head are wide and few rows high, which a product that shares rows does slowly.
fn product(
    [m, n, k]: [usize; 3],
    (left, left_steps): (&[f32], [usize; 2]),
    (right, right_steps): (&[f32], [usize; 2]),
) -> FlexTensor {
    assert!(left.len() == m * k && right.len() == k * n, "matrices of another size");
    let mut output = Output::new(m * n);
    let target = output.pointer();
    let (left, right) = (SharedPointer::source(left), SharedPointer::source(right));
    let block = if m * n * k < SMALL { n } else { BLOCK };
    let task = |index: usize| {
        let first = index * block;
        let columns = block.min(n - first);
        // SAFETY: both matrices are whole, as asserted; the tasks write disjoint columns of the target, each all of its own.
        unsafe {
            multiply(
                [m, columns, k],
                target.at(first),
                n,
                false,
                Matrix(left.at(0), left_steps[0], left_steps[1]),
                Matrix(right.at(first * right_steps[1]), right_steps[0], right_steps[1]),
                gemm::Parallelism::None,
            );
        }
    };
    match n.div_ceil(block) {
        1 => task(0),
        tasks => (0..tasks).into_par_iter().for_each(task),
    }
    // SAFETY: the tasks have written every column.
    let values = unsafe { output.finish() };
    tensor(values, &[m, n])
}

fn forward(x: &FlexTensor, weight: &FlexTensor, bias: &FlexTensor) -> FlexTensor {
    let [rows, outputs, inputs] = extents(x, weight);
    let mut found = product(
        [rows, outputs, inputs],
        (values(x), [inputs, 1]),
        (values(weight), [1, inputs]),
    );
    let bias = bias.to_contiguous();
    let bias = values(&bias);
    for row in found.storage_mut::<f32>().chunks_exact_mut(outputs) {
        row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
    }
    found
}

/// Rows, outputs, inputs.
fn extents(x: &FlexTensor, weight: &FlexTensor) -> [usize; 3] {
    let (x, weight) = (x.shape().to_vec(), weight.shape().to_vec());
    [x[0], weight[0], x[1]]
}

/// The sum of the rows, `[columns]`.
fn column_sums(gradient: &FlexTensor, columns: usize) -> FlexTensor {
    let mut sums = vec![0.0f32; columns];
    for row in values(gradient).chunks_exact(columns) {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    tensor(sums, &[columns])
}

impl LinearKernel for Flex {
    fn linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        forward(&x.to_contiguous(), &weight.to_contiguous(), &bias)
    }
}

/// Backward pass, for `x`, weight and bias where they are tracked.
#[derive(Debug)]
struct Linear;

impl Backward<Flex, 3> for Linear {
    /// `x` and weight, row by row.
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [for_x, for_weight, for_bias] = ops.parents;
        let [x, weight] = ops.state;
        let [rows, outputs, inputs] = extents(&x, &weight);
        if let Some(node) = for_bias {
            grads.register::<Flex>(node.id, column_sums(&gradient, outputs));
        }
        if let Some(node) = for_weight {
            let slope = product(
                [outputs, inputs, rows],
                (values(&gradient), [1, outputs]),
                (values(&x), [inputs, 1]),
            );
            grads.register::<Flex>(node.id, slope);
        }
        if let Some(node) = for_x {
            let slope = product(
                [rows, inputs, outputs],
                (values(&gradient), [outputs, 1]),
                (values(&weight), [inputs, 1]),
            );
            grads.register::<Flex>(node.id, slope);
        }
    }
}

type Tracked = FloatTensor<Autodiff<Flex>>;

impl<C: CheckpointStrategy> LinearKernel for Autodiff<Flex, C> {
    fn linear(x: Tracked, weight: Tracked, bias: Tracked) -> Tracked {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [x, weight] = [x, weight].map(|x| x.into_primitive().to_contiguous());
        let found = forward(&x, &weight, bias.primitive());
        match Linear.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish([x, weight], found),
            OpsKind::UnTracked(prepared) => prepared.finish(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn draw<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1u64 << 24) as f32) - 0.5
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| next()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn host<const D: usize>(x: Tensor<D>) -> Vec<f32> {
        x.try_into_vec_as::<f32>().unwrap()
    }

    #[test]
    fn value_and_all_gradients_agree_with_plain_operations() {
        let device = Device::flex().autodiff();
        for [rows, inputs, outputs] in [[1, 1, 1], [7, 5, 3], [3, 33, 70], [65, 130, 17]] {
            let run = |own: bool| {
                let x = draw([rows, inputs], 3, &device).require_grad();
                let weight = draw([outputs, inputs], 5, &device).require_grad();
                let bias = draw([outputs], 7, &device).require_grad();
                let found = if own {
                    linear(x.clone(), weight.clone(), bias.clone())
                } else {
                    x.clone().matmul(weight.clone().transpose()) + bias.clone().unsqueeze::<2>()
                };
                let gradients = (found.clone() * draw([rows, outputs], 9, &device)).sum().backward();
                let mut all = host(found);
                all.extend(host(x.grad(&gradients).unwrap()));
                all.extend(host(weight.grad(&gradients).unwrap()));
                all.extend(host(bias.grad(&gradients).unwrap()));
                all
            };
            let (own, plain) = (run(true), run(false));
            assert_eq!(own.len(), plain.len());
            for (a, b) in own.iter().zip(&plain) {
                assert!((a - b).abs() < 1e-4, "{rows} x {inputs} -> {outputs}: {a} against {b}");
            }
        }
    }

    #[test]
    fn untracked_inputs_get_no_gradient_and_transposed_ones_are_read_right() {
        let device = Device::flex().autodiff();
        let x = draw([4, 6], 1, &device).transpose();
        let weight = draw([5, 4], 2, &device).require_grad();
        let bias = draw([5], 3, &device);
        let found = linear(x.clone(), weight.clone(), bias.clone());
        let plain = x.clone().matmul(weight.clone().transpose()) + bias.unsqueeze::<2>();
        let gradients = found.clone().sum().backward();
        assert!(x.grad(&gradients).is_none());
        let slope = host(weight.grad(&gradients).unwrap());
        let expected = host(x.sum_dim(0).expand([5, 4]));
        for (a, b) in host(found).iter().zip(&host(plain)).chain(slope.iter().zip(&expected)) {
            assert!((a - b).abs() < 1e-5, "{a} against {b}");
        }
    }

    #[test]
    #[should_panic(expected = "3 inputs and 2 biases do not fit a weight of 2 x 4")]
    fn refuses_shapes_that_do_not_fit() {
        let device = Device::flex();
        let _ = linear(
            draw([2, 3], 1, &device),
            draw([2, 4], 2, &device),
            draw([2], 3, &device),
        );
    }
}
