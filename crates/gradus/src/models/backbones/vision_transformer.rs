//! Vision transformers: ViT-S/16 and ViT-B/16 (DeiT, DINO, torchvision), ViT-S/14 of DINOv2.

use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::{Backbone, BackboneInfo, BackboneOptions, Family, IMAGENET_NORMALISATION, Refused, Weights};
use crate::models::graph::numbers;
use crate::models::layer_norm::LayerNorm;
use crate::models::layers::{Builder, Conv2d, ConvSpec, Initial, Mode, Zeros};
use crate::models::positions::PositionInterpolation;
use crate::models::transformer::{DEVIATION, TransformerBlock};
use crate::tensor::{Module, Param, Tensor};

const PAPER: &str = "Dosovitskiy et al., An Image is Worth 16x16 Words, 2020";

/// ViT-S/16's line in the registry.
pub const VIT_S16: BackboneInfo = BackboneInfo {
    name: "vit-s16",
    paper: PAPER,
    default_size: 224,
    minimum_size: 32,
    size_step: 16,
    feature_width: 384,
    normalisation: IMAGENET_NORMALISATION,
    families: &[Family::Timm],
    weights: &[
        Weights {
            address: "https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",
            family: Family::Timm,
            licence: "Apache-2.0 (facebookresearch/deit)",
            about: "DeiT (Touvron et al., 2020), ImageNet-1k",
        },
        Weights {
            address: "https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
            family: Family::Timm,
            licence: "Apache-2.0 (facebookresearch/dino)",
            about: "DINO (Caron et al., 2021), ImageNet-1k without labels",
        },
    ],
};

/// ViT-B/16's line in the registry.
pub const VIT_B16: BackboneInfo = BackboneInfo {
    name: "vit-b16",
    feature_width: 768,
    families: &[Family::Torchvision, Family::Timm],
    weights: &[
        Weights {
            address: "https://download.pytorch.org/models/vit_b_16-c867db91.pth",
            family: Family::Torchvision,
            licence: "BSD-3-Clause (torchvision)",
            about: "ImageNet-1k",
        },
        Weights {
            address: "https://dl.fbaipublicfiles.com/deit/deit_base_patch16_224-b5f2ef4d.pth",
            family: Family::Timm,
            licence: "Apache-2.0 (facebookresearch/deit)",
            about: "DeiT (Touvron et al., 2020), ImageNet-1k",
        },
        Weights {
            address: "https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
            family: Family::Timm,
            licence: "Apache-2.0 (facebookresearch/dino)",
            about: "DINO (Caron et al., 2021), ImageNet-1k without labels",
        },
    ],
    ..VIT_S16
};

/// The line of DINOv2's ViT-S/14 in the registry.
pub const DINOV2_S14: BackboneInfo = BackboneInfo {
    name: "dinov2-s14",
    paper: "Oquab et al., DINOv2: Learning Robust Visual Features without Supervision, 2023",
    minimum_size: 28,
    size_step: 14,
    weights: &[Weights {
        address: "https://dl.fbaipublicfiles.com/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        family: Family::Timm,
        licence: "Apache-2.0 (facebookresearch/dinov2)",
        about: "LVD-142M without labels; position embeddings of 518 px",
    }],
    ..VIT_S16
};

/// Which tokens make the features.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenOutput {
    /// The class token: what the published classifiers and evaluations look at. There is nothing left to pool.
    #[default]
    ClassToken,
    /// The tokens of the patches, as a map that `model.pooling` pools.
    PatchTokens,
}

/// Options of the vision transformers. There is neither dropout nor stochastic depth.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VisionTransformerConfig {
    /// Which tokens make the features; default the class token.
    pub output: TokenOutput,
    /// How position embeddings are brought to images of another size; default as timm does it.
    pub positions: PositionInterpolation,
    /// Side of the images, in pixels, that the position embeddings of the weights belong to; none given: 224, DINOv2 518.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trained_size: Option<usize>,
}

impl BackboneOptions for VisionTransformerConfig {
    fn check(&self, info: &BackboneInfo) -> Result<(), Refused> {
        match self.trained_size {
            Some(size) if size == 0 || size > 2048 || !size.is_multiple_of(info.size_step) => Err(Refused::new(
                "trained-size",
                format!("a multiple of {} up to 2048", info.size_step),
                size,
            )),
            _ => Ok(()),
        }
    }

    fn has_map(&self) -> bool {
        self.output == TokenOutput::PatchTokens
    }
}

/// What distinguishes the vision transformers.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    width: usize,
    heads: usize,
    patch: usize,
    trained_size: usize,
    /// Where the factors of the residual branches start, if there are any.
    layer_scale: Option<f32>,
}

impl Shape {
    /// ViT-S/16.
    pub const VIT_S16: Self = Self {
        width: 384,
        heads: 6,
        patch: 16,
        trained_size: 224,
        layer_scale: None,
    };
    /// ViT-B/16.
    pub const VIT_B16: Self = Self {
        width: 768,
        heads: 12,
        ..Self::VIT_S16
    };
    /// DINOv2's ViT-S/14.
    pub const DINOV2_S14: Self = Self {
        patch: 14,
        trained_size: 518,
        layer_scale: Some(1e-5),
        ..Self::VIT_S16
    };
}

/// Blocks of every network here.
const DEPTH: usize = 12;

/// Patches as vectors: a convolution of stride as large as its kernel.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    proj: Conv2d,
}

/// A vision transformer without its classifier. Dosovitskiy et al., 2020.
///
/// Between blocks go tokens `[batch, 1, 1 + patches, width]`, the class token first. The last block normalises them and gives a map:
/// the class token `[batch, width, 1, 1]`, or the patches `[batch, width, rows, columns]` (of square images; of others in one row).
#[derive(Module, Debug)]
pub struct VisionTransformer {
    cls_token: Param<Tensor<3>>,
    pos_embed: Param<Tensor<3>>,
    patch_embed: PatchEmbed,
    blocks: Vec<TransformerBlock>,
    norm: LayerNorm,
    #[module(skip)]
    output: TokenOutput,
    #[module(skip)]
    positions: PositionInterpolation,
    torchvision: bool,
    patch: usize,
}

impl VisionTransformer {
    /// Builds a network.
    #[must_use]
    pub fn new(shape: Shape, info: &BackboneInfo, config: &VisionTransformerConfig, builder: &Builder<'_>) -> Self {
        let Shape {
            width, heads, patch, ..
        } = shape;
        let side = config.trained_size.unwrap_or(shape.trained_size) / patch;
        let projection = ConvSpec {
            bias: true,
            zeros: Zeros::Around(0),
            initial: Initial::Deviation(DEVIATION),
            ..ConvSpec::new(3, width, patch).stride(patch)
        };
        let block = |index| TransformerBlock::new(&format!("blocks.{index}"), width, heads, shape.layer_scale, builder);
        Self {
            cls_token: builder.normal([1, 1, width], 1e-6, "cls_token"),
            pos_embed: builder.normal([1, 1 + side * side, width], DEVIATION, "pos_embed"),
            patch_embed: PatchEmbed {
                proj: builder.conv("patch_embed.proj", projection),
            },
            blocks: (0..DEPTH).map(block).collect(),
            norm: LayerNorm::new(width, builder),
            output: config.output,
            positions: config.positions,
            torchvision: info.families.contains(&Family::Torchvision),
            patch,
        }
    }

    /// Side of the grid that the position embeddings belong to.
    fn trained_side(&self) -> usize {
        (self.pos_embed.dims()[1] - 1).isqrt()
    }

    /// Images to tokens that know their places.
    fn embed(&self, images: Tensor<4>) -> Tensor<4> {
        let patches = self.patch_embed.proj.forward(images);
        let [batch, width, rows, columns] = patches.dims();
        let tokens: Tensor<3> = patches.reshape([batch, width, rows * columns]).swap_dims(1, 2);
        let (positions, side) = (self.pos_embed.val(), self.trained_side());
        let count = side * side;
        let of_patches = positions.clone().narrow(1, 1, count);
        let of_patches = if [rows, columns] == [side; 2] {
            of_patches
        } else {
            self.positions.resample(of_patches, side, [rows, columns])
        };
        let class = self.cls_token.val() + positions.narrow(1, 0, 1);
        let tokens = Tensor::cat(vec![class.repeat_dim(0, batch), tokens + of_patches], 1);
        tokens.reshape([batch, 1, 1 + rows * columns, width])
    }

    /// Position embeddings of the patches on another grid, `[rows * columns, width]`, and the class token with its own.
    fn constants_on(&self, [rows, columns]: [usize; 2]) -> (Vec<f32>, Vec<f32>) {
        let (positions, side) = (self.pos_embed.val(), self.trained_side());
        let of_patches = positions.clone().narrow(1, 1, side * side);
        let of_patches = if [rows, columns] == [side; 2] {
            of_patches
        } else {
            self.positions.resample(of_patches, side, [rows, columns])
        };
        let class = self.cls_token.val() + positions.narrow(1, 0, 1);
        (numbers(of_patches), numbers(class))
    }

    /// Normalised tokens as a map.
    fn map(&self, tokens: Tensor<4>) -> Tensor<4> {
        let [batch, _, count, width] = tokens.dims();
        let patches = count - 1;
        let (first, kept) = match self.output {
            TokenOutput::ClassToken => (0, 1),
            TokenOutput::PatchTokens => (1, patches),
        };
        // Rows are normalised each for itself: those that nobody looks at are not.
        let kept_tokens = self.norm.forward(tokens.narrow(2, first, kept));
        let grid = grid_of(kept);
        kept_tokens.swap_dims(2, 3).reshape([batch, width, grid[0], grid[1]])
    }
}

/// Height and width of so many places: a square, where they make one.
fn grid_of(places: usize) -> [usize; 2] {
    let side = places.isqrt();
    if side * side == places { [side; 2] } else { [1, places] }
}

impl Backbone for VisionTransformer {
    fn blocks(&self) -> usize {
        self.blocks.len() + 1
    }

    fn width(&self) -> usize {
        self.cls_token.dims()[2]
    }

    fn block(&self, index: usize, x: Tensor<4>, _mode: Mode) -> Tensor<4> {
        if index == 0 {
            return self.embed(x);
        }
        let tokens = self.blocks[index - 1].forward(x);
        if index == self.blocks.len() {
            self.map(tokens)
        } else {
            tokens
        }
    }

    // Tokens lie in the third axis, their channels in the last.
    fn average_of_places(&self, tokens: Tensor<4>) -> Tensor<2> {
        let [batch, _, _, width] = tokens.dims();
        tokens.mean_dim(2).reshape([batch, width])
    }

    fn has_stages(&self) -> bool {
        false
    }

    // The class token, which has no place, comes first.
    fn map_of_places(&self, tokens: Tensor<4>) -> Tensor<4> {
        let [batch, _, count, width] = tokens.dims();
        let [height, wide] = grid_of(count - 1);
        let patches = tokens.narrow(2, 1, count - 1);
        patches.swap_dims(2, 3).reshape([batch, width, height, wide])
    }

    fn graph(&self, graph: &mut Graph, images: Value) -> Value {
        let patches = self.patch_embed.proj.graph(graph, images);
        let (width, grid) = (patches.shape()[0], [patches.shape()[1], patches.shape()[2]]);
        let (positions, class) = self.constants_on(grid);
        let tokens = graph.tokens(patches);
        let tokens = graph.add_constant(tokens, &positions);
        let tokens = graph.prepend(tokens, &class);
        let tokens = self.blocks.iter().fold(tokens, |x, block| block.graph(graph, x));
        let (first, end) = match self.output {
            TokenOutput::ClassToken => (0, 1),
            TokenOutput::PatchTokens => (1, tokens.shape()[0]),
        };
        let kept = graph.select_tokens(tokens, first, end);
        let kept = self.norm.graph(graph, kept);
        let turned = graph.transpose(kept, &[1, 0]);
        let count = end - first;
        let side = count.isqrt();
        let grid = if side * side == count { [side; 2] } else { [1, count] };
        graph.reshape(turned, &[width, grid[0], grid[1]])
    }

    fn block_of(&self, name: &str) -> Option<usize> {
        if ["cls_token", "pos_embed", "patch_embed."]
            .iter()
            .any(|start| name.starts_with(start))
        {
            Some(0)
        } else if name.starts_with("norm.") {
            Some(self.blocks.len())
        } else {
            super::number_after(name, "blocks.").map(|block| block + 1)
        }
    }

    // gradus' own names are those of timm and of the published files of DeiT, DINO and DINOv2.
    fn file_names(&self, name: &str) -> Vec<String> {
        let timm = name.to_owned();
        if self.torchvision {
            vec![torchvision_name(name), timm]
        } else {
            vec![timm]
        }
    }

    // DINOv2's token for masked patches, which only its training needs.
    fn leaves_out(&self, name: &str) -> bool {
        name == "mask_token"
    }

    fn about_shape(&self, name: &str, found: &[usize]) -> Option<String> {
        let [1, tokens, width] = *found else { return None };
        let side = tokens.checked_sub(1)?.isqrt();
        let grid = side > 0 && side * side + 1 == tokens;
        (name == "pos_embed" && grid && width == self.width()).then(|| {
            format!(
                "these are position embeddings of images of {} px: set the backbone's `trained-size` to that",
                side * self.patch
            )
        })
    }
}

fn torchvision_name(name: &str) -> String {
    let whole = match name {
        "cls_token" => "class_token",
        "pos_embed" => "encoder.pos_embedding",
        _ => "",
    };
    if !whole.is_empty() {
        return whole.to_owned();
    }
    if let Some(value) = name.strip_prefix("patch_embed.proj.") {
        return format!("conv_proj.{value}");
    }
    if let Some(value) = name.strip_prefix("norm.") {
        return format!("encoder.ln.{value}");
    }
    let parts: Vec<&str> = name.splitn(3, '.').collect();
    let ["blocks", block, rest] = parts[..] else {
        return name.to_owned();
    };
    let rest = rest
        .replace("norm1.", "ln_1.")
        .replace("norm2.", "ln_2.")
        .replace("attn.qkv.", "self_attention.in_proj_")
        .replace("attn.proj.", "self_attention.out_proj.")
        .replace("mlp.fc1.", "mlp.0.")
        .replace("mlp.fc2.", "mlp.3.");
    format!("encoder.layers.encoder_layer_{block}.{rest}")
}
