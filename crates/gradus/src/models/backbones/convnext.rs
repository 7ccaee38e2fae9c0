//! ConvNeXt-Tiny.

use gradus_onnx::{Graph, Value};

use super::{Backbone, BackboneInfo, Family, IMAGENET_NORMALISATION, NoOptions, Weights};
use crate::initial;
use crate::models::graph::numbers;
use crate::models::layer_norm::LayerNorm;
use crate::models::layers::{Builder, Conv2d, ConvSpec, Initial, Mode, Zeros};
use crate::models::transformer::Perceptron;
use crate::tensor::{Module, Param, Tensor};

/// Its line in the registry. There is no stochastic depth (the published recipes train with 0.1).
pub const INFO: BackboneInfo = BackboneInfo {
    name: "convnext-tiny",
    paper: "Liu et al., A ConvNet for the 2020s, 2022",
    default_size: 224,
    minimum_size: 32,
    size_step: 1,
    feature_width: 768,
    normalisation: IMAGENET_NORMALISATION,
    families: &[Family::Torchvision, Family::Timm, Family::Authors],
    weights: &[
        Weights {
            address: "https://download.pytorch.org/models/convnext_tiny-983f1562.pth",
            family: Family::Torchvision,
            licence: "BSD-3-Clause (torchvision)",
            about: "ImageNet-1k",
        },
        Weights {
            address: "https://dl.fbaipublicfiles.com/convnext/convnext_tiny_1k_224_ema.pth",
            family: Family::Authors,
            licence: "MIT (facebookresearch/ConvNeXt)",
            about: "ImageNet-1k, the authors'",
        },
        Weights {
            address: "https://huggingface.co/timm/convnext_tiny.in12k_ft_in1k",
            family: Family::Timm,
            licence: "Apache-2.0 (timm)",
            about: "ImageNet-12k, then 1k",
        },
    ],
};

/// Channels and blocks of each stage.
const STAGES: [(usize, usize); 4] = [(96, 3), (192, 3), (384, 9), (768, 3)];

/// A convolution of stride as large as its kernel: non-overlapping patches.
fn patches(name: &str, input: usize, output: usize, side: usize, builder: &Builder<'_>) -> Conv2d {
    let spec = ConvSpec {
        bias: true,
        zeros: Zeros::Around(0),
        initial: Initial::Deviation(0.02),
        ..ConvSpec::new(input, output, side).stride(side)
    };
    builder.conv(name, spec)
}

/// Normalised channels, then patches of 2x2 pixels.
#[derive(Module, Debug)]
pub struct Downsample {
    norm: LayerNorm,
    conv: Conv2d,
}

/// 7x7 on each channel, layer normalisation, a perceptron over channels, a factor per channel, added to the input.
#[derive(Module, Debug)]
pub struct ConvnextBlock {
    /// Before the first block of a stage.
    downsample: Option<Downsample>,
    depthwise: Conv2d,
    norm: LayerNorm,
    mlp: Perceptron,
    gamma: Param<Tensor<1>>,
}

impl ConvnextBlock {
    fn new(name: &str, input: usize, width: usize, builder: &Builder<'_>) -> Self {
        let depthwise = ConvSpec {
            groups: width,
            bias: true,
            initial: Initial::Deviation(0.02),
            ..ConvSpec::new(width, width, 7)
        };
        Self {
            downsample: (input != width).then(|| Downsample {
                norm: LayerNorm::new(input, builder),
                conv: patches(&format!("{name}.downsample.conv"), input, width, 2, builder),
            }),
            depthwise: builder.conv(&format!("{name}.depthwise"), depthwise),
            norm: LayerNorm::new(width, builder),
            mlp: Perceptron::new(&format!("{name}.mlp"), width, builder),
            gamma: initial::constant([width], 1e-6, builder.device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = match &self.downsample {
            Some(downsample) => downsample.conv.forward(downsample.norm.forward_channels(x)),
            None => x,
        };
        let filtered = self.depthwise.forward(x.clone()).permute([0, 2, 3, 1]);
        let shape = filtered.dims();
        let rows: Tensor<2> = filtered.reshape([shape[0] * shape[1] * shape[2], shape[3]]);
        let changed = self.mlp.forward(self.norm.forward(rows)) * self.gamma.val().unsqueeze::<2>();
        x + changed.reshape(shape).permute([0, 3, 1, 2])
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let x = match &self.downsample {
            Some(downsample) => {
                let normalised = downsample.norm.graph_channels(graph, x);
                downsample.conv.graph(graph, normalised)
            }
            None => x,
        };
        let filtered = self.depthwise.graph(graph, x.clone());
        let filtered = graph.transpose(filtered, &[1, 2, 0]);
        let normalised = self.norm.graph(graph, filtered);
        let changed = self.mlp.graph(graph, normalised);
        let changed = graph.multiply_constant(changed, &numbers(self.gamma.val()));
        let changed = graph.transpose(changed, &[2, 0, 1]);
        graph.add(x, changed)
    }
}

/// ConvNeXt-Tiny without its classifier. Liu et al., 2022.
#[derive(Module, Debug)]
pub struct Convnext {
    stem: Conv2d,
    stem_norm: LayerNorm,
    layers: Vec<ConvnextBlock>,
    norm: LayerNorm,
}

impl Convnext {
    /// Builds the network.
    #[must_use]
    pub fn new(_options: &NoOptions, builder: &Builder<'_>) -> Self {
        let mut input = STAGES[0].0;
        let mut layers = Vec::new();
        for (width, blocks) in STAGES {
            for _ in 0..blocks {
                layers.push(ConvnextBlock::new(
                    &format!("layers.{}", layers.len()),
                    input,
                    width,
                    builder,
                ));
                input = width;
            }
        }
        Self {
            stem: patches("stem", 3, STAGES[0].0, 4, builder),
            stem_norm: LayerNorm::new(STAGES[0].0, builder),
            layers,
            norm: LayerNorm::new(input, builder),
        }
    }
}

impl Backbone for Convnext {
    fn blocks(&self) -> usize {
        self.layers.len() + 1
    }

    fn width(&self) -> usize {
        INFO.feature_width
    }

    fn block(&self, index: usize, x: Tensor<4>, _mode: Mode) -> Tensor<4> {
        match index {
            0 => self.stem_norm.forward_channels(self.stem.forward(x)),
            _ => self.layers[index - 1].forward(x),
        }
    }

    // All published features are normalised behind the mean over positions.
    fn after_pooling(&self, pooled: Tensor<2>) -> Tensor<2> {
        self.norm.forward(pooled)
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let x = self.stem.graph(graph, images);
        let x = self.stem_norm.graph_channels(graph, x);
        self.layers.iter().fold(x, |x, layer| layer.graph(graph, x))
    }

    fn graph_after_pooling(&self, graph: &mut Graph, pooled: Value) -> Value {
        self.norm.graph(graph, pooled)
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        if name.starts_with("stem") {
            Some(0)
        } else if name.starts_with("norm.") {
            Some(self.layers.len())
        } else {
            super::number_after(name, "layers.").map(|layer| layer + 1)
        }
    }

    fn file_names(&self, name: &str) -> Vec<String> {
        let parts: Vec<&str> = name.split('.').collect();
        let named = |torchvision: String, timm: String, authors: String| vec![torchvision, timm, authors];
        match parts.as_slice() {
            [stem @ ("stem" | "stem_norm"), value] => {
                let half = usize::from(*stem == "stem_norm");
                named(
                    format!("features.0.{half}.{value}"),
                    format!("stem.{half}.{value}"),
                    format!("downsample_layers.0.{half}.{value}"),
                )
            }
            ["norm", value] => named(
                format!("classifier.0.{value}"),
                format!("head.norm.{value}"),
                format!("norm.{value}"),
            ),
            ["layers", layer, rest @ ..] => {
                let Some((stage, block)) = layer.parse().ok().and_then(stage_of) else {
                    return Vec::new();
                };
                if let ["downsample", part, value] = rest {
                    let half = usize::from(*part == "conv");
                    return named(
                        format!("features.{}.{half}.{value}", 2 * stage),
                        format!("stages.{stage}.downsample.{half}.{value}"),
                        format!("downsample_layers.{stage}.{half}.{value}"),
                    );
                }
                // What the block's parts are called in the three families.
                let (torchvision, timm, authors) = match rest {
                    ["gamma"] => ("layer_scale", "gamma", "gamma"),
                    ["depthwise", _] => ("block.0", "conv_dw", "dwconv"),
                    ["norm", _] => ("block.2", "norm", "norm"),
                    ["mlp", "fc1", _] => ("block.3", "mlp.fc1", "pwconv1"),
                    _ => ("block.5", "mlp.fc2", "pwconv2"),
                };
                let value = match rest {
                    ["gamma"] => String::new(),
                    _ => format!(".{}", rest[rest.len() - 1]),
                };
                named(
                    format!("features.{}.{block}.{torchvision}{value}", 2 * stage + 1),
                    format!("stages.{stage}.blocks.{block}.{timm}{value}"),
                    format!("stages.{stage}.{block}.{authors}{value}"),
                )
            }
            _ => Vec::new(),
        }
    }

    fn file_shape(&self, family: Family, name: &str, shape: &[usize]) -> Vec<usize> {
        if family == Family::Torchvision && name.ends_with(".gamma") {
            return vec![shape[0], 1, 1];
        }
        shape.to_vec()
    }
}

/// Stage of a block and its number there.
fn stage_of(layer: usize) -> Option<(usize, usize)> {
    let mut before = 0;
    for (stage, (_, blocks)) in STAGES.iter().enumerate() {
        if layer < before + blocks {
            return Some((stage, layer - before));
        }
        before += blocks;
    }
    None
}
