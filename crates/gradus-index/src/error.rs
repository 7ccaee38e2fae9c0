//! Why an index could not do what it was asked.

use std::path::{Path, PathBuf};

/// Why an index could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// There is no index.
    #[error("{} holds no index (index.toml is missing): check the spelling, or make one with `gradus index build`", path.display())]
    Missing {
        /// The folder.
        path: PathBuf,
    },
    /// A build was interrupted.
    #[error("the build of the index {} did not finish: run the same `gradus index build` again, it goes on where it stopped", path.display())]
    Unfinished {
        /// The folder.
        path: PathBuf,
    },
    /// The folder holds something else.
    #[error("{} is a folder with other files in it: choose a new folder for the index", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// Files of the index are not what they should be.
    #[error("{}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        problem: String,
    },
    /// The file system failed.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process works on the index.
    #[error("the index {} is in use by another process ({what}): stop it, or try again when it is done", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
        /// What the other process does.
        what: &'static str,
    },
    /// Another process changed the index since it was opened.
    #[error("the index {} was changed by another process since it was opened: open it again", path.display())]
    Changed {
        /// The folder.
        path: PathBuf,
    },
    /// Vectors of another width.
    #[error(
        "vectors of width {found} do not fit the index, whose width is {expected}: embed with the model the index was built with"
    )]
    Width {
        /// Width of the index.
        expected: usize,
        /// Width that was found.
        found: usize,
    },
    /// A vector without a direction.
    #[error("the vector of {id} {problem}: it has no direction to compare")]
    Vector {
        /// Which item.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The index was built with other weights.
    #[error(
        "the index was built with other weights (run {index_run}, fingerprint {index_fingerprint}) than those of {found_run} \
         ({found_fingerprint}): their embeddings cannot be compared; search with that run, or build the index again with this one"
    )]
    Model {
        /// Run the index was built with.
        index_run: String,
        /// Its fingerprint.
        index_fingerprint: String,
        /// Run that was given.
        found_run: String,
        /// Its fingerprint.
        found_fingerprint: String,
    },
    /// An item that is there already.
    #[error("the item {id} is in the index already: delete it first, or give the new one another name")]
    Duplicate {
        /// Its name.
        id: String,
    },
    /// Items that cannot be stored.
    #[error("{0}")]
    Item(String),
    /// A filter that cannot be applied.
    #[error("{0}")]
    Filter(String),
    /// Settings or options that do not fit.
    #[error("{0}")]
    Options(String),
    /// The engine failed.
    #[error("the engine {engine} failed: {problem}")]
    Engine {
        /// Its name.
        engine: &'static str,
        /// What it said.
        problem: String,
    },
    /// A Qdrant server failed or refused.
    #[error("{0}")]
    Remote(String),
    /// The evaluation of gradus-core failed.
    #[error(transparent)]
    Evaluation(#[from] gradus_core::evaluation::EvaluationError),
}

impl IndexError {
    pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }

    pub(crate) fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}
