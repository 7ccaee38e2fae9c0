//! What a loss must say of itself to be listed, checked and composed.

use serde::Serialize;

use super::reducers::ReducerConfig;
use super::terms::{Term, Unit};
use super::view::View;
use crate::batch::Comparison;
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, Tensor};

/// A loss on embeddings and labels; it holds its own parameters (proxies, boundaries), so it is a module.
///
/// What is written here knows nothing of reducers and regularisers: [`Loss`](super::Loss) composes it with them.
pub trait MetricLoss: Module {
    /// The values of the loss by term, of a comparison that is not empty and was checked. Terms that have nothing to look
    /// at may be left out.
    ///
    /// # Panics
    /// If a label has no proxy in a loss that has one per class.
    fn terms(&self, view: &View<'_>) -> Vec<Term>;

    /// What the loss itself asks of a comparison, beside what [`Accepts`] says.
    ///
    /// # Errors
    /// A sentence that names the loss, what does not fit and what to do.
    fn check(&self, comparison: &Comparison) -> Result<(), String> {
        let _ = comparison;
        Ok(())
    }

    /// The parameters: one row per proxy, `[rows, dim]` (not normalised, tracked leaf), the proxies of a class together;
    /// a loss that learns a vector keeps it as a column `[rows, 1]`.
    fn parameters(&self) -> Option<Tensor<2>> {
        None
    }

    /// Whether losses inside of this one, a wrapper, have proxies by class.
    fn has_inner_proxies(&self) -> bool {
        false
    }

    /// Puts the proxies of the losses inside of this one at class means `[classes, dim]`; a loss that is no wrapper stays
    /// as it is.
    #[must_use]
    fn with_inner_proxies(self, means: &Tensor<2>) -> Self {
        let _ = means;
        self
    }

    /// Number that labels must be below where that follows from parameters that are not proxies by class.
    fn class_limit(&self) -> Option<usize> {
        None
    }

    /// Replaces the parameters by the given rows; a loss without parameters stays as it is.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    fn with_parameters(self, parameters: Tensor<2>) -> Self {
        let _ = parameters;
        self
    }
}

/// Whether a loss takes a part of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Support {
    /// With and without it.
    Optional,
    /// Only with it.
    Required,
    /// Only without it.
    Refused,
}

/// What a loss must know of its items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LabelNeed {
    /// How two items are related: classes, several labels, levels of a hierarchy.
    Relations,
    /// One class per item.
    Classes,
    /// Nothing: labels are not looked at.
    Nothing,
}

/// Which distances a loss can be composed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DistanceNeed {
    /// Any.
    Any,
    /// Its own only: the formula means nothing for another.
    Own,
    /// None: the loss does not compare rows by a distance.
    Nothing,
}

/// What a loss can be composed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Accepts {
    /// A separate reference set.
    pub references: Support,
    /// A miner's choice.
    pub mined: Support,
    /// What must be known of items.
    pub labels: LabelNeed,
    /// Which distances.
    pub distances: DistanceNeed,
}

impl Accepts {
    /// Pair and triplet losses: references, mined tuples, any relations, any distance.
    pub const PAIRS: Self = Self {
        references: Support::Optional,
        mined: Support::Optional,
        labels: LabelNeed::Relations,
        distances: DistanceNeed::Any,
    };
    /// Losses against proxies by class: no references, mined tuples weigh rows, the loss's own distance.
    pub const PROXIES: Self = Self {
        references: Support::Refused,
        mined: Support::Optional,
        labels: LabelNeed::Classes,
        distances: DistanceNeed::Own,
    };
}

impl Accepts {
    /// What several losses can be composed with together; `None` where one requires what another refuses.
    #[must_use]
    pub fn all(losses: impl IntoIterator<Item = Self>) -> Option<Self> {
        let both = |a, b| match (a, b) {
            (Support::Optional, other) | (other, Support::Optional) => Some(other),
            (a, b) => (a == b).then_some(a),
        };
        let mut all = Self {
            references: Support::Optional,
            mined: Support::Optional,
            labels: LabelNeed::Nothing,
            distances: DistanceNeed::Nothing,
        };
        for loss in losses {
            all.references = both(all.references, loss.references)?;
            all.mined = both(all.mined, loss.mined)?;
            all.labels = match (all.labels, loss.labels) {
                (LabelNeed::Classes, _) | (_, LabelNeed::Classes) => LabelNeed::Classes,
                (LabelNeed::Nothing, other) | (other, LabelNeed::Nothing) => other,
                (LabelNeed::Relations, LabelNeed::Relations) => LabelNeed::Relations,
            };
        }
        Some(all)
    }
}

/// Settings of one loss: what they mean, whether they make sense, and how the loss is made from them.
pub trait MetricLossConfig: Default + Clone + Serialize {
    /// The loss these settings describe.
    type Loss: MetricLoss;
    /// One line on what the loss does.
    const SUMMARY: &'static str;
    /// First author, title and venue of the paper.
    const PAPER: &'static str;
    /// Year of the paper.
    const YEAR: u16;
    /// What the loss can be composed with.
    const ACCEPTS: Accepts;
    /// Its terms in order, with what one value belongs to.
    const TERMS: &'static [(&'static str, Unit)];

    /// Whether the value depends on the lengths of embeddings, not only on their directions (with its own distance).
    const LENGTHS_MATTER: bool = false;
    /// Whether the value depends on the order of rows (because the loss takes the first pair of each class, say).
    const ORDER_MATTERS: bool = false;
    /// Whether the gradient takes weights that depend on the embeddings for constants, so that it is no derivative.
    const HOLDS_WEIGHTS: bool = false;

    /// Settings for the tests that every loss must pass: the default, and one for every switch that takes another path.
    #[must_use]
    fn examples() -> Vec<Self> {
        vec![Self::default()]
    }

    /// The distance it uses unless told otherwise; Euclidean on normalised rows.
    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::EUCLIDEAN
    }

    /// The reducer it uses unless told otherwise; mean. A loss whose reducer is `divisor` gives every term a divisor.
    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::MEAN
    }

    /// What the loss can be composed with under these settings: what the kind of loss says; a wrapper asks its losses.
    fn accepts(&self) -> Accepts {
        Self::ACCEPTS
    }

    /// How many proxies each class has; none for a loss whose parameters are not proxies by class.
    fn proxies_per_class(&self) -> Option<usize> {
        None
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    fn validate(&self) -> Result<(), String>;

    /// The loss for embeddings of width `dim` and `classes` training classes, with parameters drawn from `seed`.
    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> Self::Loss;
}

/// What `gradus list losses` shows of a loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// First author, title and venue.
    pub paper: &'static str,
    /// Year of the paper.
    pub year: u16,
    /// Its settings with their default values.
    pub defaults: serde_json::Value,
    /// What it can be composed with.
    pub accepts: Accepts,
    /// Whether its value depends on the lengths of embeddings.
    pub lengths_matter: bool,
    /// Whether its value depends on the order of rows.
    pub order_matters: bool,
    /// Whether its gradient takes weights that depend on the embeddings for constants.
    pub holds_weights: bool,
    /// Its terms, with what one value belongs to.
    pub terms: &'static [(&'static str, Unit)],
    /// Its own distance.
    pub distance: DistanceConfig,
    /// Its own reducer.
    pub reducer: ReducerConfig,
}

impl LossInfo {
    pub(super) fn of<C: MetricLossConfig>(name: &'static str) -> Self {
        let config = C::default();
        Self {
            name,
            summary: C::SUMMARY,
            paper: C::PAPER,
            year: C::YEAR,
            defaults: serde_json::to_value(&config).unwrap_or_default(),
            accepts: C::ACCEPTS,
            lengths_matter: C::LENGTHS_MATTER,
            order_matters: C::ORDER_MATTERS,
            holds_weights: C::HOLDS_WEIGHTS,
            terms: C::TERMS,
            distance: config.default_distance(),
            reducer: config.default_reducer(),
        }
    }
}
