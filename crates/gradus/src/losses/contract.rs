//! What every loss of the registry promises.

use super::testing::{near, scalar};
use super::*;
use crate::batch::{EmbeddingBatch, ItemSet, Mined};
use crate::distances::DistanceConfig;
use crate::tensor::TensorData;
use gradus_core::random::{self, Rng};
use gradus_core::relations::Labels;

const DIM: usize = 5;
const CLASSES: usize = 4;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct File {
    loss: LossConfig,
}

/// A comparison that the loss can look at: within the batch, or with itself where it must have references.
fn comparison(config: &LossConfig, embeddings: Tensor<2>, labels: &[u32]) -> Comparison {
    let batch = EmbeddingBatch::new(embeddings, labels.to_vec());
    let comparison = match config.info().accepts.references {
        Support::Required => Comparison::with_references(&batch, &batch),
        Support::Optional | Support::Refused => Comparison::within(&batch),
    };
    match config.info().accepts.mined {
        Support::Required => comparison.with_mined(Mined::Triplets(vec![])),
        Support::Optional | Support::Refused => comparison,
    }
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut stream = random::stream(seed, &[99]);
    (0..count).map(|_| stream.random::<f32>() * 2.0 - 1.0).collect()
}

fn embeddings(values: Vec<f32>) -> Tensor<2> {
    let rows = values.len() / DIM;
    Tensor::from_data(TensorData::new(values, [rows, DIM]), &Device::flex().autodiff()).require_grad()
}

fn loss(config: &LossConfig) -> Loss {
    config.init(DIM, CLASSES, 11, &Device::flex().autodiff())
}

/// Value and gradient of a loss, both checked to be finite.
fn evaluate(config: &LossConfig, loss: &Loss, values: Vec<f32>, labels: &[u32], case: &str) -> (f64, Vec<f32>) {
    let embeddings = embeddings(values);
    // A copy: running statistics of the loss stay where they were.
    let value = loss.clone().forward(&comparison(config, embeddings.clone(), labels));
    assert_eq!(value.dims(), [1]);
    assert!(value.is_tracked(), "{config:?} on {case}: not tracked");
    let number = scalar(&value);
    assert!(number.is_finite(), "{config:?} on {case}: {number}");
    let gradients = value.backward();
    let gradient = embeddings
        .grad(&gradients)
        .expect("a gradient")
        .try_to_vec_as::<f32>()
        .expect("floats");
    assert!(
        gradient.iter().all(|slope| slope.is_finite()),
        "{config:?} on {case}: {gradient:?}"
    );
    if let Some(proxies) = loss.parameters().filter(|_| !labels.is_empty()) {
        // Parameters that no pair touched are not in the graph.
        let slopes = proxies
            .grad(&gradients)
            .map_or_else(Vec::new, |slopes| slopes.try_to_vec_as::<f32>().expect("floats"));
        assert!(
            slopes.iter().all(|slope| slope.is_finite()),
            "{config:?} on {case}: proxies {slopes:?}"
        );
    }
    (number, gradient)
}

#[test]
fn degenerate_batches_are_finite_and_tracked() {
    let pair_losses_cost_nothing = ["contrastive", "margin", "nt-xent", "triplet-margin"];
    for config in LossConfig::examples() {
        let loss = loss(&config);
        let name = config.name();
        let (all_apart, _) = evaluate(&config, &loss, noise(4 * DIM, 1), &[0, 1, 2, 3], "all labels distinct");
        let (one_class, _) = evaluate(&config, &loss, noise(4 * DIM, 2), &[2; 4], "one class");
        let (single, slopes) = evaluate(&config, &loss, noise(DIM, 3), &[0], "one row");
        if pair_losses_cost_nothing.contains(&name) {
            assert_eq!(single, 0.0, "{name}");
            assert!(slopes.iter().all(|&slope| slope == 0.0));
            if name != "contrastive" {
                assert_eq!((all_apart, one_class), (0.0, 0.0), "{name}");
            }
        }
        let mut with_zero = noise(4 * DIM, 4);
        with_zero[..DIM].fill(0.0);
        evaluate(&config, &loss, with_zero, &[0, 0, 1, 1], "a zero vector");
        evaluate(&config, &loss, vec![0.0; 4 * DIM], &[0, 0, 1, 1], "zero vectors only");
        let row = noise(DIM, 5);
        evaluate(&config, &loss, row.repeat(4), &[0, 0, 1, 1], "duplicate rows");
        let opposite: Vec<f32> = [row.clone(), row.iter().map(|value| -value).collect()].concat();
        evaluate(&config, &loss, opposite.repeat(2), &[0, 0, 1, 1], "opposite rows");
        let huge: Vec<f32> = noise(4 * DIM, 6).iter().map(|value| value * 1e4).collect();
        evaluate(&config, &loss, huge, &[0, 0, 1, 1], "scale 1e4");
        let tiny: Vec<f32> = noise(4 * DIM, 6).iter().map(|value| value * 1e-6).collect();
        evaluate(&config, &loss, tiny, &[0, 0, 1, 1], "scale 1e-6");
        evaluate(&config, &loss, vec![], &[], "no row");
    }
}

#[test]
fn embeddings_equal_to_their_proxies_are_finite() {
    for config in LossConfig::all() {
        let values = noise(CLASSES * DIM, 8);
        let proxies = Tensor::from_data(TensorData::new(values.clone(), [CLASSES, DIM]), &Device::flex());
        let loss = loss(&config);
        if loss.proxies().is_none() {
            continue;
        }
        let loss = loss.with_proxies(proxies);
        evaluate(&config, &loss, values.clone(), &[0, 1, 2, 3], "cosine 1");
        evaluate(
            &config,
            &loss,
            values.iter().map(|value| -value).collect(),
            &[0, 1, 2, 3],
            "cosine -1",
        );
    }
}

#[test]
fn order_of_rows_changes_nothing() {
    let labels = [0, 1, 1, 2, 0, 2, 2, 3];
    let order = [3, 0, 7, 5, 1, 6, 2, 4];
    for config in LossConfig::examples() {
        if config.info().order_matters {
            continue;
        }
        let loss = loss(&config);
        let values = noise(8 * DIM, 9);
        let shuffled: Vec<f32> = order
            .iter()
            .flat_map(|&row| values[row * DIM..][..DIM].to_vec())
            .collect();
        let (value, gradient) = evaluate(&config, &loss, values, &labels, "in order");
        let (moved, moved_gradient) = evaluate(
            &config,
            &loss,
            shuffled,
            &order.map(|row| labels[row]),
            "in another order",
        );
        near(moved, value);
        assert!(value > 0.0, "{}: nothing to compare", config.name());
        for (position, &row) in order.iter().enumerate() {
            for axis in 0..DIM {
                near(
                    f64::from(moved_gradient[position * DIM + axis]),
                    f64::from(gradient[row * DIM + axis]),
                );
            }
        }
    }
}

#[test]
fn lengths_of_embeddings_change_nothing() {
    let labels = [0, 1, 1, 2, 0, 2];
    for config in LossConfig::examples() {
        if config.info().lengths_matter {
            continue;
        }
        let loss = loss(&config);
        let values = noise(6 * DIM, 10);
        let longer = values
            .iter()
            .enumerate()
            .map(|(i, value)| value * (1 + i / DIM) as f32)
            .collect();
        let (value, _) = evaluate(&config, &loss, values, &labels, "some length");
        near(evaluate(&config, &loss, longer, &labels, "another length").0, value);
    }
}

#[test]
fn a_step_against_the_gradient_lowers_the_loss() {
    let labels = [0, 1, 1, 2, 0, 2, 3, 3];
    for config in LossConfig::examples() {
        let loss = loss(&config);
        let values = noise(8 * DIM, 12);
        let (value, gradient) = evaluate(&config, &loss, values.clone(), &labels, "before");
        let length: f32 = gradient.iter().map(|slope| slope * slope).sum::<f32>().sqrt();
        let after = values
            .iter()
            .zip(&gradient)
            .map(|(value, slope)| value - 1e-3 * slope / length)
            .collect();
        let (after, _) = evaluate(&config, &loss, after, &labels, "after");
        assert!(after < value, "{}: {value} became {after}", config.name());
    }
}

#[test]
fn a_reference_set_of_the_same_items_is_the_batch_itself() {
    let labels = [0_u32, 1, 1, 2, 0, 2, 3];
    let ids: Vec<u64> = (10..17).collect();
    let optional = |config: &LossConfig| config.info().accepts.references == Support::Optional;
    for config in LossConfig::examples().into_iter().filter(optional) {
        let loss = loss(&config);
        let values = noise(labels.len() * DIM, 13);
        let (value, gradient) = evaluate(&config, &loss, values.clone(), &labels, "within");
        let leaf = embeddings(values);
        let set = ItemSet::new(leaf.clone(), labels.to_vec()).with_ids(ids.clone());
        let comparison = Comparison::with_references(set.clone(), set);
        loss.check(&comparison).expect("fits");
        let across = loss.forward(&comparison);
        near(scalar(&across), value);
        let slopes = leaf.grad(&across.backward()).expect("tracked");
        for (found, expected) in slopes.try_to_vec_as::<f32>().expect("floats").iter().zip(gradient) {
            near(f64::from(*found), f64::from(expected));
        }
    }
}

#[test]
fn terms_are_those_announced() {
    let labels = [0_u32, 1, 1, 2, 0, 2, 3];
    for config in LossConfig::examples() {
        let comparison = comparison(&config, embeddings(noise(labels.len() * DIM, 14)), &labels);
        let loss = loss(&config);
        loss.check(&comparison).expect("fits");
        let info = config.info();
        let view = View {
            comparison: &comparison,
            distance: loss.distance(),
        };
        for term in loss.base.terms(&view) {
            let announced = info.terms.iter().find(|(name, _)| *name == term.name);
            let (_, unit) = announced.unwrap_or_else(|| panic!("{} has no term {}", info.name, term.name));
            assert!(term.unit() == *unit || term.unit() == Unit::Reduced, "{}", info.name);
            let needs_divisor = info.reducer == ReducerConfig::DIVISOR && term.unit() != Unit::Reduced;
            assert!(
                !needs_divisor || term.divisor.is_some(),
                "{}: {} has no divisor",
                info.name,
                term.name
            );
        }
    }
}

#[test]
fn relations_of_several_labels_are_understood() {
    let lists: Vec<Vec<u32>> = [&[0][..], &[0, 1], &[1], &[2], &[2, 3], &[]]
        .iter()
        .map(|list| list.to_vec())
        .collect();
    for config in LossConfig::examples() {
        let leaf = embeddings(noise(lists.len() * DIM, 15));
        let set = ItemSet::new(leaf.clone(), Labels::MultiLabel(lists.clone().into()));
        let comparison = Comparison::within(set);
        let loss = loss(&config);
        let accepts = config.info().accepts;
        if accepts.labels == LabelNeed::Classes || loss.base.class_limit().is_some() {
            assert!(loss.check(&comparison).expect_err("no classes").contains(config.name()));
        } else if accepts.references != Support::Required && accepts.mined != Support::Required {
            loss.check(&comparison).expect("fits");
            let slopes = leaf.grad(&loss.forward(&comparison).backward()).expect("tracked");
            assert!(
                slopes
                    .try_to_vec_as::<f32>()
                    .expect("floats")
                    .iter()
                    .all(|slope| slope.is_finite())
            );
        }
    }
}

#[test]
fn options_are_read_beside_the_settings_and_checked() {
    let read = |text: &str| toml::from_str::<File>(text).map(|file| file.loss);
    let config =
        read("[loss.contrastive]\npos-margin = 0.5\ndistance = \"cosine\"\nreducer = \"sum\"\n").expect("reads");
    assert_eq!(config.options().distance, Some(DistanceConfig::COSINE));
    assert_eq!(config.options().reducer, Some(ReducerConfig::Sum {}));
    let nested =
        "[loss.contrastive]\n[loss.contrastive.distance.lp]\np = 1\n[loss.contrastive.reducer.threshold]\nlow = 0\n";
    let text = toml::to_string(&File {
        loss: read(nested).expect("reads"),
    })
    .expect("writes");
    assert_eq!(
        toml::from_str::<File>(&text).expect("reads").loss,
        read(nested).expect("reads")
    );
    let refused = |text: &str| read(text).expect("reads").validate().expect_err("does not fit");
    assert!(refused("[loss.arcface]\ndistance = \"snr\"\n").contains("loss.arcface.distance"));
    assert!(refused("[loss.contrastive]\nreducer = \"divisor\"\n").contains("divisor"));
    assert!(refused("[loss.contrastive]\nweight-regularizer = \"lp\"\n").contains("weight-regularizer"));
    assert!(refused("[loss.arcface]\nweight-regularizer = \"sparse-centers\"\n").contains("sparse-centers"));
    assert!(refused("[loss.contrastive.distance.lp]\np = 0.5\n").contains("distance.lp.p"));
    assert!(read("[loss.contrastive]\ndistance = \"cosin\"\n").is_err());
}

#[test]
fn what_a_loss_cannot_look_at_is_refused_by_name() {
    let batch = EmbeddingBatch::new(embeddings(noise(3 * DIM, 16)), vec![0, 4, 1]);
    let arcface = loss(&ArcfaceConfig::default().into());
    let message = arcface
        .check(&Comparison::within(&batch))
        .expect_err("label 4 of 4 classes");
    assert!(message.contains("row 1") && message.contains("arcface"), "{message}");
    let fits = EmbeddingBatch::new(embeddings(noise(3 * DIM, 16)), vec![0, 3, 1]);
    let message = arcface
        .check(&Comparison::with_references(&fits, &fits))
        .expect_err("references");
    assert!(message.contains("reference"), "{message}");
    let mut weighted = LossConfig::from(ContrastiveConfig::default());
    weighted.options_mut().reducer = Some(ReducerConfig::ClassWeighted { weights: vec![1.0; 4] });
    let message = loss(&weighted)
        .check(&Comparison::within(&batch))
        .expect_err("no weight for class 4");
    assert!(message.contains("class weights"), "{message}");
}

#[test]
fn initial_parameters_follow_from_the_seed() {
    let device = Device::flex().autodiff();
    for config in LossConfig::all() {
        let proxies = |seed| {
            let loss = config.init(DIM, CLASSES, seed, &device);
            loss.parameters()
                .filter(|_| loss.proxies().is_some())
                .map(|proxies| proxies.try_to_vec_as::<f32>().expect("floats"))
        };
        assert_eq!(proxies(1), proxies(1));
        assert!(proxies(1).is_none() || proxies(1) != proxies(2), "{}", config.name());
    }
}

#[test]
fn configuration_round_trips_and_refuses_what_it_does_not_know() {
    for config in LossConfig::examples() {
        config.validate().expect("valid");
        let file = File { loss: config.clone() };
        let text = toml::to_string(&file).expect("writes");
        assert!(text.contains(&format!("[loss.{}]", config.name())), "{text}");
        assert_eq!(toml::from_str::<File>(&text).expect("reads"), file);
        let name = config.name();
        let error = toml::from_str::<File>(&format!("[loss.{name}]\nno-such-key = 1\n")).expect_err("unknown key");
        assert!(error.to_string().contains("no-such-key"), "{error}");
        toml::from_str::<File>(&format!("[loss.{name}]\n")).expect("all settings have defaults");
    }
    let error = toml::from_str::<File>("[loss.proxi-anchor]\n")
        .expect_err("unknown loss")
        .to_string();
    names().iter().for_each(|name| assert!(error.contains(name), "{error}"));
    let read: File = toml::from_str("[loss.proxy-anchor]\nalpha = 16.0\n").expect("reads");
    assert_eq!(
        read.loss,
        LossConfig::from(ProxyAnchorConfig {
            alpha: 16.0,
            margin: 0.1
        })
    );
}

#[test]
fn the_registry_is_sorted_and_described() {
    assert!(names().is_sorted());
    assert_eq!(LossConfig::default().name(), "proxy-anchor");
    let listed: Vec<&str> = info().iter().map(|info| info.name).collect();
    assert_eq!(listed, names());
    for info in info() {
        assert!(info.year > 1990 && !info.paper.is_empty() && !info.summary.contains('\n'));
        assert!(info.defaults.is_object(), "{}", info.name);
        assert!(!info.terms.is_empty(), "{}", info.name);
    }
}

#[test]
fn settings_that_are_not_numbers_are_refused() {
    for config in LossConfig::all() {
        let defaults = serde_json::to_value(&config).expect("writes");
        let settings = defaults[config.name()].as_object().expect("settings").clone();
        let Some((key, _)) = settings.iter().find(|(_, value)| value.is_f64()) else {
            continue;
        };
        let text = format!("[loss.{}]\n{key} = nan\n", config.name());
        let table: toml::Table = toml::from_str(&text).expect("toml");
        let broken: LossConfig = table["loss"].clone().try_into().expect("reads");
        let message = broken.validate().expect_err("not a number");
        assert!(message.contains(&format!("loss.{}.{key}", config.name())), "{message}");
    }
}
