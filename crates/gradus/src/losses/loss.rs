//! A loss of the registry, composed with distance, reducer and regularisers.

use super::metric_loss::{Accepts, DistanceNeed, LabelNeed, MetricLoss, MetricLossConfig, Support};
use super::options::{Composed, LossOptions};
use super::reducers::{self, ReducerConfig};
use super::view::{self, View};
use super::{BaseLoss, check, parameters};
use crate::batch::{Comparison, EmbeddingBatch};
use crate::distances::DistanceConfig;
use crate::tensor::{Module, ModuleMapper, Param, Tensor};

/// What a loss is composed with, resolved.
#[derive(Debug, Clone)]
pub(super) struct Composition {
    pub(super) name: &'static str,
    pub(super) accepts: Accepts,
    pub(super) distance: DistanceConfig,
    pub(super) reducer: ReducerConfig,
    pub(super) options: LossOptions,
    /// Most classes its labels may have.
    pub(super) classes: Option<usize>,
    pub(super) proxies_per_class: Option<usize>,
}

impl Composition {
    pub(super) fn of<C: MetricLossConfig>(name: &'static str, composed: &Composed<C>, classes: usize) -> Self {
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

pub(super) fn validate<C: MetricLossConfig>(name: &str, composed: &Composed<C>) -> Result<(), String> {
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
    pub(super) base: BaseLoss,
    #[module(skip)]
    pub(super) composition: Composition,
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
    pub(super) fn regularization(&self, view: &View<'_>) -> Vec<(&'static str, Tensor<1>)> {
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
