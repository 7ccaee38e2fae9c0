//! `gradus cluster`

use gradus_core::embeddings::{read_labels, read_matrix, write_labels};
use gradus_core::evaluation::{KMeansOptions, cluster_scores, k_means};
use serde_json::json;

use crate::arguments::Cluster;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Cluster) -> Outcome {
    let (dim, values) = read_matrix(&arguments.embeddings)?;
    let rows = values.len() / dim;
    let labels = arguments.labels.as_deref().map(read_labels).transpose()?;
    if let (Some(labels), Some(path)) = (&labels, &arguments.labels)
        && labels.len() != rows
    {
        return Err(Failure::new(format!(
            "{} holds {rows} embeddings, but {} holds {} labels: one label for each embedding is needed",
            arguments.embeddings.display(),
            path.display(),
            labels.len()
        )));
    }
    let values = if arguments.normalize {
        normalized(values, dim, arguments)?
    } else {
        values.into_iter().map(|value| value as f32).collect()
    };
    let options = KMeansOptions {
        clusters: arguments.clusters,
        restarts: arguments.restarts,
        iterations: arguments.iterations,
        seed: arguments.seed,
        ..KMeansOptions::default()
    };
    let found = k_means(&values, dim, &options)?;
    let scores = labels
        .map(|labels| cluster_scores(&labels, &found.assignments))
        .transpose()?;
    if let Some(path) = &arguments.out {
        write_labels(path, &found.assignments)
            .map_err(|error| Failure::new(format!("{} could not be written: {error}", path.display())))?;
    }
    if !found.converged {
        output::note(&format!(
            "the clusters had not settled after {} iterations: --iterations allows more",
            found.iterations
        ));
    }
    if arguments.json {
        let mut result = json!({
            "inertia": found.inertia, "sizes": found.sizes, "iterations": found.iterations, "converged": found.converged,
            "rows": rows, "clusters": arguments.clusters, "restarts": arguments.restarts, "seed": arguments.seed,
        });
        if let Some(scores) = scores {
            for (name, value) in [
                ("nmi", scores.nmi),
                ("nmi_geometric", scores.nmi_geometric),
                ("ami", scores.ami),
                ("f1", scores.f1),
                ("purity", scores.purity),
            ] {
                result[name] = value.into();
            }
        }
        return output::json(&result);
    }
    let (least, most) = (
        found.sizes.iter().min().unwrap_or(&0),
        found.sizes.iter().max().unwrap_or(&0),
    );
    let mut text = format!(
        "{rows} rows in {} clusters of {least} to {most} rows, inertia {:.6} after {} iterations",
        arguments.clusters, found.inertia, found.iterations
    );
    if let Some(scores) = scores {
        text.push_str(&format!(
            "\nNMI {:.4}, AMI {:.4}, pairwise F1 {:.4}, purity {:.4} ({} classes)",
            scores.nmi, scores.ami, scores.f1, scores.purity, scores.classes
        ));
    }
    if let Some(path) = &arguments.out {
        text.push_str(&format!("\nwritten: {}", path.display()));
    }
    output::text(&text)
}

fn normalized(values: Vec<f64>, dim: usize, arguments: &Cluster) -> Result<Vec<f32>, Failure> {
    let mut unit = Vec::with_capacity(values.len());
    for (row, values) in values.chunks_exact(dim).enumerate() {
        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
        if norm == 0.0 || !norm.is_finite() {
            return Err(Failure::new(format!(
                "row {row} of {} has the length {norm} and cannot be brought to unit length; rows are counted from 0",
                arguments.embeddings.display()
            )));
        }
        unit.extend(values.iter().map(|value| (value / norm) as f32));
    }
    Ok(unit)
}
