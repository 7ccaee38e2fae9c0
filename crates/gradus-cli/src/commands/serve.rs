//! `gradus serve`

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gradus::models::{Embedder as Network, Mode};
use gradus::tensor::{Device, Tensor, TensorData};
use gradus::train::embed::to_host;
use gradus_core::data::Source;
use gradus_core::data::image::decode_within;
use gradus_core::data::transform::Transform;
use gradus_index::Index;
use gradus_serve::{Embedder, Options, Server};
use serde_json::json;

use super::index::open;
use super::trained::{load_embedder, model_of, stored_layers};
use crate::arguments::Serve;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Serve) -> Outcome {
    let mut options = Options {
        largest_body: (arguments.max_body_mib as usize) << 20,
        queue: arguments.queue,
        timeout: Duration::from_secs_f64(arguments.timeout_s),
        ..Options::default()
    };
    if let Some(variable) = &arguments.token_env {
        let token = std::env::var(variable).unwrap_or_default();
        if token.is_empty() {
            return Err(Failure::new(format!(
                "--token-env {variable}: the environment variable {variable} is not set or empty; put the token there"
            )));
        }
        options.token = Some(token);
    }
    let index = opened(&arguments.index)?;
    let named = index.model().map(|model| PathBuf::from(model.run));
    let run = arguments
        .run
        .clone()
        .or_else(|| named.filter(|run| stored_layers(run).is_ok()));
    let embedder = run
        .map(|run| RunEmbedder::new(&run, &index, arguments.device.as_deref()))
        .transpose()?;
    if embedder.is_none() {
        output::note(
            "images cannot be searched with, only vectors and items of the index: it names no run that is still there (see --run)",
        );
    }
    let mut indexes = vec![(name(&arguments.index), index)];
    if let Some(compared) = &arguments.compare {
        indexes.push((name(compared), opened(compared)?));
    }
    let embedder = embedder.map(|embedder| Box::new(embedder) as Box<dyn Embedder>);
    let public = arguments
        .host
        .parse::<std::net::IpAddr>()
        .is_ok_and(|address| !address.is_loopback());
    if public && options.token.is_none() {
        output::note("other machines can reach this server, and no token is asked for: see --token-env");
    }
    let server = Server::bind(&arguments.host, arguments.port, indexes, embedder, options)?;
    let address = server.address()?;
    if arguments.json {
        output::json(
            &json!({"url": format!("http://{address}/"), "host": address.ip().to_string(), "port": address.port()}),
        )?;
    } else {
        output::text(&format!("serving http://{address}/ (Ctrl-C ends it)"))?;
    }
    server.run(|| false)?;
    output::note("ended");
    Ok(())
}

fn opened(folder: &Path) -> Result<Index, Failure> {
    let index = open(folder)?;
    if let Some(root) = index.image_root().filter(|root| !root.is_dir()) {
        output::note(&format!(
            "{}: its folder of images {} is not there, so no pictures are shown",
            folder.display(),
            root.display()
        ));
    }
    Ok(index)
}

fn name(folder: &Path) -> String {
    folder
        .canonicalize()
        .ok()
        .and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| folder.display().to_string())
}

/// The model of a run.
struct RunEmbedder {
    // One image after the other: a forward pass uses all cores.
    network: Mutex<Network>,
    device: Device,
    transform: Transform,
    dimension: usize,
}

impl RunEmbedder {
    fn new(folder: &Path, index: &Index, device: Option<&str>) -> Result<Self, Failure> {
        let mut layers = stored_layers(folder)?;
        if let Some(device) = device {
            layers.insert("device", device);
        }
        let config = layers.resolve()?;
        index.check_model(&model_of(folder, &config)?)?;
        let (network, device) = load_embedder(folder, &config)?;
        Ok(Self {
            dimension: network.dim(),
            network: Mutex::new(network),
            device,
            transform: config.transform.init()?,
        })
    }
}

impl Embedder for RunEmbedder {
    fn dimension(&self) -> usize {
        self.dimension
    }

    fn embed(&self, image: &Source) -> Result<Vec<f32>, String> {
        // Limits are the server's; this image is decoded already.
        let pixels = decode_within(image, u64::MAX).map_err(|error| error.to_string())?;
        let size = self.transform.size();
        let view = TensorData::new(self.transform.evaluate(&pixels), [1, 3, size, size]);
        let network = self.network.lock().unwrap_or_else(PoisonError::into_inner);
        let features = network.features(Tensor::from_data(view, &self.device), Mode::Evaluate);
        to_host(network.head(features)).map_err(|error| error.to_string())
    }
}
