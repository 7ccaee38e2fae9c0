//! EfficientNet-B0.

use gradus_kernels::Activation;
use gradus_onnx::{Graph, Value};

use super::{Backbone, BackboneInfo, Family, IMAGENET_NORMALISATION, NoOptions, Weights};
use crate::models::activations::silu;
use crate::models::layers::{Builder, Conv2d, ConvNorm, ConvSpec, Mode};
use crate::tensor::{Module, Tensor, activation::sigmoid};

/// Its line in the registry. There is no stochastic depth (torchvision trains with 0.2).
pub const INFO: BackboneInfo = BackboneInfo {
    name: "efficientnet-b0",
    paper: "Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019",
    default_size: 224,
    minimum_size: 32,
    size_step: 1,
    feature_width: 1280,
    normalisation: IMAGENET_NORMALISATION,
    families: &[Family::Torchvision, Family::Timm],
    weights: &[
        Weights {
            address: "https://download.pytorch.org/models/efficientnet_b0_rwightman-7f5810bc.pth",
            family: Family::Torchvision,
            licence: "BSD-3-Clause (torchvision)",
            about: "ImageNet-1k",
        },
        Weights {
            address: "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/efficientnet_b0_ra-3dd342df.pth",
            family: Family::Timm,
            licence: "Apache-2.0 (timm)",
            about: "ImageNet-1k, RandAugment",
        },
    ],
};

/// Expansion, kernel, channels, number of blocks and first stride of each stage (table 1 of the paper).
const STAGES: [(usize, usize, usize, usize, usize); 7] = [
    (1, 3, 16, 1, 1),
    (6, 3, 24, 2, 2),
    (6, 5, 40, 2, 2),
    (6, 3, 80, 3, 2),
    (6, 5, 112, 3, 1),
    (6, 5, 192, 4, 2),
    (6, 3, 320, 1, 1),
];

/// Weights of channels from the mean of the map. Hu et al., "Squeeze-and-Excitation Networks", 2017.
#[derive(Module, Debug)]
pub struct SqueezeExcitation {
    reduce: Conv2d,
    expand: Conv2d,
}

impl SqueezeExcitation {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let mean = x.clone().mean_dim(3).mean_dim(2);
        x * sigmoid(self.expand.forward(silu(self.reduce.forward(mean))))
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let mean = graph.global_average(x.clone());
        let reduced = self.reduce.graph(graph, mean);
        let reduced = graph.silu(reduced);
        let gate = self.expand.graph(graph, reduced);
        let gate = graph.sigmoid(gate);
        graph.gate(x, gate)
    }
}

/// Expand by 1x1, filter each channel, weigh the channels, project by 1x1; added to the input where shapes allow.
#[derive(Module, Debug)]
pub struct MobileBlock {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    excitation: SqueezeExcitation,
    project: ConvNorm,
    added: bool,
}

impl MobileBlock {
    fn forward(&self, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        let smooth = |layer: &ConvNorm, x: Tensor<4>| silu(layer.forward(x, mode, Activation::None));
        let expanded = match &self.expand {
            Some(expand) => smooth(expand, x.clone()),
            None => x.clone(),
        };
        let weighed = self.excitation.forward(smooth(&self.depthwise, expanded));
        if self.added {
            self.project.forward_add(weighed, x, mode, Activation::None)
        } else {
            self.project.forward(weighed, mode, Activation::None)
        }
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let expanded = match &self.expand {
            Some(expand) => smooth_graph(expand, graph, x.clone()),
            None => x.clone(),
        };
        let filtered = smooth_graph(&self.depthwise, graph, expanded);
        let weighed = self.excitation.graph(graph, filtered);
        if self.added {
            self.project.graph_add(graph, weighed, x, Activation::None)
        } else {
            self.project.graph(graph, weighed, Activation::None)
        }
    }
}

fn smooth_graph(layer: &ConvNorm, graph: &mut Graph, x: Value) -> Value {
    let x = layer.graph(graph, x, Activation::None);
    graph.silu(x)
}

/// EfficientNet-B0 without its classifier. Tan and Le, 2019.
#[derive(Module, Debug)]
pub struct Efficientnet {
    stem: ConvNorm,
    layers: Vec<MobileBlock>,
    last: ConvNorm,
}

impl Efficientnet {
    /// Builds the network.
    #[must_use]
    pub fn new(_options: &NoOptions, builder: &Builder<'_>) -> Self {
        let mut input = 32;
        let mut layers = Vec::new();
        for (expansion, kernel, output, repeats, first_stride) in STAGES {
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let (hidden, squeezed) = (input * expansion, input / 4);
                let name = |part: &str| format!("layers.{}.{part}", layers.len());
                let depthwise = ConvSpec {
                    groups: hidden,
                    ..ConvSpec::new(hidden, hidden, kernel).stride(stride)
                };
                let with_bias = |spec: ConvSpec| ConvSpec { bias: true, ..spec };
                layers.push(MobileBlock {
                    expand: (expansion != 1)
                        .then(|| builder.conv_norm(&name("expand"), ConvSpec::new(input, hidden, 1))),
                    depthwise: builder.conv_norm(&name("depthwise"), depthwise),
                    excitation: SqueezeExcitation {
                        reduce: builder.conv(
                            &name("excitation.reduce"),
                            with_bias(ConvSpec::new(hidden, squeezed, 1)),
                        ),
                        expand: builder.conv(
                            &name("excitation.expand"),
                            with_bias(ConvSpec::new(squeezed, hidden, 1)),
                        ),
                    },
                    project: builder.conv_norm(&name("project"), ConvSpec::new(hidden, output, 1)),
                    added: stride == 1 && input == output,
                });
                input = output;
            }
        }
        Self {
            stem: builder.conv_norm("stem", ConvSpec::new(3, 32, 3).stride(2)),
            layers,
            last: builder.conv_norm("last", ConvSpec::new(input, INFO.feature_width, 1)),
        }
    }
}

impl Backbone for Efficientnet {
    fn blocks(&self) -> usize {
        self.layers.len() + 2
    }

    fn width(&self) -> usize {
        INFO.feature_width
    }

    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        match index {
            0 => silu(self.stem.forward(x, mode, Activation::None)),
            index if index <= self.layers.len() => self.layers[index - 1].forward(x, mode),
            _ => silu(self.last.forward(x, mode, Activation::None)),
        }
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let x = smooth_graph(&self.stem, graph, images);
        let x = self.layers.iter().fold(x, |x, layer| layer.graph(graph, x));
        smooth_graph(&self.last, graph, x)
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        if name.starts_with("stem.") {
            Some(0)
        } else if name.starts_with("last.") {
            Some(self.layers.len() + 1)
        } else {
            super::number_after(name, "layers.").map(|layer| layer + 1)
        }
    }

    fn file_names(&self, name: &str) -> Vec<String> {
        let parts: Vec<&str> = name.split('.').collect();
        let half = |kind: &str| usize::from(kind != "conv");
        match parts.as_slice() {
            ["stem", kind, value] => {
                let timm = ["conv_stem", "bn1"][half(kind)];
                vec![format!("features.0.{}.{value}", half(kind)), format!("{timm}.{value}")]
            }
            ["last", kind, value] => {
                let timm = ["conv_head", "bn2"][half(kind)];
                let torchvision = format!("features.{}.{}.{value}", STAGES.len() + 1, half(kind));
                vec![torchvision, format!("{timm}.{value}")]
            }
            ["layers", layer, part, kind, value] => {
                let Some((stage, repeat)) = layer.parse().ok().and_then(stage_of) else {
                    return Vec::new();
                };
                // Both number the parts in order; the first block, which does not expand, starts one earlier.
                let skipped = usize::from(stage == 0);
                let (position, norm) = match *part {
                    "expand" => (0, 1),
                    "depthwise" => (1 - skipped, 2 - skipped),
                    "excitation" => (2 - skipped, 0),
                    _ => (3 - skipped, 3 - skipped),
                };
                let inside = match (*part, *kind) {
                    ("excitation", "reduce") => "fc1".to_owned(),
                    ("excitation", _) => "fc2".to_owned(),
                    _ => half(kind).to_string(),
                };
                let timm = match (*part, *kind) {
                    ("excitation", kind) => format!("se.conv_{kind}"),
                    (_, "norm") => format!("bn{norm}"),
                    ("depthwise", _) => "conv_dw".to_owned(),
                    ("project", _) if stage > 0 => "conv_pwl".to_owned(),
                    _ => "conv_pw".to_owned(),
                };
                vec![
                    format!("features.{}.{repeat}.block.{position}.{inside}.{value}", stage + 1),
                    format!("blocks.{stage}.{repeat}.{timm}.{value}"),
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// Stage of a layer and its number there.
fn stage_of(layer: usize) -> Option<(usize, usize)> {
    let mut before = 0;
    for (stage, (_, _, _, repeats, _)) in STAGES.iter().enumerate() {
        if layer < before + repeats {
            return Some((stage, layer - before));
        }
        before += repeats;
    }
    None
}
