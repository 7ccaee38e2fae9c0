//! Same or different, decided by a threshold on the cosine: what one number says of all thresholds.

use super::EvaluationError;
use super::measure::Measure;
use super::unit_rows::UnitRows;
use super::verification::{Verification, VerificationOptions, verification, verification_of_few};
use crate::EmbeddingSet;

/// Name and origin.
pub(super) const AUC: Measure = Measure {
    name: "auc",
    summary: "probability that a pair of one class is more similar than a pair of two classes (area under the ROC curve)",
    source: "Hanley and McNeil, The Meaning and Use of the Area under a ROC Curve, Radiology 1982",
};

/// Name and origin.
pub(super) const EER: Measure = Measure {
    name: "eer",
    summary: "equal error rate: where as many different pairs are accepted as same pairs are rejected",
    source: "ISO/IEC 19795-1, Biometric performance testing and reporting, 2006",
};

/// Name and origin.
pub(super) const TAR: Measure = Measure {
    name: "tar@far",
    summary: "share of same pairs accepted at the threshold that accepts that share of different pairs",
    source: "Huang et al., Labeled Faces in the Wild, 2007; rates after the NIST face vendor tests",
};

/// Name and origin.
pub(super) const FNMR: Measure = Measure {
    name: "fnmr@fmr",
    summary: "share of same pairs rejected at the threshold that accepts that share of different pairs: 1 - tar@far",
    source: "ISO/IEC 19795-1, Biometric performance testing and reporting, 2006",
};

/// Up to so many rows (2 million pairs) every pair is compared in double precision.
const FEW: usize = 2_000;

/// The curve over the pairs of all rows, given as they are and prepared; `None` where there is no pair of one class, or none of
/// two.
pub(super) fn curve(sets: &[&EmbeddingSet], rows: &UnitRows) -> Result<Option<Verification>, EvaluationError> {
    let some = rows.classes().len() > 1 && rows.classes().iter().any(|class| class.rows.len() > 1);
    let options = VerificationOptions::default();
    let compare = || {
        if rows.len() <= FEW {
            verification_of_few(sets, &options)
        } else {
            verification(rows, &options)
        }
    };
    some.then(compare).transpose()
}
