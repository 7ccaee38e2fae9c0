//! `gradus evaluate`

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use gradus::train::trainer;
use gradus_core::EmbeddingSet;
use gradus_core::embeddings::{NpyRows, read_labels, read_relations, read_table};
use gradus_core::evaluation::{
    EvaluationOptions, FactorTable, Group, LoneQueries, Report, ReportOptions, Rows, SearchDistance, Subject,
    cluster_scores, forecast, report,
};
use gradus_core::files::write_atomically;
use gradus_core::relations::Labels;
use serde_json::{Value, json};

use super::train::number;
use super::trained::{self, TestedRun};
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
    let TestedRun { config, data, embedded } =
        trained::embed_test(folder, &arguments.data, arguments.device.as_deref())?;
    let mut options = trainer::evaluation_options(&data.dataset, &config);
    with_arguments(&mut options, arguments);
    let mut subject = Subject::of_sets(&embedded.queries, embedded.gallery.as_ref());
    subject.factors = embedded.factors.as_ref();
    measure(arguments, &subject, &options, begin)
}

/// Scores clusters that are given.
fn of_clusters(arguments: &Evaluate, labels: &Path, clusters: &Path) -> Outcome {
    let scores = cluster_scores(&read_labels(labels)?, &read_labels(clusters)?)?;
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
    let queries = Input::open(embeddings, arguments.labels.as_deref(), options.memory)?;
    let gallery = arguments
        .gallery_embeddings
        .as_ref()
        .map(|path| Input::open(path, arguments.gallery_labels.as_deref(), options.memory))
        .transpose()?;
    let circular = arguments
        .circular
        .iter()
        .map(|text| circular(text))
        .collect::<Result<Vec<_>, _>>()?;
    let factors = arguments
        .factors
        .as_ref()
        .map(|path| FactorTable::read(path, &circular))
        .transpose()?;
    let cameras = match (&arguments.cameras, &arguments.gallery_cameras, &gallery) {
        (None, ..) => None,
        (Some(_), None, Some(_)) => {
            return Err(Failure::new(
                "--cameras with a gallery needs --gallery-cameras as well: a match is left out where both agree",
            ));
        }
        (Some(cameras), other, _) => {
            let queries = read_labels(cameras)?;
            let gallery = other
                .as_ref()
                .map_or_else(|| Ok(queries.clone()), |path| read_labels(path))?;
            Some([queries, gallery])
        }
    };
    let reference = arguments
        .reference_embeddings
        .as_ref()
        .map(|path| read_table(path))
        .transpose()?;
    let reference = reference.map(|table| {
        let len = table.values.len() / table.dim.max(1);
        EmbeddingSet {
            dim: table.dim,
            values: table.values,
            labels: vec![0; len],
            ids: table
                .ids
                .unwrap_or_else(|| (0..len).map(|row| format!("row {row}")).collect()),
        }
    });
    let subject = Subject {
        queries: queries.rows(),
        query_labels: queries.labels.clone(),
        gallery: gallery.as_ref().map(|gallery| (gallery.rows(), gallery.labels.clone())),
        cameras,
        categories: arguments
            .categories
            .as_ref()
            .map(|path| read_labels(path))
            .transpose()?,
        factors: factors.as_ref(),
        reference: reference.as_ref(),
    };
    measure(arguments, &subject, &options, begin)
}

/// Rows from a file: in memory, or left where they are.
struct Input {
    source: Source,
    labels: Labels,
}

enum Source {
    Memory(EmbeddingSet),
    File(NpyRows),
}

impl Input {
    fn open(path: &Path, labels: Option<&Path>, memory: usize) -> Result<Self, Failure> {
        let labels = labels.map(read_relations).transpose()?;
        let is_npy = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
        if let (true, Some(labels)) = (is_npy, &labels) {
            let rows = NpyRows::open(path)?;
            // Once as given and once at unit length.
            let needed = rows
                .len()
                .saturating_mul(rows.dim())
                .saturating_mul(2 * size_of::<f32>());
            if needed > memory / 4 * 3 {
                check_labels(path, rows.len(), labels)?;
                return Ok(Self {
                    labels: labels.clone(),
                    source: Source::File(rows),
                });
            }
        }
        let table = read_table(path)?;
        let labels = labels.or(table.labels).ok_or_else(|| {
            Failure::new(format!(
                "{} says nothing of labels: give them with --labels (--gallery-labels for the gallery)",
                path.display()
            ))
        })?;
        let len = table.values.len() / table.dim.max(1);
        check_labels(path, len, &labels)?;
        let set = EmbeddingSet {
            dim: table.dim,
            values: table.values,
            labels: labels
                .classes()
                .map_or_else(|| vec![0; len], |classes| classes.to_vec()),
            ids: table
                .ids
                .unwrap_or_else(|| (0..len).map(|row| format!("row {row} of {}", path.display())).collect()),
        };
        Ok(Self {
            source: Source::Memory(set),
            labels,
        })
    }

    fn rows(&self) -> &dyn Rows {
        match &self.source {
            Source::Memory(set) => set,
            Source::File(rows) => rows,
        }
    }
}

fn check_labels(path: &Path, rows: usize, labels: &Labels) -> Result<(), Failure> {
    if labels.len() == rows {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} holds {rows} embeddings, but there are {} labels: one label for each embedding is needed, in the same order",
        path.display(),
        labels.len()
    )))
}

fn circular(text: &str) -> Result<(String, f32), Failure> {
    text.rsplit_once(':')
        .and_then(|(name, period)| Some((name.to_owned(), period.parse().ok()?)))
        .ok_or_else(|| {
            Failure::new(format!(
                "--circular {text}: expected a factor and its period, such as angle:360"
            ))
        })
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

fn measure(arguments: &Evaluate, subject: &Subject<'_>, options: &EvaluationOptions, begin: Instant) -> Outcome {
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
    let report = report(subject, options, wanted, &more)?;
    for line in report.left_out.iter().filter(|line| line.contains("memory")) {
        output::note(&format!("left out: {line}"));
    }
    let table_of_classes = arguments.per_class.as_ref().filter(|path| path.as_os_str() != "-");
    if let Some(path) = table_of_classes {
        write_groups(path, &report.classes)?;
    }
    let seconds = begin.elapsed().as_secs_f64();
    if arguments.json {
        let mut all = trainer::measures(&report.evaluation);
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
        return output::json(&Value::Object(all));
    }
    output::text(&text(&report, arguments.explain, seconds))
}

fn text(report: &Report, explain: bool, seconds: f64) -> String {
    let mut heading = vec!["measure".to_owned(), "value".to_owned()];
    let groups = [
        (&report.by_class, "over classes"),
        (&report.by_category, "over categories"),
    ];
    heading.extend(
        groups
            .iter()
            .filter(|group| group.0.is_some())
            .map(|group| group.1.to_owned()),
    );
    if !report.intervals.is_empty() {
        heading.push("95 % interval".to_owned());
    }
    let mut rows = vec![heading];
    for (name, value) in trainer::measures(&report.evaluation) {
        let mut row = vec![name.clone(), number(&value)];
        for (means, _) in groups {
            if let Some(means) = means {
                row.push(means.get(&name).map_or_else(String::new, |mean| format!("{mean:.4}")));
            }
        }
        if !report.intervals.is_empty() {
            let interval = report.intervals.iter().find(|interval| interval.0 == name);
            row.push(interval.map_or_else(String::new, |(_, [low, high])| format!("{low:.4} to {high:.4}")));
        }
        rows.push(row);
    }
    let mut text = output::table(&rows);
    if explain {
        text.push_str("\n\n");
        text.push_str(&report.evaluation.explanations());
    }
    if !report.categories.is_empty() {
        let names: Vec<String> = report
            .by_category
            .iter()
            .flat_map(|means| means.entries().map(|entry| entry.0.to_owned()))
            .collect();
        let mut rows = vec![[&["category".to_owned(), "queries".to_owned()][..], &names].concat()];
        for (category, group) in &report.categories {
            let mut row = vec![category.to_string(), group.queries.to_string()];
            row.extend(names.iter().map(|name| {
                group
                    .means
                    .get(name)
                    .map_or_else(String::new, |mean| format!("{mean:.4}"))
            }));
            rows.push(row);
        }
        text.push_str("\n\n");
        text.push_str(&output::table(&rows));
    }
    text.push_str(&format!("\n\n{seconds:.1} s"));
    if let Some(peak) = peak_mib() {
        text.push_str(&format!(", {peak:.0} MiB at most"));
    }
    text
}

fn write_groups(path: &Path, groups: &BTreeMap<u32, Group>) -> Result<(), Failure> {
    let names: Vec<&str> = groups
        .values()
        .next()
        .into_iter()
        .flat_map(|group| group.means.entries().map(|entry| entry.0))
        .collect();
    let mut lines =
        vec![["class,queries,lone_queries", &names.join(",")].join(if names.is_empty() { "" } else { "," })];
    for (class, group) in groups {
        let mut line = format!("{class},{},{}", group.queries, group.lone_queries);
        for name in &names {
            line.push(',');
            line.push_str(&group.means.get(name).map(|mean| mean.to_string()).unwrap_or_default());
        }
        lines.push(line);
    }
    write_atomically(path, |file| writeln!(file, "{}", lines.join("\n")))
        .map_err(|error: std::io::Error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// The most memory this process has held, where the system tells (Linux).
fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
