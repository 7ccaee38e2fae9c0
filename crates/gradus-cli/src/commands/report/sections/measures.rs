//! All numbers of the test classes, with what they say.

use gradus_core::evaluation::explanation;
use serde_json::Value;

use super::ReportedRun;
use crate::commands::train::number;
use crate::page::explained_table;

pub(super) fn section(runs: &[ReportedRun]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for name in runs.iter().flat_map(|run| run.measures.keys()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let heading = std::iter::once("measure".to_owned())
        .chain(runs.iter().map(|run| run.name.clone()))
        .chain(["what it says".to_owned()]);
    let mut rows = vec![heading.collect::<Vec<_>>()];
    for name in names {
        let values = runs.iter().map(|run| match run.measures.get(name) {
            None => String::new(),
            Some(Value::Null) => "undefined".to_owned(),
            Some(value) => number(value),
        });
        let says = explanation(name).unwrap_or(match name.as_str() {
            "epochs" => "epochs trained",
            "seconds" => "seconds of training and evaluation",
            _ => "",
        });
        rows.push(
            std::iter::once(name.clone())
                .chain(values)
                .chain([says.to_owned()])
                .collect(),
        );
    }
    explained_table("Measured on classes that were not trained on.", &rows)
}
