//! `gradus evaluate`

mod inputs;
mod post_processing;
mod text;

use std::path::Path;
use std::time::Instant;

use gradus::train::measure;
use gradus_core::embeddings::{read_categories, read_clusters, read_labels};
use gradus_core::evaluation::{
    EvaluationOptions, LoneQueries, ReportOptions, SearchDistance, Subject, cluster_scores, forecast, report,
};
use gradus_core::post_processing::Step;
use serde_json::{Value, json};

use self::inputs::Input;
use super::train::number;
use super::trained;
use crate::arguments::{self, Evaluate};
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Evaluate) -> Outcome {
    let begin = Instant::now();
    if let (Some(clusters), Some(labels)) = (&arguments.clusters, &arguments.labels) {
        return of_clusters(arguments, labels, clusters);
    }
    match (&arguments.run, &arguments.embeddings) {
        (Some(folder), _) => of_run(arguments, folder, begin),
        (None, Some(embeddings)) => of_files(arguments, embeddings, begin),
        (None, None) => Err(Failure::new("give a run (--run) or embeddings (--embeddings)")),
    }
}

fn of_run(arguments: &Evaluate, folder: &Path, begin: Instant) -> Outcome {
    let whitens = arguments.post_processing.whitening.as_deref();
    let tested = trained::embed_test(
        folder,
        &arguments.data,
        arguments.device.as_deref(),
        whitens.is_some_and(|path| path.as_os_str() == "-"),
    )?;
    let embedded = &tested.embedded;
    let mut options = measure::evaluation_options(&tested.data.dataset, &tested.config);
    with_arguments(&mut options, arguments);
    let mut subject = Subject::of_sets(&embedded.queries, embedded.gallery.as_ref());
    subject.factors = embedded.factors.as_ref();
    let file = arguments.post_processing.whitening.as_deref();
    let training = match file.filter(|path| path.as_os_str() != "-") {
        Some(path) => Some(inputs::unlabelled(path)?),
        None => tested.training,
    };
    let steps = post_processing::steps(&arguments.post_processing, training.as_ref())?;
    measure(arguments, &subject, &steps, &options, begin)
}

/// Scores clusters that are given.
fn of_clusters(arguments: &Evaluate, labels: &Path, clusters: &Path) -> Outcome {
    let scores = cluster_scores(&read_labels(labels)?, &read_clusters(clusters)?)?;
    let values = serde_json::to_value(scores)?;
    if arguments.json {
        return output::json(&values);
    }
    let mut rows = vec![vec!["measure".to_owned(), "value".to_owned()]];
    rows.extend(
        values
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| vec![name.clone(), number(value)]),
    );
    output::text(&output::table(&rows))
}

fn of_files(arguments: &Evaluate, embeddings: &Path, begin: Instant) -> Outcome {
    if !arguments.data.data.is_empty() {
        return Err(Failure::new(
            "--data belongs to --run; with --embeddings the labels come from --labels",
        ));
    }
    let mut options = EvaluationOptions::default();
    with_arguments(&mut options, arguments);
    let kind = arguments.label_kind.map(Into::into);
    let queries = Input::open(embeddings, arguments.labels.as_deref(), kind, options.memory)?;
    let gallery = arguments
        .gallery_embeddings
        .as_ref()
        .map(|path| Input::open(path, arguments.gallery_labels.as_deref(), kind, options.memory))
        .transpose()?;
    let factors = inputs::factors(arguments)?;
    let cameras = inputs::cameras(arguments)?;
    let reference = arguments
        .reference_embeddings
        .as_deref()
        .map(inputs::unlabelled)
        .transpose()?;
    let training = arguments
        .post_processing
        .whitening
        .as_deref()
        .map(inputs::unlabelled_training)
        .transpose()?;
    let steps = post_processing::steps(&arguments.post_processing, training.as_ref())?;
    let subject = Subject {
        queries: queries.rows(),
        query_labels: queries.labels.clone(),
        gallery: gallery.as_ref().map(|gallery| (gallery.rows(), gallery.labels.clone())),
        cameras,
        categories: arguments
            .categories
            .as_ref()
            .map(|path| read_categories(path))
            .transpose()?,
        factors: factors.as_ref(),
        reference: reference.as_ref(),
    };
    measure(arguments, &subject, &steps, &options, begin)
}

fn with_arguments(options: &mut EvaluationOptions, arguments: &Evaluate) {
    if !arguments.k.is_empty() {
        options.recall_levels.clone_from(&arguments.k);
    }
    options.lone_queries = match arguments.lone_queries {
        arguments::LoneQueries::Miss => LoneQueries::Miss,
        arguments::LoneQueries::Drop => LoneQueries::Drop,
    };
    options.distance = match arguments.distance {
        arguments::SearchDistance::Cosine => SearchDistance::Cosine,
        arguments::SearchDistance::InnerProduct => SearchDistance::InnerProduct,
        arguments::SearchDistance::Euclidean => SearchDistance::Euclidean,
    };
    options.memory = arguments.memory.unwrap_or(options.memory);
    options.threads = arguments.threads;
}

fn measure(
    arguments: &Evaluate,
    subject: &Subject<'_>,
    steps: &[Step],
    options: &EvaluationOptions,
    begin: Instant,
) -> Outcome {
    let relevance = subject.relevance()?;
    let target = subject.gallery_rows().unwrap_or(subject.queries);
    let (queries, gallery) = (subject.queries.len(), target.len());
    if queries == relevance.queries() && gallery == relevance.gallery() {
        let forecast = forecast(subject.queries, subject.gallery_rows(), &relevance, options);
        let mib = |bytes: usize| bytes as f64 / 1024.0 / 1024.0;
        output::note(&format!(
            "search: {queries} queries in {gallery} rows of width {}, {} in blocks of {} x {} on {} threads; about {:.0} MiB of {:.0} \
             MiB, about {:.1} s",
            subject.queries.dim(),
            match (forecast.resident, forecast.passes) {
                (true, _) => "in memory,".to_owned(),
                (false, 1) => "read once,".to_owned(),
                (false, passes) => format!("read {passes} times,"),
            },
            forecast.tile[0],
            forecast.tile[1],
            forecast.threads,
            mib(forecast.bytes),
            mib(options.memory),
            forecast.seconds
        ));
    }
    drop(relevance);
    let wanted = (!arguments.metrics.is_empty()).then_some(arguments.metrics.as_slice());
    let more = ReportOptions {
        breakdown: arguments.per_class.is_some() || subject.categories.is_some(),
        bootstrap: arguments.bootstrap,
        seed: arguments.seed,
    };
    // First: what cannot be done is then said before the plain numbers took their time.
    let effects = post_processing::effects(subject, steps, wanted, options)?;
    let report = report(subject, options, wanted, &more)?;
    for line in report.left_out.iter().filter(|line| line.contains("memory")) {
        output::note(&format!("left out: {line}"));
    }
    let table_of_classes = arguments.per_class.as_ref().filter(|path| path.as_os_str() != "-");
    if let Some(path) = table_of_classes {
        text::write_groups(path, &report.classes)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    if arguments.json {
        let mut all = measure::measures(&report.evaluation);
        all.insert("seconds".into(), json!(seconds));
        all.insert("peak_mib".into(), json!(peak_mib()));
        if let Some(means) = &report.by_class {
            all.insert("macro".into(), serde_json::to_value(means)?);
        }
        if arguments.per_class.is_some() && table_of_classes.is_none() {
            all.insert("per_class".into(), serde_json::to_value(&report.classes)?);
        }
        if let Some(means) = &report.by_category {
            all.insert("macro_category".into(), serde_json::to_value(means)?);
            all.insert("per_category".into(), serde_json::to_value(&report.categories)?);
        }
        if !report.intervals.is_empty() {
            let intervals = report
                .intervals
                .iter()
                .map(|(name, interval)| (name.clone(), json!(interval)));
            all.insert("intervals".into(), Value::Object(intervals.collect()));
        }
        if !effects.is_empty() {
            all.insert("post_processing".into(), serde_json::to_value(&effects)?);
        }
        return output::json(&Value::Object(all));
    }
    output::text(&text::text(&report, &effects, arguments.explain, seconds))
}

/// The most memory this process has held, where the system tells (Linux).
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
