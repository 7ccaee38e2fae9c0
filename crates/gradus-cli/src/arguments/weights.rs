//! `gradus weights`

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(crate) struct WeightsCommand {
    #[command(subcommand)]
    pub(crate) command: WeightsAction,
}

#[derive(Subcommand, Debug)]
pub(crate) enum WeightsAction {
    /// Say which backbone a file of weights belongs to, or list every tensor in which it differs from one
    #[command(after_help = "Examples:
  gradus weights check resnet50-0676ba61.pth
  gradus weights check vit.safetensors --backbone vit-b16
  gradus weights check vit384.pth --backbone vit-b16 --set trained-size=384 --json

The differences are printed one in a line: missing, not part of it, of another shape, not finite. Exit code 0: it fits; 2: it does \
not, or cannot be read. Where published weights are, and what images they expect: `gradus list backbones`.")]
    Check {
        /// The file: .safetensors, .pth, .pt or .th
        file: PathBuf,
        /// Network to compare with [default: the one that differs least]
        #[arg(long, value_name = "NAME")]
        backbone: Option<String>,
        /// Set one option of the backbone, for example --set stages=3 (repeatable)
        #[arg(long = "set", value_name = "KEY=VALUE", requires = "backbone")]
        overrides: Vec<String>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write the trunk of a trained run under the names of torchvision, timm or the authors, for other programs
    #[command(after_help = "Examples:
  gradus weights export --run runs/cub --out trunk.safetensors
  gradus weights export --run runs/cub --names timm --out trunk.safetensors --json

Written is the trunk as torchvision or timm name and shape it, without a classifier (load it with strict=False), and the \
normalisation of the images as metadata. The head stays in the run's model.safetensors.")]
    Export {
        /// Run folder
        #[arg(long, value_name = "FOLDER")]
        run: PathBuf,
        /// Whose names [default: the first that the backbone has]
        #[arg(long, value_enum, value_name = "WHOSE")]
        names: Option<NameFamily>,
        /// File to write, .safetensors
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Whose names tensors get.
#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub(crate) enum NameFamily {
    /// torchvision's
    Torchvision,
    /// timm's
    Timm,
    /// Those of the code the weights were published with, where it is neither
    Authors,
}

impl From<NameFamily> for gradus::models::Family {
    fn from(names: NameFamily) -> Self {
        match names {
            NameFamily::Torchvision => Self::Torchvision,
            NameFamily::Timm => Self::Timm,
            NameFamily::Authors => Self::Authors,
        }
    }
}
