//! What vision transformers are made of: self-attention and a perceptron around residual sums.

use gradus_onnx::{Graph, Value};

use super::activations::gelu;
use super::graph::numbers;
use super::head::Linear;
use super::layer_norm::LayerNorm;
use super::layers::Builder;
use crate::initial;
use crate::tensor::{Module, Param, Tensor, activation::softmax};

/// Standard deviation of the initial weights of linear layers, as in timm and DINO.
pub(crate) const DEVIATION: f64 = 0.02;

/// Self-attention over tokens. Vaswani et al., "Attention Is All You Need", 2017.
///
/// `softmax(q kᵀ / sqrt(width / heads)) v` in each head, then a linear map of the heads side by side.
///
/// # Shapes
/// `qkv` `[3 width, width]` (queries, keys, values one below the other, each cut into heads), `proj` `[width, width]`;
/// rows `[batch * tokens, width]` to the same.
#[derive(Module, Debug)]
pub struct Attention {
    qkv: Linear,
    proj: Linear,
    heads: usize,
}

impl Attention {
    fn new(name: &str, width: usize, heads: usize, builder: &Builder<'_>) -> Self {
        Self {
            qkv: Linear::normal(&format!("{name}.qkv"), width, 3 * width, DEVIATION, builder),
            proj: Linear::normal(&format!("{name}.proj"), width, width, DEVIATION, builder),
            heads,
        }
    }

    fn forward(&self, rows: Tensor<2>, batch: usize) -> Tensor<2> {
        let [count, width] = rows.dims();
        let (tokens, each) = (count / batch, width / self.heads);
        let joint: Tensor<3> = self.qkv.forward_positions(rows).reshape([batch, tokens, 3 * width]);
        // [batch, heads, tokens, width of a head]
        let part = |index: usize| -> Tensor<4> {
            joint
                .clone()
                .narrow(2, index * width, width)
                .reshape([batch, tokens, self.heads, each])
                .swap_dims(1, 2)
        };
        let queries = part(0).mul_scalar((each as f64).powf(-0.5));
        let weights = softmax(queries.matmul(part(1).swap_dims(2, 3)), 3);
        let values = weights.matmul(part(2)).swap_dims(1, 2).reshape([count, width]);
        self.proj.forward_positions(values)
    }

    fn graph(&self, graph: &mut Graph, tokens: Value) -> Value {
        let joint = self.qkv.graph(graph, tokens);
        let values = graph.attention(joint, self.heads);
        self.proj.graph(graph, values)
    }
}

/// Linear to four times the width, GELU, linear.
#[derive(Module, Debug)]
pub struct Perceptron {
    fc1: Linear,
    fc2: Linear,
}

impl Perceptron {
    pub(crate) fn new(name: &str, width: usize, builder: &Builder<'_>) -> Self {
        Self {
            fc1: Linear::normal(&format!("{name}.fc1"), width, 4 * width, DEVIATION, builder),
            fc2: Linear::normal(&format!("{name}.fc2"), 4 * width, width, DEVIATION, builder),
        }
    }

    pub(crate) fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        self.fc2.forward_positions(gelu(self.fc1.forward_positions(rows)))
    }

    /// The three as ONNX operators, on the last axis.
    pub(crate) fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let hidden = self.fc1.graph(graph, x);
        let hidden = graph.gelu(hidden);
        self.fc2.graph(graph, hidden)
    }
}

/// A factor for every channel of a residual branch. Touvron et al., "Going Deeper with Image Transformers", 2021.
#[derive(Module, Debug)]
pub struct LayerScale {
    gamma: Param<Tensor<1>>,
}

impl LayerScale {
    fn new(width: usize, start: f32, builder: &Builder<'_>) -> Self {
        Self {
            gamma: initial::constant([width], start, builder.device),
        }
    }

    fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        rows * self.gamma.val().unsqueeze::<2>()
    }
}

/// One block of a vision transformer, normalised before its branches: `x + attention(norm(x))`, then `x + perceptron(norm(x))`.
///
/// # Shapes
/// Tokens `[batch, 1, tokens, width]` to the same.
#[derive(Module, Debug)]
pub struct TransformerBlock {
    norm1: LayerNorm,
    attn: Attention,
    ls1: Option<LayerScale>,
    norm2: LayerNorm,
    mlp: Perceptron,
    ls2: Option<LayerScale>,
}

impl TransformerBlock {
    /// Builds the block; with a start, both branches have a factor per channel that starts there.
    #[must_use]
    pub fn new(name: &str, width: usize, heads: usize, layer_scale: Option<f32>, builder: &Builder<'_>) -> Self {
        let scale = || layer_scale.map(|start| LayerScale::new(width, start, builder));
        Self {
            norm1: LayerNorm::new(width, builder),
            attn: Attention::new(&format!("{name}.attn"), width, heads, builder),
            ls1: scale(),
            norm2: LayerNorm::new(width, builder),
            mlp: Perceptron::new(&format!("{name}.mlp"), width, builder),
            ls2: scale(),
        }
    }

    /// Applies the block.
    #[must_use]
    pub fn forward(&self, tokens: Tensor<4>) -> Tensor<4> {
        let shape = tokens.dims();
        let [batch, _, count, width] = shape;
        let scaled = |scale: &Option<LayerScale>, branch: Tensor<2>| match scale {
            Some(scale) => scale.forward(branch),
            None => branch,
        };
        let rows: Tensor<2> = tokens.reshape([batch * count, width]);
        let attended = self.attn.forward(self.norm1.forward(rows.clone()), batch);
        let rows = rows + scaled(&self.ls1, attended);
        let changed = self.mlp.forward(self.norm2.forward(rows.clone()));
        (rows + scaled(&self.ls2, changed)).reshape(shape)
    }

    /// The block as ONNX operators, on tokens `[tokens, width]`.
    pub fn graph(&self, graph: &mut Graph, tokens: Value) -> Value {
        let scaled = |scale: &Option<LayerScale>, graph: &mut Graph, branch: Value| match scale {
            Some(scale) => graph.multiply_constant(branch, &numbers(scale.gamma.val())),
            None => branch,
        };
        let normalised = self.norm1.graph(graph, tokens.clone());
        let attended = self.attn.graph(graph, normalised);
        let attended = scaled(&self.ls1, graph, attended);
        let tokens = graph.add(tokens, attended);
        let normalised = self.norm2.graph(graph, tokens.clone());
        let changed = self.mlp.graph(graph, normalised);
        let changed = scaled(&self.ls2, graph, changed);
        graph.add(tokens, changed)
    }
}
