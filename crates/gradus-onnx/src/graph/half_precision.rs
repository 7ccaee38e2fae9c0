//! Weights stored in half precision.

use half::f16;

use super::{Attribute, Graph, Node, Numbers};

/// Smaller constants stay as they are: they save nothing.
const LEAST_NUMBERS: usize = 64;

/// The element type that everything is computed in.
const FLOAT: i64 = 1;

impl Graph {
    /// The same graph with its weights stored in half precision and cast to single precision before use: half the file, the
    /// same arithmetic. Constants with a number that half precision cannot hold (above 65504) stay as they are.
    #[must_use]
    pub fn with_half_weights(mut self) -> Self {
        let mut casts = Vec::new();
        for constant in &mut self.constants {
            let Numbers::Float(numbers) = &constant.numbers else {
                continue;
            };
            let halves: Vec<f16> = numbers.iter().map(|&number| f16::from_f32(number)).collect();
            if numbers.len() < LEAST_NUMBERS || halves.iter().any(|half| !half.is_finite()) {
                continue;
            }
            let stored = format!("{}_half", constant.name);
            casts.push(Node {
                operator: "Cast",
                inputs: vec![stored.clone()],
                output: std::mem::replace(&mut constant.name, stored),
                attributes: vec![("to", Attribute::Integer(FLOAT))],
            });
            constant.numbers = Numbers::Half(halves);
        }
        casts.append(&mut self.nodes);
        self.nodes = casts;
        self
    }
}
