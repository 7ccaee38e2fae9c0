//! `gradus compare`: several arms under the same conditions, side by side, with what their differences are worth.

mod execute;
mod html;
mod json;
mod plan;
mod table;
mod told;
mod workers;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use gradus::study::{Outcome as RunOutcome, Runner, Search, Settings, Study, Summary, Trial, summarise};
use gradus::train::RunFolder;
use gradus_core::files::write_atomically;

use self::plan::Plan;
use self::told::Told;
use super::train::stop_on_interrupt;
use crate::arguments::{Compare, Stage};
use crate::failure::{Failure, Outcome};
use crate::output;

/// A study that has been run.
struct Finished<'a> {
    study: &'a Study,
    summary: Summary,
    tuned: Option<Tuned>,
    folder: &'a Path,
    seconds: f64,
}

/// What a search came to.
struct Tuned {
    measure: String,
    /// The trials of each arm.
    arms: Vec<(String, Vec<Trial>)>,
}

pub(crate) fn run(arguments: &Compare) -> Outcome {
    let started = Instant::now();
    if arguments.parallel == 0 {
        return Err(Failure::new(
            "--parallel is 0: expected how many runs go on at a time, 1 or more",
        ));
    }
    let plan = Plan::new(arguments)?;
    // Everything is resolved before anything is trained, the arms with their own settings, too.
    let search = plan.search()?;
    let mut study = plan.study(&BTreeMap::new())?;
    let interrupted = stop_on_interrupt();
    let folder = arguments.out.clone().unwrap_or_else(|| RunFolder::unused("compare"));
    if let Some(stage) = arguments.worker {
        workers::stop_with_parent(&interrupted);
        if let Some(search) = &search {
            if stage == Stage::Search {
                return execute::take_runs(&search.study, &folder, &interrupted);
            }
            study = plan.study(&chosen(search, &execute::known(&search.study, &folder)?)?.0)?;
        }
        return execute::take_runs(&study, &folder, &interrupted);
    }
    let told = &mut Told::default();
    if let Some(search) = &search {
        Runner::new(&search.study, &folder).check(&mut told.observer("compare"))?;
        let known = execute::known(&search.study, &folder)?;
        // What is in the folder of a search that is over was trained with what it chose.
        if known.len() == search.study.runs.len() {
            study = plan.study(&chosen(search, &known)?.0)?;
        }
    }
    Runner::new(&study, &folder).check(&mut told.observer("compare"))?;
    let mut all = |study: &Study, stage: Stage| {
        if arguments.parallel > 1 {
            workers::run(study, stage, &folder, arguments, &interrupted)
        } else {
            execute::all(study, &folder, told, &interrupted)
        }
    };
    let mut tuned = None;
    if let Some(search) = &search {
        let outcomes = all(&search.study, Stage::Search)?;
        let (settings, trials) = chosen(search, &outcomes)?;
        study = plan.study(&settings)?;
        tuned = Some(trials);
    }
    let outcomes = all(&study, Stage::Study)?;
    let finished = Finished {
        study: &study,
        summary: summarise(&study, &outcomes),
        tuned,
        folder: &folder,
        seconds: (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    };
    if let Some(path) = &arguments.markdown {
        write(path, &table::markdown(&finished))?;
    }
    if let Some(path) = &arguments.html {
        write(path, &html::page(&finished))?;
    }
    if arguments.json {
        return output::json(&json::of(&finished));
    }
    output::text(&table::text(&finished))
}

fn write(path: &Path, text: &str) -> Outcome {
    write_atomically(path, |file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// The settings that a search chose for each arm, and its trials.
fn chosen(search: &Search, outcomes: &[RunOutcome]) -> Result<(BTreeMap<String, Settings>, Tuned), Failure> {
    let arms = search.judge(outcomes);
    let settings = search.chosen(&arms)?;
    let measure = search.measure().to_owned();
    Ok((settings, Tuned { measure, arms }))
}
