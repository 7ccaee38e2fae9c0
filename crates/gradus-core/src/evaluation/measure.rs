//! What a measure is called and where it comes from.

/// Name and origin of a measure, for listings and explanations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Key in the results; `K` stands for a number, `FACTOR` for the name of a factor.
    pub name: &'static str,
    /// What it says, in one line.
    pub summary: &'static str,
    /// Who defined it.
    pub source: &'static str,
}

/// What happens to a query whose class has no other member to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoneQueries {
    /// It counts as a miss in every retrieval metric, as in the papers of the benchmarks.
    #[default]
    Miss,
    /// It is left out of the means, as pytorch-metric-learning does.
    Drop,
}

/// Mean over queries of a value that lone queries do not have; `None` if no query is left.
pub(super) fn mean_over_queries(
    ranks: &super::PositiveRanks,
    lone: LoneQueries,
    value: impl Fn(usize) -> f64,
) -> Option<f64> {
    let mut sum = 0.0;
    let mut counted = 0_usize;
    for query in 0..ranks.queries() {
        if ranks.relevant(query) > 0 {
            sum += value(query);
            counted += 1;
        } else if lone == LoneQueries::Miss {
            counted += 1;
        }
    }
    (counted > 0).then(|| sum / counted as f64)
}
