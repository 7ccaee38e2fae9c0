//! Gradients of the intra-class loss against central differences, in a process of its own that computes in `f64`.

#![allow(clippy::unwrap_used)]

use std::sync::Once;

use gradus::batch::EmbeddingBatch;
use gradus::core::random::{self, Rng};
use gradus::intra_class::synthesis::{ClassCovarianceConfig, LearnedDirectionsConfig};
use gradus::intra_class::{
    Aggregate, AnchorConfig, GateConfig, GateKind, GeneratorConfig, IntraClassConfig, IntraClassInput, MembersConfig,
    MembersMode, RankedPairs, Relu, Sides, Source,
};
use gradus::tensor::{Device, Param, Tensor, TensorData};

const LABELS: [u32; 7] = [2, 0, 2, 1, 0, 2, 1];
const ROWS: usize = LABELS.len();
const CLASSES: usize = 3;
const DIM: usize = 5;
const LEVELS: usize = 3;

fn device() -> Device {
    static DOUBLE: Once = Once::new();
    DOUBLE.call_once(|| {
        Device::flex()
            .configure(burn::tensor::FloatDType::F64)
            .expect("nothing has computed in this process yet");
    });
    Device::flex().autodiff()
}

/// Everything a loss may depend on, on the host.
#[derive(Clone)]
struct Point {
    x: Vec<f64>,
    proxies: Vec<f64>,
    graded: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    directions: Vec<f64>,
}

impl Point {
    fn new() -> Self {
        let mut stream = random::stream(3, &[]);
        let mut draw = |count: usize, size: f64| -> Vec<f64> {
            (0..count)
                .map(|_| stream.sample::<f64, _>(rand_distr::StandardNormal) * size)
                .collect()
        };
        let mut x = draw(ROWS * DIM, 1.0);
        for row in x.chunks_mut(DIM) {
            let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
            row.iter_mut().for_each(|value| *value /= norm);
        }
        Self {
            x,
            proxies: draw(CLASSES * DIM, 0.8),
            graded: draw(ROWS * LEVELS * DIM, 0.5),
            weight: draw(DIM * DIM, 0.5),
            bias: draw(DIM, 0.1),
            directions: draw(LEVELS * DIM, 0.6),
        }
    }

    fn part(&mut self, part: usize) -> &mut Vec<f64> {
        match part {
            0 => &mut self.x,
            1 => &mut self.proxies,
            2 => &mut self.graded,
            3 => &mut self.weight,
            4 => &mut self.bias,
            _ => &mut self.directions,
        }
    }
}

const PARTS: [&str; 6] = [
    "x",
    "proxies",
    "graded",
    "projector.weight",
    "projector.bias",
    "directions",
];

fn leaf<const D: usize>(values: &[f64], shape: [usize; D]) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device()).require_grad()
}

/// Loss at a point, and its gradient with respect to each part where wanted (`None` where it does not depend on one).
fn evaluate(config: &IntraClassConfig, point: &Point, differentiate: bool) -> (f64, Vec<Option<Vec<f64>>>) {
    let device = device();
    let mut model = config.init(DIM, 1, &device);
    if let Some(projector) = &mut model.projector {
        projector.weight = Param::from_tensor(Tensor::from_data(
            TensorData::new(point.weight.clone(), [DIM, DIM]),
            &device,
        ));
        projector.bias = Param::from_tensor(Tensor::from_data(TensorData::new(point.bias.clone(), [DIM]), &device));
    }
    if let Some(directions) = &mut model.directions {
        let values = TensorData::new(point.directions.clone(), [LEVELS, DIM]);
        *directions = Param::from_tensor(Tensor::from_data(values, &device));
    }
    let batch = EmbeddingBatch::new(leaf(&point.x, [ROWS, DIM]), LABELS.to_vec());
    let proxies = leaf(&point.proxies, [CLASSES, DIM]);
    let graded = leaf(&point.graded, [ROWS, LEVELS, DIM]);
    let mut stream = random::stream(8, &[]);
    let teacher: Vec<f64> = (0..ROWS * 4).map(|_| stream.random::<f64>()).collect();
    let mut statistics = config.statistics();
    statistics.observe(&gradus::core::EmbeddingSet {
        dim: DIM,
        values: (0..CLASSES * 4 * DIM).map(|_| stream.random::<f32>()).collect(),
        labels: (0..CLASSES as u32 * 4).map(|row| row % CLASSES as u32).collect(),
        ids: vec![String::new(); CLASSES * 4],
    });
    let output = model.forward(&IntraClassInput {
        batch: &batch,
        proxies: Some(proxies.clone()),
        teacher: Some(Tensor::from_data(TensorData::new(teacher, [ROWS, 4]), &device)),
        graded: Some(graded.clone()),
        ranked: None,
        statistics: Some(&statistics),
        progress: 0.0,
        seed: 17,
    });
    // The base loss is a function of the same leaves: a cubic one stands in.
    let base = model
        .base_input(batch.embeddings.clone())
        .powi_scalar(3)
        .sum()
        .mul_scalar(0.1);
    let loss = output.loss + base;
    let value = loss.clone().try_into_scalar::<f64>().unwrap();
    if !differentiate {
        return (value, Vec::new());
    }
    let gradients = loss.backward();
    fn host<const D: usize>(x: Option<Tensor<D>>) -> Option<Vec<f64>> {
        x.map(|x| x.try_into_vec_as::<f64>().unwrap())
    }
    let projector = model.projector.as_ref();
    let parts = vec![
        host(batch.embeddings.grad(&gradients)),
        host(proxies.grad(&gradients)),
        host(graded.grad(&gradients)),
        host(projector.and_then(|projector| projector.weight.val().grad(&gradients))),
        host(projector.and_then(|projector| projector.bias.val().grad(&gradients))),
        host(
            model
                .directions
                .as_ref()
                .and_then(|directions| directions.val().grad(&gradients)),
        ),
    ];
    (value, parts)
}

/// Compares every partial derivative; `depends` names the parts that must have a gradient that is not zero.
fn check(config: &IntraClassConfig, depends: &[&str]) {
    config.validate().unwrap();
    let point = Point::new();
    let (value, gradients) = evaluate(config, &point, true);
    assert!(value.is_finite());
    for (part, gradient) in gradients.into_iter().enumerate() {
        let name = PARTS[part];
        let expected = depends.contains(&name);
        let greatest = gradient
            .iter()
            .flatten()
            .fold(0.0f64, |top, value| top.max(value.abs()));
        assert_eq!(
            greatest > 1e-6,
            expected,
            "{name}: greatest derivative {greatest} in {config:?}"
        );
        for index in 0..point.clone().part(part).len() {
            let moved = |by: f64| {
                let mut point = point.clone();
                point.part(part)[index] += by;
                evaluate(config, &point, false).0
            };
            let step = 1e-5;
            // Fourth order: the ranking loss is sharp, and plain central differences would be the less exact of the two.
            let near = (moved(step) - moved(-step)) / (2.0 * step);
            let far = (moved(2.0 * step) - moved(-2.0 * step)) / (4.0 * step);
            let numeric = (4.0 * near - far) / 3.0;
            let got = gradient.as_ref().map_or(0.0, |gradient| gradient[index]);
            assert!(
                (got - numeric).abs() < 1e-6 * numeric.abs().max(1.0),
                "{name}[{index}]: {got} by autodiff, {numeric} by differences in {config:?}"
            );
        }
    }
}

/// Few levels, and an anchor loss that is at work: at the default margin most generated samples are well inside.
fn small(config: IntraClassConfig) -> IntraClassConfig {
    let anchor = AnchorConfig {
        alpha: 8.0,
        margin: 0.6,
        ..config.anchor
    };
    IntraClassConfig {
        levels: LEVELS,
        anchor,
        ..config
    }
}

fn open(config: IntraClassConfig) -> IntraClassConfig {
    IntraClassConfig {
        gate: GateConfig {
            kind: GateKind::None,
            ..config.gate.clone()
        },
        ..small(config)
    }
}

#[test]
fn sgar() {
    check(
        &open(IntraClassConfig::sgar()),
        &["x", "proxies", "projector.weight", "projector.bias"],
    );
    let mut config = small(IntraClassConfig::sgar());
    config.projector.relu = Relu::None;
    config.ranking.sides = Sides::Two;
    check(&config, &["x", "proxies", "projector.weight", "projector.bias"]);
    config.projector.relu = Relu::BeforeNorm;
    config.ranking.pairs = RankedPairs::Adjacent;
    check(&config, &["x", "proxies", "projector.weight", "projector.bias"]);
    config.projector.enabled = false;
    config.aggregate = Aggregate::ClassSum;
    check(&config, &["x", "proxies"]);
}

#[test]
fn sgar_released() {
    // The second normalisation is differentiated through, too.
    let config = small(IntraClassConfig::sgar_released());
    check(
        &config,
        &["x", "proxies", "projector.weight", "projector.bias", "directions"],
    );
}

#[test]
fn learned_directions() {
    let generator = GeneratorConfig::LearnedDirections(LearnedDirectionsConfig::default());
    let config = IntraClassConfig {
        generator,
        ..open(IntraClassConfig::sgar())
    };
    check(
        &config,
        &["x", "proxies", "projector.weight", "projector.bias", "directions"],
    );
}

#[test]
fn class_covariance() {
    let generator = GeneratorConfig::ClassCovariance(ClassCovarianceConfig::default());
    let config = IntraClassConfig {
        generator,
        anchor_weight: 0.0,
        ..open(IntraClassConfig::sgar())
    };
    check(&config, &["x", "projector.weight", "projector.bias"]);
}

#[test]
fn augmentations() {
    let config = IntraClassConfig {
        source: Source::Augmentations,
        ..open(IntraClassConfig::sgar())
    };
    check(
        &config,
        &["x", "proxies", "graded", "projector.weight", "projector.bias"],
    );
}

#[test]
fn members() {
    for mode in [
        MembersMode::Pairwise,
        MembersMode::Listwise,
        MembersMode::All,
        MembersMode::Correlation,
    ] {
        for mixtures in [0, 2] {
            if mixtures > 0 && mode == MembersMode::All {
                continue;
            }
            let members = MembersConfig {
                mode,
                mixtures,
                ..Default::default()
            };
            check(
                &IntraClassConfig {
                    members,
                    ..IntraClassConfig::members()
                },
                &["x"],
            );
        }
    }
}
