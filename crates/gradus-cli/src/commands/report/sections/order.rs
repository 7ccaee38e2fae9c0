//! Whether distances inside classes follow what is known of the images.

use super::{Analysis, ReportedRun};
use crate::page::figure;
use crate::page::lines::{Axes, Line, Look, plot};

pub(super) fn section(runs: &[ReportedRun], analyses: &[Analysis]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for curve in analyses.iter().flat_map(|analysis| &analysis.orders) {
        if !names.contains(&curve.factor.as_str()) {
            names.push(&curve.factor);
        }
    }
    let mut text = String::new();
    for name in names {
        let lines: Vec<Line> = runs
            .iter()
            .zip(analyses)
            .enumerate()
            .filter_map(|(number, (run, analysis))| {
                let curve = analysis.orders.iter().find(|curve| curve.factor == name)?;
                Some(Line {
                    label: run.name.clone(),
                    colour: number,
                    points: curve
                        .points
                        .iter()
                        .map(|point| (point.factor_distance, point.embedding_distance))
                        .collect(),
                    look: Look::Marked,
                })
            })
            .collect();
        let correlations: Vec<String> = runs
            .iter()
            .filter_map(|run| {
                let value = run.measures.get(&format!("order_preservation.{name}"))?.as_f64()?;
                Some(format!("{}: {value:.3}", run.name))
            })
            .collect();
        let axes = Axes {
            x: &format!("difference in {name}"),
            y: "embedding distance / mean",
            logarithmic: [false; 2],
            from_zero: false,
        };
        let title = format!("Order of {name}");
        let caption = format!("Spearman correlation inside classes, mean: {}", correlations.join("; "));
        text.push_str(&figure(&title, &caption, &plot(&title, &lines, &axes)));
    }
    if text.is_empty() {
        return String::new();
    }
    format!(
        "<p class=\"note\">Mean embedding distance of two images of one class, by how much they differ in a known factor, in units of \
         the mean distance inside classes. A space that keeps the order rises; one that has forgotten the factor is flat at 1.</p>\n\
         <div class=\"plots\">\n{text}</div>\n"
    )
}
