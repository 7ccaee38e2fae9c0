//! How similar pairs of one class and of two classes are: histograms, and what every threshold accepts.

use rayon::prelude::*;

use super::EvaluationError;
use super::blocks::{ranges, similarities};
use super::unit_rows::UnitRows;
use crate::EmbeddingSet;

/// Rows of one block of similarities.
const ROWS: usize = 256;
/// Most rows whose pairs are counted, spread evenly over the set.
const MOST_ROWS: usize = 20_000;
/// Stretches of similarity from -1 to 1: thresholds are known to 0.001.
const BINS: usize = 2000;

/// Counts of pairs by cosine similarity, in equal stretches from -1 to 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairScores {
    /// Pairs of one class.
    pub same: Vec<u64>,
    /// Pairs of two classes.
    pub different: Vec<u64>,
}

/// What a threshold does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OperatingPoint {
    /// Pairs at least as similar are accepted.
    pub threshold: f64,
    /// Share of pairs of two classes accepted.
    pub false_accept: f64,
    /// Share of pairs of one class accepted.
    pub true_accept: f64,
}

impl PairScores {
    /// Similarity in the middle of a stretch.
    #[must_use]
    pub fn centre(&self, bin: usize) -> f64 {
        (bin as f64 + 0.5) / self.same.len() as f64 * 2.0 - 1.0
    }

    /// The receiver operating characteristic, from the strictest threshold to the laxest: one point for each stretch with a pair.
    #[must_use]
    pub fn curve(&self) -> Vec<OperatingPoint> {
        let totals = [&self.same, &self.different].map(|counts| counts.iter().sum::<u64>().max(1) as f64);
        let mut accepted = [0_u64; 2];
        let mut points = vec![OperatingPoint {
            threshold: 1.0,
            false_accept: 0.0,
            true_accept: 0.0,
        }];
        for bin in (0..self.same.len()).rev() {
            if self.same[bin] + self.different[bin] == 0 {
                continue;
            }
            accepted[0] += self.same[bin];
            accepted[1] += self.different[bin];
            points.push(OperatingPoint {
                threshold: bin as f64 / self.same.len() as f64 * 2.0 - 1.0,
                false_accept: accepted[1] as f64 / totals[1],
                true_accept: accepted[0] as f64 / totals[0],
            });
        }
        points
    }

    /// The threshold that accepts most pairs of one class while the share of accepted pairs of two classes stays at `rate` or below.
    #[must_use]
    pub fn at_false_accept(&self, rate: f64) -> OperatingPoint {
        let curve = self.curve();
        let allowed = curve.iter().rev().find(|point| point.false_accept <= rate);
        allowed.copied().unwrap_or(curve[0])
    }
}

/// Counts all pairs of a set by cosine similarity; of more than 20,000 rows, the pairs of 20,000 evenly spread ones.
///
/// # Errors
/// Rows that are empty, inconsistent, zero or not finite.
pub fn pair_scores(set: &EmbeddingSet) -> Result<PairScores, EvaluationError> {
    let chosen;
    let set = if set.len() > MOST_ROWS {
        let indices: Vec<usize> = (0..MOST_ROWS).map(|at| at * set.len() / MOST_ROWS).collect();
        chosen = set.select(&indices);
        &chosen
    } else {
        set
    };
    let rows = UnitRows::in_given_order(set, "query")?;
    let blocks: Vec<_> = ranges(0..rows.padded_len(), ROWS).collect();
    let count = |first: usize| {
        let mut counts = [vec![0_u64; BINS], vec![0_u64; BINS]];
        let mut scores = Vec::new();
        for second in first..blocks.len() {
            similarities(&rows, blocks[first].clone(), &rows, blocks[second].clone(), &mut scores);
            for (query, row) in blocks[first].clone().zip(scores.chunks_exact(blocks[second].len())) {
                for (other, &score) in blocks[second].clone().zip(row) {
                    if query < other && other < rows.len() {
                        let bin = ((f64::from(score) + 1.0) / 2.0 * BINS as f64) as usize;
                        let kind = usize::from(set.labels[query] != set.labels[other]);
                        counts[kind][bin.min(BINS - 1)] += 1;
                    }
                }
            }
        }
        counts
    };
    let zero = || [vec![0_u64; BINS], vec![0_u64; BINS]];
    let [same, different] = (0..blocks.len()).into_par_iter().map(count).reduce(zero, |mut a, b| {
        for (a, b) in a.iter_mut().flatten().zip(b.iter().flatten()) {
            *a += b;
        }
        a
    });
    Ok(PairScores { same, different })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::{random_set, similarity_matrix};
    use crate::evaluation::{VerificationOptions, verification};

    #[test]
    fn counts_and_curve_equal_a_naive_loop_and_verification() {
        let set = random_set(8, 611, 12, 30);
        let scores = pair_scores(&set).unwrap();
        let matrix = similarity_matrix(&set, &set);
        let [mut same, mut accepted] = [0_u64; 2];
        for (a, row) in matrix.iter().enumerate() {
            for (b, similarity) in row.iter().enumerate().skip(a + 1) {
                if set.labels[a] == set.labels[b] {
                    same += 1;
                    accepted += u64::from(*similarity >= 0.5);
                }
            }
        }
        assert_eq!(scores.same.iter().sum::<u64>(), same);
        let all = (set.len() * (set.len() - 1) / 2) as u64;
        assert_eq!(scores.different.iter().sum::<u64>(), all - same);
        let curve = scores.curve();
        let point = curve.iter().find(|point| point.threshold <= 0.5).unwrap();
        assert!((point.true_accept - accepted as f64 / same as f64).abs() < 0.01);
        let last = curve.last().unwrap();
        assert_eq!((last.false_accept, last.true_accept), (1.0, 1.0));
        let exact = verification(&UnitRows::new(&set, "query").unwrap(), &VerificationOptions::default()).unwrap();
        for (rate, tar) in exact.tar_at_far.iter().take(2) {
            let found = scores.at_false_accept(*rate);
            assert!(
                found.false_accept <= *rate && (found.true_accept - tar).abs() < 0.02,
                "{found:?} {tar}"
            );
        }
        let area: f64 = curve
            .windows(2)
            .map(|w| (w[1].false_accept - w[0].false_accept) * f64::midpoint(w[0].true_accept, w[1].true_accept))
            .sum();
        assert!((area - exact.auc).abs() < 1e-3, "{area} {}", exact.auc);
    }
}
