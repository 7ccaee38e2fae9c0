//! The operations against plain Burn, against loops, and against themselves on other machines.

use burn::tensor::{DType, Device, Distribution, Tensor, TensorData};
use proptest::prelude::*;

use crate::geometry::Geometry;
use crate::normalization::{Planes, statistics};
use crate::options::{Activation, Conv2dOptions};
use crate::{batch_norm, conv2d, convolution, dense, direct, scale_shift, stock, winograd};

/// Deterministic values in about -1..1, different for every seed.
fn random(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..length).map(|_| next()).collect()
}

fn device() -> Device {
    Device::flex().autodiff()
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(random(shape.iter().product(), seed), shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().expect("single precision")
}

#[track_caller]
fn assert_close(what: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    let scale = expected.iter().fold(1.0f32, |scale, value| scale.max(value.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() <= 1e-4 * scale,
            "{what}[{i}]: {found}, expected {expected} (scale {scale})"
        );
    }
}

/// Sizes and options of one convolution.
#[derive(Clone, Copy, Debug)]
struct Case {
    images: [usize; 4],
    weight: [usize; 4],
    options: Conv2dOptions,
}

impl Case {
    fn new(images: [usize; 4], weight: [usize; 4], options: Conv2dOptions) -> Self {
        Self {
            images,
            weight,
            options,
        }
    }

    fn geometry(&self) -> Geometry {
        Geometry::new(self.images, self.weight, &self.options)
    }

    /// The output by its definition.
    fn naive(&self, x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let g = self.geometry();
        let [n, outputs, height, width] = g.output_shape();
        let mut result = Vec::new();
        for image in 0..n {
            for (o, &bias) in bias.iter().enumerate().take(outputs) {
                for i in 0..height {
                    for j in 0..width {
                        let mut sum = f64::from(bias);
                        for c in 0..g.group_channels() {
                            let channel = o / g.group_outputs() * g.group_channels() + c;
                            for p in 0..g.kernel[0] {
                                for q in 0..g.kernel[1] {
                                    let y = (i * g.stride[0] + p * g.dilation[0]) as isize - g.before[0] as isize;
                                    let z = (j * g.stride[1] + q * g.dilation[1]) as isize - g.before[1] as isize;
                                    if (0..g.input[0] as isize).contains(&y) && (0..g.input[1] as isize).contains(&z) {
                                        let at = ((image * g.channels + channel) * g.input[0] + y as usize)
                                            * g.input[1]
                                            + z as usize;
                                        let tap = ((o * g.group_channels() + c) * g.kernel[0] + p) * g.kernel[1] + q;
                                        sum += f64::from(x[at]) * f64::from(weight[tap]);
                                    }
                                }
                            }
                        }
                        result.push(sum as f32);
                    }
                }
            }
        }
        result
    }

    /// Forward against the loops, gradients against Burn's.
    fn check(&self, with_bias: bool) {
        let device = device();
        let outputs = self.weight[0];
        let inputs = || {
            let bias = with_bias.then(|| tensor([outputs], 3, &device).require_grad());
            (
                tensor(self.images, 1, &device).require_grad(),
                tensor(self.weight, 2, &device).require_grad(),
                bias,
            )
        };
        type Operation = fn(Tensor<4>, Tensor<4>, Option<Tensor<1>>, &Conv2dOptions) -> Tensor<4>;
        let [own, stock] = [conv2d as Operation, stock::conv2d].map(|operation| {
            let (x, weight, bias) = inputs();
            let output = operation(x.clone(), weight.clone(), bias.clone(), &self.options);
            let factor = tensor(self.geometry().output_shape(), 4, &device);
            let gradients = (output.clone() * factor).sum().backward();
            let mut results = vec![values(output)];
            results.push(values(x.grad(&gradients).expect("tracked")));
            results.push(values(weight.grad(&gradients).expect("tracked")));
            results.extend(bias.map(|bias| values(bias.grad(&gradients).expect("tracked"))));
            results
        });
        let (x, weight, bias) = inputs();
        let bias = bias.map_or(vec![0.0; outputs], values);
        assert_close("output", &own[0], &self.naive(&values(x), &values(weight), &bias));
        for (what, (own, stock)) in ["output", "input gradient", "weight gradient", "bias gradient"]
            .iter()
            .zip(own.iter().zip(&stock))
        {
            assert_close(what, own, stock);
        }
    }
}

fn options(stride: [usize; 2], padding: [[usize; 2]; 2], dilation: [usize; 2], groups: usize) -> Conv2dOptions {
    Conv2dOptions {
        stride,
        padding,
        dilation,
        groups,
    }
}

/// Cases that reach each code path, including those whose sizes random cases do not have.
fn fixed_cases() -> Vec<Case> {
    let depthwise = |stride: usize, padding: [[usize; 2]; 2], channels| options([stride; 2], padding, [1; 2], channels);
    let same = [[1; 2]; 2];
    vec![
        // Pointwise: in place, gathered, a single image, a single pixel.
        Case::new([3, 5, 12, 13], [7, 5, 1, 1], Conv2dOptions::default()),
        Case::new([21, 6, 3, 3], [4, 6, 1, 1], Conv2dOptions::default()),
        Case::new([1, 6, 12, 12], [4, 6, 1, 1], Conv2dOptions::default()),
        Case::new([1, 6, 1, 1], [4, 6, 1, 1], Conv2dOptions::default()),
        Case::new([6, 6, 7, 5], [4, 3, 1, 1], options([1; 2], [[0; 2]; 2], [1; 2], 2)),
        Case::new([2, 3, 9, 9], [4, 3, 1, 1], Conv2dOptions::symmetric(2, 0)),
        Case::new([2, 3, 4, 4], [4, 3, 1, 1], Conv2dOptions::symmetric(1, 1)),
        // Dense.
        Case::new([5, 3, 23, 24], [8, 3, 3, 3], Conv2dOptions::symmetric(2, 1)),
        Case::new([2, 3, 30, 17], [4, 3, 7, 7], Conv2dOptions::symmetric(2, 3)),
        Case::new([1, 4, 6, 6], [5, 4, 3, 3], Conv2dOptions::symmetric(1, 1)),
        Case::new([4, 1, 9, 9], [6, 1, 3, 3], Conv2dOptions::symmetric(1, 1)),
        Case::new([3, 2, 2, 2], [3, 2, 5, 5], Conv2dOptions::symmetric(1, 2)),
        Case::new([2, 2, 1, 1], [3, 2, 3, 3], Conv2dOptions::symmetric(3, 1)),
        // Only padding under some taps.
        Case::new([2, 2, 2, 2], [3, 2, 3, 3], options([2, 1], [[3, 0], [0, 4]], [2, 1], 1)),
        Case::new([40, 2, 3, 3], [3, 2, 3, 3], Conv2dOptions::symmetric(1, 1)),
        // Winograd: whole tiles and cut ones, channels and outputs that fill their vectors and not, several batches of
        // tiles, padding that leaves whole tiles outside, padding wider than the kernel.
        Case::new([4, 16, 8, 8], [32, 16, 3, 3], Conv2dOptions::symmetric(1, 1)),
        Case::new([3, 17, 7, 9], [35, 17, 3, 3], Conv2dOptions::symmetric(1, 1)),
        Case::new([17, 16, 3, 3], [16, 16, 3, 3], Conv2dOptions::symmetric(1, 1)),
        Case::new(
            [2, 33, 14, 5],
            [20, 33, 3, 3],
            options([1; 2], [[0, 2], [2, 1]], [1; 2], 1),
        ),
        Case::new(
            [3, 16, 9, 6],
            [16, 16, 3, 3],
            options([1; 2], [[5, 0], [0, 4]], [1; 2], 1),
        ),
        Case::new([20, 32, 56, 56], [16, 32, 3, 3], Conv2dOptions::symmetric(1, 1)),
        // Direct: strides, bands, several batches, channels that fill their vectors and not.
        Case::new([9, 40, 14, 14], [40, 40, 3, 3], Conv2dOptions::symmetric(2, 1)),
        Case::new([12, 40, 27, 27], [40, 40, 3, 3], Conv2dOptions::symmetric(2, 1)),
        Case::new(
            [25, 17, 9, 7],
            [20, 17, 3, 3],
            options([2; 2], [[0, 1], [1, 2]], [1; 2], 1),
        ),
        Case::new(
            [11, 9, 17, 9],
            [33, 9, 5, 4],
            options([3, 2], [[4, 1], [0, 6]], [1; 2], 1),
        ),
        Case::new([3, 3, 64, 70], [32, 3, 7, 7], Conv2dOptions::symmetric(2, 3)),
        Case::new([12, 48, 56, 56], [16, 48, 2, 1], Conv2dOptions::symmetric(2, 0)),
        // Depthwise, with TensorFlow's padding, many images, small and large planes, several outputs per channel.
        Case::new([2, 3, 48, 47], [3, 1, 3, 3], depthwise(1, same, 3)),
        Case::new([2, 3, 48, 47], [3, 1, 3, 3], depthwise(2, same, 3)),
        Case::new([2, 3, 24, 24], [3, 1, 3, 3], depthwise(2, [[0, 1]; 2], 3)),
        Case::new([35, 40, 3, 3], [40, 1, 3, 3], depthwise(1, same, 40)),
        Case::new([35, 40, 6, 6], [40, 1, 3, 3], depthwise(2, same, 40)),
        Case::new([3, 2, 11, 9], [6, 1, 3, 3], depthwise(2, same, 2)),
        Case::new([3, 4, 1, 1], [4, 1, 3, 3], depthwise(1, same, 4)),
        Case::new([3, 4, 7, 7], [4, 1, 5, 5], depthwise(1, [[2; 2]; 2], 4)),
        Case::new([3, 4, 7, 7], [4, 1, 1, 1], depthwise(3, [[0; 2]; 2], 4)),
        Case::new([2, 3, 10, 12], [3, 1, 3, 3], options([2; 2], [[2; 2]; 2], [2; 2], 3)),
    ]
}

#[test]
fn convolution_agrees_with_loops_and_burn_on_chosen_shapes() {
    for (index, case) in fixed_cases().into_iter().enumerate() {
        eprintln!("{case:?}");
        case.check(index % 2 == 0);
    }
}

/// The three passes by their definition, in double precision.
fn exact(geometry: &Geometry, x: &[f32], weight: &[f32], gradient: &[f32]) -> [Vec<f64>; 3] {
    let g = geometry;
    let [n, outputs, height, width] = g.output_shape();
    let mut results = [gradient, x, weight].map(|values| vec![0.0f64; values.len()]);
    let [y, input, kernel] = &mut results;
    for image in 0..n {
        for o in 0..outputs {
            for c in 0..g.channels {
                for p in 0..g.kernel[0] {
                    for q in 0..g.kernel[1] {
                        let tap = ((o * g.channels + c) * g.kernel[0] + p) * g.kernel[1] + q;
                        for i in 0..height {
                            let row = (i * g.stride[0] + p).wrapping_sub(g.before[0]);
                            for j in 0..width {
                                let column = (j * g.stride[1] + q).wrapping_sub(g.before[1]);
                                if row >= g.input[0] || column >= g.input[1] {
                                    continue;
                                }
                                let from = ((image * g.channels + c) * g.input[0] + row) * g.input[1] + column;
                                let to = ((image * outputs + o) * height + i) * width + j;
                                y[to] += f64::from(x[from]) * f64::from(weight[tap]);
                                input[from] += f64::from(gradient[to]) * f64::from(weight[tap]);
                                kernel[tap] += f64::from(gradient[to]) * f64::from(x[from]);
                            }
                        }
                    }
                }
            }
        }
    }
    results
}

/// The three passes of one of the dense kernels.
type Passes = [Vec<f32>; 3];
type Kernel = fn(&Geometry, &[f32], &[f32], &[f32]) -> Passes;

fn passes_of_winograd(geometry: &Geometry, x: &[f32], weight: &[f32], gradient: &[f32]) -> Passes {
    [
        winograd::forward(geometry, x, weight, None),
        winograd::input_gradient(geometry, weight, gradient),
        winograd::weight_gradient(geometry, x, gradient),
    ]
}

fn passes_of_direct(geometry: &Geometry, x: &[f32], weight: &[f32], gradient: &[f32]) -> Passes {
    [
        direct::forward(geometry, x, weight, None),
        direct::input_gradient(geometry, weight, gradient),
        direct::weight_gradient(geometry, x, gradient),
    ]
}

fn passes_of_columns(geometry: &Geometry, x: &[f32], weight: &[f32], gradient: &[f32]) -> Passes {
    [
        dense::forward(geometry, x, weight, None),
        dense::input_gradient(geometry, weight, gradient),
        dense::weight_gradient(geometry, x, gradient),
    ]
}

/// Largest difference to double precision, relative to the largest value, of the three passes.
fn errors(case: &Case, passes: Kernel) -> [f64; 3] {
    #[cfg(target_arch = "x86_64")]
    let _same_width = crate::simd::tests::in_progress();
    let geometry = case.geometry();
    let x = random(case.images.iter().product(), 1);
    let weight = random(case.weight.iter().product(), 2);
    let gradient = random(geometry.output_shape().iter().product(), 3);
    let exact = exact(&geometry, &x, &weight, &gradient);
    let found = passes(&geometry, &x, &weight, &gradient);
    [0, 1, 2].map(|pass| {
        assert_eq!(found[pass].len(), exact[pass].len());
        let largest = exact[pass]
            .iter()
            .fold(0.0f64, |largest, value| largest.max(value.abs()));
        let differences = found[pass].iter().zip(&exact[pass]);
        let difference = differences.fold(0.0f64, |most, (found, exact)| {
            let difference = (f64::from(*found) - exact).abs();
            if difference.is_nan() {
                f64::INFINITY
            } else {
                most.max(difference)
            }
        });
        // Where nothing but padding is seen, all is 0.
        difference / largest.max(1e-30)
    })
}

#[test]
fn chosen_shapes_reach_every_dense_kernel() {
    let geometries: Vec<Geometry> = fixed_cases().iter().map(Case::geometry).collect();
    let dense = || geometries.iter().filter(|geometry| !geometry.is_depthwise());
    assert!(dense().filter(|geometry| winograd::applies(geometry)).count() >= 6);
    let direct = |geometry: &&Geometry| !winograd::applies(geometry) && direct::applies(geometry);
    assert!(dense().filter(direct).count() >= 6);
    assert!(dense().any(|geometry| direct(&geometry) && !direct::applies_to_input_gradient(geometry)));
    assert!(dense().any(|geometry| !winograd::applies(geometry) && !direct::applies(geometry)));
}

#[test]
fn dense_gradients_agree_with_differences() {
    // The loss is quadratic in each input, so that central differences of any step are exact but for rounding.
    for case in fixed_cases().into_iter().filter(|case| case.weight[1] > 8) {
        let geometry = case.geometry();
        let inputs = [
            random(case.images.iter().product(), 1),
            random(case.weight.iter().product(), 2),
        ];
        let factor = random(geometry.output_shape().iter().product(), 3);
        let loss = |inputs: &[Vec<f32>; 2]| {
            let y = convolution::forward(&geometry, &inputs[0], &inputs[1], None);
            let terms = y
                .iter()
                .zip(&factor)
                .map(|(y, factor)| (f64::from(*y), f64::from(*factor)));
            (terms.map(|(y, factor)| y * factor + y * y / 2.0).sum::<f64>(), y)
        };
        let (_, y) = loss(&inputs);
        let slope: Vec<f32> = y.iter().zip(&factor).map(|(y, factor)| y + factor).collect();
        let (x, weight) = convolution::gradients(&geometry, Some(&inputs[0]), Some(&inputs[1]), &slope);
        for (which, gradient) in [x.unwrap(), weight.unwrap()].into_iter().enumerate() {
            let direction = random(gradient.len(), 7);
            let [above, below] = [0.5f32, -0.5].map(|step| {
                let mut moved = inputs.clone();
                for (value, direction) in moved[which].iter_mut().zip(&direction) {
                    *value += step * direction;
                }
                loss(&moved).0
            });
            let products = gradient
                .iter()
                .zip(&direction)
                .map(|(a, b)| f64::from(*a) * f64::from(*b));
            let (found, scale) = products.fold((0.0, 0.0), |(sum, scale), term| (sum + term, scale + term * term));
            let expected = above - below;
            assert!(
                (found - expected).abs() < 1e-3 * scale.sqrt(),
                "{case:?} {which}: {found}, {expected}, scale {}",
                scale.sqrt()
            );
        }
    }
}

#[test]
fn winograd_keeps_single_precision() {
    // The number that the documentation of winograd.rs states.
    for (images, channels, outputs, size) in [(2, 64, 64, 28), (2, 128, 128, 14), (8, 256, 64, 7), (8, 512, 32, 4)] {
        let case = Case::new(
            [images, channels, size, size],
            [outputs, channels, 3, 3],
            Conv2dOptions::symmetric(1, 1),
        );
        let [forward, input, kernel] = errors(&case, passes_of_winograd);
        eprintln!("{case:?}: {forward:.1e} {input:.1e} {kernel:.1e}");
        assert!(
            forward.max(input).max(kernel) < 5e-6,
            "{case:?}: {forward} {input} {kernel}"
        );
    }
}

/// Every dense kernel must be right for every shape without groups and dilation, whatever the choice between them.
fn random_dense_case() -> impl Strategy<Value = Case> {
    let range = |sizes: std::ops::RangeInclusive<usize>| [sizes.clone(), sizes];
    (
        prop_oneof![Just(1usize), 2usize..=5],
        range(1..=19),
        [1usize..=36, 1usize..=36],
        range(1..=5),
        range(1..=3),
        [range(0..=4), range(0..=4)],
        any::<bool>(),
    )
        .prop_filter_map(
            "kernel larger than the padded image",
            |(images, size, [channels, outputs], kernel, stride, padding, winograd)| {
                let (kernel, stride) = if winograd { ([3; 2], [1; 2]) } else { (kernel, stride) };
                let fits = |axis: usize| kernel[axis] <= size[axis] + padding[axis][0] + padding[axis][1];
                (fits(0) && fits(1)).then(|| {
                    Case::new(
                        [images, channels, size[0], size[1]],
                        [outputs, channels, kernel[0], kernel[1]],
                        options(stride, padding, [1; 2], 1),
                    )
                })
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn dense_kernels_agree_with_loops(case in random_dense_case()) {
        let mut kernels: Vec<(&str, Kernel)> =
            vec![("direct", passes_of_direct), ("columns", passes_of_columns)];
        if case.weight[2..] == [3, 3] && case.options.stride == [1; 2] {
            kernels.push(("winograd", passes_of_winograd));
        }
        for (name, passes) in kernels {
            for (pass, error) in ["forward", "input", "weight"].iter().zip(errors(&case, passes)) {
                prop_assert!(error < 5e-6, "{} {}: {} for {:?}", name, pass, error, case);
            }
        }
    }
}

fn random_case() -> impl Strategy<Value = Case> {
    let pair = |range: std::ops::RangeInclusive<usize>| [range.clone(), range];
    let sizes = (
        1usize..=6,
        pair(1..=11),
        1usize..=4,
        1usize..=3,
        prop_oneof![Just(1usize), 1usize..=4],
    );
    let steps = (
        pair(1..=4),
        pair(1..=3),
        [pair(0..=3), pair(0..=3)],
        pair(1..=2),
        any::<bool>(),
    );
    (sizes, steps).prop_filter_map("kernel larger than the padded image", |(sizes, steps)| {
        let (images, [height, width], per_group, outputs, groups) = sizes;
        let (kernel, stride, padding, dilation, depthwise) = steps;
        let (per_group, groups) = if depthwise {
            (1, per_group * groups)
        } else {
            (per_group, groups)
        };
        let fits =
            |axis: usize, size: usize| dilation[axis] * (kernel[axis] - 1) < size + padding[axis][0] + padding[axis][1];
        (fits(0, height) && fits(1, width)).then(|| {
            Case::new(
                [images, per_group * groups, height, width],
                [outputs * groups, per_group, kernel[0], kernel[1]],
                options(stride, padding, dilation, groups),
            )
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution_agrees_with_loops_and_burn(case in random_case(), with_bias in any::<bool>()) {
        case.check(with_bias);
    }

    #[test]
    fn normalisation_agrees_with_burn(
        images in prop_oneof![1usize..=4, 30usize..=40],
        channels in 1usize..=5,
        height in prop_oneof![1usize..=4, 7usize..=12],
        width in 1usize..=13,
        which in 0usize..3,
    ) {
        check_normalisation([images, channels, height, width], ACTIVATIONS[which]);
    }
}

const ACTIVATIONS: [Activation; 3] = [Activation::None, Activation::Relu, Activation::Relu6];

/// Both normalisations against Burn's operations, with all inputs tracked and with the coefficients frozen.
fn check_normalisation(shape: [usize; 4], activation: Activation) {
    let device = device();
    let channels = shape[1];
    type Operation = fn(Tensor<4>, Tensor<1>, Tensor<1>, Activation) -> Vec<Tensor<4>>;
    fn wide(x: Tensor<1>) -> Tensor<4> {
        let [length] = x.dims();
        x.reshape([1, length, 1, 1])
    }
    let pairs: [(&str, [Operation; 2]); 2] = [
        (
            "scale_shift",
            [
                |x, scale, shift, activation| vec![scale_shift(x, scale, shift, activation)],
                |x, scale, shift, activation| vec![stock::scale_shift(x, scale, shift, activation)],
            ],
        ),
        (
            "batch_norm",
            [
                |x, scale, shift, activation| {
                    let (y, mean, variance) = batch_norm(x, scale, shift, 1e-3, activation);
                    vec![y, wide(mean), wide(variance)]
                },
                |x, scale, shift, activation| {
                    let (y, mean, variance) = stock::batch_norm(x, scale, shift, 1e-3, activation);
                    vec![y, wide(mean), wide(variance)]
                },
            ],
        ),
    ];
    for (name, operations) in pairs {
        for tracked in [
            [true; 3],
            [true, false, false],
            [true, false, true],
            [false, true, true],
        ] {
            let results = operations.map(|operation| {
                // Spread so that all three pieces of the activations occur.
                let x = tensor(shape, 5, &device).mul_scalar(4.0).add_scalar(2.5);
                let inputs = (
                    x,
                    tensor([channels], 6, &device).mul_scalar(3.0),
                    tensor([channels], 7, &device),
                );
                let (mut x, mut scale, mut shift) = inputs;
                if tracked[0] {
                    x = x.require_grad();
                }
                if tracked[1] {
                    scale = scale.require_grad();
                }
                if tracked[2] {
                    shift = shift.require_grad();
                }
                let outputs = operation(x.clone(), scale.clone(), shift.clone(), activation);
                let gradients = (outputs[0].clone() * tensor(shape, 8, &device)).sum().backward();
                let mut results: Vec<Option<Vec<f32>>> =
                    outputs.into_iter().map(|output| Some(values(output))).collect();
                results.push(x.grad(&gradients).map(values));
                results.push(scale.grad(&gradients).map(values));
                results.push(shift.grad(&gradients).map(values));
                results
            });
            let [own, stock] = results;
            for (index, (own, stock)) in own.iter().zip(&stock).enumerate() {
                assert_eq!(
                    own.is_some(),
                    stock.is_some(),
                    "{name} {tracked:?}: result {index} is there"
                );
                if let (Some(own), Some(stock)) = (own, stock) {
                    // One value per channel has no variance: its gradient is the rounding error of a cancellation.
                    if name == "batch_norm" && shape[0] * shape[2] * shape[3] < 3 && index > 2 {
                        continue;
                    }
                    assert_close(
                        &format!("{name} {shape:?} {activation:?} {tracked:?} result {index}"),
                        own,
                        stock,
                    );
                }
            }
        }
    }
}

#[test]
fn normalisation_agrees_with_burn_around_the_size_where_planes_are_walked() {
    for shape in [
        [20, 3, 8, 8],
        [20, 3, 7, 9],
        [1, 33, 24, 24],
        [3, 17, 1, 1],
        [2, 2, 48, 47],
    ] {
        for activation in ACTIVATIONS {
            check_normalisation(shape, activation);
        }
    }
}

/// The code for lesser processors, which dispatch would not reach on this one.
#[cfg(target_arch = "x86_64")]
#[test]
fn every_instruction_set_agrees() {
    use crate::simd::{Level, tests};
    let _guard = tests::LOCK.lock().unwrap();
    for level in [Level::Portable, Level::Avx2] {
        tests::set_limit(Some(level));
        for case in fixed_cases() {
            case.check(true);
        }
        for shape in [[3, 3, 9, 9], [20, 5, 3, 3]] {
            for activation in ACTIVATIONS {
                check_normalisation(shape, activation);
            }
        }
    }
    tests::set_limit(None);
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    #[cfg(target_arch = "x86_64")]
    let _guard = crate::simd::tests::LOCK.lock().unwrap();
    let pools = [1, 3].map(|threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap());
    for case in fixed_cases().into_iter().filter(|case| case.images[0] > 1) {
        let geometry = case.geometry();
        let x = random(case.images.iter().product(), 1);
        let weight = random(case.weight.iter().product(), 2);
        let gradient = random(geometry.output_shape().iter().product(), 3);
        let [one, three] = pools.each_ref().map(|pool| {
            pool.install(|| {
                let forward = convolution::forward(&geometry, &x, &weight, None);
                (
                    forward,
                    convolution::gradients(&geometry, Some(&x), Some(&weight), &gradient),
                )
            })
        });
        assert!(one == three, "{case:?}");
        let planes = Planes::new(case.images);
        let [one, three] = pools.each_ref().map(|pool| pool.install(|| statistics(planes, &x)));
        assert!(one == three, "{case:?}");
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    // A convolution and a batch normalisation with ReLU6, whose kinks no value is near enough to cross.
    let device = device();
    let inputs = [
        random(2 * 2 * 4 * 5, 11),
        random(3 * 2 * 3 * 3, 12),
        random(3, 13),
        random(3, 14),
    ];
    let evaluate = |inputs: &[Vec<f32>; 4]| {
        let data = |values: &Vec<f32>, shape: &[usize]| TensorData::new(values.clone(), shape.to_vec());
        let x = Tensor::<4>::from_data(data(&inputs[0], &[2, 2, 4, 5]), &device).require_grad();
        let kernel = Tensor::<4>::from_data(data(&inputs[1], &[3, 2, 3, 3]), &device).require_grad();
        let weight = Tensor::<1>::from_data(data(&inputs[2], &[3]), &device).require_grad();
        let bias = Tensor::<1>::from_data(data(&inputs[3], &[3]), &device).require_grad();
        let y = conv2d(
            x.clone(),
            kernel.clone(),
            None,
            &options([1; 2], [[1, 0], [0, 1]], [1; 2], 1),
        );
        let (y, _, _) = batch_norm(y, weight.clone(), bias.clone(), 1e-2, Activation::None);
        let loss = (y.clone() * tensor(y.dims(), 15, &device) + y.square()).sum();
        let value = loss.clone().into_scalar::<f32>();
        let gradients = loss.backward();
        let gradient = [
            values(x.grad(&gradients).unwrap()),
            values(kernel.grad(&gradients).unwrap()),
            values(weight.grad(&gradients).unwrap()),
            values(bias.grad(&gradients).unwrap()),
        ];
        (f64::from(value), gradient)
    };
    let (_, gradient) = evaluate(&inputs);
    let step = 1e-2f32;
    for which in 0..4 {
        for index in (0..inputs[which].len()).step_by(3) {
            let [above, below] = [step, -step].map(|step| {
                let mut moved = inputs.clone();
                moved[which][index] += step;
                evaluate(&moved).0
            });
            let expected = (above - below) / (2.0 * f64::from(step));
            let found = f64::from(gradient[which][index]);
            assert!(
                (found - expected).abs() < 0.02 * (1.0 + expected.abs()),
                "{which} {index}: {found}, {expected}"
            );
        }
    }
}

#[test]
fn untracked_parents_get_no_gradient_and_the_others_are_right() {
    let device = device();
    for (groups, weight_shape) in [(1, [4, 4, 3, 3]), (4, [4, 1, 3, 3])] {
        let options = options([1; 2], [[1; 2]; 2], [1; 2], groups);
        let run = |track_x: bool, track_weight: bool| {
            let track = |tensor: Tensor<4>, tracked: bool| if tracked { tensor.require_grad() } else { tensor };
            let x = track(tensor([3, 4, 6, 6], 1, &device), track_x);
            let weight = track(tensor(weight_shape, 2, &device), track_weight);
            let y = conv2d(x.clone(), weight.clone(), None, &options);
            let gradients = (y * tensor([3, 4, 6, 6], 3, &device)).sum().backward();
            (x.grad(&gradients).map(values), weight.grad(&gradients).map(values))
        };
        let (x, weight) = run(true, true);
        assert_eq!(run(true, false), (x.clone(), None));
        assert_eq!(run(false, true), (None, weight.clone()));
        assert!(x.is_some() && weight.is_some());
    }
    // Nothing tracked at all, with autodiff on.
    let y = conv2d(
        tensor([1, 2, 3, 3], 1, &device),
        tensor([2, 2, 1, 1], 2, &device),
        None,
        &Default::default(),
    );
    assert!(!y.is_require_grad());
}

#[test]
fn no_gradient_is_computed_that_nobody_asked_for() {
    for case in [
        Case::new([2, 4, 5, 5], [4, 1, 3, 3], options([1; 2], [[1; 2]; 2], [1; 2], 4)),
        fixed_cases()[7],
    ] {
        let geometry = case.geometry();
        let x = random(case.images.iter().product(), 1);
        let weight = random(case.weight.iter().product(), 2);
        let gradient = random(geometry.output_shape().iter().product(), 3);
        let (input, kernel) = convolution::gradients(&geometry, Some(&x), Some(&weight), &gradient);
        assert!(input.is_some() && kernel.is_some());
        assert_eq!(
            convolution::gradients(&geometry, None, Some(&weight), &gradient),
            (input, None)
        );
        assert_eq!(
            convolution::gradients(&geometry, Some(&x), None, &gradient),
            (None, kernel)
        );
    }
}

#[test]
fn inputs_that_others_hold_are_not_overwritten() {
    for device in [Device::flex(), device()] {
        let x = tensor([2, 3, 4, 4], 1, &device);
        let before = values(x.clone());
        let coefficient = || tensor([3], 2, &device);
        let y = scale_shift(x.clone(), coefficient(), coefficient(), Activation::Relu);
        let (z, _, _) = batch_norm(x.clone(), coefficient(), coefficient(), 1e-5, Activation::None);
        assert_eq!(values(x.clone()), before);
        // Given away, the buffer may be reused, with the same results.
        assert_eq!(
            values(scale_shift(
                x.clone().mul_scalar(1.0),
                coefficient(),
                coefficient(),
                Activation::Relu
            )),
            values(y)
        );
        let (again, _, _) = batch_norm(x.mul_scalar(1.0), coefficient(), coefficient(), 1e-5, Activation::None);
        assert_eq!(values(again), values(z));
    }
}

#[test]
fn a_gradient_that_two_branches_share_is_not_overwritten() {
    // The sum hands the same gradient to both branches.
    let device = device();
    let run = |own: bool| {
        let x = tensor([2, 3, 8, 9], 1, &device).require_grad();
        let apply = if own { scale_shift } else { stock::scale_shift };
        let branch = |seed| {
            apply(
                x.clone(),
                tensor([3], seed, &device),
                tensor([3], seed + 1, &device),
                Activation::Relu6,
            )
        };
        let sum = branch(2) + branch(4);
        let gradients = (sum * tensor([2, 3, 8, 9], 6, &device)).sum().backward();
        values(x.grad(&gradients).unwrap())
    };
    assert_close("input gradient", &run(true), &run(false));
}

#[test]
fn views_are_read_where_they_lie() {
    let device = device();
    let base = tensor([6, 5, 7, 4], 1, &device);
    let weight = tensor([4, 4, 3, 3], 2, &device).swap_dims(0, 1);
    let view = base.slice([2..5, 1..5, 0..7, 0..4]).swap_dims(2, 3);
    let options = Conv2dOptions::symmetric(1, 1);
    let own = conv2d(view.clone(), weight.clone(), None, &options);
    assert_close(
        "convolution",
        &values(own),
        &values(stock::conv2d(view.clone(), weight, None, &options)),
    );
    let coefficients = tensor([9], 3, &device).narrow(0, 2, 4);
    let own = scale_shift(
        view.clone(),
        coefficients.clone(),
        coefficients.clone(),
        Activation::Relu,
    );
    let stock_output = stock::scale_shift(
        view.clone(),
        coefficients.clone(),
        coefficients.clone(),
        Activation::Relu,
    );
    assert_close("scale and shift", &values(own), &values(stock_output));
    let own = batch_norm(
        view.clone(),
        coefficients.clone(),
        coefficients.clone(),
        1e-5,
        Activation::None,
    )
    .0;
    let stock_output = stock::batch_norm(view, coefficients.clone(), coefficients, 1e-5, Activation::None).0;
    assert_close("batch norm", &values(own), &values(stock_output));
}

#[test]
fn statistics_keep_a_variance_far_from_zero() {
    for pixels in [[2, 3], [12, 12]] {
        let shape = [24, 2, pixels[0], pixels[1]];
        let x: Vec<f32> = random(shape.iter().product(), 1)
            .iter()
            .map(|value| 1000.0 + value)
            .collect();
        let (mean, variance) = statistics(Planes::new(shape), &x);
        for channel in 0..2 {
            let size = pixels[0] * pixels[1];
            let own: Vec<f64> = x
                .chunks(size)
                .skip(channel)
                .step_by(2)
                .flatten()
                .map(|value| f64::from(*value))
                .collect();
            let expected = own.iter().sum::<f64>() / own.len() as f64;
            let spread = own.iter().map(|value| (value - expected).powi(2)).sum::<f64>() / own.len() as f64;
            assert!((mean[channel] - expected).abs() < 1e-4, "{} {expected}", mean[channel]);
            assert!(
                (variance[channel] - spread).abs() < 1e-4 * spread,
                "{} {spread}",
                variance[channel]
            );
        }
    }
}

#[test]
fn not_a_number_is_not_hidden() {
    let device = Device::flex();
    for pixels in [3, 100] {
        let mut data = random(pixels, 1);
        data[1] = f32::NAN;
        let x = Tensor::<4>::from_data(TensorData::new(data, [1, 1, 1, pixels]), &device);
        let one = || Tensor::<1>::ones([1], &device);
        let y = values(scale_shift(x.clone(), one(), one(), Activation::Relu6));
        assert!(y[1].is_nan() && y[2].is_finite());
        let (y, mean, variance) = batch_norm(x, one(), one(), 1e-5, Activation::Relu);
        assert!(values(y)[0].is_nan() && values(mean)[0].is_nan() && values(variance)[0].is_nan());
    }
}

#[test]
fn double_precision_takes_plain_burn() {
    let device = Device::flex();
    let random =
        |shape: [usize; 4]| Tensor::<4>::random(shape, Distribution::Uniform(-1.0, 1.0), (&device, DType::F64));
    let (x, weight) = (random([2, 3, 5, 5]), random([4, 3, 3, 3]));
    let y = conv2d(x.clone(), weight.clone(), None, &Conv2dOptions::symmetric(1, 1));
    assert_eq!(y.dtype(), DType::F64);
    let single = conv2d(
        x.cast(DType::F32),
        weight.cast(DType::F32),
        None,
        &Conv2dOptions::symmetric(1, 1),
    );
    assert_close("convolution", &values(y.clone().cast(DType::F32)), &values(single));
    let one = Tensor::<1>::ones([4], (&device, DType::F64));
    let (y, mean, _) = batch_norm(y, one.clone(), one, 1e-5, Activation::Relu);
    assert_eq!((y.dtype(), mean.dtype()), (DType::F64, DType::F64));
}

#[test]
fn empty_batches_work() {
    let device = device();
    let x = Tensor::<4>::zeros([0, 3, 6, 6], &device).require_grad();
    let weight = tensor([4, 3, 3, 3], 1, &device).require_grad();
    let y = conv2d(x, weight.clone(), None, &Conv2dOptions::symmetric(1, 1));
    assert_eq!(y.dims(), [0, 4, 6, 6]);
    let one = || Tensor::<1>::ones([4], &device);
    assert_eq!(scale_shift(y, one(), one(), Activation::Relu).dims(), [0, 4, 6, 6]);
}

#[test]
#[should_panic(expected = "conv2d: images of shape [1, 3, 4, 4]")]
fn channels_that_do_not_fit_are_named() {
    let device = Device::flex();
    let _ = conv2d(
        tensor([1, 3, 4, 4], 1, &device),
        tensor([2, 4, 1, 1], 2, &device),
        None,
        &Default::default(),
    );
}

#[test]
#[should_panic(expected = "a kernel that spans 5 pixels does not fit a padded image of 4")]
fn kernels_that_do_not_fit_are_named() {
    let device = Device::flex();
    let _ = conv2d(
        tensor([1, 1, 4, 4], 1, &device),
        tensor([1, 1, 5, 5], 2, &device),
        None,
        &Default::default(),
    );
}
