//! `gradus bench search`

use std::time::Instant;

use gradus_core::EmbeddingSet;
use gradus_core::evaluation::{EvaluationOptions, Horizon, Relevance, Rows, nearest, rank_positives};
use gradus_core::relations::Labels;
use serde_json::json;

use super::measure;
use crate::arguments::{BenchSearch, SearchTask};
use crate::failure::{Failure, Outcome};
use crate::output;

/// Rows of each class where ranks are asked for: that of Stanford Online Products.
const OF_A_CLASS: usize = 5;

pub(crate) fn run(arguments: &BenchSearch) -> Outcome {
    if let Some(engine) = &arguments.engine {
        return super::engine::run(arguments, engine.parse()?);
    }
    let BenchSearch { n, dim, k, seed, .. } = *arguments;
    measure::at_least_one(&[
        ("--n", n),
        ("--dim", dim),
        ("--k", k),
        ("--queries", arguments.queries.unwrap_or(1)),
    ])?;
    if arguments.queries.is_none() && n < 2 {
        return Err(Failure::new(
            "--n is 1: without --queries the vectors search each other, so there must be at least 2",
        ));
    }
    let vectors = set(n, dim, seed, 0);
    let queries = arguments.queries.map(|queries| set(queries, dim, seed, 1));
    let options = EvaluationOptions {
        threads: arguments.threads,
        ..EvaluationOptions::default()
    };
    // Without queries of their own the vectors search each other.
    let (searching, gallery) = match &queries {
        Some(queries) => (queries, Some(&vectors)),
        None => (&vectors, None),
    };
    let started = Instant::now();
    match arguments.task {
        SearchTask::Neighbors => {
            let found = nearest(searching, gallery, k, &options)?;
            std::hint::black_box(found.indices.len());
        }
        SearchTask::Ranks => {
            let labels = |set: &EmbeddingSet| Labels::Classes(set.labels.clone().into());
            let relevance = Relevance::new(labels(searching), gallery.map(labels))?;
            let gallery = gallery.map(|set| set as &dyn Rows);
            let horizon = Horizon::RELEVANT.and(Horizon::within(k));
            let found = rank_positives(searching, gallery, &relevance, horizon, &options)?;
            std::hint::black_box(found.queries());
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let count = searching.len();
    let operations = 2.0 * count as f64 * n as f64 * dim as f64;
    let (rate, gflops, peak) = (count as f64 / seconds, operations / seconds / 1e9, measure::peak_mib());
    if arguments.json {
        return output::json(&json!({
            "task": arguments.task.name(),
            "n": n,
            "dim": dim,
            "queries": count,
            "k": k,
            "seconds": measure::rounded(seconds),
            "queries_per_second": measure::rounded(rate),
            "gflops": measure::rounded(gflops),
            "peak_mib": peak,
        }));
    }
    let row = vec![
        format!("{count} queries, {n} x {dim}, {}", arguments.task.name()),
        format!("{seconds:.2}"),
        format!("{rate:.0}"),
        format!("{gflops:.1}"),
        measure::mib(peak),
    ];
    let heading = ["exact search", "seconds", "queries/s", "GFLOP/s", "peak MiB"].map(str::to_owned);
    output::text(&output::table(&[heading.to_vec(), row]))
}

/// Random directions, a few of each class.
fn set(rows: usize, dim: usize, seed: u64, part: u64) -> EmbeddingSet {
    EmbeddingSet {
        dim,
        values: measure::unit_rows(rows, dim, seed, part),
        labels: (0..rows).map(|row| (row / OF_A_CLASS) as u32).collect(),
        ids: vec![String::new(); rows],
    }
}
