//! Thresholds that tell a match from an unknown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
