//! Why a run ends without a result.

use gradus_core::data::DataError;
use gradus_core::data::loader::LoaderError;
use gradus_core::evaluation::EvaluationError;
use gradus_core::samplers::SamplerError;

use crate::models::ModelError;

/// Why a run ended without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// The configuration does not fit the data or the machine.
    #[error("{0}")]
    Config(String),
    /// The data cannot be used.
    #[error("{0}")]
    Data(String),
    /// The run folder cannot be used.
    #[error("{0}")]
    Folder(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    Device(String),
    /// The loss is no number.
    #[error("the loss is {loss} (base loss {base})")]
    NotFinite {
        /// Total loss.
        loss: f64,
        /// Base loss.
        base: f64,
    },
    /// The loss is no number, with the place where it happened.
    #[error(
        "the loss became {loss} (base loss {base}) in epoch {epoch}, step {step}, on the batch of {items}: lower \
         optimizer.rate or set optimizer.clipping; the last good checkpoint is kept in {checkpoints}"
    )]
    Diverged {
        /// Total loss.
        loss: f64,
        /// Base loss.
        base: f64,
        /// Epoch from 1.
        epoch: usize,
        /// Step from 1.
        step: usize,
        /// The first images of the batch.
        items: String,
        /// Where checkpoints are.
        checkpoints: String,
    },
    /// The user asked to stop; everything is saved.
    #[error("interrupted after epoch {epoch}, step {step}: everything is saved, continue with --resume {folder}")]
    Interrupted {
        /// Complete epochs.
        epoch: usize,
        /// Steps of the next one.
        step: usize,
        /// The run folder.
        folder: String,
    },
    /// The data set.
    #[error(transparent)]
    Dataset(#[from] DataError),
    /// An image.
    #[error(transparent)]
    Loader(#[from] LoaderError),
    /// The sampler.
    #[error(transparent)]
    Sampler(#[from] SamplerError),
    /// The network or its weights.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The evaluation.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}
