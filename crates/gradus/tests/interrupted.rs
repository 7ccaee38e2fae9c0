//! A run stopped at any step goes on to the weights of the run that was left alone.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gradus::config::{Config, Overlay};
use gradus::state::read_safetensors;
use gradus::train::{Event, Observer, PreparedData, RunFolder, Silent, TrainError, Trainer};

/// Raises the flag that Ctrl-C raises, after one step of the run.
struct StopAfter<'a> {
    epoch: usize,
    step: usize,
    flag: &'a AtomicBool,
}

impl Observer for StopAfter<'_> {
    fn on(&mut self, event: &Event) {
        if let Event::Step { epoch, step, .. } = event
            && (*epoch, *step) == (self.epoch, self.step)
        {
            self.flag.store(true, Ordering::Relaxed);
        }
    }
}

/// Members of 7 dealt in groups of 4: every epoch shows some images twice, each time as another view.
fn config() -> Config {
    let mut layers = Overlay::preset("gradus").unwrap();
    for assignment in [
        "seed=3",
        "device=cpu",
        "data.flora.species=12",
        "data.flora.images=7",
        "data.flora.size=32",
        "transform.size=32",
        "teacher.space=thumbnail",
        "model.width=64",
        "sampler.m-per-class.classes=3",
        "sampler.m-per-class.samples=4",
        "train.epochs=2",
        "optimizer.rate=0.01",
    ] {
        layers.set(assignment).unwrap();
    }
    layers.resolve().unwrap()
}

fn weights(folder: &Path) -> Vec<Vec<u32>> {
    let arrays = read_safetensors(&folder.join("model.safetensors")).unwrap().0;
    let bits = arrays
        .iter()
        .map(|array| array.values.iter().map(|value| value.to_bits()).collect());
    bits.collect()
}

#[test]
fn a_run_interrupted_at_any_step_equals_one_that_was_not() {
    let (config, home) = (config(), tempfile::tempdir().unwrap());
    let data = PreparedData::new(&config, &mut Silent).unwrap();
    let start = |name: &str| {
        let run = RunFolder::create(&home.path().join(name)).unwrap();
        run.write_text(&run.config(), &toml::to_string(&config).unwrap())
            .unwrap();
        Trainer::new(&config, &data, run, false, &mut Silent).unwrap()
    };
    let never = AtomicBool::new(false);
    start("whole").train(&mut Silent, &never).unwrap();
    let whole = weights(&home.path().join("whole"));
    for (epoch, step) in [(1, 1), (1, 3), (2, 2)] {
        let name = format!("stopped-{epoch}-{step}");
        let flag = AtomicBool::new(false);
        let mut observer = StopAfter {
            epoch,
            step,
            flag: &flag,
        };
        let error = start(&name).train(&mut observer, &flag).unwrap_err();
        assert!(
            matches!(&error, TrainError::Interrupted { epoch: done, step: at, .. } if (*done, *at) == (epoch - 1, step)),
            "{error}"
        );
        let run = RunFolder::open(&home.path().join(&name)).unwrap();
        let resumed = Trainer::new(&config, &data, run, true, &mut Silent).unwrap();
        resumed.train(&mut Silent, &never).unwrap();
        assert!(
            weights(&home.path().join(&name)) == whole,
            "stopped in epoch {epoch} after step {step}"
        );
    }
}
