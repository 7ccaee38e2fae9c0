//! MobileNetV2 of any width, with torchvision's or TensorFlow's padding.

use gradus_kernels::Activation;
use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::{Backbone, BackboneInfo, BackboneOptions, Family, IMAGENET_NORMALISATION, Refused, Weights};
use crate::models::layers::{Builder, ConvNorm, ConvSpec, Mode, Zeros};
use crate::tensor::{Module, Tensor};

/// Its line in the registry.
pub const INFO: BackboneInfo = BackboneInfo {
    name: "mobilenet-v2",
    paper: "Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018",
    default_size: 224,
    minimum_size: 32,
    size_step: 1,
    feature_width: 1280,
    normalisation: IMAGENET_NORMALISATION,
    families: &[Family::Torchvision, Family::Timm],
    weights: &[
        Weights {
            address: "https://download.pytorch.org/models/mobilenet_v2-b0353104.pth",
            family: Family::Torchvision,
            licence: "BSD-3-Clause (torchvision)",
            about: "ImageNet-1k, first recipe",
        },
        Weights {
            address: "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth",
            family: Family::Torchvision,
            licence: "BSD-3-Clause (torchvision)",
            about: "ImageNet-1k, second recipe",
        },
    ],
};

/// Which side of an image gets the zeros of a convolution of stride 2.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Padding {
    /// One on every side.
    #[default]
    Torchvision,
    /// None at the top and left, one at the bottom and right (for even sizes): what weights that were trained in
    /// TensorFlow have seen.
    Tensorflow,
}

/// Options of [`MobilenetV2`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MobilenetV2Config {
    /// Factor on all channel numbers, which are then rounded to multiples of 8; default 1.
    pub width_multiplier: f64,
    /// Padding of the convolutions of stride 2; default torchvision's.
    pub padding: Padding,
}

impl Default for MobilenetV2Config {
    fn default() -> Self {
        Self {
            width_multiplier: 1.0,
            padding: Padding::Torchvision,
        }
    }
}

impl BackboneOptions for MobilenetV2Config {
    fn check(&self, _info: &BackboneInfo) -> Result<(), Refused> {
        if (0.05..=4.0).contains(&self.width_multiplier) {
            return Ok(());
        }
        Err(Refused::new(
            "width-multiplier",
            "from 0.05 to 4",
            self.width_multiplier,
        ))
    }
}

/// Expansion, channels, number of blocks and first stride of each stage (table 2 of the paper).
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// The multiple of 8 nearest to `channels`, never more than a tenth below it.
fn rounded(channels: f64) -> usize {
    let nearest = (((channels + 4.0) / 8.0).floor() as usize * 8).max(8);
    if (nearest as f64) < 0.9 * channels {
        nearest + 8
    } else {
        nearest
    }
}

/// Expand by 1x1, filter each channel by 3x3, project by 1x1; added to the input where shapes allow.
#[derive(Module, Debug)]
pub struct InvertedResidual {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    project: ConvNorm,
    added: bool,
}

impl InvertedResidual {
    fn forward(&self, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        let expanded = match &self.expand {
            Some(expand) => expand.forward(x.clone(), mode, Activation::Relu6),
            None => x.clone(),
        };
        let filtered = self.depthwise.forward(expanded, mode, Activation::Relu6);
        if self.added {
            self.project.forward_add(filtered, x, mode, Activation::None)
        } else {
            self.project.forward(filtered, mode, Activation::None)
        }
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let expanded = match &self.expand {
            Some(expand) => expand.graph(graph, x.clone(), Activation::Relu6),
            None => x.clone(),
        };
        let filtered = self.depthwise.graph(graph, expanded, Activation::Relu6);
        if self.added {
            self.project.graph_add(graph, filtered, x, Activation::None)
        } else {
            self.project.graph(graph, filtered, Activation::None)
        }
    }
}

/// MobileNetV2 without its classifier. Sandler et al., 2018.
#[derive(Module, Debug)]
pub struct MobilenetV2 {
    stem: ConvNorm,
    layers: Vec<InvertedResidual>,
    last: ConvNorm,
    width: usize,
}

impl MobilenetV2 {
    /// Channels of the last feature map.
    #[must_use]
    pub fn output_width(config: &MobilenetV2Config) -> usize {
        rounded(1280.0 * config.width_multiplier.max(1.0))
    }

    /// Builds the network.
    #[must_use]
    pub fn new(config: &MobilenetV2Config, builder: &Builder<'_>) -> Self {
        let zeros = |stride: usize| match config.padding {
            Padding::Tensorflow if stride == 2 => Zeros::Same,
            _ => Zeros::Around(1),
        };
        let mut input = rounded(32.0 * config.width_multiplier);
        let stem = ConvSpec {
            zeros: zeros(2),
            ..ConvSpec::new(3, input, 3).stride(2)
        };
        let stem = builder.conv_norm("stem", stem);
        let mut layers = Vec::new();
        for (expansion, channels, repeats, first_stride) in STAGES {
            let output = rounded(channels as f64 * config.width_multiplier);
            for repeat in 0..repeats {
                let stride = if repeat == 0 { first_stride } else { 1 };
                let hidden = input * expansion;
                let name = |part: &str| format!("layers.{}.{part}", layers.len());
                let depthwise = ConvSpec {
                    groups: hidden,
                    zeros: zeros(stride),
                    ..ConvSpec::new(hidden, hidden, 3).stride(stride)
                };
                let layer = InvertedResidual {
                    expand: (expansion != 1)
                        .then(|| builder.conv_norm(&name("expand"), ConvSpec::new(input, hidden, 1))),
                    depthwise: builder.conv_norm(&name("depthwise"), depthwise),
                    project: builder.conv_norm(&name("project"), ConvSpec::new(hidden, output, 1)),
                    added: stride == 1 && input == output,
                };
                layers.push(layer);
                input = output;
            }
        }
        let width = Self::output_width(config);
        Self {
            stem,
            layers,
            last: builder.conv_norm("last", ConvSpec::new(input, width, 1)),
            width,
        }
    }
}

impl Backbone for MobilenetV2 {
    fn blocks(&self) -> usize {
        self.layers.len() + 2
    }

    fn width(&self) -> usize {
        self.width
    }

    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        match index {
            0 => self.stem.forward(x, mode, Activation::Relu6),
            index if index <= self.layers.len() => self.layers[index - 1].forward(x, mode),
            _ => self.last.forward(x, mode, Activation::Relu6),
        }
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let x = self.stem.graph(graph, images, Activation::Relu6);
        let x = self.layers.iter().fold(x, |x, layer| layer.graph(graph, x));
        self.last.graph(graph, x, Activation::Relu6)
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
        match parts.as_slice() {
            ["stem", kind, value] => {
                let timm = if *kind == "conv" { "conv_stem" } else { "bn1" };
                vec![format!("features.0.{}.{value}", half(kind)), format!("{timm}.{value}")]
            }
            ["last", kind, value] => {
                let timm = if *kind == "conv" { "conv_head" } else { "bn2" };
                vec![
                    format!("features.{}.{}.{value}", self.layers.len() + 1, half(kind)),
                    format!("{timm}.{value}"),
                ]
            }
            ["layers", layer, part, kind, value] => {
                let Ok(layer) = layer.parse::<usize>() else {
                    return Vec::new();
                };
                let Some(residual) = self.layers.get(layer) else {
                    return Vec::new();
                };
                // Both number the parts in order; the first block, which does not expand, starts one earlier.
                let skipped = usize::from(residual.expand.is_none());
                let position = match *part {
                    "expand" => 0,
                    "depthwise" => 1 - skipped,
                    _ => 2 - skipped,
                };
                let torchvision = if *part == "project" {
                    (position + half(kind)).to_string()
                } else {
                    format!("{position}.{}", half(kind))
                };
                let timm = match (*kind, *part) {
                    ("norm", _) => format!("bn{}", position + 1),
                    (_, "depthwise") => "conv_dw".to_owned(),
                    (_, "project") if skipped == 0 => "conv_pwl".to_owned(),
                    _ => "conv_pw".to_owned(),
                };
                let (stage, repeat) = stage_of(layer);
                vec![
                    format!("features.{}.conv.{torchvision}.{value}", layer + 1),
                    format!("blocks.{stage}.{repeat}.{timm}.{value}"),
                ]
            }
            _ => Vec::new(),
        }
    }
}

/// Position inside a convolution with normalisation.
fn half(kind: &str) -> usize {
    usize::from(kind != "conv")
}

/// Stage of a layer and its number there.
fn stage_of(layer: usize) -> (usize, usize) {
    let mut repeat = layer;
    for (stage, (_, _, repeats, _)) in STAGES.iter().enumerate() {
        if repeat < *repeats {
            return (stage, repeat);
        }
        repeat -= repeats;
    }
    (STAGES.len(), repeat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::named_shapes;
    use crate::tensor::Device;

    #[test]
    fn channels_round_as_torchvision_rounds() {
        let at = |multiplier: f64| {
            [32.0, 16.0, 24.0, 32.0, 64.0, 96.0, 160.0, 320.0].map(|channels: f64| rounded(channels * multiplier))
        };
        assert_eq!(at(1.0), [32, 16, 24, 32, 64, 96, 160, 320]);
        assert_eq!(at(0.35), [16, 8, 8, 16, 24, 32, 56, 112]);
        assert_eq!(at(1.4), [48, 24, 32, 48, 88, 136, 224, 448]);
        let wide = MobilenetV2Config {
            width_multiplier: 1.4,
            ..MobilenetV2Config::default()
        };
        assert_eq!(MobilenetV2::output_width(&wide), 1792);
    }

    #[test]
    fn both_families_of_file_names_are_distinct_and_as_published() {
        let device = Device::default();
        let builder = Builder {
            seed: 0,
            device: &device,
            freeze_batch_norm: false,
            blank: false,
        };
        let config = MobilenetV2Config {
            width_multiplier: 0.1,
            ..MobilenetV2Config::default()
        };
        let network = MobilenetV2::new(&config, &builder);
        let names = |family: usize| -> Vec<String> {
            named_shapes(&network)
                .iter()
                .map(|(name, _)| network.file_names(name)[family].clone())
                .collect()
        };
        for (family, expected) in [
            (
                0,
                [
                    "features.0.0.weight",
                    "features.1.conv.0.0.weight",
                    "features.1.conv.1.weight",
                    "features.1.conv.2.bias",
                    "features.17.conv.2.weight",
                    "features.17.conv.3.running_var",
                    "features.18.1.weight",
                ],
            ),
            (
                1,
                [
                    "conv_stem.weight",
                    "blocks.0.0.conv_dw.weight",
                    "blocks.0.0.conv_pw.weight",
                    "blocks.0.0.bn2.bias",
                    "blocks.6.0.conv_pwl.weight",
                    "blocks.6.0.bn3.running_var",
                    "bn2.weight",
                ],
            ),
        ] {
            let mut names = names(family);
            for name in expected {
                assert!(names.iter().any(|own| own == name), "{name}");
            }
            let count = names.len();
            names.sort();
            names.dedup();
            assert_eq!((names.len(), count), (260, 260));
        }
    }
}
