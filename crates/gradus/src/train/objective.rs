//! What a step minimises: embeddings → (miner, memory) → base loss + intra-class ranking.

use std::sync::Arc;

use gradus_core::miners::{Mined, MinerConfig, MiningError, MiningInput};
use gradus_core::random::{derive, purpose};
use gradus_core::relations::Labels;

use super::embed::to_host;
use super::error::TrainError;
use super::memory::Memory;
use crate::auxiliary_losses::{AuxiliaryInput, AuxiliaryLoss, AuxiliaryModule};
use crate::batch::{Comparison, EmbeddingBatch, ItemSet};
use crate::embedding_augmentation::{AugmentationInput, Augmented, EmbeddingAugmentationConfig};
use crate::intra_class::{ClassStatistics, IntraClass, IntraClassInput, MembersSpace};
use crate::losses::Loss;
use crate::models::{Embedder, Mode};
use crate::tensor::{Device, Module, Tensor};

/// Everything with parameters: the embedder that stays, the criterion that is dropped after training.
#[derive(Module, Debug)]
pub struct MetricModel {
    /// Trunk, pooling, head.
    pub embedder: Embedder,
    /// The supervised base loss.
    pub loss: Loss,
    /// Projector and learned directions of the method.
    pub intra_class: IntraClass,
    /// A loss beside the base loss.
    pub auxiliary_loss: Option<AuxiliaryLoss>,
}

/// Rows on their way into the network.
#[derive(Debug, Clone)]
pub enum NetworkInput {
    /// `[rows, 3, height, width]`
    Images(Tensor<4>),
    /// Features of a frozen trunk that were computed once, `[rows, features]`.
    Features(Tensor<2>),
}

impl NetworkInput {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Self::Images(images) => images.dims()[0],
            Self::Features(features) => features.dims()[0],
        }
    }

    /// Some of the rows.
    #[must_use]
    pub fn part(&self, start: usize, length: usize) -> Self {
        match self {
            Self::Images(images) => Self::Images(images.clone().narrow(0, start, length)),
            Self::Features(features) => Self::Features(features.clone().narrow(0, start, length)),
        }
    }

    /// The embeddings `[rows, dim]` that training sees.
    #[must_use]
    pub fn embed(&self, embedder: &Embedder) -> Tensor<2> {
        match self {
            Self::Images(images) => embedder.forward(images.clone(), Mode::Train),
            Self::Features(features) => embedder.head(features.clone()),
        }
    }

    /// The same rows on another device.
    #[must_use]
    pub fn on(self, device: &Device) -> Self {
        let device = device.clone().autodiff();
        match self {
            Self::Images(images) => Self::Images(images.to_device(&device)),
            Self::Features(features) => Self::Features(features.to_device(&device)),
        }
    }

    /// The same, with the pooled features `[rows, features]` they come from.
    #[must_use]
    pub fn embed_with_features(&self, embedder: &Embedder) -> (Tensor<2>, Tensor<2>) {
        let features = match self {
            Self::Images(images) => embedder.features(images.clone(), Mode::Train),
            Self::Features(features) => features.clone(),
        };
        (embedder.head(features.clone()), features)
    }

    /// The same, with what they are in the middle of the trunk, `[rows, channels]`; stored features have none.
    #[must_use]
    pub fn embed_with_middle(&self, embedder: &Embedder) -> (Tensor<2>, Tensor<2>, Option<Tensor<2>>) {
        match self {
            Self::Images(images) => {
                let (features, middle) = embedder.features_with_middle(images.clone());
                (embedder.head(features.clone()), features, Some(middle))
            }
            Self::Features(features) => (embedder.head(features.clone()), features.clone(), None),
        }
    }

    /// The same rows outside autodiff.
    #[must_use]
    pub fn without_autodiff(&self) -> Self {
        match self {
            Self::Images(images) => Self::Images(images.clone().without_autodiff()),
            Self::Features(features) => Self::Features(features.clone().without_autodiff()),
        }
    }
}

/// What the network sees of a batch.
#[derive(Debug)]
pub struct Seen {
    /// Every item once; for a loss that compares two views of the items, then every item again.
    pub rows: NetworkInput,
    /// Graded augmentations, all levels of an item together, the weakest first.
    pub graded: Option<NetworkInput>,
}

/// The embeddings of what the network saw.
#[derive(Debug)]
pub struct Embedded {
    /// `[rows, dim]`
    pub rows: Tensor<2>,
    /// `[rows * levels, dim]`
    pub graded: Option<Tensor<2>>,
    /// The pooled features of the rows, `[rows, features]`, where the auxiliary loss or the ranking looks at them.
    pub features: Option<Tensor<2>>,
    /// What the rows are in the middle of the trunk, `[rows, channels]`, where they are ranked there.
    pub middle: Option<Tensor<2>>,
}

/// How a batch goes through the network and its gradients come back.
#[derive(Debug, Clone, Default)]
pub enum Way {
    /// As a whole, with a tape.
    #[default]
    Whole,
    /// In parts of that many rows, each of them twice: `train.gradient-cache`.
    Parts(usize),
    /// Block by block, each of them twice: `train.gradient-checkpointing`.
    Blocks,
    /// Shared among devices: `train.workers`.
    Workers(Vec<Device>),
}

/// A batch as a step needs it.
#[derive(Debug)]
pub struct StepInput<'a> {
    /// What the network sees.
    pub seen: Seen,
    /// Class of each item.
    pub labels: Arc<[u32]>,
    /// Which item of the data set each one is.
    pub items: Arc<[u64]>,
    /// What the teacher says of each item, `[batch, width]`.
    pub teacher: Option<Tensor<2>>,
    /// Means and variances of classes, for generators that need them.
    pub statistics: Option<&'a ClassStatistics>,
    /// Who chooses the pairs or triplets the base loss looks at.
    pub miner: Option<&'a MinerConfig>,
    /// What is generated in embedding space for the base loss.
    pub augmentation: Option<&'a EmbeddingAugmentationConfig>,
    /// What the batch is compared with beside itself.
    pub memory: Option<&'a mut Memory>,
    /// How the batch goes through the network.
    pub way: Way,
    /// The share of the run that is done, 0 to 1.
    pub progress: f64,
    /// Seed of this step's random directions.
    pub seed: u64,
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

/// The loss of a step, from embeddings on.
#[derive(Debug)]
pub(super) struct Objective {
    /// Base loss and intra-class loss, `[1]`.
    pub(super) loss: Tensor<1>,
    pub(super) report: StepReport,
}

impl Objective {
    /// Compares the embeddings, mined and against the memory where the run has them, and ranks inside classes.
    pub(super) fn of(model: &MetricModel, embedded: Embedded, input: &mut StepInput<'_>) -> Result<Self, TrainError> {
        let batch = input.labels.len();
        let [rows, _] = embedded.rows.dims();
        let base_rows = model.intra_class.base_input(embedded.rows.clone());
        let Base { loss: base, mined } = base_loss(model, base_rows, input)?;

        // Ranking inside classes looks at the first view of every item.
        let first = |rows: Tensor<2>, length: usize| {
            let [all, _] = rows.dims();
            if all > length { rows.narrow(0, 0, length) } else { rows }
        };
        let embeddings = first(embedded.rows, batch);
        let graded = embedded.graded.map(|graded| {
            let [all, dim] = graded.dims();
            let levels = all / rows;
            first(graded, batch * levels).reshape([batch, levels, dim])
        });
        let features = embedded.features.map(|features| first(features, batch));
        let ranked = match model.intra_class.config().ranked_space() {
            MembersSpace::Embedding => None,
            MembersSpace::Features => features.clone(),
            MembersSpace::Middle => embedded.middle.map(|middle| first(middle, batch)),
        };
        let labelled = EmbeddingBatch::new(embeddings.clone(), input.labels.clone());
        let intra_class = model.intra_class.forward(&IntraClassInput {
            batch: &labelled,
            proxies: model.loss.proxies(),
            ranked,
            teacher: input.teacher.clone(),
            graded,
            statistics: input.statistics,
            progress: input.progress,
            seed: input.seed,
        });
        let auxiliary = match &model.auxiliary_loss {
            None => None,
            Some(auxiliary) => {
                let loss = auxiliary.forward(&AuxiliaryInput {
                    embeddings: embeddings.clone(),
                    features: features.clone(),
                    proxies: model.loss.proxies(),
                    labels: &input.labels,
                    mined: mined.as_ref(),
                    seed: input.seed,
                });
                Some(loss.map_err(TrainError::Config)?)
            }
        };
        let mut loss = base.clone() + intra_class.loss;
        if let Some(auxiliary) = &auxiliary {
            loss = loss + auxiliary.clone();
        }
        let (loss_value, base_value) = (scalar(loss.clone())?, scalar(base)?);
        if !loss_value.is_finite() {
            return Err(TrainError::NotFinite {
                loss: loss_value,
                base: base_value,
            });
        }
        let values = intra_class.report.values().into_iter();
        let auxiliary = auxiliary.map(scalar).transpose()?.map(|value| ("auxiliary", value));
        Ok(Self {
            loss,
            report: StepReport {
                loss: loss_value,
                base: base_value,
                values: values
                    .chain(auxiliary)
                    .map(|(name, value)| (name.to_owned(), value))
                    .collect(),
                embeddings: embeddings.without_autodiff(),
            },
        })
    }
}

/// The base loss `[1]`, and what was mined for it.
struct Base {
    loss: Tensor<1>,
    mined: Option<Mined>,
}

/// The base loss: of the batch, augmented where the run says so, of two views of it, or of the batch against the memory.
fn base_loss(model: &MetricModel, rows: Tensor<2>, input: &mut StepInput<'_>) -> Result<Base, TrainError> {
    let batch = input.labels.len();
    let [all, _] = rows.dims();
    let labelled = |rows: Tensor<2>| ItemSet::new(rows, Labels::Classes(Arc::clone(&input.labels)));
    if all > batch {
        let (first, second) = (rows.clone().narrow(0, 0, batch), rows.narrow(0, batch, batch));
        let views = Comparison::with_references(labelled(first), labelled(second));
        return loss_of(&model.loss, views, input.miner, input.seed);
    }
    if let Some(augmentation) = input.augmentation {
        let Augmented { comparison, loss } = augmentation.augment(&AugmentationInput {
            embeddings: rows,
            labels: &input.labels,
            loss: &model.loss,
            statistics: input.statistics,
            seed: input.seed,
        });
        return loss_of(
            loss.as_ref().unwrap_or(&model.loss),
            comparison,
            input.miner,
            input.seed,
        );
    }
    let within = Comparison::within(labelled(rows.clone()));
    let Some(memory) = &mut input.memory else {
        return loss_of(&model.loss, within, input.miner, input.seed);
    };
    let detached = rows.clone().without_autodiff();
    let device = detached.device();
    memory.store(&to_host(detached)?, &input.labels, &input.items);
    let Some(references) = memory.references(&device) else {
        return loss_of(&model.loss, within, input.miner, input.seed);
    };
    let anchors = labelled(rows).with_ids(Arc::clone(&input.items));
    let against = Comparison::with_references(anchors, references);
    let base = loss_of(&model.loss, against, input.miner, input.seed)?;
    let weight = memory.batch_weight();
    if weight == 0.0 {
        return Ok(base);
    }
    let own = loss_of(&model.loss, within, input.miner, input.seed)?;
    Ok(Base {
        loss: base.loss + own.loss.mul_scalar(weight),
        mined: own.mined,
    })
}

fn loss_of(
    loss: &Loss,
    mut comparison: Comparison,
    miner: Option<&MinerConfig>,
    seed: u64,
) -> Result<Base, TrainError> {
    if let Some(miner) = miner {
        comparison.mined = Some(mine(miner, &comparison, derive(seed, &[purpose::MINER]))?);
    }
    let comparison = comparison.with_seed(seed);
    loss.check(&comparison).map_err(TrainError::Config)?;
    Ok(Base {
        loss: loss.forward(&comparison), // [1]
        mined: comparison.mined,
    })
}

/// What a miner chooses of a comparison; embeddings are read back for it.
fn mine(miner: &MinerConfig, comparison: &Comparison, seed: u64) -> Result<Mined, TrainError> {
    let host = |set: &ItemSet| -> Result<Vec<f64>, TrainError> {
        let values = to_host(set.embeddings.clone().without_autodiff())?;
        Ok(values.into_iter().map(f64::from).collect())
    };
    let [_, dim] = comparison.anchors.embeddings.dims();
    let anchors = &comparison.anchors;
    let input = match &comparison.references {
        None => MiningInput::batch(host(anchors)?, &anchors.labels, dim, seed),
        Some(references) => {
            let (rows, others) = (host(anchors)?, host(references)?);
            let input = MiningInput::between(rows, &anchors.labels, others, &references.labels, dim, seed);
            match (&anchors.ids, &references.ids) {
                (Some(ids), Some(others)) => input.and_then(|input| input.with_ids(ids, others)),
                _ => input,
            }
        }
    };
    match input.and_then(|input| miner.mine(&input)) {
        Ok(mined) => Ok(mined),
        // An embedding that is no number: the run has diverged before the loss could say so.
        Err(MiningError::NotFinite { .. }) => Err(TrainError::NotFinite {
            loss: f64::NAN,
            base: f64::NAN,
        }),
        Err(error) => Err(TrainError::Config(format!("miner.{}: {error}", miner.name()))),
    }
}

fn scalar(tensor: Tensor<1>) -> Result<f64, TrainError> {
    let value: f32 = tensor
        .try_into_scalar()
        .map_err(|error| TrainError::Device(error.to_string()))?;
    Ok(f64::from(value))
}
