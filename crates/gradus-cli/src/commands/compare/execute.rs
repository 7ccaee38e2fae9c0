//! Runs a study in this process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gradus::study::{Outcome, PlannedRun, Runner, Study, StudyError};
use gradus::train::TrainError;

use super::told::Told;
use crate::failure::Failure;
use crate::output;
use crate::progress::Progress;

/// How often it is looked whether another process has finished a run.
const PATIENCE: Duration = Duration::from_millis(500);

/// All runs, one after the other; waits for those that another process is at.
pub(super) fn all(
    study: &Study,
    folder: &Path,
    told: &mut Told,
    interrupted: &AtomicBool,
) -> Result<Vec<Outcome>, Failure> {
    let mut runner = Runner::new(study, folder);
    let mut outcomes: Vec<Option<Outcome>> = vec![None; study.runs.len()];
    let mut clock = Clock::new();
    let mut waiting = false;
    while outcomes.iter().any(Option::is_none) {
        let mut moved = false;
        for (index, run) in study.runs.iter().enumerate() {
            if outcomes[index].is_some() {
                continue;
            }
            let known = runner.finished(run)?;
            let fresh = known.is_none();
            if fresh && !waiting {
                let left: Vec<&PlannedRun> = rest(study, &outcomes).collect();
                let (number, of, name) = (index + 1, study.runs.len(), run.name());
                output::note(&format!("run {number} of {of}: {name}{}", clock.left(&left, 1)));
            }
            let outcome = match known {
                Some(outcome) => Some(outcome),
                None => runner
                    .run(run, &mut told.observer(&run.arm), interrupted)
                    .map_err(|error| explain(error, folder, &outcomes))?,
            };
            if let Some(outcome) = &outcome {
                moved = true;
                if fresh {
                    clock.finished(&outcome.run, outcome);
                }
            }
            outcomes[index] = outcome;
            if interrupted.load(Ordering::Relaxed) {
                return Err(stopped(folder, &outcomes));
            }
        }
        if !moved {
            if !waiting {
                output::note("waiting for another process that is at the runs that are left");
            }
            waiting = true;
            std::thread::sleep(PATIENCE);
        }
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// What a worker does: every run that nobody is at, once.
pub(super) fn take_runs(study: &Study, folder: &Path, interrupted: &AtomicBool) -> Result<(), Failure> {
    let mut runner = Runner::new(study, folder);
    for run in &study.runs {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Failure::new("stopped with the process that waits for it"));
        }
        runner.run(run, &mut Progress::new(&run.arm), interrupted)?;
    }
    Ok(())
}

/// The runs that are finished already.
pub(super) fn known(study: &Study, folder: &Path) -> Result<Vec<Outcome>, Failure> {
    let runner = Runner::new(study, folder);
    let all: Vec<Option<Outcome>> = study
        .runs
        .iter()
        .map(|run| runner.finished(run))
        .collect::<Result<_, _>>()?;
    Ok(all.into_iter().flatten().collect())
}

fn rest<'a>(study: &'a Study, outcomes: &'a [Option<Outcome>]) -> impl Iterator<Item = &'a PlannedRun> {
    study
        .runs
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| outcome.is_none())
        .map(|(run, _)| run)
}

fn explain(error: StudyError, folder: &Path, outcomes: &[Option<Outcome>]) -> Failure {
    match error {
        StudyError::Run {
            source: TrainError::Interrupted { .. },
            ..
        } => stopped(folder, outcomes),
        other => Failure::new(format!("{other}\n{}", kept(folder, outcomes))),
    }
}

/// The message of a study that was stopped by the user.
pub(super) fn stopped(folder: &Path, outcomes: &[Option<Outcome>]) -> Failure {
    Failure::new(format!("interrupted: {}", kept(folder, outcomes)))
}

/// What a study that stopped has come to.
pub(super) fn kept(folder: &Path, outcomes: &[Option<Outcome>]) -> String {
    format!(
        "{} of {} runs are finished and kept; call again with --out {} to go on",
        outcomes.iter().filter(|outcome| outcome.is_some()).count(),
        outcomes.len(),
        folder.display()
    )
}

/// Guesses the time that is left from the runs of this session.
pub(super) struct Clock {
    started: Instant,
    /// Data set, arm and seconds of what was finished.
    seconds: Vec<(String, String, f64)>,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            seconds: Vec::new(),
        }
    }

    pub(super) fn finished(&mut self, run: &PlannedRun, outcome: &Outcome) {
        let seconds = outcome.measures.get("seconds").and_then(serde_json::Value::as_f64);
        self.seconds
            .push((run.data.clone(), run.arm.clone(), seconds.unwrap_or_default()));
    }

    /// `, about 5 min left`, once there is something to go by: each run as long as those of its arm and data set, else of
    /// its data set, else all.
    pub(super) fn left(&self, runs: &[&PlannedRun], parallel: usize) -> String {
        if self.seconds.is_empty() {
            return String::new();
        }
        let mean = |keep: &dyn Fn(&(String, String, f64)) -> bool| {
            let values: Vec<f64> = self.seconds.iter().filter(|run| keep(run)).map(|run| run.2).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        let of = |run: &&PlannedRun| {
            mean(&|(data, arm, _)| *data == run.data && *arm == run.arm)
                .or_else(|| mean(&|(data, _, _)| *data == run.data))
                .or_else(|| mean(&|_| true))
                .unwrap_or_default()
        };
        let known: f64 = self.seconds.iter().map(|run| run.2).sum();
        // Preparation and bookkeeping between runs count, too.
        let overhead = (self.started.elapsed().as_secs_f64() * parallel as f64 / known.max(1e-3)).clamp(1.0, 3.0);
        let seconds = runs.iter().map(of).sum::<f64>() * overhead / parallel as f64;
        if seconds < 90.0 {
            format!(", about {} s left", seconds.ceil())
        } else {
            format!(", about {} min left", (seconds / 60.0).ceil())
        }
    }
}
