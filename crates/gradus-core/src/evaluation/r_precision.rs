//! R-precision: what share of the first R places the class fills.

use super::measure::{LoneQueries, Measure, mean_over_queries};
use super::ranks::{Horizon, PositiveRanks, RankedQuery};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "r_precision",
    summary: "share of the first R places that hold the class, R the number of its other members",
    source: "Musgrave et al., A Metric Learning Reality Check, ECCV 2020 (an old measure of text retrieval)",
};

/// `R-precision = 1/Q sum_q (relevant items among the first R) / R`.
///
/// `None` if no query is left. The ranks must reach to [`Horizon::RELEVANT`].
#[must_use]
pub fn r_precision(ranks: &PositiveRanks, lone: LoneQueries) -> Option<f64> {
    mean_over_queries(ranks, lone, |query| of_query(&ranks.query(query), 0))
}

pub(super) fn horizon(_: usize) -> Horizon {
    Horizon::RELEVANT.with_best_within(0)
}

/// `(relevant items among the first R) / R`.
pub(super) fn of_query(query: &RankedQuery<'_>, _: usize) -> f64 {
    query.within(query.relevant).count() as f64 / query.relevant as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_taken_of_r_places() {
        let ranks = PositiveRanks::from_lists([(2, vec![2, 3]), (4, vec![1, 2, 4]), (0, vec![])]);
        assert_eq!(r_precision(&ranks, LoneQueries::Drop), Some((0.5 + 0.75) / 2.0));
        assert_eq!(r_precision(&ranks, LoneQueries::Miss), Some((0.5 + 0.75) / 3.0));
    }
}
