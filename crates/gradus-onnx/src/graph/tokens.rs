//! Layers of transformers, on tokens `[tokens, width]`, and the ways between tokens and maps.

use super::Attribute::{Integer, Integers};
use super::{Graph, Value};

impl Graph {
    /// Another order of the axes behind the batch: `order` counts them from 0.
    pub fn transpose(&mut self, x: Value, order: &[usize]) -> Value {
        let shape: Vec<usize> = order.iter().map(|&axis| x.shape[axis]).collect();
        let mut axes = vec![0];
        axes.extend(order.iter().map(|&axis| axis as i64 + 1));
        self.apply("Transpose", &[&x.name], &[("perm", Integers(axes))], &shape)
    }

    /// The same numbers in another shape behind the batch.
    ///
    /// # Panics
    /// If it has another number of numbers.
    pub fn reshape(&mut self, x: Value, shape: &[usize]) -> Value {
        assert_eq!(
            x.shape.iter().product::<usize>(),
            shape.iter().product::<usize>(),
            "a shape of as many numbers"
        );
        // 0 keeps the batch as it is.
        let sizes: Vec<i64> = std::iter::once(0)
            .chain(shape.iter().map(|&size| size as i64))
            .collect();
        let sizes = self.indices(&sizes);
        self.apply("Reshape", &[&x.name, &sizes], &[], shape)
    }

    /// The positions of a map `[channels, height, width]` as tokens `[height * width, channels]`.
    pub fn tokens(&mut self, x: Value) -> Value {
        let (channels, positions) = (x.shape[0], x.shape[1] * x.shape[2]);
        let flat = self.reshape(x, &[channels, positions]);
        self.transpose(flat, &[1, 0])
    }

    /// Constant tokens before those of every image.
    ///
    /// # Shapes
    /// `tokens` `[count, width]`, `x` `[length, width]`, to `[count + length, width]`.
    pub fn prepend(&mut self, x: Value, tokens: &[f32]) -> Value {
        let width = x.shape[1];
        let count = tokens.len() / width;
        let tokens = self.floats("tokens", &[1, count, width], tokens);
        let sizes = self.apply("Shape", &[&x.name], &[], &[]);
        let [start, end, rest] = [&[0][..], &[1], &[count as i64, width as i64]].map(|numbers| self.indices(numbers));
        let batch = self.apply("Slice", &[&sizes.name, &start, &end], &[], &[]);
        let sizes = self.apply("Concat", &[&batch.name, &rest], &[("axis", Integer(0))], &[]);
        let shape = [count, width];
        let repeated = self.apply("Expand", &[&tokens, &sizes.name], &[], &shape);
        let shape = [count + x.shape[0], width];
        let parts = [repeated.name.as_str(), x.name.as_str()];
        self.apply("Concat", &parts, &[("axis", Integer(1))], &shape)
    }

    /// The tokens from `start` to `end`.
    pub fn select_tokens(&mut self, x: Value, start: usize, end: usize) -> Value {
        let [from, to, axis] = [start as i64, end as i64, 1].map(|number| self.indices(&[number]));
        let shape = [&[end - start], &x.shape[1..]].concat();
        self.apply("Slice", &[&x.name, &from, &to, &axis], &[], &shape)
    }

    /// The mean over tokens, `[width]`.
    pub fn mean_token(&mut self, x: Value) -> Value {
        let width = x.shape[1];
        let mean = self.reduce("ReduceMean", &x, 1, &[1, width]);
        self.reshape(mean, &[width])
    }

    /// A constant added to every image, such as position embeddings.
    ///
    /// # Shapes
    /// `numbers` fill the shape of `x`, or its last axis.
    pub fn add_constant(&mut self, x: Value, numbers: &[f32]) -> Value {
        let shape = self.fitting(&x, numbers.len());
        let constant = self.floats("offset", &shape, numbers);
        self.apply("Add", &[&x.name, &constant], &[], &x.shape)
    }

    /// A constant factor for every image, such as a layer scale.
    ///
    /// # Shapes
    /// `numbers` fill the shape of `x`, or its last axis.
    pub fn multiply_constant(&mut self, x: Value, numbers: &[f32]) -> Value {
        let shape = self.fitting(&x, numbers.len());
        let constant = self.floats("factor", &shape, numbers);
        self.apply("Mul", &[&x.name, &constant], &[], &x.shape)
    }

    fn fitting(&self, x: &Value, count: usize) -> Vec<usize> {
        if count == x.shape.iter().product::<usize>() {
            [&[1], &x.shape[..]].concat()
        } else {
            vec![count]
        }
    }

    /// Self-attention from queries, keys and values side by side: `softmax(q kᵀ / sqrt(width / heads)) v` in each head, the
    /// heads side by side.
    ///
    /// # Shapes
    /// `[tokens, 3 width]` to `[tokens, width]`.
    pub fn attention(&mut self, joint: Value, heads: usize) -> Value {
        let (tokens, width) = (joint.shape[0], joint.shape[1] / 3);
        let each = width / heads;
        let parts = self.reshape(joint, &[tokens, 3, heads, each]);
        // [3, heads, tokens, width of a head]
        let parts = self.transpose(parts, &[1, 2, 0, 3]);
        let mut part = |index: i64| {
            let number = self.constant("sizes", &[], super::Numbers::Index(vec![index]));
            let shape = [heads, tokens, each];
            self.apply("Gather", &[&parts.name, &number], &[("axis", Integer(1))], &shape)
        };
        let [queries, keys, values] = [part(0), part(1), part(2)];
        let scale = self.scalar((each as f32).powf(-0.5));
        let queries = self.apply("Mul", &[&queries.name, &scale], &[], &queries.shape);
        let keys = self.transpose(keys, &[0, 2, 1]);
        let square = [heads, tokens, tokens];
        let products = self.apply("MatMul", &[&queries.name, &keys.name], &[], &square);
        let weights = self.apply("Softmax", &[&products.name], &[("axis", Integer(-1))], &square);
        let summed = self.apply("MatMul", &[&weights.name, &values.name], &[], &values.shape);
        let rows = self.transpose(summed, &[1, 0, 2]);
        self.reshape(rows, &[tokens, width])
    }
}
