//! An evaluation as a person reads it.

use std::collections::BTreeMap;
use std::path::Path;

use gradus::train::measure;
use gradus_core::evaluation::{Group, Report};
use gradus_core::files::write_atomically;

use super::peak_mib;
use super::post_processing::Effects;
use crate::commands::train::number;
use crate::failure::Failure;
use crate::output;

pub(super) fn text(report: &Report, effects: &Effects, explain: bool, seconds: f64) -> String {
    let mut heading = vec!["measure".to_owned(), "value".to_owned()];
    let groups = [
        (&report.by_class, "over classes"),
        (&report.by_category, "over categories"),
    ];
    heading.extend(
        groups
            .iter()
            .filter(|group| group.0.is_some())
            .map(|group| group.1.to_owned()),
    );
    if !report.intervals.is_empty() {
        heading.push("95 % interval".to_owned());
    }
    heading.extend(effects.iter().map(|(name, _)| (*name).to_owned()));
    let mut rows = vec![heading];
    for (name, value) in measure::measures(&report.evaluation) {
        let mut row = vec![name.clone(), number(&value)];
        for (means, _) in groups {
            if let Some(means) = means {
                row.push(means.get(&name).map_or_else(String::new, |mean| format!("{mean:.4}")));
            }
        }
        if !report.intervals.is_empty() {
            let interval = report.intervals.iter().find(|interval| interval.0 == name);
            row.push(interval.map_or_else(String::new, |(_, [low, high])| format!("{low:.4} to {high:.4}")));
        }
        for (_, after) in effects.iter() {
            let numbers = after.get(&name).zip(report.evaluation.get(&name));
            row.push(numbers.map_or_else(String::new, |(after, plain)| {
                format!("{after:.4} ({:+.4})", after - plain)
            }));
        }
        rows.push(row);
    }
    let mut text = output::table(&rows);
    if explain {
        text.push_str("\n\n");
        text.push_str(&report.evaluation.explanations());
    }
    if !report.categories.is_empty() {
        let names: Vec<String> = report
            .by_category
            .iter()
            .flat_map(|means| means.entries().map(|entry| entry.0.to_owned()))
            .collect();
        let mut rows = vec![[&["category".to_owned(), "queries".to_owned()][..], &names].concat()];
        for (category, group) in &report.categories {
            let mut row = vec![category.to_string(), group.queries.to_string()];
            row.extend(names.iter().map(|name| {
                group
                    .means
                    .get(name)
                    .map_or_else(String::new, |mean| format!("{mean:.4}"))
            }));
            rows.push(row);
        }
        text.push_str("\n\n");
        text.push_str(&output::table(&rows));
    }
    text.push_str(&format!("\n\n{seconds:.1} s"));
    if let Some(peak) = peak_mib() {
        text.push_str(&format!(", {peak:.0} MiB at most"));
    }
    text
}

pub(super) fn write_groups(path: &Path, groups: &BTreeMap<u32, Group>) -> Result<(), Failure> {
    let names: Vec<&str> = groups
        .values()
        .next()
        .into_iter()
        .flat_map(|group| group.means.entries().map(|entry| entry.0))
        .collect();
    let mut lines =
        vec![["class,queries,lone_queries", &names.join(",")].join(if names.is_empty() { "" } else { "," })];
    for (class, group) in groups {
        let mut line = format!("{class},{},{}", group.queries, group.lone_queries);
        for name in &names {
            line.push(',');
            line.push_str(&group.means.get(name).map(|mean| mean.to_string()).unwrap_or_default());
        }
        lines.push(line);
    }
    write_atomically(path, |file| writeln!(file, "{}", lines.join("\n")))
        .map_err(|error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display())))
}
