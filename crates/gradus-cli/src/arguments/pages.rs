//! What can be typed for pages: `gradus report`.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus report runs/cub
  gradus report runs/baseline runs/gradus --out compared.html

The page needs no network: pictures and plots are in it. The test classes of every run are embedded again, so its data must be where \
they were.")]
pub(crate) struct Report {
    /// Run folders; several are put beside each other
    #[arg(required = true, value_name = "RUN")]
    pub(crate) runs: Vec<PathBuf>,
    /// File to write [default: report.html in the folder of the run, of several in the current folder]
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// Seed of the sample that the gallery shows
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub(crate) seed: u64,
    /// Where to compute the embeddings: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
