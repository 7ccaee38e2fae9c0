//! Preprocessing inside the graph: from pixels of any size to the numbers a network takes.
//!
//! A resize is linear along each axis, so it is written as two products with matrices of filter weights, which the graph
//! makes from the size it meets. ONNX's own `Resize` antialiases since version 18 only, and few runtimes can do it. Distances
//! between pixels are whole numbers over a common divisor, so that weights are exact to single precision; both passes are
//! rounded to whole levels, halves up, as Pillow does.

use gradus_core::data::transform::{Interpolation, TransformConfig};

use super::Attribute::{Integer, Integers};
use super::{Graph, Numbers, Value};

const FLOAT: i64 = 1;
const INDEX: i64 = 7;

/// One axis of an image: its size, and the size and first position of what is kept after the resize.
struct Axis {
    size: Value,
    resized: Value,
    /// The border before what is kept.
    border: Value,
}

impl Graph {
    /// The input of the graph as eight-bit RGB pixels `[batch, height, width, 3]` of any size, with the preprocessing of a
    /// run's evaluation behind it: `[3, size, size]`.
    pub fn preprocessed_pixels(&mut self, name: &str, transform: &TransformConfig) -> Value {
        let pixels = self.pixels(name);
        let shape = self.apply("Shape", &[&pixels.name], &[], &[]);
        let [height, width] = [1, 2].map(|axis| {
            let index = self.whole(axis);
            self.apply("Gather", &[&shape.name, &index], &[("axis", Integer(0))], &[])
        });
        let least = self.apply("Min", &[&height.name, &width.name], &[], &[]);
        let (short, size) = (transform.resize_pixels() as i64, transform.size);
        let down = self.axis(height, &least, short, size);
        let across = self.axis(width, &least, short, size);

        let numbers = self.cast(&pixels, FLOAT);
        let channels = self.apply(
            "Transpose",
            &[&numbers.name],
            &[("perm", Integers(vec![0, 3, 1, 2]))],
            &[],
        );
        let columns = self.filter_weights(&across, size, transform.interpolation);
        let columns = self.apply("Transpose", &[&columns.name], &[("perm", Integers(vec![1, 0]))], &[]);
        let rows = self.filter_weights(&down, size, transform.interpolation);
        let view = [3, size, size];
        let narrowed = self.apply("MatMul", &[&channels.name, &columns.name], &[], &[]);
        let narrowed = self.levels(&narrowed);
        let resized = self.apply("MatMul", &[&rows.name, &narrowed.name], &[], &view);
        let resized = self.levels(&resized);

        let (mean, std) = (transform.mean, transform.std);
        let scale: Vec<f32> = std.iter().map(|std| (1.0 / (255.0 * f64::from(*std))) as f32).collect();
        let shift: Vec<f32> = mean
            .iter()
            .zip(&std)
            .map(|(mean, std)| (-f64::from(*mean) / f64::from(*std)) as f32)
            .collect();
        let scale = self.floats("scale", &[3, 1, 1], &scale);
        let shift = self.floats("shift", &[3, 1, 1], &shift);
        let scaled = self.apply("Mul", &[&resized.name, &scale], &[], &view);
        self.apply("Add", &[&scaled.name, &shift], &[], &view)
    }

    /// `resized = short * size / least`, cut to whole pixels; `border = round((resized - kept) / 2)`, ties to even.
    fn axis(&mut self, size: Value, least: &Value, short: i64, kept: usize) -> Axis {
        let (short, kept, half) = (self.whole(short), self.scalar(kept as f32), self.scalar(0.5));
        let product = self.apply("Mul", &[&size.name, &short], &[], &[]);
        let resized = self.apply("Div", &[&product.name, &least.name], &[], &[]);
        let border = self.cast(&resized, FLOAT);
        let border = self.apply("Sub", &[&border.name, &kept], &[], &[]);
        let border = self.apply("Mul", &[&border.name, &half], &[], &[]);
        let border = self.apply("Round", &[&border.name], &[], &[]);
        let border = self.cast(&border, INDEX);
        Axis { size, resized, border }
    }

    /// Weights `[kept, size]` of an axis: the filter at the distance of every pixel from the place of every resized one, in
    /// units of the filter, which widens with the reduction; every row adds up to 1.
    fn filter_weights(&mut self, axis: &Axis, kept: usize, filter: Interpolation) -> Value {
        let middles: Vec<i64> = (0..kept as i64).map(|place| 2 * place + 1).collect();
        let middles = self.constant("sizes", &[kept, 1], Numbers::Index(middles));
        let [zero, one, two] = [0, 1, 2].map(|number| self.whole(number));
        // Twice the middle of each place, times the size of the image.
        let border = self.apply("Mul", &[&axis.border.name, &two], &[], &[]);
        let places = self.apply("Add", &[&border.name, &middles], &[], &[]);
        let places = self.apply("Mul", &[&places.name, &axis.size.name], &[], &[]);
        // Twice the middle of each pixel, times the size of the resized image.
        let pixels = self.apply("Range", &[&zero, &axis.size.name, &one], &[], &[]);
        let pixels = self.apply("Mul", &[&pixels.name, &two], &[], &[]);
        let pixels = self.apply("Add", &[&pixels.name, &one], &[], &[]);
        let pixels = self.apply("Mul", &[&pixels.name, &axis.resized.name], &[], &[]);
        let distance = self.apply("Sub", &[&places.name, &pixels.name], &[], &[]);
        let distance = self.cast(&distance, FLOAT);
        let distance = self.apply("Abs", &[&distance.name], &[], &[]);
        let unit = self.apply("Max", &[&axis.size.name, &axis.resized.name], &[], &[]);
        let unit = self.apply("Mul", &[&unit.name, &two], &[], &[]);
        let unit = self.cast(&unit, FLOAT);
        let distance = self.apply("Div", &[&distance.name, &unit.name], &[], &[]);
        let weights = self.filter(&distance, filter);
        let sum = self.reduce("ReduceSum", &weights, -1, &[]);
        self.apply("Div", &[&weights.name, &sum.name], &[], &[])
    }

    /// The value of a filter at distances of at least 0.
    fn filter(&mut self, distance: &Value, filter: Interpolation) -> Value {
        match filter {
            Interpolation::Bilinear => {
                let one = self.scalar(1.0);
                let weights = self.apply("Sub", &[&one, &distance.name], &[], &[]);
                self.apply("Relu", &[&weights.name], &[], &[])
            }
            Interpolation::Bicubic => {
                let near = self.polynomial(distance, &[1.5, -2.5, 0.0, 1.0]);
                let far = self.polynomial(distance, &[-0.5, 2.5, -4.0, 2.0]);
                let weights = self.below(distance, 1.0, &near.name, &far.name);
                let nothing = self.scalar(0.0);
                self.below(distance, 2.0, &weights.name, &nothing)
            }
            Interpolation::Lanczos => {
                let least = self.scalar(1e-6);
                let safe = self.apply("Max", &[&distance.name, &least], &[], &[]);
                let narrow = self.sinc(&safe, std::f32::consts::PI);
                let wide = self.sinc(&safe, std::f32::consts::PI / 3.0);
                let weights = self.apply("Mul", &[&narrow.name, &wide.name], &[], &[]);
                let nothing = self.scalar(0.0);
                self.below(distance, 3.0, &weights.name, &nothing)
            }
        }
    }

    /// A polynomial by Horner's rule, the highest power first.
    fn polynomial(&mut self, x: &Value, coefficients: &[f32]) -> Value {
        let first = self.scalar(coefficients[0]);
        let mut sum = self.apply("Mul", &[&x.name, &first], &[], &[]);
        for (index, &coefficient) in coefficients[1..].iter().enumerate() {
            let coefficient = self.scalar(coefficient);
            sum = self.apply("Add", &[&sum.name, &coefficient], &[], &[]);
            if index + 2 < coefficients.len() {
                sum = self.apply("Mul", &[&sum.name, &x.name], &[], &[]);
            }
        }
        sum
    }

    /// `sin(factor x) / (factor x)`.
    fn sinc(&mut self, x: &Value, factor: f32) -> Value {
        let factor = self.scalar(factor);
        let angle = self.apply("Mul", &[&x.name, &factor], &[], &[]);
        let sine = self.apply("Sin", &[&angle.name], &[], &[]);
        self.apply("Div", &[&sine.name, &angle.name], &[], &[])
    }

    /// One tensor where `x` is below a bound, another elsewhere.
    fn below(&mut self, x: &Value, bound: f32, yes: &str, no: &str) -> Value {
        let bound = self.scalar(bound);
        let inside = self.apply("Less", &[&x.name, &bound], &[], &[]);
        self.apply("Where", &[&inside.name, yes, no], &[], &[])
    }

    /// Whole levels from 0 to 255, halves up.
    fn levels(&mut self, x: &Value) -> Value {
        let (half, least, most) = (self.scalar(0.5), self.scalar(0.0), self.scalar(255.0));
        let raised = self.apply("Add", &[&x.name, &half], &[], &x.shape);
        let whole = self.apply("Floor", &[&raised.name], &[], &x.shape);
        self.apply("Clip", &[&whole.name, &least, &most], &[], &x.shape)
    }

    fn whole(&mut self, number: i64) -> String {
        self.constant("size", &[], Numbers::Index(vec![number]))
    }

    fn cast(&mut self, x: &Value, data_type: i64) -> Value {
        self.apply("Cast", &[&x.name], &[("to", Integer(data_type))], &x.shape)
    }
}
