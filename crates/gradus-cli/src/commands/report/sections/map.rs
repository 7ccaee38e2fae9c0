//! Embeddings as points of the plane.

use super::{Analysis, ReportedRun};
use crate::page::points::{Point, hue, plot};
use crate::page::{escape, figure};

pub(super) fn section(runs: &[ReportedRun], analyses: &[Analysis]) -> String {
    let mut text = String::new();
    for (run, analysis) in runs.iter().zip(analyses) {
        let colour = |query: usize| hue(run.class(query));
        text.push_str(&map(run, analysis, 0, "by class", &colour));
        text.push_str(&map(run, analysis, 1, "by class", &colour));
    }
    let mut colours = String::new();
    for (run, analysis) in runs.iter().zip(analyses) {
        let Some(table) = &run.embedded.factors else { continue };
        for (number, factor) in run.factors.iter().enumerate() {
            let all: Vec<f64> = analysis
                .mapped
                .iter()
                .map(|&query| table.value(query, number))
                .collect();
            let (low, high) = all
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
                    (low.min(value), high.max(value))
                });
            // A circle of values takes the circle of colours, a plain range goes from blue to red.
            let shade = |query: usize| match factor.period {
                Some(period) => (table.value(query, number) / f64::from(period)).rem_euclid(1.0),
                None => 0.62 * (1.0 - (table.value(query, number) - low) / (high - low).max(1e-9)),
            };
            let how = match factor.period {
                Some(_) => format!("by {} (all colours round its circle)", factor.name),
                None => format!("by {} (blue: {low:.2}, red: {high:.2})", factor.name),
            };
            colours.push_str(&map(run, analysis, 0, &how, &shade));
        }
    }
    let factors = if colours.is_empty() {
        String::new()
    } else {
        format!(
            "<details><summary>The same points coloured by the known factors</summary>\n<div class=\"plots\">\n{colours}</div>\n</details>\n"
        )
    };
    format!(
        "<p class=\"note\">Each point is an image of a test class; point at it for its name. t-SNE keeps near images near, while gaps \
         and the size of groups mean little; principal components show the two directions of greatest variance, undistorted.</p>\n\
         <div class=\"plots\">\n{text}</div>\n{factors}"
    )
}

fn map(run: &ReportedRun, analysis: &Analysis, which: usize, how: &str, colour: &dyn Fn(usize) -> f64) -> String {
    let points: Vec<Point> = analysis
        .mapped
        .iter()
        .zip(&analysis.maps[which])
        .map(|(&query, &at)| {
            let mut label = run.class_name(run.class(query)).to_owned();
            let factors = run.factors_of(query);
            if !factors.is_empty() {
                label.push_str(": ");
                label.push_str(&factors);
            }
            Point {
                at,
                hue: colour(query),
                label,
            }
        })
        .collect();
    let title = format!("{}: {}, {how}", run.name, ["t-SNE", "principal components"][which]);
    let caption = if analysis.mapped.len() < run.queries() {
        format!("{} of {} images, drawn by seed", analysis.mapped.len(), run.queries())
    } else {
        format!("{} images", run.queries())
    };
    figure(&title, &caption, &plot(&escape(&title), &points))
}
