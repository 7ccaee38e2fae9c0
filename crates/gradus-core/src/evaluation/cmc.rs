//! CMC@K: the curve of re-identification.

use super::measure::Measure;
use super::ranks::{Horizon, RankedQuery};

/// Name and origin.
pub(super) const MEASURE: Measure = Measure {
    name: "cmc@K",
    summary: "cumulative matching characteristic: share of queries whose first match stands within K; with cameras, after junk is removed",
    source: "Gray et al., Evaluating Appearance Models for Recognition, PETS 2007; junk after Zheng et al., ICCV 2015",
};

pub(super) fn horizon(k: usize) -> Horizon {
    Horizon::BEST.with_best_within(k)
}

/// `CMC@K = [rank of the nearest relevant item <= K]`: Recall@K under the name it has in re-identification.
pub(super) fn of_query(query: &RankedQuery<'_>, k: usize) -> f64 {
    f64::from(u8::from(query.ranks.first().is_some_and(|&rank| rank as usize <= k)))
}
