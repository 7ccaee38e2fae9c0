//! The controlled study: several arms, the same seeds, several data sets, and what their differences are worth.
//!
//! A [`StudyFile`] names data sets and arms; [`Study`] is every run that follows from it, resolved and checked before anything is
//! trained; [`Runner`] trains them one by one, keeps what is finished and goes on where it was stopped; [`summarise`] puts means,
//! paired differences and intervals together. Printing is the caller's.
//!
//! Two arms with the same seed start from the same weights and see the same batches: initial parameters, batches and views are pure
//! functions of the seed, and nothing about the arm enters them.

mod error;
mod file;
mod plan;
mod record;
mod reference;
mod runner;
mod summary;
mod tune;

pub use error::StudyError;
pub use file::{ArmEntry, DataEntry, Paths, StudyFile};
pub use plan::{Parts, PlannedRun, Settings, Study, StudySource, UNTRAINED};
pub use record::RunRecord;
pub use reference::ReferenceConfig;
pub use runner::{Outcome, Runner};
pub use summary::{ArmDifference, ArmSummary, DataSummary, MEASURES, RESAMPLES, Summary, summarise};
pub use tune::{Between, Range, Search, Trial, TuneConfig};
