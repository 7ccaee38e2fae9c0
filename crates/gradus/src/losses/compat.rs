//! Whose word counts where paper and pytorch-metric-learning differ.

use serde::{Deserialize, Serialize};

/// Whose formula a loss follows where its paper and pytorch-metric-learning differ, written `"paper"` or `"pml"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compat {
    /// The paper's.
    #[default]
    Paper,
    /// That of pytorch-metric-learning 2.9.0.
    Pml,
}
