//! An evaluation with everything asked of it: means over queries and over classes, breakdowns, intervals.

use std::collections::BTreeMap;

use rand::Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::measure::LoneQueries;
use super::registry::{Asked, Compute, Need, asked, every};
use super::retrieval_measures::{RetrievalMeasures, mean};
use super::search::rank_positives;
use super::subject::{Subject, Whole};
use super::{Evaluation, EvaluationError, EvaluationOptions, blocks};
use crate::random::stream;
use crate::statistics::quantile;

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
    if let Some(categories) = subject
        .categories
        .as_ref()
        .filter(|all| all.len() != subject.queries.len())
    {
        return Err(EvaluationError::Options(format!(
            "there are {} categories for {} queries: give one category number for each query",
            categories.len(),
            subject.queries.len()
        )));
    }
    let relevance = subject.relevance()?;
    // Every report says how many queries are lone, which needs no search.
    let lone: Vec<bool> = (0..relevance.queries())
        .map(|query| relevance.relevant(query).next().is_none())
        .collect();
    let retrieval = RetrievalMeasures::among(&possible);
    let values = match retrieval.horizon() {
        Some(horizon) => {
            let ranks = rank_positives(subject.queries, subject.gallery_rows(), &relevance, horizon, options)?;
            retrieval.columns(&ranks)
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

    let keys: Vec<&str> = retrieval.keys().collect();
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
        Need::Reference if subject.reference.is_none() => {
            Some("needs the same rows in another space (--reference-embeddings)".into())
        }
        Need::Categories if subject.categories.is_none() => {
            Some("needs a category for each query (--categories)".into())
        }
        Need::Factors | Need::Reference | Need::Categories => None,
    })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::random_set;
    use crate::evaluation::{LoneQueries, SearchDistance};
    use crate::relations::Labels;

    #[derive(serde::Deserialize)]
    struct Golden {
        levels: Vec<usize>,
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        name: String,
        distance: SearchDistance,
        dim: usize,
        queries: Vec<f32>,
        labels: Vec<u32>,
        gallery: Option<Vec<f32>>,
        gallery_labels: Option<Vec<u32>>,
        lone: f64,
        miss: BTreeMap<String, f64>,
        drop: BTreeMap<String, f64>,
        #[serde(default)]
        others: BTreeMap<String, f64>,
    }

    /// Numbers of plain loops in numpy, of pytorch-metric-learning and of scikit-learn: tools/golden/evaluation.py.
    #[test]
    fn retrieval_metrics_equal_independent_ones() {
        let golden: Golden = serde_json::from_str(include_str!("golden/retrieval.json")).unwrap();
        assert!(golden.cases.len() > 10);
        for case in golden.cases {
            let set = |values: Vec<f32>, labels: Vec<u32>| EmbeddingSet {
                dim: case.dim,
                values,
                ids: vec![String::new(); labels.len()],
                labels,
            };
            let queries = set(case.queries, case.labels);
            let gallery = case
                .gallery
                .zip(case.gallery_labels)
                .map(|(values, labels)| set(values, labels));
            let subject = Subject::of_sets(&queries, gallery.as_ref());
            for (lone_queries, expected) in [(LoneQueries::Miss, &case.miss), (LoneQueries::Drop, &case.drop)] {
                let options = EvaluationOptions {
                    recall_levels: golden.levels.clone(),
                    distance: case.distance,
                    lone_queries,
                    ..EvaluationOptions::default()
                };
                let names: Vec<String> = expected.keys().cloned().collect();
                let found = report(&subject, &options, Some(&names), &ReportOptions::default())
                    .unwrap()
                    .evaluation;
                assert_eq!(found.get("lone_queries"), Some(case.lone), "{}", case.name);
                let others = case.others.iter().filter(|_| lone_queries == LoneQueries::Drop);
                for (name, expected) in expected.iter().chain(others) {
                    let found = found.get(name).unwrap();
                    assert!(
                        (found - expected).abs() < 1e-7,
                        "{} {name}: {found} {expected}",
                        case.name
                    );
                }
            }
        }
    }

    #[test]
    fn groups_add_up_and_intervals_hold_the_mean() {
        let mut set = random_set(3, 200, 8, 9);
        set.labels[0] = 77;
        let mut subject = Subject::of_sets(&set, None);
        subject.categories = Some((0..200).map(|row| row % 2).collect());
        let more = ReportOptions {
            breakdown: true,
            bootstrap: 400,
            seed: 5,
        };
        let options = EvaluationOptions::default();
        let names = ["recall@1".to_owned(), "map@r".to_owned()];
        let found = report(&subject, &options, Some(&names), &more).unwrap();
        let all = found.evaluation.get("map@r").unwrap();
        for groups in [&found.classes, &found.categories] {
            let sum: f64 = groups
                .values()
                .map(|group| group.means.get("map@r").unwrap() * group.queries as f64)
                .sum();
            assert!((sum / 200.0 - all).abs() < 1e-12);
        }
        let mean = found
            .classes
            .values()
            .map(|group| group.means.get("map@r").unwrap())
            .sum::<f64>()
            / found.classes.len() as f64;
        assert!((found.by_class.as_ref().unwrap().get("map@r").unwrap() - mean).abs() < 1e-12);
        assert_eq!(
            (found.classes[&77].lone_queries, found.classes[&77].means.get("map@r")),
            (1, Some(0.0))
        );
        for (name, [low, high]) in &found.intervals {
            let mean = found.evaluation.get(name).unwrap();
            assert!(
                *low < mean && mean < *high && high - low < 0.2,
                "{name} {low} {mean} {high}"
            );
        }
        // The standard error of a share p of n queries is sqrt(p (1 - p) / n), its interval 3.92 of them wide.
        let (_, [low, high]) = found.intervals[0];
        let p = found.evaluation.get("recall@1").unwrap();
        let expected = 3.92 * (p * (1.0 - p) / 200.0).sqrt();
        assert!(((high - low) / expected - 1.0).abs() < 0.25);
        assert_eq!(found, report(&subject, &options, Some(&names), &more).unwrap());
        let dropping = EvaluationOptions {
            lone_queries: LoneQueries::Drop,
            ..options
        };
        let found = report(&subject, &dropping, Some(&names), &more).unwrap();
        assert_eq!(found.classes[&77].means.get("map@r"), None);
        assert!((found.evaluation.get("map@r").unwrap() * 199.0 - all * 200.0).abs() < 1e-9);
    }

    #[test]
    fn several_labels_are_relevant_to_a_degree() {
        let queries = EmbeddingSet {
            dim: 2,
            values: vec![1.0, 0.0],
            labels: vec![0],
            ids: vec![String::new()],
        };
        let gallery = EmbeddingSet {
            dim: 2,
            values: vec![1.0, 0.1, 1.0, 0.2, 1.0, 0.3, 1.0, 0.4],
            labels: vec![0; 4],
            ids: vec![String::new(); 4],
        };
        let mut subject = Subject::of_sets(&queries, Some(&gallery));
        subject.query_labels = Labels::MultiLabel(vec![vec![1, 2]].into());
        // A half in common, nothing known (junk), nothing in common, all in common.
        let labels = Labels::MultiLabel(vec![vec![1], vec![], vec![3], vec![1, 2]].into());
        subject.gallery = Some((&gallery, labels));
        let names = ["mrr", "map", "ndcg@3"].map(String::from);
        let found = report(
            &subject,
            &EvaluationOptions::default(),
            Some(&names),
            &ReportOptions::default(),
        )
        .unwrap();
        assert_eq!(found.evaluation.get("map"), Some((1.0 + 2.0 / 3.0) / 2.0));
        let (second, third) = (1.0 / 3.0_f64.log2(), 0.5);
        let expected = (0.5 + third) / (1.0 + 0.5 * second);
        assert!((found.evaluation.get("ndcg@3").unwrap() - expected).abs() < 1e-12);
        let error = report(
            &subject,
            &EvaluationOptions::default(),
            Some(&["density".into()]),
            &ReportOptions::default(),
        );
        assert!(error.unwrap_err().to_string().contains("several labels"));
    }

    #[test]
    fn an_interval_leaves_a_fortieth_of_the_resamples_on_each_side() {
        assert!(
            (quantile(&[0.0, 1.0, 4.0], 0.25) - 0.5).abs() < 1e-12
                && (quantile(&[0.0, 1.0, 4.0], 0.75) - 2.5).abs() < 1e-12
        );
        // Square roots: no two resamples have the same mean.
        let column: Vec<f64> = (0..50_u32).map(|query| f64::from(query).sqrt()).collect();
        let counted: Vec<usize> = (0..50).collect();
        let more = ReportOptions {
            bootstrap: 1000,
            seed: 3,
            ..ReportOptions::default()
        };
        let [(_, [low, high])] = &intervals(&["x"], std::slice::from_ref(&column), &counted, &more)[..] else {
            panic!("one interval for one column");
        };
        let means = (0..1000_u64).map(|resample| {
            let mut random = stream(3, &[resample]);
            (0..50).map(|_| column[random.random_range(0..50)]).sum::<f64>() / 50.0
        });
        let means: Vec<f64> = means.collect();
        assert_eq!(means.iter().filter(|mean| *mean < low).count(), 25);
        assert_eq!(means.iter().filter(|mean| *mean > high).count(), 25);
    }

    #[test]
    fn groups_without_a_value_do_not_count_in_their_mean() {
        let group = |value| {
            let mut group = Group::default();
            group.means.measure("x", value);
            group
        };
        let groups = BTreeMap::from([(0, group(Some(0.5))), (1, group(None)), (2, group(Some(1.0)))]);
        assert_eq!(macro_means(&groups, &["x"]).get("x"), Some(0.75));
    }
}
