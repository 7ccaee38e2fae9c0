//! Times the kernels beside plain Burn: layers of MobileNetV2 (64 images of 96 pixels) and ResNet-18 (32 of 112), then
//! whole training steps of both.
//!
//! `cargo run --release -p gradus-kernels --example step_time [repetitions]`
//!
//! Both implementations run in turn, so that other work on the machine slows both; the best of all repetitions counts.

use std::time::Instant;

use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor, TensorData};
use gradus_kernels::{Activation, Conv2dOptions, Implementation, batch_norm, conv2d, scale_shift, set_implementation};

/// Deterministic values in -1..1; the times do not depend on them, except for denormal numbers.
fn random<const D: usize>(shape: [usize; D], scale: f32, device: &Device) -> Tensor<D> {
    let length = shape.iter().product::<usize>();
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 8) % 2001) as f32 / 1000.0 - 1.0;
    let values: Vec<f32> = (0..length).map(|i| value(i + length) * scale).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Milliseconds of the forward and the backward pass, each the best of the repetitions, of both implementations.
fn time(repetitions: usize, mut forward: impl FnMut() -> Tensor<1>) -> [[f64; 2]; 2] {
    let mut best = [[f64::INFINITY; 2]; 2];
    for _ in 0..repetitions {
        for (implementation, best) in [Implementation::Own, Implementation::Stock].into_iter().zip(&mut best) {
            set_implementation(implementation);
            let start = Instant::now();
            let loss = forward();
            let middle = Instant::now();
            let gradients = loss.backward();
            let end = Instant::now();
            drop(gradients);
            for (best, time) in best.iter_mut().zip([middle - start, end - middle]) {
                *best = best.min(time.as_secs_f64() * 1e3);
            }
        }
    }
    best
}

fn report(name: &str, [own, stock]: [[f64; 2]; 2]) {
    println!(
        "{name:44} own {:8.2} + {:8.2} ms   stock {:8.2} + {:8.2} ms   ratio {:.2}",
        own[0],
        own[1],
        stock[0],
        stock[1],
        (own[0] + own[1]) / (stock[0] + stock[1])
    );
}

/// A convolution and what goes with it in a network.
struct Layer {
    weight: Tensor<4>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    options: Conv2dOptions,
    activation: Activation,
}

impl Layer {
    fn new(
        [inputs, outputs, kernel, stride, groups]: [usize; 5],
        activation: Activation,
        frozen: bool,
        device: &Device,
    ) -> Self {
        let fan_in = inputs / groups * kernel * kernel;
        let weight = random(
            [outputs, inputs / groups, kernel, kernel],
            (6.0 / fan_in as f32).sqrt(),
            device,
        );
        let ones = Tensor::ones([outputs], device);
        let zeros = Tensor::zeros([outputs], device);
        Self {
            weight: weight.require_grad(),
            scale: if frozen { ones } else { ones.require_grad() },
            shift: if frozen { zeros } else { zeros.require_grad() },
            options: Conv2dOptions {
                groups,
                ..Conv2dOptions::symmetric(stride, kernel / 2)
            },
            activation,
        }
    }

    fn convolve(&self, x: Tensor<4>) -> Tensor<4> {
        conv2d(x, self.weight.clone(), None, &self.options)
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.convolve(x);
        if self.scale.is_require_grad() {
            batch_norm(x, self.scale.clone(), self.shift.clone(), 1e-5, self.activation).0
        } else {
            scale_shift(x, self.scale.clone(), self.shift.clone(), self.activation)
        }
    }
}

fn layers(repetitions: usize, device: &Device) {
    // Images, size, then inputs, outputs, kernel, stride, groups.
    let convolutions = [
        (64, 96, [3, 32, 3, 2, 1]),
        (64, 48, [32, 32, 3, 1, 32]),
        (64, 48, [32, 16, 1, 1, 1]),
        (64, 48, [16, 96, 1, 1, 1]),
        (64, 48, [96, 96, 3, 2, 96]),
        (64, 24, [96, 24, 1, 1, 1]),
        (64, 24, [24, 144, 1, 1, 1]),
        (64, 24, [144, 144, 3, 1, 144]),
        (64, 12, [192, 192, 3, 1, 192]),
        (64, 12, [192, 192, 3, 2, 192]),
        (64, 12, [32, 192, 1, 1, 1]),
        (64, 6, [384, 384, 3, 1, 384]),
        (64, 6, [64, 384, 1, 1, 1]),
        (64, 6, [576, 96, 1, 1, 1]),
        (64, 3, [960, 960, 3, 1, 960]),
        (64, 3, [960, 160, 1, 1, 1]),
        (64, 3, [320, 1280, 1, 1, 1]),
        (32, 112, [3, 64, 7, 2, 1]),
        (32, 28, [64, 64, 3, 1, 1]),
        (32, 28, [64, 128, 3, 2, 1]),
        (32, 28, [64, 128, 1, 2, 1]),
        (32, 14, [128, 128, 3, 1, 1]),
        (32, 7, [256, 256, 3, 1, 1]),
        (32, 4, [512, 512, 3, 1, 1]),
    ];
    for (images, size, sizes) in convolutions {
        let layer = Layer::new(sizes, Activation::None, true, device);
        let x = random([images, sizes[0], size, size], 1.0, device);
        // The first layer of a network needs no gradient of its input.
        let x = if sizes[0] == 3 { x } else { x.require_grad() };
        let [inputs, outputs, kernel, stride, groups] = sizes;
        let name = format!("conv {images} x {inputs} -> {outputs}, {size} px, {kernel}x{kernel}/{stride} g{groups}");
        report(&name, time(repetitions, || layer.convolve(x.clone()).sum()));
    }
    for (channels, size) in [(96, 48), (144, 24), (192, 12), (576, 6), (960, 3)] {
        let layer = Layer::new([channels, channels, 1, 1, channels], Activation::Relu6, false, device);
        let x = random([64, channels, size, size], 1.0, device).require_grad();
        let (scale, shift) = (layer.scale.clone(), layer.shift.clone());
        report(
            &format!("batch norm + ReLU6 64 x {channels}, {size} px"),
            time(repetitions, || {
                batch_norm(x.clone(), scale.clone(), shift.clone(), 1e-5, Activation::Relu6)
                    .0
                    .sum()
            }),
        );
    }
}

/// MobileNetV2 of width 1 (Sandler et al. 2018) with training batch norm, up to the pooled features.
fn mobilenet(repetitions: usize, device: &Device) {
    let mut blocks: Vec<(Vec<Layer>, bool)> = Vec::new();
    let layer = |sizes, activation| Layer::new(sizes, activation, false, device);
    blocks.push((vec![layer([3, 32, 3, 2, 1], Activation::Relu6)], false));
    let mut inputs = 32;
    for (expansion, outputs, count, stride) in [
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ] {
        for index in 0..count {
            let stride = if index == 0 { stride } else { 1 };
            let hidden = inputs * expansion;
            let mut block = Vec::new();
            if expansion > 1 {
                block.push(layer([inputs, hidden, 1, 1, 1], Activation::Relu6));
            }
            block.push(layer([hidden, hidden, 3, stride, hidden], Activation::Relu6));
            block.push(layer([hidden, outputs, 1, 1, 1], Activation::None));
            blocks.push((block, stride == 1 && inputs == outputs));
            inputs = outputs;
        }
    }
    blocks.push((vec![layer([320, 1280, 1, 1, 1], Activation::Relu6)], false));
    let images = random([64, 3, 96, 96], 1.0, device);
    let forward = || {
        let mut x = images.clone();
        for (block, residual) in &blocks {
            let input = x.clone();
            x = block.iter().fold(x, |x, layer| layer.forward(x));
            if *residual {
                x = x + input;
            }
        }
        x.mean_dim(3).mean_dim(2).square().sum()
    };
    report("step of MobileNetV2, 64 images of 96 px", time(repetitions, forward));
}

/// ResNet-18 (He et al. 2016) with frozen batch norm, up to the pooled features.
fn resnet(repetitions: usize, device: &Device) {
    let layer = |sizes, activation| Layer::new(sizes, activation, true, device);
    let first = layer([3, 64, 7, 2, 1], Activation::Relu);
    let mut blocks: Vec<(Layer, Layer, Option<Layer>)> = Vec::new();
    let mut inputs = 64;
    for (outputs, first_stride) in [(64, 1), (128, 2), (256, 2), (512, 2)] {
        for stride in [first_stride, 1] {
            let shortcut =
                (stride != 1 || inputs != outputs).then(|| layer([inputs, outputs, 1, stride, 1], Activation::None));
            blocks.push((
                layer([inputs, outputs, 3, stride, 1], Activation::Relu),
                layer([outputs, outputs, 3, 1, 1], Activation::None),
                shortcut,
            ));
            inputs = outputs;
        }
    }
    let images = random([32, 3, 112, 112], 1.0, device);
    let pooling = MaxPoolOptions::new([3, 3]).with_stride([2, 2]).with_padding([1, 1]);
    let forward = || {
        let x = first.forward(images.clone());
        let mut x = burn::tensor::module::max_pool2d(x, pooling.clone());
        for (one, two, shortcut) in &blocks {
            let input = match shortcut {
                Some(shortcut) => shortcut.forward(x.clone()),
                None => x.clone(),
            };
            x = burn::tensor::activation::relu(two.forward(one.forward(x)) + input);
        }
        x.mean_dim(3).mean_dim(2).square().sum()
    };
    report("step of ResNet-18, 32 images of 112 px", time(repetitions, forward));
}

fn main() {
    let repetitions = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    let device = Device::flex().autodiff();
    println!("forward + backward, best of {repetitions}");
    layers(repetitions, &device);
    mobilenet(repetitions, &device);
    resnet(repetitions, &device);
}
