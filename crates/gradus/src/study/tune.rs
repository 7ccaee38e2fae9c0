//! A search for settings on validation classes, with the same budget for every arm.

use std::collections::BTreeMap;

use gradus_core::evaluation::can_be_maximised;
use gradus_core::random::{Rng, purpose, stream};
use serde::{Deserialize, Serialize};
use toml::Value;

use super::plan::{Parts, StudySource, chain, resolve};
use super::{Outcome, Settings, Study, StudyError};

/// Section `[tune]`: how settings are searched for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TuneConfig {
    /// What is maximised on the validation classes; default `map@r`.
    pub measure: String,
    /// Share of the training classes that validate, where the configuration holds none out; default 0.25.
    pub validation: f64,
    /// Seeds of every trial, whose scores are averaged; default none: the first of the study.
    pub seeds: Vec<u64>,
    /// What is searched for every arm, by key.
    pub range: BTreeMap<String, Range>,
}

impl Default for TuneConfig {
    fn default() -> Self {
        Self {
            measure: "map@r".to_owned(),
            validation: 0.25,
            seeds: Vec::new(),
            range: BTreeMap::new(),
        }
    }
}

impl TuneConfig {
    /// Checks what types cannot say.
    pub(super) fn check(&self) -> Result<(), String> {
        if !can_be_maximised(&self.measure) {
            return Err(format!(
                "[tune]: measure = \"{}\": expected a measure of which more is better and that training takes: recall@K, map@r, \
                 r_precision, or order_preservation where factors are known",
                self.measure
            ));
        }
        if !(self.validation > 0.0 && self.validation < 1.0) {
            return Err(format!(
                "[tune]: validation = {}: expected a share above 0 and below 1",
                self.validation
            ));
        }
        self.range.iter().try_for_each(|(key, range)| range.check(key))
    }
}

/// Values that are tried.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Range {
    /// One of these.
    Among(Vec<Value>),
    /// A number between two, evenly or in its logarithm.
    Between(Between),
}

/// A number between two.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Between {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
    /// Whether the logarithm is spread evenly; default no.
    #[serde(default)]
    pub log: bool,
}

impl Range {
    fn check(&self, key: &str) -> Result<(), String> {
        let wrong = match self {
            Self::Among(values) => values.is_empty().then(|| "expected at least one value".to_owned()),
            Self::Between(Between { low, high, log }) => {
                let fine = low.is_finite() && high.is_finite() && low < high && (!log || *low > 0.0);
                (!fine).then(|| {
                    format!("low = {low}, high = {high}, log = {log}: expected low below high, both above 0 where log = true")
                })
            }
        };
        wrong.map_or(Ok(()), |problem| Err(format!("range of {key}: {problem}")))
    }

    fn draw(&self, random: &mut impl Rng) -> Value {
        match self {
            Self::Among(values) => values[random.random_range(0..values.len())].clone(),
            Self::Between(Between { low, high, log }) => {
                let share = random.random::<f64>();
                let value = if *log {
                    (low.ln() + share * (high.ln() - low.ln())).exp()
                } else {
                    low + share * (high - low)
                };
                // Four digits say as much as a search can tell.
                let digits = 10.0_f64.powf(3.0 - value.abs().max(f64::MIN_POSITIVE).log10().floor());
                Value::Float((value * digits).round() / digits)
            }
        }
    }
}

/// The trials of a search, as a study on validation classes.
#[derive(Debug, Clone)]
pub struct Search {
    /// Every trial of every arm; its arms are called `ARM-trial-N`.
    pub study: Study,
    measure: String,
    trials: Vec<Planned>,
}

#[derive(Debug, Clone)]
struct Planned {
    arm: String,
    number: usize,
    settings: Settings,
}

/// A trial and what it scored.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// Number from 0; 0 has the arm's own settings.
    pub number: usize,
    /// What was tried.
    pub settings: Settings,
    /// The measure on the validation classes of each data set; `None` where training diverged.
    pub scores: BTreeMap<String, Option<f64>>,
    /// Mean over data sets.
    pub score: Option<f64>,
    /// Whether it is the one that was chosen.
    pub chosen: bool,
}

impl Search {
    /// `count` trials for every arm: its own settings, then random ones (Bergstra and Bengio 2012). What is searched for several
    /// arms is tried with the same values in the same trial. Trials are trained with `data.validation` of the training classes
    /// held out and measured on these; the test classes are not looked at.
    ///
    /// # Errors
    /// If nothing is searched, or a configuration is not accepted.
    pub fn of_file(source: &StudySource<'_>, count: usize) -> Result<Self, StudyError> {
        source.check()?;
        let (file, tune) = (source.file, &source.file.tune);
        if count < 2 {
            return Err(StudyError::Plan(format!(
                "--tune {count}: expected at least 2 trials: the first has the arm's own settings"
            )));
        }
        let seeds = if tune.seeds.is_empty() {
            file.seeds.iter().take(1).copied().collect()
        } else {
            tune.seeds.clone()
        };
        let mut trials = Vec::new();
        for (arm, _) in &file.arms {
            let refused = |problem: String| StudyError::Refused {
                what: format!("arm `{arm}`"),
                problem,
            };
            let mut ranges = tune.range.clone();
            for entry in chain(file, arm).map_err(refused)?.into_iter().rev() {
                ranges.extend(entry.range.clone());
            }
            for (key, range) in &ranges {
                range.check(key).map_err(refused)?;
            }
            // An arm without a range has one trial: more would be the same.
            let count = if ranges.is_empty() { 1 } else { count };
            for number in 0..count {
                let settings = if number == 0 {
                    Settings::new()
                } else {
                    draw(&ranges, number)
                };
                trials.push(Planned {
                    arm: arm.clone(),
                    number,
                    settings,
                });
            }
        }
        if trials.iter().all(|trial| trial.settings.is_empty()) {
            return Err(StudyError::Plan(
                "--tune searches nothing: name keys and values in [tune.range] or [arm.NAME.range], for example \
                 \"optimizer.rate\" = { low = 1e-5, high = 1e-3, log = true }"
                    .to_owned(),
            ));
        }
        let mut configure = |data: &str, name: &str, seed: u64| {
            let trial = trials.iter().find(|trial| trial.name() == name);
            let trial = trial.ok_or_else(|| "there is no such trial".to_owned())?;
            let layers = source.layers(data, &trial.arm, &trial.settings)?;
            let mut config = resolve(layers.clone(), seed)?;
            if config.data.validation == 0.0 {
                let mut layers = layers;
                layers.insert("data.validation", tune.validation);
                config = resolve(layers, seed)?;
            }
            Ok(config)
        };
        let parts = Parts {
            seeds,
            baseline: None,
            untrained: false,
            data: file.data.iter().map(|(name, _)| name.clone()).collect(),
            arms: trials.iter().map(Planned::name).collect(),
            reference: None,
        };
        let mut study = Study::new(parts, &mut configure)?;
        for run in &mut study.runs {
            run.on_validation = true;
        }
        Ok(Self {
            study,
            measure: tune.measure.clone(),
            trials,
        })
    }

    /// The measure that is maximised.
    #[must_use]
    pub fn measure(&self) -> &str {
        &self.measure
    }

    /// The trials of every arm with their scores; the best of each arm, the first of equal ones, is marked as chosen.
    #[must_use]
    pub fn judge(&self, outcomes: &[Outcome]) -> Vec<(String, Vec<Trial>)> {
        let mut arms: Vec<(String, Vec<Trial>)> = Vec::new();
        for planned in &self.trials {
            let name = planned.name();
            let scores: BTreeMap<String, Option<f64>> = self
                .study
                .data
                .iter()
                .map(|data| {
                    let runs = outcomes
                        .iter()
                        .filter(|outcome| outcome.run.arm == name && outcome.run.data == *data);
                    let values: Option<Vec<f64>> = runs
                        .map(|outcome| outcome.measures.get(&self.measure)?.as_f64())
                        .collect();
                    (data.clone(), values.and_then(|values| mean(&values)))
                })
                .collect();
            let all: Option<Vec<f64>> = scores.values().copied().collect();
            let trial = Trial {
                number: planned.number,
                settings: planned.settings.clone(),
                score: all.and_then(|all| mean(&all)),
                scores,
                chosen: false,
            };
            match arms.last_mut() {
                Some((arm, trials)) if *arm == planned.arm => trials.push(trial),
                _ => arms.push((planned.arm.clone(), vec![trial])),
            }
        }
        for (_, trials) in &mut arms {
            let best = trials
                .iter()
                .filter_map(|trial| trial.score)
                .fold(f64::NEG_INFINITY, f64::max);
            let chosen = trials.iter_mut().find(|trial| trial.score == Some(best));
            if let Some(trial) = chosen {
                trial.chosen = true;
            }
        }
        arms
    }

    /// The settings of the chosen trials.
    ///
    /// # Errors
    /// If every trial of an arm diverged, or the measure was not taken.
    pub fn chosen(&self, judged: &[(String, Vec<Trial>)]) -> Result<BTreeMap<String, Settings>, StudyError> {
        judged
            .iter()
            .map(|(arm, trials)| match trials.iter().find(|trial| trial.chosen) {
                Some(trial) => Ok((arm.clone(), trial.settings.clone())),
                None => Err(StudyError::Plan(format!(
                    "no trial of arm `{arm}` has a {} on the validation classes: all diverged, or the data do not define it",
                    self.measure
                ))),
            })
            .collect()
    }
}

impl Planned {
    fn name(&self) -> String {
        format!("{}-trial-{}", self.arm, self.number)
    }
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Random settings of a trial: a function of the trial and the key, so that arms that share a key share its values.
fn draw(ranges: &BTreeMap<String, Range>, number: usize) -> Settings {
    let one = |(key, range): (&String, &Range)| {
        let path: Vec<u64> = [purpose::SEARCH, number as u64]
            .into_iter()
            .chain(key.bytes().map(u64::from))
            .collect();
        (key.clone(), range.draw(&mut stream(0, &path)))
    };
    ranges.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{RunRecord, StudyFile};
    use super::*;
    use crate::config::Overlay;

    const STUDY: &str = "[data.a]\npath = \"flora\"\n[data.b]\npath = \"flora\"\nset = [\"data.validation=0.4\"]\n\
                         [tune.range]\n\"optimizer.rate\" = { low = 1e-5, high = 1e-3, log = true }\n\
                         [arm.proxy-anchor]\n[arm.gradus.range]\n\"intra-class.weight\" = [1, 5, 25]\n";

    fn search(text: &str, count: usize) -> Result<Search, String> {
        let file = StudyFile::parse(text)?;
        let source = StudySource {
            file: &file,
            root: Path::new("."),
            last: Overlay::default(),
        };
        Search::of_file(&source, count).map_err(|error| error.to_string())
    }

    #[test]
    fn budgets_are_equal_and_shared_values_the_same() {
        let found = search(STUDY, 5).unwrap();
        assert_eq!(found.study.runs.len(), 2 * 2 * 5);
        let of = |arm: &str, data: &str| {
            let run = found
                .study
                .runs
                .iter()
                .find(|run| run.arm == arm && run.data == data)
                .unwrap();
            assert!(run.on_validation);
            &run.config
        };
        for number in 1..5 {
            let [base, ours] = ["proxy-anchor", "gradus"].map(|arm| of(&format!("{arm}-trial-{number}"), "a"));
            assert!((base.optimizer.rate - ours.optimizer.rate).abs() < 1e-15);
            assert!((1e-5..=1e-3).contains(&base.optimizer.rate));
            assert!([1.0, 5.0, 25.0].contains(&ours.intra_class.weight));
            assert!((ours.data.validation - 0.25).abs() < 1e-12);
        }
        let rates: std::collections::BTreeSet<String> = (1..5)
            .map(|number| of(&format!("gradus-trial-{number}"), "a").optimizer.rate.to_string())
            .collect();
        assert_eq!(rates.len(), 4);
        let own = of("gradus-trial-0", "b");
        assert!((own.optimizer.rate - 1e-4).abs() < 1e-12 && (own.data.validation - 0.4).abs() < 1e-12);
    }

    #[test]
    fn the_best_mean_over_data_sets_is_chosen_and_divergence_is_not() {
        let found = search(STUDY, 3).unwrap();
        let scores = [("a", [0.2, 0.5, 0.4]), ("b", [0.3, 0.1, 0.4])];
        let outcomes: Vec<Outcome> = found
            .study
            .runs
            .iter()
            .map(|run| {
                let number: usize = run.arm.rsplit('-').next().unwrap().parse().unwrap();
                let score = scores.iter().find(|(data, _)| *data == run.data).unwrap().1[number];
                let mut measures = serde_json::Map::new();
                // The second arm's best trial diverges on one set.
                if !(run.arm.starts_with("gradus") && number == 2 && run.data == "b") {
                    measures.insert("map@r".to_owned(), score.into());
                }
                Outcome {
                    run: run.clone(),
                    measures,
                    record: RunRecord::empty(),
                }
            })
            .collect();
        let judged = found.judge(&outcomes);
        let chosen = |arm: usize| judged[arm].1.iter().position(|trial| trial.chosen).unwrap();
        assert_eq!((chosen(0), chosen(1)), (2, 1));
        assert_eq!(judged[1].1[2].score, None);
        assert!((judged[0].1[2].score.unwrap() - 0.4).abs() < 1e-12);
        let settings = found.chosen(&judged).unwrap();
        assert!(settings["proxy-anchor"].contains_key("optimizer.rate"));
        assert!(found.chosen(&found.judge(&[])).is_err());
    }

    #[test]
    fn mistakes_are_refused() {
        let of = |text: &str, count| search(text, count).unwrap_err();
        assert!(of("[data.a]\npath = \"flora\"\n[arm.gradus]\n", 4).contains("searches nothing"));
        assert!(of(STUDY, 1).contains("at least 2"));
        for (text, expected) in [
            ("[tune]\nmeasure = \"recal@1\"", "recal@1"),
            ("[tune]\nvalidation = 0.0", "share above 0"),
            ("[tune.range]\n\"a\" = []", "range of a"),
            ("[tune.range]\n\"a\" = { low = 0.0, high = 1.0, log = true }", "above 0"),
        ] {
            let message = StudyFile::parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let message = of(&STUDY.replace("intra-class.weight", "intra-class.wieght"), 3);
        assert!(
            message.contains("gradus-trial-1") && message.contains("did you mean `weight`"),
            "{message}"
        );
    }
}
