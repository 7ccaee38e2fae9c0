//! `gradus bench losses`

use std::process::{Command, Stdio};
use std::time::Instant;

use gradus::batch::{Comparison, ItemSet};
use gradus::config::settings;
use gradus::device::DeviceChoice;
use gradus::losses::{LossConfig, Support, names};
use gradus::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::measure;
use crate::arguments::BenchLosses;
use crate::failure::{Failure, Outcome};
use crate::output;

/// What one loss costs.
#[derive(Debug, Serialize, Deserialize)]
struct Cost {
    /// Median of forward and backward pass, in milliseconds.
    median_ms: f64,
    /// Most memory the process that measured it ever had, in MiB; none where the system does not say.
    peak_mib: Option<f64>,
}

pub(crate) fn run(arguments: &BenchLosses) -> Outcome {
    measure::at_least_one(&[
        ("--batch", arguments.batch),
        ("--dim", arguments.dim),
        ("--samples-per-class", arguments.samples_per_class),
        ("--repeats", arguments.repeats),
    ])?;
    let mut chosen: Vec<&str> = arguments.losses.iter().map(String::as_str).collect();
    for name in &chosen {
        LossConfig::by_name(name).map_err(|problem| Failure::new(format!("--loss: {problem}")))?;
    }
    if chosen.is_empty() {
        chosen.extend(names());
    }
    chosen.sort_unstable();
    chosen.dedup();

    let mut costs = Map::new();
    for name in &chosen {
        // The peak of a process cannot be told apart by loss: each of several losses has a process to itself.
        let cost = if chosen.len() == 1 {
            serde_json::to_value(measure(name, arguments)?)?
        } else {
            measured_alone(name, arguments)?
        };
        costs.insert((*name).to_owned(), cost);
    }
    if arguments.json {
        return output::json(&Value::Object(costs));
    }
    let mut rows = vec![["loss", "ms", "peak MiB"].map(str::to_owned).to_vec()];
    for (name, cost) in costs {
        let Cost { median_ms, peak_mib } = serde_json::from_value(cost)?;
        rows.push(vec![name, format!("{median_ms:.2}"), measure::mib(peak_mib)]);
    }
    output::text(&output::table(&rows))
}

/// Measures a loss in a process of its own.
fn measured_alone(name: &str, arguments: &BenchLosses) -> Result<Value, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "losses", "--json", "--loss", name]);
    for (option, value) in [
        ("--batch", arguments.batch),
        ("--dim", arguments.dim),
        ("--samples-per-class", arguments.samples_per_class),
        ("--repeats", arguments.repeats),
    ] {
        command.args([option, &value.to_string()]);
    }
    command.args(["--seed", &arguments.seed.to_string()]);
    for assignment in &arguments.overrides {
        command.args(["--set", assignment]);
    }
    let finished = command.stderr(Stdio::piped()).output()?;
    if !finished.status.success() {
        let said = String::from_utf8_lossy(&finished.stderr);
        let said = said.trim().trim_start_matches("error: ");
        let reason = if said.is_empty() { "it was stopped" } else { said };
        return Err(Failure::new(format!("{name} was not measured: {reason}")));
    }
    let mut found: Map<String, Value> = serde_json::from_slice(&finished.stdout)?;
    found
        .remove(name)
        .ok_or_else(|| Failure::new(format!("{name} was not measured: its process printed nothing of it")))
}

/// Measures a loss in this process.
fn measure(name: &str, arguments: &BenchLosses) -> Result<Cost, Failure> {
    let BenchLosses {
        batch,
        dim,
        samples_per_class,
        seed,
        ..
    } = *arguments;
    let config: LossConfig = settings(name, &arguments.overrides)?;
    config.validate().map_err(Failure::new)?;
    let device = DeviceChoice::Cpu.resolve().map_err(Failure::new)?.autodiff();
    let labels: Vec<u32> = (0..batch).map(|row| (row / samples_per_class) as u32).collect();
    let loss = config.init(dim, batch.div_ceil(samples_per_class), seed, &device);
    let two_views = config.info().accepts.references == Support::Required;
    let [first, second] = [0, 1].map(|view| measure::unit_rows(batch, dim, seed, view));

    let step = || -> Result<f64, Failure> {
        let leaf = |values: &[f32]| tensor(values, dim, &device).require_grad();
        let (anchors, others) = (leaf(&first), two_views.then(|| leaf(&second)));
        let started = Instant::now();
        let mut comparison = Comparison::within(ItemSet::new(anchors.clone(), labels.clone())).with_seed(seed);
        comparison.references = others.map(|rows| ItemSet::new(rows, labels.clone()));
        loss.check(&comparison).map_err(Failure::new)?;
        let gradients = loss.forward(&comparison).backward();
        let slopes = anchors.grad(&gradients);
        let elapsed = started.elapsed();
        // What is not read might never have been computed.
        let sum = slopes.map(|slopes| slopes.sum().try_into_scalar::<f32>()).transpose()?;
        match sum {
            Some(sum) if sum.is_finite() => Ok(elapsed.as_secs_f64() * 1e3),
            Some(sum) => Err(Failure::new(format!("the gradient of {name} sums to {sum}"))),
            None => Err(Failure::new(format!("{name} has no gradient"))),
        }
    };
    step()?; // the first pass starts threads and gets memory from the system
    let times = (0..arguments.repeats).map(|_| step()).collect::<Result<Vec<_>, _>>()?;
    Ok(Cost {
        median_ms: measure::rounded(measure::median(times)),
        peak_mib: measure::peak_mib(),
    })
}

fn tensor(values: &[f32], dim: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / dim, dim]), device)
}
