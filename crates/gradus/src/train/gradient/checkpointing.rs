//! Gradient checkpointing: deep trunks whose feature maps do not fit into memory together.

use super::super::error::TrainError;
use super::super::objective::{Embedded, MetricModel, NetworkInput, Objective, StepInput};
use super::ParameterGradients;
use crate::tensor::{Gradients, Tensor};

/// The loss of a batch and the gradients of all parameters, with never more than one block of the trunk on the tape (Chen et
/// al., Training Deep Nets with Sublinear Memory Cost, 2016).
///
/// First the trunk runs without a tape, and only what goes into its blocks is kept. From its last map on there is a tape. Then,
/// from the last block to the first, each block runs again with a tape, from which come the gradients of its parameters and the
/// one with respect to what went in. Gradients are those of a plain step; a step takes one more forward pass.
///
/// # Errors
/// As for a plain step.
pub(in super::super) fn backward(
    model: &MetricModel,
    input: &mut StepInput<'_>,
) -> Result<(Objective, ParameterGradients), TrainError> {
    let rows = Pass::forward(model, &input.seen.rows);
    let graded = input.seen.graded.as_ref().map(|graded| Pass::forward(model, graded));
    let embedded = Embedded {
        rows: rows.embeddings.clone(),
        graded: graded.as_ref().map(|graded| graded.embeddings.clone()),
        // What looks at features is refused together with this way.
        features: None,
        middle: None,
    };
    let objective = Objective::of(model, embedded, input)?;
    let mut slopes = objective.loss.backward();
    let mut gradients = ParameterGradients::collect(model, &mut slopes);
    for pass in [Some(rows), graded].into_iter().flatten() {
        gradients = pass.backward(model, &slopes, gradients);
    }
    Ok((objective, gradients))
}

/// What is kept of a pass through the network.
struct Pass {
    /// What went into each trained block, without autodiff.
    inputs: Vec<Tensor<4>>,
    /// What came out of the last one: a leaf. None where features went in.
    map: Option<Tensor<4>>,
    embeddings: Tensor<2>,
}

impl Pass {
    fn forward(model: &MetricModel, seen: &NetworkInput) -> Self {
        let NetworkInput::Images(images) = seen else {
            let (inputs, map) = (Vec::new(), None);
            return Self {
                inputs,
                map,
                embeddings: seen.embed(&model.embedder),
            };
        };
        let (inputs, map) = model.embedder.block_inputs(images.clone());
        let map = map.autodiff().require_grad();
        let embeddings = model.embedder.head(model.embedder.pooled_features(map.clone()));
        Self {
            inputs,
            map: Some(map),
            embeddings,
        }
    }

    fn backward(
        self,
        model: &MetricModel,
        slopes: &Gradients,
        mut gradients: ParameterGradients,
    ) -> ParameterGradients {
        // Graded views that no image was eligible for have no slope.
        let mut slope = self.map.and_then(|map| map.grad(slopes));
        let first = model.embedder.blocks() - self.inputs.len();
        for (index, input) in self.inputs.into_iter().enumerate().rev() {
            let Some(given) = slope.take() else { break };
            // What goes into the first trained block depends on nothing that is trained.
            let input = input.autodiff();
            let input = if index > 0 { input.require_grad() } else { input };
            let output = model.embedder.trained_block(first + index, input.clone());
            let mut found = (output * given.autodiff()).sum().backward();
            gradients = gradients.plus(ParameterGradients::collect(model, &mut found));
            slope = input.grad(&found);
        }
        gradients
    }
}
