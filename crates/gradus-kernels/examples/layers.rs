//! Times the dense convolution's kernels, layer by layer: images as columns (im2col), the direct kernel and Winograd's,
//! in turn, best of the repetitions.
//!
//! `cargo run --release -p gradus-kernels --example layers [repetitions [layers ...]]`
//!
//! The time is that of the process, all threads together, so that other work on the machine does not count. The kernels
//! are compiled into the example, because the public operation would time autodiff with them.

#![allow(dead_code, unused_imports, unreachable_pub)]

#[path = "../src/dense.rs"]
mod dense;
#[path = "../src/direct.rs"]
mod direct;
#[path = "../src/geometry.rs"]
mod geometry;
#[path = "../src/memory.rs"]
mod memory;
#[path = "../src/options.rs"]
mod options;
#[path = "../src/product.rs"]
mod product;
#[path = "../src/simd.rs"]
mod simd;
#[path = "../src/strips.rs"]
mod strips;
#[path = "../src/winograd.rs"]
mod winograd;
#[path = "../src/winograd_transforms.rs"]
mod winograd_transforms;

use geometry::Geometry;
use options::Conv2dOptions;

/// Images, channels, outputs, size, kernel, stride.
const LAYERS: &[[usize; 6]] = &[
    // ResNet-18, 112 pixels.
    [32, 3, 64, 112, 7, 2],
    [32, 64, 64, 28, 3, 1],
    [32, 64, 128, 28, 3, 2],
    [32, 128, 128, 14, 3, 1],
    [32, 128, 256, 14, 3, 2],
    [32, 256, 256, 7, 3, 1],
    [32, 256, 512, 7, 3, 2],
    [32, 512, 512, 4, 3, 1],
    [32, 64, 128, 28, 1, 2],
    // ResNet-50, 224 pixels.
    [16, 3, 64, 224, 7, 2],
    [16, 64, 64, 56, 3, 1],
    [16, 128, 128, 56, 3, 2],
    [16, 128, 128, 28, 3, 1],
    [16, 256, 256, 28, 3, 2],
    [16, 256, 256, 14, 3, 1],
    [16, 512, 512, 14, 3, 2],
    [16, 512, 512, 7, 3, 1],
    [16, 64, 256, 56, 1, 1],
    [16, 256, 64, 56, 1, 1],
    [16, 256, 128, 56, 1, 1],
    [16, 128, 512, 28, 1, 1],
    [16, 512, 128, 28, 1, 1],
    [16, 512, 256, 28, 1, 1],
    [16, 256, 1024, 14, 1, 1],
    [16, 1024, 256, 14, 1, 1],
    [16, 1024, 512, 14, 1, 1],
    [16, 512, 2048, 7, 1, 1],
    [16, 2048, 512, 7, 1, 1],
    [16, 256, 512, 56, 1, 2],
    // convnet, 64 pixels.
    [64, 3, 32, 64, 3, 1],
    [64, 32, 64, 32, 3, 1],
    [64, 64, 128, 16, 3, 1],
    [64, 128, 256, 8, 3, 1],
];

/// Deterministic values in -1..1.
fn random(length: usize) -> Vec<f32> {
    let value = |i: usize| ((i.wrapping_mul(2_654_435_761) >> 8) % 2001) as f32 / 1000.0 - 1.0;
    (0..length).map(|i| value(i + length)).collect()
}

/// Seconds of processor time that this process has taken.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to the structure given.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

fn ms(work: impl FnOnce() -> Vec<f32>) -> f64 {
    let start = processor_time();
    let result = work();
    let time = (processor_time() - start) * 1e3;
    drop(result);
    time
}

fn main() {
    memory::keep_large_buffers();
    let mut arguments = std::env::args()
        .skip(1)
        .map(|argument| argument.parse::<usize>().unwrap_or(0));
    let repetitions = arguments.next().unwrap_or(5);
    let chosen: Vec<usize> = arguments.collect();
    println!(
        "layer n c o size kernel stride: forward, weight gradient, input gradient in ms (GFLOP/s), columns | direct | Winograd"
    );
    for (index, &[n, c, o, size, kernel, stride]) in LAYERS.iter().enumerate() {
        if !chosen.is_empty() && !chosen.contains(&index) {
            continue;
        }
        let options = Conv2dOptions::symmetric(stride, kernel / 2);
        let geometry = Geometry::new([n, c, size, size], [o, c, kernel, kernel], &options);
        let x = random(n * c * size * size);
        let weight = random(o * c * kernel * kernel);
        let gradient = random(geometry.output_shape().iter().product());
        let mut best = [f64::INFINITY; 9];
        for _ in 0..repetitions {
            let mut record = |slot: usize, time: f64| best[slot] = best[slot].min(time);
            record(0, ms(|| dense::forward(&geometry, &x, &weight, None)));
            record(1, ms(|| dense::weight_gradient(&geometry, &x, &gradient)));
            record(2, ms(|| dense::input_gradient(&geometry, &weight, &gradient)));
            record(3, ms(|| direct::forward(&geometry, &x, &weight, None)));
            record(4, ms(|| direct::weight_gradient(&geometry, &x, &gradient)));
            record(5, ms(|| direct::input_gradient(&geometry, &weight, &gradient)));
            if winograd::applies(&geometry) {
                record(6, ms(|| winograd::forward(&geometry, &x, &weight, None)));
                record(7, ms(|| winograd::weight_gradient(&geometry, &x, &gradient)));
                record(8, ms(|| winograd::input_gradient(&geometry, &weight, &gradient)));
            }
        }
        let work = 2e-6 * (n * o * c * kernel * kernel * geometry.output_pixels()) as f64;
        let text = |times: &[f64]| {
            let text = times.iter().map(|time| format!("{time:8.2} ({:4.0})", work / time));
            text.collect::<Vec<_>>().join(" ")
        };
        println!(
            "{index:2} {n:3} {c:4} {o:4} {size:3} {kernel} {stride}: {} | {} | {}",
            text(&best[..3]),
            text(&best[3..6]),
            text(&best[6..])
        );
    }
}
