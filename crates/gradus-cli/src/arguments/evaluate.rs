//! `gradus evaluate`

use std::path::PathBuf;

use clap::Args;

use super::{DataFlags, LabelKind};

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus evaluate --run runs/cub
  gradus evaluate --run runs/cub --data Cars196 --test-classes 99-196 --json
  gradus evaluate --embeddings E.npy --labels L.npy --metrics recall,map@r --k 1,10,100,1000 --json
  gradus evaluate --embeddings Q.npy --labels QL.npy --gallery-embeddings G.npy --gallery-labels GL.npy --bootstrap 1000
  gradus evaluate --embeddings E.npy --labels L.npy --factors F.csv --circular angle:360 --explain
  gradus evaluate --labels L.npy --clusters C.npy --json

Embeddings come in .npy (f2, f4, f8), .npz, .safetensors or .parquet (columns embedding and label); labels are integers [rows], 0 \
and 1 [rows, labels] where a row has several, or, with --label-kind hierarchy, [rows, levels]. Of several arrays in a .npz or \
.safetensors file, the one is taken that is called as the option is (embeddings, labels, cameras, clusters, …). Files that do not \
fit into --memory are read in blocks (.npy).")]
pub(crate) struct Evaluate {
    /// Run folder: embeds the test classes of its data set
    #[arg(
        long,
        value_name = "FOLDER",
        conflicts_with = "embeddings",
        required_unless_present_any = ["embeddings", "clusters"]
    )]
    pub(crate) run: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Embeddings that search (each other, without a gallery)
    #[arg(long, value_name = "FILE")]
    pub(crate) embeddings: Option<PathBuf>,
    /// Their labels [default: those in the file of embeddings]
    #[arg(long, value_name = "FILE", conflicts_with = "run")]
    pub(crate) labels: Option<PathBuf>,
    /// What the labels are [default: a vector is classes, a matrix of 0 and 1 several labels]
    #[arg(long, value_enum, value_name = "KIND", requires = "embeddings")]
    pub(crate) label_kind: Option<LabelKind>,
    /// Embeddings that are searched
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) gallery_embeddings: Option<PathBuf>,
    /// Their labels
    #[arg(long, value_name = "FILE", requires = "gallery_embeddings")]
    pub(crate) gallery_labels: Option<PathBuf>,
    /// Camera of each query (integers): rows of the same label and camera are left out (re-identification)
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) cameras: Option<PathBuf>,
    /// Camera of each row of the gallery
    #[arg(long, value_name = "FILE", requires = "cameras", requires = "gallery_embeddings")]
    pub(crate) gallery_cameras: Option<PathBuf>,
    /// Known factors of each query, such as a pose: .csv with a heading, or an array [rows, factors]
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) factors: Option<PathBuf>,
    /// A factor that closes on itself, with its period, such as angle:360 (repeatable)
    #[arg(long, value_name = "NAME:PERIOD", requires = "factors")]
    pub(crate) circular: Vec<String>,
    /// Embeddings of the same queries in a space to compare with
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) reference_embeddings: Option<PathBuf>,
    /// Clusters that are given (integers), scored against --labels: NMI, AMI, F1
    #[arg(
        long,
        value_name = "FILE",
        requires = "labels",
        conflicts_with_all = [
            "run", "embeddings", "label_kind", "data", "metrics", "k", "per_class", "bootstrap", "memory", "explain",
            "query_expansion", "database_augmentation", "whitening", "re_ranking"
        ]
    )]
    pub(crate) clusters: Option<PathBuf>,
    /// Measures, such as recall,map@r,recall@100 [default: all that the data allow; see `gradus list metrics`]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub(crate) metrics: Vec<String>,
    /// Levels K of recall@K, precision@K, … such as 1,10,100 [default: the benchmark's own list, or 1,2,4,8]
    #[arg(long, alias = "recall", value_name = "LIST", value_delimiter = ',')]
    pub(crate) k: Vec<usize>,
    /// What a query with nothing to find counts: miss, as in the papers, or drop, as in pytorch-metric-learning
    #[arg(long, value_enum, default_value = "miss")]
    pub(crate) lone_queries: LoneQueries,
    /// By what the gallery is ranked
    #[arg(long, value_enum, default_value = "cosine")]
    pub(crate) distance: SearchDistance,
    /// Memory for rows, counts and blocks, such as 512MiB [default: the run's setting, or 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) memory: Option<usize>,
    /// Threads [default: all]
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Means of each class and over classes (macro), with the result or to FILE (.csv)
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) per_class: Option<PathBuf>,
    /// Category of each query (integers): means of each category and over categories
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) categories: Option<PathBuf>,
    /// Resamples of the queries for 95 % intervals
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) bootstrap: usize,
    /// Seed of the resamples
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    #[command(flatten)]
    pub(crate) post_processing: PostProcessing,
    /// Say in one line what each number means
    #[arg(long)]
    pub(crate) explain: bool,
    /// Where to compute the embeddings of a run: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE", requires = "run")]
    pub(crate) device: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Each is applied to the embeddings as they are, on its own, and reported beside them.
#[derive(clap::Args, Debug, Default)]
#[command(next_help_heading = "Post-processing (each on its own, reported beside the plain numbers)")]
pub(crate) struct PostProcessing {
    /// Queries join their K nearest rows (alpha query expansion)
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) query_expansion: Option<u32>,
    /// Rows of the gallery join their K nearest others (database-side augmentation)
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) database_augmentation: Option<u32>,
    /// Power of the similarity that is a neighbour's weight in both; 0: plain averages [default: 3]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) expansion_alpha: Option<f64>,
    /// Whitens with the statistics of FILE, or, without FILE, of the run's training classes
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "-")]
    pub(crate) whitening: Option<PathBuf>,
    /// Width after whitening [default: all directions in which the training embeddings vary]
    #[arg(long, value_name = "NUMBER", requires = "whitening")]
    pub(crate) whitening_width: Option<usize>,
    /// Re-ranks the nearest rows by shared k-reciprocal neighbours
    #[arg(long)]
    pub(crate) re_ranking: bool,
    /// Neighbours that may be reciprocal [default: 20]
    #[arg(long, value_name = "NUMBER", requires = "re_ranking")]
    pub(crate) k1: Option<usize>,
    /// Rows whose neighbourhoods are averaged [default: 6]
    #[arg(long, value_name = "NUMBER", requires = "re_ranking")]
    pub(crate) k2: Option<usize>,
    /// Share of the plain distance in the final one [default: 0.3]
    #[arg(long, value_name = "SHARE", requires = "re_ranking")]
    pub(crate) lambda: Option<f64>,
    /// Nearest rows of each query that are re-ranked [default: 200]
    #[arg(long, value_name = "NUMBER", requires = "re_ranking")]
    pub(crate) candidates: Option<usize>,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub(crate) enum LoneQueries {
    Miss,
    Drop,
}

#[derive(clap::ValueEnum, Debug, Clone, Copy)]
pub(crate) enum SearchDistance {
    Cosine,
    InnerProduct,
    Euclidean,
}

/// A size such as 1GiB, 512MiB, 2GB or 1000000.
fn bytes(text: &str) -> Result<usize, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text[number.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        unit => {
            return Err(format!(
                "{unit} is no unit of memory: expected a size such as 512MiB or 1GiB"
            ));
        }
    };
    match number.trim().parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok((number * unit) as usize),
        _ => Err("expected a size such as 512MiB or 1GiB".into()),
    }
}
