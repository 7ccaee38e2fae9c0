//! A study as tables for people: plain text and Markdown.

use gradus::study::{DataSummary, MEASURES, RESAMPLES, UNTRAINED};
use gradus_core::statistics::{MeanInterval, PairedDifference};

use super::{Finished, Tuned};
use crate::output;

/// The tables on stdout.
pub(super) fn text(finished: &Finished) -> String {
    let mut parts = Vec::new();
    if let Some(tuned) = &finished.tuned {
        parts.push(format!("{}:\n{}", search_title(tuned), output::table(&trials(tuned))));
    }
    for data in &finished.summary.data {
        let title = if data.name.is_empty() {
            String::new()
        } else {
            format!("{}\n", data.name)
        };
        parts.push(format!("{title}{}", output::table(&means(data))));
        let differences = differences(data);
        if differences.len() > 1 {
            parts.push(format!(
                "to {}:\n{}",
                finished.study.baseline,
                output::table(&differences)
            ));
        }
    }
    parts.push(legend(finished));
    parts.join("\n\n")
}

/// The tables as Markdown.
pub(super) fn markdown(finished: &Finished) -> String {
    let mut parts = Vec::new();
    if let Some(tuned) = &finished.tuned {
        parts.push(format!("{}:", search_title(tuned)));
        parts.push(markdown_table(&trials(tuned)));
    }
    for data in &finished.summary.data {
        if !data.name.is_empty() {
            parts.push(format!("## {}", data.name));
        }
        parts.push(markdown_table(&means(data)));
        let differences = differences(data);
        if differences.len() > 1 {
            parts.push(format!("Differences to `{}`:", finished.study.baseline));
            parts.push(markdown_table(&differences));
        }
    }
    parts.push(legend(finished));
    parts.join("\n\n") + "\n"
}

fn markdown_table(rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let mut lines: Vec<String> = rows.iter().map(|row| line(row)).collect();
    if let Some(heading) = rows.first() {
        let rule: Vec<String> = (0..heading.len())
            .map(|column| if column == 0 { "---" } else { "---:" }.to_owned())
            .collect();
        lines.insert(1, line(&rule));
    }
    lines.join("\n")
}

/// What the numbers are.
pub(super) fn legend(finished: &Finished) -> String {
    let seeds = finished.study.seeds.len();
    let over = if seeds == 1 {
        "one seed".to_owned()
    } else {
        format!("{seeds} seeds ± half the 95 % interval over seeds (Student's t)")
    };
    let folds = if finished.study.runs.iter().any(|run| run.fold.is_some()) {
        ", each the mean over the folds"
    } else {
        ""
    };
    format!(
        "means over {over}, on the test classes{folds}; differences with 95 % intervals over seeds and test classes (paired bootstrap, \
         {RESAMPLES} resamples);\nseeds: how many settle a difference of this size on these classes (half of such studies would; in \
         brackets, four in five); `classes`: none,\nthe test classes are too few. {} seconds; run folders: {}",
        finished.seconds,
        finished.folder.display()
    )
}

/// What the table of trials shows.
pub(super) fn search_title(tuned: &Tuned) -> String {
    format!("search: {} on validation classes; * was chosen", tuned.measure)
}

/// One row per trial: what was tried and what it scored.
pub(super) fn trials(tuned: &Tuned) -> Vec<Vec<String>> {
    let sets: Vec<&String> = tuned
        .arms
        .iter()
        .flat_map(|(_, trials)| trials)
        .next()
        .map(|trial| trial.scores.keys().collect())
        .unwrap_or_default();
    let mut heading = vec!["arm".to_owned(), "trial".to_owned()];
    heading.extend(sets.iter().map(|name| (*name).clone()));
    heading.extend(["mean".to_owned(), "settings".to_owned()]);
    let mut rows = vec![heading];
    let score = |value: Option<f64>| value.map_or_else(|| "diverged".to_owned(), |value| format!("{value:.4}"));
    for (arm, trials) in &tuned.arms {
        for trial in trials {
            let mark = if trial.chosen { " *" } else { "" };
            let mut row = vec![arm.clone(), format!("{}{mark}", trial.number)];
            row.extend(trial.scores.values().map(|value| score(*value)));
            row.push(score(trial.score));
            let settings: Vec<String> = trial
                .settings
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            row.push(if settings.is_empty() {
                "its own".to_owned()
            } else {
                settings.join(" ")
            });
            rows.push(row);
        }
    }
    rows
}

/// One row per arm: its means.
pub(super) fn means(data: &DataSummary) -> Vec<Vec<String>> {
    let measures: Vec<&str> = MEASURES
        .into_iter()
        .filter(|measure| data.arms.iter().any(|arm| arm.get(measure).is_some()))
        .collect();
    let mut heading = vec!["arm".to_owned()];
    heading.extend(measures.iter().chain(&["seconds"]).map(|name| (*name).to_owned()));
    let mut rows = vec![heading];
    for arm in &data.arms {
        let mut row = vec![arm.name.clone()];
        row.extend(measures.iter().map(|measure| mean(arm.get(measure), 4)));
        row.push(
            arm.get("seconds")
                .map_or_else(String::new, |seconds| format!("{:.1}", seconds.mean)),
        );
        rows.push(row);
    }
    rows
}

/// Two columns per measure and arm: the difference with its interval, and the seeds that it needs.
pub(super) fn differences(data: &DataSummary) -> Vec<Vec<String>> {
    let measures: Vec<&str> = MEASURES
        .into_iter()
        .filter(|measure| data.differences.iter().any(|arm| arm.get(measure).is_some()))
        .collect();
    let mut heading = vec!["arm".to_owned()];
    for measure in &measures {
        heading.push((*measure).to_owned());
        heading.push("seeds".to_owned());
    }
    let mut rows = vec![heading];
    for arm in data.differences.iter().filter(|arm| arm.arm != UNTRAINED) {
        let mut row = vec![arm.arm.clone()];
        for measure in &measures {
            let found = arm.get(measure);
            row.push(found.map_or_else(|| "-".to_owned(), difference));
            row.push(found.map_or_else(|| "-".to_owned(), seeds));
        }
        rows.push(row);
    }
    rows
}

fn mean(interval: Option<&MeanInterval>, digits: usize) -> String {
    match interval {
        None => "-".to_owned(),
        Some(interval) => match interval.half_width {
            Some(half_width) => format!("{:.digits$} ±{half_width:.digits$}", interval.mean),
            None => format!("{:.digits$}", interval.mean),
        },
    }
}

/// A difference with its interval.
pub(super) fn difference(paired: &PairedDifference) -> String {
    let [low, high] = paired.interval;
    format!("{:+.4} [{low:+.4}, {high:+.4}]", paired.difference)
}

/// What would settle it.
pub(super) fn seeds(paired: &PairedDifference) -> String {
    if paired.is_settled() {
        return "settled".to_owned();
    }
    match (paired.needs_classes(), paired.seeds_needed, paired.per_seed.len()) {
        (true, _, _) => "classes".to_owned(),
        (false, Some(needed), _) => format!("{} ({})", needed.half_width, needed.power_80),
        (false, None, 1) => "2 or more".to_owned(),
        (false, None, _) => "no end".to_owned(),
    }
}
