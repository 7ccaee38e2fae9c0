//! An evaluation with everything asked of it: means over queries and over classes, breakdowns, intervals.

use std::collections::BTreeMap;

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::measure::LoneQueries;
use super::ranks::{Horizon, PositiveRanks};
use super::registry::{Asked, Compute, Need, asked, every};
use super::search::rank_positives;
use super::subject::{Subject, Whole};
use super::{Evaluation, EvaluationError, EvaluationOptions, blocks};
use crate::random::stream;

/// What is reported beside the means over queries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportOptions {
    /// Means of each class, and of each category if there are any.
    pub breakdown: bool,
    /// Resamples of the queries for 95 % intervals; 0: none.
    pub bootstrap: usize,
    /// Seed of the resamples.
    pub seed: u64,
}

/// The means over some of the queries.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Group {
    /// Queries in it.
    pub queries: usize,
    /// Those of them with nothing to find.
    pub lone_queries: usize,
    /// Mean of each retrieval metric, `None` if every query was dropped.
    #[serde(flatten)]
    pub means: Evaluation,
}

/// An evaluation with its parts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Means over queries (micro), measures of the set as a whole, counts.
    pub evaluation: Evaluation,
    /// Means over classes of their means over queries (macro), if a breakdown was asked for.
    pub by_class: Option<Evaluation>,
    /// The same over categories, if there are any.
    pub by_category: Option<Evaluation>,
    /// Of each class.
    pub classes: BTreeMap<u32, Group>,
    /// Of each category.
    pub categories: BTreeMap<u32, Group>,
    /// 95 % interval of each retrieval metric over resamples of the queries (Efron 1979, percentile method). Queries of one
    /// class resemble each other, so the interval is too narrow where classes are few.
    pub intervals: Vec<(String, [f64; 2])>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Evaluates what is asked for in `options.metrics`; `None` there means everything that the subject allows.
///
/// # Errors
/// Those of [`evaluate`](super::evaluate); a measure that was asked for by name and cannot be computed.
pub fn report(
    subject: &Subject<'_>,
    options: &EvaluationOptions,
    wanted: Option<&[String]>,
    more: &ReportOptions,
) -> Result<Report, EvaluationError> {
    let (all, by_name) = match wanted {
        Some(names) => (asked(names, &options.recall_levels)?, true),
        None => (every(&options.recall_levels, false)?, false),
    };
    compute(subject, options, &all, by_name, more)
}

/// The evaluation of a run.
pub(super) fn of_run(subject: &Subject<'_>, options: &EvaluationOptions) -> Result<Evaluation, EvaluationError> {
    let all = every(&options.recall_levels, true)?;
    Ok(compute(subject, options, &all, false, &ReportOptions::default())?.evaluation)
}

fn compute(
    subject: &Subject<'_>,
    options: &EvaluationOptions,
    all: &[Asked],
    by_name: bool,
    more: &ReportOptions,
) -> Result<Report, EvaluationError> {
    let mut report = Report::default();
    let mut possible = Vec::new();
    for one in all {
        match missing(subject, one) {
            None => possible.push(one),
            Some(problem) if by_name => return Err(EvaluationError::Options(format!("{} {problem}", one.key))),
            Some(problem) => report.left_out.push(format!("{} {problem}", one.key)),
        }
    }
    if let Some(factors) = subject.factors {
        factors.check(subject.queries.len())?;
    }
    let relevance = subject.relevance()?;
    // Every report says how many queries are lone, which needs no search.
    let lone: Vec<bool> = (0..relevance.queries())
        .map(|query| relevance.relevant(query).next().is_none())
        .collect();
    let horizon = possible.iter().filter_map(|one| match one.entry.compute {
        Compute::Query { horizon, .. } => Some(horizon(one.k)),
        Compute::Whole { .. } | Compute::Training => None,
    });
    let values = match horizon.reduce(Horizon::and) {
        Some(horizon) => {
            let ranks = rank_positives(subject.queries, subject.gallery_rows(), &relevance, horizon, options)?;
            per_query(&possible, &ranks)
        }
        None => Vec::new(),
    };
    let counted: Vec<usize> = (0..lone.len())
        .filter(|&query| options.lone_queries == LoneQueries::Miss || !lone[query])
        .collect();
    if !values.is_empty() && counted.is_empty() {
        return Err(EvaluationError::NoQueryLeft(lone.len()));
    }
    let evaluation = &mut report.evaluation;
    let skipped = blocks::on_threads(options.threads, || {
        let whole = Whole::new(subject);
        let mut columns = values.iter();
        for one in &possible {
            match one.entry.compute {
                Compute::Query { .. } => {
                    let mean = columns.next().and_then(|column| mean(column, &counted));
                    evaluation.measure(one.key.clone(), mean);
                }
                Compute::Whole { value, .. } => {
                    for (name, number) in value(&whole)? {
                        evaluation.measure(name, number);
                    }
                }
                Compute::Training => {}
            }
        }
        Ok((whole.order_skipped(), whole.classes()))
    })?;
    if let Some(skipped) = skipped.0 {
        evaluation.count("order_skipped", skipped);
    }
    evaluation.count("queries", lone.len());
    evaluation.count("lone_queries", lone.iter().filter(|&&lone| lone).count());
    if subject.query_labels.classes().is_some() {
        evaluation.count("classes", skipped.1);
    }

    let keys: Vec<&str> = possible
        .iter()
        .filter(|one| matches!(one.entry.compute, Compute::Query { .. }))
        .map(|one| one.key.as_str())
        .collect();
    if more.breakdown {
        let groups = |labels: &[u32]| {
            let mut members: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            for (query, &label) in labels.iter().enumerate() {
                members.entry(label).or_default().push(query);
            }
            let group = |members: Vec<usize>| {
                let mut group = Group {
                    queries: members.len(),
                    lone_queries: members.iter().filter(|&&query| lone[query]).count(),
                    means: Evaluation::default(),
                };
                let counted: Vec<usize> = members
                    .into_iter()
                    .filter(|&query| options.lone_queries == LoneQueries::Miss || !lone[query])
                    .collect();
                for (key, column) in keys.iter().zip(&values) {
                    group.means.measure(*key, mean(column, &counted));
                }
                group
            };
            members
                .into_iter()
                .map(|(label, members)| (label, group(members)))
                .collect::<BTreeMap<_, _>>()
        };
        if let Some(classes) = subject.query_labels.classes() {
            report.classes = groups(classes);
            report.by_class = Some(macro_means(&report.classes, &keys));
        }
        if let Some(categories) = &subject.categories {
            if categories.len() != lone.len() {
                return Err(EvaluationError::Options(format!(
                    "there are {} categories for {} queries: give one category number for each query",
                    categories.len(),
                    lone.len()
                )));
            }
            report.categories = groups(categories);
            report.by_category = Some(macro_means(&report.categories, &keys));
        }
    }
    if more.bootstrap > 0 {
        report.intervals = intervals(&keys, &values, &counted, more);
    }
    Ok(report)
}

fn missing(subject: &Subject<'_>, one: &Asked) -> Option<String> {
    let Compute::Whole { needs, .. } = one.entry.compute else {
        return None;
    };
    needs.iter().find_map(|need| match need {
        Need::Classes => subject.no_classes(),
        Need::Factors if subject.factors.is_none() => Some("needs known factors of the rows (--factors)".into()),
        Need::Factors => None,
    })
}

/// One column for each retrieval metric, one number for each query; lone queries count 0.
fn per_query(possible: &[&Asked], ranks: &PositiveRanks) -> Vec<Vec<f64>> {
    possible
        .iter()
        .filter_map(|one| match one.entry.compute {
            Compute::Query { value, .. } => Some((value, one.k)),
            Compute::Whole { .. } | Compute::Training => None,
        })
        .map(|(value, k)| {
            let of = |query: usize| {
                let query = ranks.query(query);
                if query.relevant == 0 { 0.0 } else { value(&query, k) }
            };
            (0..ranks.queries()).into_par_iter().map(of).collect()
        })
        .collect()
}

fn mean(column: &[f64], queries: &[usize]) -> Option<f64> {
    (!queries.is_empty()).then(|| queries.iter().map(|&query| column[query]).sum::<f64>() / queries.len() as f64)
}

fn macro_means(groups: &BTreeMap<u32, Group>, keys: &[&str]) -> Evaluation {
    let mut means = Evaluation::default();
    for key in keys {
        let defined: Vec<f64> = groups.values().filter_map(|group| group.means.get(key)).collect();
        means.measure(
            *key,
            (!defined.is_empty()).then(|| defined.iter().sum::<f64>() / defined.len() as f64),
        );
    }
    means
}

fn intervals(keys: &[&str], values: &[Vec<f64>], counted: &[usize], more: &ReportOptions) -> Vec<(String, [f64; 2])> {
    // Queries drawn once for all metrics: their intervals belong to the same resamples.
    let means: Vec<Vec<f64>> = (0..more.bootstrap)
        .into_par_iter()
        .map(|resample| {
            let mut random = stream(more.seed, &[resample as u64]);
            let mut sums = vec![0.0; values.len()];
            for _ in 0..counted.len() {
                let query = counted[random.random_range(0..counted.len())];
                for (sum, column) in sums.iter_mut().zip(values) {
                    *sum += column[query];
                }
            }
            sums.iter().map(|sum| sum / counted.len() as f64).collect()
        })
        .collect();
    keys.iter()
        .enumerate()
        .map(|(column, &key)| {
            let mut all: Vec<f64> = means.iter().map(|means| means[column]).collect();
            all.sort_unstable_by(f64::total_cmp);
            (key.to_owned(), [quantile(&all, 0.025), quantile(&all, 0.975)])
        })
        .collect()
}

/// Linear between the two nearest of sorted numbers, as NumPy's default.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}
