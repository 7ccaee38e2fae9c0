//! A study as one JSON object.

use gradus::study::{ArmDifference, ArmSummary, DataSummary, MEASURES, UNTRAINED};
use serde_json::{Map, Value, json};

use super::{Finished, Tuned};

/// `{"data": {NAME: {"arms", "differences", "untrained"}}, "baseline", "seeds", "seconds", "runs"}`; of a data set without a name
/// (one that flags name) the inner keys stand at the top.
pub(super) fn of(finished: &Finished) -> Value {
    let mut all = Map::new();
    match &finished.summary.data[..] {
        [only] if only.name.is_empty() => all.extend(of_data(only)),
        several => {
            let sets = several
                .iter()
                .map(|data| (data.name.clone(), Value::Object(of_data(data))));
            all.insert("data".to_owned(), Value::Object(sets.collect()));
        }
    }
    if let Some(tuned) = &finished.tuned {
        all.insert("tuned".to_owned(), of_search(tuned));
    }
    all.insert("baseline".to_owned(), json!(finished.study.baseline));
    all.insert("seeds".to_owned(), json!(finished.study.seeds));
    all.insert("seconds".to_owned(), json!(finished.seconds));
    all.insert("runs".to_owned(), json!(finished.folder.display().to_string()));
    Value::Object(all)
}

/// The settings that each arm was trained with, and every trial.
fn of_search(tuned: &Tuned) -> Value {
    let arms = tuned.arms.iter().map(|(arm, trials)| {
        let chosen = trials.iter().find(|trial| trial.chosen);
        let entry = json!({
            "settings": chosen.map(|trial| &trial.settings),
            "score": chosen.and_then(|trial| trial.score),
            "trials": trials,
        });
        (arm.clone(), entry)
    });
    json!({ "measure": tuned.measure, "arms": Value::Object(arms.collect()) })
}

fn of_data(data: &DataSummary) -> Map<String, Value> {
    let mut arms: Map<String, Value> = data.arms.iter().map(|arm| (arm.name.clone(), of_arm(arm))).collect();
    let untrained = arms.shift_remove(UNTRAINED).unwrap_or_default();
    let differences = data
        .differences
        .iter()
        .map(|difference| (difference.arm.clone(), of_difference(difference)));
    Map::from_iter([
        ("arms".to_owned(), Value::Object(arms)),
        ("untrained".to_owned(), untrained),
        ("differences".to_owned(), Value::Object(differences.collect())),
    ])
}

fn of_arm(arm: &ArmSummary) -> Value {
    let mut entry = Map::new();
    for measure in MEASURES.iter().chain(&["seconds"]) {
        let mean = arm.get(measure).map(|interval| interval.mean);
        if mean.is_some() || *measure != "reference_spearman" {
            entry.insert((*measure).to_owned(), json!(mean));
        }
    }
    let intervals = arm
        .measures
        .iter()
        .map(|(name, interval)| (name.clone(), json!(interval)));
    entry.insert("intervals".to_owned(), Value::Object(intervals.collect()));
    let runs = arm.runs.iter().map(|(seed, measures)| {
        let mut run = measures.clone();
        run.insert("seed".to_owned(), json!(seed));
        Value::Object(run)
    });
    entry.insert("runs".to_owned(), Value::Array(runs.collect()));
    Value::Object(entry)
}

fn of_difference(difference: &ArmDifference) -> Value {
    let measures = difference.measures.iter().map(|(name, paired)| {
        let mut entry = json!(paired);
        entry["settled"] = json!(paired.is_settled());
        entry["needs_classes"] = json!(paired.needs_classes());
        ((*name).to_owned(), entry)
    });
    Value::Object(measures.collect())
}
