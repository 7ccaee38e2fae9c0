//! One optimiser step: batch → embedding → base loss + intra-class ranking → gradients → update.

use std::sync::Arc;

use super::optimizer::Optimizer;
use super::trainer::TrainError;
use crate::batch::{Comparison, EmbeddingBatch};
use crate::config::OptimizerConfig;
use crate::intra_class::{ClassStatistics, IntraClass, IntraClassInput};
use crate::losses::Loss;
use crate::models::{Embedder, Mode};
use crate::tensor::{Module, Tensor};

/// Everything with parameters: the embedder that stays, the criterion that is dropped after training.
#[derive(Module, Debug)]
pub struct MetricModel {
    /// Trunk, pooling, head.
    pub embedder: Embedder,
    /// The supervised base loss.
    pub loss: Loss,
    /// Projector and learned directions of the method.
    pub intra_class: IntraClass,
}

/// What the network sees of a batch.
#[derive(Debug)]
pub enum Seen {
    /// Images, and perhaps graded augmentations of them.
    Images {
        /// `[batch, 3, height, width]`
        images: Tensor<4>,
        /// `[batch * levels, 3, height, width]`, the weakest level of an image first.
        graded: Option<Tensor<4>>,
    },
    /// Features of a frozen trunk that were computed once.
    Features {
        /// `[batch, features]`
        features: Tensor<2>,
        /// `[batch * levels, features]`
        graded: Option<Tensor<2>>,
    },
}

/// A batch as a step needs it.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// What the network sees.
    pub seen: Seen,
    /// Class of each row.
    pub labels: Arc<[u32]>,
    /// What the teacher says of each row, `[batch, width]`.
    pub teacher: Option<Tensor<2>>,
    /// Means and variances of classes, for generators that need them.
    pub statistics: Option<&'a ClassStatistics>,
    /// Seed of this step's random directions.
    pub seed: u64,
    /// Learning rates of this step.
    pub rates: Rates,
}

/// Learning rates of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rates {
    /// Trunk (0 while it warms up).
    pub trunk: f64,
    /// Pooling and head.
    pub head: f64,
    /// Proxies, projector, learned directions.
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
            None => self.criterion,
        }
    }
}

/// What a step did.
#[derive(Debug)]
pub struct StepReport {
    /// Total loss.
    pub loss: f64,
    /// Base loss.
    pub base: f64,
    /// Further values by name.
    pub values: Vec<(String, f64)>,
    /// The embeddings of the batch before the update, `[batch, dim]`, outside autodiff.
    pub embeddings: Tensor<2>,
}

/// Makes one step. The model is moved through; on a loss that is not finite it is lost, the last checkpoint is not.
///
/// # Errors
/// If the loss is not finite or the device fails.
pub fn step(
    model: MetricModel,
    optimizer: &mut Optimizer,
    input: StepInput<'_>,
) -> Result<(MetricModel, StepReport), TrainError> {
    let embed_graded = |features: Tensor<2>, batch: usize| {
        let rows = model.embedder.head(features);
        let [count, dim] = rows.dims();
        rows.reshape([batch, count / batch, dim])
    };
    let batch = input.labels.len();
    let (features, graded) = match input.seen {
        Seen::Images { images, graded } => (
            model.embedder.features(images, Mode::Train),
            graded.map(|images| embed_graded(model.embedder.features(images, Mode::Train), batch)),
        ),
        Seen::Features { features, graded } => (features, graded.map(|features| embed_graded(features, batch))),
    };
    let embeddings = model.embedder.head(features); // [batch, dim]
    let base_batch = EmbeddingBatch::new(model.intra_class.base_input(embeddings.clone()), input.labels.clone());
    let comparison = Comparison::within(&base_batch).with_seed(input.seed);
    model.loss.check(&comparison).map_err(TrainError::Config)?;
    let base = model.loss.forward(&comparison); // [1]
    let labelled = EmbeddingBatch::new(embeddings.clone(), input.labels.clone());
    let intra_class = model.intra_class.forward(&IntraClassInput {
        batch: &labelled,
        proxies: model.loss.proxies(),
        teacher: input.teacher,
        graded,
        statistics: input.statistics,
        seed: input.seed,
    });
    let loss = base.clone() + intra_class.loss;

    let loss_value = scalar(loss.clone())?;
    let base_value = scalar(base)?;
    if !loss_value.is_finite() {
        return Err(TrainError::NotFinite {
            loss: loss_value,
            base: base_value,
        });
    }
    let mut gradients = loss.backward();
    let rates = input.rates;
    let embedder = model.embedder.clone();
    let rate = |path: &str| rates.of(path, &embedder);
    let scale = optimizer.norm_scale(&model, &gradients, &rate);
    let values = intra_class
        .report
        .values()
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let embeddings = embeddings.without_autodiff();
    let model = optimizer.step(model, &mut gradients, scale, &rate);
    Ok((
        model,
        StepReport {
            loss: loss_value,
            base: base_value,
            values,
            embeddings,
        },
    ))
}

fn scalar(tensor: Tensor<1>) -> Result<f64, TrainError> {
    let value: f32 = tensor
        .try_into_scalar()
        .map_err(|error| TrainError::Device(error.to_string()))?;
    Ok(f64::from(value))
}
