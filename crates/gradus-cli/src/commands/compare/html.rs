//! A study as one HTML page: tables and plots, nothing fetched from elsewhere, readable in light and dark.

use gradus::study::{DataSummary, MEASURES, UNTRAINED};

use super::{Finished, table};
use crate::page::intervals::{Row, plot};
use crate::page::{self, escape, figure};

/// The page.
pub(super) fn page(finished: &Finished) -> String {
    let mut body = String::from("<h1>gradus compare</h1>\n");
    let study = finished.study;
    let seeds: Vec<String> = study.seeds.iter().map(u64::to_string).collect();
    body.push_str(&format!(
        "<p>{} arms, {} data set{}, seeds {}; differences are to <code>{}</code>.</p>\n",
        study.trained().count(),
        study.data.len(),
        if study.data.len() == 1 { "" } else { "s" },
        seeds.join(", "),
        escape(&study.baseline)
    ));
    if let Some(tuned) = &finished.tuned {
        body.push_str(&format!(
            "<h2>Search</h2>\n<p>{}</p>\n",
            escape(&table::search_title(tuned))
        ));
        body.push_str(&page::table("Settings tried", &table::trials(tuned)));
    }
    for data in &finished.summary.data {
        body.push_str(&section(data, &study.baseline));
    }
    body.push_str(&format!("<p class=\"note\">{}</p>\n", escape(&table::legend(finished))));
    page::document("gradus compare", &body)
}

fn section(data: &DataSummary, baseline: &str) -> String {
    let mut text = String::new();
    if !data.name.is_empty() {
        text.push_str(&format!("<h2>{}</h2>\n", escape(&data.name)));
    }
    text.push_str(&page::table("Means over seeds", &table::means(data)));
    let differences = table::differences(data);
    if differences.len() > 1 {
        text.push_str(&format!("<h3>Differences to <code>{}</code></h3>\n", escape(baseline)));
        text.push_str(&page::table("Paired differences", &differences));
    }
    text.push_str("<div class=\"plots\">\n");
    for measure in MEASURES {
        let forest: Vec<Row> = data
            .differences
            .iter()
            .filter(|arm| arm.arm != UNTRAINED)
            .filter_map(|arm| {
                let paired = arm.get(measure)?;
                Some(Row {
                    label: &arm.arm,
                    centre: paired.difference,
                    interval: Some(paired.interval),
                    points: paired.per_seed.clone(),
                    strong: paired.is_settled(),
                })
            })
            .collect();
        if !forest.is_empty() {
            text.push_str(&figure(
                &format!("{measure}: difference to {baseline}"),
                "square and line: difference and 95 % interval over seeds and test classes, bold where it leaves out zero; points: seeds",
                &plot(&forest, true),
            ));
        }
        let strips: Vec<Row> = data
            .arms
            .iter()
            .filter_map(|arm| {
                let mean = arm.get(measure)?;
                let value = |run: &(u64, serde_json::Map<String, serde_json::Value>)| run.1.get(measure)?.as_f64();
                Some(Row {
                    label: &arm.name,
                    centre: mean.mean,
                    interval: mean.half_width.map(|half| [mean.mean - half, mean.mean + half]),
                    points: arm.runs.iter().filter_map(value).collect(),
                    strong: arm.name == baseline,
                })
            })
            .collect();
        if !strips.is_empty() {
            text.push_str(&figure(
                measure,
                "square and line: mean and 95 % interval over seeds, bold the baseline; points: seeds",
                &plot(&strips, false),
            ));
        }
    }
    text.push_str("</div>\n");
    text
}
