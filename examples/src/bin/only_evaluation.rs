//! Retrieval and the structure inside classes, of vectors that anything made. Only `gradus-core`: no tensors, no Burn.

#![allow(clippy::print_stdout)]

use gradus_core::EmbeddingSet;
use gradus_core::evaluation::{EvaluationOptions, evaluate};
use gradus_examples::clusters;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (values, labels) = clusters(50, 20, 64, 2.0);
    let set = EmbeddingSet {
        dim: 64,
        values,
        ids: (0..labels.len()).map(|row| row.to_string()).collect(),
        labels,
    };
    let evaluation = evaluate(&set, None, &EvaluationOptions::default(), None)?;
    for name in ["recall@1", "recall@8", "map@r", "r_precision"] {
        println!("{name}: {:.4}", evaluation.get(name).ok_or("not measured")?);
    }
    Ok(())
}
