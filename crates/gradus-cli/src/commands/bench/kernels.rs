//! `gradus bench kernels`

use std::time::Instant;

use gradus::device::DeviceChoice;
use gradus::kernels::{Implementation, conv2d, set_implementation, use_threads};
use gradus::models::{BackboneConfig, Convolution, ModelConfig, convolutions};
use gradus::tensor::{Device, Tensor, TensorData};
use serde::Serialize;
use serde_json::json;

use super::measure;
use crate::arguments::{BenchKernels, Kernels};
use crate::failure::{Failure, Outcome};
use crate::output;

/// Networks that are measured unless told otherwise, with the side and number of their images.
const USUAL: [(&str, usize, usize); 3] = [("resnet18", 112, 32), ("resnet50", 224, 16), ("mobilenet-v2", 96, 64)];

/// What one pass of a layer costs.
#[derive(Debug, Clone, Copy, Serialize)]
struct Pass {
    ms: f64,
    gflops: f64,
    /// Of the machine's peak.
    share: f64,
}

/// What a layer costs.
#[derive(Debug, Serialize)]
struct Cost {
    layer: String,
    /// How many layers of the network are alike.
    count: usize,
    forward: Pass,
    weight_gradient: Pass,
    /// None for the first layer: nobody needs the gradient of the images.
    input_gradient: Option<Pass>,
}

pub(crate) fn run(arguments: &BenchKernels) -> Outcome {
    measure::at_least_one(&[
        ("--repeats", arguments.repeats),
        ("--size", arguments.size.unwrap_or(1)),
        ("--batch", arguments.batch.unwrap_or(1)),
    ])?;
    let chosen: Vec<&str> = if arguments.models.is_empty() {
        USUAL.iter().map(|(name, ..)| *name).collect()
    } else {
        arguments.models.iter().map(String::as_str).collect()
    };
    let mut works = Vec::new();
    for name in chosen {
        let backbone = BackboneConfig::by_name(name).map_err(|error| Failure::new(format!("--model: {error}")))?;
        let info = backbone.info();
        let usual = USUAL.iter().find(|(usual, ..)| *usual == name);
        let size = arguments.size.or(usual.map(|work| work.1)).unwrap_or(info.default_size);
        let batch = arguments.batch.or(usual.map(|work| work.2)).unwrap_or(16);
        if size < info.minimum_size {
            return Err(Failure::new(format!(
                "--size is {size}, but {name} takes images of at least {} pixels",
                info.minimum_size
            )));
        }
        backbone.check_size(size)?;
        works.push((name.to_owned(), backbone, size, batch));
    }
    let threads = use_threads(arguments.threads).map_err(|error| Failure::new(format!("--threads: {error}")))?;
    set_implementation(match arguments.kernels {
        Kernels::Own => Implementation::Own,
        Kernels::Stock => Implementation::Stock,
    });
    let device = DeviceChoice::Cpu.resolve().map_err(Failure::new)?;
    let peak = machine_peak(&device)?;

    let mut measured = Vec::new();
    for (name, backbone, size, batch) in works {
        let config = ModelConfig {
            backbone,
            ..ModelConfig::default()
        };
        let layers = convolutions(&config.init(arguments.seed, &device)?, size);
        let mut costs = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            // Layers that are alike are measured once.
            if layers.iter().position(|other| other == layer) == Some(number) {
                let count = layers.iter().filter(|other| *other == layer).count();
                costs.push(cost(layer, count, batch, number == 0, peak, arguments, &device)?);
            }
        }
        measured.push((name, size, batch, costs));
    }
    if arguments.json {
        let models: Vec<_> = measured
            .iter()
            .map(|(name, size, batch, layers)| json!({"model": name, "size": size, "batch": batch, "layers": layers}))
            .collect();
        return output::json(&json!({
            "threads": threads,
            "kernels": arguments.kernels.name(),
            "peak_gflops": measure::rounded(peak),
            "models": models,
        }));
    }
    let mut text = format!("peak: {peak:.0} GFLOP/s with {threads} threads\n");
    for (name, size, batch, costs) in measured {
        text.push_str(&format!("\n{}\n", table(&name, size, batch, &costs)));
    }
    output::text(&text)
}

/// The best of the machine in GFLOP/s: dense products of single precision whose matrices stay in cache.
fn machine_peak(device: &Device) -> Result<f64, Failure> {
    let mut best = 0f64;
    for side in [256usize, 384, 512, 768, 1024] {
        let matrix = |part: u64| {
            let values = measure::normal_values(side * side, 0, part);
            Tensor::<2>::from_data(TensorData::new(values, [side, side]), device)
        };
        let (a, b) = (matrix(0), matrix(1));
        for _ in 0..12 {
            let started = Instant::now();
            let product = a.clone().matmul(b.clone());
            let seconds = started.elapsed().as_secs_f64();
            std::hint::black_box(product.dims());
            best = best.max(2.0 * (side as f64).powi(3) / seconds / 1e9);
        }
    }
    if best > 0.0 {
        Ok(best)
    } else {
        Err(Failure::new(
            "the machine's clock stands still: nothing can be measured",
        ))
    }
}

/// Measures a layer.
fn cost(
    layer: &Convolution,
    count: usize,
    batch: usize,
    first: bool,
    peak: f64,
    arguments: &BenchKernels,
    device: &Device,
) -> Result<Cost, Failure> {
    let [height, width] = layer.size;
    let depth = layer.input / layer.options.groups;
    let images = measure::normal_values(batch * layer.input * height * width, arguments.seed, 0);
    let images = TensorData::new(images, [batch, layer.input, height, width]);
    let weights = measure::normal_values(layer.output * depth * layer.kernel * layer.kernel, arguments.seed, 1);
    let weights = TensorData::new(weights, [layer.output, depth, layer.kernel, layer.kernel]);
    let operations = 2.0 * layer.multiply_adds() as f64 * batch as f64;
    let pass = |time: &dyn Fn() -> Result<f64, Failure>| -> Result<Pass, Failure> {
        time()?; // gets memory from the system
        let times = (0..arguments.repeats).map(|_| time()).collect::<Result<Vec<_>, _>>()?;
        let seconds = times.into_iter().fold(f64::INFINITY, f64::min).max(1e-9);
        let gflops = operations / seconds / 1e9;
        Ok(Pass {
            ms: measure::rounded(1e3 * seconds),
            gflops: measure::rounded(gflops),
            share: measure::rounded(gflops / peak),
        })
    };

    let (x, w) = (
        Tensor::<4>::from_data(images.clone(), device),
        Tensor::<4>::from_data(weights.clone(), device),
    );
    let forward = pass(&|| {
        let started = Instant::now();
        let output = conv2d(x.clone(), w.clone(), None, &layer.options);
        let elapsed = started.elapsed().as_secs_f64();
        std::hint::black_box(output.dims());
        Ok(elapsed)
    })?;
    drop((x, w));

    let device = device.clone().autodiff();
    let (x, w) = (
        Tensor::<4>::from_data(images, &device),
        Tensor::<4>::from_data(weights, &device),
    );
    // One of both is tracked, so that the backward pass computes one gradient; that of the output is filled with 1 on the way.
    let gradient = |tracked: Tensor<4>, convolved: &dyn Fn(Tensor<4>) -> Tensor<4>| -> Result<f64, Failure> {
        let tracked = tracked.require_grad();
        let sum = convolved(tracked.clone()).sum();
        let started = Instant::now();
        let gradients = sum.backward();
        let elapsed = started.elapsed().as_secs_f64();
        match tracked.grad(&gradients) {
            Some(_) => Ok(elapsed),
            None => Err(Failure::new("a convolution has no gradient")),
        }
    };
    let weight_gradient = pass(&|| gradient(w.clone().detach(), &|w| conv2d(x.clone(), w, None, &layer.options)))?;
    let input_gradient = if first {
        None
    } else {
        Some(pass(&|| {
            gradient(x.clone().detach(), &|x| conv2d(x, w.clone(), None, &layer.options))
        })?)
    };
    Ok(Cost {
        layer: label(layer),
        count,
        forward,
        weight_gradient,
        input_gradient,
    })
}

/// A layer in a few words: channels, size before it, kernel, stride, groups.
fn label(layer: &Convolution) -> String {
    let mut label = format!(
        "{}->{} {}x{} k{}",
        layer.input, layer.output, layer.size[0], layer.size[1], layer.kernel
    );
    if layer.options.stride != [1, 1] {
        label.push_str(&format!(" s{}", layer.options.stride[0]));
    }
    if layer.options.groups > 1 {
        label.push_str(&format!(" g{}", layer.options.groups));
    }
    label
}

fn table(name: &str, size: usize, batch: usize, costs: &[Cost]) -> String {
    let mut heading = vec![format!("{name}, {batch} x {size} px"), "layers".to_owned()];
    for pass in ["forward", "weight grad.", "input grad."] {
        heading.extend([format!("{pass} ms"), "GFLOP/s".to_owned(), "share".to_owned()]);
    }
    let mut rows = vec![heading];
    let mut sums = [0f64; 3];
    for cost in costs {
        let mut row = vec![cost.layer.clone(), cost.count.to_string()];
        let passes = [Some(cost.forward), Some(cost.weight_gradient), cost.input_gradient];
        for (pass, sum) in passes.into_iter().zip(&mut sums) {
            match pass {
                Some(Pass { ms, gflops, share }) => {
                    *sum += ms * cost.count as f64;
                    row.extend([format!("{ms:.2}"), format!("{gflops:.0}"), format!("{share:.2}")]);
                }
                None => row.extend(["-", "-", "-"].map(str::to_owned)),
            }
        }
        rows.push(row);
    }
    let mut total = vec![
        "all layers".to_owned(),
        costs.iter().map(|cost| cost.count).sum::<usize>().to_string(),
    ];
    for sum in sums {
        total.extend([format!("{sum:.1}"), String::new(), String::new()]);
    }
    rows.push(total);
    output::table(&rows)
}
