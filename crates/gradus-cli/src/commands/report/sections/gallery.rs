//! What searches find: the queries that go worst, and a sample.

use gradus_core::data::{Source, thumbnail};

use super::super::analysis::sample;
use super::{Analysis, ReportedRun};
use crate::page::{escape, picture};

/// Queries of each kind.
const QUERIES: usize = 6;
/// Longer side of a picture in pixels.
const SIDE: u32 = 96;

pub(super) fn section(runs: &[ReportedRun], analyses: &[Analysis], seed: u64) -> String {
    // Runs on other images have galleries of their own.
    let together = runs
        .iter()
        .all(|run| run.embedded.queries.ids == runs[0].embedded.queries.ids);
    let mut text = String::from(
        "<p class=\"note\">Left: the image searched with. Right: the nearest images of the others, the nearest first, with their cosine \
         similarity. <b>Solid frame and \u{2713}</b>: the same class; <b>dashed frame and \u{2717}</b>: another one.</p>\n",
    );
    if together {
        text.push_str(&galleries(runs, analyses, seed));
    } else {
        for (run, analysis) in runs.iter().zip(analyses) {
            text.push_str(&format!("<h3>{}</h3>\n", escape(&run.name)));
            text.push_str(&galleries(
                std::slice::from_ref(run),
                std::slice::from_ref(analysis),
                seed,
            ));
        }
    }
    text
}

fn galleries(runs: &[ReportedRun], analyses: &[Analysis], seed: u64) -> String {
    let mean = |query: usize| {
        analyses
            .iter()
            .map(|analysis| analysis.precision_of(query))
            .sum::<f64>()
            / analyses.len() as f64
    };
    let mut worst: Vec<(f64, usize)> = (0..runs[0].queries()).map(|query| (mean(query), query)).collect();
    worst.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let worst: Vec<usize> = worst.into_iter().take(QUERIES).map(|(_, query)| query).collect();
    let drawn = sample(runs[0].queries(), QUERIES, seed);
    let mut text = String::new();
    for (title, queries) in [("The worst", worst), ("A sample", drawn)] {
        text.push_str(&format!("<h4>{title}</h4>\n"));
        for query in queries {
            text.push_str(&row(runs, analyses, query));
        }
    }
    text
}

fn row(runs: &[ReportedRun], analyses: &[Analysis], query: usize) -> String {
    let first = &runs[0];
    let class = first.class(query);
    let name = first.class_name(class);
    let factors = first.factors_of(query);
    let mut text = format!(
        "<div class=\"query\">\n<figure>{}<figcaption><b>{}</b>{}{}</figcaption></figure>\n<div class=\"answers\">\n",
        image(&first.sources[query], &format!("query of class {name}")),
        escape(name),
        if factors.is_empty() { "" } else { "\n" },
        escape(&factors.replace(", ", "\n"))
    );
    for (run, analysis) in runs.iter().zip(analyses) {
        text.push_str(&format!(
            "<h5>{} (average precision {:.2})</h5>\n<ul class=\"strip\">\n",
            escape(&run.name),
            analysis.precision_of(query)
        ));
        let similarities = &analysis.neighbors.similarities[query * analysis.neighbors.count..];
        for (&item, similarity) in analysis.neighbors.of(query).iter().zip(similarities) {
            let found = run.found_class(item as usize);
            let (kind, mark) = if found == class {
                ("hit", '\u{2713}')
            } else {
                ("miss", '\u{2717}')
            };
            let name = run.class_name(found);
            text.push_str(&format!(
                "<li><figure class=\"{kind}\">{}<figcaption><b>{mark}</b> {similarity:.2} {}</figcaption></figure></li>\n",
                image(run.found_source(item as usize), &format!("{kind}: {name}")),
                escape(name)
            ));
        }
        text.push_str("</ul>\n");
    }
    text.push_str("</div>\n</div>\n");
    text
}

/// A picture, or what is wrong with it.
fn image(source: &Source, alternative: &str) -> String {
    match thumbnail(source, SIDE) {
        Ok(bytes) => picture(&bytes, alternative),
        Err(problem) => format!("<p class=\"note\">{}</p>", escape(&problem.to_string())),
    }
}
