//! `gradus bench`: how long parts of gradus take, and how much memory.

mod losses;

use crate::arguments::{Bench, BenchCommand};
use crate::failure::Outcome;

pub(crate) fn run(arguments: &Bench) -> Outcome {
    match &arguments.command {
        BenchCommand::Losses(arguments) => losses::run(arguments),
    }
}
