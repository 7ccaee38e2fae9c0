//! `gradus bench train-step`

use std::sync::Arc;
use std::time::Instant;

use gradus::intra_class::IntraClassConfig;
use gradus::losses::LossConfig;
use gradus::state::named_shapes;
use gradus::train::objective::{MetricModel, NetworkInput, Seen, StepInput, Way};
use gradus::train::optimizer::{AdamW, Clipping, Optimizer, UpdateRule};
use gradus::train::step::{Pending, Rates, gradients, update};
use gradus_core::random::{self, Rng};
use serde_json::json;

use super::measure;
use super::network::{Network, WIDTH};
use crate::arguments::BenchTrainStep;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Classes of the images, and proxies of the loss.
const CLASSES: usize = 100;

/// Steps before the clock runs: the first gets memory and threads from the system, the second meets them.
const WARM_UP: usize = 2;

pub(crate) fn run(arguments: &BenchTrainStep) -> Outcome {
    measure::at_least_one(&[("--steps", arguments.steps)])?;
    let network = Network::new(&arguments.network, true)?;
    let (batch, seed) = (arguments.network.batch, arguments.network.seed);
    let mut stream = random::stream(seed, &[random::purpose::INITIAL, 1]);
    let labels: Arc<[u32]> = (0..batch).map(|_| stream.random_range(0..CLASSES as u32)).collect();
    let items: Arc<[u64]> = (0..batch as u64).collect();
    let loss = LossConfig::by_name("proxy-anchor").map_err(Failure::new)?;
    let mut model = MetricModel {
        loss: loss.init(WIDTH, CLASSES, seed, &network.device),
        intra_class: IntraClassConfig::disabled().init(WIDTH, seed, &network.device),
        auxiliary_loss: None,
        embedder: network.embedder,
    };
    let parameters: usize = named_shapes(&model)
        .iter()
        .filter(|(name, _)| !name.contains(".running_"))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    let mut optimizer = Optimizer::new(UpdateRule::Adamw(AdamW::default()), Clipping::None);
    let rates = Rates {
        trunk: 1e-4,
        head: 1e-4,
        criterion: 1e-2,
    };

    let mut times = Vec::with_capacity(arguments.steps);
    let mut last_loss = 0.0;
    for number in 0..WARM_UP + arguments.steps {
        let input = StepInput {
            seen: Seen {
                rows: NetworkInput::Images(network.images.clone()),
                graded: None,
            },
            labels: Arc::clone(&labels),
            items: Arc::clone(&items),
            teacher: None,
            statistics: None,
            miner: None,
            augmentation: None,
            memory: None,
            way: Way::Whole,
            progress: 0.0,
            seed,
        };
        let started = Instant::now();
        let (gradients, report) = gradients(&model, input)?;
        model = update(model, &mut optimizer, Pending::default().with(gradients), rates);
        let elapsed = started.elapsed().as_secs_f64();
        last_loss = report.loss;
        if number >= WARM_UP {
            times.push(elapsed);
        }
    }

    let (best, median) = (
        times.iter().copied().fold(f64::INFINITY, f64::min),
        measure::median(times),
    );
    // Forward pass, gradient of the weights, gradient of the inputs; the images need none.
    let forward = network.convolutions + network.head + (WIDTH * CLASSES) as u64;
    let operations = 2.0 * (3 * forward - network.first) as f64 * batch as f64;
    let gflops = operations / median / 1e9;
    let peak = measure::peak_mib();
    if arguments.network.json {
        return output::json(&json!({
            "model": arguments.network.model,
            "size": arguments.network.size,
            "batch": batch,
            "steps": arguments.steps,
            "threads": network.threads,
            "kernels": arguments.network.kernels.name(),
            "parameters": parameters,
            "operations": operations,
            "median_ms": measure::rounded(1e3 * median),
            "best_ms": measure::rounded(1e3 * best),
            "peak_mib": peak,
            "gflops": measure::rounded(gflops),
            "loss": last_loss,
        }));
    }
    let row = vec![
        arguments.network.label(),
        format!("{:.1}", 1e3 * median),
        format!("{:.1}", 1e3 * best),
        measure::mib(peak),
        format!("{gflops:.1}"),
    ];
    let heading = ["training step", "median ms", "best ms", "peak MiB", "GFLOP/s"].map(str::to_owned);
    output::text(&output::table(&[heading.to_vec(), row]))
}
