//! Which error of the libraries becomes which exception, and how work is done without the interpreter's lock.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;

use gradus::config::ConfigError;
use gradus::train::TrainError;
use gradus_core::data::DataError;
use gradus_index::IndexError;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// What was given cannot be used.
pub(crate) fn refused(problem: impl Display) -> PyErr {
    PyValueError::new_err(problem.to_string())
}

/// What was given is fine, but it could not be done.
pub(crate) fn failed(problem: impl Display) -> PyErr {
    PyRuntimeError::new_err(problem.to_string())
}

/// Does work that needs nothing of Python while other threads of Python run.
///
/// A defect of gradus is a `RuntimeError`: PyO3's own exception for it would pass by `except Exception`.
pub(crate) fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> PyResult<T> + Send) -> PyResult<T> {
    py.detach(|| {
        pool();
        caught(work)
    })
}

/// Stack of a thread that may train: that of a program's first thread.
pub(crate) const STACK: usize = 8 << 20;

/// Starts the threads that all work shares, when the first asks: a process that was forked before has none to miss.
pub(crate) fn pool() -> usize {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| {
        // Where they were started by somebody else, those are used.
        let _ = rayon::ThreadPoolBuilder::new().stack_size(STACK).build_global();
    });
    rayon::current_num_threads()
}

/// Does work and makes a defect of gradus an exception.
pub(crate) fn caught<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("unknown");
        Err(failed(format!(
            "gradus met a defect of its own ({message}). Please report the call and this message"
        )))
    })
}

/// A folder that stays the same where a program goes to another one.
pub(crate) fn absolute(folder: &Path) -> PyResult<PathBuf> {
    std::path::absolute(folder).map_err(|error| refused(format!("{}: {error}", folder.display())))
}

/// The exception for a configuration that was refused.
pub(crate) fn of_config(error: ConfigError) -> PyErr {
    match &error {
        ConfigError::Read { source, .. } => of_file(source, &error),
        _ => refused(error),
    }
}

/// The exception for an index that could not do what it was asked.
pub(crate) fn of_index(error: IndexError) -> PyErr {
    match &error {
        IndexError::Missing { .. } => PyFileNotFoundError::new_err(error.to_string()),
        IndexError::File { source, .. } => of_file(source, &error),
        IndexError::Width { .. } | IndexError::Vector { .. } | IndexError::Filter(_) | IndexError::Item(_) => {
            refused(error)
        }
        _ => failed(error),
    }
}

/// The exception for a run that could not go on.
pub(crate) fn of_training(error: TrainError) -> PyErr {
    match &error {
        TrainError::Dataset(DataError::Missing { .. }) => PyFileNotFoundError::new_err(error.to_string()),
        TrainError::Folder(_)
        | TrainError::Device(_)
        | TrainError::NotFinite { .. }
        | TrainError::Diverged { .. }
        | TrainError::Interrupted { .. } => failed(error),
        _ => refused(error),
    }
}

fn of_file(source: &std::io::Error, error: &dyn Display) -> PyErr {
    match source.kind() {
        std::io::ErrorKind::NotFound => PyFileNotFoundError::new_err(error.to_string()),
        _ => PyOSError::new_err(error.to_string()),
    }
}
