//! `gradus bench`

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) command: BenchCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// Measure forward and backward pass of losses on random embeddings of unit length
    Losses(BenchLosses),
    /// Measure training steps of a network: forward pass, loss, backward pass, update
    TrainStep(BenchTrainStep),
    /// Measure how fast a network embeds images
    Infer(BenchInfer),
    /// Measure exact search among random unit vectors
    Search(BenchSearch),
    /// Measure every convolution of networks, forward and backward, against the machine's peak
    Kernels(BenchKernels),
    /// Measure how fast images become batches: decoding, random crop, flip, normalisation
    Loader(BenchLoader),
}

/// The network that is measured.
#[derive(Args, Debug)]
pub(crate) struct BenchNetwork {
    /// Network: see `gradus list backbones`
    #[arg(long, value_name = "NAME")]
    pub(crate) model: String,
    /// Side of the images, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 224)]
    pub(crate) size: usize,
    /// Images of the batch
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    pub(crate) batch: usize,
    /// Kernels of convolution and normalisation
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub(crate) kernels: Kernels,
    /// Threads (0: as many as RAYON_NUM_THREADS says, else one per core)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Seed of weights, images and labels
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

impl BenchNetwork {
    /// What is measured, in a few words.
    pub(crate) fn label(&self) -> String {
        format!("{}, {} images of {} px", self.model, self.batch, self.size)
    }
}

/// Which code computes convolutions and normalisations.
#[derive(clap::ValueEnum, Debug, Clone, Copy, Default)]
pub(crate) enum Kernels {
    /// Those of gradus
    #[default]
    Own,
    /// Plain Burn, to compare with
    Stock,
}

impl Kernels {
    /// Its name as typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Stock => "stock",
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus bench train-step --model resnet50 --size 224 --batch 16
  gradus bench train-step --model convnet --size 64 --batch 64 --steps 20 --json
  gradus bench train-step --model mobilenet-v2 --size 96 --batch 64 --threads 2 --kernels stock

Random images and labels; average pooling, a linear head of width 512, Proxy-Anchor over 100 classes, AdamW over everything but batch \
normalisation, which keeps statistics, scale and shift. Two steps are not counted. GFLOP/s are the operations of convolutions, head and \
proxies (2 for a multiply-add; forward pass, gradient of weights, gradient of inputs save the images) over the median time; peak MiB is \
the most memory the process ever had (VmHWM of Linux; null where the system does not say).")]
pub(crate) struct BenchTrainStep {
    #[command(flatten)]
    pub(crate) network: BenchNetwork,
    /// Steps to take the median of, after two that are not counted
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub(crate) steps: usize,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus bench infer --model resnet50 --size 224 --batch 16
  gradus bench infer --model mobilenet-v2 --size 96 --batch 64 --json

Random images; average pooling and a linear head of width 512, without autodiff. Two passes are not counted. GFLOP/s are the operations \
of convolutions and head (2 for a multiply-add) over the median time; peak MiB is the most memory the process ever had (VmHWM of \
Linux; null where the system does not say).")]
pub(crate) struct BenchInfer {
    #[command(flatten)]
    pub(crate) network: BenchNetwork,
    /// Passes to take the median of, after two that are not counted
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub(crate) repeats: usize,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus bench losses
  gradus bench losses --batch 1024 --dim 512 --json
  gradus bench losses --loss triplet-margin --set swap=true --samples-per-class 64

Computes on the processor in single precision. Every loss runs in a process of its own; peak MiB is the most memory that process ever \
had, everything included (VmHWM of Linux; null where the system does not say).")]
pub(crate) struct BenchLosses {
    /// Rows of the batch
    #[arg(long, value_name = "NUMBER", default_value_t = 128)]
    pub(crate) batch: usize,
    /// Width of the embeddings
    #[arg(long, value_name = "NUMBER", default_value_t = 512)]
    pub(crate) dim: usize,
    /// Rows of each class
    #[arg(long, value_name = "NUMBER", default_value_t = 4)]
    pub(crate) samples_per_class: usize,
    /// Loss to measure (repeatable): see `gradus list losses` [default: all]
    #[arg(long = "loss", value_name = "NAME")]
    pub(crate) losses: Vec<String>,
    /// Set one parameter of the losses, for example --set distance=cosine (repeatable, later wins)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Passes to take the median of, after one that is not counted
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub(crate) repeats: usize,
    /// Seed of embeddings and parameters
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus bench search --n 60502 --dim 512
  gradus bench search --n 1000000 --dim 128 --queries 1000 --k 100 --json
  gradus bench search --n 60502 --dim 512 --task ranks
  gradus bench search --n 100000 --dim 128 --engine qdrant-edge --threads 1 --json

Without --queries every vector searches all others; with --engine 1000 queries are drawn from the same clusters (50 vectors each), and recall is measured against exact search. GFLOP/s count 2 operations for every pair of entries of query and vector, also where \
one product serves two queries; peak MiB is the most memory the process ever had, vectors included (VmHWM of Linux; null where the \
system does not say).")]
pub(crate) struct BenchSearch {
    /// Vectors that are searched
    #[arg(long, value_name = "NUMBER")]
    pub(crate) n: usize,
    /// Width of the vectors
    #[arg(long, value_name = "NUMBER")]
    pub(crate) dim: usize,
    /// Queries that are not among the vectors [default: the vectors themselves]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) queries: Option<usize>,
    /// Neighbours of each query, or depth of the ranks
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) k: usize,
    /// What is looked for
    #[arg(long, value_enum, value_name = "TASK", default_value_t)]
    pub(crate) task: SearchTask,
    /// Build an index of clustered vectors with this engine (flat, qdrant-edge), and search it with one query after the other
    #[arg(long, value_name = "NAME", conflicts_with = "task")]
    pub(crate) engine: Option<String>,
    /// How far the vectors of a cluster lie from its centre of length 1: the farther, the harder the neighbours are to tell
    #[arg(long, value_name = "LENGTH", requires = "engine", default_value_t = 0.7)]
    pub(crate) noise: f32,
    /// Threads (0: one per core)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Seed of the vectors
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a search is for.
#[derive(clap::ValueEnum, Debug, Clone, Copy, Default)]
pub(crate) enum SearchTask {
    /// The nearest vectors of every query
    #[default]
    Neighbors,
    /// Where the vectors of the query's class (5 each) stand, as Recall@K and MAP@R need it
    Ranks,
}

impl SearchTask {
    /// Its name as typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Neighbors => "neighbors",
            Self::Ranks => "ranks",
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus bench kernels
  gradus bench kernels --model resnet18 --repeats 10 --json
  gradus bench kernels --model mobilenet-v2 --size 96 --batch 64 --kernels stock

The peak is the best of dense products of single precision whose matrices stay in cache, with the same threads. Every layer has the \
best of its repetitions; the gradient of the output is filled on the way. Layers are named inputs->outputs, size, k kernel, s stride, \
g groups. Without --size and --batch: resnet18 32 x 112 px, resnet50 16 x 224 px, mobilenet-v2 64 x 96 px, others 16 of their usual size.")]
pub(crate) struct BenchKernels {
    /// Network whose layers are measured (repeatable): see `gradus list backbones` [default: resnet18, resnet50, mobilenet-v2]
    #[arg(long = "model", value_name = "NAME")]
    pub(crate) models: Vec<String>,
    /// Side of the images, in pixels
    #[arg(long, value_name = "PIXELS")]
    pub(crate) size: Option<usize>,
    /// Images of the batch
    #[arg(long, value_name = "NUMBER")]
    pub(crate) batch: Option<usize>,
    /// Kernels of convolution
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub(crate) kernels: Kernels,
    /// Passes to take the best of, after one that is not counted
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    pub(crate) repeats: usize,
    /// Threads (0: as many as RAYON_NUM_THREADS says, else one per core)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Seed of the numbers
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus bench loader --data photos --size 224
  gradus bench loader --data CUB_200_2011 --size 224 --batch 64 --threads 2 --json

Training views of every image of the data set, in its order: RandomResizedCrop, horizontal flip, normalisation; nothing is kept between \
epochs. Peak MiB is the most memory the process ever had (VmHWM of Linux; null where the system does not say).")]
pub(crate) struct BenchLoader {
    /// Data set: a folder, a CSV manifest, an archive (both of Omniglot's), or `flora` (embedded)
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub(crate) data: Vec<PathBuf>,
    /// Layout, when recognition from the files is not wanted (see `gradus list datasets`)
    #[arg(long, value_name = "NAME")]
    pub(crate) layout: Option<String>,
    /// Side of the views, in pixels
    #[arg(long, value_name = "PIXELS", default_value_t = 224)]
    pub(crate) size: usize,
    /// Images of a batch
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub(crate) batch: usize,
    /// Passes over the data set
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) epochs: usize,
    /// Least share of the image's area in a crop
    #[arg(long, value_name = "SHARE", default_value_t = 0.08)]
    pub(crate) crop_scale: f64,
    /// Decode JPEG files at a half, a quarter or an eighth of their size as long as their short side keeps so many pixels (0: whole)
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    pub(crate) jpeg_short_side: u32,
    /// Threads (0: one per core)
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Seed of crops and flips
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
