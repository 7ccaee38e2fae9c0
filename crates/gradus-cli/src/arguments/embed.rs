//! `gradus embed`

use std::path::PathBuf;

use clap::Args;
use gradus_core::embeddings::parts::Shard;

use super::DataFlags;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus embed --run runs/cub --images photos --out photos.npy
  gradus embed --run runs/cub --images photos --out photos.parquet
  gradus embed --run runs/cub --images millions --out vectors/ --shard 1/4
  gradus embed --run runs/head --embeddings E.npy --out embedded.npy
  gradus embed --onnx model.onnx --images photos --out photos.npy                # preprocessing from model.json beside it
  gradus embed --onnx dinov2.onnx --output image_embeds --resize 256 --center-crop 224 --filter bicubic \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --normalize --images photos --out photos.npy
  gradus embed --onnx model.onnx --data CUB_200_2011 --test-classes 101-200 --out E.npy     # then: gradus evaluate --embeddings E.npy
  gradus embed --onnx head.onnx --embeddings E.npy --out embedded.npy

Of a data set (--data) the test classes are embedded; their numbers are the labels beside the embeddings.")]
pub(crate) struct Embed {
    /// Run folder
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with = "onnx",
        required_unless_present = "onnx"
    )]
    pub(crate) run: Option<PathBuf>,
    /// ONNX model instead of a run: any that takes images, or vectors, and gives one vector for each
    #[arg(long, value_name = "FILE")]
    pub(crate) onnx: Option<PathBuf>,
    /// Folder of images, searched with its sub-folders
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with_all = ["embeddings", "data"],
        required_unless_present_any = ["embeddings", "data"]
    )]
    pub(crate) images: Option<PathBuf>,
    /// Vectors instead of images, for a model that is a head on vectors: .npy, .npz, .safetensors or .parquet
    #[arg(long, value_name = "FILE", conflicts_with_all = ["max_bad_images", "data"])]
    pub(crate) embeddings: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// File to write: .npy, .safetensors or .parquet; paths are kept beside it or in it. Or a folder: Parquet parts are written into it as
    /// they are done, in bounded memory, and the same command goes on after an interruption
    #[arg(long, value_name = "PATH")]
    pub(crate) out: PathBuf,
    /// Embed only the INDEX-th of COUNT equal shards, so that several processes or machines share the work; --out is one folder for all
    #[arg(long, value_name = "INDEX/COUNT")]
    pub(crate) shard: Option<Shard>,
    /// Images in a part of a folder [default: 16384]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) part_rows: Option<u32>,
    #[command(flatten)]
    pub(crate) model: OnnxFlags,
    /// Where to compute a run: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE", conflicts_with = "onnx")]
    pub(crate) device: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What computes an ONNX model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnnxRuntime {
    #[default]
    Rten,
    Onnxruntime,
}

#[cfg(feature = "onnx")]
impl OnnxRuntime {
    /// Its name, as flags have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rten => "rten",
            Self::Onnxruntime => "onnxruntime",
        }
    }
}

/// How an ONNX model is used; flags go before what the JSON file says.
#[derive(Args, Debug)]
pub(crate) struct OnnxFlags {
    /// What computes an ONNX model: rten, which is part of gradus, or onnxruntime, a library of this machine (feature `onnxruntime`;
    /// its file is named by ORT_DYLIB_PATH)
    #[arg(long, value_name = "NAME", requires = "onnx", value_enum, default_value_t)]
    pub(crate) runtime: OnnxRuntime,
    /// JSON file of the preprocessing [default: the model's name with .json]
    #[arg(long, value_name = "FILE", requires = "onnx")]
    pub(crate) preprocessing: Option<PathBuf>,
    /// Output that is the embedding, where the model has several
    #[arg(long, value_name = "NAME", requires = "onnx")]
    pub(crate) output: Option<String>,
    /// Pixels of the short side, HEIGHTxWIDTH, or none
    #[arg(long, value_name = "SIZE", requires = "onnx")]
    pub(crate) resize: Option<String>,
    /// Side of the square cut from the centre, or none
    #[arg(long, value_name = "PIXELS", requires = "onnx")]
    pub(crate) center_crop: Option<String>,
    /// Filter of the resize: bilinear, bicubic or lanczos, antialiased as in Pillow
    #[arg(long, value_name = "NAME", requires = "onnx")]
    pub(crate) filter: Option<String>,
    /// Mean of each channel, for values from 0 to 1, such as 0.485,0.456,0.406
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "onnx")]
    pub(crate) mean: Option<Vec<f32>>,
    /// Standard deviation of each channel
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', requires = "onnx")]
    pub(crate) std: Option<Vec<f32>>,
    /// Images that go through an ONNX model together [default: 32, or what the file fixes]
    #[arg(long, value_name = "NUMBER", requires = "onnx", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) batch_size: Option<u64>,
    /// Bring the vectors of an ONNX model to unit length
    #[arg(long, requires = "onnx")]
    pub(crate) normalize: bool,
}
