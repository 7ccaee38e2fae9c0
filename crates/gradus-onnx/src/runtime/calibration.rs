//! What the activations of a graph are on real input, for eight bits.

use std::collections::hash_map::Entry;
use std::path::PathBuf;

use rten::{ModelOptions, NodeId, ValueOrView, ValueView};
use rten_tensor::Layout as _;

use crate::{Calibration, Graph, OnnxError, Seen};

/// What the activations of a graph are over batches of input numbers: the mean over batches of the least and greatest value, so that
/// one strange image does not take the levels from all others, and the mean of every channel.
///
/// # Shapes
/// Every batch is `[count, ..]` in the shape of the graph's input.
///
/// # Errors
/// If the graph cannot be run.
pub fn calibrate(
    graph: &Graph,
    batches: impl IntoIterator<Item = Result<(Vec<f32>, Vec<usize>), OnnxError>>,
) -> Result<Calibration, OnnxError> {
    let refuse = |problem: String| OnnxError::Model {
        path: PathBuf::from("the graph to calibrate"),
        problem,
    };
    let bytes = graph.encode(crate::Batch::Dynamic, &[])?;
    // Without optimisation every activation is computed under its name.
    let model = ModelOptions::with_all_ops()
        .enable_optimization(false)
        .load(bytes)
        .map_err(|error| refuse(error.to_string()))?;
    let names = graph.activations();
    let ids = names
        .iter()
        .map(|name| model.node_id(name))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refuse(error.to_string()))?;
    let input = model.input_ids()[0];
    let mut sums = Calibration::new();
    let mut count = 0.0_f32;
    for batch in batches {
        count += 1.0;
        let (numbers, shape) = batch?;
        let view = ValueView::from_shape(&shape, &numbers).map_err(|error| refuse(error.to_string()))?;
        // The input is fed, so it is not among what can be asked for.
        let asked: Vec<NodeId> = ids.iter().copied().filter(|id| *id != input).collect();
        let results = model
            .run(vec![(input, ValueOrView::from(view))], &asked, None)
            .map_err(|error| refuse(error.to_string()))?;
        let mut results = results.into_iter();
        for (name, id) in names.iter().zip(&ids) {
            let one = if *id == input {
                seen(&shape, &numbers)
            } else {
                let value = results.next().and_then(|value| value.into_tensor::<f32>());
                let value = value.ok_or_else(|| refuse(format!("`{name}` has no numbers")))?;
                let shape = value.shape().to_vec();
                seen(&shape, &value.into_data())
            };
            match sums.entry(name.clone()) {
                Entry::Vacant(place) => {
                    place.insert(one);
                }
                Entry::Occupied(mut sum) => {
                    let sum = sum.get_mut();
                    sum.range = [sum.range[0] + one.range[0], sum.range[1] + one.range[1]];
                    for (sum, mean) in sum.means.iter_mut().zip(&one.means) {
                        *sum += mean;
                    }
                }
            }
        }
    }
    if sums.len() != names.len() {
        return Err(refuse("no image to calibrate with".to_owned()));
    }
    for sum in sums.values_mut() {
        for number in sum.range.iter_mut().chain(&mut sum.means) {
            *number /= count;
        }
    }
    Ok(sums)
}

/// Range and channel means of an activation `[batch, channels, height, width]` or `[.., channels]`.
fn seen(shape: &[usize], numbers: &[f32]) -> Seen {
    let (channels, inner) = match *shape {
        [_, channels, height, width] => (channels, height * width),
        _ => (shape.last().copied().unwrap_or(1), 1),
    };
    let mut sums = vec![0.0_f64; channels];
    for (place, block) in numbers.chunks_exact(inner.max(1)).enumerate() {
        sums[place % channels] += block.iter().map(|&number| f64::from(number)).sum::<f64>();
    }
    let each = (numbers.len() / channels.max(1)).max(1) as f64;
    Seen {
        range: range_of(numbers),
        means: sums.into_iter().map(|sum| (sum / each) as f32).collect(),
    }
}

fn range_of(numbers: &[f32]) -> [f32; 2] {
    numbers
        .iter()
        .fold([f32::INFINITY, f32::NEG_INFINITY], |[least, most], &number| {
            [least.min(number), most.max(number)]
        })
}
