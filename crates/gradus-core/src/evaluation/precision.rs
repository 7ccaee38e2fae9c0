//! Precision@K: what share of the K nearest belongs to the query.

use super::measure::Measure;
use super::ranks::{Horizon, RankedQuery};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "precision@K",
    summary: "share of the K nearest that are relevant; always divided by K",
    source: "an old measure of text retrieval; precision@1 is recall@1",
};

pub(super) fn horizon(k: usize) -> Horizon {
    Horizon::within(k).with_best_within(0)
}

/// `precision@K = (relevant items among the K nearest) / K`, also where fewer than K are relevant or there are fewer than K rows.
pub(super) fn of_query(query: &RankedQuery<'_>, k: usize) -> f64 {
    query.within(k).count() as f64 / k as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_divisor_is_k() {
        let query = RankedQuery::plain(3, &[1, 3, 9]);
        assert_eq!([1, 2, 3, 10].map(|k| of_query(&query, k)), [1.0, 0.5, 2.0 / 3.0, 0.3]);
    }
}
