//! The measures that follow from where the relevant items of each query stand, several at once.

use rayon::prelude::*;

use super::measure::LoneQueries;
use super::ranks::{Horizon, PositiveRanks, RankedQuery};
use super::registry::{Asked, Compute, asked, every};
use super::{Evaluation, EvaluationError};

/// Some retrieval metrics, ready to be computed from any ranking.
///
/// ```
/// use gradus_core::evaluation::{LoneQueries, PositiveRanks, RetrievalMeasures};
/// let metrics = RetrievalMeasures::new(Some(&["recall".into(), "mrr".into()]), &[1, 2])?;
/// // Two relevant items at ranks 2 and 3; one at rank 1.
/// let ranks = PositiveRanks::from_lists([(2, vec![2, 3]), (1, vec![1])]);
/// let means = metrics.means(&ranks, LoneQueries::Miss);
/// assert_eq!((means.get("recall@1"), means.get("recall@2"), means.get("mrr")), (Some(0.5), Some(1.0), Some(0.75)));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
#[derive(Clone)]
#[allow(missing_debug_implementations, reason = "a list of functions")]
pub struct RetrievalMeasures {
    all: Vec<One>,
}

#[derive(Clone)]
struct One {
    key: String,
    k: usize,
    horizon: Horizon,
    value: fn(&RankedQuery<'_>, usize) -> f64,
}

impl RetrievalMeasures {
    /// The retrieval metrics among those that are wanted, all of them with `None`; families (`recall`) take the levels K.
    ///
    /// # Errors
    /// An unknown name, a level of 0.
    pub fn new(wanted: Option<&[String]>, levels: &[usize]) -> Result<Self, EvaluationError> {
        let all = match wanted {
            Some(names) => asked(names, levels)?,
            None => every(levels, false)?,
        };
        Ok(Self::among(&all.iter().collect::<Vec<_>>()))
    }

    pub(super) fn among(all: &[&Asked]) -> Self {
        let retrieval = all.iter().filter_map(|one| match one.entry.compute {
            Compute::Query { horizon, value } => Some(One {
                key: one.key.clone(),
                k: one.k,
                horizon: horizon(one.k),
                value,
            }),
            Compute::Whole { .. } | Compute::Training => None,
        });
        Self {
            all: retrieval.collect(),
        }
    }

    /// How deep the relevant items have to be placed; `None` if there is no metric.
    #[must_use]
    pub fn horizon(&self) -> Option<Horizon> {
        self.all.iter().map(|one| one.horizon).reduce(Horizon::and)
    }

    /// Their names.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|one| one.key.as_str())
    }

    /// One column for each metric, one number for each query; lone queries count 0.
    pub(super) fn columns(&self, ranks: &PositiveRanks) -> Vec<Vec<f64>> {
        let column = |one: &One| {
            let of = |query: usize| {
                let query = ranks.query(query);
                if query.relevant == 0 {
                    0.0
                } else {
                    (one.value)(&query, one.k)
                }
            };
            (0..ranks.queries()).into_par_iter().map(of).collect()
        };
        self.all.iter().map(column).collect()
    }

    /// The means over queries; undefined if all were dropped.
    #[must_use]
    pub fn means(&self, ranks: &PositiveRanks, lone_queries: LoneQueries) -> Evaluation {
        let counted: Vec<usize> = (0..ranks.queries())
            .filter(|&query| lone_queries == LoneQueries::Miss || ranks.relevant(query) > 0)
            .collect();
        let mut means = Evaluation::default();
        for (one, column) in self.all.iter().zip(self.columns(ranks)) {
            means.measure(one.key.clone(), mean(&column, &counted));
        }
        means
    }
}

pub(super) fn mean(column: &[f64], queries: &[usize]) -> Option<f64> {
    (!queries.is_empty()).then(|| queries.iter().map(|&query| column[query]).sum::<f64>() / queries.len() as f64)
}
