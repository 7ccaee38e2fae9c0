//! What was asked for, and where the report was made.

use super::super::environment;
use super::ReportedRun;
use crate::page::{escape, table};

pub(super) fn section(runs: &[ReportedRun]) -> String {
    let mut text = String::new();
    let differing = differences(runs);
    if differing.len() > 1 {
        text.push_str(&table("Where the configurations differ", &differing));
    }
    for run in runs {
        text.push_str(&format!(
            "<details><summary>Whole configuration of {}</summary>\n<pre tabindex=\"0\">{}</pre></details>\n",
            escape(&run.name),
            escape(run.config.trim_end())
        ));
    }
    text.push_str("<h3>Environment</h3>\n");
    let mut rows = vec![vec!["of this report".to_owned(), String::new()]];
    rows.extend(environment::rows());
    text.push_str(&table("The machine that wrote this page", &rows));
    text
}

/// Keys whose values are not the same in all runs.
fn differences(runs: &[ReportedRun]) -> Vec<Vec<String>> {
    let flat: Vec<Vec<(String, String)>> = runs
        .iter()
        .map(|run| {
            let mut keys = Vec::new();
            if let Ok(table) = toml::from_str::<toml::Table>(&run.config) {
                flatten("", &toml::Value::Table(table), &mut keys);
            }
            keys
        })
        .collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in flat.iter().flatten() {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let heading = std::iter::once("key".to_owned()).chain(runs.iter().map(|run| run.name.clone()));
    let mut rows = vec![heading.collect::<Vec<_>>()];
    for name in names {
        let values: Vec<&str> = flat
            .iter()
            .map(|keys| keys.iter().find(|(key, _)| key == name).map_or("–", |(_, value)| value))
            .collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            let values = values.iter().map(|&value| value.to_owned());
            rows.push(std::iter::once(name.clone()).chain(values).collect());
        }
    }
    rows
}

fn flatten(prefix: &str, value: &toml::Value, into: &mut Vec<(String, String)>) {
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            for (key, value) in table {
                let name = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                flatten(&name, value, into);
            }
        }
        other => into.push((prefix.to_owned(), other.to_string())),
    }
}
