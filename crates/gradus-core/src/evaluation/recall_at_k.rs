//! Recall@K: is there any member of the class among the K nearest?

use super::measure::{LoneQueries, Measure, mean_over_queries};
use super::ranks::{Horizon, PositiveRanks, RankedQuery};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "recall@K",
    summary: "share of queries with at least one member of their class among the K nearest",
    source: "Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016 (after Jegou et al. 2011)",
};

/// `Recall@K = 1/Q sum_q [rank of the best relevant item of q <= K]` (Oh Song et al. 2016).
///
/// `None` if no query is left. Needs no more than the best rank, so K may be anything up to the size of the gallery.
///
/// ```
/// use gradus_core::evaluation::{LoneQueries, PositiveRanks, recall_at_k};
/// let ranks = PositiveRanks::from_lists([(2, vec![1, 4]), (1, vec![3]), (0, vec![])]);
/// assert_eq!(recall_at_k(&ranks, 1, LoneQueries::Drop), Some(0.5));
/// assert_eq!(recall_at_k(&ranks, 3, LoneQueries::Miss), Some(2.0 / 3.0));
/// ```
#[must_use]
pub fn recall_at_k(ranks: &PositiveRanks, k: usize, lone: LoneQueries) -> Option<f64> {
    mean_over_queries(ranks, lone, |query| of_query(&ranks.query(query), k))
}

pub(super) fn horizon(k: usize) -> Horizon {
    Horizon::BEST.with_best_within(k)
}

/// `[rank of the nearest relevant item <= K]`.
pub(super) fn of_query(query: &RankedQuery<'_>, k: usize) -> f64 {
    f64::from(u8::from(query.ranks.first().is_some_and(|&rank| rank as usize <= k)))
}

/// The levels K the papers of a benchmark report: 1, 10, 100, 1000 for Stanford Online Products (`sop`);
/// 1, 10, 20, 30, 40, 50 for In-Shop (`in-shop`); 1, 2, 4, 8 for everything else.
#[must_use]
pub fn recall_levels(layout: &str) -> Vec<usize> {
    match layout {
        "sop" | "stanford-online-products" => vec![1, 10, 100, 1000],
        "in-shop" => vec![1, 10, 20, 30, 40, 50],
        _ => vec![1, 2, 4, 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_up_to_and_including_k() {
        let ranks = PositiveRanks::from_lists([(1, vec![1]), (1, vec![2]), (3, vec![5]), (0, vec![])]);
        let recall = |k, lone| recall_at_k(&ranks, k, lone).unwrap();
        assert_eq!(
            [1, 2, 4, 5, 9].map(|k| recall(k, LoneQueries::Miss)),
            [0.25, 0.5, 0.5, 0.75, 0.75]
        );
        assert_eq!(
            [1, 2, 4, 5].map(|k| recall(k, LoneQueries::Drop)),
            [1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 1.0]
        );
        assert_eq!(
            recall_at_k(&PositiveRanks::from_lists([(0, vec![])]), 1, LoneQueries::Drop),
            None
        );
    }

    #[test]
    fn benchmarks_have_their_own_levels() {
        assert_eq!(recall_levels("sop"), [1, 10, 100, 1000]);
        assert_eq!(recall_levels("in-shop"), [1, 10, 20, 30, 40, 50]);
        assert_eq!(recall_levels("cub"), [1, 2, 4, 8]);
    }
}
