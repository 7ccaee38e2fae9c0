//! Thresholds that tell a match from an unknown.
//!
//! A search is looked at as it would be with and without the class of the query in the index ([`Trial`]): the score of the nearest item of
//! the query's own class, and that of the nearest item of another class, which is what would be found if the own class were not there. A
//! threshold accepts nearest items that score at least as much. Its
//!
//! - **false-match rate** is the share of queries of which an item of another class would be accepted (the false-positive identification rate
//!   of ISO/IEC 19795-1: the bigger the index, the higher the threshold it takes),
//! - **false-non-match rate** is the share of queries of which the nearest item of the own class would be rejected,
//! - **F1** is `2 TP / (2 TP + FP + FN)`, with own items accepted as true positives, others accepted as false positives, own items rejected
//!   as false negatives.

mod curve;
mod rule;
mod trial;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use curve::{Histogram, RocPoint};
pub use rule::{Rule, calibrate};
pub use trial::{HeldOut, Trial};

/// From which similarity on a hit counts as a match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Thresholds {
    /// For hits of classes without a threshold of their own.
    pub global: f32,
    /// How they were found.
    pub rule: String,
    /// For hits of these classes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub classes: BTreeMap<String, f32>,
}

impl Thresholds {
    /// The threshold for hits of a class.
    #[must_use]
    pub fn of(&self, class: Option<&str>) -> f32 {
        class
            .and_then(|class| self.classes.get(class))
            .copied()
            .unwrap_or(self.global)
    }
}

/// Thresholds with what they do on the queries they were found on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Calibration {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// Share of queries of which an item of another class is accepted.
    pub false_match_rate: f64,
    /// Share of queries of which the nearest item of the own class is rejected.
    pub false_non_match_rate: f64,
    /// F1 of accepting own items.
    pub f1: f64,
    /// Area under the curve: the probability that an own item scores higher than one of another class.
    pub auc: f64,
    /// Rate at which both errors are equal.
    pub eer: f64,
    /// Queries with an item of their own class to find.
    pub genuine: usize,
    /// Queries with an item of another class to find.
    pub impostors: usize,
    /// How the scores of both kinds are spread.
    pub histogram: Histogram,
    /// The receiver operating characteristic.
    pub roc: Vec<RocPoint>,
}
