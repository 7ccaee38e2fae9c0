//! What can be typed for searching: `index`, `search`, `calibrate`, `duplicates`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DataFlags;

#[derive(Args, Debug)]
pub(crate) struct IndexCommand {
    #[command(subcommand)]
    pub(crate) command: IndexAction,
}

#[derive(Subcommand, Debug)]
pub(crate) enum IndexAction {
    /// Build an index of a folder of images or of embeddings
    Build(Box<IndexBuild>),
    /// Add images or embeddings that are not in an index yet
    Add(Box<IndexAdd>),
    /// Delete items from an index, by name or by filter
    Delete(IndexDelete),
    /// Print what an index holds
    Stats(IndexStats),
}

/// Where an index is.
#[derive(Args, Debug)]
#[group(id = "place", required = true, multiple = false, args = ["index", "url"])]
pub(crate) struct Place {
    /// Folder of the index
    #[arg(long, value_name = "FOLDER")]
    pub(crate) index: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// A Qdrant server.
#[derive(Args, Debug)]
pub(crate) struct Server {
    /// Qdrant server or cluster instead of a folder, such as http://localhost:6333
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) url: Option<String>,
    /// Collection on the server
    #[arg(long, value_name = "NAME", requires = "url", default_value = "gradus")]
    pub(crate) collection: String,
    /// Environment variable that holds the API key of the server
    #[arg(long, value_name = "VARIABLE", requires = "url")]
    pub(crate) api_key_env: Option<String>,
}

/// What is put into an index.
#[derive(Args, Debug)]
pub(crate) struct IndexInput {
    /// Folder of images, searched with its sub-folders; classes are those of its layout, else the names of its sub-folders. With
    /// --embeddings: the folder that the paths of the embeddings lie in
    #[arg(long, value_name = "FOLDER", required_unless_present = "embeddings")]
    pub(crate) images: Option<PathBuf>,
    /// Embeddings instead of images: .npy, .npz, .safetensors or .parquet
    #[arg(long, value_name = "FILE", conflicts_with = "device")]
    pub(crate) embeddings: Option<PathBuf>,
    /// Class of each embedding, an integer vector [rows] in .npy, .npz or .safetensors [default: what the file of embeddings says]
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) labels: Option<PathBuf>,
    /// Table of what else is known: CSV with a column image (or path, id) and any others; a column class (or label) names the class
    #[arg(long, value_name = "FILE")]
    pub(crate) payload: Option<PathBuf>,
    /// Share of broken images that is tolerated; they are named and left out
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    pub(crate) max_bad_images: f64,
    /// Where to compute: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Items that are stored together
    #[arg(long, value_name = "NUMBER", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) batch: u32,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus index build --run runs/cub --images photos --out photos.index
  gradus index build --run runs/cub --images photos --payload prices.csv --out photos.index --json
  gradus index build --embeddings E.npy --labels L.npy --engine flat --out e.index
  gradus index build --run runs/cub --images photos --url https://cluster:6333 --collection photos --api-key-env QDRANT_KEY

An index that is there is replaced when the new one is whole. A build that was interrupted goes on where it stopped when the same command is \
given again. At the end the engine is compared with exact search on vectors of the index: recall@10, and the time of a search.")]
pub(crate) struct IndexBuild {
    /// Run folder whose model embeds the images
    #[arg(long, value_name = "FOLDER", required_unless_present = "embeddings")]
    pub(crate) run: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) input: IndexInput,
    /// Folder of the index
    #[arg(long, value_name = "FOLDER", required_unless_present = "url", conflicts_with = "url")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: Server,
    /// What answers searches: qdrant-edge (a graph, approximate) or flat (exact) [default: qdrant-edge]
    #[arg(long, value_name = "NAME", conflicts_with = "url")]
    pub(crate) engine: Option<String>,
    /// Queries that the engine is compared with exact search on; 0 for none
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    pub(crate) recall_queries: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus index add --index photos.index --images photos
  gradus index add --index e.index --embeddings more.npy

Items whose name is in the index already are left as they are. Batches are stored whole or not at all: interrupted, the same command goes on.")]
pub(crate) struct IndexAdd {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Run folder whose model embeds the images [default: the one the index was built with]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) run: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) input: IndexInput,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus index delete --index photos.index --id holiday/17.jpg
  gradus index delete --index photos.index --filter class=cat --filter 'price>100'")]
pub(crate) struct IndexDelete {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Name of an item (repeatable)
    #[arg(long = "id", value_name = "NAME", required_unless_present = "filters")]
    pub(crate) ids: Vec<String>,
    /// Delete the items that fit: field=value, also != < <= > >= (repeatable: all must hold; several = of one field: any)
    #[arg(long = "filter", value_name = "CONDITION", conflicts_with = "ids")]
    pub(crate) filters: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus index stats --index photos.index
  gradus index stats --index photos.index --recall-queries 1000 --json")]
pub(crate) struct IndexStats {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Compare the engine with exact search on so many vectors of the index
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) recall_queries: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus search --index photos.index bird.jpg
  gradus search --index photos.index a.jpg b.jpg --k 10 --filter class=cat --html hits.html
  gradus search --index e.index --embeddings Q.npy --row 3 --threshold 0.7 --json

A query whose nearest item scores less than the threshold (given, or found by `gradus calibrate`) is unknown; the nearest items are printed \
all the same. Scores are cosine similarities, -1 to 1.")]
pub(crate) struct Search {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Images to search for
    #[arg(
        value_name = "IMAGE",
        required_unless_present = "embeddings",
        conflicts_with = "embeddings"
    )]
    pub(crate) images: Vec<PathBuf>,
    /// Embeddings to search for: .npy, .npz, .safetensors or .parquet
    #[arg(long, value_name = "FILE")]
    pub(crate) embeddings: Option<PathBuf>,
    /// One row of the embeddings, counted from 0 [default: all]
    #[arg(long, value_name = "NUMBER", requires = "embeddings")]
    pub(crate) row: Option<usize>,
    /// Run folder whose model embeds the images [default: the one the index was built with]
    #[arg(long, value_name = "FOLDER", conflicts_with = "embeddings")]
    pub(crate) run: Option<PathBuf>,
    /// Items to find
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) k: u32,
    /// Look only at items that fit: field=value, also != < <= > >= (repeatable: all must hold; several = of one field: any)
    #[arg(long = "filter", value_name = "CONDITION")]
    pub(crate) filters: Vec<String>,
    /// Least score of a match [default: what `gradus calibrate` stored, else none]
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    pub(crate) threshold: Option<f32>,
    /// Also write a page of pictures
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Where to compute: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE", conflicts_with = "embeddings")]
    pub(crate) device: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(
    group(clap::ArgGroup::new("rule").required(true).args(["false_match_rate", "best_f1", "remove"])),
    after_help = "Examples:
  gradus calibrate --index photos.index --false-match-rate 0.01
  gradus calibrate --index photos.index --run runs/cub --data more-birds --best-f1 --per-class
  gradus calibrate --index e.index --embeddings H.npy --labels HL.npy --false-match-rate 0.01 --json

Queries are held-out images of known class: of a run's test classes (--run), embeddings (--embeddings), or the index's own items, each left \
out of its own answer. False-match rate: the share of queries of which an item of another class would be accepted, were their own class not in \
the index. The thresholds are stored with the index, and the scores they come from in calibration.json in its folder."
)]
pub(crate) struct Calibrate {
    /// Folder of the index
    #[arg(long, value_name = "FOLDER")]
    pub(crate) index: PathBuf,
    /// Run folder: the test classes of its data, or of --data, are the queries
    #[arg(long, value_name = "FOLDER", conflicts_with = "embeddings")]
    pub(crate) run: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) data: DataFlags,
    /// Embeddings of held-out items: .npy, .npz, .safetensors or .parquet
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "layout", "train_classes", "test_classes", "max_bad_images"])]
    pub(crate) embeddings: Option<PathBuf>,
    /// Class of each of them, an integer vector [rows] in .npy, .npz or .safetensors [default: what the file of embeddings says]
    #[arg(long, value_name = "FILE", requires = "embeddings")]
    pub(crate) labels: Option<PathBuf>,
    /// The lowest threshold with at most this share of false matches
    #[arg(long, value_name = "SHARE")]
    pub(crate) false_match_rate: Option<f64>,
    /// The threshold of the greatest F1
    #[arg(long)]
    pub(crate) best_f1: bool,
    /// Forget the thresholds
    #[arg(long, conflicts_with_all = ["run", "embeddings", "per_class"])]
    pub(crate) remove: bool,
    /// Find a threshold for hits of every class that has enough of them, too
    #[arg(long)]
    pub(crate) per_class: bool,
    /// Queries, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 5000)]
    pub(crate) queries: usize,
    /// Where to compute: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE", requires = "run")]
    pub(crate) device: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(
    group(clap::ArgGroup::new("input").required(true).args(["index", "embeddings"])),
    after_help = "Examples:
  gradus duplicates --index photos.index --threshold 0.98
  gradus duplicates --embeddings E.npy --threshold 0.95 --json

All pairs of items whose cosine similarity is at least the threshold, exactly; items that hang together by such pairs are one group."
)]
pub(crate) struct Duplicates {
    /// Folder of an index
    #[arg(long, value_name = "FOLDER")]
    pub(crate) index: Option<PathBuf>,
    /// Embeddings: .npy, .npz, .safetensors or .parquet; .npy may be larger than memory
    #[arg(long, value_name = "FILE")]
    pub(crate) embeddings: Option<PathBuf>,
    /// Least similarity of duplicates, -1 to 1
    #[arg(long, value_name = "SCORE", default_value_t = 0.95, allow_hyphen_values = true)]
    pub(crate) threshold: f64,
    /// Memory for blocks of rows, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub(crate) memory: usize,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
