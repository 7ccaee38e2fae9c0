//! `gradus export`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{DataFlags, OnnxRuntime};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus export --run runs/cub --format onnx --check
  gradus export --run runs/cub --format onnx --opset 18 --batch 1 --out model.onnx
  gradus export --run runs/cub --format onnx --preprocess inside        # takes pixels: uint8 [batch, height, width, 3] of any size
  gradus export --run runs/cub --format onnx --f16 --out half.onnx --check
  gradus export --run runs/cub --format onnx --int8 --out eight.onnx    # prints what it costs in Recall@1
  gradus export --run runs/head --format matrix --out head.npy          # head.npy [inputs, width] and head.bias.npy [width]

Beside model.onnx stands model.json, which says how an image becomes its input: resize (short side), center_crop, filter, mean, \
std, scale, layout, colour. The output is of unit length.")]
pub(crate) struct Export {
    /// Run folder
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run: PathBuf,
    /// What to write
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: ExportFormat,
    /// File to write [default: model.onnx or head.npy in the run folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Version of the ONNX operators, 17 to 22
    #[arg(long, value_name = "NUMBER", default_value_t = 17)]
    pub(crate) opset: i64,
    /// Images at a time: dynamic, or a number
    #[arg(long, value_name = "NUMBER", default_value = "dynamic")]
    pub(crate) batch: String,
    /// Where images are resized, cut and normalised: outside, as the JSON file says, or inside the model, which then takes pixels
    #[arg(long, value_enum, value_name = "WHERE", default_value_t)]
    pub(crate) preprocess: PreprocessWhere,
    /// Store weights in half precision; computed in single precision
    #[arg(long, conflicts_with = "int8")]
    pub(crate) f16: bool,
    /// Weights and activations of the trunk in eight bits, calibrated on training images
    #[arg(long)]
    pub(crate) int8: bool,
    /// Training images to calibrate eight bits with
    #[arg(long, value_name = "NUMBER", default_value_t = 256, requires = "int8", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) calibration_images: u64,
    /// Run the file on real images and print the largest difference from `gradus embed`; f32 must stay below 1e-4
    #[arg(long)]
    pub(crate) check: bool,
    /// What computes the file for --check and --int8: rten, which is part of gradus, or onnxruntime, a library of this machine (feature
    /// `onnxruntime`; its file is named by ORT_DYLIB_PATH)
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    pub(crate) runtime: OnnxRuntime,
    /// Images to check with [default: test images of the run's data]
    #[arg(long, value_name = "FOLDER", requires = "check")]
    pub(crate) images: Option<PathBuf>,
    /// The most images to check with
    #[arg(long, value_name = "NUMBER", default_value_t = 200, requires = "check", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) check_images: u64,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExportFormat {
    /// Trunk, pooling, head and normalisation to unit length as an ONNX model
    Onnx,
    /// A linear head alone, as two .npy files: weight [inputs, width] and bias [width]
    Matrix,
}

#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum PreprocessWhere {
    /// Outside, as the JSON file says
    #[default]
    Outside,
    /// Inside the model
    Inside,
}
