//! Gradients of embedding augmentations and auxiliary losses against central differences, in a process of its own that computes
//! in `f64`.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Once};

use gradus::auxiliary_losses::{AuxiliaryConfig, AuxiliaryInput, AuxiliaryModule, AuxiliaryShape, S2sdConfig};
use gradus::core::EmbeddingSet;
use gradus::core::random::{self, Rng};
use gradus::embedding_augmentation::{AugmentationInput, EmbeddingAugmentationConfig};
use gradus::intra_class::ClassStatistics;
use gradus::losses::LossConfig;
use gradus::tensor::{Device, Tensor, TensorData};

const LABELS: [u32; 7] = [2, 0, 2, 1, 0, 2, 1];
const ROWS: usize = LABELS.len();
const CLASSES: usize = 3;
const DIM: usize = 5;
const FEATURES: usize = 6;

fn device() -> Device {
    static DOUBLE: Once = Once::new();
    DOUBLE.call_once(|| {
        Device::flex()
            .configure(burn::tensor::FloatDType::F64)
            .expect("nothing has computed in this process yet");
    });
    Device::flex().autodiff()
}

fn draw(count: usize, seed: u64) -> Vec<f64> {
    let mut stream = random::stream(seed, &[]);
    (0..count).map(|_| stream.sample(rand_distr::StandardNormal)).collect()
}

fn leaf(values: &[f64], columns: usize) -> Tensor<2> {
    let shape = [values.len() / columns, columns];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), &device()).require_grad()
}

/// A function of two matrices: its value, and the leaf that stands for the second one where that is a copy.
type Function<'a> = &'a dyn Fn(Tensor<2>, Tensor<2>) -> (Tensor<1>, Option<Tensor<2>>);

/// Compares the partial derivatives with respect to both matrices; `depends` says which have any.
fn check(what: &str, function: Function<'_>, [x, other]: [&[f64]; 2], columns: [usize; 2], depends: [bool; 2]) {
    let leaves = [leaf(x, columns[0]), leaf(other, columns[1])];
    let (value, stands_for_other) = function(leaves[0].clone(), leaves[1].clone());
    assert!(value.clone().into_scalar::<f64>().is_finite(), "{what}");
    let gradients = value.backward();
    let of = |leaf: &Tensor<2>| {
        leaf.grad(&gradients)
            .map(|slope| slope.try_into_vec_as::<f64>().unwrap())
    };
    let slopes = [
        of(&leaves[0]),
        of(&stands_for_other.unwrap_or_else(|| leaves[1].clone())),
    ];
    let points = [x.to_vec(), other.to_vec()];
    for part in 0..2 {
        let greatest = slopes[part]
            .iter()
            .flatten()
            .fold(0.0f64, |top, value| top.max(value.abs()));
        assert_eq!(
            greatest > 1e-6,
            depends[part],
            "{what}: part {part} has slopes up to {greatest}"
        );
        if !depends[part] {
            continue;
        }
        for index in 0..points[part].len() {
            let moved = |by: f64| {
                let mut points = points.clone();
                points[part][index] += by;
                let [x, other] = [leaf(&points[0], columns[0]), leaf(&points[1], columns[1])];
                function(x, other).0.into_scalar::<f64>()
            };
            let step = 1e-5;
            let near = (moved(step) - moved(-step)) / (2.0 * step);
            let far = (moved(2.0 * step) - moved(-2.0 * step)) / (4.0 * step);
            let numeric = (4.0 * near - far) / 3.0;
            let got = slopes[part].as_ref().map_or(0.0, |slopes| slopes[index]);
            assert!(
                (got - numeric).abs() < 1e-6 * numeric.abs().max(1.0),
                "{what}, part {part}, entry {index}: {got} by autodiff, {numeric} by differences"
            );
        }
    }
}

fn statistics() -> ClassStatistics {
    let mut statistics = ClassStatistics::default();
    statistics.observe(&EmbeddingSet {
        dim: DIM,
        values: draw(CLASSES * 4 * DIM, 8)
            .into_iter()
            .map(|value| 0.2 * value as f32)
            .collect(),
        labels: (0..CLASSES as u32 * 4).map(|row| row % CLASSES as u32).collect(),
        ids: vec![String::new(); CLASSES * 4],
    });
    statistics
}

#[test]
fn augmentations_with_respect_to_embeddings_and_proxies() {
    let labels: Arc<[u32]> = LABELS.into();
    let statistics = statistics();
    for (augmentation, loss) in [
        (0, "proxy-anchor"),
        (0, "multi-similarity"),
        (1, "triplet-margin"),
        (1, "contrastive"),
        (1, "multi-similarity"),
        (2, "proxy-anchor"),
        (2, "normalized-softmax"),
    ] {
        let augmentation = &EmbeddingAugmentationConfig::all()[augmentation];
        let config = LossConfig::by_name(loss).unwrap();
        augmentation.validate(&config).unwrap();
        let has_proxies = config.proxies_per_class().is_some();
        let function = |x: Tensor<2>, proxies: Tensor<2>| {
            let loss = config.init(DIM, CLASSES, 1, &device());
            let loss = if has_proxies { loss.with_proxies(proxies) } else { loss };
            let augmented = augmentation.augment(&AugmentationInput {
                embeddings: x,
                labels: &labels,
                loss: &loss,
                statistics: Some(&statistics),
                seed: 11,
            });
            let with = augmented.loss.as_ref().unwrap_or(&loss);
            with.check(&augmented.comparison).unwrap();
            (with.forward(&augmented.comparison), loss.proxies())
        };
        let what = format!("{} with {loss}", augmentation.name());
        let points = [draw(ROWS * DIM, 1), draw(CLASSES * DIM, 2)];
        check(
            &what,
            &function,
            [&points[0], &points[1]],
            [DIM, DIM],
            [true, has_proxies],
        );
    }
}

#[test]
fn auxiliary_losses_with_respect_to_embeddings_and_features() {
    let labels: Arc<[u32]> = LABELS.into();
    let loss = LossConfig::default();
    let device = device();
    let s2sd = |features, weight| {
        AuxiliaryConfig::S2sd(S2sdConfig {
            widths: vec![7, 8],
            features,
            weight,
            ..Default::default()
        })
    };
    for (config, features) in [
        (AuxiliaryConfig::Metrix(Default::default()), false),
        // What the heads teach is a constant to their features: differences see their own losses alone.
        (s2sd(false, 1e-12), true),
    ] {
        let function = |x: Tensor<2>, features: Tensor<2>| {
            let module = config.init(&AuxiliaryShape {
                dim: DIM,
                features: FEATURES,
                classes: CLASSES,
                loss: &loss,
                seed: 3,
                device: &device,
            });
            let input = AuxiliaryInput {
                embeddings: x,
                features: Some(features),
                proxies: None,
                labels: &labels,
                mined: None,
                seed: 5,
            };
            (module.forward(&input).unwrap(), None)
        };
        let points = [draw(ROWS * DIM, 1), draw(ROWS * FEATURES, 2)];
        let of_embeddings = !features;
        check(
            config.name(),
            &function,
            [&points[0], &points[1]],
            [DIM, FEATURES],
            [of_embeddings, features],
        );
    }
    // What they teach, with respect to the pupil.
    let function = |x: Tensor<2>, features: Tensor<2>| {
        let module = s2sd(true, 5.0).init(&AuxiliaryShape {
            dim: DIM,
            features: FEATURES,
            classes: CLASSES,
            loss: &loss,
            seed: 3,
            device: &device,
        });
        let input = AuxiliaryInput {
            embeddings: x,
            features: Some(features.without_autodiff().autodiff()),
            proxies: None,
            labels: &labels,
            mined: None,
            seed: 5,
        };
        (module.forward(&input).unwrap(), None)
    };
    let points = [draw(ROWS * DIM, 1), draw(ROWS * FEATURES, 2)];
    check(
        "s2sd",
        &function,
        [&points[0], &points[1]],
        [DIM, FEATURES],
        [true, false],
    );
}

#[test]
fn nir_with_respect_to_embeddings_and_proxies() {
    let labels: Arc<[u32]> = LABELS.into();
    let device = device();
    let function = |x: Tensor<2>, proxies: Tensor<2>| {
        let module = AuxiliaryConfig::Nir(Default::default()).init(&AuxiliaryShape {
            dim: DIM,
            features: FEATURES,
            classes: CLASSES,
            loss: &LossConfig::default(),
            seed: 3,
            device: &device,
        });
        let input = AuxiliaryInput {
            embeddings: x,
            features: None,
            proxies: Some(proxies),
            labels: &labels,
            mined: None,
            seed: 5,
        };
        (module.forward(&input).unwrap(), None)
    };
    let points = [draw(ROWS * DIM, 1), draw(CLASSES * DIM, 2)];
    check("nir", &function, [&points[0], &points[1]], [DIM, DIM], [true, true]);
}

/// Moments are constants to the gradient of MDR: a momentum near 1 makes the differences see them so.
#[test]
fn mdr_with_respect_to_embeddings_and_levels() {
    use gradus::auxiliary_losses::{AuxiliaryLossConfig, Mdr, MdrConfig};
    let labels: Arc<[u32]> = LABELS.into();
    let device = device();
    let batch = draw(ROWS * DIM, 1);
    let input = |embeddings: Tensor<2>| AuxiliaryInput {
        embeddings,
        features: None,
        proxies: None,
        labels: &labels,
        mined: None,
        seed: 5,
    };
    // The moments are those of the unmoved batch.
    let module = |levels: &[f64]| -> Mdr {
        let config = MdrConfig {
            momentum: 1.0 - 1e-12,
            levels: levels.to_vec(),
            ..Default::default()
        };
        let module = config.init(&AuxiliaryShape {
            dim: DIM,
            features: FEATURES,
            classes: CLASSES,
            loss: &LossConfig::default(),
            seed: 3,
            device: &device,
        });
        let first = module.forward(&input(leaf(&batch, DIM))).unwrap();
        assert!(first.into_scalar::<f64>() > 0.0);
        module
    };
    let levels = [-0.8, 0.1, 1.1];
    let of_rows = |x: Tensor<2>, _: Tensor<2>| (module(&levels).forward(&input(x)).unwrap(), None);
    check("mdr", &of_rows, [&batch, &[1.0]], [DIM, 1], [true, false]);

    let tracked = module(&levels);
    let gradients = tracked.forward(&input(leaf(&batch, DIM))).unwrap().backward();
    let slopes = tracked
        .levels()
        .grad(&gradients)
        .unwrap()
        .try_into_vec_as::<f64>()
        .unwrap();
    assert!(slopes.iter().any(|slope| slope.abs() > 1e-6), "{slopes:?}");
    for (level, slope) in slopes.into_iter().enumerate() {
        let moved = |by: f64| {
            let mut levels = levels;
            levels[level] += by;
            module(&levels)
                .forward(&input(leaf(&batch, DIM)))
                .unwrap()
                .into_scalar::<f64>()
        };
        let numeric = (moved(1e-6) - moved(-1e-6)) / 2e-6;
        assert!(
            (slope - numeric).abs() < 1e-6,
            "level {level}: {slope} by autodiff, {numeric} by differences"
        );
    }
}
