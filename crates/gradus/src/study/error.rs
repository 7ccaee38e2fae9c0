//! Why a study cannot be made or goes no further.

use crate::config::ConfigError;
use crate::train::TrainError;

/// Why a study cannot be made or goes no further; runs that are finished are kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StudyError {
    /// The file or the flags that describe it.
    #[error("{0}")]
    Plan(String),
    /// The configuration of one of its runs.
    #[error("{what}: {problem}")]
    Refused {
        /// Which arm, on which data set.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A run that ended without a result.
    #[error("{what}: {source}")]
    Run {
        /// Which run.
        what: String,
        /// Why it ended.
        source: TrainError,
    },
    /// The folder of the study.
    #[error("{0}")]
    Folder(String),
    /// A configuration file.
    #[error(transparent)]
    Config(#[from] ConfigError),
}
