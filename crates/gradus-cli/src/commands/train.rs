//! `gradus train`

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gradus::config::{Config, Overlay};
use gradus::models::BackboneConfig;
use gradus::train::{Observer, PreparedData, RunFolder, RunReport, TensorBoard, Trainer};
use serde_json::Value;

use super::layers;
use crate::arguments::Train;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

pub(crate) fn run(arguments: &Train) -> Outcome {
    let interrupted = stop_on_interrupt();
    let mut progress = Progress::new("");
    let (config, folder, resume) = match &arguments.resume {
        Some(folder) => {
            let folder = resumed_folder(folder, arguments)?;
            (stored_config(&folder, arguments)?, folder, true)
        }
        None => {
            let config = configuration(arguments)?;
            let folder = arguments
                .out
                .clone()
                .unwrap_or_else(|| RunFolder::unused(&config.preset));
            (config, folder, false)
        }
    };
    let data = PreparedData::new(&config, &mut progress)?;
    let report = if arguments.log.is_some() {
        let run = open(&config, &folder, resume)?;
        let mut board = TensorBoard::begin(run.root(), &mut progress)?;
        train_in(&config, &data, run, resume, &mut board, &interrupted)?
    } else {
        train(&config, &data, &folder, resume, &mut progress, &interrupted)?
    };
    drop(progress);
    if arguments.json {
        return output::json(&Value::Object(report.to_json()));
    }
    let mut rows = vec![vec!["measure".to_owned(), "value".to_owned()]];
    rows.extend(
        report
            .to_json()
            .iter()
            .map(|(name, value)| vec![name.clone(), number(value)]),
    );
    output::text(&format!("{}\n\nrun folder: {}", output::table(&rows), folder.display()))
}

/// Trains one run in its folder.
pub(crate) fn train(
    config: &Config,
    data: &PreparedData,
    folder: &Path,
    resume: bool,
    observer: &mut dyn Observer,
    interrupted: &AtomicBool,
) -> Result<RunReport, Failure> {
    train_in(
        config,
        data,
        open(config, folder, resume)?,
        resume,
        observer,
        interrupted,
    )
}

/// The folder of a run, new or to go on in.
fn open(config: &Config, folder: &Path, resume: bool) -> Result<RunFolder, Failure> {
    if resume {
        return Ok(RunFolder::open(folder)?);
    }
    Ok(RunFolder::begin(folder, config)?)
}

fn train_in(
    config: &Config,
    data: &PreparedData,
    run: RunFolder,
    resume: bool,
    observer: &mut dyn Observer,
    interrupted: &AtomicBool,
) -> Result<RunReport, Failure> {
    let trainer = Trainer::new(config, data, run, resume, observer)?;
    Ok(trainer.train(observer, interrupted)?)
}

fn configuration(arguments: &Train) -> Result<Config, Failure> {
    let mut layers = layers::of_source(&arguments.source)?;
    layers::put_data(&mut layers, &arguments.data)?;
    if let Some(path) = &arguments.embeddings {
        layers.put_vectors(path, arguments.labels.as_deref())?;
    }
    if let Some(name) = &arguments.backbone {
        layers.insert("model.backbone", backbone_section(name)?);
    }
    if let Some(path) = &arguments.weights {
        layers.insert("model.weights", layers::path_value(path)?);
    }
    put_number(&mut layers, "transform.size", arguments.size);
    put_number(&mut layers, "model.width", arguments.width);
    put_number(&mut layers, "train.epochs", arguments.epochs);
    if let Some(place) = &arguments.cache {
        layers.insert("data.cache", place.as_str());
    }
    if arguments.freeze_trunk {
        layers.insert("model.freeze-trunk", true);
    }
    if let Some(views) = arguments.views {
        layers.insert("train.feature-views", views as i64);
    }
    if let Some(seed) = arguments.seed {
        let seed =
            i64::try_from(seed).map_err(|_| Failure::new(format!("--seed {seed}: expected a number below 2^63")))?;
        layers.insert("seed", seed);
    }
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    layers::put_overrides(&mut layers, &arguments.source)?;
    layers::resolve(layers)
}

/// A backbone of a name with default options, as a section.
fn backbone_section(name: &str) -> Result<toml::Value, Failure> {
    let backbone =
        BackboneConfig::by_name(name).map_err(|problem| Failure::new(format!("--backbone {name}: {problem}")))?;
    Ok(toml::Value::try_from(backbone)?)
}

fn put_number(layers: &mut Overlay, key: &str, value: Option<usize>) {
    if let Some(value) = value {
        layers.insert(key, i64::try_from(value).unwrap_or(i64::MAX));
    }
}

fn resumed_folder(folder: &Path, arguments: &Train) -> Result<PathBuf, Failure> {
    match (folder.as_os_str().is_empty(), &arguments.out) {
        (false, None) => Ok(folder.to_owned()),
        (false, Some(out)) if out == folder => Ok(folder.to_owned()),
        (false, Some(out)) => Err(Failure::new(format!(
            "--resume {} and --out {} name different folders: a run goes on in its own folder, leave --out away",
            folder.display(),
            out.display()
        ))),
        (true, Some(out)) => Ok(out.clone()),
        (true, None) => Err(Failure::new(
            "--resume needs the folder of the run, for example --resume runs/gradus-001",
        )),
    }
}

/// The configuration stored with a run. A command line that says something else is refused: resumed must equal uninterrupted.
fn stored_config(folder: &Path, arguments: &Train) -> Result<Config, Failure> {
    let run = RunFolder::open(folder)?;
    let mut layers = Overlay::default();
    layers.file(&run.config())?;
    let stored = layers.resolve()?;
    let says_something = arguments.source.preset.is_some()
        || arguments.source.config.is_some()
        || !arguments.source.overrides.is_empty()
        || !arguments.data.data.is_empty()
        || arguments.embeddings.is_some()
        || arguments.backbone.is_some();
    if says_something {
        let asked = configuration(arguments)?;
        if asked != stored {
            return Err(Failure::new(format!(
                "--resume continues {} with the configuration stored there, but the command line asks for another one; repeat the \
                 original options, or give --resume {} alone",
                folder.display(),
                folder.display()
            )));
        }
    }
    Ok(stored)
}

/// A flag that Ctrl-C raises; a second Ctrl-C ends the program at once.
pub(crate) fn stop_on_interrupt() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let raised = Arc::clone(&flag);
    let handler = ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        output::note("stopping after this step; press Ctrl-C again to stop at once");
    });
    if handler.is_err() {
        output::note("Ctrl-C cannot be caught here: it will stop the run at once, the last checkpoint is kept");
    }
    flag
}

/// A number as people read it.
pub(crate) fn number(value: &Value) -> String {
    match value {
        Value::Number(number) if number.is_f64() => format!("{:.4}", number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
