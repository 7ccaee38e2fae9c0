//! The embedding head: from pooled features to unit vectors.

use gradus_kernels::{Conv2dOptions, linear};
use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::ModelError;
use super::convolutions::{self, Convolution};
use super::graph::numbers;
use super::layers::Builder;
use crate::initial;
use crate::numerics::normalize;
use crate::tensor::{Device, Module, Param, Tensor, TensorData, activation::relu};

/// The form of the embedding head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum HeadConfig {
    /// One linear layer, as in Proxy-Anchor and most of the literature.
    #[default]
    Linear,
    /// Linear, ReLU, linear.
    Mlp {
        /// Width between the two layers.
        hidden: usize,
    },
    /// A linear layer plus linear, ReLU, linear: starts as the linear head, with principal components if wanted, and learns what that
    /// cannot do.
    Residual {
        /// Width between the two layers.
        hidden: usize,
    },
}

/// A linear map with bias, stored as PyTorch stores it.
///
/// # Shapes
/// `weight` `[output, input]`, `bias` `[output]`; `[batch, input]` to `[batch, output]`.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Linear {
    pub(crate) fn new(name: &str, input: usize, output: usize, seed: u64, device: &Device) -> Self {
        // PyTorch's default: both uniform within 1 / sqrt(inputs).
        let bound = 1.0 / (input as f64).sqrt();
        Self {
            weight: initial::uniform([output, input], bound, seed, &format!("{name}.weight"), device),
            bias: initial::uniform([output], bound, seed, &format!("{name}.bias"), device),
        }
    }

    /// Weights normal, bias 0: how transformers start.
    pub(crate) fn normal(name: &str, input: usize, output: usize, deviation: f64, builder: &Builder<'_>) -> Self {
        Self {
            weight: builder.normal([output, input], deviation, &format!("{name}.weight")),
            bias: initial::constant([output], 0.0, builder.device),
        }
    }

    /// The map to zero, trained away from there.
    fn zero(input: usize, output: usize, device: &Device) -> Self {
        let zeros = |count: usize| vec![0.0_f32; count];
        Self {
            weight: Param::from_tensor(Tensor::from_data(
                TensorData::new(zeros(output * input), [output, input]),
                device,
            )),
            bias: Param::from_tensor(Tensor::from_data(TensorData::new(zeros(output), [output]), device)),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        linear(x, self.weight.val(), self.bias.val())
    }

    /// The same at every position of a map or every token, where it is a convolution of 1x1 pixels and counts as one.
    pub(crate) fn forward_positions(&self, x: Tensor<2>) -> Tensor<2> {
        let [positions, input] = x.dims();
        convolutions::tell(|| Convolution {
            input,
            output: self.bias.dims()[0],
            kernel: 1,
            size: [positions, 1],
            output_size: [positions, 1],
            options: Conv2dOptions::default(),
        });
        self.forward(x)
    }

    /// The layer as ONNX operators, on the last axis.
    pub(crate) fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        graph.linear(x, &numbers(self.weight.val()), Some(&numbers(self.bias.val())))
    }
}

/// Linear, ReLU, linear.
#[derive(Module, Debug)]
pub struct Mlp {
    first: Linear,
    second: Linear,
}

/// A linear layer with an MLP beside it.
#[derive(Module, Debug)]
pub struct Residual {
    direct: Linear,
    first: Linear,
    second: Linear,
}

/// The embedding head of a network.
// There is one per network and Burn has no boxed modules, so the size of the variants does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Head {
    /// One linear layer.
    Linear(Linear),
    /// Two layers with a ReLU between.
    Mlp(Mlp),
    /// One layer, and two with a ReLU between, added up.
    Residual(Residual),
}

impl Head {
    /// Builds the head from `features` inputs to `width` outputs.
    #[must_use]
    pub fn new(config: HeadConfig, features: usize, width: usize, seed: u64, device: &Device) -> Self {
        match config {
            HeadConfig::Linear => Self::Linear(Linear::new("head", features, width, seed, device)),
            HeadConfig::Mlp { hidden } => Self::Mlp(Mlp {
                first: Linear::new("head.first", features, hidden, seed, device),
                second: Linear::new("head.second", hidden, width, seed, device),
            }),
            HeadConfig::Residual { hidden } => Self::Residual(Residual {
                direct: Linear::new("head.direct", features, width, seed, device),
                first: Linear::new("head.first", features, hidden, seed, device),
                second: Linear::zero(hidden, width, device),
            }),
        }
    }

    /// Embeds `[batch, features]` as rows of unit norm `[batch, width]`.
    #[must_use]
    pub fn forward(&self, features: Tensor<2>) -> Tensor<2> {
        let embeddings = match self {
            Self::Linear(linear) => linear.forward(features),
            Self::Mlp(mlp) => mlp.second.forward(relu(mlp.first.forward(features))),
            Self::Residual(residual) => {
                let beside = residual.second.forward(relu(residual.first.forward(features.clone())));
                residual.direct.forward(features) + beside
            }
        };
        normalize(embeddings)
    }

    /// The head as ONNX operators: from `[features]` to `[width]` of unit norm.
    pub fn graph(&self, graph: &mut Graph, features: Value) -> Value {
        let beside = |first: &Linear, second: &Linear, graph: &mut Graph, x: Value| {
            let hidden = first.graph(graph, x);
            let hidden = graph.relu(hidden);
            second.graph(graph, hidden)
        };
        let embeddings = match self {
            Self::Linear(linear) => linear.graph(graph, features),
            Self::Mlp(mlp) => beside(&mlp.first, &mlp.second, graph, features),
            Self::Residual(residual) => {
                let direct = residual.direct.graph(graph, features.clone());
                let beside = beside(&residual.first, &residual.second, graph, features);
                graph.add(direct, beside)
            }
        };
        graph.unit_length(embeddings)
    }

    /// Weight `[width, features]`, row-major, and bias `[width]` of a linear head; none where it is not linear.
    #[must_use]
    pub fn linear(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        match self {
            Self::Linear(linear) => Some((numbers(linear.weight.val()), numbers(linear.bias.val()))),
            Self::Mlp(_) | Self::Residual(_) => None,
        }
    }

    /// Width of the embedding.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Linear(linear) => linear.bias.dims()[0],
            Self::Mlp(mlp) => mlp.second.bias.dims()[0],
            Self::Residual(residual) => residual.direct.bias.dims()[0],
        }
    }

    /// Sets the map of a linear head (of a residual one, its linear part), row-major `[width, features]`, and its bias.
    ///
    /// # Errors
    /// If the head is an MLP or the numbers do not fill it.
    pub fn with_linear(self, weight: &[f32], bias: &[f32]) -> Result<Self, ModelError> {
        let (linear, residual) = match self {
            Self::Linear(linear) => (linear, None),
            Self::Residual(residual) => (residual.direct, Some((residual.first, residual.second))),
            Self::Mlp(_) => {
                return Err(ModelError::Config(
                    "The embedding head is an MLP, which has no principal-component start. Set `model.initial` to \
                     \"random\", or use the linear or the residual head."
                        .to_owned(),
                ));
            }
        };
        let [output, input] = linear.weight.dims();
        if weight.len() != output * input || bias.len() != output {
            return Err(ModelError::Config(format!(
                "A linear head of {input} features and width {output} takes {} weights and {output} biases, but {} and \
                 {} were given.",
                output * input,
                weight.len(),
                bias.len()
            )));
        }
        let direct = Linear {
            weight: replaced(linear.weight, TensorData::new(weight.to_vec(), [output, input])),
            bias: replaced(linear.bias, TensorData::new(bias.to_vec(), [output])),
        };
        Ok(match residual {
            Some((first, second)) => Self::Residual(Residual { direct, first, second }),
            None => Self::Linear(direct),
        })
    }
}

fn replaced<const D: usize>(param: Param<Tensor<D>>, data: TensorData) -> Param<Tensor<D>> {
    param.map(|old| Tensor::from_data(data, &old.device()).set_require_grad(old.is_require_grad()))
}
