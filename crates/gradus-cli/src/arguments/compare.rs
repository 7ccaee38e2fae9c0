//! What `gradus compare` is told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DataFlags;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus compare --losses all --epochs 4
  gradus compare --losses contrastive,multi-similarity --presets proxy-anchor,gradus --seeds 0,1,2 --out runs/losses
  gradus compare --losses all --set miner=multi-similarity --set sampler.m-per-class.classes=12 --json
  gradus compare --config studies/controls.toml --data-root datasets --out runs/controls --html controls.html
  gradus compare --config studies/controls.toml --data-root datasets --seeds 0 --epochs 1 --parallel 2 --json
  gradus compare --config studies/controls.toml --data-root datasets --tune 12 --out runs/tuned --markdown tuned.md
  gradus compare --presets proxy-anchor,gradus --seeds 0,1,2 --folds 4

Every arm sees the same batches from the same start. Without --data it trains on the embedded flora data with the settings of the \
quick start. Called again with the same --out, it keeps the runs that are finished and goes on with the one that is not; it may be \
killed at any time.

A study file (--config) names data sets and arms; docs/compare.md describes it:

  seeds = [0, 1, 2, 3, 4]
  baseline = \"proxy-anchor\"
  [base]                      # keys of the configuration for all arms
  train.epochs = 20
  [data.cub50]
  path = \"cub50\"              # relative to --data-root
  train-classes = \"1-25\"
  [arm.proxy-anchor]          # called like a preset: that preset
  [arm.strong]
  preset = \"gradus\"
  set = [\"intra-class.weight=20\"]

Intervals are 95 %: of means over seeds (Student's t), of differences to the baseline over seeds and test classes (paired bootstrap).")]
pub(crate) struct Compare {
    /// Study file: data sets, arms, seeds
    #[arg(long, value_name = "FILE", conflicts_with_all = ["losses", "presets", "data", "layout", "train_classes", "test_classes"])]
    pub(crate) config: Option<PathBuf>,
    /// Where relative paths of the study file start [default: the folder of the file]
    #[arg(long, value_name = "FOLDER", requires = "config")]
    pub(crate) data_root: Option<PathBuf>,
    /// Losses, each with its default settings over preset proxy-anchor: names, or all
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) losses: Vec<String>,
    /// Presets
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) presets: Vec<String>,
    /// Seeds; means are over them [default: those of the study file, else 0]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) seeds: Vec<u64>,
    /// The arm that differences are taken to [default: that of the study file, else proxy-anchor, else the first]
    #[arg(long, value_name = "ARM")]
    pub(crate) baseline: Option<String>,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Epochs of each run
    #[arg(long, value_name = "NUMBER")]
    pub(crate) epochs: Option<usize>,
    /// Override one key in every arm (repeatable, later wins)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) overrides: Vec<String>,
    /// Where to compute: auto, cpu, cuda[:n], wgpu[:n] [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Runs at a time, each in a process of its own with its share of the cores
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) parallel: usize,
    /// Search settings first: so many trials per arm on validation classes, by the ranges of the study file; the best of each arm is
    /// then trained with all seeds and tested
    #[arg(long, value_name = "TRIALS", requires = "config")]
    pub(crate) tune: Option<usize>,
    /// Cross-validation: cut the training classes into so many folds, each of which validates once; tested is the best epoch of every
    /// fold, and a seed counts with the mean over its folds
    #[arg(long, value_name = "NUMBER")]
    pub(crate) folds: Option<usize>,
    /// Folder for the runs [default: a new folder under runs/]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: Option<PathBuf>,
    /// Write the tables as Markdown, too
    #[arg(long, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,
    /// Write tables and plots as one HTML page, too
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Takes runs that nobody is at, for a process that waits
    #[arg(long, hide = true, value_enum, value_name = "STAGE")]
    pub(crate) worker: Option<Stage>,
}

/// Which runs a worker takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// The trials of a search.
    Search,
    /// The runs that are tested.
    Study,
}
