//! Average precision: the precision at every relevant item, averaged. Three conventions, three names.

use super::measure::Measure;
use super::ranks::{Horizon, RankedQuery};

/// Name and origin, over the whole ranking.
pub(super) const MEASURE: Measure = Measure {
    name: "map",
    summary: "mean average precision over the whole ranking: precision at each relevant item, divided by their number R",
    source: "an old measure of text retrieval; as in Zheng et al., Scalable Person Re-identification, ICCV 2015",
};

/// Name and origin, cut at K.
pub(super) const AT_K: Measure = Measure {
    name: "map@K",
    summary: "mean average precision over the first K places, divided by min(R, K): 1 for a perfect ranking",
    source: "evaluation of recommenders and of image retrieval challenges (Google Landmarks); divides by min(R, K)",
};

/// Name and origin, cut at K and divided by the hits.
pub(super) const HITS_AT_K: Measure = Measure {
    name: "map_hits@K",
    summary: "mean average precision over the first K places, divided by the relevant items found there: forgives what is not found",
    source: "the convention of torchmetrics (RetrievalMAP with top_k) and open-metric-learning",
};

pub(super) fn whole(_: usize) -> Horizon {
    Horizon::EVERYTHING
}

pub(super) fn within(k: usize) -> Horizon {
    Horizon::within(k).with_best_within(0)
}

/// `AP = 1/R sum_i P(i) rel(i)` over the whole ranking, `P(i)` the share of relevant items among the first i.
pub(super) fn of_query(query: &RankedQuery<'_>, _: usize) -> f64 {
    sum(query, usize::MAX) / query.relevant as f64
}

/// `AP@K = 1/min(R, K) sum_{i<=K} P(i) rel(i)`.
pub(super) fn of_query_at_k(query: &RankedQuery<'_>, k: usize) -> f64 {
    sum(query, k) / query.relevant.min(k) as f64
}

/// `AP_hits@K = 1/H sum_{i<=K} P(i) rel(i)`, H the relevant items among the first K; 0 without any.
pub(super) fn of_query_by_hits(query: &RankedQuery<'_>, k: usize) -> f64 {
    sum(query, k) / query.within(k).count().max(1) as f64
}

fn sum(query: &RankedQuery<'_>, k: usize) -> f64 {
    let precision = |(found, rank): (usize, u32)| (found + 1) as f64 / f64::from(rank);
    query.within(k).enumerate().map(precision).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divisors_differ() {
        let query = RankedQuery::plain(4, &[1, 3, 10, 40]);
        let first = 1.0 + 2.0 / 3.0;
        assert!((of_query(&query, 0) - (first + 0.3 + 0.1) / 4.0).abs() < 1e-15);
        assert_eq!(of_query_at_k(&query, 3), first / 3.0);
        assert_eq!(of_query_at_k(&query, 5), first / 4.0);
        assert_eq!(of_query_by_hits(&query, 5), first / 2.0);
        assert_eq!(of_query_by_hits(&RankedQuery::plain(1, &[9]), 5), 0.0);
    }
}
