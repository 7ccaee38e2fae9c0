//! One optimiser step: batch → embedding → objective → gradients → update.

use std::collections::BTreeMap;

use super::error::TrainError;
use super::gradient::{ParameterGradients, cache, checkpointing, workers};
use super::objective::{Embedded, MetricModel, Objective, StepInput, StepReport, Way};
use super::optimizer::Optimizer;
use crate::auxiliary_losses::AuxiliaryLoss;
use crate::config::OptimizerConfig;
use crate::intra_class::MembersSpace;
use crate::models::Embedder;

/// Learning rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Trunk (0 while it warms up).
    pub trunk: f64,
    /// Pooling and head.
    pub head: f64,
    /// Proxies, projector, learned directions, levels.
    pub criterion: f64,
}

impl Rates {
    /// The rates at a point of the run: `epoch` from 0, `progress` the share of all steps already done.
    #[must_use]
    pub fn at(config: &OptimizerConfig, epoch: usize, progress: f64) -> Self {
        let rate = config.rate * config.decay.factor(epoch, progress);
        Self {
            trunk: if epoch < config.warm_up_epochs { 0.0 } else { rate },
            head: rate * config.head_factor,
            criterion: rate * config.criterion_factor,
        }
    }

    fn of(&self, path: &str, embedder: &Embedder) -> f64 {
        match path.strip_prefix("embedder.") {
            Some(inside) if !embedder.is_trainable(inside) => 0.0,
            Some(inside) if inside.starts_with("trunk") => self.trunk,
            Some(_) => self.head,
            // The networks of an auxiliary loss learn as the model's own head does.
            None if ["auxiliary_loss.heads.", "auxiliary_loss.flow."]
                .iter()
                .any(|part| path.starts_with(part)) =>
            {
                self.head
            }
            None => self.criterion,
        }
    }
}

/// Gradients of one or several batches that wait for their update.
#[derive(Debug, Default)]
pub struct Pending {
    gradients: ParameterGradients,
    batches: usize,
}

impl Pending {
    /// Takes in the gradients of another batch.
    #[must_use]
    pub fn with(self, gradients: ParameterGradients) -> Self {
        Self {
            gradients: self.gradients.plus(gradients),
            batches: self.batches + 1,
        }
    }
}

/// The gradients of one batch.
///
/// # Errors
/// If the loss is not finite, does not take what it is given, or the device fails.
pub fn gradients(
    model: &MetricModel,
    mut input: StepInput<'_>,
) -> Result<(ParameterGradients, StepReport), TrainError> {
    let (objective, gradients) = match std::mem::take(&mut input.way) {
        Way::Parts(rows) => cache::backward(model, rows, &mut input)?,
        Way::Blocks => checkpointing::backward(model, &mut input)?,
        Way::Workers(devices) => workers::backward(model, &devices, &mut input)?,
        Way::Whole => {
            let space = model.intra_class.config().ranked_space();
            let auxiliary = model.auxiliary_loss.as_ref().is_some_and(AuxiliaryLoss::needs_features);
            let (rows, features, middle) = match space {
                MembersSpace::Middle => {
                    let (rows, features, middle) = input.seen.rows.embed_with_middle(&model.embedder);
                    (rows, Some(features), middle)
                }
                MembersSpace::Embedding if !auxiliary => (input.seen.rows.embed(&model.embedder), None, None),
                MembersSpace::Embedding | MembersSpace::Features => {
                    let (rows, features) = input.seen.rows.embed_with_features(&model.embedder);
                    (rows, Some(features), None)
                }
            };
            let embedded = Embedded {
                rows,
                features,
                middle,
                graded: input.seen.graded.as_ref().map(|graded| graded.embed(&model.embedder)),
            };
            let objective = Objective::of(model, embedded, &mut input)?;
            let mut gradients = objective.loss.backward();
            (objective, ParameterGradients::collect(model, &mut gradients))
        }
    };
    Ok((gradients, objective.report))
}

/// Updates the model with the mean of the gradients that wait.
#[must_use]
pub fn update(model: MetricModel, optimizer: &mut Optimizer, pending: Pending, rates: Rates) -> MetricModel {
    let gradients = match pending.batches {
        0 | 1 => pending.gradients,
        batches => pending.gradients.scaled(1.0 / batches as f64),
    };
    // Not asked of a copy of the embedder: the optimiser overwrites parameters that nobody else holds.
    let rates: BTreeMap<String, f64> = gradients
        .paths()
        .map(|path| (path.to_owned(), rates.of(path, &model.embedder)))
        .collect();
    let rate = |path: &str| rates.get(path).copied().unwrap_or(0.0);
    let scale = optimizer.norm_scale(&gradients, &rate);
    optimizer.step(model, gradients, scale, &rate)
}
