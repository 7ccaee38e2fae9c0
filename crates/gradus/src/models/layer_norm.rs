//! Layer normalisation of rows, and of the channels of every pixel.

use gradus_onnx::{Graph, Value};

use super::graph::numbers;
use super::layers::Builder;
use crate::initial;
use crate::tensor::{Module, Param, Tensor, layer_norm};

/// Layer normalisation over the last axis. Ba et al., "Layer Normalization", 2016.
///
/// `(x - mean) / sqrt(variance + epsilon) * weight + bias`, mean and biased variance those of a row; epsilon 1e-6, as in
/// ConvNeXt and the vision transformers (PyTorch's default is 1e-5).
///
/// # Shapes
/// `weight`, `bias` `[width]`; `[.., width]` to the same.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl LayerNorm {
    const EPSILON: f64 = 1e-6;

    /// Of weight 1 and bias 0.
    #[must_use]
    pub fn new(width: usize, builder: &Builder<'_>) -> Self {
        Self {
            weight: initial::constant([width], 1.0, builder.device),
            bias: initial::constant([width], 0.0, builder.device),
        }
    }

    /// Normalises rows.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), Some(self.bias.val()), Self::EPSILON)
    }

    /// The normalisation of rows as an ONNX operator, on the last axis.
    pub fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let (weight, bias) = (numbers(self.weight.val()), numbers(self.bias.val()));
        graph.layer_norm(x, &weight, &bias, Self::EPSILON as f32)
    }

    /// The normalisation of the channels of every pixel as ONNX operators.
    pub fn graph_channels(&self, graph: &mut Graph, x: Value) -> Value {
        let last = graph.transpose(x, &[1, 2, 0]);
        let normalised = self.graph(graph, last);
        graph.transpose(normalised, &[2, 0, 1])
    }

    /// Normalises the channels of every pixel.
    ///
    /// # Shapes
    /// `[batch, channels, height, width]` to the same.
    #[must_use]
    pub fn forward_channels(&self, x: Tensor<4>) -> Tensor<4> {
        self.forward(x.permute([0, 2, 3, 1])).permute([0, 3, 1, 2])
    }
}
