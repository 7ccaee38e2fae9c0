//! `gradus duplicates`

use gradus_core::EmbeddingSet;
use gradus_core::embeddings::{NpyRows, read_companion, read_rows};
use gradus_core::evaluation::{EvaluationOptions, NearDuplicates, Rows, near_duplicates};
use serde_json::json;

use super::index::open;
use crate::arguments::Duplicates;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Groups that are printed as text.
const SHOWN: usize = 50;

pub(crate) fn run(arguments: &Duplicates) -> Outcome {
    let options = EvaluationOptions {
        memory: arguments.memory.saturating_mul(1 << 20),
        ..EvaluationOptions::default()
    };
    let find = |rows: &dyn Rows| near_duplicates(rows, arguments.threshold, &options);
    let (found, names, count) = match (&arguments.index, &arguments.embeddings) {
        (Some(path), _) => {
            let index = open(path)?;
            let mut set = EmbeddingSet {
                dim: index.dimension(),
                ids: index.items().into_iter().map(|(_, item)| item.id.clone()).collect(),
                ..EmbeddingSet::default()
            };
            index.each_block(|_, values| {
                set.values.extend_from_slice(values);
                Ok(())
            })?;
            set.labels = vec![0; set.ids.len()];
            (find(&set)?, Some(set.ids), set.labels.len())
        }
        (None, Some(path))
            if path
                .extension()
                .is_some_and(|extension| extension.eq_ignore_ascii_case("npy")) =>
        {
            let rows = NpyRows::open(path)?;
            let names = read_companion(path)?.map(|(names, _)| names);
            (find(&rows)?, names, rows.len())
        }
        (None, Some(path)) => {
            let table = read_rows(path)?;
            let len = table.values.len() / table.dim.max(1);
            let names = table.ids;
            let set = EmbeddingSet {
                dim: table.dim,
                values: table.values,
                labels: vec![0; len],
                ids: names
                    .clone()
                    .unwrap_or_else(|| (0..len).map(|row| format!("row {row}")).collect()),
            };
            (find(&set)?, names, len)
        }
        (None, None) => return Err(Failure::new("either --index or --embeddings is needed")),
    };
    let name = |row: u32| {
        names
            .as_ref()
            .and_then(|names| names.get(row as usize))
            .cloned()
            .unwrap_or_else(|| row.to_string())
    };
    let NearDuplicates { groups, pairs } = found;
    let superfluous: usize = groups.iter().map(|group| group.len() - 1).sum();
    let named: Vec<Vec<String>> = groups
        .iter()
        .map(|group| group.iter().map(|row| name(*row)).collect())
        .collect();
    if arguments.json {
        return output::json(&json!({
            "threshold": arguments.threshold, "items": count, "pairs": pairs, "groups": named, "superfluous": superfluous,
        }));
    }
    let mut text = format!(
        "{} groups of near-duplicates (similarity of at least {}) among {count} items: {pairs} pairs, {superfluous} items more than groups",
        named.len(),
        arguments.threshold
    );
    for group in named.iter().take(SHOWN) {
        text.push_str(&format!("\n{}", group.join("  ")));
    }
    if named.len() > SHOWN {
        text.push_str(&format!("\n… {} more groups; --json prints all", named.len() - SHOWN));
    }
    output::text(&text)
}
