//! Training: data → start → steps → checkpoints → the measured result, all inside a run folder.
//!
//! Own loop on Burn's autodiff: class statistics per epoch, a teacher, warm-up by parameter group, exact resume in the middle
//! of an epoch and a sampler that knows labels do not fit a generic trainer. Read `trainer` from top to bottom.

pub mod average;
mod cache_folder;
pub mod checkpoint;
pub mod collapse;
pub mod embed;
pub mod error;
pub mod events;
pub mod frozen;
pub mod gradient;
pub mod measure;
pub mod memory;
pub mod objective;
pub mod optimizer;
pub mod prepare;
pub mod run_folder;
pub mod schedule;
pub mod start;
pub mod step;
pub mod teacher;
mod teacher_vectors;
pub mod tensorboard;
mod thumbnail;
pub mod trained;
pub mod trainer;

pub use error::TrainError;
pub use events::{Event, Observer, Silent};
pub use prepare::PreparedData;
pub use run_folder::RunFolder;
pub use tensorboard::TensorBoard;
pub use trainer::{RunReport, Trainer};
