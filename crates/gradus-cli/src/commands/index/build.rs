//! `gradus index build`

use std::time::Instant;

use gradus_index::{Address, EngineKind, Index, Remote, Settings};
use serde_json::json;

use super::payload::Payload;
use super::source::Input;
use super::target::address;
use super::{Target, mib, rounded};
use crate::arguments::IndexBuild;
use crate::failure::{Failure, Outcome};
use crate::output;

/// Neighbours that are compared with exact search.
const K: usize = 10;

pub(crate) fn run(arguments: &IndexBuild) -> Outcome {
    let engine = arguments.engine.as_deref().map(str::parse).transpose()?;
    let engine = engine.unwrap_or_else(EngineKind::default);
    let table = arguments.input.payload.as_deref();
    let payload = table
        .map(|path| Payload::read(path, &Default::default()))
        .transpose()?
        .unwrap_or_default();
    let mut input = Input::open(&arguments.input, arguments.run.as_deref())?;
    let settings = Settings {
        engine,
        dimension: input.dimension(),
        model: input.model().cloned(),
        image_root: input.root().cloned(),
        source: input.source(table),
    };
    let out = match (address(&arguments.server)?, &arguments.out) {
        (Some(address), _) => return on_server(arguments, &address, &settings, input, &payload),
        (None, Some(out)) => out,
        (None, None) => return Err(Failure::new("either --out or --url is needed")),
    };
    let builder = Index::create(out, settings)?;
    let resumed = builder.resumed();
    if resumed > 0 {
        output::note(&format!(
            "a build of the same was interrupted: it goes on after {resumed} items"
        ));
    }
    builder.declare(&payload.fields)?;
    let started = Instant::now();
    let mut storing = 0.0;
    let entered = input.enter(
        &arguments.input,
        &payload,
        &|id| builder.contains(id),
        &mut |items, vectors| {
            let started = Instant::now();
            builder.add(items, vectors)?;
            storing += started.elapsed().as_secs_f64();
            Ok(())
        },
    )?;
    let embedding = started.elapsed().as_secs_f64() - storing;
    if payload.len() > entered.described {
        output::note(&format!(
            "{} of {} rows of the payload table name no item that is indexed",
            payload.len() - entered.described,
            payload.len()
        ));
    }
    let finishing = Instant::now();
    let index = builder.finish()?;
    let build = storing + finishing.elapsed().as_secs_f64();
    let recall = index.recall(K, arguments.recall_queries)?;
    let statistics = index.statistics()?;
    let size = mib(statistics.bytes);
    if arguments.json {
        return output::json(&json!({
            "index": out, "engine": statistics.engine, "count": statistics.count, "dimension": statistics.dimension,
            "classes": statistics.classes, "resumed": resumed, "added": entered.added, "bad_images": entered.bad,
            "embed_s": rounded(embedding), "build_s": rounded(build), "size_mib": size,
            "recall@10": recall.map(|found| found.recall), "recall_k": recall.map(|found| found.k),
            "recall_queries": recall.map(|found| found.queries),
            "p50_ms": recall.map(|found| rounded(found.p50_ms)), "p99_ms": recall.map(|found| rounded(found.p99_ms)),
            "approximate_rows": statistics.approximate_rows, "fingerprint": statistics.model.map(|model| model.fingerprint),
        }));
    }
    let mut text = format!(
        "{} items of {} classes, {} numbers each, engine {}: {}\nembedded in {embedding:.1} s, stored in {build:.1} s, {size} MiB",
        statistics.count,
        statistics.classes,
        statistics.dimension,
        statistics.engine,
        out.display()
    );
    if entered.bad > 0 {
        text.push_str(&format!("\n{} broken images were left out", entered.bad));
    }
    if let Some(found) = recall {
        text.push_str(&format!(
            "\nagainst exact search, {} queries: recall@{} {:.4}, a search takes {:.2} ms (99 of 100: {:.2} ms)",
            found.queries, found.k, found.recall, found.p50_ms, found.p99_ms
        ));
    }
    output::text(&text)
}

/// The same as a collection on a server: items that are there were stored by a build that was interrupted.
fn on_server(
    arguments: &IndexBuild,
    address: &Address,
    settings: &Settings,
    mut input: Input,
    payload: &Payload,
) -> Outcome {
    let remote = Remote::create(address, settings)?;
    let mut target = Target::Remote(Box::new(remote), format!("{} ({})", address.collection, address.url));
    target.declare(&payload.fields)?;
    let names = input.names();
    let present = target.present(&names.iter().map(String::as_str).collect::<Vec<_>>())?;
    if !present.is_empty() {
        output::note(&format!(
            "{} items are there already: the build goes on after them",
            present.len()
        ));
    }
    let started = Instant::now();
    let entered = input.enter(
        &arguments.input,
        payload,
        &|id| present.contains(id),
        &mut |items, vectors| Ok(target.add(items, vectors)?),
    )?;
    let seconds = started.elapsed().as_secs_f64();
    let count = target.count()?;
    if arguments.json {
        return output::json(&json!({
            "index": target.name(), "engine": target.engine()?, "count": count, "dimension": target.dimension(),
            "resumed": entered.skipped, "added": entered.added, "bad_images": entered.bad, "seconds": rounded(seconds),
            "fingerprint": target.model().map(|model| model.fingerprint),
        }));
    }
    output::text(&format!(
        "{} items added in {seconds:.1} s, {} broken images left out; {} holds {count}",
        entered.added,
        entered.bad,
        target.name()
    ))
}
