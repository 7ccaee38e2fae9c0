//! A whole run (data, training, checkpoints, measured result) from the same configuration that `gradus train` takes.

#![allow(clippy::print_stdout)]

use std::sync::atomic::AtomicBool;

use gradus::config::Overlay;
use gradus::train::{Event, Observer, PreparedData, RunFolder, Trainer};

/// Prints the loss of every epoch; other events are there for curves and progress bars.
struct Printed;

impl Observer for Printed {
    fn on(&mut self, event: &Event) {
        if let Event::Epoch { epoch, loss, .. } = event {
            println!("epoch {epoch}: loss {loss:.3}");
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut layers = Overlay::preset("gradus")?;
    for setting in [
        "data.path=flora",
        "data.flora.species=12",
        "data.flora.images=8",
        "data.flora.size=32",
        "transform.size=32",
        "model.backbone.conv4.channels=32",
        "model.width=64",
        "sampler.m-per-class.classes=4",
        "sampler.m-per-class.samples=4",
        "train.epochs=4",
    ] {
        layers.set(setting)?;
    }
    let config = layers.resolve()?;
    let folder = tempfile::tempdir()?;
    let data = PreparedData::new(&config, &mut Printed)?;
    let run = RunFolder::create(&folder.path().join("run"))?;
    let report =
        Trainer::new(&config, &data, run, false, &mut Printed)?.train(&mut Printed, &AtomicBool::new(false))?;
    println!("recall@1 {}", report.to_json()["recall@1"]);
    Ok(())
}
