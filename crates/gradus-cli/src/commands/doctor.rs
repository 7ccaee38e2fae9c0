//! `gradus doctor`

use std::time::Instant;

use gradus::device::{DeviceChoice, compiled_backends};
use gradus::kernels;
use serde_json::json;

use crate::arguments::Doctor;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Doctor) -> Outcome {
    let choice: DeviceChoice = arguments
        .device
        .parse()
        .map_err(|problem| Failure::new(format!("--device: {problem}")))?;
    let device = choice.resolve().map_err(Failure::new)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let features = kernels::processor_features();
    let started = Instant::now();
    let difference = kernels::self_check(&device);
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    let sound = difference < 1e-3;
    let here = std::env::current_dir()?;
    let writable = tempfile_in(&here);
    if arguments.json {
        output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "device": choice.to_string(),
            "backends": compiled_backends(),
            "cores": cores,
            "processor_features": features,
            "kernel_difference": difference,
            "kernel_check_ms": (milliseconds * 10.0).round() / 10.0,
            "folder_writable": writable,
            "ok": sound && writable,
        }))?;
    } else {
        output::text(&format!(
            "gradus {}\ndevice: {choice} (built with: {})\ncores: {cores}; processor features used: {}\n\
             kernels against plain Burn: largest difference {difference:.1e} in {milliseconds:.0} ms{}\nfolder {}: {}",
            env!("CARGO_PKG_VERSION"),
            compiled_backends().join(", "),
            if features.is_empty() {
                "none".to_owned()
            } else {
                features.join(", ")
            },
            if sound { "" } else { "  <- too large" },
            here.display(),
            if writable {
                "writable"
            } else {
                "NOT writable: run gradus elsewhere or give --out"
            },
        ))?;
    }
    if sound {
        Ok(())
    } else {
        Err(Failure::new(
            "the kernels disagree with plain Burn on this machine: please report it with the output above",
        ))
    }
}

fn tempfile_in(folder: &std::path::Path) -> bool {
    let path = folder.join(format!(".gradus-doctor-{}", std::process::id()));
    let written = std::fs::write(&path, b"x").is_ok();
    written && std::fs::remove_file(&path).is_ok()
}
