//! Backbones: one file each, and the registry.

pub mod conv4;
pub mod convnet;
pub mod mobilenet_v2;
pub mod resnet;
pub mod squeezenet;

use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::ModelError;
use super::layers::{Builder, Mode};
use crate::tensor::{Module, Tensor};
use conv4::{Conv4, Conv4Config};
use convnet::ConvnetConfig;
use mobilenet_v2::{MobilenetV2, MobilenetV2Config};
use resnet::{Resnet, ResnetConfig, ResnetShape};
use squeezenet::Squeezenet;

/// Mean and standard deviation of each colour channel, for values from 0 to 1: `(x - mean) / deviation`.
pub type Normalisation = ([f32; 3], [f32; 3]);

/// What ImageNet weights of torchvision and timm expect.
pub const IMAGENET_NORMALISATION: Normalisation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// One line of the registry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackboneInfo {
    /// Name in configurations and on the command line.
    pub name: &'static str,
    /// Where the network comes from.
    pub paper: &'static str,
    /// Usual side of the image, in pixels.
    pub default_size: usize,
    /// Smallest side that makes sense, in pixels.
    pub minimum_size: usize,
    /// Channels of the last feature map, with default options.
    pub feature_width: usize,
    /// Normalisation of the input that published weights expect.
    pub normalisation: Normalisation,
}

/// Every backbone, smallest first.
pub const BACKBONES: &[BackboneInfo] = &[
    conv4::INFO,
    resnet::RESNET20_CIFAR,
    convnet::INFO,
    squeezenet::INFO,
    mobilenet_v2::INFO,
    resnet::RESNET18,
    resnet::RESNET34,
    resnet::RESNET50,
];

/// Which backbone, with its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackboneConfig {
    /// Four small convolution blocks.
    Conv4(Conv4Config),
    /// Four convolution blocks that double their channels.
    Convnet(ConvnetConfig),
    /// ResNet-18.
    Resnet18(ResnetConfig),
    /// ResNet-34.
    Resnet34(ResnetConfig),
    /// ResNet-50.
    Resnet50(ResnetConfig),
    /// ResNet-20 for 32-pixel images.
    Resnet20Cifar(NoOptions),
    /// MobileNetV2.
    MobilenetV2(MobilenetV2Config),
    /// SqueezeNet 1.1.
    #[serde(rename = "squeezenet1.1", alias = "squeezenet1-1")]
    Squeezenet(NoOptions),
}

/// The options of a backbone that has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoOptions {}

impl Default for BackboneConfig {
    fn default() -> Self {
        Self::Conv4(Conv4Config::default())
    }
}

impl BackboneConfig {
    /// The backbone of a name, with default options.
    ///
    /// ```
    /// use gradus::models::BackboneConfig;
    /// assert_eq!(BackboneConfig::by_name("resnet50")?.info().feature_width, 2048);
    /// assert!(BackboneConfig::by_name("resnet51").is_err());
    /// # Ok::<(), gradus::models::ModelError>(())
    /// ```
    ///
    /// # Errors
    /// If there is no such backbone; the message lists them and suggests the nearest.
    pub fn by_name(name: &str) -> Result<Self, ModelError> {
        Ok(match name {
            "conv4" => Self::Conv4(Conv4Config::default()),
            "convnet" => Self::Convnet(ConvnetConfig::default()),
            "resnet18" => Self::Resnet18(ResnetConfig::default()),
            "resnet34" => Self::Resnet34(ResnetConfig::default()),
            "resnet50" => Self::Resnet50(ResnetConfig::default()),
            "resnet20-cifar" => Self::Resnet20Cifar(NoOptions {}),
            "mobilenet-v2" => Self::MobilenetV2(MobilenetV2Config::default()),
            "squeezenet1.1" | "squeezenet1-1" => Self::Squeezenet(NoOptions {}),
            _ => {
                let names: Vec<&str> = BACKBONES.iter().map(|info| info.name).collect();
                let nearest = names
                    .iter()
                    .map(|known| (strsim::jaro_winkler(known, name), known))
                    .max_by(|a, b| a.0.total_cmp(&b.0))
                    .filter(|(similarity, _)| *similarity > 0.75)
                    .map(|(_, known)| format!(" Did you mean `{known}`?"))
                    .unwrap_or_default();
                return Err(ModelError::Config(format!(
                    "There is no backbone `{name}`.{nearest} Known backbones: {}.",
                    names.join(", ")
                )));
            }
        })
    }

    /// Its line in the registry.
    #[must_use]
    pub fn info(&self) -> &'static BackboneInfo {
        match self {
            Self::Conv4(_) => &conv4::INFO,
            Self::Convnet(_) => &convnet::INFO,
            Self::Resnet18(_) => &resnet::RESNET18,
            Self::Resnet34(_) => &resnet::RESNET34,
            Self::Resnet50(_) => &resnet::RESNET50,
            Self::Resnet20Cifar(_) => &resnet::RESNET20_CIFAR,
            Self::MobilenetV2(_) => &mobilenet_v2::INFO,
            Self::Squeezenet(_) => &squeezenet::INFO,
        }
    }

    /// Checks the options.
    ///
    /// # Errors
    /// If a number is out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        let refuse = |option: &str, range: &str, found: String| {
            Err(ModelError::Config(format!(
                "The option `{option}` of the backbone `{}` must be {range}, but is {found}.",
                self.info().name
            )))
        };
        match self {
            Self::Conv4(config) if !(8..=1024).contains(&config.channels) => {
                refuse("channels", "from 8 to 1024", config.channels.to_string())
            }
            Self::Convnet(config) if !(8..=256).contains(&config.channels) => {
                refuse("channels", "from 8 to 256", config.channels.to_string())
            }
            Self::Resnet18(config) | Self::Resnet34(config) | Self::Resnet50(config)
                if !(1..=4).contains(&config.stages) =>
            {
                refuse("stages", "from 1 to 4", config.stages.to_string())
            }
            Self::MobilenetV2(config) if !(0.05..=4.0).contains(&config.width_multiplier) => refuse(
                "width-multiplier",
                "from 0.05 to 4",
                config.width_multiplier.to_string(),
            ),
            _ => Ok(()),
        }
    }

    /// Builds the network with seeded weights.
    #[must_use]
    pub fn build(&self, builder: &Builder<'_>) -> Trunk {
        match self {
            Self::Conv4(config) => Trunk::Conv4(Conv4::new(config.widths(), builder)),
            Self::Convnet(config) => Trunk::Conv4(Conv4::new(config.widths(), builder)),
            Self::Resnet18(config) => Trunk::Resnet(Resnet::new(ResnetShape::RESNET18, config.stages, builder)),
            Self::Resnet34(config) => Trunk::Resnet(Resnet::new(ResnetShape::RESNET34, config.stages, builder)),
            Self::Resnet50(config) => Trunk::Resnet(Resnet::new(ResnetShape::RESNET50, config.stages, builder)),
            Self::Resnet20Cifar(_) => Trunk::Resnet(Resnet::new(ResnetShape::RESNET20_CIFAR, 3, builder)),
            Self::MobilenetV2(config) => Trunk::MobilenetV2(MobilenetV2::new(config, builder)),
            Self::Squeezenet(_) => Trunk::Squeezenet(Squeezenet::new(builder)),
        }
    }
}

/// What the rest of gradus asks of a backbone.
pub trait Backbone {
    /// Number of blocks, the unit in which a trunk is frozen; the stem is block 0.
    fn blocks(&self) -> usize;

    /// Channels of the last feature map.
    fn width(&self) -> usize;

    /// Applies one block to `[batch, channels, height, width]`.
    ///
    /// # Panics
    /// If `index` is not below [`Backbone::blocks`].
    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4>;

    /// The whole network as ONNX operators: from normalised images `[3, height, width]` to the last feature map, as
    /// [`Backbone::block`] computes it in evaluation.
    fn graph(&self, graph: &mut Graph, images: Value) -> Value;

    /// The block that a parameter belongs to, by its dotted path inside the backbone.
    fn block_of(&self, name: &str) -> Option<usize>;

    /// The names a parameter has in the files of other libraries, torchvision first.
    fn file_names(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }

    /// Whether an array of a file belongs to a part of the published network that the configuration leaves out.
    fn leaves_out(&self, _name: &str) -> bool {
        false
    }
}

/// The backbone of a network.
// There is one per network and Burn has no boxed modules, so the size of the variants does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum Trunk {
    /// Four small convolution blocks.
    Conv4(Conv4),
    /// Any residual network.
    Resnet(Resnet),
    /// MobileNetV2.
    MobilenetV2(MobilenetV2),
    /// SqueezeNet 1.1.
    Squeezenet(Squeezenet),
}

impl Trunk {
    /// The backbone behind the variant.
    #[must_use]
    pub fn backbone(&self) -> &dyn Backbone {
        match self {
            Self::Conv4(network) => network,
            Self::Resnet(network) => network,
            Self::MobilenetV2(network) => network,
            Self::Squeezenet(network) => network,
        }
    }

    /// Applies the blocks of a range, in order.
    #[must_use]
    pub fn forward(&self, images: Tensor<4>, blocks: std::ops::Range<usize>, mode: Mode) -> Tensor<4> {
        blocks.fold(images, |x, index| self.backbone().block(index, x, mode))
    }
}

/// The number that follows a prefix: `layers.` in `layers.12.conv.weight` gives 12.
pub(crate) fn number_after(name: &str, prefix: &str) -> Option<usize> {
    name.strip_prefix(prefix)?.split('.').next()?.parse().ok()
}
