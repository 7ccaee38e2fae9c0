//! The operations as an extension of Burn's backends: on Flex, and on Flex with autodiff.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use burn_flex::FlexTensor;

use crate::convolution;
use crate::geometry::Geometry;
use crate::memory::{overwrite, tensor, values};
use crate::normalization::{self, Planes};
use crate::options::Activation;

/// The operations of this crate on primitives.
#[backend_extension(Flex, Autodiff)]
pub(crate) trait Kernels: Backend {
    fn convolution(x: FloatTensor<Self>, weight: FloatTensor<Self>, geometry: Geometry) -> FloatTensor<Self>;

    fn convolution_with_bias(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        geometry: Geometry,
    ) -> FloatTensor<Self>;

    fn scale_shift(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self>;

    /// Output, mean and biased variance.
    fn batch_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f64,
        activation: Activation,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

fn convolve(x: &FlexTensor, weight: &FlexTensor, bias: Option<&FlexTensor>, geometry: &Geometry) -> FlexTensor {
    let (x, weight, bias) = (
        x.to_contiguous(),
        weight.to_contiguous(),
        bias.map(FlexTensor::to_contiguous),
    );
    let output = convolution::forward(geometry, values(&x), values(&weight), bias.as_ref().map(values));
    tensor(output, &geometry.output_shape())
}

fn planes(x: &FlexTensor) -> Planes {
    Planes::new(x.shape().dims())
}

fn to_single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

fn vector(values: Vec<f32>) -> FlexTensor {
    let length = values.len();
    tensor(values, &[length])
}

fn apply(x: FlexTensor, scale: &[f32], shift: &[f32], activation: Activation) -> FlexTensor {
    let planes = planes(&x);
    // SAFETY: all elements are written, each right after it has been read.
    unsafe {
        overwrite(x, |source, target| {
            normalization::apply(planes, source, target, scale, shift, activation)
        })
    }
}

impl Kernels for Flex {
    fn convolution(x: FlexTensor, weight: FlexTensor, geometry: Geometry) -> FlexTensor {
        convolve(&x, &weight, None, &geometry)
    }

    fn convolution_with_bias(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, geometry: Geometry) -> FlexTensor {
        convolve(&x, &weight, Some(&bias), &geometry)
    }

    fn scale_shift(x: FlexTensor, scale: FlexTensor, shift: FlexTensor, activation: Activation) -> FlexTensor {
        let (scale, shift) = (scale.to_contiguous(), shift.to_contiguous());
        apply(x, values(&scale), values(&shift), activation)
    }

    fn batch_norm(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        epsilon: f64,
        activation: Activation,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let (weight, bias) = (weight.to_contiguous(), bias.to_contiguous());
        // Not a second handle to a contiguous `x`, which would keep it from being overwritten.
        let x = if x.is_contiguous() { x } else { x.to_contiguous() };
        let (mean, variance) = normalization::statistics(planes(&x), values(&x));
        let (mean, variance) = (to_single(&mean), to_single(&variance));
        let (scale, shift) = normalization::fold(&mean, &variance, values(&weight), values(&bias), epsilon);
        (apply(x, &scale, &shift, activation), vector(mean), vector(variance))
    }
}

/// Backward pass of the convolution; parents are the input, the weight and perhaps the bias.
#[derive(Debug)]
struct Convolution;

/// What a convolution keeps: the input if the weight is tracked, the weight if the input is.
type ConvolutionState = (Option<NodeId>, Option<NodeId>, Geometry);

impl<const N: usize> Backward<Flex, N> for Convolution {
    type State = ConvolutionState;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        let (x, weight, geometry) = ops.state;
        let mut retrieve = |node: Option<NodeId>| {
            node.map(|node| checkpointer.retrieve_node_output::<FlexTensor>(node).to_contiguous())
        };
        let (x, weight) = (retrieve(x), retrieve(weight));
        let (x, weight) = (x.as_ref().map(values), weight.as_ref().map(values));
        let (input_gradient, weight_gradient) = convolution::gradients(&geometry, x, weight, values(&gradient));
        let bias = ops.parents.get(2).and_then(Option::as_ref);
        if let Some(bias) = bias {
            grads.register::<Flex>(
                bias.id,
                vector(convolution::bias_gradient(&geometry, values(&gradient))),
            );
        }
        if let (Some(node), Some(input_gradient)) = (&ops.parents[0], input_gradient) {
            grads.register::<Flex>(node.id, tensor(input_gradient, &geometry.input_shape()));
        }
        if let (Some(node), Some(weight_gradient)) = (&ops.parents[1], weight_gradient) {
            grads.register::<Flex>(node.id, tensor(weight_gradient, &geometry.weight_shape()));
        }
    }
}

/// Backward pass of [`Kernels::scale_shift`]; parents are the input, the scale and the shift.
#[derive(Debug)]
struct ScaleShift;

/// What a scale and shift keep.
#[derive(Clone, Debug)]
enum ScaleShiftState {
    /// Scale or shift is tracked: all inputs.
    Tracked {
        x: NodeId,
        scale: FlexTensor,
        shift: FlexTensor,
        activation: Activation,
    },
    /// Only the input is tracked: the output, which the next operation keeps as its input anyway, tells what the
    /// activation let pass; without an activation not even that is needed.
    Frozen {
        output: Option<FlexTensor>,
        scale: FlexTensor,
        activation: Activation,
    },
}

impl Backward<Flex, 3> for ScaleShift {
    type State = ScaleShiftState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node);
        let [x_node, scale_node, shift_node] = ops.parents;
        match ops.state {
            ScaleShiftState::Frozen {
                output,
                scale,
                activation,
            } => {
                let Some(node) = x_node else { return };
                let planes = planes(&gradient);
                let output = output.map(|output| output.to_contiguous());
                let output = output.as_ref().map(values);
                // SAFETY: all elements are written, each right after it has been read.
                let result = unsafe {
                    overwrite(gradient, |source, target| {
                        normalization::propagate_frozen(planes, output, source, target, values(&scale), activation);
                    })
                };
                grads.register::<Flex>(node.id, result);
            }
            ScaleShiftState::Tracked {
                x,
                scale,
                shift,
                activation,
            } => {
                let x = checkpointer.retrieve_node_output::<FlexTensor>(x).to_contiguous();
                let planes = planes(&x);
                let (scale, shift) = (values(&scale), values(&shift));
                let zeros = vec![0.0; planes.channels];
                let gradient = into_contiguous(gradient);
                if scale_node.is_some() || shift_node.is_some() {
                    let (shift_gradient, scale_gradient) = normalization::gradient_moments(
                        planes,
                        values(&x),
                        values(&gradient),
                        [scale, shift, &zeros],
                        activation,
                    );
                    for (node, values) in [(scale_node, scale_gradient), (shift_node, shift_gradient)] {
                        if let Some(node) = node {
                            grads.register::<Flex>(node.id, vector(to_single(&values)));
                        }
                    }
                }
                if let Some(node) = x_node {
                    let coefficients = [scale, shift, &zeros, &zeros];
                    grads.register::<Flex>(node.id, propagate(planes, &x, gradient, coefficients, activation));
                }
            }
        }
    }
}

/// The tensor itself if it is contiguous, without a second handle to it; else a copy.
fn into_contiguous(tensor: FlexTensor) -> FlexTensor {
    let contiguous = tensor.to_contiguous();
    drop(tensor);
    contiguous
}

fn propagate(
    planes: Planes,
    x: &FlexTensor,
    gradient: FlexTensor,
    coefficients: [&[f32]; 4],
    activation: Activation,
) -> FlexTensor {
    // SAFETY: all elements are written, each right after it has been read.
    unsafe {
        overwrite(gradient, |source, target| {
            normalization::propagate(planes, values(x), source, target, coefficients, activation);
        })
    }
}

/// Backward pass of [`Kernels::batch_norm`]; parents are the input, the weight and the bias.
#[derive(Debug)]
struct BatchNorm;

/// What a batch normalisation keeps besides its input.
#[derive(Clone, Debug)]
struct BatchNormState {
    x: NodeId,
    weight: FlexTensor,
    bias: FlexTensor,
    mean: FlexTensor,
    variance: FlexTensor,
    epsilon: f64,
    activation: Activation,
}

impl Backward<Flex, 3> for BatchNorm {
    type State = BatchNormState;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let gradient = into_contiguous(grads.consume::<Flex>(&ops.node));
        let state = ops.state;
        let x = checkpointer.retrieve_node_output::<FlexTensor>(state.x).to_contiguous();
        let planes = planes(&x);
        let (mean, variance) = (values(&state.mean), values(&state.variance));
        let (scale, shift) = normalization::fold(
            mean,
            variance,
            values(&state.weight),
            values(&state.bias),
            state.epsilon,
        );
        let (sums, products) = normalization::gradient_moments(
            planes,
            values(&x),
            values(&gradient),
            [&scale, &shift, mean],
            state.activation,
        );
        let [x_node, weight_node, bias_node] = ops.parents;
        let deviation = |channel: usize| (f64::from(variance[channel]) + state.epsilon).sqrt();
        if let Some(node) = weight_node {
            let gradient = products
                .iter()
                .enumerate()
                .map(|(channel, sum)| (sum / deviation(channel)) as f32);
            grads.register::<Flex>(node.id, vector(gradient.collect()));
        }
        if let Some(node) = bias_node {
            grads.register::<Flex>(node.id, vector(to_single(&sums)));
        }
        if let Some(node) = x_node {
            // dx = scale (g - mean(g) - (x - mean) / (variance + epsilon) mean(g (x - mean))), as a line in x.
            let count = (planes.images * planes.pixels) as f64;
            let line = |channel: usize| {
                let scale = f64::from(scale[channel]);
                let slope = -scale * products[channel] / count / (f64::from(variance[channel]) + state.epsilon);
                let constant = -scale * sums[channel] / count - slope * f64::from(mean[channel]);
                (slope as f32, constant as f32)
            };
            let (slope, constant): (Vec<f32>, Vec<f32>) = (0..planes.channels).map(line).unzip();
            let coefficients: [&[f32]; 4] = [&scale, &shift, &slope, &constant];
            grads.register::<Flex>(node.id, propagate(planes, &x, gradient, coefficients, state.activation));
        }
    }
}

type Tracked = FloatTensor<Autodiff<Flex>>;

fn convolve_with_autodiff<C: CheckpointStrategy, const N: usize>(inputs: [Tracked; N], geometry: Geometry) -> Tracked {
    let output = |inputs: [Tracked; N]| {
        let inputs = inputs.map(Tracked::into_primitive);
        convolve(&inputs[0], &inputs[1], inputs.get(2), &geometry)
    };
    match Convolution
        .prepare::<C>(inputs.each_ref().map(Tracked::node))
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(mut prepared) => {
            let x = inputs[1].is_tracked().then(|| prepared.checkpoint(&inputs[0]));
            let weight = inputs[0].is_tracked().then(|| prepared.checkpoint(&inputs[1]));
            prepared.finish((x, weight, geometry), output(inputs))
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output(inputs)),
    }
}

impl<C: CheckpointStrategy> Kernels for Autodiff<Flex, C> {
    fn convolution(x: Tracked, weight: Tracked, geometry: Geometry) -> Tracked {
        convolve_with_autodiff::<C, 2>([x, weight], geometry)
    }

    fn convolution_with_bias(x: Tracked, weight: Tracked, bias: Tracked, geometry: Geometry) -> Tracked {
        convolve_with_autodiff::<C, 3>([x, weight, bias], geometry)
    }

    fn scale_shift(x: Tracked, scale: Tracked, shift: Tracked, activation: Activation) -> Tracked {
        let frozen = !scale.is_tracked() && !shift.is_tracked();
        let coefficients = [&scale, &shift].map(|tensor| tensor.primitive().to_contiguous());
        let nodes = [x.node(), scale.node(), shift.node()];
        let forward = |x: FlexTensor| apply(x, values(&coefficients[0]), values(&coefficients[1]), activation);
        match ScaleShift.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) if frozen => {
                let output = forward(x.into_primitive());
                let kept = (activation != Activation::None).then(|| output.clone());
                let [scale, _] = coefficients;
                prepared.finish(
                    ScaleShiftState::Frozen {
                        output: kept,
                        scale,
                        activation,
                    },
                    output,
                )
            }
            OpsKind::Tracked(mut prepared) => {
                let kept = prepared.checkpoint(&x);
                let output = forward(x.into_primitive());
                let [scale, shift] = coefficients;
                prepared.finish(
                    ScaleShiftState::Tracked {
                        x: kept,
                        scale,
                        shift,
                        activation,
                    },
                    output,
                )
            }
            OpsKind::UnTracked(prepared) => prepared.finish(forward(x.into_primitive())),
        }
    }

    fn batch_norm(
        x: Tracked,
        weight: Tracked,
        bias: Tracked,
        epsilon: f64,
        activation: Activation,
    ) -> (Tracked, Tracked, Tracked) {
        let nodes = [x.node(), weight.node(), bias.node()];
        let [weight, bias] = [weight, bias].map(|tensor| tensor.into_primitive().to_contiguous());
        let forward = |x: Tracked| {
            <Flex as Kernels>::batch_norm(x.into_primitive(), weight.clone(), bias.clone(), epsilon, activation)
        };
        let (output, mean, variance) = match BatchNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prepared) => {
                let kept = prepared.checkpoint(&x);
                let (output, mean, variance) = forward(x);
                let state = BatchNormState {
                    x: kept,
                    weight: weight.clone(),
                    bias: bias.clone(),
                    mean: mean.clone(),
                    variance: variance.clone(),
                    epsilon,
                    activation,
                };
                (prepared.finish(state, output), mean, variance)
            }
            OpsKind::UnTracked(prepared) => {
                let (output, mean, variance) = forward(x);
                (prepared.finish(output), mean, variance)
            }
        };
        (output, Tracked::new(mean), Tracked::new(variance))
    }
}
