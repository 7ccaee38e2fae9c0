//! `gradus index stats`

use gradus_index::Remote;
use serde_json::json;

use super::{Target, mib, rounded};
use crate::arguments::IndexStats;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Neighbours that are compared with exact search.
const K: usize = 10;

pub(crate) fn run(arguments: &IndexStats) -> Outcome {
    let index = match Target::open(&arguments.place)? {
        Target::Local(index) => index,
        Target::Remote(remote, name) => return of_server(&remote, &name, arguments),
    };
    let found = index.statistics()?;
    let recall = match arguments.recall_queries {
        0 => None,
        queries => index.recall(K, queries)?,
    };
    if arguments.json {
        let mut text = serde_json::to_value(&found)?;
        if let Some(object) = text.as_object_mut() {
            object.insert("size_mib".into(), json!(mib(found.bytes)));
            object.insert("recall@10".into(), json!(recall.map(|recall| recall.recall)));
            object.insert("p50_ms".into(), json!(recall.map(|recall| rounded(recall.p50_ms))));
            object.insert("p99_ms".into(), json!(recall.map(|recall| rounded(recall.p99_ms))));
        }
        return output::json(&text);
    }
    let mut rows = vec![
        vec!["index".to_owned(), index.folder().display().to_string()],
        vec!["engine".to_owned(), found.engine.to_string()],
        vec!["items".to_owned(), found.count.to_string()],
        vec!["deleted".to_owned(), found.deleted.to_string()],
        vec!["classes".to_owned(), found.classes.to_string()],
        vec!["width".to_owned(), found.dimension.to_string()],
        vec!["in the graph".to_owned(), found.approximate_rows.to_string()],
        vec!["size".to_owned(), format!("{} MiB", mib(found.bytes))],
    ];
    if let Some(model) = &found.model {
        rows.push(vec!["run".to_owned(), model.run.clone()]);
        rows.push(vec!["fingerprint".to_owned(), model.fingerprint.clone()]);
    }
    if let Some(root) = &found.image_root {
        rows.push(vec!["images".to_owned(), root.display().to_string()]);
    }
    for (name, kind) in &found.fields {
        rows.push(vec![format!("field {name}"), kind.name().to_owned()]);
    }
    if let Some(thresholds) = &found.calibration {
        let classes = thresholds.classes.len();
        rows.push(vec![
            "threshold".to_owned(),
            format!(
                "{:.4} ({}, {classes} classes with their own)",
                thresholds.global, thresholds.rule
            ),
        ]);
    }
    if let Some(recall) = recall {
        rows.push(vec![format!("recall@{}", recall.k), format!("{:.4}", recall.recall)]);
        rows.push(vec![
            "a search".to_owned(),
            format!("{:.2} ms (99 of 100: {:.2} ms)", recall.p50_ms, recall.p99_ms),
        ]);
    }
    print(&rows)
}

fn print(rows: &[Vec<String>]) -> Outcome {
    let lines: Vec<String> = rows.iter().map(|row| format!("{:<14}{}", row[0], row[1])).collect();
    output::text(&lines.join("\n"))
}

fn of_server(remote: &Remote, name: &str, arguments: &IndexStats) -> Outcome {
    if arguments.recall_queries > 0 {
        return Err(Failure::new(
            "--recall-queries compares with exact search of an index in a folder: a server keeps its vectors to itself",
        ));
    }
    let found = remote.statistics()?;
    if arguments.json {
        return output::json(&serde_json::to_value(&found)?);
    }
    let mut rows = vec![
        vec!["collection".to_owned(), name.to_owned()],
        vec!["status".to_owned(), found.status.clone()],
        vec!["items".to_owned(), found.count.to_string()],
        vec!["width".to_owned(), found.dimension.to_string()],
        vec!["in the graph".to_owned(), found.approximate_rows.to_string()],
    ];
    if let Some(model) = &found.model {
        rows.push(vec!["run".to_owned(), model.run.clone()]);
        rows.push(vec!["fingerprint".to_owned(), model.fingerprint.clone()]);
    }
    for (name, kind) in &found.fields {
        rows.push(vec![format!("field {name}"), kind.name().to_owned()]);
    }
    print(&rows)
}
