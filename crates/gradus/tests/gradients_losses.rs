//! Losses in double precision: golden values and gradients of pytorch-metric-learning, and finite differences.
//!
//! A process of its own, because the default precision of a device can be set only once, before the first tensor.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use burn::tensor::FloatDType;
use gradus::batch::{Comparison, ItemSet, Mined, MinedPairs};
use gradus::core::random::{self, Rng};
use gradus::core::relations::Labels;
use gradus::distances::DistanceConfig;
use gradus::losses::{DistanceNeed, LossConfig, ReducerConfig, RegularizerConfig, Support, Unit, names};
use gradus::tensor::{Device, Tensor, TensorData};
use serde::Deserialize;

fn device() -> Device {
    static CONFIGURED: OnceLock<()> = OnceLock::new();
    CONFIGURED.get_or_init(|| {
        Device::flex()
            .configure(FloatDType::F64)
            .expect("no tensor was made before")
    });
    Device::flex().autodiff()
}

fn matrix(values: &[f64], columns: usize) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [values.len() / columns, columns]),
        &device(),
    )
}

fn host<const D: usize>(x: &Tensor<D>) -> Vec<f64> {
    x.try_to_vec_as::<f64>().expect("floats")
}

fn scalar(x: &Tensor<1>) -> f64 {
    host(x)[0]
}

fn near(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        let allowed = tolerance * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() <= allowed,
            "{what}, entry {position}: {found} is not {expected}"
        );
    }
}

/// A choice as the golden file writes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Choice {
    Triplets(Vec<[u32; 3]>),
    Pairs {
        positive: Vec<[u32; 2]>,
        negative: Vec<[u32; 2]>,
    },
}

#[derive(Deserialize)]
struct Set {
    embeddings: Vec<Vec<f64>>,
    labels: Vec<u32>,
}

#[derive(Deserialize)]
struct Golden {
    classes: usize,
    sets: BTreeMap<String, Set>,
    mined: BTreeMap<String, Choice>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: LossConfig,
    batch: String,
    mined: Option<String>,
    parameters: Option<Vec<Vec<f64>>>,
    value: f64,
    embedding_gradient: Vec<Vec<f64>>,
    reference_gradient: Option<Vec<Vec<f64>>>,
    parameter_gradient: Option<Vec<Vec<f64>>>,
}

#[test]
fn golden_values_and_gradients() {
    let golden: Golden =
        serde_json::from_str(include_str!("../../../tests/golden/losses.json")).expect("the golden file reads");
    for name in names() {
        assert!(
            golden.cases.iter().any(|case| case.config.name() == *name) || WITHOUT_REFERENCE.contains(name),
            "no golden case of {name}: add one to tools/golden/losses.py"
        );
    }
    let mut wrong = vec![];
    for case in &golden.cases {
        let what = format!("{:?} on {} mined {:?}", case.config, case.batch, case.mined);
        case.config
            .validate()
            .unwrap_or_else(|problem| panic!("{what}: {problem}"));
        let against_references = ["references", "views"].contains(&case.batch.as_str());
        let anchors = &golden.sets[if against_references { "mixed" } else { &case.batch }];
        let dim = anchors.embeddings[0].len();
        let leaf = |set: &Set| matrix(&set.embeddings.concat(), dim).require_grad();
        let embeddings = leaf(anchors);
        let references = against_references.then(|| leaf(&golden.sets[&case.batch]));
        let mut comparison = Comparison::within(ItemSet::new(embeddings.clone(), anchors.labels.clone()));
        if let Some(references) = &references {
            let set = ItemSet::new(references.clone(), golden.sets[&case.batch].labels.clone());
            comparison.references = Some(set);
        }
        comparison.mined = case.mined.as_ref().map(|mined| match &golden.mined[mined] {
            Choice::Triplets(triplets) => Mined::Triplets(triplets.clone()),
            Choice::Pairs { positive, negative } => Mined::Pairs(MinedPairs {
                positive: positive.clone(),
                negative: negative.clone(),
            }),
        });
        let mut loss = case.config.init(dim, golden.classes, 0, &device());
        if let Some(parameters) = &case.parameters {
            loss = loss.with_parameters(matrix(&parameters.concat(), parameters[0].len()));
        }
        loss.check(&comparison)
            .unwrap_or_else(|problem| panic!("{what}: {problem}"));
        let value = loss.forward(&comparison);
        let gradients = value.backward();
        let mut compare = |part: &str, found: Vec<f64>, expected: &[f64], tolerance: f64| {
            wrong.extend(difference(&found, expected, tolerance).map(|problem| format!("{part} of {what}: {problem}")));
        };
        compare("value", vec![scalar(&value)], &[case.value], 1e-10);
        let slopes = embeddings.grad(&gradients).expect("tracked");
        compare("gradient", host(&slopes), &case.embedding_gradient.concat(), 1e-9);
        let others = [
            ("references", references, &case.reference_gradient),
            ("parameters", loss.parameters(), &case.parameter_gradient),
        ];
        for (part, at, expected) in others {
            assert_eq!(at.is_some(), expected.is_some(), "{part} of {what}");
            if let (Some(at), Some(expected)) = (at, expected) {
                let slopes = at
                    .grad(&gradients)
                    .map_or_else(|| vec![0.0; expected.concat().len()], |slopes| host(&slopes));
                compare(part, slopes, &expected.concat(), 1e-9);
            }
        }
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

/// Losses that pytorch-metric-learning does not have: their oracle is in their own tests.
const WITHOUT_REFERENCE: &[&str] = &["centroid-triplet", "quadruplet", "recall-at-k", "roadmap"];

/// The first entry that differs.
fn difference(found: &[f64], expected: &[f64], tolerance: f64) -> Option<String> {
    if found.len() != expected.len() {
        return Some(format!("{} numbers instead of {}", found.len(), expected.len()));
    }
    let mut pairs = found.iter().zip(expected).enumerate();
    // A NaN is within no tolerance.
    let within = |found: f64, expected: f64| (found - expected).abs() <= tolerance * expected.abs().max(1.0);
    let wrong = pairs.find(|(_, (found, expected))| !within(**found, **expected));
    wrong.map(|(position, (found, expected))| format!("entry {position}: {found} is not {expected}"))
}

/// Central differences of `value` at `at`.
fn differences(at: &[f64], value: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let step = 1e-6;
    (0..at.len())
        .map(|index| {
            let mut moved = at.to_vec();
            moved[index] = at[index] + step;
            let above = value(&moved);
            moved[index] = at[index] - step;
            (above - value(&moved)) / (2.0 * step)
        })
        .collect()
}

const DIM: usize = 4;
const CLASSES: usize = 5;
const LABELS: [u32; 8] = [0, 3, 1, 0, 1, 3, 3, 4];
const REFERENCE_LABELS: [u32; 8] = [1, 3, 0, 2, 3, 0, 4, 1]; // as many as anchors: some losses compare views

/// Every loss as it is, and every way to compose it.
fn compositions() -> Vec<LossConfig> {
    let mut all = LossConfig::examples();
    for config in LossConfig::all() {
        let info = config.info();
        let mut with = |change: &dyn Fn(&mut gradus::losses::LossOptions)| {
            let mut config = config.clone();
            change(config.options_mut());
            config.validate().expect("fits");
            all.push(config);
        };
        if info.accepts.distances == DistanceNeed::Any {
            let lp = |p, power, normalize| DistanceConfig::Lp { p, power, normalize };
            let further = [
                lp(2.0, 2.0, false),
                lp(3.0, 1.5, true),
                DistanceConfig::Dot { normalize: false },
            ];
            let registered = DistanceConfig::registry().into_iter().map(|info| info.defaults);
            for distance in registered.chain(further) {
                with(&|options| options.distance = Some(distance));
            }
        }
        let mut reducers = vec![
            ReducerConfig::Mean {},
            ReducerConfig::Sum {},
            ReducerConfig::AvgNonZero {},
            ReducerConfig::ClassWeighted {
                weights: vec![0.5, 2.0, 1.0, 3.0, 0.25],
            },
        ];
        if info.terms.iter().all(|(_, unit)| *unit != Unit::Triplet) {
            reducers.push(ReducerConfig::PerAnchor {
                reducer: Box::new(ReducerConfig::Mean {}),
            });
        }
        for reducer in reducers {
            with(&|options| options.reducer = Some(reducer.clone()));
        }
        for regularizer in RegularizerConfig::registry().into_iter().map(|info| info.defaults) {
            if regularizer.validate("", None).is_ok() {
                with(&|options| options.embedding_regularizer = Some(regularizer));
            }
            if config
                .proxies_per_class()
                .is_some_and(|rows| regularizer.validate("", Some(rows)).is_ok())
            {
                with(&|options| options.weight_regularizer = Some(regularizer));
            }
        }
    }
    all
}

#[test]
fn gradients_agree_with_finite_differences() {
    let mined = [
        None,
        Some(Mined::Triplets(vec![
            [0, 3, 1],
            [0, 3, 2],
            [4, 2, 0],
            [4, 2, 0],
            [6, 1, 5],
        ])),
    ];
    let mut numbers: BTreeMap<&str, u64> = BTreeMap::new();
    for config in &compositions() {
        let accepts = config.info().accepts;
        // Numbered within the loss: another loss must not move the batches of all after it, some to where slopes break.
        let number = numbers.entry(config.name()).or_default();
        *number += 1;
        if config.info().holds_weights {
            // Its gradient is compared with the reference's only.
            continue;
        }
        for with_references in [false, true] {
            let refused = if with_references {
                Support::Refused
            } else {
                Support::Required
            };
            for mined in &mined {
                let not_mined = if mined.is_some() {
                    Support::Refused
                } else {
                    Support::Required
                };
                if accepts.references == refused || accepts.mined == not_mined {
                    continue;
                }
                // Positions must exist in the reference set too.
                let mined = mined
                    .clone()
                    .filter(|_| !with_references || accepts.mined == Support::Required);
                check_gradients(config, *number, with_references, mined);
            }
        }
    }
}

fn check_gradients(config: &LossConfig, number: u64, with_references: bool, mined: Option<Mined>) {
    let what = format!("{config:?}, references {with_references}, mined {}", mined.is_some());
    let name = config
        .name()
        .bytes()
        .fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut stream = random::stream(77, &[name, number]);
    let mut draw = |count: usize| -> Vec<f64> { (0..count).map(|_| stream.random::<f64>() * 2.0 - 1.0).collect() };
    let rows = draw(LABELS.len() * DIM);
    let reference_rows = draw(REFERENCE_LABELS.len() * DIM);
    let fresh = config.init(DIM, CLASSES, 0, &device());
    let [table_rows, width] = fresh.parameters().map_or([0, 1], |table| table.dims());
    let table = draw(table_rows * width);
    let loss_with = |table: &[f64]| {
        let loss = config.init(DIM, CLASSES, 0, &device());
        if table.is_empty() {
            loss
        } else {
            loss.with_parameters(matrix(table, width))
        }
    };
    let comparison = |rows: Tensor<2>, references: Tensor<2>| {
        let labels = |labels: &[u32]| Labels::from(labels.to_vec());
        let mut comparison = Comparison::within(ItemSet::new(rows, labels(&LABELS)));
        comparison.references = with_references.then(|| ItemSet::new(references, labels(&REFERENCE_LABELS)));
        comparison.mined.clone_from(&mined);
        comparison
    };
    let loss = loss_with(&table);
    let (anchors, references) = (
        matrix(&rows, DIM).require_grad(),
        matrix(&reference_rows, DIM).require_grad(),
    );
    let tracked = comparison(anchors.clone(), references.clone());
    loss.check(&tracked)
        .unwrap_or_else(|problem| panic!("{what}: {problem}"));
    // Copies: running statistics of the loss stay where they were.
    let value = loss.clone().forward(&tracked);
    let gradients = value.backward();
    let slopes = |at: &Tensor<2>| {
        at.grad(&gradients)
            .map_or_else(|| vec![0.0; at.dims().iter().product()], |x| host(&x))
    };
    let value_at = |loss: &gradus::losses::Loss, rows: &[f64], references: &[f64]| {
        scalar(
            &loss
                .clone()
                .forward(&comparison(matrix(rows, DIM), matrix(references, DIM))),
        )
    };
    let expected = differences(&rows, |rows| value_at(&loss, rows, &reference_rows));
    near(&slopes(&anchors), &expected, 1e-6, &what);
    if with_references {
        let expected = differences(&reference_rows, |references| value_at(&loss, &rows, references));
        near(&slopes(&references), &expected, 1e-6, &format!("references of {what}"));
    }
    if let Some(parameters) = loss.parameters() {
        let expected = differences(&table, |table| value_at(&loss_with(table), &rows, &reference_rows));
        near(&slopes(&parameters), &expected, 1e-6, &format!("parameters of {what}"));
    }
}

#[test]
fn every_loss_has_a_slope() {
    for config in LossConfig::examples() {
        let mut stream = random::stream(5, &[]);
        let rows: Vec<f64> = (0..LABELS.len() * DIM)
            .map(|_| stream.random::<f64>() * 2.0 - 1.0)
            .collect();
        let leaf = matrix(&rows, DIM).require_grad();
        let set = ItemSet::new(leaf.clone(), LABELS.to_vec());
        let mut comparison = Comparison::within(set.clone());
        if config.info().accepts.references == Support::Required {
            let other: Vec<f64> = rows.iter().rev().copied().collect();
            comparison.references = Some(ItemSet::new(matrix(&other, DIM), LABELS.to_vec()));
        }
        let loss = config.init(DIM, CLASSES, 0, &device());
        let slopes = leaf.grad(&loss.forward(&comparison).backward()).expect("tracked");
        assert!(
            host(&slopes).iter().any(|slope| slope.abs() > 1e-3),
            "{config:?}: no slope"
        );
    }
}
