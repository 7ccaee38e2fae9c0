//! Residual networks: ResNet-18, -34, -50 and -101 for ImageNet, ResNet-20 for CIFAR.

use gradus_kernels::{Activation, MaxPool2dOptions, max_pool2d};
use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::{Backbone, BackboneInfo, BackboneOptions, Family, IMAGENET_NORMALISATION, Refused, Weights};
use crate::models::layers::{BatchNorm, Builder, Conv2d, ConvNorm, ConvSpec, Mode};
use crate::tensor::{Module, Tensor};

const PAPER: &str = "He et al., Deep Residual Learning for Image Recognition, 2015";

const fn info(name: &'static str, feature_width: usize, weights: &'static [Weights]) -> BackboneInfo {
    BackboneInfo {
        name,
        paper: PAPER,
        default_size: 224,
        minimum_size: 32,
        size_step: 1,
        feature_width,
        normalisation: IMAGENET_NORMALISATION,
        families: &[Family::Torchvision, Family::Timm],
        weights,
    }
}

const fn torchvision(address: &'static str, about: &'static str) -> Weights {
    Weights {
        address,
        family: Family::Torchvision,
        licence: "BSD-3-Clause (torchvision)",
        about,
    }
}

const FIRST: &str = "ImageNet-1k, first recipe";
const SECOND: &str = "ImageNet-1k, second recipe";

/// ResNet-18's line in the registry.
pub const RESNET18: BackboneInfo = info(
    "resnet18",
    512,
    &[torchvision(
        "https://download.pytorch.org/models/resnet18-f37072fd.pth",
        "ImageNet-1k",
    )],
);
/// ResNet-34's line in the registry.
pub const RESNET34: BackboneInfo = info(
    "resnet34",
    512,
    &[torchvision(
        "https://download.pytorch.org/models/resnet34-b627a593.pth",
        "ImageNet-1k",
    )],
);
/// ResNet-50's line in the registry.
pub const RESNET50: BackboneInfo = info(
    "resnet50",
    2048,
    &[
        torchvision("https://download.pytorch.org/models/resnet50-0676ba61.pth", FIRST),
        torchvision("https://download.pytorch.org/models/resnet50-11ad3fa6.pth", SECOND),
    ],
);
/// ResNet-101's line in the registry.
pub const RESNET101: BackboneInfo = info(
    "resnet101",
    2048,
    &[
        torchvision("https://download.pytorch.org/models/resnet101-63fe2227.pth", FIRST),
        torchvision("https://download.pytorch.org/models/resnet101-cd907fc2.pth", SECOND),
    ],
);
/// The CIFAR ResNet-20's line in the registry.
pub const RESNET20_CIFAR: BackboneInfo = BackboneInfo {
    default_size: 32,
    minimum_size: 8,
    families: &[Family::Authors],
    ..info(
        "resnet20-cifar",
        64,
        &[Weights {
            address: "https://github.com/akamaster/pytorch_resnet_cifar10/blob/master/pretrained_models/resnet20-12fca82f.th",
            family: Family::Authors,
            licence: "BSD-2-Clause (akamaster/pytorch_resnet_cifar10)",
            about: "CIFAR-10",
        }],
    )
};

/// Options of the ImageNet networks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ResnetConfig {
    /// How many of the four stages are kept; default 4. With 3 the network ends after `layer3`, at stride 16.
    pub stages: usize,
}

impl Default for ResnetConfig {
    fn default() -> Self {
        Self { stages: 4 }
    }
}

impl BackboneOptions for ResnetConfig {
    fn check(&self, _info: &BackboneInfo) -> Result<(), Refused> {
        if (1..=4).contains(&self.stages) {
            return Ok(());
        }
        Err(Refused::new("stages", "from 1 to 4", self.stages))
    }
}

/// What distinguishes the residual networks.
#[derive(Debug, Clone, Copy)]
pub struct ResnetShape {
    stem: Stem,
    depths: &'static [usize],
    first_width: usize,
    bottleneck: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stem {
    /// 7x7 stride 2, then 3x3 maximum stride 2.
    Imagenet,
    /// 3x3.
    Cifar,
}

impl ResnetShape {
    /// ResNet-18.
    pub const RESNET18: Self = Self {
        stem: Stem::Imagenet,
        depths: &[2, 2, 2, 2],
        first_width: 64,
        bottleneck: false,
    };
    /// ResNet-34.
    pub const RESNET34: Self = Self {
        depths: &[3, 4, 6, 3],
        ..Self::RESNET18
    };
    /// ResNet-50, with the stride in the 3x3 convolution as in torchvision.
    pub const RESNET50: Self = Self {
        depths: &[3, 4, 6, 3],
        bottleneck: true,
        ..Self::RESNET18
    };
    /// ResNet-101.
    pub const RESNET101: Self = Self {
        depths: &[3, 4, 23, 3],
        ..Self::RESNET50
    };
    /// ResNet-20 for 32-pixel images, with parameter-free shortcuts (the paper's option A).
    pub const RESNET20_CIFAR: Self = Self {
        stem: Stem::Cifar,
        depths: &[3, 3, 3],
        first_width: 16,
        bottleneck: false,
    };
}

/// One residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 in a bottleneck, around a shortcut.
#[derive(Module, Debug)]
pub struct Residual {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    conv3: Option<Conv2d>,
    bn3: Option<BatchNorm>,
    downsample: Option<ConvNorm>,
    #[module(skip)]
    subsample: Option<Subsample>,
}

/// A shortcut without parameters: every `stride`-th pixel, with zero channels added before and after.
#[derive(Debug, Clone, Copy)]
struct Subsample {
    stride: usize,
    added: usize,
}

impl Residual {
    fn new(name: &str, shape: ResnetShape, input: usize, width: usize, stride: usize, builder: &Builder<'_>) -> Self {
        let output = if shape.bottleneck { width * 4 } else { width };
        let conv = |field: &str, spec: ConvSpec| builder.conv(&format!("{name}.{field}"), spec);
        let (conv1, conv2, conv3) = if shape.bottleneck {
            (
                conv("conv1", ConvSpec::new(input, width, 1)),
                conv("conv2", ConvSpec::new(width, width, 3).stride(stride)),
                Some(conv("conv3", ConvSpec::new(width, output, 1))),
            )
        } else {
            let first = ConvSpec::new(input, width, 3).stride(stride);
            (
                conv("conv1", first),
                conv("conv2", ConvSpec::new(width, width, 3)),
                None,
            )
        };
        let changes = stride != 1 || input != output;
        let parameter_free = shape.stem == Stem::Cifar;
        let projection = || {
            builder.conv_norm(
                &format!("{name}.downsample"),
                ConvSpec::new(input, output, 1).stride(stride),
            )
        };
        Self {
            conv1,
            bn1: builder.norm(width),
            conv2,
            bn2: builder.norm(width),
            bn3: conv3.is_some().then(|| builder.norm(output)),
            conv3,
            downsample: (changes && !parameter_free).then(projection),
            subsample: (changes && parameter_free).then_some(Subsample {
                stride,
                added: (output - input) / 2,
            }),
        }
    }

    fn forward(&self, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        let hidden = self.bn1.forward(self.conv1.forward(x.clone()), mode, Activation::Relu);
        let shortcut = match (&self.downsample, self.subsample) {
            (Some(projection), _) => projection.forward(x, mode, Activation::None),
            (None, Some(subsample)) => subsample.apply(x),
            (None, None) => x,
        };
        let hidden = self.conv2.forward(hidden);
        match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => {
                let hidden = self.bn2.forward(hidden, mode, Activation::Relu);
                bn3.forward_add(conv3.forward(hidden), shortcut, mode, Activation::Relu)
            }
            _ => self.bn2.forward_add(hidden, shortcut, mode, Activation::Relu),
        }
    }

    fn graph(&self, graph: &mut Graph, x: Value) -> Value {
        let hidden = self.conv1.graph(graph, x.clone());
        let hidden = self.bn1.graph(graph, hidden, Activation::Relu);
        let shortcut = match (&self.downsample, self.subsample) {
            (Some(projection), _) => projection.graph(graph, x, Activation::None),
            (None, Some(Subsample { stride, added })) => {
                let kept = graph.max_pool(x, 1, stride, [0; 4]);
                graph.pad_channels(kept, added, added)
            }
            (None, None) => x,
        };
        let hidden = self.conv2.graph(graph, hidden);
        match (&self.conv3, &self.bn3) {
            (Some(conv3), Some(bn3)) => {
                let hidden = self.bn2.graph(graph, hidden, Activation::Relu);
                let hidden = conv3.graph(graph, hidden);
                bn3.graph_add(graph, hidden, shortcut, Activation::Relu)
            }
            _ => self.bn2.graph_add(graph, hidden, shortcut, Activation::Relu),
        }
    }
}

impl Subsample {
    fn apply(self, x: Tensor<4>) -> Tensor<4> {
        let kept = max_pool2d(x, &MaxPool2dOptions::square(1, self.stride));
        let [batch, _, height, width] = kept.dims();
        let zeros = Tensor::zeros([batch, self.added, height, width], &kept.device());
        Tensor::cat(vec![zeros.clone(), kept, zeros], 1)
    }
}

/// A residual network without its classifier. He et al., 2015.
#[derive(Module, Debug)]
pub struct Resnet {
    conv1: Conv2d,
    bn1: BatchNorm,
    layer1: Vec<Residual>,
    layer2: Vec<Residual>,
    layer3: Vec<Residual>,
    layer4: Vec<Residual>,
    #[module(skip)]
    stem: Stem,
    width: usize,
}

impl Resnet {
    /// Builds the first `stages` stages of a network.
    #[must_use]
    pub fn new(shape: ResnetShape, stages: usize, builder: &Builder<'_>) -> Self {
        let first = shape.first_width;
        let mut width = first;
        let mut stage = |index: usize| -> Vec<Residual> {
            if index >= stages.min(shape.depths.len()) {
                return Vec::new();
            }
            (0..shape.depths[index])
                .map(|block| {
                    let stride = if index > 0 && block == 0 { 2 } else { 1 };
                    let name = format!("layer{}.{block}", index + 1);
                    let inner = first << index;
                    let residual = Residual::new(&name, shape, width, inner, stride, builder);
                    width = if shape.bottleneck { inner * 4 } else { inner };
                    residual
                })
                .collect()
        };
        let (layer1, layer2, layer3, layer4) = (stage(0), stage(1), stage(2), stage(3));
        let stem = match shape.stem {
            Stem::Imagenet => ConvSpec::new(3, first, 7).stride(2),
            Stem::Cifar => ConvSpec::new(3, first, 3),
        };
        Self {
            conv1: builder.conv("conv1", stem),
            bn1: builder.norm(first),
            layer1,
            layer2,
            layer3,
            layer4,
            stem: shape.stem,
            width,
        }
    }

    fn layers(&self) -> [&Vec<Residual>; 4] {
        [&self.layer1, &self.layer2, &self.layer3, &self.layer4]
    }
}

impl Backbone for Resnet {
    fn blocks(&self) -> usize {
        1 + self.layers().iter().map(|layer| layer.len()).sum::<usize>()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4> {
        if index > 0 {
            let mut residuals = self.layers().into_iter().flatten();
            return residuals
                .nth(index - 1)
                .expect("the index is below the number of blocks")
                .forward(x, mode);
        }
        let hidden = self.bn1.forward(self.conv1.forward(x), mode, Activation::Relu);
        match self.stem {
            Stem::Imagenet => max_pool2d(
                hidden,
                &MaxPool2dOptions {
                    padding: [1; 2],
                    ..MaxPool2dOptions::square(3, 2)
                },
            ),
            Stem::Cifar => hidden,
        }
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let x = self.conv1.graph(graph, images);
        let mut x = self.bn1.graph(graph, x, Activation::Relu);
        if self.stem == Stem::Imagenet {
            x = graph.max_pool(x, 3, 2, [1; 4]);
        }
        let residuals = self.layers().into_iter().flatten();
        residuals.fold(x, |x, residual| residual.graph(graph, x))
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        if name.starts_with("conv1.") || name.starts_with("bn1.") {
            return Some(0);
        }
        let mut before = 1;
        for (index, layer) in self.layers().into_iter().enumerate() {
            if let Some(block) = super::number_after(name, &format!("layer{}.", index + 1)) {
                return Some(before + block);
            }
            before += layer.len();
        }
        None
    }

    // torchvision and timm agree on the names; the network for CIFAR has those of its one published set of weights.
    fn file_names(&self, name: &str) -> Vec<String> {
        let name = name
            .replace("downsample.conv.", "downsample.0.")
            .replace("downsample.norm.", "downsample.1.");
        match self.stem {
            Stem::Imagenet => vec![name.clone(), name],
            Stem::Cifar => vec![name],
        }
    }

    // Stages that the configuration leaves out.
    fn leaves_out(&self, name: &str) -> bool {
        (1..=4).any(|stage| self.layers()[stage - 1].is_empty() && name.starts_with(&format!("layer{stage}.")))
    }
}
