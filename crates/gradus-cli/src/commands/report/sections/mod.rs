//! The parts of a report, one file each.

mod calibration;
mod configuration;
mod confusion;
mod curves;
mod gallery;
mod map;
mod measures;
mod order;
mod spectrum;

use super::analysis::Analysis;
use super::reported_run::ReportedRun;
use crate::page::{escape, key};

/// One part of the page: what the link says, its place, its content (nothing: left out).
struct Section {
    title: &'static str,
    anchor: &'static str,
    content: String,
}

/// Everything between the tags of the body.
pub(super) fn body(title: &str, runs: &[ReportedRun], analyses: &[Analysis], seed: u64) -> String {
    let section = |title, anchor, content| Section { title, anchor, content };
    let sections: Vec<Section> = [
        section("Measures", "measures", measures::section(runs)),
        section("Training", "training", curves::section(runs)),
        section("Order inside classes", "order", order::section(runs, analyses)),
        section("What is found", "gallery", gallery::section(runs, analyses, seed)),
        section("Map", "map", map::section(runs, analyses)),
        section("Confusions", "confusions", confusion::section(runs, analyses)),
        section("Calibration", "calibration", calibration::section(runs, analyses)),
        section("Spectrum", "spectrum", spectrum::section(runs, analyses)),
        section("Configuration", "configuration", configuration::section(runs)),
    ]
    .into_iter()
    .filter(|section| !section.content.is_empty())
    .collect();
    let mut body = format!("<header>\n<h1>{}</h1>\n", escape(title));
    let mut described: Vec<&str> = Vec::new();
    for run in runs {
        if !described.contains(&run.data.as_str()) {
            described.push(&run.data);
        }
    }
    for data in described {
        body.push_str(&format!("<p>{}</p>\n", escape(data)));
    }
    if runs.len() > 1 {
        body.push_str(&key(runs.iter().map(|run| run.name.as_str())));
    }
    let links: Vec<String> = sections
        .iter()
        .map(|section| format!("<a href=\"#{}\">{}</a>", section.anchor, section.title))
        .collect();
    body.push_str(&format!(
        "</header>\n<nav aria-label=\"Sections\">{}</nav>\n<main>\n",
        links.join("\n")
    ));
    for section in sections {
        body.push_str(&format!(
            "<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n",
            section.anchor, section.title, section.content
        ));
    }
    body.push_str("</main>\n");
    body
}
