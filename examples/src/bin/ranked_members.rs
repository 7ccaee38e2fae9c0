//! The ranking loss by itself: four levels of change of every source are put in order by it, and it needs no label for that.

#![allow(clippy::print_stdout)]

use gradus::intra_class::RankingConfig;
use gradus::numerics::normalize;
use gradus::tensor::{Device, Tensor, TensorData};
use gradus_examples::clusters;

const SOURCES: usize = 16;
const LEVELS: usize = 4;
const DIM: usize = 24;

/// Cosine similarities `[sources, levels]` of every level to its source.
fn similarities(sources: &Tensor<2>, levels: Tensor<2>) -> Tensor<2> {
    let sources = sources.clone().unsqueeze_dim::<3>(1);
    let levels = normalize(levels).reshape([SOURCES, LEVELS, DIM]);
    (levels * sources).sum_dim(2).reshape([SOURCES, LEVELS])
}

fn main() {
    let device = Device::flex().autodiff();
    let tensor = |values: Vec<f32>, rows: usize| Tensor::<2>::from_data(TensorData::new(values, [rows, DIM]), &device);
    let sources = normalize(tensor(clusters(SOURCES as u32, 1, DIM, 0.0).0, SOURCES));
    // Points that lie anywhere: no order yet.
    let mut points = tensor(
        clusters(SOURCES as u32 * LEVELS as u32, 1, DIM, 0.0).0,
        SOURCES * LEVELS,
    );
    let ranking = RankingConfig::default();
    for step in 0..=200 {
        let leaf = points.clone().detach().require_grad();
        let similarity = similarities(&sources, leaf.clone());
        if step % 50 == 0 {
            let (misordered, _) = ranking.quality(&similarity);
            println!(
                "step {step}: {:.2} of the pairs in the wrong order",
                misordered.mean().into_scalar::<f32>()
            );
        }
        let gradients = ranking.loss(similarity).mean().backward();
        if let Some(slope) = leaf.grad(&gradients) {
            points = leaf.detach() - slope.mul_scalar(40.0);
        }
    }
}
