//! Exact evaluation of embeddings: retrieval metrics and the structure inside classes, in bounded memory.
//!
//! Everything starts from [`UnitRows`] (unit length, classes side by side). [`rank_positives`] multiplies them block by
//! block and keeps only where the relevant items of each query stand; every retrieval metric is a formula on those ranks.
//! No metric ever sees a query x gallery matrix, and none depends on the size of the blocks or the number of threads.
//!
//! To add a measure: one file with its [`Measure`], its formula and its tests, one line in [`MEASURES`], one in [`evaluate`].

mod alignment_uniformity;
mod blocks;
mod class_centred;
mod cluster_scores;
mod clustering;
mod collapse;
mod density;
mod error;
mod factors;
mod few_shot;
pub(crate) mod gram;
mod level_order;
mod map_at_r;
mod measure;
mod neighborhood_preservation;
mod neighbors;
mod order_preservation;
mod r_precision;
mod rank_correlation;
mod ranks;
mod recall_at_k;
mod result;
mod spectral_decay;
mod subclass_transfer;
#[cfg(test)]
pub(crate) mod testing;
mod unit_rows;
mod verification;

use serde::{Deserialize, Serialize};

pub use alignment_uniformity::{alignment, uniformity};
pub use cluster_scores::{ClusterScores, cluster_scores};
pub use clustering::{KMeans, KMeansOptions, k_means};
pub use collapse::collapse;
pub use density::{Density, density};
pub use error::EvaluationError;
pub use factors::FactorTable;
pub use few_shot::{FewShot, FewShotOptions, few_shot};
pub use level_order::{LevelOrder, level_order};
pub use map_at_r::map_at_r;
pub use measure::{LoneQueries, Measure};
pub use neighborhood_preservation::{NeighborhoodPreservation, neighborhood_preservation};
pub use neighbors::{Neighbors, nearest};
pub use order_preservation::{FactorOrder, OrderPreservation, order_preservation};
pub use r_precision::r_precision;
pub use rank_correlation::{kendall_tau_b, spearman};
pub use ranks::{Horizon, PositiveRanks, rank_positives};
pub use recall_at_k::{recall_at_k, recall_levels};
pub use result::{Evaluation, Value};
pub use spectral_decay::{Spectrum, rho_intra, spectrum};
pub use subclass_transfer::{SubclassTransfer, subclass_transfer};
pub use unit_rows::{ClassRange, UnitRows, distance};
pub use verification::{Verification, VerificationOptions, verification, verification_of_pairs};

use crate::EmbeddingSet;

/// All measures, for listings and explanations.
pub const MEASURES: &[Measure] = &[
    recall_at_k::MEASURE,
    map_at_r::MEASURE,
    r_precision::MEASURE,
    density::MEASURE,
    spectral_decay::RHO,
    spectral_decay::RHO_INTRA,
    spectral_decay::EFFECTIVE_RANK,
    order_preservation::MEASURE,
    order_preservation::KENDALL,
    order_preservation::PER_FACTOR,
    order_preservation::COMBINED,
    level_order::MISORDERED,
    level_order::MEETING_MARGIN,
];

/// Whether an evaluation can hold a value of this name: a measure, `recall@K`, or the order of one factor.
///
/// ```
/// use gradus_core::evaluation::is_measure;
/// assert!(is_measure("map@r") && is_measure("recall@10") && is_measure("order_preservation.tilt_deg"));
/// assert!(!is_measure("recall@K") && !is_measure("accuracy"));
/// ```
#[must_use]
pub fn is_measure(name: &str) -> bool {
    // `MEASURES` holds these two under a placeholder.
    if let Some(level) = name.strip_prefix("recall@") {
        return level.parse::<usize>().is_ok_and(|level| level > 0);
    }
    if let Some(factor) = name.strip_prefix("order_preservation.") {
        return !factor.is_empty();
    }
    MEASURES.iter().any(|measure| measure.name == name)
}

/// How embeddings are evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EvaluationOptions {
    /// The levels K of Recall@K; default 1, 2, 4, 8, as the papers report for CUB-200-2011 and Cars196 (see [`recall_levels`]).
    pub recall_levels: Vec<usize>,
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
    if options.recall_levels.contains(&0) {
        return Err(EvaluationError::Options(
            "Recall@0 is always 0: give levels of 1 and more in recall-levels".into(),
        ));
    }
    let query_rows = UnitRows::new(queries, "query")?;
    let gallery_rows = gallery.map(|gallery| UnitRows::new(gallery, "gallery")).transpose()?;
    if let Some(factors) = factors {
        factors.check(queries.len())?;
    }
    let ranks = rank_positives(&query_rows, gallery_rows.as_ref(), Horizon::Relevant, options)?;
    drop(gallery_rows);
    let lone = options.lone_queries;
    let none_left = || EvaluationError::NoQueryLeft(ranks.queries());

    let mut evaluation = Evaluation::default();
    for &k in &options.recall_levels {
        evaluation.measure(
            format!("recall@{k}"),
            Some(recall_at_k(&ranks, k, lone).ok_or_else(none_left)?),
        );
    }
    evaluation.measure("map@r", Some(map_at_r(&ranks, lone).ok_or_else(none_left)?));
    evaluation.measure("r_precision", Some(r_precision(&ranks, lone).ok_or_else(none_left)?));

    let (order, classes) = blocks::on_threads(options.threads, || {
        let everything = match gallery {
            Some(gallery) => UnitRows::new(&joined(queries, gallery), "query and gallery")?,
            None => query_rows.clone(),
        };
        evaluation.measure("density", density(&everything).ratio);
        let spectrum = spectrum(&everything)?;
        evaluation.measure("rho", Some(spectrum.rho));
        evaluation.measure("rho_intra", rho_intra(&everything)?);
        evaluation.measure("effective_rank", Some(spectrum.effective_rank));
        let order = factors
            .map(|factors| order_preservation(&query_rows, factors))
            .transpose()?;
        Ok((order, everything.classes().len()))
    })?;
    if let Some(order) = order {
        evaluation.measure("order_preservation", order.spearman);
        evaluation.measure("order_preservation_kendall", order.kendall);
        for factor in &order.factors {
            evaluation.measure(format!("order_preservation.{}", factor.name), factor.spearman);
        }
        evaluation.measure("order_preservation_combined", order.combined.spearman);
        evaluation.count("order_skipped", order.factors.iter().map(|factor| factor.skipped).sum());
    }
    evaluation.count("queries", queries.len());
    evaluation.count("lone_queries", ranks.lone_queries());
    evaluation.count("classes", classes);
    Ok(evaluation)
}

fn joined(queries: &EmbeddingSet, gallery: &EmbeddingSet) -> EmbeddingSet {
    let mut all = queries.clone();
    all.values.extend_from_slice(&gallery.values);
    all.labels.extend_from_slice(&gallery.labels);
    all.ids.extend_from_slice(&gallery.ids);
    all
}

#[cfg(test)]
mod tests;
