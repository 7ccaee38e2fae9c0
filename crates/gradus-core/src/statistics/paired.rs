//! Paired differences between two arms, resampled over seeds and test classes.

use rand::Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{SeedsNeeded, mean_interval, quantile, seeds_needed};
use crate::random::stream;

/// Values of the queries of each class, summed: one column of a measure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Column {
    /// Sum over the counted queries of each class.
    pub sums: Vec<f64>,
    /// Counted queries of each class.
    pub counts: Vec<f64>,
}

/// One measure of one run, class by class: the mean over columns of the mean over queries.
///
/// Most measures have one column; order preservation has one per known factor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClassScores {
    /// The columns, all of the same classes in the same order.
    pub columns: Vec<Column>,
}

impl ClassScores {
    /// Sums values of queries by class: `classes[query]` counts from 0 to below `count`; values that are `None` do not count.
    ///
    /// # Panics
    /// If a class is not below `count`, or lists differ in length.
    #[must_use]
    pub fn new(classes: &[usize], count: usize, columns: &[&[Option<f64>]]) -> Self {
        let column = |values: &&[Option<f64>]| {
            assert_eq!(values.len(), classes.len(), "one value for each query");
            let mut column = Column {
                sums: vec![0.0; count],
                counts: vec![0.0; count],
            };
            for (value, &class) in values.iter().zip(classes) {
                if let Some(value) = value {
                    column.sums[class] += value;
                    column.counts[class] += 1.0;
                }
            }
            column
        };
        Self {
            columns: columns.iter().map(column).collect(),
        }
    }

    /// The measure; `None` if no query counts.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        self.weighted(&vec![1.0; self.classes()])
    }

    /// Number of classes.
    #[must_use]
    pub fn classes(&self) -> usize {
        self.columns.first().map_or(0, |column| column.sums.len())
    }

    /// The measure where every class stands there as often as its weight says.
    fn weighted(&self, weights: &[f64]) -> Option<f64> {
        let (mut total, mut columns) = (0.0, 0.0);
        for column in &self.columns {
            let (mut sum, mut count) = (0.0, 0.0);
            for ((value, queries), weight) in column.sums.iter().zip(&column.counts).zip(weights) {
                sum += weight * value;
                count += weight * queries;
            }
            if count > 0.0 {
                total += sum / count;
                columns += 1.0;
            }
        }
        (columns > 0.0).then(|| total / columns)
    }
}

/// How much an arm lies above another one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PairedDifference {
    /// Mean over seeds of the difference.
    pub difference: f64,
    /// 95 % interval over seeds and test classes; over classes alone if there is one seed.
    pub interval: [f64; 2],
    /// 95 % interval over test classes, the seeds as they are: what more seeds would not narrow.
    pub class_interval: [f64; 2],
    /// Half-width of the 95 % t-interval over seeds, the classes as they are; `None` with one seed.
    pub seed_half_width: Option<f64>,
    /// Standard deviation of the difference over seeds.
    pub seed_deviation: Option<f64>,
    /// The difference of each seed.
    pub per_seed: Vec<f64>,
    /// Seeds that would settle a difference of this size on these classes.
    pub seeds_needed: Option<SeedsNeeded>,
}

impl PairedDifference {
    /// Whether the interval over seeds and classes leaves out zero.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.interval[0] > 0.0 || self.interval[1] < 0.0
    }

    /// Whether no number of seeds settles it: the interval over test classes alone holds zero.
    #[must_use]
    pub fn needs_classes(&self) -> bool {
        self.class_interval[0] <= 0.0 && self.class_interval[1] >= 0.0
    }
}

/// The difference between two arms measured with the same seeds: `arm[i]` and `baseline[i]` are of one seed.
///
/// Paired bootstrap, percentile method (Efron 1979): each resample draws the test classes with replacement, as whole classes, and
/// n - 1 of the n seeds with replacement, both for the two arms alike. Drawing n - 1 makes the variance over seeds unbiased, which n
/// draws would understate by `(n - 1) / n` (McCarthy and Snowden 1985); drawing rows and columns apart is the pigeonhole bootstrap
/// (Owen 2007), which errs on the wide side. With few seeds the percentiles still lack the tails of Student's t: look at
/// `seed_half_width` beside them.
///
/// `None` if there is no seed, the lists differ in length or in classes, or a run has no counted query.
#[must_use]
pub fn paired_difference(
    arm: &[ClassScores],
    baseline: &[ClassScores],
    resamples: usize,
    seed: u64,
) -> Option<PairedDifference> {
    let seeds = arm.len();
    let classes = arm.first()?.classes();
    let same = |one: &ClassScores| one.classes() == classes;
    if baseline.len() != seeds || classes == 0 || !arm.iter().chain(baseline).all(same) {
        return None;
    }
    let pairs: Vec<(&ClassScores, &ClassScores)> = arm.iter().zip(baseline).collect();
    let per_seed: Vec<f64> = pairs
        .iter()
        .map(|(arm, baseline)| Some(arm.value()? - baseline.value()?))
        .collect::<Option<_>>()?;
    let drawn: Vec<(f64, f64)> = (0..resamples as u64)
        .into_par_iter()
        .filter_map(|resample| {
            let mut random = stream(seed, &[resample]);
            let mut weights = vec![0.0; classes];
            for _ in 0..classes {
                weights[random.random_range(0..classes)] += 1.0;
            }
            let differences: Vec<f64> = pairs
                .iter()
                .map(|(arm, baseline)| Some(arm.weighted(&weights)? - baseline.weighted(&weights)?))
                .collect::<Option<_>>()?;
            let as_they_are = differences.iter().sum::<f64>() / seeds as f64;
            if seeds == 1 {
                return Some((as_they_are, as_they_are));
            }
            let sum: f64 = (1..seeds).map(|_| differences[random.random_range(0..seeds)]).sum();
            Some((sum / (seeds - 1) as f64, as_they_are))
        })
        .collect();
    if drawn.is_empty() {
        return None;
    }
    let interval = |of: fn(&(f64, f64)) -> f64| {
        let mut all: Vec<f64> = drawn.iter().map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        [quantile(&all, 0.025), quantile(&all, 0.975)]
    };
    let over_seeds = mean_interval(&per_seed)?;
    Some(PairedDifference {
        difference: over_seeds.mean,
        interval: interval(|pair| pair.0),
        class_interval: interval(|pair| pair.1),
        seed_half_width: over_seeds.half_width,
        seed_deviation: over_seeds.deviation,
        seeds_needed: over_seeds
            .deviation
            .and_then(|deviation| seeds_needed(over_seeds.mean, deviation)),
        per_seed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One query per class.
    fn scores(values: &[f64]) -> ClassScores {
        let classes: Vec<usize> = (0..values.len()).collect();
        let values: Vec<Option<f64>> = values.iter().copied().map(Some).collect();
        ClassScores::new(&classes, classes.len(), &[&values])
    }

    /// Numbers of a fixed irregular sequence with mean about 0 and deviation about 1.
    fn irregular(count: usize, seed: u64) -> Vec<f64> {
        let mut random = stream(seed, &[]);
        let normal = |random: &mut dyn FnMut() -> f64| (0..12).map(|_| random()).sum::<f64>() - 6.0;
        (0..count).map(|_| normal(&mut || random.random::<f64>())).collect()
    }

    #[test]
    fn a_measure_is_the_mean_over_columns_of_means_over_counted_queries() {
        let first = [Some(1.0), None, Some(0.0), Some(0.5)];
        let second = [None, Some(0.2), None, None];
        let found = ClassScores::new(&[0, 0, 1, 1], 2, &[&first, &second]);
        assert!((found.value().unwrap() - (0.5 + 0.2) / 2.0).abs() < 1e-12);
        assert!((found.weighted(&[0.0, 2.0]).unwrap() - 0.25).abs() < 1e-12);
        assert_eq!(ClassScores::new(&[0], 1, &[&[None]]).value(), None);
    }

    #[test]
    fn resamples_equal_plain_loops() {
        let baseline: Vec<ClassScores> = (0..3).map(|seed| scores(&irregular(7, seed))).collect();
        let arm: Vec<ClassScores> = (10..13).map(|seed| scores(&irregular(7, seed))).collect();
        let found = paired_difference(&arm, &baseline, 999, 5).unwrap();
        let mut all = Vec::new();
        for resample in 0..999 {
            let mut random = stream(5, &[resample]);
            let classes: Vec<usize> = (0..7).map(|_| random.random_range(0..7)).collect();
            let seeds: Vec<usize> = (0..2).map(|_| random.random_range(0..3)).collect();
            let mut sum = 0.0;
            for &seed in &seeds {
                for &class in &classes {
                    sum += arm[seed].columns[0].sums[class] - baseline[seed].columns[0].sums[class];
                }
            }
            all.push(sum / 14.0);
        }
        all.sort_by(f64::total_cmp);
        assert!((found.interval[0] - quantile(&all, 0.025)).abs() < 1e-12);
        assert!((found.interval[1] - quantile(&all, 0.975)).abs() < 1e-12);
    }

    /// Where only classes differ, the interval is that of a mean of so many classes; where only seeds do, that of so many seeds.
    #[test]
    fn intervals_have_the_width_of_what_varies() {
        let values = irregular(400, 1);
        let deviation = mean_interval(&values).unwrap().deviation.unwrap();
        let zero: Vec<ClassScores> = (0..5).map(|_| scores(&vec![0.0; 400])).collect();
        let classes: Vec<ClassScores> = (0..5).map(|_| scores(&values)).collect();
        let found = paired_difference(&classes, &zero, 4000, 1).unwrap();
        let expected = 2.0 * 1.96 * deviation / 400.0_f64.sqrt();
        let width = |interval: [f64; 2]| interval[1] - interval[0];
        assert!((width(found.interval) / expected - 1.0).abs() < 0.06, "{found:?}");
        assert!((found.interval[0] - found.class_interval[0]).abs() < 1e-12);
        assert!(found.seed_half_width.unwrap() < 1e-12);

        let offsets = irregular(40, 2);
        let spread = mean_interval(&offsets).unwrap().deviation.unwrap();
        let zero: Vec<ClassScores> = (0..40).map(|_| scores(&[0.0; 3])).collect();
        let seeds: Vec<ClassScores> = offsets.iter().map(|&offset| scores(&[offset; 3])).collect();
        let found = paired_difference(&seeds, &zero, 4000, 1).unwrap();
        let expected = 2.0 * 1.96 * spread / 40.0_f64.sqrt();
        assert!((width(found.interval) / expected - 1.0).abs() < 0.06, "{found:?}");
        assert!(width(found.class_interval) < 1e-12);
    }

    #[test]
    fn verdicts_follow_the_intervals() {
        let of = |offset: f64, noise: f64| {
            let arm: Vec<ClassScores> = (0..4)
                .map(|seed| {
                    scores(
                        &irregular(50, seed)
                            .iter()
                            .map(|value| offset + noise * value)
                            .collect::<Vec<_>>(),
                    )
                })
                .collect();
            let zero: Vec<ClassScores> = (0..4).map(|_| scores(&[0.0; 50])).collect();
            paired_difference(&arm, &zero, 1000, 3).unwrap()
        };
        assert!(of(0.1, 0.01).is_settled() && !of(0.1, 0.01).needs_classes());
        assert!(!of(0.01, 1.0).is_settled() && of(0.01, 1.0).needs_classes());
        let one = paired_difference(&[scores(&[0.1, 0.3])], &[scores(&[0.0, 0.1])], 100, 0).unwrap();
        assert!(
            (one.difference - 0.15).abs() < 1e-12 && one.seeds_needed.is_none() && one.interval == one.class_interval
        );
        assert!(paired_difference(&[], &[], 10, 0).is_none());
        assert!(paired_difference(&[scores(&[0.1])], &[scores(&[0.1, 0.2])], 10, 0).is_none());
    }
}
