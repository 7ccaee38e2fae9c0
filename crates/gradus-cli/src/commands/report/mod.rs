//! `gradus report`: one run, or several beside each other, as one page.

mod analysis;
mod environment;
mod reported_run;
mod sections;

use std::path::{Path, PathBuf};

use gradus_core::files::write_atomically;
use rayon::prelude::*;
use serde_json::json;

use self::analysis::Analysis;
pub(crate) use self::reported_run::ReportedRun;
use super::trained;
use crate::arguments::{DataFlags, Report};
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::page;

pub(crate) fn run(arguments: &Report) -> Outcome {
    let out = match (&arguments.out, arguments.runs.as_slice()) {
        (Some(out), _) => out.clone(),
        (None, [only]) => only.join("report.html"),
        (None, _) => PathBuf::from("report.html"),
    };
    let mut runs = Vec::new();
    for (folder, name) in arguments.runs.iter().zip(names(&arguments.runs)) {
        let tested = trained::embed_test(folder, &DataFlags::default(), arguments.device.as_deref(), false)?;
        runs.push(ReportedRun::new(
            name,
            folder,
            &tested.config,
            &tested.data,
            tested.embedded,
        )?);
    }
    write(&runs, &out, arguments.seed)?;
    if arguments.json {
        let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
        return output::json(&json!({"report": out.display().to_string(), "runs": names}));
    }
    output::text(&format!("report: {}", out.display()))
}

/// Writes the page of runs; `seed` chooses the sample that is shown.
pub(crate) fn write(runs: &[ReportedRun], out: &Path, seed: u64) -> Result<(), Failure> {
    // Layouts run on one thread each: several runs side by side.
    let analyses = runs
        .par_iter()
        .map(|run| Analysis::new(run, seed))
        .collect::<Result<Vec<_>, Failure>>()?;
    let title = match runs {
        [run] => format!("Report of {}", run.name),
        _ => "Report of several runs".to_owned(),
    };
    let body = sections::body(&title, runs, &analyses, seed);
    let text = page::document(&title, &body);
    write_atomically(out, |file| file.write_all(text.as_bytes())).map_err(|error| {
        Failure::new(format!(
            "cannot write the report {}: {error}; choose another file with --out",
            out.display()
        ))
    })
}

/// The last parts of the folders' names that tell them apart.
fn names(folders: &[PathBuf]) -> Vec<String> {
    let last = |folder: &PathBuf, parts: usize| {
        let all: Vec<String> = folder
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        all[all.len().saturating_sub(parts)..].join("/")
    };
    let longest = folders
        .iter()
        .map(|folder| folder.components().count())
        .max()
        .unwrap_or(1);
    for parts in 1..=longest {
        let mut names: Vec<String> = folders.iter().map(|folder| last(folder, parts)).collect();
        let all = names.clone();
        names.sort();
        names.dedup();
        if names.len() == folders.len() || parts == longest {
            return all;
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_they_can_be() {
        let of = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["runs/a", "runs/b"]), ["a", "b"]);
        assert_eq!(of(&["one/a", "two/a"]), ["one/a", "two/a"]);
        assert_eq!(of(&["a", "a"]), ["a", "a"]);
    }
}
