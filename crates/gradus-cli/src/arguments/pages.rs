//! What can be typed for pages: `gradus report` and `gradus serve`.

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

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gradus serve --index birds
  gradus serve --index birds --run runs/cub --compare birds-baseline --port 8080
  curl --data-binary @bird.jpg -H 'Content-Type: image/jpeg' 'http://127.0.0.1:8080/search?k=5'

The explorer is the page at /, the description of the interface at /openapi.json. Ctrl-C and SIGTERM end the server once the requests it \\
has begun are answered.")]
pub(crate) struct Serve {
    /// Index to search, made by `gradus index build`
    #[arg(long, value_name = "INDEX")]
    pub(crate) index: PathBuf,
    /// Run folder whose model the index was built with, to search with images [default: the run the index names]
    #[arg(long, value_name = "RUN")]
    pub(crate) run: Option<PathBuf>,
    /// Second index of the same images, shown beside the first
    #[arg(long, value_name = "INDEX")]
    pub(crate) compare: Option<PathBuf>,
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "NUMBER", default_value_t = 8080)]
    pub(crate) port: u16,
    /// Environment variable that holds a token; every request for data must then carry it (Authorization: Bearer TOKEN)
    #[arg(long, value_name = "VARIABLE")]
    pub(crate) token_env: Option<String>,
    /// Largest body in MiB
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) max_body_mib: u32,
    /// Searches that may wait, beyond which 429 is answered
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub(crate) queue: usize,
    /// Longest time in seconds for the headers, the body and the answer, each
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = seconds)]
    pub(crate) timeout_s: f64,
    /// Where to compute the embeddings of images: auto, cpu, cuda[:n], wgpu[:n]
    #[arg(long, value_name = "DEVICE")]
    pub(crate) device: Option<String>,
    /// Print the address as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    if value.is_finite() && (0.1..=86_400.0).contains(&value) {
        Ok(value)
    } else {
        Err("expected 0.1 to 86400 seconds".to_owned())
    }
}
