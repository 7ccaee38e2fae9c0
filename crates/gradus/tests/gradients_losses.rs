//! Losses in double precision: golden values and gradients, and finite differences.
//!
//! A process of its own, because the default precision of a device can be set only once, before the first tensor.

use std::sync::OnceLock;

use burn::tensor::FloatDType;
use gradus::batch::EmbeddingBatch;
use gradus::core::random::{self, Rng};
use gradus::losses::{Loss, LossConfig, MarginConfig, MetricLoss, TripletMarginConfig, names};
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

#[derive(Deserialize)]
struct Golden {
    classes: usize,
    labels: Vec<u32>,
    embeddings: Vec<Vec<f64>>,
    proxies: Vec<Vec<f64>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    config: LossConfig,
    value: f64,
    embedding_gradient: Vec<Vec<f64>>,
    proxy_gradient: Option<Vec<Vec<f64>>>,
    beta_gradient: Option<Vec<f64>>,
}

#[test]
fn golden_values_and_gradients() {
    let golden: Golden =
        serde_json::from_str(include_str!("../../../tests/golden/losses.json")).expect("the golden file reads");
    for name in names() {
        assert!(
            golden.cases.iter().any(|case| case.config.name() == *name),
            "no golden case of {name}"
        );
    }
    let dim = golden.embeddings[0].len();
    for case in &golden.cases {
        let what = format!("{:?}", case.config);
        let embeddings = matrix(&golden.embeddings.concat(), dim).require_grad();
        let loss = case.config.init(dim, golden.classes, 0, &device());
        let loss = loss.with_proxies(matrix(&golden.proxies.concat(), dim));
        let value = loss.forward(&EmbeddingBatch::new(embeddings.clone(), golden.labels.clone()));
        near(&[scalar(&value)], &[case.value], 1e-10, &what);
        let gradients = value.backward();
        let slopes = embeddings.grad(&gradients).expect("tracked");
        near(&host(&slopes), &case.embedding_gradient.concat(), 1e-9, &what);
        assert_eq!(loss.proxies().is_some(), case.proxy_gradient.is_some(), "{what}");
        if let (Some(proxies), Some(expected)) = (loss.proxies(), &case.proxy_gradient) {
            let slopes = proxies.grad(&gradients).expect("proxies are tracked");
            near(&host(&slopes), &expected.concat(), 1e-9, &format!("proxies of {what}"));
        }
        if let Some(expected) = &case.beta_gradient {
            let Loss::Margin(loss) = &loss else {
                panic!("{what} has no boundary")
            };
            let slopes = loss
                .beta()
                .expect("learned")
                .grad(&gradients)
                .expect("boundaries are tracked");
            near(&host(&slopes), expected, 1e-9, &format!("boundary of {what}"));
        }
    }
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

#[test]
fn gradients_agree_with_finite_differences() {
    let (dim, classes) = (4, 5);
    let labels = [0u32, 3, 1, 0, 1, 3, 3, 4];
    let mut configs = LossConfig::all();
    for (swap, smooth) in [(true, false), (false, true), (true, true)] {
        configs.push(LossConfig::TripletMargin(TripletMarginConfig {
            margin: 0.4,
            swap,
            smooth,
        }));
    }
    for beta_per_class in [false, true] {
        let learned = MarginConfig {
            learn_beta: true,
            beta_per_class,
            nu: 0.2,
            ..MarginConfig::default()
        };
        configs.push(LossConfig::Margin(learned));
    }
    for (number, config) in configs.iter().enumerate() {
        let mut stream = random::stream(77, &[number as u64]);
        let mut draw = |count: usize| -> Vec<f64> { (0..count).map(|_| stream.random::<f64>() * 2.0 - 1.0).collect() };
        let (rows, table) = (draw(labels.len() * dim), draw(classes * dim));
        let loss_with = |table: &[f64]| config.init(dim, classes, 0, &device()).with_proxies(matrix(table, dim));
        let batch = |embeddings: Tensor<2>| EmbeddingBatch::new(embeddings, labels.to_vec());

        let loss = loss_with(&table);
        let embeddings = matrix(&rows, dim).require_grad();
        let value = loss.forward(&batch(embeddings.clone()));
        assert!(scalar(&value) > 0.0, "{config:?}: nothing to differentiate");
        let gradients = value.backward();
        let found = host(&embeddings.grad(&gradients).expect("tracked"));
        assert!(found.iter().any(|slope| slope.abs() > 1e-3), "{config:?}: no slope");
        let expected = differences(&rows, |rows| scalar(&loss.forward(&batch(matrix(rows, dim)))));
        near(&found, &expected, 1e-6, &format!("{config:?}"));
        if let Some(proxies) = loss.proxies() {
            let found = host(&proxies.grad(&gradients).expect("tracked"));
            let expected = differences(&table, |table| {
                scalar(&loss_with(table).forward(&batch(matrix(&rows, dim))))
            });
            near(&found, &expected, 1e-6, &format!("proxies of {config:?}"));
        }
    }
}
