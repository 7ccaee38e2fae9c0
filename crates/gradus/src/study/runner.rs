//! Runs a study one run at a time, keeping what is finished.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use gradus_core::EmbeddingSet;
use gradus_core::data::split::TestSet;
use gradus_core::evaluation::EvaluationError;
use gradus_core::files::write_atomically;
use serde_json::{Map, Value};

use super::plan::check_with_data;
use super::{PlannedRun, RunRecord, Study, StudyError};
use crate::config::{Config, Overlay};
use crate::models::Embedder;
use crate::state::{load_named_arrays, read_safetensors};
use crate::tensor::Module;
use crate::train::embed::Images;
use crate::train::measure::{self, TestEmbeddings};
use crate::train::{Observer, PreparedData, RunFolder, RunReport, TrainError, Trainer};

/// A trial whose training diverged leaves this file.
const DIVERGED: &str = "diverged.txt";

/// What a finished run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The run.
    pub run: PlannedRun,
    /// Its measures of the test classes, with `epochs` and `seconds`.
    pub measures: Map<String, Value>,
    /// What each query contributed.
    pub record: RunRecord,
}

/// Runs a study in a folder.
#[derive(Debug)]
pub struct Runner<'a> {
    study: &'a Study,
    folder: PathBuf,
    /// The data of the newest run, by what they depend on.
    prepared: Option<(String, PreparedData)>,
    references: BTreeMap<String, EmbeddingSet>,
}

impl<'a> Runner<'a> {
    /// A study in its folder, which need not exist yet.
    #[must_use]
    pub fn new(study: &'a Study, folder: &Path) -> Self {
        Self {
            study,
            folder: folder.to_owned(),
            prepared: None,
            references: BTreeMap::new(),
        }
    }

    /// Checks every run that is not finished against what is in the folder and against its data, so that nothing is trained if
    /// one of them could not start.
    ///
    /// # Errors
    /// The first run that could not start, by name.
    pub fn check(&mut self, observer: &mut dyn Observer) -> Result<(), StudyError> {
        let mut open: Vec<&PlannedRun> = Vec::new();
        for run in &self.study.runs {
            if self.finished(run)?.is_none() {
                open.push(run);
            }
        }
        let mut models: Vec<String> = Vec::new();
        for run in open {
            let refused = |problem: String| StudyError::Refused {
                what: run.name(),
                problem,
            };
            check_with_data(run, self.prepared(run, observer)?)?;
            // Whether the weights fit shows only when they are read: once for each network.
            let model = toml::to_string(&run.config.model).map_err(|error| refused(error.to_string()))?;
            if run.config.model.weights.is_some() && !models.contains(&model) {
                let device = run.config.device.resolve().map_err(refused)?;
                run.config
                    .model
                    .init(run.config.seed, &device)
                    .map_err(|error| refused(error.to_string()))?;
                models.push(model);
            }
        }
        Ok(())
    }

    /// What an earlier call measured of the same run; `None` if it is not finished.
    ///
    /// # Errors
    /// If the folder holds a run of another configuration.
    pub fn finished(&self, run: &PlannedRun) -> Result<Option<Outcome>, StudyError> {
        let Some(measures) = self.measured(run)? else {
            let diverged = run.on_validation && self.place(run).join(DIVERGED).exists();
            return Ok(diverged.then(|| outcome(run, Map::new(), RunRecord::empty())));
        };
        let Some(record) = RunRecord::read(&self.place(run)) else {
            return Ok(None);
        };
        if record.reference != self.reference_name() {
            return Ok(None);
        }
        Ok(Some(outcome(run, measures, record)))
    }

    /// Trains a run, goes on with one that was interrupted, or reads one that is finished. `None` if another process is at it.
    ///
    /// # Errors
    /// If it ends without a result; everything finished before is kept.
    pub fn run(
        &mut self,
        run: &PlannedRun,
        observer: &mut dyn Observer,
        interrupted: &AtomicBool,
    ) -> Result<Option<Outcome>, StudyError> {
        if let Some(outcome) = self.finished(run)? {
            return Ok(Some(outcome));
        }
        let Some(_lock) = self.lock(run)? else { return Ok(None) };
        // Another process may have finished it a moment ago.
        if let Some(outcome) = self.finished(run)? {
            return Ok(Some(outcome));
        }
        let failed = |source: TrainError| StudyError::Run {
            what: run.name(),
            source,
        };
        let place = self.place(run);
        let reference = self.reference(run, observer)?;
        let measured = self.measured(run)?;
        let data = self.prepared(run, observer)?;
        let embedded = match measured {
            Some(_) => embed_again(&place, &run.config, data, observer),
            None => train(&place, &run.config, data, observer, interrupted).map(|report| report.embedded),
        };
        let embedded = match embedded {
            // A search tries what may not work: a loss, or in the end an embedding, that is no number.
            Err(error @ (TrainError::Diverged { .. } | TrainError::Evaluation(EvaluationError::Row { .. })))
                if run.on_validation =>
            {
                let write = |file: &mut dyn Write| writeln!(file, "{error}");
                write_atomically(&place.join(DIVERGED), write)
                    .map_err(|error| StudyError::Folder(format!("cannot write to {}: {error}", place.display())))?;
                remove_what_only_training_needs(&place);
                return self.finished(run);
            }
            other => other.map_err(failed)?,
        };
        let of_reference = reference.as_ref().map(|(name, set)| (name.as_str(), set));
        let record = RunRecord::new(&embedded, of_reference, &run.config, data).map_err(failed)?;
        record.write(&place).map_err(failed)?;
        remove_what_only_training_needs(&place);
        // What was written is what counts: a later call finds the same numbers.
        self.finished(run)
    }

    fn place(&self, run: &PlannedRun) -> PathBuf {
        self.folder.join(run.place())
    }

    fn reference_name(&self) -> Option<String> {
        let reference = self.study.reference.as_ref()?;
        serde_json::to_string(reference).ok()
    }

    /// The measures of a run that was trained to its end.
    fn measured(&self, run: &PlannedRun) -> Result<Option<Map<String, Value>>, StudyError> {
        let place = self.place(run);
        if !place.join("config.toml").exists() {
            return Ok(None);
        }
        let mut stored = Overlay::default();
        stored.file(&place.join("config.toml"))?;
        if stored.resolve()? != run.config {
            return Err(StudyError::Folder(format!(
                "{} holds a run of another configuration: repeat the options of the comparison that began there, or choose another \
                 folder with --out",
                place.display()
            )));
        }
        let Ok(text) = std::fs::read_to_string(place.join("metrics.json")) else {
            return Ok(None);
        };
        match serde_json::from_str(&text) {
            Ok(Value::Object(mut measures)) => {
                measures.extend(best_validation(&place));
                Ok(Some(measures))
            }
            _ => Err(StudyError::Folder(format!(
                "{} holds no measures: remove it, and the run is measured again",
                place.join("metrics.json").display()
            ))),
        }
    }

    /// The data of a run: those of the run before, if they are the same.
    fn prepared(&mut self, run: &PlannedRun, observer: &mut dyn Observer) -> Result<&PreparedData, StudyError> {
        let key = format!("{}on-validation = {}", data_key(&run.config)?, run.on_validation);
        let data = match self.prepared.take() {
            Some((old, data)) if old == key => data,
            _ => {
                let mut data = PreparedData::new(&run.config, observer).map_err(|source| StudyError::Run {
                    what: run.name(),
                    source,
                })?;
                if run.on_validation {
                    // What a search measures at the end of a run, too; the test classes are not even embedded.
                    data.test = TestSet::Single(data.validation.clone());
                }
                data
            }
        };
        Ok(&self.prepared.insert((key, data)).1)
    }

    fn reference(
        &mut self,
        run: &PlannedRun,
        observer: &mut dyn Observer,
    ) -> Result<Option<(String, EmbeddingSet)>, StudyError> {
        let (Some(reference), Some(name)) = (&self.study.reference, self.reference_name()) else {
            return Ok(None);
        };
        let key = format!("{}\n{:?}", data_key(&run.config)?, run.config.transform);
        let folder = self.folder.join("reference");
        if !self.references.contains_key(&key) {
            let data = self.prepared(run, observer)?;
            let set = reference
                .embeddings(&run.config, data, &folder, observer)
                .map_err(|source| StudyError::Run {
                    what: format!("the reference network on the data of {}", run.name()),
                    source,
                })?;
            self.references.insert(key.clone(), set);
        }
        Ok(self.references.get(&key).map(|set| (name, set.clone())))
    }

    /// Claims a run for this process. The system gives the lock back when the process ends, however it ends.
    fn lock(&self, run: &PlannedRun) -> Result<Option<File>, StudyError> {
        let path = self.folder.join("locks").join(run.place()).with_added_extension("lock");
        let unwritable =
            |error: std::io::Error| StudyError::Folder(format!("cannot write {}: {error}", path.display()));
        std::fs::create_dir_all(path.parent().unwrap_or(&self.folder)).map_err(unwritable)?;
        let file = File::create(&path).map_err(unwritable)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            // Some network file systems know no locks: then there is one process at a time, as before.
            Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(Some(file)),
            Err(TryLockError::Error(error)) => Err(unwritable(error)),
        }
    }
}

/// What prepared data depend on.
fn data_key(config: &Config) -> Result<String, StudyError> {
    let text = toml::to_string(&config.data).map_err(|error| StudyError::Plan(error.to_string()))?;
    let drawn = config.data.validation > 0.0 || config.data.validation_fold.is_some();
    Ok(format!("{text}seed = {}\n", if drawn { config.seed } else { 0 }))
}

/// The measures of the validation classes at the best epoch, as `validation.MEASURE`.
fn best_validation(place: &Path) -> Map<String, Value> {
    let text = std::fs::read_to_string(place.join("events.jsonl")).unwrap_or_default();
    let events = text
        .lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let best = events
        .filter(|event| event["event"] == "validation" && event["best"] == true)
        .find_map(|event| event["measures"].as_object().cloned());
    let kept = ["recall@1", "map@r", "order_preservation"];
    let all = best.into_iter().flatten();
    all.filter(|(name, _)| kept.contains(&name.as_str()))
        .map(|(name, value)| (format!("validation.{name}"), value))
        .collect()
}

fn outcome(run: &PlannedRun, mut measures: Map<String, Value>, record: RunRecord) -> Outcome {
    measures.extend(record.measures.clone());
    Outcome {
        run: run.clone(),
        measures,
        record,
    }
}

/// Trains a run, or goes on with one that was stopped.
fn train(
    place: &Path,
    config: &Config,
    data: &PreparedData,
    observer: &mut dyn Observer,
    interrupted: &AtomicBool,
) -> Result<RunReport, TrainError> {
    let resume = place.join("config.toml").exists();
    let folder = if resume {
        RunFolder::open(place)?
    } else {
        remove_beginnings(place);
        let folder = RunFolder::create(place)?;
        let text = toml::to_string(config).map_err(|error| TrainError::Config(error.to_string()))?;
        folder.write_text(&folder.config(), &text)?;
        folder
    };
    Trainer::new(config, data, folder, resume, observer)?.train(observer, interrupted)
}

/// A process that was killed before it wrote a configuration has left an empty folder, or a temporary file in it.
fn remove_beginnings(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(".gradus-") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    // Only where they are empty.
    let _ = std::fs::remove_dir(place.join("checkpoints"));
    let _ = std::fs::remove_dir(place);
}

/// A study has many runs: of a finished one the model and what was measured stay.
fn remove_what_only_training_needs(place: &Path) {
    let _ = std::fs::remove_dir_all(place.join("checkpoints"));
    for name in ["teacher.safetensors", "trunk.safetensors"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(".gradus-") {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Embeds the test classes with the model of a finished run.
fn embed_again(
    place: &Path,
    config: &Config,
    data: &PreparedData,
    observer: &mut dyn Observer,
) -> Result<TestEmbeddings, TrainError> {
    let device = config.device.resolve().map_err(TrainError::Config)?;
    // The run's own weights follow: the pretrained file it started from need not exist any more.
    let mut model = config.model.clone();
    model.weights = None;
    let embedder: Embedder = model.init(config.seed, &device)?;
    let path = place.join("model.safetensors");
    let (arrays, _) = read_safetensors(&path).map_err(TrainError::Folder)?;
    let embedder = load_named_arrays(embedder, &arrays).map_err(|problem| {
        TrainError::Folder(format!(
            "{} does not fit the configuration of its run: {problem}",
            path.display()
        ))
    })?;
    let images = Images::new(config, &data.items, &data.cache)?;
    measure::embed_test(
        &embedder.valid(),
        &images,
        &data.dataset,
        &data.test,
        "test classes",
        observer,
    )
}
