//! Names and origins of the measures of collapse, of the sphere, of a reference space and of sub-classes.

use super::measure::Measure;

/// Name and origin.
pub(super) const NC1: Measure = Measure {
    name: "nc1",
    summary: "spread inside classes over spread between their means, tr(S_W S_B^+) / C; 0 when each class is a point",
    source: "Papyan et al., Prevalence of Neural Collapse, PNAS 2020",
};

/// Name and origin.
pub(super) const ALIGNMENT: Measure = Measure {
    name: "alignment",
    summary: "mean squared distance of pairs of one class; 0 when each class is a point",
    source: "Wang and Isola, Understanding Contrastive Representation Learning through Alignment and Uniformity, ICML 2020",
};

/// Name and origin.
pub(super) const UNIFORMITY: Measure = Measure {
    name: "uniformity",
    summary: "log of the mean of exp(-2 squared distance) over all pairs; lower is more uniform",
    source: "Wang and Isola, ICML 2020",
};

/// Name and origin.
pub(super) const KNN_OVERLAP: Measure = Measure {
    name: "knn_overlap",
    summary: "share of the 10 nearest members of the class (at most half of it) that are so in the reference space, too",
    source: "gradus",
};

/// Name and origin.
pub(super) const REFERENCE_SPEARMAN: Measure = Measure {
    name: "reference_spearman",
    summary: "Spearman correlation of the distances inside classes with those of the reference space, mean over queries",
    source: "gradus; rank correlation after Spearman 1904",
};

/// Name and origin.
pub(super) const LINEAR_CKA: Measure = Measure {
    name: "linear_cka",
    summary: "linear centred kernel alignment with the reference space, of rows minus the mean of their class",
    source: "Kornblith et al., Similarity of Neural Network Representations Revisited, ICML 2019",
};

/// Name and origin.
pub(super) const SUBCLASS_RECALL: Measure = Measure {
    name: "subclass_recall",
    summary: "share of rows whose nearest member of the same category has the same class",
    source: "after the coarse-to-fine transfer of Huh et al., What makes ImageNet good for transfer learning?, 2016",
};

/// Name and origin.
pub(super) const SUBCLASS_R_PRECISION: Measure = Measure {
    name: "subclass_r_precision",
    summary: "R-precision of the classes among the members of the same category",
    source: "gradus; R-precision as above",
};
