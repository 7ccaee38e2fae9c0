//! What can go wrong with ONNX files.

use std::path::PathBuf;

/// Why an ONNX file could not be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// The weights do not fit into one file.
    #[error(
        "the model has {bytes} bytes of weights, more than the 2 GiB an ONNX file can hold: store them in half precision (--f16)"
    )]
    TooLarge {
        /// Bytes of all constants.
        bytes: usize,
    },
    /// A file cannot be read.
    #[error("cannot read {path}: {problem}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The description of preprocessing says something that cannot be done.
    #[error("the preprocessing {origin} is unusable: {problem}")]
    Preprocessing {
        /// Where it was read.
        origin: String,
        /// What is wrong.
        problem: String,
    },
    /// A model cannot be used as an embedding model.
    #[error("{path}: {problem}")]
    Model {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },
}
