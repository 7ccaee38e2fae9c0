//! `gradus calibrate`

use gradus_core::embeddings::{read_labels, read_rows, read_table};
use gradus_core::files::write_atomically;
use gradus_index::{HeldOut, Index, Rule, calibrate};
use serde_json::{Value, json};

use super::index::open;
use super::trained::{embed_test, model_of};
use crate::arguments::Calibrate;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Calibrate) -> Outcome {
    if arguments.run.is_none() && !arguments.data.data.is_empty() {
        return Err(Failure::new(
            "--data needs --run: it is the run's model that embeds the images",
        ));
    }
    let index = open(&arguments.index)?;
    let report = arguments.index.join("calibration.json");
    if arguments.remove {
        index.set_calibration(None)?;
        if report.exists() {
            std::fs::remove_file(&report)?;
        }
        return if arguments.json {
            output::json(&json!({"index": arguments.index, "calibration": null}))
        } else {
            output::text("the thresholds were removed: every nearest item is a match again")
        };
    }
    let rule = match arguments.false_match_rate {
        Some(rate) => Rule::FalseMatchRate(rate),
        None => Rule::BestF1,
    };
    let held_out = held_out(&index, arguments)?;
    let trials = index.trials(held_out.as_ref(), arguments.queries)?;
    let found = calibrate(&trials, rule, arguments.per_class)?;
    if let Rule::FalseMatchRate(rate) = rule
        && rate * (found.impostors as f64) < 1.0
    {
        output::note(&format!(
            "{} queries cannot show a false-match rate of {rate}: the threshold lies just above the highest score of another class",
            found.impostors
        ));
    }
    index.set_calibration(Some(found.thresholds.clone()))?;
    let text = serde_json::to_string(&found)?;
    write_atomically(&report, |file| file.write_all(text.as_bytes()))?;
    if arguments.json {
        let mut text: Value = serde_json::from_str(&text)?;
        if let Some(object) = text.as_object_mut() {
            object.insert("index".into(), json!(arguments.index));
            object.insert("queries".into(), json!(trials.len()));
        }
        return output::json(&text);
    }
    output::text(&format!(
        "threshold {:.4} ({}), {} classes with their own; on {} queries: {:.2} % false matches, {:.2} % false non-matches, F1 {:.4}, AUC {:.4}, \
         equal error rate {:.2} %",
        found.thresholds.global,
        found.thresholds.rule,
        found.thresholds.classes.len(),
        trials.len(),
        100.0 * found.false_match_rate,
        100.0 * found.false_non_match_rate,
        found.f1,
        found.auc,
        100.0 * found.eer
    ))
}

/// The queries; none: the index's own items.
fn held_out(index: &Index, arguments: &Calibrate) -> Result<Option<HeldOut>, Failure> {
    if let Some(run) = &arguments.run {
        let tested = embed_test(run, &arguments.data, arguments.device.as_deref(), false)?;
        index.check_model(&model_of(run, &tested.config)?)?;
        let classes = &tested.data.dataset.classes;
        let mut held = HeldOut::default();
        for set in std::iter::once(&tested.embedded.queries).chain(&tested.embedded.gallery) {
            let name = |label: &u32| {
                classes
                    .get(*label as usize)
                    .map_or_else(|| label.to_string(), |class| class.name.clone())
            };
            held.classes.extend(set.labels.iter().map(name));
            held.vectors.extend_from_slice(&set.values);
        }
        return Ok(Some(held));
    }
    let Some(path) = &arguments.embeddings else {
        return Ok(None);
    };
    let (vectors, labels) = match &arguments.labels {
        Some(labels) => (read_rows(path)?.values, Some(read_labels(labels)?)),
        None => {
            let table = read_table(path, None)?;
            let labels = table
                .labels
                .as_ref()
                .and_then(|labels| Some(labels.classes()?.to_vec()));
            (table.values, labels)
        }
    };
    let labels = labels.ok_or_else(|| {
        Failure::new(format!(
            "{} says nothing of classes: give them with --labels",
            path.display()
        ))
    })?;
    Ok(Some(HeldOut {
        classes: labels.iter().map(u32::to_string).collect(),
        vectors,
    }))
}
