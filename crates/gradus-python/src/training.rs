//! A run as it trains: events that Python takes one by one, while the work goes on in another thread.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use gradus::config::{Config, Overlay, resolve_from_start};
use gradus::kernels::keep_large_buffers;
use gradus::train::trained::stored_layers;
use gradus::train::{Event, Observer, PreparedData, RunFolder, Trainer};
use pyo3::exceptions::PyFileNotFoundError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::failures::{absolute, caught, failed, of_config, of_training, refused};
use crate::run::Run;
use crate::values::{serialized, setting, table};

/// The preset when none is named, that of the command line.
const DEFAULT_PRESET: &str = "gradus";
/// How long Ctrl-C may wait for an event.
const PATIENCE: Duration = Duration::from_millis(100);

/// A run that trains in the background: an iterator over its events, dicts with the key "event".
///
/// The events are those of `events.jsonl`: "data", "progress", "warning", "step", "epoch", "validation", "stopped", "test".
/// Whoever stops taking them does not stop the run; `stop()` does, after the step it is at, with everything saved.
///
/// Args:
///     config: a dict of settings (nested, or with dotted keys; "data" may be a path, "embeddings" and "labels" files of vectors
///         of another model and their classes), the path of a TOML file, or None for the preset "gradus".
///     out: the folder of the run; default a new one below "runs".
///     resume: the folder of a run to go on with; leave `config` out.
#[pyclass(frozen, module = "gradus._gradus")]
#[derive(Debug)]
pub(crate) struct Training {
    folder: PathBuf,
    interrupted: Arc<AtomicBool>,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    messages: Receiver<Message>,
    outcome: Option<PyResult<()>>,
}

#[derive(Debug)]
enum Message {
    Event(Event),
    End(PyResult<()>),
}

/// Hands events to whoever iterates.
struct Teller(Sender<Message>);

impl Observer for Teller {
    fn on(&mut self, event: &Event) {
        // Nobody need listen any more; the run goes on.
        let _ = self.0.send(Message::Event(event.clone()));
    }
}

#[pymethods]
impl Training {
    #[new]
    #[pyo3(signature = (config=None, *, out=None, resume=None))]
    fn new(
        py: Python<'_>,
        config: Option<&Bound<'_, PyAny>>,
        out: Option<PathBuf>,
        resume: Option<PathBuf>,
    ) -> PyResult<Self> {
        let (config, folder, resumes) = match (config, resume) {
            (None, Some(folder)) if out.as_ref().is_none_or(|out| *out == folder) => {
                let layers = stored_layers(&folder).map_err(|error| PyFileNotFoundError::new_err(error.to_string()))?;
                (layers.resolve().map_err(of_config)?, folder, true)
            }
            (None, Some(_)) => {
                return Err(refused(
                    "resume and out name different folders: a run goes on in its own",
                ));
            }
            (Some(_), Some(_)) => {
                return Err(refused(
                    "a resumed run has its configuration: give config or resume, not both",
                ));
            }
            (config, None) => {
                let config = configuration(config)?;
                let folder = out.unwrap_or_else(|| RunFolder::unused(&config.preset));
                (config, folder, false)
            }
        };
        let folder = absolute(&folder)?;
        let run = if resumes {
            RunFolder::open(&folder)
        } else {
            RunFolder::begin(&folder, &config)
        };
        let run = run.map_err(of_training)?;
        let interrupted = Arc::new(AtomicBool::new(false));
        let (sender, messages) = channel();
        let flag = Arc::clone(&interrupted);
        py.detach(|| {
            start(move || {
                let outcome = caught(|| train(&config, run, resumes, &mut Teller(sender.clone()), &flag));
                let _ = sender.send(Message::End(outcome));
            })
        })?;
        Ok(Self {
            folder,
            interrupted,
            progress: Mutex::new(Progress {
                messages,
                outcome: None,
            }),
        })
    }

    /// The folder of the run.
    #[getter]
    fn folder(&self) -> &Path {
        &self.folder
    }

    /// Asks the run to stop after the step it is at; `gradus.train(resume=folder)` goes on to the same weights.
    fn stop(&self) {
        self.interrupted.store(true, Ordering::Relaxed);
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.next(py)?.map(|event| serialized(py, &event)).transpose()
    }

    /// Waits for the end and loads the run; raises what ended it otherwise.
    fn result(&self, py: Python<'_>) -> PyResult<Run> {
        while self.next(py)?.is_some() {}
        match &self.progress()?.outcome {
            Some(Err(error)) => return Err(error.clone_ref(py)),
            Some(Ok(())) => {}
            None => return Err(failed("the run has not ended")),
        }
        Run::load(py, self.folder.clone(), None)
    }

    fn __repr__(&self) -> String {
        format!("Training({:?})", self.folder.display().to_string())
    }
}

impl Training {
    /// The next event; none at the end. Ctrl-C stops the run, too.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Event>> {
        let mut progress = self.progress()?;
        loop {
            if progress.outcome.is_some() {
                return Ok(None);
            }
            match wait(py, &mut progress) {
                Ok(Message::Event(event)) => return Ok(Some(event)),
                Ok(Message::End(outcome)) => progress.outcome = Some(outcome),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    progress.outcome = Some(Err(failed("the thread of the run ended without a word")));
                }
            }
            if let Err(signal) = py.check_signals() {
                self.stop();
                return Err(signal);
            }
        }
    }

    fn progress(&self) -> PyResult<std::sync::MutexGuard<'_, Progress>> {
        match self.progress.try_lock() {
            Ok(progress) => Ok(progress),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(failed("another thread is taking the events of this run")),
        }
    }
}

fn wait(py: Python<'_>, progress: &mut Progress) -> Result<Message, RecvTimeoutError> {
    // Exclusive, as a receiver must not be shared between threads.
    let messages = &mut progress.messages;
    py.detach(move || messages.recv_timeout(PATIENCE))
}

/// Starts the work where the processor's kernels do: in their pool, whose other threads then need not be woken for every small
/// operation. A pool of one must stay free for them.
fn start(work: impl FnOnce() + Send + 'static) -> PyResult<()> {
    keep_large_buffers();
    if crate::failures::pool() > 1 {
        rayon::spawn(work);
        return Ok(());
    }
    let thread = std::thread::Builder::new()
        .name("gradus-train".to_owned())
        .stack_size(crate::failures::STACK)
        .spawn(work);
    thread
        .map(drop)
        .map_err(|error| failed(format!("no thread can be started: {error}")))
}

fn train(
    config: &Config,
    run: RunFolder,
    resume: bool,
    observer: &mut dyn Observer,
    interrupted: &AtomicBool,
) -> PyResult<()> {
    let data = PreparedData::new(config, observer).map_err(of_training)?;
    let trainer = Trainer::new(config, &data, run, resume, observer).map_err(of_training)?;
    trainer.train(observer, interrupted).map_err(of_training)?;
    Ok(())
}

/// Preset, then what was given, as the command line resolves it.
fn configuration(given: Option<&Bound<'_, PyAny>>) -> PyResult<Config> {
    let layers = match given {
        None => Overlay::preset(DEFAULT_PRESET).map_err(of_config)?,
        Some(given) => match given.cast::<PyDict>() {
            Ok(settings) => of_dict(settings)?,
            Err(_) => of_file(
                &given
                    .extract::<PathBuf>()
                    .map_err(|_| refused("config: expected a dict of settings or the path of a TOML file"))?,
            )?,
        },
    };
    resolve_from_start(layers).map_err(of_config)
}

fn of_file(path: &Path) -> PyResult<Overlay> {
    let name = Overlay::preset_of_file(path).map_err(of_config)?;
    let name = name.unwrap_or_else(|| DEFAULT_PRESET.to_owned());
    let mut layers = Overlay::preset(&name).map_err(of_config)?;
    layers.file(path).map_err(of_config)?;
    layers.insert("preset", name);
    Ok(layers)
}

fn of_dict(settings: &Bound<'_, PyDict>) -> PyResult<Overlay> {
    let preset = match settings.get_item("preset")? {
        Some(name) => name
            .extract::<String>()
            .map_err(|_| refused(format!("preset is {name}: expected a name")))?,
        None => DEFAULT_PRESET.to_owned(),
    };
    let mut layers = Overlay::preset(&preset).map_err(of_config)?;
    let path = |key: &str| -> PyResult<Option<PathBuf>> {
        let Some(value) = settings.get_item(key)? else {
            return Ok(None);
        };
        let path = value
            .extract()
            .map_err(|_| refused(format!("{key} is {value}: expected the path of a file")))?;
        Ok(Some(path))
    };
    match (path("embeddings")?, path("labels")?) {
        (Some(vectors), labels) => layers.put_vectors(&vectors, labels.as_deref()).map_err(of_config)?,
        (None, Some(_)) => return Err(refused("labels is given without embeddings")),
        (None, None) => {}
    }
    for (key, value) in settings {
        let name: String = key
            .extract()
            .map_err(|_| refused(format!("the name of a setting is {key}, but it must be a string")))?;
        if matches!(name.as_str(), "preset" | "embeddings" | "labels") {
            continue;
        }
        if name == "data" && table(&value).is_err() {
            layers.insert("data.path", setting(&value, "data")?);
            continue;
        }
        if name.split('.').any(str::is_empty) {
            return Err(refused(format!(
                "{name:?} is no key: expected one such as \"train.epochs\""
            )));
        }
        if !value.is_none() {
            layers.insert(&name.replace('_', "-"), setting(&value, &name)?);
        }
    }
    Ok(layers)
}
