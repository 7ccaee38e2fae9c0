//! NDCG@K: relevant items early, the most relevant ones first.

use super::measure::Measure;
use super::ranks::{Horizon, RankedQuery};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "ndcg@K",
    summary: "discounted gain of the K nearest over that of the best possible order; the gain is the degree of relevance",
    source: "Järvelin and Kekäläinen, Cumulated Gain-based Evaluation of IR Techniques, ACM TOIS 2002",
};

pub(super) fn horizon(k: usize) -> Horizon {
    Horizon::within(k).with_best_within(0)
}

/// `NDCG@K = sum_{i<=K} g(i) / log2(i + 1)` over the same sum of the best order (Järvelin and Kekäläinen 2002).
///
/// The gain g is 1 for a member of the class and the share of common labels where items have several.
pub(super) fn of_query(query: &RankedQuery<'_>, k: usize) -> f64 {
    let discount = |rank: f64| 1.0 / (rank + 1.0).log2();
    let gain = |place: usize| query.degrees.map_or(1.0, |degrees| f64::from(degrees[place]));
    let found: f64 = query
        .within(k)
        .enumerate()
        .map(|(place, rank)| gain(place) * discount(f64::from(rank)))
        .sum();
    let mut best: Vec<f64> = (0..query.relevant).map(gain).collect();
    best.sort_unstable_by(|a, b| b.total_cmp(a));
    let ideal: f64 = best
        .iter()
        .take(k)
        .enumerate()
        .map(|(place, gain)| gain * discount(place as f64 + 1.0))
        .sum();
    found / ideal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_and_graded() {
        let plain = RankedQuery::plain(2, &[2, 5]);
        let ideal = 1.0 + 1.0 / 3.0_f64.log2();
        assert!((of_query(&plain, 10) - (1.0 / 3.0_f64.log2() + 1.0 / 6.0_f64.log2()) / ideal).abs() < 1e-15);
        assert!((of_query(&plain, 1)).abs() < 1e-15);
        let graded = RankedQuery {
            relevant: 2,
            ranks: &[1, 2],
            degrees: Some(&[0.25, 1.0]),
        };
        let second = 1.0 / 3.0_f64.log2();
        assert!((of_query(&graded, 2) - (0.25 + second) / (1.0 + 0.25 * second)).abs() < 1e-12);
    }
}
