//! Means and diagonal covariances of the training classes, as the class-covariance generator uses them.

use gradus_core::EmbeddingSet;
use rayon::prelude::*;

use super::arithmetic::rows_by_label;
use super::synthesis::ClassCovarianceConfig;
use crate::state::NamedArray;

/// Class means and diagonal covariances over the training set (IAA: Fu et al., "Intra-class Adaptive Augmentation", TMM
/// 2022), on the host.
///
/// A refresh moves what is known of a class toward what is observed: `new = momentum * old + (1 - momentum) * observed`.
/// Classes with few samples (`n <= small_class`) borrow from their neighbours:
/// `Sigma' = (1 - a) Sigma + a (0.9 Sigma_near + 0.1 Sigma_all)`, `a = 1 / (1 + log(1 + 0.1 (n - 1)))`, where `Sigma_near` averages the
/// classes with the nearest means, class i weighing `n_i exp(-|mu_i^2 - mu_k^2|^2/2 - |Sigma_i - Sigma_k|^2/2)`, and `Sigma_all` is
/// the mean of all classes weighted by their sizes.
///
/// Everything kept is `f32`, so that [`to_arrays`](Self::to_arrays) and [`from_arrays`](Self::from_arrays) lose no bit and a resumed run goes
/// on exactly.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassStatistics {
    momentum: f32,
    neighbours: usize,
    small_class: usize,
    dim: usize,
    /// Ascending.
    labels: Vec<u32>,
    counts: Vec<u32>,
    /// `[classes, dim]`.
    means: Vec<f32>,
    /// `[classes, dim]`.
    variances: Vec<f32>,
    /// Square roots of the blended variances, `[classes + 1, dim]`: the last row stands for a class never seen.
    deviations: Vec<f32>,
}

impl Default for ClassStatistics {
    fn default() -> Self {
        Self::new(&ClassCovarianceConfig::default())
    }
}

impl ClassStatistics {
    /// Statistics of nothing yet.
    #[must_use]
    pub fn new(config: &ClassCovarianceConfig) -> Self {
        Self {
            momentum: config.momentum as f32,
            neighbours: config.neighbours,
            small_class: config.small_class,
            dim: 0,
            labels: Vec::new(),
            counts: Vec::new(),
            means: Vec::new(),
            variances: Vec::new(),
            deviations: Vec::new(),
        }
    }

    /// Number of classes seen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether no class was seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Width of the embeddings seen.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Mean and variance of a class, before blending.
    #[must_use]
    pub fn class(&self, label: u32) -> Option<(&[f32], &[f32])> {
        let position = self.labels.binary_search(&label).ok()?;
        let range = position * self.dim..(position + 1) * self.dim;
        Some((&self.means[range.clone()], &self.variances[range]))
    }

    /// Blended standard deviation of each coordinate inside a class; for a class never seen, that of all classes together.
    /// `None` before the first refresh.
    #[must_use]
    pub fn deviation(&self, label: u32) -> Option<&[f32]> {
        if self.is_empty() {
            return None;
        }
        let position = self.labels.binary_search(&label).unwrap_or(self.labels.len());
        Some(&self.deviations[position * self.dim..(position + 1) * self.dim])
    }

    /// Refreshes the statistics with embeddings of the training set. Classes not among them keep what is known; embeddings of
    /// another width than before start everything anew.
    pub fn observe(&mut self, embeddings: &EmbeddingSet) {
        if embeddings.is_empty() || embeddings.dim == 0 {
            return;
        }
        if embeddings.dim != self.dim {
            self.dim = embeddings.dim;
            self.labels.clear();
            self.counts.clear();
            self.means.clear();
            self.variances.clear();
        }
        let dim = self.dim;
        let classes: Vec<(u32, Vec<usize>)> = rows_by_label(&embeddings.labels).into_iter().collect();
        let observed: Vec<(u32, u32, Vec<f64>, Vec<f64>)> = classes
            .par_iter()
            .map(|(label, rows)| {
                let (mean, variance) = moments(embeddings, rows);
                (*label, rows.len() as u32, mean, variance)
            })
            .collect();
        let keep = f64::from(self.momentum);
        for (label, count, mean, variance) in observed {
            match self.labels.binary_search(&label) {
                Ok(position) => {
                    self.counts[position] = count;
                    let range = position * dim..(position + 1) * dim;
                    blend(&mut self.means[range.clone()], &mean, keep);
                    blend(&mut self.variances[range], &variance, keep);
                }
                Err(position) => {
                    self.labels.insert(position, label);
                    self.counts.insert(position, count);
                    let at = position * dim;
                    self.means.splice(at..at, mean.into_iter().map(|value| value as f32));
                    self.variances
                        .splice(at..at, variance.into_iter().map(|value| value as f32));
                }
            }
        }
        self.blend_neighbours();
    }

    fn row<'a>(&self, values: &'a [f32], position: usize) -> &'a [f32] {
        &values[position * self.dim..(position + 1) * self.dim]
    }

    fn blend_neighbours(&mut self) {
        let dim = self.dim;
        let total: f64 = self.counts.iter().map(|&count| f64::from(count)).sum();
        let mut overall = vec![0.0f64; dim];
        for (position, &count) in self.counts.iter().enumerate() {
            for (sum, &value) in overall.iter_mut().zip(self.row(&self.variances, position)) {
                *sum += f64::from(count) * f64::from(value);
            }
        }
        overall.iter_mut().for_each(|value| *value /= total);
        let this = &*self;
        let mut deviations: Vec<f32> = (0..self.labels.len())
            .into_par_iter()
            .flat_map_iter(|position| {
                this.blended(position, &overall)
                    .into_iter()
                    .map(|value| value.max(0.0).sqrt() as f32)
            })
            .collect();
        deviations.extend(overall.iter().map(|value| value.max(0.0).sqrt() as f32));
        self.deviations = deviations;
    }

    /// The variances of a class, blended with its neighbours' where it is small.
    fn blended(&self, position: usize, overall: &[f64]) -> Vec<f64> {
        let own: Vec<f64> = self
            .row(&self.variances, position)
            .iter()
            .map(|&value| f64::from(value))
            .collect();
        let size = self.counts[position] as usize;
        if size > self.small_class {
            return own;
        }
        let near = self.near(position).unwrap_or_else(|| overall.to_vec());
        let share = 1.0 / (1.0 + (1.0 + 0.1 * (size as f64 - 1.0)).ln());
        own.iter()
            .zip(near.iter().zip(overall))
            .map(|(own, (near, all))| (1.0 - share) * own + share * (0.9 * near + 0.1 * all))
            .collect()
    }

    /// Weighted mean of the variances of the classes with the nearest means; `None` without another class.
    fn near(&self, position: usize) -> Option<Vec<f64>> {
        let mean = self.row(&self.means, position);
        let mut others: Vec<(f64, usize)> = (0..self.labels.len())
            .filter(|&other| other != position)
            .map(|other| {
                (
                    squared_distance(mean, self.row(&self.means, other), |value| value),
                    other,
                )
            })
            .collect();
        others.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        others.truncate(self.neighbours);
        let variance = self.row(&self.variances, position);
        let exponents: Vec<f64> = others
            .iter()
            .map(|&(_, other)| {
                let means = squared_distance(mean, self.row(&self.means, other), |value| value * value);
                let variances = squared_distance(variance, self.row(&self.variances, other), |value| value);
                f64::from(self.counts[other]).ln() - 0.5 * (means + variances)
            })
            .collect();
        // Taking out the greatest exponent changes no ratio and keeps far classes from all weighing nothing.
        let top = exponents.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = exponents.iter().map(|exponent| (exponent - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        if !(total.is_finite() && total > 0.0) {
            return None;
        }
        let mut near = vec![0.0; self.dim];
        for (weight, (_, other)) in weights.iter().zip(&others) {
            for (sum, &value) in near.iter_mut().zip(self.row(&self.variances, *other)) {
                *sum += weight / total * f64::from(value);
            }
        }
        Some(near)
    }

    /// Everything, as arrays for a checkpoint.
    #[must_use]
    pub fn to_arrays(&self) -> Vec<NamedArray> {
        let array = |name: &str, shape: Vec<usize>, values: Vec<f32>| NamedArray {
            name: name.to_owned(),
            shape,
            values,
        };
        let classes = self.labels.len();
        let settings = vec![self.momentum, self.neighbours as f32, self.small_class as f32];
        // Labels and counts are dense class indices and class sizes, far below 2^24, up to which f32 holds every integer.
        vec![
            array(SETTINGS, vec![3], settings),
            array(
                LABELS,
                vec![classes],
                self.labels.iter().map(|&label| label as f32).collect(),
            ),
            array(
                COUNTS,
                vec![classes],
                self.counts.iter().map(|&count| count as f32).collect(),
            ),
            array(MEANS, vec![classes, self.dim], self.means.clone()),
            array(VARIANCES, vec![classes, self.dim], self.variances.clone()),
        ]
    }

    /// Statistics as [`to_arrays`](Self::to_arrays) gave them; other arrays are ignored.
    ///
    /// # Errors
    /// If an array is missing or contradicts another.
    pub fn from_arrays(arrays: &[NamedArray]) -> Result<Self, String> {
        let find = |name: &str| {
            let array = arrays.iter().find(|array| array.name == name);
            array.ok_or_else(|| {
                format!("the class statistics lack the array `{name}`: the checkpoint is damaged or of another run")
            })
        };
        let wrong = |array: &NamedArray, expected: String| {
            format!(
                "the array `{}` of the class statistics has shape {:?} and {} values: expected {expected}; the checkpoint is damaged",
                array.name,
                array.shape,
                array.values.len()
            )
        };
        let (settings, labels, counts) = (find(SETTINGS)?, find(LABELS)?, find(COUNTS)?);
        let (means, variances) = (find(MEANS)?, find(VARIANCES)?);
        let &[momentum, neighbours, small_class] = settings.values.as_slice() else {
            return Err(wrong(settings, "3 values".to_owned()));
        };
        let classes = labels.values.len();
        if counts.values.len() != classes {
            return Err(wrong(counts, format!("{classes} values, one for each label")));
        }
        let &[rows, dim] = means.shape.as_slice() else {
            return Err(wrong(means, "two axes".to_owned()));
        };
        for array in [means, variances] {
            if array.shape != [classes, dim] || rows != classes || Some(array.values.len()) != classes.checked_mul(dim)
            {
                return Err(wrong(array, format!("shape [{classes}, {dim}]")));
            }
        }
        let integers = |array: &NamedArray| -> Result<Vec<u32>, String> {
            let valid = |value: &f32| value.fract() == 0.0 && (0.0..=16_777_216.0).contains(value);
            if array.values.iter().all(valid) {
                Ok(array.values.iter().map(|&value| value as u32).collect())
            } else {
                Err(wrong(array, "integers of at least 0".to_owned()))
            }
        };
        let (labels, counts) = (integers(labels)?, integers(counts)?);
        if labels.windows(2).any(|pair| pair[0] >= pair[1]) || counts.contains(&0) {
            return Err(
                "the class statistics hold labels out of order or classes of no sample: the checkpoint is damaged"
                    .to_owned(),
            );
        }
        let mut statistics = Self {
            momentum,
            neighbours: neighbours as usize,
            small_class: small_class as usize,
            dim,
            labels,
            counts,
            means: means.values.clone(),
            variances: variances.values.clone(),
            deviations: Vec::new(),
        };
        // A pure function of the rest, so it need not be stored.
        if !statistics.is_empty() {
            statistics.blend_neighbours();
        }
        Ok(statistics)
    }
}

const SETTINGS: &str = "statistics.settings";
const LABELS: &str = "statistics.labels";
const COUNTS: &str = "statistics.counts";
const MEANS: &str = "statistics.means";
const VARIANCES: &str = "statistics.variances";

/// Mean and population variance of each coordinate over some rows.
fn moments(embeddings: &EmbeddingSet, rows: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let count = rows.len() as f64;
    let mut mean = vec![0.0; embeddings.dim];
    for &row in rows {
        mean.iter_mut()
            .zip(embeddings.row(row))
            .for_each(|(sum, &value)| *sum += f64::from(value));
    }
    mean.iter_mut().for_each(|value| *value /= count);
    let mut variance = vec![0.0; embeddings.dim];
    for &row in rows {
        for ((sum, &value), mean) in variance.iter_mut().zip(embeddings.row(row)).zip(&mean) {
            *sum += (f64::from(value) - mean).powi(2);
        }
    }
    variance.iter_mut().for_each(|value| *value /= count);
    (mean, variance)
}

fn blend(known: &mut [f32], observed: &[f64], keep: f64) {
    for (known, observed) in known.iter_mut().zip(observed) {
        *known = (keep * f64::from(*known) + (1.0 - keep) * observed) as f32;
    }
}

fn squared_distance(a: &[f32], b: &[f32], map: impl Fn(f64) -> f64) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&x, &y)| (map(f64::from(x)) - map(f64::from(y))).powi(2))
        .sum()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn set(rows: &[(u32, [f32; 2])]) -> EmbeddingSet {
        EmbeddingSet {
            dim: 2,
            values: rows.iter().flat_map(|row| row.1).collect(),
            labels: rows.iter().map(|row| row.0).collect(),
            ids: vec![String::new(); rows.len()],
        }
    }

    fn close(a: &[f32], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(&a, b)| (f64::from(a) - b).abs() < 1e-6)
    }

    #[test]
    fn means_and_variances_are_those_of_the_rows_and_move_with_momentum() {
        let mut statistics = ClassStatistics::default();
        statistics.observe(&set(&[(5, [1.0, 0.0]), (2, [0.0, 2.0]), (5, [3.0, 4.0])]));
        let (mean, variance) = statistics.class(5).unwrap();
        assert!(close(mean, &[2.0, 2.0]) && close(variance, &[1.0, 4.0]));
        let (mean, variance) = statistics.class(2).unwrap();
        assert!(close(mean, &[0.0, 2.0]) && close(variance, &[0.0, 0.0]));
        assert!(statistics.class(3).is_none());
        statistics.observe(&set(&[(5, [7.0, 2.0]), (9, [1.0, 1.0])]));
        let (mean, variance) = statistics.class(5).unwrap();
        assert!(close(mean, &[0.8 * 2.0 + 0.2 * 7.0, 2.0]) && close(variance, &[0.8, 3.2]));
        assert_eq!(statistics.labels, [2, 5, 9]);
        assert!(
            close(statistics.class(2).unwrap().0, &[0.0, 2.0]),
            "a class not seen this time stays"
        );
    }

    #[test]
    fn small_classes_borrow_from_their_neighbours() {
        let rows = [
            (0, [0.1, 0.0]),
            (0, [0.3, 0.0]),
            (1, [0.0, 0.5]),
            (1, [0.0, 0.9]),
            (1, [0.6, 0.7]),
            (2, [-0.5, -0.5]),
        ];
        let mut statistics = ClassStatistics::default();
        statistics.observe(&set(&rows));
        let counts = [2.0, 3.0, 1.0];
        let mean = [[0.2, 0.0], [0.2, 0.7], [-0.5, -0.5]];
        let variance = [[0.01, 0.0], [0.08, 0.08 / 3.0], [0.0, 0.0]];
        let square = |a: f64, b: f64| (a - b) * (a - b);
        let all: Vec<f64> = (0..2)
            .map(|k| (0..3).map(|c| counts[c] * variance[c][k]).sum::<f64>() / 6.0)
            .collect();
        for c in 0..3 {
            let a = 1.0 / (1.0 + (1.0 + 0.1 * (counts[c] - 1.0f64)).ln());
            let weight = |i: usize| {
                let means: f64 = (0..2)
                    .map(|k| square(mean[i][k] * mean[i][k], mean[c][k] * mean[c][k]))
                    .sum();
                let variances: f64 = (0..2).map(|k| square(variance[i][k], variance[c][k])).sum();
                counts[i] * (-means / 2.0 - variances / 2.0).exp()
            };
            let others: Vec<usize> = (0..3).filter(|&i| i != c).collect();
            let total: f64 = others.iter().map(|&i| weight(i)).sum();
            let expected: Vec<f64> = (0..2)
                .map(|k| {
                    let near: f64 = others.iter().map(|&i| weight(i) / total * variance[i][k]).sum();
                    ((1.0 - a) * variance[c][k] + a * (0.9 * near + 0.1 * all[k])).sqrt()
                })
                .collect();
            let got = statistics.deviation(c as u32).unwrap();
            assert!(close(got, &expected), "class {c}: {got:?}, not {expected:?}");
        }
        let pooled: Vec<f64> = all.iter().map(|value| value.sqrt()).collect();
        assert!(close(statistics.deviation(77).unwrap(), &pooled), "a class never seen");
    }

    #[test]
    fn large_classes_keep_their_own_variance_and_only_the_nearest_lend() {
        let config = ClassCovarianceConfig {
            small_class: 2,
            neighbours: 1,
            ..Default::default()
        };
        let mut statistics = ClassStatistics::new(&config);
        let large = [(0, [1.0, 0.0]), (0, [0.0, 0.0]), (0, [0.5, 0.0])];
        let near = [(1, [0.5, 0.1]), (2, [0.5, 5.0]), (2, [0.5, 9.0])];
        statistics.observe(&set(&[&large[..], &near[..]].concat()));
        assert!(close(statistics.deviation(0).unwrap(), &[(1.0f64 / 6.0).sqrt(), 0.0]));
        // Class 1 has one row: all of it is borrowed, 0.9 from class 0 alone.
        let all = [3.0 * (1.0 / 6.0) / 6.0, 2.0 * 4.0 / 6.0];
        let expected = [(0.9f64 / 6.0 + 0.1 * all[0]).sqrt(), (0.1f64 * all[1]).sqrt()];
        assert!(close(statistics.deviation(1).unwrap(), &expected));
    }

    #[test]
    fn arrays_lose_nothing_and_damage_is_refused() {
        let mut statistics = ClassStatistics::default();
        assert_eq!(
            ClassStatistics::from_arrays(&statistics.to_arrays()).unwrap(),
            statistics
        );
        statistics.observe(&set(&[(5, [1.0, 0.1]), (2, [0.3, 2.0]), (5, [3.0, 4.0])]));
        let arrays = statistics.to_arrays();
        let mut again = ClassStatistics::from_arrays(&arrays).unwrap();
        assert_eq!(again, statistics);
        let next = set(&[(5, [0.7, 0.1]), (8, [0.3, 2.0])]);
        again.observe(&next);
        statistics.observe(&next);
        assert_eq!(again, statistics);
        for damaged in 0..arrays.len() {
            let mut missing = arrays.clone();
            missing.remove(damaged);
            assert!(
                ClassStatistics::from_arrays(&missing)
                    .unwrap_err()
                    .contains(&arrays[damaged].name)
            );
            let mut short = arrays.clone();
            short[damaged].values.pop();
            assert!(ClassStatistics::from_arrays(&short).is_err());
        }
        let mut lying = arrays;
        lying[1].values[0] = -1.0;
        assert!(ClassStatistics::from_arrays(&lying).is_err());
    }

    #[test]
    fn nothing_observed_changes_nothing() {
        let mut statistics = ClassStatistics::default();
        statistics.observe(&EmbeddingSet::default());
        assert!(statistics.is_empty() && statistics.deviation(0).is_none());
        statistics.observe(&set(&[(0, [1.0, 0.0])]));
        assert_eq!(statistics.deviation(0).unwrap(), [0.0, 0.0]);
    }
}
