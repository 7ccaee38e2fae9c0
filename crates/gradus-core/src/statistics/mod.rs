//! Intervals for repeated measurements: seeds, paired differences, resampled test classes.
//!
//! A study measures every arm with the same seeds on the same test classes, so that arms are compared in pairs. Two things vary
//! from repetition to repetition: the seed (start, batches) and the classes that happen to be tested. An interval over seeds alone
//! says what the next seed would give on *these* classes; [`paired_difference`] resamples both.

mod paired;
mod quantile;
mod seeds;
mod student;
mod summary;

pub use paired::{ClassScores, Column, PairedDifference, paired_difference};
pub use quantile::quantile;
pub use seeds::{SeedsNeeded, seeds_needed};
pub use student::student_t_quantile;
pub use summary::{MeanInterval, mean_interval};
