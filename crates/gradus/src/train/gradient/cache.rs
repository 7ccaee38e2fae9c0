//! Gradient caching: batches far larger than what the network's tape leaves room for.

use super::super::error::TrainError;
use super::super::objective::{Embedded, MetricModel, NetworkInput, Objective, StepInput};
use super::ParameterGradients;
use crate::models::Embedder;
use crate::tensor::{Module, Tensor};

/// The loss of a batch and the gradients of all parameters, with never more than `rows` rows on the network's tape (Gao et
/// al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, RepL4NLP 2021).
///
/// First the batch is embedded part by part without a tape, the loss of all embeddings is taken, and with it its gradient
/// with respect to them, `g`. Then each part is embedded again with a tape, and the gradients of `sum(embeddings * g)` are added
/// up: by the chain rule those of the whole batch at once. What the network computes over a batch, it computes over a part
/// instead: batch normalisation that is not frozen has the statistics of a part.
///
/// # Errors
/// As for a plain step.
pub(in super::super) fn backward(
    model: &MetricModel,
    rows: usize,
    input: &mut StepInput<'_>,
) -> Result<(Objective, ParameterGradients), TrainError> {
    let untracked = model.embedder.valid();
    let leaf = |seen: &NetworkInput| {
        embed(&untracked, &seen.without_autodiff(), rows)
            .autodiff()
            .require_grad()
    };
    let embeddings = leaf(&input.seen.rows);
    let graded = input.seen.graded.as_ref().map(leaf);
    let embedded = Embedded {
        rows: embeddings.clone(),
        graded: graded.clone(),
        // What looks at features is refused together with this way.
        features: None,
        middle: None,
    };
    let objective = Objective::of(model, embedded, input)?;
    let mut slopes = objective.loss.backward();
    let mut gradients = ParameterGradients::collect(model, &mut slopes);
    let seen = [
        (Some(&input.seen.rows), Some(embeddings)),
        (input.seen.graded.as_ref(), graded),
    ];
    for (seen, leaf) in seen {
        let (Some(seen), Some(leaf)) = (seen, leaf) else {
            continue;
        };
        // Graded views that no image was eligible for have no slope.
        let Some(slope) = leaf.grad(&slopes) else { continue };
        for (start, length) in parts(seen.rows(), rows) {
            let embeddings = seen.part(start, length).embed(&model.embedder);
            let slope = slope.clone().narrow(0, start, length).autodiff();
            let mut part = (embeddings * slope).sum().backward();
            gradients = gradients.plus(ParameterGradients::collect(model, &mut part));
        }
    }
    Ok((objective, gradients))
}

fn embed(embedder: &Embedder, seen: &NetworkInput, rows: usize) -> Tensor<2> {
    let parts = parts(seen.rows(), rows).map(|(start, length)| seen.part(start, length).embed(embedder));
    Tensor::cat(parts.collect(), 0)
}

/// Starts and lengths of the parts of `count` rows; none longer than `rows`, and as even as they can be, because batch
/// statistics of a single row left over would be none.
pub(super) fn parts(count: usize, rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let number = count.div_ceil(rows.max(1)).max(1);
    (0..number).map(move |part| {
        let (start, end) = (part * count / number, (part + 1) * count / number);
        (start, end - start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_even_and_cover_all_rows() {
        let of = |count, rows| parts(count, rows).collect::<Vec<_>>();
        assert_eq!(of(9, 4), [(0, 3), (3, 3), (6, 3)]);
        assert_eq!(of(4, 4), [(0, 4)]);
        assert_eq!(of(5, 4), [(0, 2), (2, 3)]);
    }
}
