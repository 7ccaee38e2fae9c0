//! SqueezeNet 1.1.

use gradus_kernels::{MaxPool2dOptions, max_pool2d};
use gradus_onnx::{Graph, Value};

use super::{Backbone, BackboneInfo, Family, IMAGENET_NORMALISATION, Weights};
use crate::models::layers::{Builder, Conv2d, ConvSpec, Initial, Mode, Zeros};
use crate::tensor::{Module, Tensor, activation::relu};

/// Its line in the registry.
pub const INFO: BackboneInfo = BackboneInfo {
    name: "squeezenet1.1",
    paper: "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, 2016",
    default_size: 224,
    minimum_size: 32,
    size_step: 1,
    feature_width: 512,
    normalisation: IMAGENET_NORMALISATION,
    families: &[Family::Torchvision],
    weights: &[Weights {
        address: "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth",
        family: Family::Torchvision,
        licence: "BSD-3-Clause (torchvision)",
        about: "ImageNet-1k",
    }],
};

/// Squeezed and expanded channels of each fire module, and its number among torchvision's `features`.
const FIRES: [(usize, usize, usize); 8] = [
    (16, 64, 3),
    (16, 64, 4),
    (32, 128, 6),
    (32, 128, 7),
    (48, 192, 9),
    (48, 192, 10),
    (64, 256, 11),
    (64, 256, 12),
];

/// Squeeze by 1x1, then expand by 1x1 and by 3x3, side by side.
#[derive(Module, Debug)]
pub struct Fire {
    squeeze: Conv2d,
    expand1x1: Conv2d,
    expand3x3: Conv2d,
}

impl Fire {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let squeezed = relu(self.squeeze.forward(x));
        let pointwise = self.expand1x1.forward(squeezed.clone());
        relu(Tensor::cat(vec![pointwise, self.expand3x3.forward(squeezed)], 1))
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let squeezed = self.squeeze.graph(graph, x);
        let squeezed = graph.relu(squeezed);
        let pointwise = self.expand1x1.graph(graph, squeezed.clone());
        let around = self.expand3x3.graph(graph, squeezed);
        let both = graph.concat(&[pointwise, around]);
        graph.relu(both)
    }
}

/// SqueezeNet 1.1 without its classifier; it has no batch normalisation. Iandola et al., 2016.
#[derive(Module, Debug)]
pub struct Squeezenet {
    stem: Conv2d,
    fires: Vec<Fire>,
}

impl Squeezenet {
    /// Builds the network.
    #[must_use]
    pub fn new(builder: &Builder<'_>) -> Self {
        let conv = |name: &str, spec: ConvSpec| {
            builder.conv(
                name,
                ConvSpec {
                    bias: true,
                    initial: Initial::FanIn,
                    ..spec
                },
            )
        };
        let mut input = 64;
        let fires = FIRES
            .iter()
            .enumerate()
            .map(|(index, &(squeezed, expanded, _))| {
                let name = |part: &str| format!("fires.{index}.{part}");
                let fire = Fire {
                    squeeze: conv(&name("squeeze"), ConvSpec::new(input, squeezed, 1)),
                    expand1x1: conv(&name("expand1x1"), ConvSpec::new(squeezed, expanded, 1)),
                    expand3x3: conv(&name("expand3x3"), ConvSpec::new(squeezed, expanded, 3)),
                };
                input = 2 * expanded;
                fire
            })
            .collect();
        let stem = ConvSpec {
            zeros: Zeros::Around(0),
            ..ConvSpec::new(3, 64, 3).stride(2)
        };
        Self {
            stem: conv("stem", stem),
            fires,
        }
    }
}

fn halve(x: Tensor<4>) -> Tensor<4> {
    max_pool2d(
        x,
        &MaxPool2dOptions {
            ceil_mode: true,
            ..MaxPool2dOptions::square(3, 2)
        },
    )
}

impl Backbone for Squeezenet {
    fn blocks(&self) -> usize {
        self.fires.len() + 1
    }

    fn width(&self) -> usize {
        INFO.feature_width
    }

    fn block(&self, index: usize, x: Tensor<4>, _mode: Mode) -> Tensor<4> {
        match index {
            0 => halve(relu(self.stem.forward(x))),
            // The maximum follows the second and fourth fire module (features.5 and features.8).
            2 | 4 => halve(self.fires[index - 1].forward(x)),
            _ => self.fires[index - 1].forward(x),
        }
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let x = self.stem.graph(graph, images);
        let x = graph.relu(x);
        let mut x = graph.max_pool_ceil(x, 3, 2, 0);
        for (index, fire) in self.fires.iter().enumerate() {
            x = fire.graph(graph, x);
            if matches!(index + 1, 2 | 4) {
                x = graph.max_pool_ceil(x, 3, 2, 0);
            }
        }
        x
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        if name.starts_with("stem.") {
            Some(0)
        } else {
            super::number_after(name, "fires.").map(|fire| fire + 1)
        }
    }

    fn file_names(&self, name: &str) -> Vec<String> {
        if let Some(value) = name.strip_prefix("stem.") {
            return vec![format!("features.0.{value}")];
        }
        let fire = super::number_after(name, "fires.").and_then(|fire| FIRES.get(fire));
        match (fire, name.splitn(3, '.').nth(2)) {
            (Some((_, _, number)), Some(rest)) => vec![format!("features.{number}.{rest}")],
            _ => Vec::new(),
        }
    }
}
