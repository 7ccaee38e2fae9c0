//! `gradus bench loader`

use std::sync::Arc;
use std::time::Instant;

use gradus::config::DataConfig;
use gradus::train::prepare;
use gradus_core::data::Layout;
use gradus_core::data::image::Decoding;
use gradus_core::data::loader::{Loader, LoaderOptions, Mode};
use gradus_core::data::transform::TransformConfig;
use serde_json::json;

use super::measure;
use crate::arguments::BenchLoader;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &BenchLoader) -> Outcome {
    measure::at_least_one(&[
        ("--size", arguments.size),
        ("--batch", arguments.batch),
        ("--epochs", arguments.epochs),
    ])?;
    let (first, with) = arguments
        .data
        .split_first()
        .ok_or_else(|| Failure::new("expected a path (--data)"))?;
    let layout = arguments.layout.as_deref().map(str::parse::<Layout>).transpose();
    let dataset = prepare::read(&DataConfig {
        path: first.clone(),
        with: with.to_vec(),
        layout: layout.map_err(|problem| Failure::new(format!("--layout: {problem}")))?,
        ..DataConfig::default()
    })?;
    let transform = TransformConfig {
        size: arguments.size,
        crop_scale: [arguments.crop_scale, 1.0],
        ..TransformConfig::default()
    }
    .init()?;
    let items: Arc<[_]> = dataset.items.into();
    let order: Vec<usize> = (0..items.len()).collect();
    let batches: Vec<Vec<usize>> = order.chunks(arguments.batch).map(<[usize]>::to_vec).collect();
    let mut options = LoaderOptions {
        seed: arguments.seed,
        decoding: Decoding {
            jpeg_short_side: arguments.jpeg_short_side,
            ..Decoding::default()
        },
        ..LoaderOptions::default()
    };
    if arguments.threads > 0 {
        options.threads = arguments.threads;
    }
    let threads = options.threads;

    let mut images = 0usize;
    let started = Instant::now();
    for epoch in 0..arguments.epochs {
        options.mode = Mode::Train {
            epoch: epoch as u64,
            graded_levels: None,
        };
        let loader = Loader::start(Arc::clone(&items), batches.clone(), transform.clone(), options.clone());
        for batch in loader {
            images += std::hint::black_box(batch?).items.len();
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let (rate, peak) = (images as f64 / seconds, measure::peak_mib());
    if arguments.json {
        return output::json(&json!({
            "images": images,
            "size": arguments.size,
            "batch": arguments.batch,
            "epochs": arguments.epochs,
            "threads": threads,
            "seconds": measure::rounded(seconds),
            "images_per_second": measure::rounded(rate),
            "peak_mib": peak,
        }));
    }
    let row = vec![
        format!("{images} views of {} px, {threads} threads", arguments.size),
        format!("{seconds:.2}"),
        format!("{rate:.0}"),
        measure::mib(peak),
    ];
    let heading = ["input pipeline", "seconds", "images/s", "peak MiB"].map(str::to_owned);
    output::text(&output::table(&[heading.to_vec(), row]))
}
