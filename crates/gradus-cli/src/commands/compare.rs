//! `gradus compare`: several losses or presets under the same conditions, side by side with the untrained network.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use gradus::config::{Config, Overlay};
use gradus::losses::{self, LossConfig};
use gradus::models::HeadStart;
use gradus::train::{PreparedData, RunFolder};
use serde_json::{Map, Value, json};

use super::layers;
use super::train::{number, stop_on_interrupt, train};
use crate::arguments::Compare;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// Columns of the table that every arm has.
const MEASURES: [&str; 4] = ["recall@1", "map@r", "order_preservation", "seconds"];
/// The arm that is not trained.
const UNTRAINED: &str = "untrained";

/// One way to train, for one seed.
struct Run {
    arm: String,
    seed: u64,
    config: Config,
}

pub(crate) fn run(arguments: &Compare) -> Outcome {
    let started = Instant::now();
    let runs = runs(arguments)?;
    let interrupted = stop_on_interrupt();
    let folder = arguments
        .out
        .clone()
        .unwrap_or_else(|| layers::new_run_folder("compare"));
    let mut results: Vec<(&str, u64, Map<String, Value>)> = Vec::new();
    let mut prepared: Option<(u64, PreparedData)> = None;
    for (index, run) in runs.iter().enumerate() {
        output::note(&format!(
            "run {} of {}: {}, seed {}",
            index + 1,
            runs.len(),
            run.arm,
            run.seed
        ));
        let place = folder.join(format!("{}-seed-{}", run.arm, run.seed));
        let measures = match finished(&place, run)? {
            Some(measures) => measures,
            None => {
                let data = match prepared.take() {
                    Some((seed, data)) if seed == run.seed => data,
                    _ => PreparedData::new(&run.config, &mut Progress::new("compare"))?,
                };
                let measures = measured(&place, run, &data, &interrupted)?;
                prepared = Some((run.seed, data));
                measures
            }
        };
        results.push((run.arm.as_str(), run.seed, measures));
    }
    print(arguments, &results, &folder, started.elapsed().as_secs_f64())
}

/// Every arm with every seed, seed by seed; all configurations are checked before anything is trained.
fn runs(arguments: &Compare) -> Result<Vec<Run>, Failure> {
    let names = match &arguments.losses[..] {
        [all] if all == "all" => losses::names().iter().map(|&name| name.to_owned()).collect(),
        names => names.to_vec(),
    };
    let mut arms: Vec<(String, Overlay)> = Vec::new();
    for preset in &arguments.presets {
        arms.push((preset.clone(), Overlay::preset(preset)?));
    }
    for name in names {
        LossConfig::by_name(&name).map_err(|problem| Failure::new(format!("--losses: {problem}")))?;
        let mut layers = Overlay::preset("proxy-anchor")?;
        layers.insert(&format!("loss.{name}"), toml::Table::new());
        arms.push((name, layers));
    }
    if arms.is_empty() {
        return Err(Failure::new(
            "nothing to compare: give --losses (all, or names such as contrastive,proxy-anchor) or --presets",
        ));
    }
    let mut runs: Vec<Run> = Vec::new();
    for &seed in &arguments.seeds {
        let mut untrained = configure(arguments, arms[0].1.clone(), seed)?;
        untrained.train.epochs = 0;
        if untrained.model.weights.is_none() {
            untrained.model.initial = HeadStart::Random;
        }
        let mut add = |arm: &str, config: Config| {
            if runs.iter().any(|run| (run.arm.as_str(), run.seed) == (arm, seed)) {
                return Err(Failure::new(format!(
                    "{arm} with seed {seed} is asked for twice: name every preset, loss and seed once, and not a preset and a \
                     loss of one name"
                )));
            }
            runs.push(Run {
                arm: arm.to_owned(),
                seed,
                config,
            });
            Ok(())
        };
        add(UNTRAINED, untrained)?;
        for (arm, layers) in &arms {
            add(arm, configure(arguments, layers.clone(), seed)?)?;
        }
    }
    Ok(runs)
}

/// The embedded data bring the settings of the quick start; then what was typed.
fn configure(arguments: &Compare, mut layers: Overlay, seed: u64) -> Result<Config, Failure> {
    let seed = i64::try_from(seed).map_err(|_| Failure::new(format!("--seeds {seed}: expected numbers below 2^63")))?;
    if arguments.data.data.is_empty() {
        layers.put(super::quickstart::settings()?);
        layers.insert("data.flora.seed", seed);
    }
    layers::put_data(&mut layers, &arguments.data)?;
    layers.insert("seed", seed);
    layers.insert("device", arguments.device.as_str());
    if let Some(epochs) = arguments.epochs {
        layers.insert("train.epochs", i64::try_from(epochs).unwrap_or(i64::MAX));
    }
    for assignment in &arguments.overrides {
        layers.set(assignment)?;
    }
    layers::resolve(layers)
}

/// What an earlier call measured of the same run.
fn finished(place: &Path, run: &Run) -> Result<Option<Map<String, Value>>, Failure> {
    if !place.join("config.toml").exists() {
        return Ok(None);
    }
    let folder = RunFolder::open(place)?;
    let mut stored = Overlay::default();
    stored.file(&folder.config())?;
    if stored.resolve()? != run.config {
        return Err(Failure::new(format!(
            "{} holds a run of another configuration: repeat the options of the comparison that began there, or choose another \
             folder with --out",
            place.display()
        )));
    }
    let Ok(text) = std::fs::read_to_string(folder.metrics()) else {
        return Ok(None);
    };
    match serde_json::from_str(&text)? {
        Value::Object(measures) => Ok(Some(measures)),
        _ => Err(Failure::new(format!(
            "{} holds no measures",
            folder.metrics().display()
        ))),
    }
}

/// Trains a run, or goes on with one that was interrupted.
fn measured(
    place: &Path,
    run: &Run,
    data: &PreparedData,
    interrupted: &AtomicBool,
) -> Result<Map<String, Value>, Failure> {
    let resume = place.join("config.toml").exists();
    let mut progress = Progress::new(&run.arm);
    let report = train(&run.config, data, place, resume, &mut progress, interrupted)?;
    Ok(report.to_json())
}

fn print(arguments: &Compare, results: &[(&str, u64, Map<String, Value>)], folder: &Path, seconds: f64) -> Outcome {
    let mut arms: Vec<&str> = Vec::new();
    for (arm, _, _) in results {
        if !arms.contains(arm) {
            arms.push(arm);
        }
    }
    let of = |arm: &str| {
        let runs: Vec<_> = results.iter().filter(|(name, _, _)| *name == arm).collect();
        let mean = |measure: &str| -> Value {
            let values: Vec<f64> = runs
                .iter()
                .filter_map(|(_, _, measures)| measures.get(measure)?.as_f64())
                .collect();
            if values.len() < runs.len() {
                return Value::Null;
            }
            json!(values.iter().sum::<f64>() / values.len() as f64)
        };
        MEASURES.map(|measure| (measure, mean(measure)))
    };
    let seconds = (seconds * 10.0).round() / 10.0;
    if arguments.json {
        let mut all = Map::new();
        for &arm in &arms {
            let mut entry: Map<String, Value> = of(arm)
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .collect();
            let runs = results.iter().filter(|(name, _, _)| *name == arm);
            let runs: Vec<Value> = runs
                .map(|(_, seed, measures)| {
                    let mut run = measures.clone();
                    run.insert("seed".to_owned(), json!(seed));
                    Value::Object(run)
                })
                .collect();
            entry.insert("runs".to_owned(), Value::Array(runs));
            all.insert(arm.to_owned(), Value::Object(entry));
        }
        let untrained = all.remove(UNTRAINED);
        return output::json(&json!({
            "arms": all,
            "untrained": untrained,
            "seeds": arguments.seeds,
            "seconds": seconds,
            "runs": folder.display().to_string(),
        }));
    }
    let mut rows = vec![
        std::iter::once("arm")
            .chain(MEASURES)
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for arm in arms {
        let values = of(arm).map(|(_, value)| number(&value));
        rows.push(std::iter::once(arm.to_owned()).chain(values).collect());
    }
    output::text(&format!(
        "{}\n\nmeans over {} seed{} on the test classes; {seconds} seconds; run folders: {}",
        output::table(&rows),
        arguments.seeds.len(),
        if arguments.seeds.len() == 1 { "" } else { "s" },
        folder.display()
    ))
}
