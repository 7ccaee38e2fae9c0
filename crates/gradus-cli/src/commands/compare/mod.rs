//! `gradus compare`: several arms under the same conditions, side by side, with what their differences are worth.

mod execute;
mod html;
mod json;
mod plan;
mod table;
mod workers;

use std::path::Path;
use std::time::Instant;

use gradus::study::{Runner, Study, Summary, summarise};
use gradus_core::files::write_atomically;

use super::layers;
use super::train::stop_on_interrupt;
use crate::arguments::Compare;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// A study that has been run.
struct Finished<'a> {
    study: &'a Study,
    summary: Summary,
    folder: &'a Path,
    seconds: f64,
}

pub(crate) fn run(arguments: &Compare) -> Outcome {
    let started = Instant::now();
    if arguments.parallel == 0 {
        return Err(Failure::new(
            "--parallel is 0: expected how many runs go on at a time, 1 or more",
        ));
    }
    let study = plan::study(arguments)?;
    let interrupted = stop_on_interrupt();
    let folder = arguments
        .out
        .clone()
        .unwrap_or_else(|| layers::new_run_folder("compare"));
    let mut runner = Runner::new(&study, &folder);
    if arguments.worker {
        workers::stop_with_parent(&interrupted);
        return execute::take_runs(&study, &mut runner, &interrupted);
    }
    runner.check(&mut Progress::new("compare"))?;
    let outcomes = if arguments.parallel > 1 {
        drop(runner);
        workers::run(&study, &folder, arguments, &interrupted)?
    } else {
        execute::all(&study, runner, &folder, &interrupted)?
    };
    let finished = Finished {
        study: &study,
        summary: summarise(&study, &outcomes),
        folder: &folder,
        seconds: (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    };
    let documents: [(_, fn(&Finished<'_>) -> String); 2] =
        [(&arguments.markdown, table::markdown), (&arguments.html, html::page)];
    for (path, document) in documents {
        if let Some(path) = path {
            let text = document(&finished);
            write_atomically(path, |file| file.write_all(text.as_bytes()))
                .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
        }
    }
    if arguments.json {
        return output::json(&json::of(&finished));
    }
    output::text(&table::text(&finished))
}
