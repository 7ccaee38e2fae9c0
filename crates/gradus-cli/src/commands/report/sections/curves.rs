//! Loss, learning rate and validation by epoch.

use serde_json::Value;

use super::ReportedRun;
use crate::page::figure;
use crate::page::lines::{Axes, Line, Look, plot};

const AXES: Axes<'_> = Axes {
    x: "epoch",
    y: "",
    logarithmic: [false; 2],
    from_zero: false,
};

pub(super) fn section(runs: &[ReportedRun]) -> String {
    let mut text = String::new();
    let mut put = |title: &str, caption: &str, lines: Vec<Line>, axes: &Axes<'_>| {
        let all: Vec<f64> = lines
            .iter()
            .flat_map(|line| &line.points)
            .map(|point| point.1)
            .collect();
        // A number that never changes has no curve.
        if all.iter().any(|&value| value != all[0]) {
            text.push_str(&figure(title, caption, &plot(title, &lines, axes)));
        }
    };
    let look = |run: &ReportedRun| {
        if epochs(run, "epoch").count() < 40 {
            Look::Marked
        } else {
            Look::Solid
        }
    };
    let curves = |event: &str, of: &dyn Fn(&Value) -> Option<f64>| -> Vec<Line> {
        let lines = runs.iter().enumerate().map(|(number, run)| Line {
            label: run.name.clone(),
            colour: number,
            points: epochs(run, event)
                .filter_map(|event| Some((event["epoch"].as_f64()?, of(event)?)))
                .collect(),
            look: look(run),
        });
        lines.collect()
    };
    let at = |y| Axes { y, ..AXES };
    put(
        "Loss",
        "Mean of all terms over the steps of each epoch. Losses of different kinds have different units.",
        curves("epoch", &|event| event["loss"].as_f64()),
        &at("loss"),
    );
    let mut measures: Vec<String> = Vec::new();
    for event in runs.iter().flat_map(|run| epochs(run, "validation")) {
        for name in event["measures"].as_object().into_iter().flat_map(|map| map.keys()) {
            let shown = name.starts_with("recall@") || name == "map@r" || name.starts_with("order_preservation");
            if shown && !name.contains('.') && !name.ends_with("kendall") && !measures.contains(name) {
                measures.push(name.clone());
            }
        }
    }
    for name in &measures {
        put(
            &format!("{name} of the validation classes"),
            "Measured after each epoch on training classes that were held out.",
            curves("validation", &|event| event["measures"][name].as_f64()),
            &at(name),
        );
    }
    put(
        "Learning rate of the trunk",
        "",
        curves("epoch", &|event| event["rate"].as_f64()),
        &at("rate"),
    );
    if text.is_empty() {
        return String::new();
    }
    let note = if measures.is_empty() {
        "<p class=\"note\">No classes were held out for validation (data.validation), so there is no Recall@K by epoch; the measures \
         above are those after the last one.</p>\n"
    } else {
        ""
    };
    format!("{note}<div class=\"plots\">\n{text}</div>\n")
}

fn epochs<'a>(run: &'a ReportedRun, event: &'a str) -> impl Iterator<Item = &'a Value> {
    run.events.iter().filter(move |line| line["event"] == event)
}
