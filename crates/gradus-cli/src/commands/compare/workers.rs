//! Several runs at a time, each in a process of its own: a run that fails or takes too much memory leaves the others alone.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gradus::study::{Outcome, PlannedRun, Runner, Study};

use super::execute::{Clock, kept, stopped};
use crate::arguments::{Compare, Stage};
use crate::failure::Failure;
use crate::output;

/// How often the parent looks what its workers have finished.
const PATIENCE: Duration = Duration::from_millis(200);

/// Starts workers on the runs of a study and waits for them.
pub(super) fn run(
    study: &Study,
    stage: Stage,
    folder: &Path,
    arguments: &Compare,
    interrupted: &AtomicBool,
) -> Result<Vec<Outcome>, Failure> {
    let runner = Runner::new(study, folder);
    let mut outcomes: Vec<Option<Outcome>> = study
        .runs
        .iter()
        .map(|run| runner.finished(run))
        .collect::<Result<_, _>>()?;
    let mut clock = Clock::new();
    let open = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    let count = arguments.parallel.min(open);
    let logs = folder.join("locks");
    let started = |number: usize| -> std::io::Result<Child> {
        std::fs::create_dir_all(&logs)?;
        start(folder, arguments, stage, count, File::create(log(&logs, number))?)
    };
    let mut workers: Vec<Option<Child>> = Vec::new();
    for number in 0..count {
        workers.push(Some(started(number).map_err(|error| {
            Failure::new(format!(
                "cannot start a process for --parallel {}: {error}",
                arguments.parallel
            ))
        })?));
    }
    let mut problem: Option<String> = None;
    let mut stopping = false;
    while workers.iter().any(Option::is_some) {
        std::thread::sleep(PATIENCE);
        for (index, run) in study.runs.iter().enumerate() {
            if outcomes[index].is_some() {
                continue;
            }
            if let Some(outcome) = runner.finished(run)? {
                clock.finished(run, &outcome);
                outcomes[index] = Some(outcome);
                let done = outcomes.iter().filter(|outcome| outcome.is_some()).count();
                let all = study.runs.iter().zip(&outcomes);
                let left: Vec<&PlannedRun> = all
                    .filter(|(_, outcome)| outcome.is_none())
                    .map(|(run, _)| run)
                    .collect();
                output::note(&format!(
                    "{done} of {} runs finished: {}{}",
                    study.runs.len(),
                    run.name(),
                    clock.left(&left, count)
                ));
            }
        }
        for (number, worker) in workers.iter_mut().enumerate() {
            let Some(child) = worker else { continue };
            let ended = child
                .try_wait()
                .map_err(|error| Failure::new(format!("a worker is gone: {error}")))?;
            if let Some(status) = ended {
                *worker = None;
                if !status.success() && problem.is_none() && !stopping {
                    problem = Some(last_error(&log(&logs, number)).unwrap_or_else(|| {
                        format!("a worker ended early ({status}), perhaps for want of memory: try a smaller --parallel")
                    }));
                }
            }
        }
        if !stopping && (problem.is_some() || interrupted.load(Ordering::Relaxed)) {
            // Without their standard input workers save where they are and end.
            stopping = true;
            for child in workers.iter_mut().flatten() {
                drop(child.stdin.take());
            }
        }
    }
    for (outcome, run) in outcomes.iter_mut().zip(&study.runs) {
        if outcome.is_none() {
            *outcome = runner.finished(run)?;
        }
    }
    let finished = outcomes.iter().filter(|outcome| outcome.is_some()).count();
    match problem {
        Some(problem) => Err(Failure::new(format!("{problem}\n{}", kept(folder, &outcomes)))),
        None if finished < outcomes.len() => Err(stopped(folder, &outcomes)),
        None => Ok(outcomes.into_iter().flatten().collect()),
    }
}

fn log(folder: &Path, number: usize) -> std::path::PathBuf {
    folder.join(format!("worker-{number}.log"))
}

/// This program again, with the same arguments.
fn start(folder: &Path, arguments: &Compare, stage: Stage, count: usize, log: File) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    let stage = match stage {
        Stage::Search => "search",
        Stage::Study => "study",
    };
    command.args(std::env::args_os().skip(1)).args(["--worker", stage]);
    if arguments.out.is_none() {
        command.arg("--out").arg(folder);
    }
    if std::env::var_os("RAYON_NUM_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.env("RAYON_NUM_THREADS", (cores / count.max(1)).max(1).to_string());
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn()
}

/// Stops this worker when its parent is gone, however it went: then its standard input ends.
pub(super) fn stop_with_parent(interrupted: &Arc<AtomicBool>) {
    let flag = Arc::clone(interrupted);
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        flag.store(true, Ordering::Relaxed);
    });
}

fn last_error(log: &Path) -> Option<String> {
    let text = std::fs::read_to_string(log).ok()?;
    let at = text.rfind("error: ")?;
    Some(text[at + "error: ".len()..].trim().to_owned())
}
