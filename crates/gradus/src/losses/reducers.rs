//! Reducers: how the values of a term become one number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::terms::{Bounds, Rows, Term, Total, Unit, Values};
use crate::batch::column;
use crate::tensor::Tensor;

fn mean() -> Box<ReducerConfig> {
    Box::new(ReducerConfig::Mean {})
}

/// How the values of a term become one number, written `reducer = "mean"` or `[reducer.threshold]`; names and meaning of
/// pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ReducerConfig {
    /// Mean.
    Mean {},
    /// Sum.
    Sum {},
    /// Mean of the values above 0.
    AvgNonZero {},
    /// Mean of the values strictly between two bounds, of which one may be left out.
    Threshold {
        /// Values must be above it; none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        low: Option<f64>,
        /// Values must be below it; none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        high: Option<f64>,
    },
    /// Sum over the loss's own divisor (its number of active parts, for instance).
    Divisor {},
    /// Mean of the values times the weight of the anchor's class.
    ClassWeighted {
        /// One weight per class.
        weights: Vec<f64>,
    },
    /// Mean over each anchor's pairs first (0 for an anchor without any), then another reducer over the anchors.
    PerAnchor {
        /// The other reducer; mean.
        #[serde(default = "mean")]
        reducer: Box<ReducerConfig>,
    },
    /// No reduction: the values stay as they are ([`Loss::unreduced`](super::Loss::unreduced)), for a look at them. What needs
    /// one number, such as training, refuses it.
    DoNothing {},
    /// Another reducer for each term.
    Multiple {
        /// Reducers by the name of the term.
        terms: BTreeMap<String, ReducerConfig>,
        /// Reducer of the terms that have none; mean.
        #[serde(default = "mean")]
        default: Box<ReducerConfig>,
    },
}

gradus_core::name_or_table!(
    ReducerConfig,
    "the name of a reducer (mean, sum, avg-non-zero, threshold, divisor, class-weighted, per-anchor, do-nothing, \
     multiple), or a table with one of them"
);

/// What `gradus list reducers` shows of a reducer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReducerInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// The settings with their default values.
    pub defaults: serde_json::Value,
}

/// What reducers know beside the term.
pub(super) struct Context<'a> {
    /// The class of each anchor, where each has one.
    pub(super) classes: Option<&'a [u32]>,
}

impl ReducerConfig {
    /// Mean of the values above 0: the default of most margin losses.
    pub const AVG_NON_ZERO: Self = Self::AvgNonZero {};
    /// Mean: the default of the other losses.
    pub const MEAN: Self = Self::Mean {};
    /// Sum over the loss's own divisor.
    pub const DIVISOR: Self = Self::Divisor {};

    /// What there is to show of all reducers.
    #[must_use]
    pub fn registry() -> Vec<ReducerInfo> {
        let info = |name, summary, defaults| ReducerInfo {
            name,
            summary,
            defaults,
        };
        let none = || serde_json::json!({});
        vec![
            info("avg-non-zero", "mean of the values above 0", none()),
            info(
                "class-weighted",
                "mean of the values times the weight of the anchor's class",
                serde_json::json!({"weights": []}),
            ),
            info("divisor", "sum over the loss's own divisor", none()),
            info("do-nothing", "the values themselves, for `gradus loss` only", none()),
            info("mean", "mean of all values", none()),
            info(
                "multiple",
                "another reducer for each term",
                serde_json::json!({"terms": {}, "default": "mean"}),
            ),
            info(
                "per-anchor",
                "mean of each anchor's pairs, then another reducer",
                serde_json::json!({"reducer": "mean"}),
            ),
            info("sum", "sum of all values", none()),
            info(
                "threshold",
                "mean of the values strictly between two bounds",
                serde_json::json!({"low": null, "high": null}),
            ),
        ]
    }

    /// The name in configuration files.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mean {} => "mean",
            Self::Sum {} => "sum",
            Self::AvgNonZero {} => "avg-non-zero",
            Self::Threshold { .. } => "threshold",
            Self::Divisor {} => "divisor",
            Self::ClassWeighted { .. } => "class-weighted",
            Self::PerAnchor { .. } => "per-anchor",
            Self::DoNothing {} => "do-nothing",
            Self::Multiple { .. } => "multiple",
        }
    }

    /// Checks the settings, and that the reducer fits the terms of a loss.
    ///
    /// # Errors
    /// A message that names the reducer, what is wrong and what to do.
    pub fn validate(&self, terms: &[(&str, Unit)], has_divisor: bool) -> Result<(), String> {
        match self {
            Self::Mean {} | Self::Sum {} | Self::AvgNonZero {} | Self::DoNothing {} => Ok(()),
            Self::Threshold { low, high } => {
                if low.is_none() && high.is_none() {
                    return Err("reducer.threshold has neither low nor high; give at least one of them.".into());
                }
                for (name, bound) in [("low", low), ("high", high)] {
                    if let Some(bound) = bound.filter(|bound| !bound.is_finite()) {
                        return Err(format!(
                            "reducer.threshold.{name} is {bound}, but it must be a finite number; leave it out for no bound."
                        ));
                    }
                }
                Ok(())
            }
            Self::Divisor {} if has_divisor => Ok(()),
            Self::Divisor {} => Err(
                "reducer = \"divisor\" needs a loss with a divisor of its own, which this one has \
                                     not; use mean or avg-non-zero."
                    .into(),
            ),
            Self::ClassWeighted { weights } => {
                let wrong = weights.iter().position(|weight| !weight.is_finite());
                match wrong {
                    _ if weights.is_empty() => {
                        Err("reducer.class-weighted.weights is empty; give one weight per class.".into())
                    }
                    Some(at) => Err(format!(
                        "reducer.class-weighted.weights holds {} for class {at}, but it must be a finite number.",
                        weights[at]
                    )),
                    None => Ok(()),
                }
            }
            Self::PerAnchor { reducer } => {
                if let Some((name, _)) = terms.iter().find(|(_, unit)| *unit == Unit::Triplet) {
                    return Err(format!(
                        "reducer = \"per-anchor\" reduces pairs, but the term `{name}` of this loss has one value per \
                         triplet; use mean or avg-non-zero."
                    ));
                }
                if matches!(
                    **reducer,
                    Self::PerAnchor { .. } | Self::Multiple { .. } | Self::DoNothing {}
                ) {
                    return Err(format!(
                        "reducer.per-anchor.reducer is {}, but it must be one that reduces values itself.",
                        reducer.name()
                    ));
                }
                reducer.validate(terms, has_divisor)
            }
            Self::Multiple { terms: chosen, default } => {
                if chosen
                    .values()
                    .chain([&**default])
                    .any(|reducer| *reducer == Self::DoNothing {})
                {
                    return Err(
                        "reducer.multiple holds do-nothing, but a sum of terms needs a number of each; use it for the whole \
                         loss."
                            .into(),
                    );
                }
                for (name, reducer) in chosen {
                    let Some(term) = terms.iter().find(|(known, _)| known == name) else {
                        let known: Vec<&str> = terms.iter().map(|(name, _)| *name).collect();
                        return Err(format!(
                            "reducer.multiple.terms names the term `{name}`, but the terms of this loss are {}.",
                            known.join(", ")
                        ));
                    };
                    reducer.validate(&[*term], has_divisor)?;
                }
                let rest: Vec<_> = terms
                    .iter()
                    .filter(|(name, _)| !chosen.contains_key(*name))
                    .copied()
                    .collect();
                default.validate(&rest, has_divisor)
            }
        }
    }

    /// Most classes the weights of classes are enough for; none: any number.
    #[must_use]
    pub fn class_limit(&self) -> Option<usize> {
        match self {
            Self::ClassWeighted { weights } => Some(weights.len()),
            Self::PerAnchor { reducer } => reducer.class_limit(),
            Self::Multiple { terms, default } => terms.values().chain([&**default]).filter_map(Self::class_limit).min(),
            _ => None,
        }
    }

    /// The value of a term, `[1]`; 0 where it has no values.
    ///
    /// # Panics
    /// If it is `do-nothing`, which gives no number.
    pub(super) fn reduce(&self, term: Term, context: &Context<'_>) -> Tensor<1> {
        let Term { name, values, divisor } = term;
        match self {
            Self::Multiple { terms, default } => {
                let reducer = terms.get(name).unwrap_or(default);
                return reducer.reduce(Term { name, values, divisor }, context);
            }
            Self::PerAnchor { reducer } => {
                let values = match values {
                    Values::Dense {
                        values,
                        weights,
                        unit: Unit::Pair,
                        rows,
                    } => per_anchor(values, &weights, rows),
                    other => other,
                };
                return reducer.reduce(Term { name, values, divisor }, context);
            }
            Self::DoNothing {} => panic!("the reducer do-nothing gives no number: see Loss::unreduced"),
            _ => {}
        }
        let bounds = match *self {
            Self::AvgNonZero {} => Bounds {
                low: Some(0.0),
                high: None,
            },
            Self::Threshold { low, high } => Bounds { low, high },
            _ => Bounds::default(),
        };
        let Total { sum, count } = match values {
            Values::Reduced(value) => return value,
            Values::Dense {
                values, weights, rows, ..
            } => {
                let [count, _] = values.dims();
                let factor = self.factor(&rows, count, &values, context);
                bounds.total(values, weights, factor)
            }
            Values::Triplets(triplets) => {
                let [count, _] = triplets.positive.dims();
                let factor = self.factor(&Rows::Anchors, count, &triplets.positive, context);
                triplets.total(bounds, factor.as_ref())
            }
        };
        match (self, divisor) {
            (Self::Sum {}, _) => sum,
            (Self::Divisor {}, Some(divisor)) => over(sum, divisor),
            _ => over(sum, count),
        }
    }

    /// The weight of each row's class, `[rows, 1]`.
    fn factor(&self, rows: &Rows, count: usize, like: &Tensor<2>, context: &Context<'_>) -> Option<Tensor<2>> {
        let Self::ClassWeighted { weights } = self else {
            return None;
        };
        let class = |row: usize| match rows {
            Rows::Classes => Some(row),
            Rows::Others => None,
            Rows::Anchors => context.classes.map(|classes| classes[row] as usize),
        };
        let weight = |row| class(row).and_then(|class| weights.get(class).copied()).unwrap_or(1.0);
        Some(column((0..count).map(weight).collect(), like))
    }
}

/// `sum / count`, 0 with gradient 0 where the count is 0.
fn over(sum: Tensor<1>, count: Tensor<1>) -> Tensor<1> {
    let none = count.clone().equal_scalar(0.0);
    sum.mask_fill(none.clone(), 0.0) / count.mask_fill(none, 1.0)
}

/// The mean of each row's pairs as one value per row.
fn per_anchor(values: Tensor<2>, weights: &Tensor<2>, rows: Rows) -> Values {
    let there = weights.clone().greater_scalar(0.0);
    let once = weights.zeros_like().mask_fill(there.clone(), 1.0);
    let count = once.sum_dim(1).clamp_min(1.0);
    let values = values.mask_fill(there.bool_not(), 0.0).sum_dim(1) / count.clone();
    Values::Dense {
        values,
        weights: count.ones_like(),
        unit: Unit::Element,
        rows,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::testing::{matrix, near, scalar};

    fn term() -> Term {
        let values = matrix(vec![1.0, -2.0, 5.0, 0.0, 4.0, 9.0], [3, 2]);
        let weights = matrix(vec![1.0, 1.0, 0.0, 1.0, 2.0, 0.0], [3, 2]);
        Term::pairs("pos-loss", values, weights).with_divisor(matrix(vec![4.0], [1, 1]).reshape([1]))
    }

    #[test]
    fn each_reducer_is_its_formula() {
        let classes = [0_u32, 1, 1];
        let context = Context {
            classes: Some(&classes),
        };
        let value = |text: &str| {
            let reducer: ReducerConfig = serde_json::from_str(text).expect("reads");
            reducer.validate(&[("pos-loss", Unit::Pair)], true).expect("fits");
            scalar(&reducer.reduce(term(), &context))
        };
        near(value(r#""mean""#), 7.0 / 5.0);
        near(value(r#""sum""#), 7.0);
        near(value(r#""avg-non-zero""#), 3.0);
        near(value(r#"{"threshold": {"low": -3, "high": 1}}"#), -1.0);
        near(value(r#"{"threshold": {"low": 100}}"#), 0.0);
        near(value(r#""divisor""#), 7.0 / 4.0);
        near(
            value(r#"{"class-weighted": {"weights": [3, 0.5]}}"#),
            (-3.0 + 4.0) / 5.0,
        );
        near(value(r#""per-anchor""#), (-0.5 + 0.0 + 4.0) / 3.0);
        near(value(r#"{"per-anchor": {"reducer": "avg-non-zero"}}"#), 4.0);
        near(value(r#"{"multiple": {"terms": {"pos-loss": "sum"}}}"#), 7.0);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        let refused = |text: &str, unit: Unit| {
            let reducer: ReducerConfig = serde_json::from_str(text).expect("reads");
            reducer.validate(&[("loss", unit)], false).expect_err("does not fit")
        };
        assert!(refused(r#""divisor""#, Unit::Pair).contains("divisor"));
        assert!(refused(r#""per-anchor""#, Unit::Triplet).contains("triplet"));
        assert!(refused(r#""threshold""#, Unit::Pair).contains("low"));
        let nothing = r#"{"per-anchor": {"reducer": "do-nothing"}}"#;
        assert!(refused(nothing, Unit::Pair).contains("do-nothing"));
        let nothing = r#"{"multiple": {"terms": {"loss": "do-nothing"}}}"#;
        assert!(refused(nothing, Unit::Pair).contains("do-nothing"));
        assert!(refused(r#"{"multiple": {"terms": {"pos": "sum"}}}"#, Unit::Pair).contains("`pos`"));
        assert!(refused(r#"{"class-weighted": {"weights": []}}"#, Unit::Pair).contains("empty"));
        assert!(serde_json::from_str::<ReducerConfig>(r#""average""#).is_err());
    }
}
