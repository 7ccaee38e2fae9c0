//! `gradus bench`: how long parts of gradus take, and how much memory.

mod engine;
mod infer;
mod kernels;
mod loader;
mod losses;
mod measure;
mod network;
mod search;
mod train_step;

use crate::arguments::{Bench, BenchCommand};
use crate::failure::Outcome;

pub(crate) fn run(arguments: &Bench) -> Outcome {
    match &arguments.command {
        BenchCommand::Losses(arguments) => losses::run(arguments),
        BenchCommand::TrainStep(arguments) => train_step::run(arguments),
        BenchCommand::Infer(arguments) => infer::run(arguments),
        BenchCommand::Search(arguments) => search::run(arguments),
        BenchCommand::Kernels(arguments) => kernels::run(arguments),
        BenchCommand::Loader(arguments) => loader::run(arguments),
    }
}
