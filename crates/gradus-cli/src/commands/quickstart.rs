//! `gradus quickstart`: two presets on the embedded data, side by side with the untrained network.

use std::path::Path;
use std::time::Instant;

use gradus::config::{Config, Overlay};
use gradus::train::{PreparedData, RunFolder, RunReport};
use serde_json::{Map, Value, json};

use super::layers;
use super::report::{self, ReportedRun};
use super::train::{stop_on_interrupt, train};
use crate::arguments::Quickstart;
use crate::failure::{Failure, Outcome};
use crate::output;
use crate::progress::Progress;

/// The presets that are compared.
const PRESETS: [&str; 2] = ["proxy-anchor", "gradus"];
/// What is shown of each.
const MEASURES: [&str; 3] = ["recall@1", "map@r", "order_preservation"];

pub(crate) fn run(arguments: &Quickstart) -> Outcome {
    let started = Instant::now();
    let interrupted = stop_on_interrupt();
    let out = arguments.out.clone().unwrap_or_else(|| RunFolder::unused("quickstart"));
    let configure = |preset: &str, epochs: Option<usize>| -> Result<Config, Failure> {
        let mut layers = Overlay::preset(preset)?;
        layers.put(settings()?);
        layers.insert("seed", i64::try_from(arguments.seed).unwrap_or(i64::MAX));
        layers.insert("data.flora.seed", i64::try_from(arguments.seed).unwrap_or(i64::MAX));
        layers.insert("device", arguments.device.as_str());
        if let Some(epochs) = epochs {
            layers.insert("train.epochs", i64::try_from(epochs).unwrap_or(i64::MAX));
        }
        layers::resolve(layers)
    };
    let measured = |name: &str, config: &Config, data: &PreparedData| -> Result<RunReport, Failure> {
        train(
            config,
            data,
            &out.join(name),
            false,
            &mut Progress::new(name),
            &interrupted,
        )
    };
    // The network as it is drawn: no training, no head from the data.
    let mut untrained = configure(PRESETS[0], Some(0))?;
    untrained.model.initial = gradus::models::HeadStart::Random;
    let data = PreparedData::new(&untrained, &mut Progress::new("quickstart"))?;
    let mut results = vec![("untrained", measured("untrained", &untrained, &data)?)];
    for preset in PRESETS {
        results.push((preset, measured(preset, &configure(preset, arguments.epochs)?, &data)?));
    }
    let page = out.join("report.html");
    let runs = results[1..]
        .iter()
        .map(|(name, report)| {
            let (folder, config) = (out.join(name), configure(name, arguments.epochs)?);
            ReportedRun::new((*name).to_owned(), &folder, &config, &data, report.embedded.clone())
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    report::write(&runs, &page, arguments.seed)?;
    print(arguments, &results, &page, &data, started.elapsed().as_secs_f64())
}

/// What the quick start puts over every preset.
pub(crate) fn settings() -> Result<toml::Table, Failure> {
    Ok(toml::from_str(include_str!("quickstart.toml"))?)
}

fn print(
    arguments: &Quickstart,
    results: &[(&str, RunReport)],
    page: &Path,
    data: &PreparedData,
    seconds: f64,
) -> Outcome {
    let chosen = |report: &RunReport| {
        let all = report.to_json();
        MEASURES
            .iter()
            .map(|&name| (name.to_owned(), all.get(name).cloned().unwrap_or(Value::Null)))
            .collect::<Map<_, _>>()
    };
    let out = page.parent().unwrap_or(Path::new("."));
    let seconds = (seconds * 10.0).round() / 10.0;
    if arguments.json {
        let presets: Map<String, Value> = results[1..]
            .iter()
            .map(|(name, report)| ((*name).to_owned(), Value::Object(chosen(report))))
            .collect();
        return output::json(&json!({
            "presets": presets,
            "untrained": chosen(&results[0].1),
            "seconds": seconds,
            "runs": out.display().to_string(),
            "report": page.display().to_string(),
        }));
    }
    let mut rows = vec![
        std::iter::once("unseen species")
            .chain(MEASURES)
            .map(str::to_owned)
            .collect::<Vec<_>>(),
    ];
    for (name, report) in results {
        let values = chosen(report).values().map(super::train::number).collect::<Vec<_>>();
        rows.push(std::iter::once((*name).to_owned()).chain(values).collect());
    }
    output::text(&format!(
        "{}\n\n{}\nrecall@1: share of images whose nearest neighbour is the same species; order_preservation: rank correlation, \
         inside each species, of\nembedding distance with the true difference in rotation, tilt, light and growth.\n\
         {seconds} seconds; run folders: {}\nreport: {}",
        output::table(&rows),
        data.description,
        out.display(),
        page.display()
    ))
}
