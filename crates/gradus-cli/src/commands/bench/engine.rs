//! `gradus bench search --engine`: one query after the other against an index.

use std::time::Instant;

use gradus_index::{EngineKind, Index, Item, Settings};
use serde_json::json;

use super::measure;
use crate::arguments::BenchSearch;
use crate::commands::index::mib;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Vectors of a cluster.
const OF_A_CLUSTER: usize = 50;
/// Vectors that are stored together.
const BATCH: usize = 4096;

pub(super) fn run(arguments: &BenchSearch, engine: EngineKind) -> Outcome {
    let BenchSearch {
        n, dim, k, seed, noise, ..
    } = *arguments;
    if !(noise.is_finite() && noise >= 0.0) {
        return Err(Failure::new(format!("--noise {noise}: expected a length of 0 or more")));
    }
    let queries = arguments.queries.unwrap_or(1000);
    measure::at_least_one(&[("--n", n), ("--dim", dim), ("--k", k), ("--queries", queries)])?;
    gradus::kernels::use_threads(arguments.threads).map_err(Failure::new)?;
    let folder = tempfile::tempdir()?;
    let centres = measure::unit_rows(n.div_ceil(OF_A_CLUSTER), dim, seed, 0);
    let vectors = clustered(&centres, n, dim, noise, [seed, 1]);
    let started = Instant::now();
    let builder = Index::create(&folder.path().join("index"), Settings::new(engine, dim))?;
    for first in (0..n).step_by(BATCH) {
        let rows = first..(first + BATCH).min(n);
        let items: Vec<Item> = rows.clone().map(|row| Item::new(row.to_string())).collect();
        builder.add(&items, &vectors[rows.start * dim..rows.end * dim])?;
    }
    let index = builder.finish()?;
    let build = started.elapsed().as_secs_f64();
    let found = index.recall_on(&clustered(&centres, queries, dim, noise, [seed, 2]), k)?;
    let statistics = index.statistics()?;
    let (size, peak) = (mib(statistics.bytes), measure::peak_mib());
    if arguments.json {
        let mut text = json!({
            "engine": engine, "n": n, "dim": dim, "queries": queries, "k": k, "noise": noise,
            "p50_ms": measure::rounded(found.p50_ms), "p99_ms": measure::rounded(found.p99_ms),
            "build_s": measure::rounded(build), "size_mib": size, "approximate_rows": statistics.approximate_rows,
            "segments": statistics.segments, "peak_mib": peak,
        });
        if let Some(object) = text.as_object_mut() {
            object.insert(format!("recall@{k}"), json!(found.recall));
        }
        return output::json(&text);
    }
    let heading = [
        "index",
        &format!("recall@{k}"),
        "p50 ms",
        "p99 ms",
        "build s",
        "size MiB",
        "peak MiB",
    ]
    .map(str::to_owned);
    let row = vec![
        format!("{n} x {dim}, {engine}"),
        format!("{:.4}", found.recall),
        format!("{:.3}", found.p50_ms),
        format!("{:.3}", found.p99_ms),
        format!("{build:.1}"),
        format!("{size}"),
        measure::mib(peak),
    ];
    output::text(&output::table(&[heading.to_vec(), row]))
}

/// Rows around centres, the centres one after the other.
fn clustered(centres: &[f32], rows: usize, dim: usize, noise: f32, [seed, part]: [u64; 2]) -> Vec<f32> {
    let mut values = measure::unit_rows(rows, dim, seed, part);
    let count = centres.len() / dim;
    for (row, values) in values.chunks_exact_mut(dim).enumerate() {
        let centre = &centres[row % count * dim..(row % count + 1) * dim];
        values
            .iter_mut()
            .zip(centre)
            .for_each(|(value, centre)| *value = centre + noise * *value);
    }
    values
}
