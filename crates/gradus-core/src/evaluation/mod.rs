//! Exact evaluation of embeddings: retrieval metrics and the structure inside classes, in bounded memory.
//!
//! [`rank_positives`] multiplies [`Rows`] block by block and keeps only where the relevant items of each query stand; every
//! retrieval metric is a formula on those ranks ([`RankedQuery`]). The measures of structure start from [`UnitRows`] (unit
//! length, classes side by side). No metric ever sees a query x gallery matrix, and none depends on the size of the blocks or
//! the number of threads.
//!
//! To add a measure: one file with its [`Measure`], its formula and its tests, and one line in `registry.rs`.

mod alignment_uniformity;
mod average_precision;
mod blocks;
mod class_centred;
mod cluster_measures;
mod cluster_scores;
mod clustering;
mod cmc;
mod collapse;
mod comparison;
mod confusion;
mod counting;
mod density;
mod error;
mod exact_search;
mod factors;
mod few_shot;
pub(crate) mod gram;
mod integer_products;
mod level_order;
mod map_at_r;
mod measure;
mod ndcg;
mod near_and_far;
mod near_duplicates;
mod neighborhood_preservation;
mod neighbors;
mod order_curve;
mod order_preservation;
mod pair_scores;
mod per_query;
mod plan;
mod precision;
mod r_precision;
mod rank_correlation;
mod ranks;
mod recall_at_k;
mod reciprocal_rank;
mod registry;
mod relevance;
mod reordered;
mod report;
mod result;
mod retrieval_measures;
mod rows;
mod search;
mod search_distance;
mod shortlist;
mod shortlist_ranks;
mod shortlist_search;
mod single_dots;
mod spectral_decay;
mod structure_measures;
mod subclass_transfer;
mod subject;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
mod transpose;
mod undecided;
mod unit_rows;
mod verification;
mod verification_measures;

use serde::{Deserialize, Serialize};

pub use alignment_uniformity::{alignment, uniformity};
pub use cluster_scores::{ClusterScores, cluster_scores};
pub use clustering::{KMeans, KMeansOptions, k_means};
pub use collapse::collapse;
pub use confusion::{ClassRecall, Confusion, Confusions, confusions};
pub use density::{Density, density};
pub use error::EvaluationError;
pub use factors::FactorTable;
pub use few_shot::{FewShot, FewShotOptions, few_shot};
pub use level_order::{LevelOrder, level_order};
pub use map_at_r::map_at_r;
pub use measure::{LoneQueries, Measure};
pub use near_duplicates::{NearDuplicates, near_duplicates};
pub use neighborhood_preservation::{NeighborhoodPreservation, neighborhood_preservation};
pub use neighbors::{Neighbors, nearest, nearest_rows};
pub use order_curve::{OrderCurve, OrderPoint, order_curves};
pub use order_preservation::{FactorOrder, OrderPreservation, order_preservation};
pub use pair_scores::{OperatingPoint, PairScores, pair_scores};
pub use per_query::{PerQuery, QueryColumn, per_query};
pub use plan::{Forecast, forecast};
pub use r_precision::r_precision;
pub use rank_correlation::{kendall_tau_b, spearman};
pub use ranks::{Horizon, PositiveRanks, RankedQuery};
pub use recall_at_k::{recall_at_k, recall_levels};
pub use relevance::Relevance;
pub use reordered::reordered;
pub use report::{Group, Report, ReportOptions, report};
pub use result::{Evaluation, Value, explanation};
pub use retrieval_measures::RetrievalMeasures;
pub use rows::{RowSlice, Rows};
pub use search::rank_positives;
pub use search_distance::SearchDistance;
pub use spectral_decay::{Spectrum, rho_intra, singular_value_shares, spectrum};
pub use subclass_transfer::{SubclassTransfer, subclass_transfer};
pub use subject::Subject;
pub use unit_rows::{ClassRange, UnitRows, distance};
pub use verification::{Verification, VerificationOptions, verification, verification_of_pairs};

use crate::EmbeddingSet;
use unit_rows::check;

/// All measures, for listings and explanations.
pub const MEASURES: &[Measure] = &{
    let mut all = [recall_at_k::MEASURE; registry::REGISTRY.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = registry::REGISTRY[at].measure;
        at += 1;
    }
    all
};

/// Whether runs report a measure of this name and a larger value is the better one, so that it can say when to stop.
///
/// ```
/// use gradus_core::evaluation::can_be_maximised;
/// assert!(can_be_maximised("map@r") && can_be_maximised("recall@10") && can_be_maximised("order_preservation"));
/// assert!(!can_be_maximised("density") && !can_be_maximised("nmi") && !can_be_maximised("accuracy"));
/// ```
#[must_use]
pub fn can_be_maximised(name: &str) -> bool {
    let listed = match (name.split_once('@'), name.split_once('.')) {
        (Some((family, level)), _) if level.parse::<usize>().is_ok_and(|level| level > 0) => format!("{family}@K"),
        (_, Some(("order_preservation", factor))) if !factor.is_empty() => order_preservation::PER_FACTOR.name.into(),
        _ => name.to_owned(),
    };
    let mut reported = registry::REGISTRY
        .iter()
        .filter(|entry| entry.in_runs && entry.larger_is_better);
    reported.any(|entry| entry.measure.name == listed)
}

/// How embeddings are evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EvaluationOptions {
    /// The levels K of Recall@K; default 1, 2, 4, 8, as the papers report for CUB-200-2011 and Cars196 (see [`recall_levels`]).
    pub recall_levels: Vec<usize>,
    /// By what the gallery is ranked; default the cosine.
    pub distance: SearchDistance,
    /// What a query without another member of its class counts; default a miss, as in the papers.
    pub lone_queries: LoneQueries,
    /// Bytes the rows and the blocks of similarities may take; default 1 GiB. The rows themselves always have to fit; the
    /// blocks shrink to what is left, down to 4 KiB per thread.
    pub memory: usize,
    /// Threads; 0, the default, takes all there are. The results do not depend on it.
    pub threads: usize,
}

impl Default for EvaluationOptions {
    fn default() -> Self {
        Self {
            recall_levels: recall_levels(""),
            distance: SearchDistance::default(),
            lone_queries: LoneQueries::Miss,
            memory: 1 << 30,
            threads: 0,
        }
    }
}

/// Evaluates embeddings: every query searches the gallery, or, without one, all other queries.
///
/// Retrieval is by cosine similarity. The structure measures look at queries and gallery together, order preservation at
/// the queries, which `factors` describes row by row.
///
/// # Errors
/// Empty or inconsistent sets, sets of different widths, a zero or non-finite row, a level K of 0, a factor table that does
/// not fit, no query left.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{EvaluationOptions, evaluate};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9],
///     labels: vec![0, 0, 1, 1],
///     ids: ["a0", "a1", "b0", "b1"].map(String::from).to_vec(),
/// };
/// let evaluation = evaluate(&set, None, &EvaluationOptions::default(), None)?;
/// assert_eq!(evaluation.get("recall@1"), Some(1.0));
/// assert_eq!(evaluation.get("map@r"), Some(1.0));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn evaluate(
    queries: &EmbeddingSet,
    gallery: Option<&EmbeddingSet>,
    options: &EvaluationOptions,
    factors: Option<&FactorTable>,
) -> Result<Evaluation, EvaluationError> {
    check(queries, "query")?;
    if let Some(gallery) = gallery {
        check(gallery, "gallery")?;
    }
    let mut subject = Subject::of_sets(queries, gallery);
    subject.factors = factors;
    report::of_run(&subject, options)
}

#[cfg(test)]
mod tests;
