//! Mean reciprocal rank: how far down the first relevant item stands.

use super::measure::Measure;
use super::ranks::{Horizon, RankedQuery};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "mrr",
    summary: "mean over queries of one over the rank of the nearest relevant item",
    source: "Voorhees, The TREC-8 Question Answering Track Report, 1999",
};

pub(super) fn horizon(_: usize) -> Horizon {
    Horizon::BEST
}

/// `RR = 1 / rank of the nearest relevant item` (Voorhees 1999).
pub(super) fn of_query(query: &RankedQuery<'_>, _: usize) -> f64 {
    query.ranks.first().map_or(0.0, |&rank| 1.0 / f64::from(rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_counts() {
        assert_eq!(of_query(&RankedQuery::plain(2, &[4, 5]), 0), 0.25);
        assert_eq!(of_query(&RankedQuery::plain(0, &[]), 0), 0.0);
    }
}
