//! Convolution and batch normalisation, the two layers that backbones are made of.

use gradus_kernels::{Activation, Conv2dOptions, add, batch_norm, conv2d, scale_shift, scale_shift_add};

use gradus_onnx::{Graph, Value};

use super::convolutions::{self, Convolution};
use super::graph::{activate, numbers};
use super::running::RunningStatistic;
use crate::initial;
use crate::tensor::{Device, Module, Param, Tensor};

/// Whether batch normalisation uses and collects the statistics of the batch, or only uses the collected ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Training: normalise with the batch, update the running statistics.
    Train,
    /// Evaluation: normalise with the running statistics.
    Evaluate,
}

/// Zeros around an image before a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zeros {
    /// The same number on every side (torchvision).
    Around(usize),
    /// As many as make the output `ceil(size / stride)`, the odd one at the bottom and right (TensorFlow's `SAME`).
    Same,
}

/// How the weights of a convolution are drawn. He et al., "Delving Deep into Rectifiers", 2015.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Initial {
    /// Normal with variance `2 / (output channels * kernel area)` (torchvision's ResNet and MobileNetV2).
    FanOut,
    /// Uniform with variance `2 / (input channels * kernel area)` (torchvision's SqueezeNet).
    FanIn,
    /// Normal with this standard deviation (torchvision's GoogLeNet: 0.01; ConvNeXt and vision transformers: 0.02).
    Deviation(f64),
}

/// What makes one convolution different from another.
#[derive(Clone, Copy, Debug)]
pub struct ConvSpec {
    /// Channels in.
    pub input: usize,
    /// Channels out.
    pub output: usize,
    /// Side of the square kernel.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Zeros around the image.
    pub zeros: Zeros,
    /// Groups of channels; `input` makes it depthwise.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// How weights are drawn; a bias starts at 0.
    pub initial: Initial,
}

impl ConvSpec {
    /// Stride 1, as many zeros as keep the size, one group, no bias.
    #[must_use]
    pub fn new(input: usize, output: usize, kernel: usize) -> Self {
        Self {
            input,
            output,
            kernel,
            stride: 1,
            zeros: Zeros::Around(kernel / 2),
            groups: 1,
            bias: false,
            initial: Initial::FanOut,
        }
    }

    /// The same with another stride.
    #[must_use]
    pub fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }
}

/// What all layers of one network share while it is built.
#[derive(Clone, Debug)]
pub struct Builder<'a> {
    /// Seed of the initial parameters.
    pub seed: u64,
    /// Device of the parameters.
    pub device: &'a Device,
    /// Whether batch normalisation always uses its running statistics.
    pub freeze_batch_norm: bool,
    /// Whether nothing is drawn, because all parameters are about to be read from a file: they are 0 until then.
    pub blank: bool,
}

impl Builder<'_> {
    /// A parameter of independent normal values; `name` decides the draws together with the seed.
    #[must_use]
    pub fn normal<const D: usize>(&self, shape: [usize; D], deviation: f64, name: &str) -> Param<Tensor<D>> {
        if self.blank {
            return initial::constant(shape, 0.0, self.device);
        }
        initial::normal(shape, deviation, self.seed, name, self.device)
    }

    /// A convolution; `name` is its dotted path and decides its initial weights together with the seed.
    #[must_use]
    pub fn conv(&self, name: &str, spec: ConvSpec) -> Conv2d {
        let ConvSpec {
            input,
            output,
            kernel,
            groups,
            ..
        } = spec;
        let shape = [output, input / groups, kernel, kernel];
        let area = (kernel * kernel) as f64;
        let name = format!("{name}.weight");
        let weight = match spec.initial {
            Initial::FanOut => self.normal(shape, (2.0 / (output as f64 * area)).sqrt(), &name),
            Initial::Deviation(deviation) => self.normal(shape, deviation, &name),
            Initial::FanIn if self.blank => initial::constant(shape, 0.0, self.device),
            Initial::FanIn => {
                let bound = (6.0 / ((input / groups) as f64 * area)).sqrt();
                initial::uniform(shape, bound, self.seed, &name, self.device)
            }
        };
        let bias = spec.bias.then(|| initial::constant([output], 0.0, self.device));
        Conv2d {
            weight,
            bias,
            stride: spec.stride,
            zeros: spec.zeros,
            groups,
        }
    }

    /// A batch normalisation of weight 1 and bias 0.
    #[must_use]
    pub fn norm(&self, channels: usize) -> BatchNorm {
        self.norm_with(channels, BatchNorm::EPSILON)
    }

    /// A batch normalisation that adds another number to the variance than PyTorch's default, 1e-5.
    #[must_use]
    pub fn norm_with(&self, channels: usize, epsilon: f64) -> BatchNorm {
        let device = self.device.clone().without_autodiff();
        BatchNorm {
            weight: initial::constant([channels], 1.0, self.device),
            bias: initial::constant([channels], 0.0, self.device),
            running_mean: RunningStatistic::new(Tensor::zeros([channels], &device)),
            running_var: RunningStatistic::new(Tensor::ones([channels], &device)),
            frozen: self.freeze_batch_norm,
            epsilon,
        }
    }

    /// A convolution followed by batch normalisation.
    #[must_use]
    pub fn conv_norm(&self, name: &str, spec: ConvSpec) -> ConvNorm {
        self.conv_norm_with(name, spec, BatchNorm::EPSILON)
    }

    /// The same with another number added to the variance.
    #[must_use]
    pub fn conv_norm_with(&self, name: &str, spec: ConvSpec, epsilon: f64) -> ConvNorm {
        ConvNorm {
            conv: self.conv(&format!("{name}.conv"), spec),
            norm: self.norm_with(spec.output, epsilon),
        }
    }
}

/// A two-dimensional convolution.
///
/// # Shapes
/// `[batch, input, height, width]` to `[batch, output, height', width']`.
#[derive(Module, Debug)]
pub struct Conv2d {
    weight: Param<Tensor<4>>,
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
    #[module(skip)]
    zeros: Zeros,
    groups: usize,
}

impl Conv2d {
    /// Convolves.
    #[must_use]
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [_, input, height, width] = x.dims();
        let [output, .., kernel] = self.weight.dims();
        let options = Conv2dOptions {
            stride: [self.stride; 2],
            padding: [self.sides(height), self.sides(width)],
            dilation: [1; 2],
            groups: self.groups,
        };
        let convolved = conv2d(x, self.weight.val(), self.bias.as_ref().map(Param::val), &options);
        convolutions::tell(|| {
            let [.., output_height, output_width] = convolved.dims();
            Convolution {
                input,
                output,
                kernel,
                size: [height, width],
                output_size: [output_height, output_width],
                options,
            }
        });
        convolved
    }

    /// Zeros before and behind `size` positions.
    fn sides(&self, size: usize) -> [usize; 2] {
        match self.zeros {
            Zeros::Around(zeros) => [zeros; 2],
            Zeros::Same => {
                let [.., kernel] = self.weight.dims();
                let zeros = ((size.div_ceil(self.stride) - 1) * self.stride + kernel).saturating_sub(size);
                [zeros / 2, zeros - zeros / 2]
            }
        }
    }

    /// The convolution as an ONNX operator.
    pub fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let ([top, bottom], [left, right]) = (self.sides(x.shape()[1]), self.sides(x.shape()[2]));
        let weight = (&numbers(self.weight.val())[..], self.weight.dims());
        let bias = self.bias.as_ref().map(|bias| numbers(bias.val()));
        let pads = [top, left, bottom, right];
        graph.conv(x, weight, bias.as_deref(), self.stride, pads, self.groups)
    }
}

/// Batch normalisation of image channels, with the activation behind it in the same pass.
/// Ioffe and Szegedy, "Batch Normalization", 2015.
///
/// `activation((x - mean) / sqrt(variance + epsilon) * weight + bias)`, epsilon 1e-5 unless the network has another. In training, mean and biased variance are those of
/// the batch, and the running ones move a tenth of the way to the batch's mean and unbiased variance (PyTorch's
/// defaults). In evaluation, or frozen, the running ones are used; weight and bias are trained all the same, unless
/// [`Embedder::with_fixed_scales`](super::Embedder::with_fixed_scales) is asked for.
///
/// # Shapes
/// `[batch, channels, height, width]` to the same.
#[derive(Module, Debug)]
pub struct BatchNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    running_mean: RunningStatistic,
    running_var: RunningStatistic,
    frozen: bool,
    epsilon: f64,
}

impl BatchNorm {
    const EPSILON: f64 = 1e-5;
    const MOMENTUM: f64 = 0.1;

    /// Normalises, then applies the activation.
    #[must_use]
    pub fn forward(&self, x: Tensor<4>, mode: Mode, activation: Activation) -> Tensor<4> {
        if self.uses_running(mode) {
            let (scale, shift) = self.running_coefficients();
            return scale_shift(x, scale, shift, activation);
        }
        self.normalise_batch(x, activation)
    }

    /// Normalises, adds a residual, then applies the activation: the end of a residual block.
    ///
    /// # Shapes
    /// `x` and `residual` `[batch, channels, height, width]`.
    #[must_use]
    pub fn forward_add(&self, x: Tensor<4>, residual: Tensor<4>, mode: Mode, activation: Activation) -> Tensor<4> {
        if self.uses_running(mode) {
            let (scale, shift) = self.running_coefficients();
            return scale_shift_add(x, scale, shift, residual, activation);
        }
        add(self.normalise_batch(x, Activation::None), residual, activation)
    }

    /// The normalisation by the running statistics and the activation as ONNX operators.
    pub fn graph(&self, graph: &mut Graph, x: Value, activation: Activation) -> Value {
        let (scale, shift) = self.running_coefficients();
        let normalised = graph.scale_shift(x, &numbers(scale), &numbers(shift));
        activate(graph, normalised, activation)
    }

    /// The same with a residual added before the activation.
    pub fn graph_add(&self, graph: &mut Graph, x: Value, residual: Value, activation: Activation) -> Value {
        let normalised = self.graph(graph, x, Activation::None);
        let sum = graph.add(normalised, residual);
        activate(graph, sum, activation)
    }

    fn uses_running(&self, mode: Mode) -> bool {
        self.frozen || mode == Mode::Evaluate
    }

    /// Scale and shift `[channels]` that normalise by the running statistics.
    fn running_coefficients(&self) -> (Tensor<1>, Tensor<1>) {
        let scale = self.weight.val() * self.running_var.value().add_scalar(self.epsilon).sqrt().recip();
        let shift = self.bias.val() - scale.clone() * self.running_mean.value();
        (scale, shift)
    }

    /// Normalises with the statistics of the batch and moves the running ones.
    fn normalise_batch(&self, x: Tensor<4>, activation: Activation) -> Tensor<4> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        let [batch, _, height, width] = x.dims();
        let count = (batch * height * width) as f64;
        let (normalised, mean, variance) = batch_norm(x, weight, bias, self.epsilon, activation);
        self.running_mean.update(mean, Self::MOMENTUM);
        // One value has no unbiased variance: the biased one, 0, stands in rather than a division by 0.
        self.running_var
            .update(variance.mul_scalar(count / (count - 1.0).max(1.0)), Self::MOMENTUM);
        normalised
    }
}

/// A convolution, batch normalisation and an activation.
#[derive(Module, Debug)]
pub struct ConvNorm {
    conv: Conv2d,
    norm: BatchNorm,
}

impl ConvNorm {
    /// Applies the three.
    #[must_use]
    pub fn forward(&self, x: Tensor<4>, mode: Mode, activation: Activation) -> Tensor<4> {
        self.norm.forward(self.conv.forward(x), mode, activation)
    }

    /// Convolves, normalises, adds a residual of the output's shape, then applies the activation.
    #[must_use]
    pub fn forward_add(&self, x: Tensor<4>, residual: Tensor<4>, mode: Mode, activation: Activation) -> Tensor<4> {
        self.norm.forward_add(self.conv.forward(x), residual, mode, activation)
    }

    /// The three as ONNX operators.
    pub fn graph(&self, graph: &mut Graph, x: Value, activation: Activation) -> Value {
        let convolved = self.conv.graph(graph, x);
        self.norm.graph(graph, convolved, activation)
    }

    /// The same with a residual added before the activation.
    pub fn graph_add(&self, graph: &mut Graph, x: Value, residual: Value, activation: Activation) -> Value {
        let convolved = self.conv.graph(graph, x);
        self.norm.graph_add(graph, convolved, residual, activation)
    }
}
