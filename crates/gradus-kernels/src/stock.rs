//! The same operations in plain Burn: for other devices and data types, and as the oracle of the tests.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::ops::{ConvOptions, MaxPoolOptions};

use crate::options::{Activation, Conv2dOptions, MaxPool2dOptions};
use crate::update::AdamWStep;

pub(crate) fn conv2d(
    images: Tensor<4>,
    weight: Tensor<4>,
    bias: Option<Tensor<1>>,
    options: &Conv2dOptions,
) -> Tensor<4> {
    let padding = options.padding.map(|[before, after]| (before, after));
    let options = ConvOptions::new_with_padding(options.stride, padding, options.dilation, options.groups);
    burn::tensor::module::conv2d(images, weight, bias, options)
}

pub(crate) fn max_pool2d(x: Tensor<4>, options: &MaxPool2dOptions) -> Tensor<4> {
    let MaxPool2dOptions {
        kernel,
        stride,
        padding: [vertical, horizontal],
        ceil_mode,
    } = *options;
    let options = MaxPoolOptions {
        stride,
        padding: [(vertical, vertical), (horizontal, horizontal)],
        ceil_mode,
        ..MaxPoolOptions::new(kernel)
    };
    burn::tensor::module::max_pool2d(x, options)
}

fn activate(x: Tensor<4>, activation: Activation) -> Tensor<4> {
    match activation {
        Activation::None => x,
        Activation::Relu => relu(x),
        Activation::Relu6 => x.clamp(0.0, 6.0),
    }
}

fn per_channel(x: Tensor<1>) -> Tensor<4> {
    let [channels] = x.dims();
    x.reshape([1, channels, 1, 1])
}

pub(crate) fn scale_shift(x: Tensor<4>, scale: Tensor<1>, shift: Tensor<1>, activation: Activation) -> Tensor<4> {
    activate(x * per_channel(scale) + per_channel(shift), activation)
}

pub(crate) fn batch_norm(
    x: Tensor<4>,
    weight: Tensor<1>,
    bias: Tensor<1>,
    epsilon: f64,
    activation: Activation,
) -> (Tensor<4>, Tensor<1>, Tensor<1>) {
    let [images, channels, height, width] = x.dims();
    let channel_mean = |x: Tensor<4>| -> Tensor<4> {
        x.swap_dims(0, 1)
            .reshape([channels, images * height * width])
            .mean_dim(1)
            .reshape([1, channels, 1, 1])
    };
    let mean = channel_mean(x.clone());
    let centred = x - mean.clone();
    let variance = channel_mean(centred.clone().square());
    let normalised = centred / variance.clone().add_scalar(epsilon).sqrt();
    let output = activate(normalised * per_channel(weight) + per_channel(bias), activation);
    let statistic = |x: Tensor<4>| x.without_autodiff().reshape([channels]);
    (output, statistic(mean), statistic(variance))
}

pub(crate) fn scale_shift_add(
    x: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    residual: Tensor<4>,
    activation: Activation,
) -> Tensor<4> {
    add(scale_shift(x, scale, shift, Activation::None), residual, activation)
}

pub(crate) fn add(x: Tensor<4>, residual: Tensor<4>, activation: Activation) -> Tensor<4> {
    activate(x + residual, activation)
}

pub(crate) fn adamw_update(
    [value, gradient, first, second]: [Tensor<1>; 4],
    factor: Tensor<1>,
    step: AdamWStep,
) -> [Tensor<1>; 3] {
    let bounded = if step.limit.is_finite() {
        gradient.clamp(-step.limit, step.limit)
    } else {
        gradient
    };
    let gradient = bounded * factor;
    let squared = gradient.clone() * gradient.clone();
    let first = first.mul_scalar(step.first_decay) + gradient.mul_scalar(1.0 - step.first_decay);
    let second = second.mul_scalar(step.second_decay) + squared.mul_scalar(1.0 - step.second_decay);
    let denominator = second
        .clone()
        .div_scalar(step.second_correction)
        .sqrt()
        .add_scalar(step.epsilon);
    let direction = first.clone() / denominator;
    let value = value.mul_scalar(step.shrinkage) - direction.mul_scalar(step.pace);
    [value, first, second]
}

pub(crate) fn moving_average(average: Tensor<1>, current: Tensor<1>, share: f64) -> Tensor<1> {
    // In this form a parameter that does not change stays to the last bit.
    let step = (current - average.clone()).mul_scalar(share);
    average + step
}

pub(crate) fn squared_sum(x: Tensor<1>) -> Tensor<1> {
    (x.clone() * x).sum()
}
