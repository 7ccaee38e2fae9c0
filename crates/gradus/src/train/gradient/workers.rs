//! Several workers, each with a part of the batch: one process, one replica of the network per device.

use super::super::error::TrainError;
use super::super::objective::{Embedded, MetricModel, NetworkInput, Objective, StepInput};
use super::ParameterGradients;
use super::cache::parts;
use crate::models::Embedder;
use crate::tensor::{Device, Module, Tensor};

/// The loss of a batch and the gradients of all parameters, the network's work shared among `devices`.
///
/// Each worker embeds its part of the batch, the embeddings are gathered in the order of the workers, the loss is taken of all of
/// them on the first device, and each worker gets its part of the gradient with respect to the embeddings. The parameters'
/// gradients are added up in the order of the workers. So every item is compared with the whole batch, and `k` workers equal one,
/// but for batch normalisation that is not frozen: it has the statistics of a worker's part, and keeps those of the first worker.
///
/// Operations on a GPU are queued, so that workers on different GPUs run at the same time although one thread asks. On the
/// processor they take turns: a simulation.
///
/// # Errors
/// As for a plain step.
pub(in super::super) fn backward(
    model: &MetricModel,
    devices: &[Device],
    input: &mut StepInput<'_>,
) -> Result<(Objective, ParameterGradients), TrainError> {
    // Devices are told apart without autodiff.
    let Some(home) = devices.first().cloned() else {
        return Err(TrainError::Config("there is no worker".to_owned()));
    };
    let rows = Shared::forward(&model.embedder, devices, &input.seen.rows, &home);
    let graded = input
        .seen
        .graded
        .as_ref()
        .map(|graded| Shared::forward(&model.embedder, devices, graded, &home));
    let embedded = Embedded {
        rows: rows.gathered.clone(),
        graded: graded.as_ref().map(|graded| graded.gathered.clone()),
        // What looks at features is refused together with this way.
        features: None,
        middle: None,
    };
    let objective = Objective::of(model, embedded, input)?;
    let mut slopes = objective.loss.backward();
    let mut gradients = ParameterGradients::collect(model, &mut slopes);
    for shared in [Some(rows), graded].into_iter().flatten() {
        // Graded views that no image was eligible for have no slope.
        let Some(slope) = shared.gathered.grad(&slopes) else {
            continue;
        };
        let mut start = 0;
        // Everything is queued before anything is waited for.
        let mut found = Vec::with_capacity(shared.workers.len());
        for (replica, embeddings) in shared.workers {
            let [length, _] = embeddings.dims();
            let part = slope
                .clone()
                .narrow(0, start, length)
                .to_device(&embeddings.device().without_autodiff());
            start += length;
            let slopes = (embeddings * part.autodiff()).sum().backward();
            found.push((replica, slopes));
        }
        for (replica, mut slopes) in found {
            let part = ParameterGradients::collect_at(&replica, "embedder", &mut slopes, &home);
            gradients = gradients.plus(part);
        }
    }
    Ok((objective, gradients))
}

/// A pass through the network, shared among workers.
struct Shared {
    /// Each worker's network and embeddings, on its device with a tape.
    workers: Vec<(Embedder, Tensor<2>)>,
    /// All embeddings: a leaf on the first device.
    gathered: Tensor<2>,
}

impl Shared {
    fn forward(embedder: &Embedder, devices: &[Device], seen: &NetworkInput, home: &Device) -> Self {
        let rows = seen.rows().div_ceil(devices.len().max(1));
        let workers: Vec<(Embedder, Tensor<2>)> = parts(seen.rows(), rows)
            .zip(devices)
            .map(|((start, length), device)| {
                let replica = embedder.clone();
                let replica = if device == home {
                    replica
                } else {
                    replica.fork(&device.clone().autodiff())
                };
                let embeddings = seen.part(start, length).on(device).embed(&replica);
                (replica, embeddings)
            })
            .collect();
        let gathered = workers
            .iter()
            .map(|(_, embeddings)| embeddings.clone().without_autodiff().to_device(home));
        let gathered = Tensor::cat(gathered.collect(), 0).autodiff().require_grad();
        Self { workers, gathered }
    }
}
