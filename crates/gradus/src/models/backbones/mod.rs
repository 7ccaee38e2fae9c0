//! Backbones: one file each, and the registry.

pub mod bn_inception;
pub mod conv4;
pub mod convnet;
pub mod convnext;
pub mod efficientnet;
pub mod googlenet;
pub mod mobilenet_v2;
pub mod resnet;
pub mod squeezenet;
pub mod vision_transformer;

use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::ModelError;
use super::layers::{Builder, Mode};
use crate::tensor::{Module, Tensor};
use bn_inception::BnInception;
use conv4::{Conv4, Conv4Config};
use convnet::ConvnetConfig;
use convnext::Convnext;
use efficientnet::Efficientnet;
use googlenet::Googlenet;
use mobilenet_v2::{MobilenetV2, MobilenetV2Config};
use resnet::{Resnet, ResnetConfig, ResnetShape};
use squeezenet::Squeezenet;
use vision_transformer::{Shape, VisionTransformer, VisionTransformerConfig};

/// Mean and standard deviation of each colour channel, for values from 0 to 1: `(x - mean) / deviation`.
pub type Normalisation = ([f32; 3], [f32; 3]);

/// What ImageNet weights of torchvision and timm expect.
pub const IMAGENET_NORMALISATION: Normalisation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);

/// Whose names the arrays of a file of weights have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// torchvision's.
    Torchvision,
    /// timm's.
    Timm,
    /// Those of the code that the weights were published with, where it is neither.
    Authors,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 3] = [Self::Torchvision, Self::Timm, Self::Authors];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Torchvision => "torchvision",
            Self::Timm => "timm",
            Self::Authors => "authors",
        }
    }
}

/// Published weights of a backbone; gradus fetches nothing, the user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// Where their publisher keeps them.
    pub address: &'static str,
    /// Whose names the file has.
    pub family: Family,
    /// Their licence, as far as it is stated, and by whom.
    pub licence: &'static str,
    /// What they were trained on.
    pub about: &'static str,
}

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
    /// The side must be a multiple of this, in pixels.
    pub size_step: usize,
    /// Channels of the last feature map, with default options.
    pub feature_width: usize,
    /// Normalisation of the input that published weights expect.
    pub normalisation: Normalisation,
    /// Whose names the network's parameters can have in files, in the order of [`Backbone::file_names`].
    pub families: &'static [Family],
    /// Published weights.
    pub weights: &'static [Weights],
}

/// An option of a backbone that is out of range.
#[derive(Debug)]
pub struct Refused {
    option: &'static str,
    range: String,
    found: String,
}

impl Refused {
    /// The option, what it may be, and what it is.
    #[must_use]
    pub fn new(option: &'static str, range: impl Into<String>, found: impl ToString) -> Self {
        Self {
            option,
            range: range.into(),
            found: found.to_string(),
        }
    }
}

/// The options of a backbone.
pub trait BackboneOptions {
    /// Checks them.
    ///
    /// # Errors
    /// If one is out of range.
    fn check(&self, _info: &BackboneInfo) -> Result<(), Refused> {
        Ok(())
    }

    /// Whether the network ends in a map of positions, which there is something to pool of.
    fn has_map(&self) -> bool {
        true
    }
}

/// The options of a backbone that has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NoOptions {}

impl BackboneOptions for NoOptions {}

/// Makes of the list of networks and the list of backbones everything that has a line per network or backbone.
macro_rules! register_backbones {
    (
        networks { $($(#[$network_about:meta])* $network:ident,)+ }
        backbones { $($(#[$about:meta])* $variant:ident($name:literal, $options:ty, $info:expr, $build:expr),)+ }
    ) => {
        /// Every backbone, smallest first.
        pub const BACKBONES: &[BackboneInfo] = &[$($info),+];

        /// Which backbone, with its options.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum BackboneConfig {
            $($(#[$about])* #[serde(rename = $name)] $variant($options),)+
        }

        impl BackboneConfig {
            fn named(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant(<$options>::default())),)+
                    _ => None,
                }
            }

            /// Its line in the registry.
            #[must_use]
            pub fn info(&self) -> &'static BackboneInfo {
                match self {
                    $(Self::$variant(_) => const { &$info },)+
                }
            }

            fn options(&self) -> &dyn BackboneOptions {
                match self {
                    $(Self::$variant(options) => options,)+
                }
            }

            /// Builds the network with seeded weights.
            #[must_use]
            pub fn build(&self, builder: &Builder<'_>) -> Trunk {
                match self {
                    $(Self::$variant(options) => {
                        let build: fn(&$options, &Builder<'_>) -> Trunk = $build;
                        build(options, builder)
                    })+
                }
            }
        }

        /// The backbone of a network.
        // There is one per network and Burn has no boxed modules, so the size of the variants does not matter.
        #[allow(clippy::large_enum_variant)]
        #[derive(Module, Debug)]
        pub enum Trunk {
            $($(#[$network_about])* $network($network),)+
        }

        impl Trunk {
            /// The backbone behind the variant.
            #[must_use]
            pub fn backbone(&self) -> &dyn Backbone {
                match self {
                    $(Self::$network(network) => network,)+
                }
            }
        }
    };
}

register_backbones! {
    networks {
        /// Four small convolution blocks.
        Conv4,
        /// Any residual network.
        Resnet,
        /// MobileNetV2.
        MobilenetV2,
        /// SqueezeNet 1.1.
        Squeezenet,
        /// GoogLeNet.
        Googlenet,
        /// BN-Inception.
        BnInception,
        /// EfficientNet-B0.
        Efficientnet,
        /// ConvNeXt-Tiny.
        Convnext,
        /// Any vision transformer.
        VisionTransformer,
    }
    backbones {
        /// Four small convolution blocks.
        Conv4("conv4", Conv4Config, conv4::INFO, |options, builder| Trunk::Conv4(Conv4::new(options.widths(), builder))),
        /// ResNet-20 for 32-pixel images.
        Resnet20Cifar("resnet20-cifar", NoOptions, resnet::RESNET20_CIFAR, |_, builder| {
            Trunk::Resnet(Resnet::new(ResnetShape::RESNET20_CIFAR, 3, builder))
        }),
        /// Four convolution blocks that double their channels.
        Convnet("convnet", ConvnetConfig, convnet::INFO, |options, builder| {
            Trunk::Conv4(Conv4::new(options.widths(), builder))
        }),
        /// SqueezeNet 1.1.
        #[serde(alias = "squeezenet1-1")]
        Squeezenet("squeezenet1.1", NoOptions, squeezenet::INFO, |_, builder| Trunk::Squeezenet(Squeezenet::new(builder))),
        /// MobileNetV2.
        MobilenetV2("mobilenet-v2", MobilenetV2Config, mobilenet_v2::INFO, |options, builder| {
            Trunk::MobilenetV2(MobilenetV2::new(options, builder))
        }),
        /// EfficientNet-B0.
        EfficientnetB0("efficientnet-b0", NoOptions, efficientnet::INFO, |options, builder| {
            Trunk::Efficientnet(Efficientnet::new(options, builder))
        }),
        /// GoogLeNet.
        Googlenet("googlenet", NoOptions, googlenet::INFO, |options, builder| {
            Trunk::Googlenet(Googlenet::new(options, builder))
        }),
        /// BN-Inception.
        BnInception("bn-inception", NoOptions, bn_inception::INFO, |options, builder| {
            Trunk::BnInception(BnInception::new(options, builder))
        }),
        /// ResNet-18.
        Resnet18("resnet18", ResnetConfig, resnet::RESNET18, |options, builder| {
            Trunk::Resnet(Resnet::new(ResnetShape::RESNET18, options.stages, builder))
        }),
        /// ResNet-34.
        Resnet34("resnet34", ResnetConfig, resnet::RESNET34, |options, builder| {
            Trunk::Resnet(Resnet::new(ResnetShape::RESNET34, options.stages, builder))
        }),
        /// ViT-S/16.
        VitS16("vit-s16", VisionTransformerConfig, vision_transformer::VIT_S16, |options, builder| {
            Trunk::VisionTransformer(VisionTransformer::new(Shape::VIT_S16, &vision_transformer::VIT_S16, options, builder))
        }),
        /// DINOv2's ViT-S/14.
        Dinov2S14("dinov2-s14", VisionTransformerConfig, vision_transformer::DINOV2_S14, |options, builder| {
            Trunk::VisionTransformer(VisionTransformer::new(Shape::DINOV2_S14, &vision_transformer::DINOV2_S14, options, builder))
        }),
        /// ResNet-50.
        Resnet50("resnet50", ResnetConfig, resnet::RESNET50, |options, builder| {
            Trunk::Resnet(Resnet::new(ResnetShape::RESNET50, options.stages, builder))
        }),
        /// ConvNeXt-Tiny.
        ConvnextTiny("convnext-tiny", NoOptions, convnext::INFO, |options, builder| {
            Trunk::Convnext(Convnext::new(options, builder))
        }),
        /// ResNet-101.
        Resnet101("resnet101", ResnetConfig, resnet::RESNET101, |options, builder| {
            Trunk::Resnet(Resnet::new(ResnetShape::RESNET101, options.stages, builder))
        }),
        /// ViT-B/16.
        VitB16("vit-b16", VisionTransformerConfig, vision_transformer::VIT_B16, |options, builder| {
            Trunk::VisionTransformer(VisionTransformer::new(Shape::VIT_B16, &vision_transformer::VIT_B16, options, builder))
        }),
    }
}

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
        // A key with a point in it is two keys in TOML.
        let asked = if name == "squeezenet1-1" { "squeezenet1.1" } else { name };
        Self::named(asked).ok_or_else(|| {
            let names: Vec<&str> = BACKBONES.iter().map(|info| info.name).collect();
            let nearest = names
                .iter()
                .map(|known| (strsim::jaro_winkler(known, name), known))
                .max_by(|a, b| a.0.total_cmp(&b.0))
                .filter(|(similarity, _)| *similarity > 0.75)
                .map(|(_, known)| format!(" Did you mean `{known}`?"))
                .unwrap_or_default();
            ModelError::Config(format!(
                "There is no backbone `{name}`.{nearest} Known backbones: {}.",
                names.join(", ")
            ))
        })
    }

    /// Checks the options.
    ///
    /// # Errors
    /// If one is out of range.
    pub fn validate(&self) -> Result<(), ModelError> {
        self.options().check(self.info()).map_err(|refused| {
            ModelError::Config(format!(
                "The option `{}` of the backbone `{}` must be {}, but is {}.",
                refused.option,
                self.info().name,
                refused.range,
                refused.found
            ))
        })
    }

    /// Whether the network ends in a map of positions, which there is something to pool of.
    #[must_use]
    pub fn has_map(&self) -> bool {
        self.options().has_map()
    }

    /// Checks the side of the images, where the network is particular about it.
    ///
    /// # Errors
    /// If the network cannot take images of this side.
    pub fn check_size(&self, size: usize) -> Result<(), ModelError> {
        let info = self.info();
        // A side of any length goes through the others, if it leaves a pixel to look at.
        if info.size_step == 1 || (size >= info.minimum_size && size.is_multiple_of(info.size_step)) {
            return Ok(());
        }
        Err(ModelError::Config(format!(
            "The backbone `{}` takes images whose side is a multiple of {} and at least {} px, but `transform.size` (`--size`) is \
             {size}.",
            info.name, info.size_step, info.minimum_size
        )))
    }
}

/// What the rest of gradus asks of a backbone.
pub trait Backbone {
    /// Number of blocks, the unit in which a trunk is frozen; the stem is block 0.
    fn blocks(&self) -> usize;

    /// Channels of the last feature map.
    fn width(&self) -> usize;

    /// Applies one block to `[batch, channels, height, width]`; what goes from one block to the next is the network's own affair,
    /// but images go into the first and a map of `[batch, channels, height, width]` comes out of the last.
    ///
    /// # Panics
    /// If `index` is not below [`Backbone::blocks`].
    fn block(&self, index: usize, x: Tensor<4>, mode: Mode) -> Tensor<4>;

    /// The whole network as ONNX operators: from normalised images `[3, height, width]` to the last feature map, as
    /// [`Backbone::block`] computes it in evaluation.
    fn graph(&self, graph: &mut Graph, images: Value) -> Value;

    /// What goes from one block to the next, averaged over its places: `[batch, channels]`.
    fn average_of_places(&self, between: Tensor<4>) -> Tensor<2> {
        let [batch, channels, height, width] = between.dims();
        let places: Tensor<3> = between.reshape([batch, channels, height * width]);
        places.mean_dim(2).reshape([batch, channels])
    }

    /// Whether the network halves its map from stage to stage; transformers keep one grid.
    fn has_stages(&self) -> bool {
        true
    }

    /// What goes from one block to the next, as a map of places `[batch, channels, height, width]`.
    fn map_of_places(&self, between: Tensor<4>) -> Tensor<4> {
        between
    }

    /// What the network does to features after its map was pooled, `[rows, channels]` to the same.
    fn after_pooling(&self, pooled: Tensor<2>) -> Tensor<2> {
        pooled
    }

    /// [`Backbone::after_pooling`] as ONNX operators, on `[channels]` or `[places, channels]`.
    fn graph_after_pooling(&self, _graph: &mut Graph, pooled: Value) -> Value {
        pooled
    }

    /// The block that a parameter belongs to, by its dotted path inside the backbone.
    fn block_of(&self, name: &str) -> Option<usize>;

    /// The names a parameter has in the files of other libraries, one for each of [`BackboneInfo::families`], in that order.
    fn file_names(&self, _name: &str) -> Vec<String> {
        Vec::new()
    }

    /// The shape a parameter has in a file of a family, where it differs from its own in axes of extent 1.
    fn file_shape(&self, _family: Family, _name: &str, shape: &[usize]) -> Vec<usize> {
        shape.to_vec()
    }

    /// Whether an array of a file belongs to a part of the published network that the configuration leaves out.
    fn leaves_out(&self, _name: &str) -> bool {
        false
    }

    /// What can be done about an array of another shape, if the network knows.
    fn about_shape(&self, _name: &str, _found: &[usize]) -> Option<String> {
        None
    }
}

impl Trunk {
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
