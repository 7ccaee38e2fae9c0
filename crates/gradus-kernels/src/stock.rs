//! The same operations in plain Burn: for other devices and data types, and as the oracle of the tests.

use burn::tensor::Tensor;
use burn::tensor::activation::relu;
use burn::tensor::ops::ConvOptions;

use crate::options::{Activation, Conv2dOptions};

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
