//! MAP@R: how purely the class fills the first R places, early places counting more.

use super::measure::{LoneQueries, Measure, mean_over_queries};
use super::ranks::{Horizon, PositiveRanks, RankedQuery};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "map@r",
    summary: "mean average precision over the first R places, R the number of other members of the class",
    source: "Musgrave et al., A Metric Learning Reality Check, ECCV 2020",
};

/// `MAP@R = 1/Q sum_q 1/R sum_{i=1..R} P(i) rel(i)`, with `P(i)` the share of relevant items among the first i
/// (Musgrave et al. 2020).
///
/// `None` if no query is left. The ranks must reach to [`Horizon::RELEVANT`].
///
/// ```
/// use gradus_core::evaluation::{LoneQueries, PositiveRanks, map_at_r};
/// // R = 3, relevant at places 1 and 3: (1/1 + 2/3) / 3.
/// let ranks = PositiveRanks::from_lists([(3, vec![1, 3])]);
/// assert_eq!(map_at_r(&ranks, LoneQueries::Miss), Some((1.0 + 2.0 / 3.0) / 3.0));
/// ```
#[must_use]
pub fn map_at_r(ranks: &PositiveRanks, lone: LoneQueries) -> Option<f64> {
    mean_over_queries(ranks, lone, |query| of_query(&ranks.query(query), 0))
}

pub(super) fn horizon(_: usize) -> Horizon {
    Horizon::RELEVANT.with_best_within(0)
}

/// `1/R sum_{i<=R} P(i) rel(i)`.
pub(super) fn of_query(query: &RankedQuery<'_>, _: usize) -> f64 {
    let precision = |(found, rank): (usize, u32)| (found + 1) as f64 / f64::from(rank);
    query.within(query.relevant).enumerate().map(precision).sum::<f64>() / query.relevant as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_beyond_r_do_not_count_and_misses_pull_down() {
        let ranks = PositiveRanks::from_lists([(2, vec![1, 2]), (2, vec![2, 3]), (1, vec![4]), (0, vec![])]);
        assert_eq!(map_at_r(&ranks, LoneQueries::Miss), Some((1.0 + 0.25) / 4.0));
        assert_eq!(map_at_r(&ranks, LoneQueries::Drop), Some((1.0 + 0.25) / 3.0));
    }
}
