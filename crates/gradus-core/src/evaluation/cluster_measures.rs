//! Do clusters find the classes? k-means on unit rows with as many clusters as there are classes.

use super::EvaluationError;
use super::cluster_scores::{ClusterScores, cluster_scores};
use super::clustering::{KMeansOptions, k_means};
use super::measure::Measure;
use super::unit_rows::UnitRows;

/// Name and origin.
pub(super) const NMI: Measure = Measure {
    name: "nmi",
    summary: "normalised mutual information (arithmetic mean) of classes and k-means clusters of unit rows, as many as classes",
    source: "Oh Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016; mean as in scikit-learn 0.22",
};

/// Name and origin.
pub(super) const AMI: Measure = Measure {
    name: "ami",
    summary: "the same, adjusted for chance: 0 on average for random clusters",
    source: "Vinh et al., Information Theoretic Measures for Clusterings Comparison, JMLR 2010",
};

/// Name and origin.
pub(super) const F1: Measure = Measure {
    name: "f1",
    summary: "harmonic mean of precision and recall over pairs of rows that share a cluster, of the same clusters",
    source: "Oh Song et al., CVPR 2016; Manning et al., Introduction to Information Retrieval, 2008",
};

/// Rows times clusters up to which the best of ten starts is taken; one start beyond, which then varies little.
const MANY: usize = 20_000_000;

/// Scores of k-means (seed 0) against the classes.
pub(super) fn scores(rows: &UnitRows) -> Result<ClusterScores, EvaluationError> {
    let clusters = rows.classes().len();
    let values: Vec<f32> = (0..rows.len()).flat_map(|row| rows.row(row).iter().copied()).collect();
    let options = KMeansOptions {
        clusters,
        restarts: if rows.len().saturating_mul(clusters) > MANY {
            1
        } else {
            10
        },
        ..KMeansOptions::default()
    };
    let found = k_means(&values, rows.dim(), &options)?;
    let mut classes = vec![0; rows.len()];
    for class in rows.classes() {
        classes[class.rows.clone()].fill(class.label);
    }
    cluster_scores(&classes, &found.assignments)
}
