//! Means, paired differences and intervals of a study's runs.

use std::collections::BTreeSet;

use gradus_core::evaluation::PerQuery;
use gradus_core::random::derive;
use gradus_core::statistics::{ClassScores, MeanInterval, PairedDifference, mean_interval, paired_difference};
use serde_json::{Map, Value};

use super::{Outcome, Study};

/// Measures whose differences are tested: those that are means over queries.
pub const MEASURES: [&str; 6] = [
    "recall@1",
    "map@r",
    "order_preservation",
    "reference_spearman",
    "order_preservation_near",
    "recall_far",
];
/// Resamples behind every interval of a difference.
pub const RESAMPLES: usize = 10_000;
/// Seed of the resamples.
const SEED: u64 = 0;

/// What a study comes to.
#[derive(Debug, Clone)]
pub struct Summary {
    /// One entry per data set.
    pub data: Vec<DataSummary>,
}

/// What a study comes to on one data set.
#[derive(Debug, Clone)]
pub struct DataSummary {
    /// Name of the data set; empty where there is one without a name.
    pub name: String,
    /// One entry per arm.
    pub arms: Vec<ArmSummary>,
    /// Of each arm to the baseline.
    pub differences: Vec<ArmDifference>,
}

/// The runs of an arm.
#[derive(Debug, Clone)]
pub struct ArmSummary {
    /// Name of the arm.
    pub name: String,
    /// Every number that all of its runs have, with its interval over seeds.
    pub measures: Vec<(String, MeanInterval)>,
    /// The measures of each seed.
    pub runs: Vec<(u64, Map<String, Value>)>,
}

/// An arm beside the baseline.
#[derive(Debug, Clone)]
pub struct ArmDifference {
    /// Name of the arm.
    pub arm: String,
    /// One entry for each of [`MEASURES`] that was measured.
    pub measures: Vec<(&'static str, PairedDifference)>,
}

impl ArmSummary {
    /// The mean of a measure.
    #[must_use]
    pub fn get(&self, measure: &str) -> Option<&MeanInterval> {
        self.measures
            .iter()
            .find(|(name, _)| name == measure)
            .map(|(_, value)| value)
    }
}

impl ArmDifference {
    /// The difference in a measure.
    #[must_use]
    pub fn get(&self, measure: &str) -> Option<&PairedDifference> {
        self.measures
            .iter()
            .find(|(name, _)| *name == measure)
            .map(|(_, value)| value)
    }
}

/// Puts the runs of a study together. Differences are paired by seed: of seeds that both arms have finished.
#[must_use]
pub fn summarise(study: &Study, outcomes: &[Outcome]) -> Summary {
    let data = study.data.iter().map(|name| of_data(study, outcomes, name));
    Summary { data: data.collect() }
}

fn of_data(study: &Study, outcomes: &[Outcome], name: &str) -> DataSummary {
    let of_seeds = seed_by_seed(study, outcomes, name);
    let of_arm = |arm: &str| -> Vec<&Outcome> { of_seeds.iter().filter(|outcome| outcome.run.arm == arm).collect() };
    let arms = study.arms.iter().map(|arm| arm_summary(arm, &of_arm(arm))).collect();
    let baseline = of_arm(&study.baseline);
    let differences = study
        .arms
        .iter()
        .filter(|arm| **arm != study.baseline)
        .map(|arm| {
            let runs = of_arm(arm);
            let pairs: Vec<(&Outcome, &Outcome)> = runs
                .iter()
                .filter_map(|run| {
                    let partner = baseline.iter().find(|other| other.run.seed == run.run.seed)?;
                    Some((*run, *partner))
                })
                .collect();
            let measures = MEASURES.iter().enumerate().filter_map(|(number, measure)| {
                let difference = difference(&pairs, measure, derive(SEED, &[number as u64]))?;
                Some((*measure, difference))
            });
            ArmDifference {
                arm: arm.clone(),
                measures: measures.collect(),
            }
        })
        .collect();
    DataSummary {
        name: name.to_owned(),
        arms,
        differences,
    }
}

/// One outcome for each arm and seed on a data set: of folds, their mean.
fn seed_by_seed(study: &Study, outcomes: &[Outcome], data: &str) -> Vec<Outcome> {
    let mut all = Vec::new();
    for arm in &study.arms {
        for &seed in &study.seeds {
            let of =
                |outcome: &&Outcome| (&outcome.run.data[..], &outcome.run.arm, outcome.run.seed) == (data, arm, seed);
            let folds: Vec<&Outcome> = outcomes.iter().filter(of).collect();
            match folds[..] {
                [] => {}
                [only] => all.push(only.clone()),
                _ => all.push(mean_of_folds(&folds)),
            }
        }
    }
    all
}

/// The mean over folds of every number; all folds measure the same queries. Seconds add up.
fn mean_of_folds(folds: &[&Outcome]) -> Outcome {
    let mut mean = folds[0].clone();
    mean.run.fold = None;
    let count = folds.len() as f64;
    for (name, value) in &mut mean.measures {
        let values: Option<Vec<f64>> = folds.iter().map(|fold| fold.measures.get(name)?.as_f64()).collect();
        let sum = values.map(|values| values.iter().sum::<f64>());
        *value = match sum {
            Some(sum) if name == "seconds" => sum.into(),
            Some(sum) => (sum / count).into(),
            None => Value::Null,
        };
    }
    for (number, column) in mean.record.queries.columns.iter_mut().enumerate() {
        for (query, value) in column.values.iter_mut().enumerate() {
            let of = |fold: &&Outcome| *fold.record.queries.columns.get(number)?.values.get(query)?;
            let values: Option<Vec<f64>> = folds.iter().map(of).collect();
            *value = values.map(|values| values.iter().sum::<f64>() / count);
        }
    }
    mean
}

fn arm_summary(arm: &str, runs: &[&Outcome]) -> ArmSummary {
    let names = runs.first().map(|run| run.measures.keys()).into_iter().flatten();
    let measures = names.filter_map(|name| {
        let values: Vec<f64> = runs
            .iter()
            .map(|run| run.measures.get(name).and_then(Value::as_f64))
            .collect::<Option<_>>()?;
        Some((name.clone(), mean_interval(&values)?))
    });
    ArmSummary {
        name: arm.to_owned(),
        measures: measures.collect(),
        runs: runs.iter().map(|run| (run.run.seed, run.measures.clone())).collect(),
    }
}

/// The columns of a measure: itself, or one per known factor.
fn columns<'a>(queries: &'a PerQuery, measure: &str) -> Vec<&'a [Option<f64>]> {
    let part = format!("{measure}.");
    let of = queries.columns.iter();
    of.filter(|column| column.name == measure || column.name.starts_with(&part))
        .map(|column| column.values.as_slice())
        .collect()
}

fn difference(pairs: &[(&Outcome, &Outcome)], measure: &str, seed: u64) -> Option<PairedDifference> {
    let all: Vec<[&PerQuery; 2]> = pairs
        .iter()
        .map(|(arm, baseline)| [&arm.record.queries, &baseline.record.queries])
        .collect();
    let labels: BTreeSet<u32> = all
        .iter()
        .flatten()
        .flat_map(|queries| queries.classes.iter().copied())
        .collect();
    let labels: Vec<u32> = labels.into_iter().collect();
    let scores = |queries: &PerQuery| -> Option<ClassScores> {
        let columns = columns(queries, measure);
        if columns.is_empty() {
            return None;
        }
        let classes: Vec<usize> = queries
            .classes
            .iter()
            .map(|class| labels.binary_search(class).ok())
            .collect::<Option<_>>()?;
        Some(ClassScores::new(&classes, labels.len(), &columns))
    };
    let side = |side: usize| all.iter().map(|pair| scores(pair[side])).collect::<Option<Vec<_>>>();
    paired_difference(&side(0)?, &side(1)?, RESAMPLES, seed)
}
