//! `gradus bench infer`

use std::time::Instant;

use gradus::models::Mode;
use gradus::tensor::Module;
use serde_json::json;

use super::measure;
use super::network::Network;
use crate::arguments::BenchInfer;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &BenchInfer) -> Outcome {
    measure::at_least_one(&[("--repeats", arguments.repeats)])?;
    let network = Network::new(&arguments.network, false)?;
    let batch = arguments.network.batch;
    let model = network.embedder.valid();
    let pass = || -> Result<f64, Failure> {
        let images = network.images.clone();
        let started = Instant::now();
        let embeddings = model.forward(images, Mode::Evaluate);
        // Read back, as whoever embeds images does.
        let values = embeddings.try_into_vec_as::<f32>()?;
        let elapsed = started.elapsed().as_secs_f64();
        if values.iter().all(|value| value.is_finite()) {
            Ok(elapsed)
        } else {
            Err(Failure::new("an embedding is not finite"))
        }
    };
    pass()?; // gets memory and threads from the system
    pass()?;
    let times = (0..arguments.repeats).map(|_| pass()).collect::<Result<Vec<_>, _>>()?;
    let (best, median) = (
        times.iter().copied().fold(f64::INFINITY, f64::min),
        measure::median(times),
    );
    let operations = 2.0 * (network.convolutions + network.head) as f64 * batch as f64;
    let (gflops, images) = (operations / median / 1e9, batch as f64 / median);
    let peak = measure::peak_mib();
    if arguments.network.json {
        return output::json(&json!({
            "model": arguments.network.model,
            "size": arguments.network.size,
            "batch": batch,
            "repeats": arguments.repeats,
            "threads": network.threads,
            "kernels": arguments.network.kernels.name(),
            "operations": operations,
            "median_ms": measure::rounded(1e3 * median),
            "best_ms": measure::rounded(1e3 * best),
            "images_per_second": measure::rounded(images),
            "peak_mib": peak,
            "gflops": measure::rounded(gflops),
        }));
    }
    let row = vec![
        arguments.network.label(),
        format!("{:.1}", 1e3 * median),
        format!("{:.1}", 1e3 * best),
        format!("{images:.1}"),
        measure::mib(peak),
        format!("{gflops:.1}"),
    ];
    let heading = ["inference", "median ms", "best ms", "images/s", "peak MiB", "GFLOP/s"].map(str::to_owned);
    output::text(&output::table(&[heading.to_vec(), row]))
}
