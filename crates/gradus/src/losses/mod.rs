//! Supervised metric losses: one file each, listed once, here.
//!
//! Every loss is composed the same way: a [`Comparison`] (anchors, perhaps references, perhaps what a miner chose) under a
//! distance gives named [`Term`]s of one value per row, pair or triplet; a reducer makes one number of each; the loss is
//! their sum, plus regularisers. Distance, reducer and regularisers can be set for every loss ([`LossOptions`]); what does
//! not fit together is refused by name when the configuration is checked.
//!
//! A new loss is one file (settings with documented defaults, `validate`, the struct, `init`, `terms`, tests) and one
//! line in the registry below; configuration, `gradus list losses`, `gradus loss` and the contract tests follow from that
//! line. CONTRIBUTING.md has the skeleton.
//!
//! A loss of a batch without pairs is `0 * sum(embeddings)`, so that it still has a gradient. Losses read nothing back to
//! the host, and never hold more than a few matrices of `batch x batch` or `batch x classes`. They divide by `mul_scalar`
//! of the reciprocal, because Burn 0.22 rounds the slope of `div_scalar` to single precision.
//!
//! Values and gradients are those of pytorch-metric-learning 2.9.0, which the tests hold them to. Where it is at odds with
//! itself, gradus is not, and the loss says so; for all losses:
//!
//! - Its losses of pairs give 0 where every list of mined indices has at most one entry. Here one pair or triplet counts.
//! - Its reducer `class-weighted` multiplies every value by every weight for losses that are logarithms of sums (angular,
//!   circle, lifted structure, multi-similarity, tuplet margin), and takes classes of rows for those of proxies
//!   (proxy-anchor). Here each value has the weight of its own class.
//! - Its reducer `per-anchor` needs as many references as anchors; here any number will do.
//! - Values too small or too large for single precision count as 0 or infinity there and are kept here (nca, proxy-nca,
//!   nt-xent), and a batch without any value costs 0, where a mean of nothing is NaN (nca).
//!
//! ```
//! use gradus::batch::EmbeddingBatch;
//! use gradus::losses::LossConfig;
//! use gradus::tensor::{Device, Tensor};
//!
//! let device = Device::flex();
//! let loss = LossConfig::default().init(2, 2, 7, &device);
//! let embeddings = Tensor::<2>::from_data([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], &device);
//! let value = loss.forward_batch(&EmbeddingBatch::new(embeddings, vec![0, 0, 1]));
//! assert_eq!(value.dims(), [1]);
//! ```

mod check;
mod compat;
mod differentiate;
mod options;
mod parameters;
mod reducers;
mod regularizers;
mod rows;
mod softmax;
mod terms;
#[cfg(test)]
pub(crate) mod testing;
mod unreduced;
mod view;

use serde::{Deserialize, Serialize};

pub use compat::Compat;
pub use differentiate::{Differentiated, not_finite};
pub use options::{Composed, LossOptions, TripletsPerAnchor};
pub use reducers::{ReducerConfig, ReducerInfo};
pub use regularizers::{RegularizerConfig, RegularizerInfo};
pub use terms::{Entries, Rows, Term, TripletChoice, TripletCost, Triplets, Unit, Values};
pub use unreduced::Unreduced;
pub use view::View;

use crate::batch::{Comparison, EmbeddingBatch};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module, ModuleMapper, Param, Tensor};

/// A loss on embeddings and labels; it holds its own parameters (proxies, boundaries), so it is a module.
///
/// What is written here knows nothing of reducers and regularisers: [`Loss`] composes it with them.
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
    fn of<C: MetricLossConfig>(name: &'static str) -> Self {
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

/// What a loss is composed with, resolved.
#[derive(Debug, Clone)]
struct Composition {
    name: &'static str,
    accepts: Accepts,
    distance: DistanceConfig,
    reducer: ReducerConfig,
    options: LossOptions,
    /// Most classes its labels may have.
    classes: Option<usize>,
    proxies_per_class: Option<usize>,
}

impl Composition {
    fn of<C: MetricLossConfig>(name: &'static str, composed: &Composed<C>, classes: usize) -> Self {
        let Composed { settings, options } = composed;
        let proxies_per_class = settings.proxies_per_class();
        Self {
            name,
            accepts: settings.accepts(),
            distance: options.distance.unwrap_or_else(|| settings.default_distance()),
            reducer: options.reducer.clone().unwrap_or_else(|| settings.default_reducer()),
            options: options.clone(),
            classes: proxies_per_class.map(|_| classes),
            proxies_per_class,
        }
    }
}

fn validate<C: MetricLossConfig>(name: &str, composed: &Composed<C>) -> Result<(), String> {
    let Composed { settings, options } = composed;
    settings.validate()?;
    let here = |problem: String| format!("loss.{name}: {problem}");
    if let Some(distance) = &options.distance {
        distance.validate().map_err(here)?;
        let own = settings.default_distance();
        let fits = match C::ACCEPTS.distances {
            DistanceNeed::Any => true,
            DistanceNeed::Own => *distance == own || (distance.is_cosine() && own.is_cosine()),
            DistanceNeed::Nothing => false,
        };
        if !fits {
            return Err(match C::ACCEPTS.distances {
                DistanceNeed::Nothing => format!(
                    "loss.{name}.distance is {}, but this loss compares nothing by a distance; leave it out.",
                    distance.name()
                ),
                _ => format!(
                    "loss.{name}.distance is {}, but the formula of this loss holds for {} with its default settings only; \
                     leave it out.",
                    distance.name(),
                    own.name()
                ),
            });
        }
    }
    if let Some(reducer) = &options.reducer {
        let has_divisor = settings.default_reducer() == ReducerConfig::DIVISOR;
        reducer.validate(C::TERMS, has_divisor).map_err(here)?;
    }
    let per_class = settings.proxies_per_class();
    if let Some(regularizer) = &options.embedding_regularizer {
        regularizer.validate("embedding-regularizer", None).map_err(here)?;
    }
    if let Some(regularizer) = &options.weight_regularizer {
        if per_class.is_none() {
            return Err(format!(
                "loss.{name}.weight-regularizer is {}, but this loss holds no proxies; leave it out.",
                regularizer.name()
            ));
        }
        regularizer.validate("weight-regularizer", per_class).map_err(here)?;
    }
    check::finite(name, "embedding-reg-weight", options.embedding_reg_weight, 1.0)?;
    check::finite(name, "weight-reg-weight", options.weight_reg_weight, 1.0)
}

/// A loss of the registry, composed with distance, reducer and regularisers.
#[derive(Module, Debug)]
pub struct Loss {
    base: BaseLoss,
    #[module(skip)]
    composition: Composition,
}

/// What a loss is worth, and of what it is made.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// The loss, `[1]`.
    pub value: Tensor<1>,
    /// Its reduced terms by name, `[1]` each.
    pub terms: Vec<(&'static str, Tensor<1>)>,
}

impl Loss {
    /// The loss, `[1]`: starts from `0 * sum(embeddings)` so that backward always has a graph.
    ///
    /// # Panics
    /// If [`check`](Self::check) refuses the comparison.
    #[must_use]
    pub fn forward(&self, comparison: &Comparison) -> Tensor<1> {
        self.evaluate(comparison).value
    }

    /// The loss of a batch compared with itself, `[1]`.
    ///
    /// # Panics
    /// If [`check`](Self::check) refuses the batch.
    #[must_use]
    pub fn forward_batch(&self, batch: &EmbeddingBatch) -> Tensor<1> {
        self.forward(&Comparison::within(batch))
    }

    /// The loss and its terms.
    ///
    /// # Panics
    /// If [`check`](Self::check) refuses the comparison, or the loss [does not reduce](Self::reduces).
    #[must_use]
    pub fn evaluate(&self, comparison: &Comparison) -> Evaluation {
        let composition = &self.composition;
        let zero = view::zero(comparison);
        if comparison.is_empty() {
            return Evaluation {
                value: zero,
                terms: vec![],
            };
        }
        let view = View {
            comparison,
            distance: &composition.distance,
        };
        let context = reducers::Context {
            classes: comparison.anchors.labels.classes().map(|classes| &**classes),
        };
        let mut terms: Vec<(&'static str, Tensor<1>)> = Vec::new();
        for term in self.base.terms(&view) {
            terms.push((term.name, composition.reducer.reduce(term, &context)));
        }
        terms.extend(self.regularization(&view));
        let value = terms.iter().fold(zero, |sum, (_, term)| sum + term.clone());
        Evaluation { value, terms }
    }

    /// What the regularisers cost, `[1]` each.
    fn regularization(&self, view: &View<'_>) -> Vec<(&'static str, Tensor<1>)> {
        let options = &self.composition.options;
        let mut terms = Vec::new();
        if let Some(regularizer) = &options.embedding_regularizer {
            let cost = regularizer
                .cost(view.anchors(), 1)
                .mul_scalar(options.embedding_reg_weight);
            terms.push(("embedding-reg-loss", cost));
        }
        if let (Some(regularizer), Some(rows)) = (&options.weight_regularizer, self.base.parameters()) {
            let per_class = self.composition.proxies_per_class.unwrap_or(1);
            let cost = regularizer.cost(rows, per_class).mul_scalar(options.weight_reg_weight);
            terms.push(("weight-reg-loss", cost));
        }
        terms
    }

    /// Whether there is one number: not with the reducer `do-nothing`.
    #[must_use]
    pub fn reduces(&self) -> bool {
        self.composition.reducer != ReducerConfig::DoNothing {}
    }

    /// Checks that the loss can look at a comparison.
    ///
    /// # Errors
    /// A sentence that names the loss, what does not fit and what to do.
    pub fn check(&self, comparison: &Comparison) -> Result<(), String> {
        let Composition {
            name,
            accepts,
            classes,
            reducer,
            ..
        } = &self.composition;
        comparison.check()?;
        match (accepts.references, comparison.is_within()) {
            (Support::Refused, false) => {
                return Err(format!(
                    "the loss {name} takes no reference set; leave the references out."
                ));
            }
            (Support::Required, true) => {
                return Err(format!("the loss {name} compares two sets; give reference embeddings."));
            }
            _ => {}
        }
        match (accepts.mined, comparison.mined.is_some()) {
            (Support::Refused, true) => {
                return Err(format!("the loss {name} looks at whole batches; leave the miner out."));
            }
            (Support::Required, false) => {
                return Err(format!(
                    "the loss {name} needs mined pairs or triplets; choose a miner."
                ));
            }
            _ => {}
        }
        let known = comparison.anchors.labels.classes();
        let by_parameters = self.base.class_limit();
        if (accepts.labels == LabelNeed::Classes || by_parameters.is_some()) && known.is_none() {
            return Err(format!(
                "the loss {name} needs one class per item, but the items have several labels or levels."
            ));
        }
        let limits = [
            (*classes, "proxies of"),
            (by_parameters, "parameters of"),
            (reducer.class_limit(), "class weights for"),
        ];
        for (limit, what) in limits {
            let Some(limit) = limit else { continue };
            let largest = known.into_iter().flat_map(|classes| classes.iter().enumerate());
            let beyond = largest
                .filter(|(_, label)| **label as usize >= limit)
                .max_by_key(|(_, label)| **label);
            if let Some((row, label)) = beyond {
                return Err(format!(
                    "the loss {name} has {what} {limit} classes, but row {row} has the label {label}: labels must be below \
                     {limit} (rows and labels are counted from 0)."
                ));
            }
        }
        self.base.check(comparison)
    }

    /// The name in configuration files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.composition.name
    }

    /// The distance it is composed with.
    #[must_use]
    pub fn distance(&self) -> &DistanceConfig {
        &self.composition.distance
    }

    /// Proxies `[classes, dim]` (not normalised, tracked) of losses that have one proxy per class.
    #[must_use]
    pub fn proxies(&self) -> Option<Tensor<2>> {
        match self.composition.proxies_per_class {
            Some(1) => self.base.parameters(),
            _ => None,
        }
    }

    /// Whether the loss, or one that it wraps, has proxies by class, one or several, so that they can start at class means.
    #[must_use]
    pub fn has_proxies(&self) -> bool {
        self.composition.proxies_per_class.is_some() || self.base.has_inner_proxies()
    }

    /// Replaces the proxies by the given rows `[classes, dim]`, such as class means; a loss without proxies by class stays as
    /// it is. Several proxies of a class start near its row: with normal noise from a fixed seed, a tenth as long as the row.
    /// Wrappers hand the rows on to the losses they hold.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    pub fn with_proxies(self, proxies: Tensor<2>) -> Self {
        match self.composition.proxies_per_class {
            Some(1) => self.with_parameters(proxies),
            Some(per_class) => self.with_parameters(parameters::repeated(&proxies, per_class)),
            None => Self {
                base: self.base.with_inner_proxies(&proxies),
                composition: self.composition,
            },
        }
    }

    /// The same loss with further classes after its own, one for each of the proxies `[further, dim]`, which may be tracked
    /// tensors: a loss for one step, whose gradients reach the parameters of this one.
    ///
    /// # Panics
    /// If the loss does not have one proxy per class and no other parameter.
    #[must_use]
    pub fn with_further_classes(&self, proxies: Tensor<2>) -> Self {
        struct Extend(Tensor<2>);
        impl ModuleMapper for Extend {
            fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                let mut shape = param.dims();
                let [further, dim] = self.0.dims();
                let own = param.val().reshape([shape[0], dim]);
                shape[0] += further;
                // Not a leaf, so that gradients go on to the rows it is made of.
                Param::initialized(param.id, Tensor::cat(vec![own, self.0.clone()], 0).reshape(shape))
            }
        }
        assert!(
            self.composition.proxies_per_class == Some(1),
            "the loss {} does not have one proxy per class",
            self.composition.name
        );
        let [further, _] = proxies.dims();
        let mut composition = self.composition.clone();
        composition.classes = composition.classes.map(|classes| classes + further);
        Self {
            base: self.base.clone().map(&mut Extend(proxies)),
            composition,
        }
    }

    /// The parameters `[rows, dim]`: proxies, those of a class together, or a learned vector as a column.
    #[must_use]
    pub fn parameters(&self) -> Option<Tensor<2>> {
        self.base.parameters()
    }

    /// Replaces the parameters; a loss without any stays as it is.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    pub fn with_parameters(self, parameters: Tensor<2>) -> Self {
        Self {
            base: self.base.with_parameters(parameters),
            composition: self.composition,
        }
    }
}

fn unknown(name: &str) -> String {
    let suggestion = crate::config::closest(name, names().iter().copied())
        .map(|known| format!("; did you mean `{known}`?"))
        .unwrap_or_default();
    format!(
        "there is no loss `{name}`{suggestion} The losses are {}.",
        names().join(", ")
    )
}

macro_rules! register_losses {
    ($($variant:ident $name:literal => $module:ident::{$config:ident, $loss:ident},)+) => {
        $(
            pub mod $module;
            pub use $module::{$config, $loss};

            impl From<$config> for LossConfig {
                fn from(settings: $config) -> Self {
                    Self::$variant(settings.into())
                }
            }
        )+

        /// The choice of a loss with its settings: the section `[loss.NAME]` of a configuration.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[allow(clippy::large_enum_variant)]
        pub enum LossConfig {
            $(
                #[doc = concat!("`[loss.", $name, "]`")]
                #[serde(rename = $name)]
                $variant(Composed<$config>),
            )+
        }

        /// A loss of the registry before it is composed, as a module.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum BaseLoss {
            $(
                #[doc = concat!("`", $name, "`")]
                $variant($loss),
            )+
        }

        impl LossConfig {
            /// Every loss with default settings, sorted by name.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$(Self::from($config::default())),+]
            }

            /// Every loss with the settings that tests must look at.
            #[must_use]
            pub fn examples() -> Vec<Self> {
                let mut all = Vec::new();
                $(all.extend($config::examples().into_iter().map(Self::from));)+
                all
            }

            /// A loss by its name, with default settings.
            ///
            /// # Errors
            /// If there is none, with the names there are.
            pub fn by_name(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok(Self::from($config::default())),)+
                    _ => Err(unknown(name)),
                }
            }

            /// The name in configuration files.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// What the loss can be composed with, its terms and its defaults.
            #[must_use]
            pub fn info(&self) -> LossInfo {
                match self {
                    $(Self::$variant(_) => LossInfo::of::<$config>($name),)+
                }
            }

            /// What the loss can be composed with under its settings.
            #[must_use]
            pub fn accepts(&self) -> Accepts {
                match self {
                    $(Self::$variant(composed) => composed.settings.accepts(),)+
                }
            }

            /// What the loss is composed with.
            #[must_use]
            pub fn options(&self) -> &LossOptions {
                match self {
                    $(Self::$variant(composed) => &composed.options,)+
                }
            }

            /// What the loss is composed with, to be changed.
            pub fn options_mut(&mut self) -> &mut LossOptions {
                match self {
                    $(Self::$variant(composed) => &mut composed.options,)+
                }
            }

            /// How many proxies each class has; none for a loss whose parameters are not proxies by class.
            #[must_use]
            pub fn proxies_per_class(&self) -> Option<usize> {
                match self {
                    $(Self::$variant(composed) => composed.settings.proxies_per_class(),)+
                }
            }

            /// Checks the settings, and that everything fits together.
            ///
            /// # Errors
            /// A message that names the setting, what it is and what it must be.
            pub fn validate(&self) -> Result<(), String> {
                match self {
                    $(Self::$variant(composed) => validate($name, composed),)+
                }
            }

            /// Refuses the reducer `do-nothing`, for what needs one number of the loss.
            ///
            /// # Errors
            /// A message that names the setting and says what to do.
            pub fn validate_reduces(&self) -> Result<(), String> {
                if self.options().reducer != Some(ReducerConfig::DoNothing {}) {
                    return Ok(());
                }
                Err(format!(
                    "loss.{}.reducer is do-nothing, which leaves every value as it is, but one number is needed here; leave it \
                     out, or look at the values with `gradus loss`.",
                    self.name()
                ))
            }

            /// The loss for embeddings of width `dim` and `classes` training classes, with parameters drawn from `seed`.
            #[must_use]
            pub fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> Loss {
                match self {
                    $(
                        Self::$variant(composed) => Loss {
                            base: BaseLoss::$variant(composed.settings.init(dim, classes, seed, device)),
                            composition: Composition::of($name, composed, classes),
                        },
                    )+
                }
            }
        }

        impl MetricLoss for BaseLoss {
            fn terms(&self, view: &View<'_>) -> Vec<Term> {
                match self {
                    $(Self::$variant(loss) => loss.terms(view),)+
                }
            }

            fn check(&self, comparison: &Comparison) -> Result<(), String> {
                match self {
                    $(Self::$variant(loss) => loss.check(comparison),)+
                }
            }

            fn parameters(&self) -> Option<Tensor<2>> {
                match self {
                    $(Self::$variant(loss) => loss.parameters(),)+
                }
            }

            fn has_inner_proxies(&self) -> bool {
                match self {
                    $(Self::$variant(loss) => loss.has_inner_proxies(),)+
                }
            }

            fn with_inner_proxies(self, means: &Tensor<2>) -> Self {
                match self {
                    $(Self::$variant(loss) => Self::$variant(loss.with_inner_proxies(means)),)+
                }
            }

            fn class_limit(&self) -> Option<usize> {
                match self {
                    $(Self::$variant(loss) => loss.class_limit(),)+
                }
            }

            fn with_parameters(self, parameters: Tensor<2>) -> Self {
                match self {
                    $(Self::$variant(loss) => Self::$variant(loss.with_parameters(parameters)),)+
                }
            }
        }

        /// Names of all losses, sorted.
        #[must_use]
        pub fn names() -> &'static [&'static str] {
            &[$($name),+]
        }

        /// What there is to show of all losses, sorted by name.
        #[must_use]
        pub fn info() -> Vec<LossInfo> {
            vec![$(LossInfo::of::<$config>($name)),+]
        }
    };
}

// Sorted; the only place that lists losses.
register_losses! {
    Adaface "adaface" => adaface::{AdafaceConfig, AdafaceLoss},
    Angular "angular" => angular::{AngularConfig, AngularLoss},
    Arcface "arcface" => arcface::{ArcfaceConfig, ArcfaceLoss},
    CentroidTriplet "centroid-triplet" => centroid_triplet::{CentroidTripletConfig, CentroidTripletLoss},
    Circle "circle" => circle::{CircleConfig, CircleLoss},
    Contrastive "contrastive" => contrastive::{ContrastiveConfig, ContrastiveLoss},
    Cosface "cosface" => cosface::{CosfaceConfig, CosfaceLoss},
    Curricularface "curricularface" => curricularface::{CurricularfaceConfig, CurricularfaceLoss},
    DynamicSoftMargin "dynamic-soft-margin" => dynamic_soft_margin::{DynamicSoftMarginConfig, DynamicSoftMarginLoss},
    FastAp "fast-ap" => fast_ap::{FastApConfig, FastApLoss},
    GeneralizedLiftedStructure "generalized-lifted-structure" => generalized_lifted_structure::{
        GeneralizedLiftedStructureConfig, GeneralizedLiftedStructureLoss
    },
    Histogram "histogram" => histogram::{HistogramConfig, HistogramLoss},
    Instance "instance" => instance::{InstanceConfig, InstanceLoss},
    IntraPairVariance "intra-pair-variance" => intra_pair_variance::{IntraPairVarianceConfig, IntraPairVarianceLoss},
    LargeMarginSoftmax "large-margin-softmax" => large_margin_softmax::{LargeMarginSoftmaxConfig, LargeMarginSoftmaxLoss},
    LiftedStructure "lifted-structure" => lifted_structure::{LiftedStructureConfig, LiftedStructureLoss},
    Manifold "manifold" => manifold::{ManifoldConfig, ManifoldLoss},
    Margin "margin" => margin::{MarginConfig, MarginLoss},
    Matryoshka "matryoshka" => matryoshka::{MatryoshkaConfig, MatryoshkaLoss},
    MultiSimilarity "multi-similarity" => multi_similarity::{MultiSimilarityConfig, MultiSimilarityLoss},
    MultipleLosses "multiple-losses" => multiple_losses::{MultipleLossesConfig, MultipleLosses},
    NPairs "n-pairs" => n_pairs::{NPairsConfig, NPairsLoss},
    Nca "nca" => nca::{NcaConfig, NcaLoss},
    NormalizedSoftmax "normalized-softmax" => normalized_softmax::{NormalizedSoftmaxConfig, NormalizedSoftmaxLoss},
    NtXent "nt-xent" => nt_xent::{NtXentConfig, NtXentLoss},
    P2sGrad "p2s-grad" => p2s_grad::{P2sGradConfig, P2sGradLoss},
    Pnp "pnp" => pnp::{PnpConfig, PnpLoss},
    ProxyAnchor "proxy-anchor" => proxy_anchor::{ProxyAnchorConfig, ProxyAnchorLoss},
    ProxyNca "proxy-nca" => proxy_nca::{ProxyNcaConfig, ProxyNcaLoss},
    ProxyNcaOriginal "proxy-nca-original" => proxy_nca_original::{ProxyNcaOriginalConfig, ProxyNcaOriginalLoss},
    ProxyNcaPlusPlus "proxy-nca-plus-plus" => proxy_nca_plus_plus::{ProxyNcaPlusPlusConfig, ProxyNcaPlusPlusLoss},
    Quadruplet "quadruplet" => quadruplet::{QuadrupletConfig, QuadrupletLoss},
    RankedList "ranked-list" => ranked_list::{RankedListConfig, RankedListLoss},
    RecallAtK "recall-at-k" => recall_at_k::{RecallAtKConfig, RecallAtKLoss},
    Roadmap "roadmap" => roadmap::{RoadmapConfig, RoadmapLoss},
    SelfSupervised "self-supervised" => self_supervised::{SelfSupervisedConfig, SelfSupervisedLoss},
    SignalToNoiseRatioContrastive "signal-to-noise-ratio-contrastive" => signal_to_noise_ratio_contrastive::{
        SignalToNoiseRatioContrastiveConfig, SignalToNoiseRatioContrastiveLoss
    },
    SmoothAp "smooth-ap" => smooth_ap::{SmoothApConfig, SmoothApLoss},
    SoftTriple "soft-triple" => soft_triple::{SoftTripleConfig, SoftTripleLoss},
    Sphereface "sphereface" => sphereface::{SpherefaceConfig, SpherefaceLoss},
    SubCenterArcface "sub-center-arcface" => sub_center_arcface::{SubCenterArcfaceConfig, SubCenterArcfaceLoss},
    SupCon "sup-con" => sup_con::{SupConConfig, SupConLoss},
    ThresholdConsistentMargin "threshold-consistent-margin" => threshold_consistent_margin::{
        ThresholdConsistentMarginConfig, ThresholdConsistentMarginLoss
    },
    TripletMargin "triplet-margin" => triplet_margin::{TripletMarginConfig, TripletMarginLoss},
    TupletMargin "tuplet-margin" => tuplet_margin::{TupletMarginConfig, TupletMarginLoss},
    VicReg "vic-reg" => vic_reg::{VicRegConfig, VicRegLoss},
}

impl Default for LossConfig {
    fn default() -> Self {
        ProxyAnchorConfig::default().into()
    }
}

#[cfg(test)]
mod contract {
    //! What every loss of the registry promises.

    use super::testing::{near, scalar};
    use super::*;
    use crate::batch::{ItemSet, Mined};
    use crate::tensor::TensorData;
    use gradus_core::random::{self, Rng};
    use gradus_core::relations::Labels;

    const DIM: usize = 5;
    const CLASSES: usize = 4;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct File {
        loss: LossConfig,
    }

    /// A comparison that the loss can look at: within the batch, or with itself where it must have references.
    fn comparison(config: &LossConfig, embeddings: Tensor<2>, labels: &[u32]) -> Comparison {
        let batch = EmbeddingBatch::new(embeddings, labels.to_vec());
        let comparison = match config.info().accepts.references {
            Support::Required => Comparison::with_references(&batch, &batch),
            Support::Optional | Support::Refused => Comparison::within(&batch),
        };
        match config.info().accepts.mined {
            Support::Required => comparison.with_mined(Mined::Triplets(vec![])),
            Support::Optional | Support::Refused => comparison,
        }
    }

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = random::stream(seed, &[99]);
        (0..count).map(|_| stream.random::<f32>() * 2.0 - 1.0).collect()
    }

    fn embeddings(values: Vec<f32>) -> Tensor<2> {
        let rows = values.len() / DIM;
        Tensor::from_data(TensorData::new(values, [rows, DIM]), &Device::flex().autodiff()).require_grad()
    }

    fn loss(config: &LossConfig) -> Loss {
        config.init(DIM, CLASSES, 11, &Device::flex().autodiff())
    }

    /// Value and gradient of a loss, both checked to be finite.
    fn evaluate(config: &LossConfig, loss: &Loss, values: Vec<f32>, labels: &[u32], case: &str) -> (f64, Vec<f32>) {
        let embeddings = embeddings(values);
        // A copy: running statistics of the loss stay where they were.
        let value = loss.clone().forward(&comparison(config, embeddings.clone(), labels));
        assert_eq!(value.dims(), [1]);
        assert!(value.is_tracked(), "{config:?} on {case}: not tracked");
        let number = scalar(&value);
        assert!(number.is_finite(), "{config:?} on {case}: {number}");
        let gradients = value.backward();
        let gradient = embeddings
            .grad(&gradients)
            .expect("a gradient")
            .try_to_vec_as::<f32>()
            .expect("floats");
        assert!(
            gradient.iter().all(|slope| slope.is_finite()),
            "{config:?} on {case}: {gradient:?}"
        );
        if let Some(proxies) = loss.parameters().filter(|_| !labels.is_empty()) {
            // Parameters that no pair touched are not in the graph.
            let slopes = proxies
                .grad(&gradients)
                .map_or_else(Vec::new, |slopes| slopes.try_to_vec_as::<f32>().expect("floats"));
            assert!(
                slopes.iter().all(|slope| slope.is_finite()),
                "{config:?} on {case}: proxies {slopes:?}"
            );
        }
        (number, gradient)
    }

    #[test]
    fn degenerate_batches_are_finite_and_tracked() {
        let pair_losses_cost_nothing = ["contrastive", "margin", "nt-xent", "triplet-margin"];
        for config in LossConfig::examples() {
            let loss = loss(&config);
            let name = config.name();
            let (all_apart, _) = evaluate(&config, &loss, noise(4 * DIM, 1), &[0, 1, 2, 3], "all labels distinct");
            let (one_class, _) = evaluate(&config, &loss, noise(4 * DIM, 2), &[2; 4], "one class");
            let (single, slopes) = evaluate(&config, &loss, noise(DIM, 3), &[0], "one row");
            if pair_losses_cost_nothing.contains(&name) {
                assert_eq!(single, 0.0, "{name}");
                assert!(slopes.iter().all(|&slope| slope == 0.0));
                if name != "contrastive" {
                    assert_eq!((all_apart, one_class), (0.0, 0.0), "{name}");
                }
            }
            let mut with_zero = noise(4 * DIM, 4);
            with_zero[..DIM].fill(0.0);
            evaluate(&config, &loss, with_zero, &[0, 0, 1, 1], "a zero vector");
            evaluate(&config, &loss, vec![0.0; 4 * DIM], &[0, 0, 1, 1], "zero vectors only");
            let row = noise(DIM, 5);
            evaluate(&config, &loss, row.repeat(4), &[0, 0, 1, 1], "duplicate rows");
            let opposite: Vec<f32> = [row.clone(), row.iter().map(|value| -value).collect()].concat();
            evaluate(&config, &loss, opposite.repeat(2), &[0, 0, 1, 1], "opposite rows");
            let huge: Vec<f32> = noise(4 * DIM, 6).iter().map(|value| value * 1e4).collect();
            evaluate(&config, &loss, huge, &[0, 0, 1, 1], "scale 1e4");
            let tiny: Vec<f32> = noise(4 * DIM, 6).iter().map(|value| value * 1e-6).collect();
            evaluate(&config, &loss, tiny, &[0, 0, 1, 1], "scale 1e-6");
            evaluate(&config, &loss, vec![], &[], "no row");
        }
    }

    #[test]
    fn embeddings_equal_to_their_proxies_are_finite() {
        for config in LossConfig::all() {
            let values = noise(CLASSES * DIM, 8);
            let proxies = Tensor::from_data(TensorData::new(values.clone(), [CLASSES, DIM]), &Device::flex());
            let loss = loss(&config);
            if loss.proxies().is_none() {
                continue;
            }
            let loss = loss.with_proxies(proxies);
            evaluate(&config, &loss, values.clone(), &[0, 1, 2, 3], "cosine 1");
            evaluate(
                &config,
                &loss,
                values.iter().map(|value| -value).collect(),
                &[0, 1, 2, 3],
                "cosine -1",
            );
        }
    }

    #[test]
    fn order_of_rows_changes_nothing() {
        let labels = [0, 1, 1, 2, 0, 2, 2, 3];
        let order = [3, 0, 7, 5, 1, 6, 2, 4];
        for config in LossConfig::examples() {
            if config.info().order_matters {
                continue;
            }
            let loss = loss(&config);
            let values = noise(8 * DIM, 9);
            let shuffled: Vec<f32> = order
                .iter()
                .flat_map(|&row| values[row * DIM..][..DIM].to_vec())
                .collect();
            let (value, gradient) = evaluate(&config, &loss, values, &labels, "in order");
            let (moved, moved_gradient) = evaluate(
                &config,
                &loss,
                shuffled,
                &order.map(|row| labels[row]),
                "in another order",
            );
            near(moved, value);
            assert!(value > 0.0, "{}: nothing to compare", config.name());
            for (position, &row) in order.iter().enumerate() {
                for axis in 0..DIM {
                    near(
                        f64::from(moved_gradient[position * DIM + axis]),
                        f64::from(gradient[row * DIM + axis]),
                    );
                }
            }
        }
    }

    #[test]
    fn lengths_of_embeddings_change_nothing() {
        let labels = [0, 1, 1, 2, 0, 2];
        for config in LossConfig::examples() {
            if config.info().lengths_matter {
                continue;
            }
            let loss = loss(&config);
            let values = noise(6 * DIM, 10);
            let longer = values
                .iter()
                .enumerate()
                .map(|(i, value)| value * (1 + i / DIM) as f32)
                .collect();
            let (value, _) = evaluate(&config, &loss, values, &labels, "some length");
            near(evaluate(&config, &loss, longer, &labels, "another length").0, value);
        }
    }

    #[test]
    fn a_step_against_the_gradient_lowers_the_loss() {
        let labels = [0, 1, 1, 2, 0, 2, 3, 3];
        for config in LossConfig::examples() {
            let loss = loss(&config);
            let values = noise(8 * DIM, 12);
            let (value, gradient) = evaluate(&config, &loss, values.clone(), &labels, "before");
            let length: f32 = gradient.iter().map(|slope| slope * slope).sum::<f32>().sqrt();
            let after = values
                .iter()
                .zip(&gradient)
                .map(|(value, slope)| value - 1e-3 * slope / length)
                .collect();
            let (after, _) = evaluate(&config, &loss, after, &labels, "after");
            assert!(after < value, "{}: {value} became {after}", config.name());
        }
    }

    #[test]
    fn a_reference_set_of_the_same_items_is_the_batch_itself() {
        let labels = [0_u32, 1, 1, 2, 0, 2, 3];
        let ids: Vec<u64> = (10..17).collect();
        let optional = |config: &LossConfig| config.info().accepts.references == Support::Optional;
        for config in LossConfig::examples().into_iter().filter(optional) {
            let loss = loss(&config);
            let values = noise(labels.len() * DIM, 13);
            let (value, gradient) = evaluate(&config, &loss, values.clone(), &labels, "within");
            let leaf = embeddings(values);
            let set = ItemSet::new(leaf.clone(), labels.to_vec()).with_ids(ids.clone());
            let comparison = Comparison::with_references(set.clone(), set);
            loss.check(&comparison).expect("fits");
            let across = loss.forward(&comparison);
            near(scalar(&across), value);
            let slopes = leaf.grad(&across.backward()).expect("tracked");
            for (found, expected) in slopes.try_to_vec_as::<f32>().expect("floats").iter().zip(gradient) {
                near(f64::from(*found), f64::from(expected));
            }
        }
    }

    #[test]
    fn terms_are_those_announced() {
        let labels = [0_u32, 1, 1, 2, 0, 2, 3];
        for config in LossConfig::examples() {
            let comparison = comparison(&config, embeddings(noise(labels.len() * DIM, 14)), &labels);
            let loss = loss(&config);
            loss.check(&comparison).expect("fits");
            let info = config.info();
            let view = View {
                comparison: &comparison,
                distance: loss.distance(),
            };
            for term in loss.base.terms(&view) {
                let announced = info.terms.iter().find(|(name, _)| *name == term.name);
                let (_, unit) = announced.unwrap_or_else(|| panic!("{} has no term {}", info.name, term.name));
                assert!(term.unit() == *unit || term.unit() == Unit::Reduced, "{}", info.name);
                let needs_divisor = info.reducer == ReducerConfig::DIVISOR && term.unit() != Unit::Reduced;
                assert!(
                    !needs_divisor || term.divisor.is_some(),
                    "{}: {} has no divisor",
                    info.name,
                    term.name
                );
            }
        }
    }

    #[test]
    fn relations_of_several_labels_are_understood() {
        let lists: Vec<Vec<u32>> = [&[0][..], &[0, 1], &[1], &[2], &[2, 3], &[]]
            .iter()
            .map(|list| list.to_vec())
            .collect();
        for config in LossConfig::examples() {
            let leaf = embeddings(noise(lists.len() * DIM, 15));
            let set = ItemSet::new(leaf.clone(), Labels::MultiLabel(lists.clone().into()));
            let comparison = Comparison::within(set);
            let loss = loss(&config);
            let accepts = config.info().accepts;
            if accepts.labels == LabelNeed::Classes || loss.base.class_limit().is_some() {
                assert!(loss.check(&comparison).expect_err("no classes").contains(config.name()));
            } else if accepts.references != Support::Required && accepts.mined != Support::Required {
                loss.check(&comparison).expect("fits");
                let slopes = leaf.grad(&loss.forward(&comparison).backward()).expect("tracked");
                assert!(
                    slopes
                        .try_to_vec_as::<f32>()
                        .expect("floats")
                        .iter()
                        .all(|slope| slope.is_finite())
                );
            }
        }
    }

    #[test]
    fn options_are_read_beside_the_settings_and_checked() {
        let read = |text: &str| toml::from_str::<File>(text).map(|file| file.loss);
        let config =
            read("[loss.contrastive]\npos-margin = 0.5\ndistance = \"cosine\"\nreducer = \"sum\"\n").expect("reads");
        assert_eq!(config.options().distance, Some(DistanceConfig::COSINE));
        assert_eq!(config.options().reducer, Some(ReducerConfig::Sum {}));
        let nested = "[loss.contrastive]\n[loss.contrastive.distance.lp]\np = 1\n[loss.contrastive.reducer.threshold]\nlow = 0\n";
        let text = toml::to_string(&File {
            loss: read(nested).expect("reads"),
        })
        .expect("writes");
        assert_eq!(
            toml::from_str::<File>(&text).expect("reads").loss,
            read(nested).expect("reads")
        );
        let refused = |text: &str| read(text).expect("reads").validate().expect_err("does not fit");
        assert!(refused("[loss.arcface]\ndistance = \"snr\"\n").contains("loss.arcface.distance"));
        assert!(refused("[loss.contrastive]\nreducer = \"divisor\"\n").contains("divisor"));
        assert!(refused("[loss.contrastive]\nweight-regularizer = \"lp\"\n").contains("weight-regularizer"));
        assert!(refused("[loss.arcface]\nweight-regularizer = \"sparse-centers\"\n").contains("sparse-centers"));
        assert!(refused("[loss.contrastive.distance.lp]\np = 0.5\n").contains("distance.lp.p"));
        assert!(read("[loss.contrastive]\ndistance = \"cosin\"\n").is_err());
    }

    #[test]
    fn what_a_loss_cannot_look_at_is_refused_by_name() {
        let batch = EmbeddingBatch::new(embeddings(noise(3 * DIM, 16)), vec![0, 4, 1]);
        let arcface = loss(&ArcfaceConfig::default().into());
        let message = arcface
            .check(&Comparison::within(&batch))
            .expect_err("label 4 of 4 classes");
        assert!(message.contains("row 1") && message.contains("arcface"), "{message}");
        let fits = EmbeddingBatch::new(embeddings(noise(3 * DIM, 16)), vec![0, 3, 1]);
        let message = arcface
            .check(&Comparison::with_references(&fits, &fits))
            .expect_err("references");
        assert!(message.contains("reference"), "{message}");
        let mut weighted = LossConfig::from(ContrastiveConfig::default());
        weighted.options_mut().reducer = Some(ReducerConfig::ClassWeighted { weights: vec![1.0; 4] });
        let message = loss(&weighted)
            .check(&Comparison::within(&batch))
            .expect_err("no weight for class 4");
        assert!(message.contains("class weights"), "{message}");
    }

    #[test]
    fn initial_parameters_follow_from_the_seed() {
        let device = Device::flex().autodiff();
        for config in LossConfig::all() {
            let proxies = |seed| {
                let loss = config.init(DIM, CLASSES, seed, &device);
                loss.parameters()
                    .filter(|_| loss.proxies().is_some())
                    .map(|proxies| proxies.try_to_vec_as::<f32>().expect("floats"))
            };
            assert_eq!(proxies(1), proxies(1));
            assert!(proxies(1).is_none() || proxies(1) != proxies(2), "{}", config.name());
        }
    }

    #[test]
    fn configuration_round_trips_and_refuses_what_it_does_not_know() {
        for config in LossConfig::examples() {
            config.validate().expect("valid");
            let file = File { loss: config.clone() };
            let text = toml::to_string(&file).expect("writes");
            assert!(text.contains(&format!("[loss.{}]", config.name())), "{text}");
            assert_eq!(toml::from_str::<File>(&text).expect("reads"), file);
            let name = config.name();
            let error = toml::from_str::<File>(&format!("[loss.{name}]\nno-such-key = 1\n")).expect_err("unknown key");
            assert!(error.to_string().contains("no-such-key"), "{error}");
            toml::from_str::<File>(&format!("[loss.{name}]\n")).expect("all settings have defaults");
        }
        let error = toml::from_str::<File>("[loss.proxi-anchor]\n")
            .expect_err("unknown loss")
            .to_string();
        names().iter().for_each(|name| assert!(error.contains(name), "{error}"));
        let read: File = toml::from_str("[loss.proxy-anchor]\nalpha = 16.0\n").expect("reads");
        assert_eq!(
            read.loss,
            LossConfig::from(ProxyAnchorConfig {
                alpha: 16.0,
                margin: 0.1
            })
        );
    }

    #[test]
    fn the_registry_is_sorted_and_described() {
        assert!(names().is_sorted());
        assert_eq!(LossConfig::default().name(), "proxy-anchor");
        let listed: Vec<&str> = info().iter().map(|info| info.name).collect();
        assert_eq!(listed, names());
        for info in info() {
            assert!(info.year > 1990 && !info.paper.is_empty() && !info.summary.contains('\n'));
            assert!(info.defaults.is_object(), "{}", info.name);
            assert!(!info.terms.is_empty(), "{}", info.name);
        }
    }

    #[test]
    fn settings_that_are_not_numbers_are_refused() {
        for config in LossConfig::all() {
            let defaults = serde_json::to_value(&config).expect("writes");
            let settings = defaults[config.name()].as_object().expect("settings").clone();
            let Some((key, _)) = settings.iter().find(|(_, value)| value.is_f64()) else {
                continue;
            };
            let text = format!("[loss.{}]\n{key} = nan\n", config.name());
            let table: toml::Table = toml::from_str(&text).expect("toml");
            let broken: LossConfig = table["loss"].clone().try_into().expect("reads");
            let message = broken.validate().expect_err("not a number");
            assert!(message.contains(&format!("loss.{}.{key}", config.name())), "{message}");
        }
    }
}
