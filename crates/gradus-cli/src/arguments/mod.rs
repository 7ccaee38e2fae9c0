//! What can be typed.

mod bench;
mod compare;
mod embed;
mod evaluate;
mod export;
mod index;
mod pages;
mod shell;
mod weights;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use bench::*;
pub(crate) use compare::{Compare, Stage};
pub(crate) use embed::{Embed, OnnxFlags, OnnxRuntime};
pub(crate) use evaluate::*;
pub(crate) use export::{Export, ExportFormat, PreprocessWhere};
pub(crate) use index::*;
pub(crate) use pages::*;
pub(crate) use shell::*;
pub(crate) use weights::*;

/// Deep metric learning that keeps the degrees inside a class.
#[derive(Parser, Debug)]
#[command(name = "gradus", version, long_version = crate::version::long(), propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  gradus quickstart
  gradus train --data CUB_200_2011 --backbone mobilenet-v2 --weights mobilenet_v2.safetensors --size 96 --out runs/cub
  gradus evaluate --run runs/cub
  gradus embed --run runs/cub --images photos --out photos.npy
  gradus index build --run runs/cub --images photos --out photos.index
  gradus search --index photos.index bird.jpg --html hits.html

Results go to stdout, talk to stderr. Exit code 0: done; 2: not done, with the reason on stderr.")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Train two presets on the embedded flora data and compare them on species never seen
    Quickstart(Quickstart),
    /// Train an embedding on images
    Train(Box<Train>),
    /// Train several losses or presets under the same conditions and put them side by side
    Compare(Box<Compare>),
    /// Measure a trained run on the test classes of a data set, or any embeddings in files
    Evaluate(Box<Evaluate>),
    /// Put embeddings into clusters by k-means, and score them against labels
    Cluster(Cluster),
    /// Measure few-shot classification by the nearest centroid, of a trained run or of embeddings in files
    FewShot(FewShot),
    /// Write a page of HTML about one run, or several beside each other
    Report(Report),
    /// Embed images, or vectors of another model, with a trained run or any ONNX model
    Embed(Box<Embed>),
    /// Write a trained run as an ONNX model, or a linear head as a matrix
    Export(Box<Export>),
    /// Build, extend and inspect an index of images that can be searched
    Index(IndexCommand),
    /// Find the images of an index that are most similar to others
    Search(Search),
    /// Serve an index over HTTP, with a page to search and look at it
    Serve(Serve),
    /// Find the thresholds that tell a match from an unknown, and store them with an index
    Calibrate(Box<Calibrate>),
    /// Find groups of images that are almost the same
    Duplicates(Duplicates),
    /// Compute a loss and its gradients from files
    Loss(Loss),
    /// Choose pairs or triplets among embeddings, as a miner does in training
    Mine(Mine),
    /// Inspect or generate data sets
    Data(Data),
    /// List what can be named in a configuration
    List(List),
    /// Show or check a configuration
    Config(ConfigCommand),
    /// Check files of pretrained weights, and write a run's trunk for other libraries
    Weights(WeightsCommand),
    /// Check this machine: devices, kernels, memory
    Doctor(Doctor),
    /// Measure how long parts of gradus take here, and how much memory
    Bench(Bench),
    /// Print the completions of a shell
    Completions(Completions),
    /// Write the manual pages
    Manual(Manual),
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus quickstart
  gradus quickstart --json > result.json")]
pub(crate) struct Quickstart {
    /// Folder for the runs (default: a new folder under runs/)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Seed of data, start and batches
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Epochs of each run
    #[arg(long)]
    pub(crate) epochs: Option<usize>,
    /// Where to compute: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a configuration comes from.
#[derive(Args, Debug, Default)]
pub(crate) struct Source {
    /// Preset to start from: gradus, proxy-anchor, sgar, sgar-released [default: gradus]
    #[arg(long, value_name = "NAME")]
    pub(crate) preset: Option<String>,
    /// TOML file over the preset
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Override one key, for example --set loss.proxy-anchor.alpha=16 (repeatable, later wins)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
}

/// Which data, said on the command line.
#[derive(Args, Debug, Default)]
pub(crate) struct DataFlags {
    /// Data set: a folder, a CSV manifest, an archive (both of Omniglot's), or `flora` (embedded)
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Layout, when recognition from the files is not wanted (see `gradus list datasets`)
    #[arg(long, value_name = "NAME")]
    pub(crate) layout: Option<String>,
    /// Official numbers of the training classes, such as 1-25,30
    #[arg(long, value_name = "RANGES")]
    pub(crate) train_classes: Option<String>,
    /// Official numbers of the test classes
    #[arg(long, value_name = "RANGES")]
    pub(crate) test_classes: Option<String>,
    /// Share of broken images that is tolerated; they are named and left out [default: 0.001]
    #[arg(long, value_name = "SHARE")]
    pub(crate) max_bad_images: Option<f64>,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus train --data flora --preset gradus --out runs/flora
  gradus train --data CUB_200_2011 --backbone mobilenet-v2 --weights mobilenet_v2.safetensors --size 96 --epochs 15 --json
  gradus train --data my-images --train-classes 1-40 --test-classes 41-60 --freeze-trunk --backbone resnet50 --weights resnet50.pth
  gradus train --embeddings E.npy --labels L.npy --train-classes 0-99 --test-classes 100-199 --width 128
  gradus train --resume runs/flora")]
pub(crate) struct Train {
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Vectors of another model instead of images, in .npy, .npz, .safetensors or .parquet: trains a head on them
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "layout", "backbone", "weights", "size", "cache", "freeze_trunk", "views", "max_bad_images"])]
    pub(crate) embeddings: Option<PathBuf>,
    /// Class of each vector, an integer vector in .npy, .npz or .safetensors (default: what lies in or beside the file of vectors)
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) labels: Option<PathBuf>,
    /// Network: see `gradus list backbones`
    #[arg(long, value_name = "NAME")]
    pub(crate) backbone: Option<String>,
    /// Pretrained weights, .safetensors or .pth
    #[arg(long, value_name = "FILE")]
    pub(crate) weights: Option<PathBuf>,
    /// Side of the square the network sees, in pixels
    #[arg(long, value_name = "PIXELS")]
    pub(crate) size: Option<usize>,
    /// Width of the embedding, 64 to 2048
    #[arg(long, value_name = "NUMBER")]
    pub(crate) width: Option<usize>,
    /// Where decoded images are kept between epochs; `disk` serves later runs too [default: ram]
    #[arg(long, value_name = "PLACE", value_parser = ["ram", "disk", "none"])]
    pub(crate) cache: Option<String>,
    /// Train only the head, on features computed once
    #[arg(long)]
    pub(crate) freeze_trunk: bool,
    /// Augmented views of every training image whose features are stored, with --freeze-trunk
    #[arg(long, value_name = "NUMBER")]
    pub(crate) views: Option<usize>,
    /// Epochs; 0 only evaluates the start
    #[arg(long, value_name = "NUMBER")]
    pub(crate) epochs: Option<usize>,
    /// Seed of every random stream
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Where to compute: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Run folder (default: a new folder under runs/)
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Write the numbers of every step and epoch for another program, beside events.jsonl: a file that TensorBoard reads
    #[arg(long, value_name = "PROGRAM", value_parser = ["tensorboard"])]
    pub(crate) log: Option<String>,
    /// Continue the run in FOLDER (or in --out) from its newest checkpoint, as if it had never stopped
    #[arg(long, value_name = "FOLDER", num_args = 0..=1, default_missing_value = "")]
    pub(crate) resume: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus cluster --embeddings E.npy --clusters 100 --out clusters.npy
  gradus cluster --embeddings E.npy --labels L.npy --clusters 100 --normalize --json
  gradus cluster --embeddings E.npy --clusters 11316 --restarts 1 --iterations 20 --out clusters.npy

The rows are taken as they are; --normalize brings them to unit length first. With labels, NMI, AMI, pairwise F1 and purity are \
printed as well. The result depends on the seed, not on the number of threads.")]
pub(crate) struct Cluster {
    /// Embeddings, a floating-point matrix [rows, width] in .npy, .npz, .safetensors or .parquet
    #[arg(long, value_name = "FILE")]
    pub(crate) embeddings: PathBuf,
    /// Class of each of them, an integer vector [rows] in .npy, .npz or .safetensors, or the .parquet of the embeddings
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// Clusters
    #[arg(long, value_name = "NUMBER")]
    pub(crate) clusters: usize,
    /// Starts, of which the one with the least inertia is kept
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub(crate) restarts: usize,
    /// Most iterations of each start
    #[arg(long, value_name = "NUMBER", default_value_t = 300)]
    pub(crate) iterations: usize,
    /// Bring the rows to unit length first
    #[arg(long)]
    pub(crate) normalize: bool,
    /// Seed of the starts
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where to write the cluster of each row, an integer vector [rows] in .npy
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus few-shot --run runs/omniglot --ways 20 --shots 1
  gradus few-shot --run runs/omniglot --data images_background.zip images_evaluation.zip --ways 5 --shots 5 --json
  gradus few-shot --embeddings E.npy --labels L.npy --ways 5 --queries 10 --json

Every episode draws classes, examples (shots) and queries of the test classes; a query is classified by the nearest mean of the \
examples. Printed are the mean accuracy over episodes and half the width of its 95 % interval.")]
pub(crate) struct FewShot {
    /// Run folder: embeds the test classes of its data set
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with = "embeddings",
        required_unless_present = "embeddings"
    )]
    pub(crate) run: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Embeddings instead of a run, a floating-point matrix [rows, width] in .npy, .npz, .safetensors or .parquet; rows are brought to
    /// unit length
    #[arg(long, value_name = "FILE", requires = "labels", conflicts_with_all = ["data", "layout", "train_classes", "test_classes", "max_bad_images"])]
    pub(crate) embeddings: Option<PathBuf>,
    /// Class of each of them, an integer vector [rows] in .npy, .npz or .safetensors, or the .parquet of the embeddings
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) labels: Option<PathBuf>,
    /// Classes of an episode
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub(crate) ways: usize,
    /// Examples of each class
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) shots: usize,
    /// Queries of each class
    #[arg(long, value_name = "NUMBER", default_value_t = 15)]
    pub(crate) queries: usize,
    /// Episodes
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub(crate) episodes: usize,
    /// Seed of the episodes
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where to compute the embeddings of a run: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE", requires = "run")]
    pub(crate) device: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus loss --name contrastive --embeddings e.npy --labels y.npy
  gradus loss --name triplet-margin --embeddings e.npy --labels y.npy --set margin=0.2 --set distance=cosine --json
  gradus loss --name proxy-anchor --embeddings e.npy --labels y.npy --parameters proxies.npy --gradient g.npy --json
  gradus loss --name nt-xent --embeddings e.npy --labels y.npy --reference-embeddings r.npy --reference-labels ry.npy
  gradus mine --name batch-hard --embeddings e.npy --labels y.npy --json > m.json
  gradus loss --name margin --embeddings e.npy --labels y.npy --mined m.json

It computes in the precision of the embeddings: double for f8, single for f4 and f2. Beside its own parameters (see `gradus list \
losses`) every loss takes distance, reducer, embedding-regularizer, embedding-reg-weight, weight-regularizer and \
weight-reg-weight. With reducer=do-nothing it prints every value of every pair, triplet or row instead of their sum.")]
pub(crate) struct Loss {
    /// Loss: see `gradus list losses`
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Embeddings, a floating-point matrix [rows, width] in .npy, .npz, .safetensors or .parquet
    #[arg(long, value_name = "FILE")]
    pub(crate) embeddings: PathBuf,
    /// Class of each of them, an integer vector [rows] in .npy, .npz or .safetensors, or the .parquet of the embeddings; not needed by losses that look at no
    /// labels
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: Option<PathBuf>,
    /// What the labels are
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub(crate) label_kind: LabelKind,
    /// Set one parameter of the loss, for example --set margin=0.1 (repeatable, later wins)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// What the loss holds: one row per proxy, the proxies of a class together, or a learned vector [default: drawn]
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// Embeddings to compare with [default: the embeddings themselves]
    #[arg(long, value_name = "FILE")]
    pub(crate) reference_embeddings: Option<PathBuf>,
    /// Class of each reference embedding
    #[arg(long, value_name = "FILE", requires = "reference_embeddings")]
    pub(crate) reference_labels: Option<PathBuf>,
    /// Pairs or triplets to look at, as `gradus mine --json` prints them [default: all]
    #[arg(long, value_name = "FILE")]
    pub(crate) mined: Option<PathBuf>,
    /// Where to write the gradient of the embeddings, .npy
    #[arg(long, value_name = "FILE")]
    pub(crate) gradient: Option<PathBuf>,
    /// Where to write the gradient of the reference embeddings, .npy
    #[arg(long, value_name = "FILE", requires = "reference_embeddings")]
    pub(crate) reference_gradient: Option<PathBuf>,
    /// Where to write the gradient of the parameters, .npy
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters_gradient: Option<PathBuf>,
    /// Seed of parameters that are not given, and of random triplets
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus mine --name batch-hard --embeddings e.npy --labels y.npy
  gradus mine --name triplet-margin --embeddings e.npy --labels y.npy --set type-of-triplets=semihard --json
  gradus mine --name multi-similarity --embeddings e.npy --labels y.npy --set epsilon=0.2 --set distance=lp --json
  gradus mine --name pair-margin --embeddings e.npy --labels y.npy --reference-embeddings r.npy --reference-labels ry.npy

Positions are counted from 0; positives and negatives are positions in the reference set, where there is one.")]
pub(crate) struct Mine {
    /// Miner: see `gradus list miners`
    #[arg(long, value_name = "NAME")]
    pub(crate) name: String,
    /// Embeddings of the anchors, a floating-point matrix [rows, width] in .npy, .npz, .safetensors or .parquet
    #[arg(long, value_name = "FILE")]
    pub(crate) embeddings: PathBuf,
    /// Class of each of them, an integer vector [rows] in .npy, .npz or .safetensors, or the .parquet of the embeddings
    #[arg(long, value_name = "FILE")]
    pub(crate) labels: PathBuf,
    /// What the labels are
    #[arg(long, value_enum, value_name = "KIND", default_value_t)]
    pub(crate) label_kind: LabelKind,
    /// Set one parameter of the miner, for example --set margin=0.1 (repeatable, later wins)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Embeddings that positives and negatives are taken from [default: the anchors' batch itself]
    #[arg(long, value_name = "FILE", requires = "reference_labels")]
    pub(crate) reference_embeddings: Option<PathBuf>,
    /// Class of each reference embedding
    #[arg(long, value_name = "FILE", requires = "reference_embeddings")]
    pub(crate) reference_labels: Option<PathBuf>,
    /// Seed of random miners
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Print one JSON object with what was chosen
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is known of every item.
#[derive(clap::ValueEnum, Debug, Clone, Copy, Default)]
pub(crate) enum LabelKind {
    /// One class: an integer vector [rows]
    #[default]
    Classes,
    /// Any number of labels: a matrix [rows, labels] of 0 and 1; items belong together by the share of labels in common
    MultiLabel,
    /// Classes from the coarsest to the finest: a matrix [rows, levels]; items belong together by the share of levels in common
    Hierarchy,
}

impl From<LabelKind> for gradus_core::embeddings::LabelKind {
    fn from(kind: LabelKind) -> Self {
        match kind {
            LabelKind::Classes => Self::Classes,
            LabelKind::MultiLabel => Self::MultiLabel,
            LabelKind::Hierarchy => Self::Hierarchy,
        }
    }
}

#[derive(Args, Debug)]
pub(crate) struct Data {
    #[command(subcommand)]
    pub(crate) command: DataCommand,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DataCommand {
    /// Print layout, splits, counts, class sizes and bad images of a data set
    #[command(after_help = "Examples:
  gradus data inspect CUB_200_2011
  gradus data inspect my-images --train-classes 1-40 --test-classes 41-60 --json")]
    Inspect {
        /// Folder, CSV manifest, archive (both of Omniglot's), or `flora`
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Layout, when recognition from the files is not wanted
        #[arg(long, value_name = "NAME")]
        layout: Option<String>,
        /// Official numbers of the training classes
        #[arg(long, value_name = "RANGES")]
        train_classes: Option<String>,
        /// Official numbers of the test classes
        #[arg(long, value_name = "RANGES")]
        test_classes: Option<String>,
        /// Do not decode the images
        #[arg(long)]
        quick: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Download a data set from its makers, check it and unpack it
    #[command(
        after_help = "Known: cub200, cars196, sop, omniglot, and inshop, whose makers ask for an agreement first.

Examples:
  gradus data get cub200 --to data
  gradus data get cars196 --to data --mirror https://mirror.example.org/cars
  gradus data get ours --to data --catalogue ours.toml

An interrupted download goes on where it stopped. Proxies are those of HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY."
    )]
    Get {
        /// Which one
        name: String,
        /// Folder that it is put into
        #[arg(long, value_name = "FOLDER")]
        to: PathBuf,
        /// TOML file with data sets of your own: [NAME] title, paths, [[NAME.files]] name, addresses, md5, size
        #[arg(long, value_name = "FILE")]
        catalogue: Option<PathBuf>,
        /// Address of a folder that holds the files under the names they have at their makers, asked instead of these
        #[arg(long, value_name = "URL")]
        mirror: Option<String>,
        /// Silence after which a connection counts as broken and the rest is asked for again
        #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = pages::seconds)]
        timeout_s: f64,
        /// Keep the archives after unpacking
        #[arg(long)]
        keep_archives: bool,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Write an embedded data set as images and a table of factors
    #[command(after_help = "Examples:
  gradus data generate flora --out flora-images
  gradus data generate flora --species 20 --images 10 --size 96 --seed 3 --out small")]
    Generate {
        /// Which one: flora
        name: String,
        /// Folder to write
        #[arg(long, value_name = "FOLDER")]
        out: PathBuf,
        /// Species (classes)
        #[arg(long, value_name = "NUMBER")]
        species: Option<u32>,
        /// Images of each species
        #[arg(long, value_name = "NUMBER")]
        images: Option<u32>,
        /// Side of an image in pixels
        #[arg(long, value_name = "PIXELS")]
        size: Option<u32>,
        /// Seed
        #[arg(long, value_name = "NUMBER")]
        seed: Option<u64>,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// What to list
    #[arg(value_enum)]
    pub(crate) what: Listed,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub(crate) enum Listed {
    /// Supervised base losses
    Losses,
    /// Networks
    Backbones,
    /// Data set layouts
    Datasets,
    /// Presets
    Presets,
    /// Samplers
    Samplers,
    /// Miners of pairs and triplets
    Miners,
    /// Distances and similarities
    Distances,
    /// How the values of a loss become one number
    Reducers,
    /// Costs on embeddings or proxies, whatever the labels
    Regularizers,
    /// Generators of the method
    Generators,
    /// What is generated in embedding space for the base loss
    EmbeddingAugmentations,
    /// Losses beside the base loss
    AuxiliaryLosses,
    /// Measures of evaluation
    Metrics,
}

#[derive(Args, Debug)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    pub(crate) command: ConfigAction,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ConfigAction {
    /// Print the resolved configuration as TOML
    #[command(after_help = "Examples:
  gradus config show --preset sgar
  gradus config show --config my.toml --set train.epochs=30")]
    Show {
        #[command(flatten)]
        source: Source,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Check a configuration file
    Check {
        /// The file
        file: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// Where to compute: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, default_value = "auto")]
    pub(crate) device: String,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
