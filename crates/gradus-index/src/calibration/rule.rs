//! Which threshold is the right one.

use std::collections::BTreeMap;
use std::fmt;

use gradus_core::evaluation::verification_of_pairs;

use super::curve::{Histogram, roc};
use super::{Calibration, Thresholds, Trial};
use crate::IndexError;

/// Scores of other classes a class needs for a threshold of its own.
const IMPOSTORS_OF_A_CLASS: usize = 10;
/// Scores of its own that it needs where they are looked at.
const GENUINE_OF_A_CLASS: usize = 5;

/// What a threshold is to achieve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The lowest threshold whose false-match rate is no greater.
    FalseMatchRate(f64),
    /// The threshold of the greatest F1.
    BestF1,
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FalseMatchRate(rate) => write!(formatter, "false-match-rate {rate}"),
            Self::BestF1 => formatter.write_str("best-f1"),
        }
    }
}

impl Rule {
    fn threshold(self, genuine: &[f32], impostors: &[f32]) -> f32 {
        match self {
            Self::FalseMatchRate(rate) => at_false_match_rate(impostors, rate),
            Self::BestF1 => at_best_f1(genuine, impostors),
        }
    }
}

/// Finds thresholds on searches whose right answer is known; with `per_class`, also for the hits of each class that has enough of them.
///
/// The threshold of a class is found on the queries whose nearest item of another class is of that class (at least 10), and, for F1, on
/// the queries of the class (at least 5): where every class keeps a false-match rate, so do all together.
///
/// # Errors
/// A rate outside 0..=1, or no query with an item of its own class, or none with one of another.
pub fn calibrate(trials: &[Trial], rule: Rule, per_class: bool) -> Result<Calibration, IndexError> {
    if let Rule::FalseMatchRate(rate) = rule
        && !(0.0..=1.0).contains(&rate)
    {
        return Err(IndexError::Options(format!(
            "a false-match rate of {rate} cannot be: expected a share between 0 and 1, such as 0.01"
        )));
    }
    let genuine: Vec<f32> = trials.iter().filter_map(|trial| trial.genuine).collect();
    let impostors: Vec<f32> = trials
        .iter()
        .filter_map(|trial| Some(trial.impostor.as_ref()?.0))
        .collect();
    if genuine.is_empty() || impostors.is_empty() {
        return Err(IndexError::Options(format!(
            "thresholds are found between items of one class and of others, but of {} queries {} have another item of their class to find, \
             and {} one of another class: calibrate on at least two classes with two images each",
            trials.len(),
            genuine.len(),
            impostors.len()
        )));
    }
    let thresholds = Thresholds {
        global: rule.threshold(&genuine, &impostors),
        rule: rule.to_string(),
        classes: if per_class {
            of_classes(trials, rule)
        } else {
            BTreeMap::new()
        },
    };
    let accepted = |score: f32, class: &str| score >= thresholds.of(Some(class));
    let own = trials
        .iter()
        .filter_map(|trial| Some(accepted(trial.genuine?, &trial.class)));
    let true_positives = own.filter(|accepted| *accepted).count() as f64;
    let others = trials.iter().filter_map(|trial| trial.impostor.as_ref());
    let false_positives = others.filter(|(score, class)| accepted(*score, class)).count() as f64;
    let false_negatives = genuine.len() as f64 - true_positives;
    let (scores, same): (Vec<f32>, Vec<bool>) = genuine
        .iter()
        .map(|score| (*score, true))
        .chain(impostors.iter().map(|score| (*score, false)))
        .unzip();
    let verification = verification_of_pairs(&scores, &same, &[])?;
    Ok(Calibration {
        false_match_rate: false_positives / impostors.len() as f64,
        false_non_match_rate: false_negatives / genuine.len() as f64,
        f1: f1(true_positives, false_positives, false_negatives),
        auc: verification.auc,
        eer: verification.eer,
        genuine: genuine.len(),
        impostors: impostors.len(),
        histogram: Histogram::new(&genuine, &impostors),
        roc: roc(&genuine, &impostors),
        thresholds,
    })
}

fn of_classes(trials: &[Trial], rule: Rule) -> BTreeMap<String, f32> {
    let mut scores: BTreeMap<&str, [Vec<f32>; 2]> = BTreeMap::new();
    for trial in trials {
        if let Some(genuine) = trial.genuine {
            scores.entry(&trial.class).or_default()[0].push(genuine);
        }
        if let Some((score, class)) = &trial.impostor {
            scores.entry(class).or_default()[1].push(*score);
        }
    }
    let needed = match rule {
        Rule::FalseMatchRate(_) => 0,
        Rule::BestF1 => GENUINE_OF_A_CLASS,
    };
    scores
        .into_iter()
        .filter(|(_, [genuine, impostors])| genuine.len() >= needed && impostors.len() >= IMPOSTORS_OF_A_CLASS)
        .map(|(class, [genuine, impostors])| (class.to_owned(), rule.threshold(&genuine, &impostors)))
        .collect()
}

fn f1(true_positives: f64, false_positives: f64, false_negatives: f64) -> f64 {
    2.0 * true_positives / (2.0 * true_positives + false_positives + false_negatives).max(1.0)
}

fn at_false_match_rate(impostors: &[f32], rate: f64) -> f32 {
    let mut falling = impostors.to_vec();
    falling.sort_unstable_by(|a, b| b.total_cmp(a));
    // Rounded so that a rate of 3/100 allows 3 of 100.
    let allowed = (rate * falling.len() as f64 + 1e-9) as usize;
    match falling.get(allowed) {
        // Just above the first score that may not be accepted, and so above its equals.
        Some(score) => score.next_up(),
        None => falling.last().copied().unwrap_or(0.0),
    }
}

fn at_best_f1(genuine: &[f32], impostors: &[f32]) -> f32 {
    let mut all: Vec<(f32, bool)> = genuine
        .iter()
        .map(|score| (*score, true))
        .chain(impostors.iter().map(|score| (*score, false)))
        .collect();
    all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut accepted = [0.0_f64; 2];
    let (mut best, mut threshold) = (-1.0, f32::INFINITY);
    let mut groups = all.chunk_by(|a, b| a.0 == b.0).peekable();
    while let Some(equal) = groups.next() {
        for (_, own) in equal {
            accepted[usize::from(*own)] += 1.0;
        }
        let value = f1(accepted[1], accepted[0], genuine.len() as f64 - accepted[1]);
        if value > best {
            best = value;
            // In the middle of the gap below, where new scores are as likely to fall on either side.
            let score = equal[0].0;
            let below = groups.peek().map_or(score, |next| next[0].0);
            let middle = score - (score - below) / 2.0;
            threshold = if middle > below { middle } else { score };
        }
    }
    threshold
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibration::curve::share;

    fn trial(class: &str, genuine: f32, impostor: f32, of: &str) -> Trial {
        Trial {
            class: class.into(),
            genuine: Some(genuine),
            impostor: Some((impostor, of.into())),
        }
    }

    /// Scores in hundredths, with ties, of four classes.
    fn trials() -> Vec<Trial> {
        (0..400_u32)
            .map(|number| {
                let class = number % 4;
                let genuine = 0.4 + f32::from((number * 37 % 59) as u16) / 100.0;
                let impostor = 0.1 + 0.1 * class as f32 + f32::from((number * 53 % 41) as u16) / 100.0;
                trial(
                    &format!("c{class}"),
                    genuine,
                    impostor,
                    &format!("c{}", (class + 1) % 4),
                )
            })
            .collect()
    }

    fn scores(trials: &[Trial]) -> [Vec<f32>; 2] {
        [
            trials.iter().filter_map(|trial| trial.genuine).collect(),
            trials
                .iter()
                .filter_map(|trial| trial.impostor.as_ref().map(|found| found.0))
                .collect(),
        ]
    }

    #[test]
    fn the_false_match_rate_is_kept_and_no_lower_threshold_keeps_it() {
        let trials = trials();
        let [_, impostors] = scores(&trials);
        for rate in [0.0, 0.01, 0.03, 0.5, 1.0] {
            let found = calibrate(&trials, Rule::FalseMatchRate(rate), false).unwrap();
            assert!(found.false_match_rate <= rate, "{rate}: {}", found.false_match_rate);
            let lower = found.thresholds.global - 0.005;
            assert!(share(&impostors, lower) > rate || rate == 1.0, "{rate}");
            assert_eq!(found.false_match_rate, share(&impostors, found.thresholds.global));
        }
    }

    #[test]
    fn no_threshold_has_a_greater_f1() {
        let trials = trials();
        let [genuine, impostors] = scores(&trials);
        let found = calibrate(&trials, Rule::BestF1, false).unwrap();
        let of = |threshold: f32| {
            let count = |scores: &[f32]| scores.iter().filter(|score| **score >= threshold).count() as f64;
            f1(
                count(&genuine),
                count(&impostors),
                genuine.len() as f64 - count(&genuine),
            )
        };
        assert!((found.f1 - of(found.thresholds.global)).abs() < 1e-12);
        let best = (0..=1000).map(|step| of(step as f32 / 1000.0)).fold(0.0, f64::max);
        assert!(found.f1 >= best, "{} {best}", found.f1);
    }

    #[test]
    fn thresholds_of_classes_keep_the_rate_class_by_class() {
        let trials = trials();
        let found = calibrate(&trials, Rule::FalseMatchRate(0.02), true).unwrap();
        assert_eq!(found.thresholds.classes.len(), 4);
        for (class, threshold) in &found.thresholds.classes {
            let of: Vec<f32> = trials
                .iter()
                .filter_map(|trial| trial.impostor.clone())
                .filter(|(_, impostor)| impostor == class)
                .map(|(score, _)| score)
                .collect();
            assert!(share(&of, *threshold) <= 0.02);
        }
        assert!(found.false_match_rate <= 0.02);
        // Hits of c1 have the lowest scores of other classes, so theirs is the lowest threshold.
        let classes = &found.thresholds.classes;
        assert!(classes["c1"] < classes["c2"] && classes["c2"] < classes["c3"] && classes["c3"] < classes["c0"]);
        assert_eq!(found.thresholds.of(Some("c1")), classes["c1"]);
        assert_eq!(found.thresholds.of(Some("new")), found.thresholds.global);
        assert_eq!(found.thresholds.of(None), found.thresholds.global);
        // Too few scores of a class: the global threshold stands in.
        let few = calibrate(&trials[..20], Rule::BestF1, true).unwrap();
        assert!(few.thresholds.classes.is_empty());
    }

    #[test]
    fn what_cannot_be_calibrated_is_refused() {
        let refused = |trials: &[Trial], rule| calibrate(trials, rule, false).unwrap_err().to_string();
        assert!(refused(&trials(), Rule::FalseMatchRate(1.5)).contains("1.5"));
        assert!(refused(&[], Rule::BestF1).contains("two classes"));
        let mut lone = trials();
        lone.iter_mut().for_each(|trial| trial.genuine = None);
        assert!(refused(&lone, Rule::BestF1).contains("of 400 queries 0 have another item of their class"));
    }

    #[test]
    fn curves_count_every_score() {
        let trials = trials();
        let [genuine, impostors] = scores(&trials);
        let found = calibrate(&trials, Rule::BestF1, false).unwrap();
        assert_eq!(found.histogram.genuine.iter().sum::<usize>(), genuine.len());
        assert_eq!(found.histogram.impostors.iter().sum::<usize>(), impostors.len());
        let last = found.roc.last().unwrap();
        assert_eq!((last.false_match_rate, last.true_match_rate), (1.0, 1.0));
        assert!(found.roc.windows(2).all(|pair| pair[0].threshold > pair[1].threshold));
        let equal = vec![trial("a", 0.5, 0.5, "b"); 3];
        assert_eq!(calibrate(&equal, Rule::BestF1, false).unwrap().auc, 0.5);
    }
}
