//! How scores are spread, and what every threshold would do.

use serde::Serialize;

/// Bins of a histogram.
const BINS: usize = 50;
/// Points of a curve, at most.
const POINTS: usize = 200;

/// How the scores of both kinds are spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// Bounds of the bins, one more than there are bins.
    pub edges: Vec<f32>,
    /// Nearest items of the own class in each bin.
    pub genuine: Vec<usize>,
    /// Nearest items of other classes in each bin.
    pub impostors: Vec<usize>,
}

impl Histogram {
    pub(super) fn new(genuine: &[f32], impostors: &[f32]) -> Self {
        let all = || genuine.iter().chain(impostors).copied();
        let (low, high) = (
            all().fold(f32::INFINITY, f32::min),
            all().fold(f32::NEG_INFINITY, f32::max),
        );
        let (low, high) = if low < high {
            (low, high)
        } else {
            (low.min(1.0) - 0.01, low.min(1.0) + 0.01)
        };
        let width = (high - low) / BINS as f32;
        let count = |scores: &[f32]| {
            let mut counts = vec![0; BINS];
            for score in scores {
                counts[(((score - low) / width) as usize).min(BINS - 1)] += 1;
            }
            counts
        };
        Self {
            edges: (0..=BINS).map(|bin| low + width * bin as f32).collect(),
            genuine: count(genuine),
            impostors: count(impostors),
        }
    }
}

/// What one threshold would do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RocPoint {
    /// The threshold.
    pub threshold: f32,
    /// Share of other items accepted.
    pub false_match_rate: f64,
    /// Share of own items accepted.
    pub true_match_rate: f64,
}

/// The curve, from the highest threshold down, with thresholds at equal shares of the scores.
pub(super) fn roc(genuine: &[f32], impostors: &[f32]) -> Vec<RocPoint> {
    let mut all: Vec<f32> = genuine.iter().chain(impostors).copied().collect();
    all.sort_unstable_by(|a, b| b.total_cmp(a));
    let points = POINTS.min(all.len());
    let mut thresholds: Vec<f32> = (0..points)
        .map(|point| all[point * (all.len() - 1) / (points - 1).max(1)])
        .collect();
    thresholds.dedup();
    thresholds
        .into_iter()
        .map(|threshold| RocPoint {
            threshold,
            false_match_rate: share(impostors, threshold),
            true_match_rate: share(genuine, threshold),
        })
        .collect()
}

/// Share of scores that a threshold accepts.
pub(super) fn share(scores: &[f32], threshold: f32) -> f64 {
    let accepted = scores.iter().filter(|score| **score >= threshold).count();
    accepted as f64 / scores.len().max(1) as f64
}
