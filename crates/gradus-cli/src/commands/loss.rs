//! `gradus loss`

use std::path::Path;

use gradus::batch::{Comparison, ItemSet, Mined, MinedPairs};
use gradus::config::settings;
use gradus::device::{DeviceChoice, use_double_precision};
use gradus::losses::{Differentiated, LabelNeed, Loss as LossModule, LossConfig, not_finite};
use gradus::tensor::{Device, Tensor, TensorData};
use gradus_core::embeddings::{
    LabelKind, Matrix, read_item_labels, read_parameters, read_precise_matrix, write_matrix,
};
use gradus_core::relations::Labels;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::arguments::Loss;
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Loss) -> Outcome {
    LossConfig::by_name(&arguments.name).map_err(|problem| Failure::new(format!("--name: {problem}")))?;
    let config: LossConfig = settings(&arguments.name, &arguments.overrides)?;
    config.validate().map_err(Failure::new)?;
    let needs_labels = config.accepts().labels != LabelNeed::Nothing;

    let embeddings = read_precise_matrix(&arguments.embeddings)?;
    let dim = embeddings.dim;
    let kind = arguments.label_kind.into();
    let labels = labels_of(
        &arguments.embeddings,
        &embeddings,
        arguments.labels.as_deref(),
        kind,
        needs_labels,
    )?;
    let references = match &arguments.reference_embeddings {
        None => None,
        Some(path) => {
            let rows = read_precise_matrix(path)?;
            let labels = labels_of(path, &rows, arguments.reference_labels.as_deref(), kind, needs_labels)?;
            Some((rows, labels))
        }
    };
    let parameters = arguments.parameters.as_deref().map(read_parameters).transpose()?;
    let mined = arguments.mined.as_deref().map(read_mined).transpose()?;

    let is_double = embeddings.is_double;
    let mut device = DeviceChoice::Cpu.resolve().map_err(Failure::new)?;
    if is_double {
        use_double_precision(&mut device).map_err(Failure::new)?;
    }
    let device = device.autodiff();
    let classes = class_count(&config, arguments, parameters.as_ref(), &labels)?;
    let mut loss = config.init(dim, classes, arguments.seed, &device);
    if let (Some(path), Some(given)) = (&arguments.parameters, &parameters) {
        let Some(held) = loss.parameters() else {
            return Err(Failure::new(format!(
                "the loss {} holds no parameters with these settings; leave --parameters {} out",
                loss.name(),
                path.display()
            )));
        };
        let (held, given_rows) = (held.dims(), given.values.len() / given.dim);
        let is_vector = held[1] == 1 && given.dim == 1 && config.proxies_per_class().is_none();
        if held != [given_rows, given.dim] && !is_vector {
            let turned = if given_rows == held[1] {
                "; transpose it if its columns are the proxies"
            } else {
                ""
            };
            return Err(Failure::new(format!(
                "{} holds {given_rows} rows of width {}, but the loss {} needs rows of width {}: one row per proxy, as wide as \
                 the embeddings{turned}",
                path.display(),
                given.dim,
                loss.name(),
                held[1]
            )));
        }
        loss = loss.with_parameters(tensor(given, is_double, &device));
    }

    let leaf = |matrix: &Matrix| tensor(matrix, is_double, &device).require_grad();
    let anchors = leaf(&embeddings);
    let reference_rows = references.as_ref().map(|(rows, _)| leaf(rows));
    let mut comparison = Comparison::within(ItemSet::new(anchors.clone(), labels)).with_seed(arguments.seed);
    if let (Some(rows), Some((_, labels))) = (&reference_rows, references) {
        comparison.references = Some(ItemSet::new(rows.clone(), labels));
    }
    comparison.mined = mined;
    loss.check(&comparison).map_err(Failure::new)?;
    if !loss.reduces() {
        return unreduced(&loss, &comparison, arguments);
    }
    let differentiated = loss.differentiate(&comparison).map_err(Failure::new)?;
    let value = differentiated.value;
    let mut terms = Map::new();
    for (name, term) in &differentiated.terms {
        terms.insert((*name).to_owned(), json!(term));
    }
    let parts = [
        (&arguments.gradient, Some(anchors)),
        (&arguments.reference_gradient, reference_rows),
        (&arguments.parameters_gradient, loss.parameters()),
    ];
    for (path, at) in parts {
        let Some(path) = path else { continue };
        let Some(at) = at else {
            return Err(Failure::new(format!(
                "the loss {} holds no parameters with these settings: there is no gradient to write to {}",
                loss.name(),
                path.display()
            )));
        };
        let matrix = gradient(&at, &differentiated, is_double)?;
        write_matrix(path, &matrix)
            .map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))?;
    }
    if arguments.json {
        return output::json(&json!({"value": value, "terms": terms}));
    }
    let mut rows = vec![vec!["term".to_owned(), "value".to_owned()]];
    rows.extend(terms.iter().map(|(name, value)| vec![name.clone(), value.to_string()]));
    output::text(&format!("{}: {value}\n\n{}", loss.name(), output::table(&rows)))
}

/// Prints every value of the loss, which `reducer = "do-nothing"` asks for.
fn unreduced(loss: &LossModule, comparison: &Comparison, arguments: &Loss) -> Outcome {
    let gradients = [
        ("--gradient", &arguments.gradient),
        ("--reference-gradient", &arguments.reference_gradient),
        ("--parameters-gradient", &arguments.parameters_gradient),
    ];
    if let Some((option, _)) = gradients.iter().find(|(_, path)| path.is_some()) {
        return Err(Failure::new(format!(
            "the reducer do-nothing leaves many values, and a gradient is that of one: leave {option} out, or choose another \
             reducer"
        )));
    }
    let terms = loss.unreduced(comparison).map_err(Failure::new)?;
    if let Some((name, value)) = terms.iter().find_map(|term| {
        let wrong = term.values.iter().find(|value| !value.is_finite());
        wrong.map(|value| (term.name, value))
    }) {
        return Err(Failure::new(not_finite(&format!("a value of {name}"), *value)));
    }
    if arguments.json {
        let terms: Map<String, serde_json::Value> = terms
            .into_iter()
            .map(|term| {
                let content = json!({
                    "unit": term.unit, "positions": term.positions, "values": term.values, "weights": term.weights,
                });
                (term.name.to_owned(), content)
            })
            .collect();
        return output::json(&json!({"reducer": "do-nothing", "terms": terms}));
    }
    let mut rows = vec![["term", "position", "value", "weight"].map(str::to_owned).to_vec()];
    for term in terms {
        let values = term.values.iter().zip(&term.weights).zip(&term.positions);
        rows.extend(values.map(|((value, weight), position)| {
            let position: Vec<String> = position.iter().map(u32::to_string).collect();
            vec![
                term.name.to_owned(),
                position.join(" "),
                value.to_string(),
                weight.to_string(),
            ]
        }));
    }
    output::text(&format!("{}, not reduced\n\n{}", loss.name(), output::table(&rows)))
}

/// The labels of some rows; numbers from 0 where a loss looks at none and none are given.
fn labels_of(
    rows: &Path,
    matrix: &Matrix,
    labels: Option<&Path>,
    kind: LabelKind,
    needed: bool,
) -> Result<Labels, Failure> {
    let count = matrix.values.len() / matrix.dim;
    let Some(path) = labels else {
        if needed {
            return Err(Failure::new(format!(
                "the loss looks at labels, but there are none for {}: give --labels (and --reference-labels for references)",
                rows.display()
            )));
        }
        return Ok(Labels::from((0..count as u32).collect::<Vec<u32>>()));
    };
    let labels = read_item_labels(path, Some(kind))?;
    if labels.len() != count {
        return Err(Failure::new(format!(
            "{} holds {count} embeddings, but {} holds {} labels: one label for each embedding is needed",
            rows.display(),
            path.display(),
            labels.len()
        )));
    }
    Ok(labels)
}

/// Number of classes: what the parameters have rows for, or one more than the largest label.
fn class_count(
    config: &LossConfig,
    arguments: &Loss,
    parameters: Option<&Matrix>,
    labels: &Labels,
) -> Result<usize, Failure> {
    let (Some(per_class), Some(parameters), Some(path)) =
        (config.proxies_per_class(), parameters, &arguments.parameters)
    else {
        return config.class_count(labels).map_err(Failure::new);
    };
    let rows = parameters.values.len() / parameters.dim;
    if !rows.is_multiple_of(per_class) {
        return Err(Failure::new(format!(
            "{} holds {rows} rows, which {per_class} proxies per class do not divide",
            path.display()
        )));
    }
    Ok(rows / per_class)
}

/// A choice as `gradus mine --json` prints it.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Choice {
    Triplets {
        anchors: Vec<u32>,
        positives: Vec<u32>,
        negatives: Vec<u32>,
    },
    Pairs {
        positive_pairs: Vec<[u32; 2]>,
        negative_pairs: Vec<[u32; 2]>,
    },
}

fn read_mined(path: &Path) -> Result<Mined, Failure> {
    let refused = |problem: String| Failure::new(format!("cannot read {}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    match serde_json::from_str(&text).map_err(|error| refused(error.to_string()))? {
        Choice::Triplets {
            anchors,
            positives,
            negatives,
        } => {
            if anchors.len() != positives.len() || anchors.len() != negatives.len() {
                return Err(refused("anchors, positives and negatives differ in number".to_owned()));
            }
            let others = positives.into_iter().zip(negatives);
            let triplets = anchors.into_iter().zip(others).map(|(a, (p, n))| [a, p, n]);
            Ok(Mined::Triplets(triplets.collect()))
        }
        Choice::Pairs {
            positive_pairs,
            negative_pairs,
        } => Ok(Mined::Pairs(MinedPairs {
            positive: positive_pairs,
            negative: negative_pairs,
        })),
    }
}

fn tensor(matrix: &Matrix, is_double: bool, device: &Device) -> Tensor<2> {
    let shape = [matrix.values.len() / matrix.dim, matrix.dim];
    if is_double {
        return Tensor::from_data(TensorData::new(matrix.values.clone(), shape), device);
    }
    let values: Vec<f32> = matrix.values.iter().map(|&value| value as f32).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// The gradient at a leaf; 0 where the loss does not depend on it.
fn gradient(at: &Tensor<2>, differentiated: &Differentiated, is_double: bool) -> Result<Matrix, Failure> {
    let [rows, dim] = at.dims();
    let values = match differentiated.gradient(at) {
        Some(slopes) if is_double => slopes.try_to_vec_as::<f64>()?,
        Some(slopes) => slopes.try_to_vec_as::<f32>()?.into_iter().map(f64::from).collect(),
        None => vec![0.0; rows * dim],
    };
    Ok(Matrix { dim, values, is_double })
}
