//! `gradus mine`

use std::collections::HashSet;
use std::path::Path;

use gradus::config::settings;
use gradus_core::embeddings::{LabelKind, read_item_labels, read_matrix};
use gradus_core::miners::{Mined, MinerConfig, MiningInput};
use gradus_core::relations::Labels;
use serde_json::json;

use crate::arguments::Mine;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Mine) -> Outcome {
    MinerConfig::by_name(&arguments.name).map_err(|problem| Failure::new(format!("--name: {problem}")))?;
    let miner: MinerConfig = settings(&arguments.name, &arguments.overrides)?;
    let kind = arguments.label_kind.into();
    let (dim, query, labels) = labelled(&arguments.embeddings, &arguments.labels, kind)?;
    let reference = match (&arguments.reference_embeddings, &arguments.reference_labels) {
        (Some(embeddings), Some(labels)) => Some((embeddings, labelled(embeddings, labels, kind)?)),
        _ => None,
    };
    let input = match &reference {
        None => MiningInput::batch(query, &labels, dim, arguments.seed)?,
        Some((path, (reference_dim, rows, reference_labels))) => {
            if *reference_dim != dim {
                return Err(Failure::new(format!(
                    "{} holds embeddings of width {dim}, but {} of width {reference_dim}: only embeddings of one width can be \
                     compared",
                    arguments.embeddings.display(),
                    path.display()
                )));
            }
            MiningInput::between(query, &labels, rows.as_slice(), reference_labels, dim, arguments.seed)?
        }
    };
    let mined = miner.mine(&input)?;
    if arguments.json {
        return output::json(&match mined {
            Mined::Triplets(triplets) => {
                let column = |at: usize| triplets.iter().map(|triplet| triplet[at]).collect::<Vec<u32>>();
                json!({"kind": "triplets", "anchors": column(0), "positives": column(1), "negatives": column(2)})
            }
            Mined::Pairs(pairs) => {
                json!({"kind": "pairs", "positive_pairs": pairs.positive, "negative_pairs": pairs.negative})
            }
        });
    }
    output::text(&summary(&arguments.name, &input, &mined))
}

/// Width, rows and labels that belong together.
fn labelled(embeddings: &Path, labels: &Path, kind: LabelKind) -> Result<(usize, Vec<f64>, Labels), Failure> {
    let (dim, rows) = read_matrix(embeddings)?;
    let known = read_item_labels(labels, Some(kind))?;
    let count = rows.len() / dim;
    if known.len() != count {
        return Err(Failure::new(format!(
            "{} holds {count} embeddings, but {} holds {} labels: one label for each embedding is needed",
            embeddings.display(),
            labels.display(),
            known.len()
        )));
    }
    Ok((dim, rows, known))
}

fn summary(name: &str, input: &MiningInput<'_>, mined: &Mined) -> String {
    let (mut positive, mut negative, mut triplets) = (0, 0, 0);
    for anchor in 0..input.queries() {
        let partners = input.relations().partners(anchor);
        positive += partners.positives.len();
        negative += partners.negatives.len();
        triplets += partners.positives.len() * partners.negatives.len();
    }
    let row = |cells: [String; 4]| cells.to_vec();
    let mut rows = vec![row(["", "chosen", "possible", "anchors"].map(str::to_owned))];
    let mut add = |what: &str, anchors: Vec<u32>, possible: usize| {
        let different: HashSet<&u32> = anchors.iter().collect();
        let numbers = [anchors.len(), possible, different.len()].map(|number| number.to_string());
        let [chosen, possible, different] = numbers;
        rows.push(row([what.to_owned(), chosen, possible, different]));
    };
    match mined {
        Mined::Triplets(chosen) => add("triplets", chosen.iter().map(|triplet| triplet[0]).collect(), triplets),
        Mined::Pairs(pairs) => {
            add(
                "positive pairs",
                pairs.positive.iter().map(|pair| pair[0]).collect(),
                positive,
            );
            add(
                "negative pairs",
                pairs.negative.iter().map(|pair| pair[0]).collect(),
                negative,
            );
        }
    }
    let references = if input.same() {
        String::new()
    } else {
        format!(", {} references", input.references())
    };
    format!(
        "{name}: {} embeddings of width {}{references}\n\n{}",
        input.queries(),
        input.dim(),
        output::table(&rows)
    )
}
