//! The layers of networks on maps `[channels, height, width]` and rows `[features]`.

use super::Attribute::{Float, Integer, Integers};
use super::{Graph, Numbers, Value};

/// Zeros at the top, left, bottom and right of a map.
pub type Pads = [usize; 4];

/// Integers as ONNX takes them.
fn wide(numbers: &[usize]) -> Vec<i64> {
    numbers.iter().map(|&number| number as i64).collect()
}

/// Output size of a window that moves over `size` places.
fn windows(size: usize, pads: usize, kernel: usize, stride: usize) -> usize {
    (size + pads - kernel) / stride + 1
}

impl Graph {
    /// A convolution.
    ///
    /// # Shapes
    /// `x` `[input, height, width]`; `weight` row-major `[output, input / groups, kernel[0], kernel[1]]`; `bias` `[output]`.
    ///
    /// # Panics
    /// If the numbers do not fit the shapes.
    pub fn conv(
        &mut self,
        x: Value,
        (weight, shape): (&[f32], [usize; 4]),
        bias: Option<&[f32]>,
        stride: usize,
        pads: Pads,
        groups: usize,
    ) -> Value {
        let [output, _, high, wide_] = shape;
        let size = [
            windows(x.shape[1], pads[0] + pads[2], high, stride),
            windows(x.shape[2], pads[1] + pads[3], wide_, stride),
        ];
        let weight = self.floats("weight", &shape, weight);
        let bias = self.floats("bias", &[output], bias.unwrap_or(&vec![0.0; output]));
        self.apply(
            "Conv",
            &[&x.name, &weight, &bias],
            &[
                ("kernel_shape", Integers(wide(&[high, wide_]))),
                ("strides", Integers(vec![stride as i64; 2])),
                ("pads", Integers(wide(&pads))),
                ("group", Integer(groups as i64)),
            ],
            &[output, size[0], size[1]],
        )
    }

    /// Every channel times a scale plus a shift: batch normalisation with its running statistics.
    ///
    /// Directly behind a convolution it goes into that convolution's weights, so that the file has one operator less.
    ///
    /// # Shapes
    /// `x` `[channels, height, width]`; `scale`, `shift` `[channels]`.
    ///
    /// # Panics
    /// If the numbers do not fit the shapes.
    pub fn scale_shift(&mut self, x: Value, scale: &[f32], shift: &[f32]) -> Value {
        assert_eq!(scale.len(), x.shape[0], "a scale for every channel");
        assert_eq!(shift.len(), x.shape[0], "a shift for every channel");
        let before = self
            .nodes
            .last()
            .filter(|node| node.operator == "Conv" && node.output == x.name)
            .map(|node| (node.inputs[1].clone(), node.inputs[2].clone()));
        if let Some((weight, bias)) = before {
            if let Some(Numbers::Float(weight)) = self.constant_mut(&weight).map(|constant| &mut constant.numbers) {
                let each = weight.len() / scale.len();
                for (kernel, scale) in weight.chunks_exact_mut(each).zip(scale) {
                    kernel.iter_mut().for_each(|number| *number *= scale);
                }
            }
            if let Some(Numbers::Float(bias)) = self.constant_mut(&bias).map(|constant| &mut constant.numbers) {
                for ((number, scale), shift) in bias.iter_mut().zip(scale).zip(shift) {
                    *number = *number * scale + shift;
                }
            }
            return x;
        }
        let scale = self.floats("scale", &[scale.len(), 1, 1], scale);
        let shift = self.floats("shift", &[shift.len(), 1, 1], shift);
        let scaled = self.apply("Mul", &[&x.name, &scale], &[], &x.shape);
        self.apply("Add", &[&scaled.name, &shift], &[], &x.shape)
    }

    /// `max(x, 0)`.
    pub fn relu(&mut self, x: Value) -> Value {
        self.apply("Relu", &[&x.name], &[], &x.shape)
    }

    /// `min(max(x, 0), 6)`.
    pub fn relu6(&mut self, x: Value) -> Value {
        let (least, most) = (self.scalar(0.0), self.scalar(6.0));
        self.apply("Clip", &[&x.name, &least, &most], &[], &x.shape)
    }

    /// `1 / (1 + exp(-x))`.
    pub fn sigmoid(&mut self, x: Value) -> Value {
        self.apply("Sigmoid", &[&x.name], &[], &x.shape)
    }

    /// `x / (1 + exp(-x))`, also called swish.
    pub fn silu(&mut self, x: Value) -> Value {
        let gate = self.apply("Sigmoid", &[&x.name], &[], &x.shape);
        self.apply("Mul", &[&x.name, &gate.name], &[], &x.shape)
    }

    /// `x Φ(x)`, Φ the distribution function of the standard normal: the exact form, not tanh's.
    pub fn gelu(&mut self, x: Value) -> Value {
        let (root, one, half) = (
            self.scalar(std::f32::consts::SQRT_2),
            self.scalar(1.0),
            self.scalar(0.5),
        );
        let scaled = self.apply("Div", &[&x.name, &root], &[], &x.shape);
        let error = self.apply("Erf", &[&scaled.name], &[], &x.shape);
        let above = self.apply("Add", &[&error.name, &one], &[], &x.shape);
        let product = self.apply("Mul", &[&x.name, &above.name], &[], &x.shape);
        self.apply("Mul", &[&product.name, &half], &[], &x.shape)
    }

    /// Sum of two tensors of one shape.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn add(&mut self, a: Value, b: Value) -> Value {
        assert_eq!(a.shape, b.shape, "both sides of a sum have one shape");
        self.apply("Add", &[&a.name, &b.name], &[], &a.shape)
    }

    /// Product of a map `[channels, height, width]` and a factor per channel `[channels, 1, 1]`: squeeze and excitation.
    ///
    /// # Panics
    /// If the channels differ.
    pub fn gate(&mut self, x: Value, gate: Value) -> Value {
        assert_eq!(gate.shape, [x.shape[0], 1, 1], "a gate for every channel");
        self.apply("Mul", &[&x.name, &gate.name], &[], &x.shape)
    }

    /// Maps or rows side by side: channels after channels.
    ///
    /// # Panics
    /// If there is none.
    pub fn concat(&mut self, parts: &[Value]) -> Value {
        let mut shape = parts[0].shape.clone();
        shape[0] = parts.iter().map(|part| part.shape[0]).sum();
        let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
        self.apply("Concat", &names, &[("axis", Integer(1))], &shape)
    }

    /// The channels of a map in another order.
    pub fn reorder_channels(&mut self, x: Value, order: &[usize]) -> Value {
        let order = self.indices(&wide(order));
        self.apply("Gather", &[&x.name, &order], &[("axis", Integer(1))], &x.shape)
    }

    /// Zero channels before and behind those of a map.
    pub fn pad_channels(&mut self, x: Value, before: usize, behind: usize) -> Value {
        let mut shape = x.shape.clone();
        shape[0] += before + behind;
        let pads = self.indices(&[0, before as i64, 0, 0, 0, behind as i64, 0, 0]);
        self.apply("Pad", &[&x.name, &pads], &[], &shape)
    }

    /// Maximum over square windows; what is padded never wins.
    ///
    /// # Shapes
    /// `[channels, height, width]` to `[channels, height', width']`, `(size + pads - kernel) / stride + 1` cut to whole
    /// numbers. Windows that begin inside but end beyond the map (`ceil_mode`) are had by padding the bottom and right.
    pub fn max_pool(&mut self, x: Value, kernel: usize, stride: usize, pads: Pads) -> Value {
        let shape = pooled(&x, kernel, stride, pads);
        let attributes = window(kernel, stride, pads);
        self.apply("MaxPool", &[&x.name], &attributes, &shape)
    }

    /// Maximum over square windows of which the last may end beyond the map (`ceil_mode`).
    pub fn max_pool_ceil(&mut self, x: Value, kernel: usize, stride: usize, padding: usize) -> Value {
        let end = |size: usize| {
            let mut count = (size + 2 * padding).saturating_sub(kernel).div_ceil(stride) + 1;
            // A window must begin inside the map or in its left padding.
            if (count - 1) * stride >= size + padding {
                count -= 1;
            }
            ((count - 1) * stride + kernel).saturating_sub(size + padding)
        };
        let pads = [padding, padding, end(x.shape[1]), end(x.shape[2])];
        self.max_pool(x, kernel, stride, pads)
    }

    /// Mean over square windows; with `count_padding`, padded zeros count as places.
    pub fn average_pool(&mut self, x: Value, kernel: usize, stride: usize, pads: Pads, count_padding: bool) -> Value {
        let shape = pooled(&x, kernel, stride, pads);
        let mut attributes = window(kernel, stride, pads);
        attributes.push(("count_include_pad", Integer(i64::from(count_padding))));
        self.apply("AveragePool", &[&x.name], &attributes, &shape)
    }

    /// Mean of every channel of a map, `[channels, 1, 1]`.
    pub fn global_average(&mut self, x: Value) -> Value {
        let shape = [x.shape[0], 1, 1];
        self.apply("GlobalAveragePool", &[&x.name], &[], &shape)
    }

    /// Maximum of every channel of a map, `[channels, 1, 1]`.
    pub fn global_maximum(&mut self, x: Value) -> Value {
        let shape = [x.shape[0], 1, 1];
        self.apply("GlobalMaxPool", &[&x.name], &[], &shape)
    }

    /// Generalised mean of every channel, `(mean max(x, 1e-6)^p)^(1/p)`, as `[channels, 1, 1]`.
    ///
    /// Powers are taken of values divided by their maximum, as in training: `x^p` itself overflows.
    pub fn generalised_mean(&mut self, x: Value, power: f32) -> Value {
        let shape = [x.shape[0], 1, 1];
        let least = self.scalar(1e-6);
        let power = self.scalar(power);
        let clipped = self.apply("Clip", &[&x.name, &least], &[], &x.shape);
        let logarithm = self.apply("Log", &[&clipped.name], &[], &x.shape);
        let largest = self.apply("GlobalMaxPool", &[&logarithm.name], &[], &shape);
        let below = self.apply("Sub", &[&logarithm.name, &largest.name], &[], &x.shape);
        let scaled = self.apply("Mul", &[&below.name, &power], &[], &x.shape);
        let powers = self.apply("Exp", &[&scaled.name], &[], &x.shape);
        let mean = self.apply("GlobalAveragePool", &[&powers.name], &[], &shape);
        let mean = self.apply("Log", &[&mean.name], &[], &shape);
        let root = self.apply("Div", &[&mean.name, &power], &[], &shape);
        let sum = self.apply("Add", &[&root.name, &largest.name], &[], &shape);
        self.apply("Exp", &[&sum.name], &[], &shape)
    }

    /// Means at `side` x `side` places of a map, `[channels, side, side]`: place `i` covers the positions from `floor(i size /
    /// side)` to `ceil((i + 1) size / side)`.
    ///
    /// Written as two products with matrices of means, since ONNX has no adaptive pooling.
    pub fn adaptive_average(&mut self, x: Value, side: usize) -> Value {
        let means = |size: usize| {
            let mut matrix = vec![0.0_f32; side * size];
            for (place, row) in matrix.chunks_exact_mut(size).enumerate() {
                let span = place * size / side..((place + 1) * size).div_ceil(side);
                let share = 1.0 / span.len() as f32;
                row[span].fill(share);
            }
            matrix
        };
        let [channels, height, width] = [x.shape[0], x.shape[1], x.shape[2]];
        let rows = self.floats("row_means", &[side, height], &means(height));
        let transposed: Vec<f32> = {
            let matrix = means(width);
            (0..width * side)
                .map(|index| matrix[index % side * width + index / side])
                .collect()
        };
        let columns = self.floats("column_means", &[width, side], &transposed);
        let across = self.apply("MatMul", &[&x.name, &columns], &[], &[channels, height, side]);
        self.apply("MatMul", &[&rows, &across.name], &[], &[channels, side, side])
    }

    /// All axes but the batch in one.
    pub fn flatten(&mut self, x: Value) -> Value {
        let shape = [x.shape.iter().product()];
        self.apply("Flatten", &[&x.name], &[("axis", Integer(1))], &shape)
    }

    /// A linear layer with PyTorch's layout: `weight x + bias` on the last axis.
    ///
    /// # Shapes
    /// `x` `[.., input]`; `weight` row-major `[output, input]`, `bias` `[output]`.
    ///
    /// # Panics
    /// If the numbers do not fit the shapes.
    pub fn linear(&mut self, x: Value, weight: &[f32], bias: Option<&[f32]>) -> Value {
        let input = x.shape[x.shape.len() - 1];
        let output = weight.len() / input;
        let mut shape = x.shape.clone();
        *shape.last_mut().expect("a value has an axis beside the batch") = output;
        let transposed: Vec<f32> = (0..weight.len())
            .map(|index| weight[index % output * input + index / output])
            .collect();
        let weight = self.floats("weight", &[input, output], &transposed);
        let product = self.apply("MatMul", &[&x.name, &weight], &[], &shape);
        match bias {
            None => product,
            Some(bias) => {
                let bias = self.floats("bias", &[output], bias);
                self.apply("Add", &[&product.name, &bias], &[], &shape)
            }
        }
    }

    /// Rows divided by their Euclidean length; zero rows stay zero.
    pub fn unit_length(&mut self, x: Value) -> Value {
        let length = self.reduce("ReduceL2", &x, -1, &[1]);
        let least = self.scalar(1e-12);
        let divisor = self.apply("Max", &[&length.name, &least], &[], &[1]);
        self.apply("Div", &[&x.name, &divisor.name], &[], &x.shape)
    }

    /// A reduction over one axis, which stays with size 1. Since version 18 (sums: 13) the axis is an input.
    pub(crate) fn reduce(&mut self, operator: &'static str, x: &Value, axis: i64, shape: &[usize]) -> Value {
        if self.opset >= 18 || operator == "ReduceSum" {
            let axes = self.indices(&[axis]);
            return self.apply(operator, &[&x.name, &axes], &[("keepdims", Integer(1))], shape);
        }
        let attributes = [("axes", Integers(vec![axis])), ("keepdims", Integer(1))];
        self.apply(operator, &[&x.name], &attributes, shape)
    }

    /// Layer normalisation over the last axis, `(x - mean) / sqrt(variance + epsilon) * weight + bias`.
    ///
    /// # Shapes
    /// `x` `[.., width]`; `weight`, `bias` `[width]`.
    pub fn layer_norm(&mut self, x: Value, weight: &[f32], bias: &[f32], epsilon: f32) -> Value {
        let weight = self.floats("scale", &[weight.len()], weight);
        let bias = self.floats("shift", &[bias.len()], bias);
        let attributes = [("axis", Integer(-1)), ("epsilon", Float(epsilon))];
        self.apply("LayerNormalization", &[&x.name, &weight, &bias], &attributes, &x.shape)
    }
}

fn pooled(x: &Value, kernel: usize, stride: usize, pads: Pads) -> [usize; 3] {
    [
        x.shape[0],
        windows(x.shape[1], pads[0] + pads[2], kernel, stride),
        windows(x.shape[2], pads[1] + pads[3], kernel, stride),
    ]
}

fn window(kernel: usize, stride: usize, pads: Pads) -> Vec<(&'static str, super::Attribute)> {
    vec![
        ("kernel_shape", Integers(vec![kernel as i64; 2])),
        ("strides", Integers(vec![stride as i64; 2])),
        ("pads", Integers(wide(&pads))),
    ]
}
