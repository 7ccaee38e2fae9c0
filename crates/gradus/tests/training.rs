//! Short runs: interruption, cached gradients, memory, miners, two views, samplers that look at embeddings.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use gradus::config::{Config, Overlay};
use gradus::core::EmbeddingSet;
use gradus::core::random::{self, Rng};
use gradus::intra_class::{IntraClassConfig, MembersSpace};
use gradus::state::read_safetensors;
use gradus::tensor::{Device, Tensor, TensorData};
use gradus::train::objective::{MetricModel, NetworkInput, Seen, StepInput, Way};
use gradus::train::step;
use gradus::train::{Event, Observer, PreparedData, RunFolder, Silent, TrainError, Trainer};

/// Raises the flag that Ctrl-C raises, after one step of the run.
struct StopAfter<'a> {
    epoch: usize,
    step: usize,
    flag: &'a AtomicBool,
}

impl Observer for StopAfter<'_> {
    fn on(&mut self, event: &Event) {
        if let Event::Step { epoch, step, .. } = event
            && (*epoch, *step) == (self.epoch, self.step)
        {
            self.flag.store(true, Ordering::Relaxed);
        }
    }
}

/// Members of 7 dealt in groups of 4: every epoch shows some images twice, each time as another view.
const COMMON: &[&str] = &[
    "seed=3",
    "device=cpu",
    "data.flora.species=12",
    "data.flora.images=7",
    "data.flora.size=32",
    "transform.size=32",
    "teacher.space=thumbnail",
    "model.width=64",
    "sampler.m-per-class.classes=3",
    "sampler.m-per-class.samples=4",
    "train.epochs=2",
    "optimizer.rate=0.01",
];

fn layers(preset: &str, assignments: &[&str]) -> Overlay {
    let mut layers = Overlay::preset(preset).unwrap();
    for assignment in COMMON.iter().chain(assignments) {
        layers.set(assignment).unwrap();
    }
    layers
}

fn config(preset: &str, assignments: &[&str]) -> Config {
    layers(preset, assignments).resolve().unwrap()
}

/// The assignments do not go together, and the message says so with these words.
fn refused(preset: &str, assignments: &[&str], words: [&str; 2]) {
    let message = layers(preset, assignments).resolve().unwrap_err().to_string();
    assert!(
        words.iter().all(|word| message.contains(word)),
        "{assignments:?}: {message}"
    );
}

fn trainer<'a>(config: &'a Config, data: &'a PreparedData, folder: &Path) -> Trainer<'a> {
    let run = RunFolder::create(folder).unwrap();
    run.write_text(&run.config(), &toml::to_string(config).unwrap())
        .unwrap();
    Trainer::new(config, data, run, false, &mut Silent).unwrap()
}

/// The base loss of every step, and the largest difference of weights can be asked for.
struct Trained {
    base: Vec<f64>,
    weights: Vec<f32>,
}

#[derive(Default)]
struct Recorder(Vec<f64>);

impl Observer for Recorder {
    fn on(&mut self, event: &Event) {
        if let Event::Step { base, .. } = event {
            self.0.push(*base);
        }
    }
}

fn train(preset: &str, assignments: &[&str]) -> Trained {
    let (config, home) = (config(preset, assignments), tempfile::tempdir().unwrap());
    let data = PreparedData::new(&config, &mut Silent).unwrap();
    let mut recorder = Recorder::default();
    let folder = home.path().join("run");
    trainer(&config, &data, &folder)
        .train(&mut recorder, &AtomicBool::new(false))
        .unwrap();
    Trained {
        base: recorder.0,
        weights: weights(&folder).concat().into_iter().map(f32::from_bits).collect(),
    }
}

/// What the method adds to the base loss, step by step.
#[derive(Default)]
struct Beside(Vec<f64>);

impl Observer for Beside {
    fn on(&mut self, event: &Event) {
        if let Event::Step { loss, base, .. } = event {
            self.0.push(loss - base);
        }
    }
}

#[test]
fn the_weight_of_the_method_follows_its_schedule_and_an_interruption_does_not_move_it() {
    let beside = |schedule: &str| {
        let config = config("gradus", &[&format!("intra-class.schedule={schedule}")]);
        let (data, home) = (
            PreparedData::new(&config, &mut Silent).unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let mut beside = Beside::default();
        trainer(&config, &data, &home.path().join("run"))
            .train(&mut beside, &AtomicBool::new(false))
            .unwrap();
        beside.0
    };
    let (constant, rising, falling) = (beside("constant"), beside("rising"), beside("falling"));
    // All start from the same network and batch.
    assert!(constant[0] > 0.01, "{constant:?}");
    assert!(rising[0].abs() < 1e-5, "{rising:?}");
    assert!(
        (falling[0] - 2.0 * constant[0]).abs() < 1e-4,
        "{falling:?} {constant:?}"
    );
    let last = constant.len() - 1;
    assert!(
        rising[last] > 2.0 * falling[last] && falling[last] > 0.0,
        "{rising:?} {falling:?}"
    );
    stopped_and_resumed_equals_whole("gradus", &["intra-class.schedule=rising"], &[(2, 1)]);
}

/// The gradient of each parameter in one step on conv4.
fn gradients_of_a_step(intra_class: &IntraClassConfig, trainable_blocks: Option<usize>) -> BTreeMap<String, Vec<f32>> {
    let mut config = config("gradus", &[]);
    config.model.trainable_blocks = trainable_blocks;
    let device = Device::default().autodiff();
    let embedder = config.model.init(3, &device).unwrap();
    let dim = embedder.dim();
    let model = MetricModel {
        loss: config.loss.init(dim, 2, 3, &device),
        intra_class: intra_class.init(dim, 3, &device),
        auxiliary_loss: None,
        embedder,
    };
    let mut stream = random::stream(7, &[]);
    let mut random = |count: usize| (0..count).map(|_| stream.random::<f32>()).collect::<Vec<_>>();
    let images = TensorData::new(random(6 * 3 * 32 * 32), [6, 3, 32, 32]);
    let teacher = TensorData::new(random(6 * 5), [6, 5]);
    let (mut gradients, _) = step::gradients(
        &model,
        StepInput {
            seen: Seen {
                rows: NetworkInput::Images(Tensor::from_data(images, &device)),
                graded: None,
            },
            labels: vec![0, 0, 0, 1, 1, 1].into(),
            items: (0..6).collect(),
            teacher: Some(Tensor::from_data(teacher, &device)),
            statistics: None,
            miner: None,
            augmentation: None,
            memory: None,
            way: Way::Whole,
            progress: 0.0,
            seed: 1,
        },
    )
    .unwrap();
    let paths: Vec<String> = gradients.paths().map(str::to_owned).collect();
    paths
        .into_iter()
        .map(|path| {
            let gradient = gradients.take(&path).unwrap().try_into_vec_as::<f32>().unwrap();
            (path, gradient)
        })
        .collect()
}

#[test]
fn ranking_in_a_space_teaches_what_computes_it_and_nothing_above() {
    let ranked = |space, weight| {
        let mut intra_class = IntraClassConfig::members();
        intra_class.weight = weight;
        intra_class.members.space = space;
        intra_class
    };
    for trainable_blocks in [None, Some(2)] {
        let base = gradients_of_a_step(&ranked(MembersSpace::Embedding, 0.0), trainable_blocks);
        let moved = |space| -> Vec<&str> {
            let with = gradients_of_a_step(&ranked(space, 1.0), trainable_blocks);
            assert!(with.keys().eq(base.keys()));
            let apart = |path: &str| {
                let pairs = with[path].iter().zip(&base[path]);
                pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
            };
            let moved = base.keys().map(String::as_str).filter(|path| apart(path) > 1e-4);
            moved.collect()
        };
        let (embedding, features, middle) = (
            moved(MembersSpace::Embedding),
            moved(MembersSpace::Features),
            moved(MembersSpace::Middle),
        );
        let of_head = |paths: &[&str]| paths.iter().any(|path| path.starts_with("embedder.head"));
        let of_last_block = |paths: &[&str]| paths.iter().any(|path| path.contains("trunk.layers.3"));
        let of_third_block = |paths: &[&str]| paths.iter().any(|path| path.contains("trunk.layers.2"));
        assert!(
            of_head(&embedding) && of_last_block(&embedding) && of_third_block(&embedding),
            "{embedding:?}"
        );
        assert!(
            !of_head(&features) && of_last_block(&features) && of_third_block(&features),
            "{features:?}"
        );
        assert!(
            !of_head(&middle) && !of_last_block(&middle) && of_third_block(&middle),
            "{middle:?}"
        );
    }
}

#[test]
fn what_members_are_ranked_in_changes_neither_the_network_nor_a_resumed_run() {
    for backbone in ["model.backbone.conv4={}", "model.backbone.vit-s16={}"] {
        let with = |space: &str| {
            let space = format!("intra-class.members.space={space}");
            let trained = train("gradus", &[backbone, "train.epochs=1", "train.max-batches=1", &space]);
            assert!(trained.weights.iter().all(|weight| weight.is_finite()));
            trained
        };
        let embedding = with("embedding");
        for space in ["features", "middle"] {
            let other = with(space);
            assert!((other.base[0] - embedding.base[0]).abs() < 1e-4, "{backbone} {space}");
            assert!(largest_difference(&other, &embedding) > 1e-6, "{backbone} {space}");
        }
    }
    stopped_and_resumed_equals_whole("gradus", &["intra-class.members.space=middle"], &[(1, 2)]);
}

#[test]
fn a_space_that_is_not_trained_is_refused_by_name() {
    for (assignments, names) in [
        (
            &["intra-class.members.space=features", "model.freeze-trunk=true"][..],
            ["features", "train the trunk"],
        ),
        (
            &["intra-class.members.space=middle", "train.gradient-cache=4"],
            ["middle", "train.gradient-cache"],
        ),
        (
            &["intra-class.members.space=middle", "train.gradient-checkpointing=true"],
            ["middle", "train.gradient-checkpointing"],
        ),
        (
            &["intra-class.members.space=features", "train.workers=2"],
            ["features", "train.workers"],
        ),
        (
            &["intra-class.members.space=middle", "intra-class.source=synthetic"],
            ["middle", "intra-class.source"],
        ),
    ] {
        refused("gradus", assignments, names);
    }
    // How many blocks a trunk has is known once it is made.
    let config = config(
        "gradus",
        &["intra-class.members.space=middle", "model.trainable-blocks=1"],
    );
    let (data, home) = (
        PreparedData::new(&config, &mut Silent).unwrap(),
        tempfile::tempdir().unwrap(),
    );
    let run = RunFolder::create(&home.path().join("run")).unwrap();
    let message = Trainer::new(&config, &data, run, false, &mut Silent)
        .err()
        .unwrap()
        .to_string();
    assert!(
        message.contains("members.space") && message.contains("trainable-blocks"),
        "{message}"
    );
}

fn largest_difference(a: &Trained, b: &Trained) -> f32 {
    let pairs = a.weights.iter().zip(&b.weights);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn weights(folder: &Path) -> Vec<Vec<u32>> {
    let arrays = read_safetensors(&folder.join("model.safetensors")).unwrap().0;
    let bits = arrays
        .iter()
        .map(|array| array.values.iter().map(|value| value.to_bits()).collect());
    bits.collect()
}

fn stopped_and_resumed_equals_whole(preset: &str, assignments: &[&str], stops: &[(usize, usize)]) {
    let (config, home) = (config(preset, assignments), tempfile::tempdir().unwrap());
    let data = PreparedData::new(&config, &mut Silent).unwrap();
    let start = |name: &str| trainer(&config, &data, &home.path().join(name));
    let never = AtomicBool::new(false);
    start("whole").train(&mut Silent, &never).unwrap();
    let whole = weights(&home.path().join("whole"));
    for &(epoch, step) in stops {
        let name = format!("stopped-{epoch}-{step}");
        let flag = AtomicBool::new(false);
        let mut observer = StopAfter {
            epoch,
            step,
            flag: &flag,
        };
        let error = start(&name).train(&mut observer, &flag).unwrap_err();
        // Gradients that wait for their update are not saved: the run goes on until there are none.
        let last = step.next_multiple_of(config.train.accumulation);
        assert!(
            matches!(&error, TrainError::Interrupted { epoch: done, step: at, .. } if (*done, *at) == (epoch - 1, last)),
            "{error}"
        );
        let run = RunFolder::open(&home.path().join(&name)).unwrap();
        let resumed = Trainer::new(&config, &data, run, true, &mut Silent).unwrap();
        resumed.train(&mut Silent, &never).unwrap();
        assert!(
            weights(&home.path().join(&name)) == whole,
            "{assignments:?}: stopped in epoch {epoch} after step {step}"
        );
    }
}

#[test]
fn a_run_interrupted_at_any_step_equals_one_that_was_not() {
    stopped_and_resumed_equals_whole("gradus", &[], &[(1, 1), (1, 3), (2, 2)]);
}

#[test]
fn interruption_keeps_memory_miner_and_batches_by_embeddings() {
    let memory = ["loss.contrastive={}", "memory.size=20", "miner=distance-weighted"];
    stopped_and_resumed_equals_whole("proxy-anchor", &memory, &[(1, 2)]);
    let hard = ["sampler.tuples-to-weights.batch-size=12", "loss.triplet-margin={}"];
    stopped_and_resumed_equals_whole("proxy-anchor", &hard, &[(1, 2), (2, 1)]);
}

/// Vectors of all images of [`COMMON`], written to a file, and the settings that let them teach.
fn vectors_teach(folder: &Path, name: &str, change: impl Fn(&mut EmbeddingSet)) -> [String; 3] {
    let data = PreparedData::new(&config("gradus", &[]), &mut Silent).unwrap();
    let mut random = random::stream(5, &[1]);
    let mut set = EmbeddingSet {
        dim: 3,
        values: (0..3 * data.items.len())
            .map(|_| random.random_range(-1.0..1.0))
            .collect(),
        labels: data.items.iter().map(|item| item.class).collect(),
        ids: data.items.iter().map(|item| item.source.name()).collect(),
    };
    change(&mut set);
    let path = folder.join(name);
    gradus::core::embeddings::write(&set, &path).unwrap();
    [
        "teacher.space=embedding".to_owned(),
        "teacher.kind=vectors".to_owned(),
        format!("teacher.vectors={}", path.display()),
    ]
}

#[test]
fn vectors_in_a_file_order_members_whatever_they_share_and_an_interruption_keeps_them() {
    let home = tempfile::tempdir().unwrap();
    let settings = |name: &str, change: &dyn Fn(&mut EmbeddingSet)| vectors_teach(home.path(), name, change);
    let weights = |settings: &[String; 3]| train("gradus", &settings.each_ref().map(String::as_str)).weights;
    let plain = settings("plain.npy", &|_| ());
    let (first, again) = (weights(&plain), weights(&plain));
    assert!(first == again);
    let apart = |other: &[f32]| {
        first
            .iter()
            .zip(other)
            .fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()))
    };
    let shifted = settings("shifted.parquet", &|set| {
        set.values.iter_mut().for_each(|value| *value += 2.0)
    });
    let swapped = settings("swapped.npy", &|set| set.values.rotate_left(3));
    let far = apart(&weights(&swapped));
    let near = apart(&weights(&shifted));
    assert!(near < 0.2 * far, "{near} of {far}");
    // No unit is too small or too large.
    for (name, unit) in [("tiny.npy", 1e-30), ("large.npy", 1e37)] {
        let scaled = settings(name, &|set| set.values.iter_mut().for_each(|value| *value *= unit));
        let apart = apart(&weights(&scaled));
        assert!(apart < 0.2 * far, "{name}: {apart} of {far}");
    }
    // The same rows under the same names, in another order.
    let reversed = settings("reversed.npy", &|set| {
        set.values = set.values.chunks(3).rev().flatten().copied().collect();
        set.labels.reverse();
        set.ids.reverse();
    });
    assert!(weights(&reversed) == first);

    let plain = plain.each_ref().map(String::as_str);
    stopped_and_resumed_equals_whole("gradus", &plain, &[(1, 2)]);
    // The run keeps what it needs of the file.
    let (config, run) = (config("gradus", &plain), home.path().join("run"));
    let data = PreparedData::new(&config, &mut Silent).unwrap();
    let begun = trainer(&config, &data, &run);
    drop(begun);
    std::fs::remove_file(home.path().join("plain.npy")).unwrap();
    let run = RunFolder::open(&run).unwrap();
    Trainer::new(&config, &data, run, true, &mut Silent)
        .unwrap()
        .train(&mut Silent, &AtomicBool::new(false))
        .unwrap();
}

#[test]
fn vectors_that_do_not_belong_to_the_images_are_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let message = |settings: &[&str]| {
        let config = config("gradus", settings);
        let data = PreparedData::new(&config, &mut Silent).unwrap();
        let run = RunFolder::create(&home.path().join("run")).unwrap();
        let refused = Trainer::new(&config, &data, run, false, &mut Silent)
            .unwrap_err()
            .to_string();
        std::fs::remove_dir_all(home.path().join("run")).unwrap();
        refused
    };
    for (name, change, words) in [
        (
            "names.npy",
            (|set| set.ids.iter_mut().for_each(|id| id.insert(0, '_'))) as fn(&mut EmbeddingSet),
            ["training images have no vector", "_species_001/0001.png"],
        ),
        (
            "twice.npy",
            |set| set.ids[1] = set.ids[0].clone(),
            ["two vectors", "species_001/0001.png"],
        ),
        (
            "same.npy",
            |set| set.values.fill(0.3),
            ["all training images are the same", "no order"],
        ),
        ("nan.npy", |set| set.values[4] = f32::NAN, ["row 1", "not finite"]),
    ] {
        let settings = vectors_teach(home.path(), name, change);
        let found = message(&settings.each_ref().map(String::as_str));
        assert!(
            words.iter().all(|word| found.contains(word)) && found.contains(name),
            "{found}"
        );
    }
    let lost = [
        "teacher.space=embedding",
        "teacher.kind=vectors",
        "teacher.vectors=lost.npy",
    ];
    assert!(message(&lost).contains("lost.npy"));
    refused("gradus", &["teacher.kind=vectors"], ["teacher.vectors", "gradus embed"]);
    refused(
        "gradus",
        &["teacher.vectors=v.npy"],
        ["teacher.vectors", "teacher.kind"],
    );
    let space = ["teacher.kind=vectors", "teacher.vectors=v.npy"];
    refused("gradus", &space, ["teacher.space", "leave it out"]);
}

#[test]
fn cached_gradients_are_the_plain_ones() {
    // The statistics of batch normalisation are those of a pass, so that they must not matter here.
    let plain = [
        "model.freeze-batch-norm=true",
        "optimizer.rule.sgd={}",
        "optimizer.clipping.norm=1.0",
    ];
    for (preset, extra) in [
        ("gradus", vec![]),
        ("gradus", vec!["intra-class.source=augmentations"]),
        ("proxy-anchor", vec!["loss.self-supervised={}"]),
        (
            "proxy-anchor",
            vec!["embedding-augmentation=proxy-synthesis", "auxiliary-loss=mdr"],
        ),
        (
            "proxy-anchor",
            vec!["loss.contrastive={}", "memory.size=20", "miner=multi-similarity"],
        ),
    ] {
        let plain: Vec<&str> = plain.iter().chain(&extra).copied().collect();
        let with = |last: &'static str| train(preset, &plain.iter().copied().chain([last]).collect::<Vec<_>>());
        let (whole, none) = (with("train.workers=1"), with("train.epochs=0"));
        let moved = largest_difference(&whole, &none);
        for way in [
            "train.gradient-cache=5",
            "train.gradient-checkpointing=true",
            "train.workers=3",
        ] {
            let difference = largest_difference(&whole, &with(way));
            assert!(difference < 1e-3 * moved, "{extra:?}, {way}: {difference} of {moved}");
        }
    }
}

#[test]
fn checkpointed_gradients_leave_batch_normalisation_as_it_is() {
    for extra in [&[][..], &["model.trainable-blocks=2"], &["model.pooling=gem"]] {
        let with =
            |last: &[&'static str]| train("proxy-anchor", &[&["optimizer.rule.sgd={}"][..], extra, last].concat());
        let (whole, none) = (with(&[]), with(&["train.epochs=0"]));
        let difference = largest_difference(&whole, &with(&["train.gradient-checkpointing=true"]));
        let moved = largest_difference(&whole, &none);
        assert!(difference < 1e-4 * moved, "{extra:?}: {difference} of {moved}");
    }
    stopped_and_resumed_equals_whole("proxy-anchor", &["train.gradient-checkpointing=true"], &[(1, 1)]);
}

#[test]
fn checkpointed_gradients_pass_tokens_and_what_follows_pooling() {
    for backbone in ["model.backbone.vit-s16={}", "model.backbone.convnext-tiny={}"] {
        let with = |last: &str| {
            train(
                "proxy-anchor",
                &[
                    "optimizer.rule.sgd={}",
                    "train.epochs=1",
                    "train.max-batches=1",
                    backbone,
                    last,
                ],
            )
        };
        let (whole, none) = (with("train.workers=1"), with("train.epochs=0"));
        let moved = largest_difference(&whole, &none);
        let difference = largest_difference(&whole, &with("train.gradient-checkpointing=true"));
        assert!(
            moved > 0.0 && difference < 1e-4 * moved,
            "{backbone}: {difference} of {moved}"
        );
    }
}

#[test]
fn workers_have_batch_statistics_of_their_own_and_resume() {
    let (one, three) = (train("proxy-anchor", &[]), train("proxy-anchor", &["train.workers=3"]));
    assert!(largest_difference(&one, &three) > 0.0);
    stopped_and_resumed_equals_whole("proxy-anchor", &["train.workers=3"], &[(1, 1)]);
}

#[test]
fn accumulated_gradients_are_their_mean_and_survive_an_interruption() {
    let fixed = [
        "model.freeze-batch-norm=true",
        "optimizer.rule.sgd.momentum=0",
        "optimizer.rate=1e-6",
        "optimizer.criterion-factor=1",
        "optimizer.warm-up-epochs=0",
        "optimizer.clipping=none",
        "train.weight-average=0",
        "train.max-batches=2",
        "train.epochs=1",
    ];
    let moved = |more: &[&str]| {
        let [start, end] =
            [&["train.epochs=0"][..], &[]].map(|last| train("proxy-anchor", &[&fixed, more, last].concat()));
        let pairs = start.weights.iter().zip(&end.weights);
        pairs.map(|(start, end)| f64::from(end - start)).collect::<Vec<_>>()
    };
    // At a small rate two updates are the sum of both gradients; one update of both is their mean.
    let (apart, together) = (moved(&[]), moved(&["train.accumulation=2"]));
    let norm = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>().sqrt();
    let differences: Vec<f64> = apart.iter().zip(&together).map(|(a, b)| a - 2.0 * b).collect();
    assert!(
        norm(&differences) < 0.05 * norm(&apart),
        "{} of {}",
        norm(&differences),
        norm(&apart)
    );
    stopped_and_resumed_equals_whole("proxy-anchor", &["train.accumulation=2"], &[(1, 1), (2, 2)]);
}

#[test]
fn a_memory_changes_what_a_batch_is_compared_with() {
    let alone = train("proxy-anchor", &["loss.contrastive={}"]);
    let memory = train("proxy-anchor", &["loss.contrastive={}", "memory.size=12"]);
    // A memory of one batch holds that batch: the same pairs, of which only one side learns.
    assert!(
        (alone.base[0] - memory.base[0]).abs() < 1e-5,
        "{} {}",
        alone.base[0],
        memory.base[0]
    );
    assert_ne!(alone.base[1], memory.base[1]);
    let later = train(
        "proxy-anchor",
        &["loss.contrastive={}", "memory.size=24", "memory.start-step=2"],
    );
    assert_eq!(alone.base[..2], later.base[..2]);
    let both = train(
        "proxy-anchor",
        &["loss.contrastive={}", "memory.size=12", "memory.batch-weight=1.0"],
    );
    assert!(
        (both.base[0] - 2.0 * alone.base[0]).abs() < 1e-5,
        "{} {}",
        both.base[0],
        alone.base[0]
    );
}

#[test]
fn every_part_a_loss_can_be_trained_with_is_reached() {
    let base = |assignments: &[&str]| train("proxy-anchor", assignments).base;
    let all = base(&["loss.triplet-margin={}"]);
    let hard = base(&["loss.triplet-margin={}", "miner=batch-hard"]);
    assert!(hard[0] > all[0], "{} {}", hard[0], all[0]);
    // Two views of one image differ, so that the loss of both is not that of a perfect match.
    let views = base(&["loss.vic-reg={}"]);
    assert!(views.iter().all(|loss| loss.is_finite()));
    let triplets = base(&[
        "loss.triplet-margin={}",
        "miner=embeddings-already-packaged-as-triplets",
        "sampler.fixed-triplets.triplets-per-batch=4",
        "train.max-batches=3",
    ]);
    assert!(!triplets.is_empty());
    let spread = base(&["sampler.greedy-coreset.classes=3", "sampler.greedy-coreset.samples=4"]);
    assert!(!spread.is_empty());
}

/// A run on stored features: their files, with the time of each, and the weights.
fn frozen(cache: &str, more: &[&str]) -> (Vec<(String, std::time::SystemTime)>, Trained) {
    let cache_setting = format!("train.feature-cache={cache}");
    let trained = train(
        "proxy-anchor",
        &[&["model.freeze-trunk=true", &cache_setting], more].concat(),
    );
    let mut files: Vec<_> = std::fs::read_dir(cache)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "npy"))
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, entry.metadata().unwrap().modified().unwrap())
        })
        .collect();
    files.sort();
    (files, trained)
}

#[test]
fn features_of_a_frozen_trunk_are_stored_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache").to_str().unwrap().to_owned();
    let (first, stored) = frozen(&cache, &[]);
    assert_eq!(first.len(), 1);
    let (none, in_memory) = frozen("none", &[]);
    assert!(none.is_empty());
    assert_eq!(largest_difference(&stored, &in_memory), 0.0);
    let (second, again) = frozen(&cache, &[]);
    assert_eq!(second, first, "nothing was made anew");
    assert_eq!(largest_difference(&stored, &again), 0.0);
    // Views are beside them; the image as evaluation sees it is the same, and so are the features of another seed's run.
    let (files, views) = frozen(&cache, &["train.feature-views=3"]);
    assert!(files.len() == 2 && files.contains(&first[0]), "{files:?}");
    assert!(largest_difference(&stored, &views) > 0.0);
    let (same, repeated) = frozen(&cache, &["train.feature-views=3"]);
    assert_eq!((same, largest_difference(&views, &repeated)), (files, 0.0));
    // Another way from images to tensors: other features.
    assert_eq!(frozen(&cache, &["transform.mean=[0.4, 0.5, 0.5]"]).0.len(), 3);
}

#[test]
fn stored_views_are_drawn_alike_after_an_interruption_and_serve_losses_of_two_views() {
    let fixed = [
        "model.freeze-trunk=true",
        "train.feature-cache=none",
        "train.feature-views=4",
    ];
    stopped_and_resumed_equals_whole("proxy-anchor", &fixed, &[(1, 2), (2, 1)]);
    let loss = train("proxy-anchor", &[&fixed[..], &["loss.self-supervised={}"]].concat());
    assert!(loss.base.iter().all(|base| base.is_finite() && *base > 0.0));
    // Each stored view with its own graded augmentations.
    let graded = [&fixed[..], &["intra-class.source=augmentations"]].concat();
    stopped_and_resumed_equals_whole("sgar", &graded, &[(2, 1)]);
}

/// Every rival of the method, as an arm of a study turns it on.
const RIVALS: &[&[&str]] = &[
    &["embedding-augmentation=class-covariance"],
    &["embedding-augmentation=embedding-expansion", "loss=triplet-margin"],
    &["embedding-augmentation=proxy-synthesis"],
    &["auxiliary-loss=mdr"],
    &["auxiliary-loss=metrix"],
    &["auxiliary-loss.s2sd.widths=[16, 24]"],
    &["auxiliary-loss=nir"],
    &["loss=triplet-margin", "miner=rho-regularization"],
];

#[test]
fn rivals_go_on_after_an_interruption_as_if_there_had_been_none() {
    let frozen = ["model.freeze-trunk=true", "train.feature-cache=none"];
    for rival in RIVALS {
        stopped_and_resumed_equals_whole("proxy-anchor", &[&frozen[..], rival].concat(), &[(1, 2), (2, 1)]);
    }
    // With a trunk that is trained, where heads and statistics meet images.
    for rival in [RIVALS[0], RIVALS[5]] {
        stopped_and_resumed_equals_whole("proxy-anchor", rival, &[(2, 1)]);
    }
}

#[test]
fn rivals_change_what_is_learned() {
    let frozen = ["model.freeze-trunk=true", "train.feature-cache=none", "train.epochs=1"];
    for rival in RIVALS {
        let plain: Vec<&str> = rival.iter().copied().filter(|part| part.starts_with("loss")).collect();
        let (plain, with) = (
            train("proxy-anchor", &[&frozen[..], &plain].concat()),
            train("proxy-anchor", &[&frozen[..], rival].concat()),
        );
        assert!(largest_difference(&plain, &with) > 1e-5, "{rival:?}");
        assert!(with.weights.iter().all(|weight| weight.is_finite()), "{rival:?}");
    }
}

#[test]
fn what_a_rival_does_not_fit_is_refused_by_name() {
    for (assignments, names) in [
        (
            &["embedding-augmentation=proxy-synthesis", "loss=contrastive"][..],
            ["proxy-synthesis", "loss.contrastive"],
        ),
        (
            &["embedding-augmentation=embedding-expansion"],
            ["embedding-expansion", "loss.proxy-anchor"],
        ),
        (
            &["embedding-augmentation=class-covariance", "loss=vic-reg"],
            ["class-covariance", "two views"],
        ),
        (
            &["embedding-augmentation=class-covariance", "loss=n-pairs"],
            ["class-covariance", "loss.n-pairs"],
        ),
        (
            &[
                "embedding-augmentation=embedding-expansion",
                "loss=contrastive",
                "memory={}",
            ],
            ["embedding-expansion", "[memory]"],
        ),
        (
            &["auxiliary-loss=s2sd", "train.gradient-cache=4"],
            ["auxiliary-loss.s2sd", "train.gradient-cache"],
        ),
        (
            &["auxiliary-loss=s2sd", "train.workers=2"],
            ["auxiliary-loss.s2sd", "train.workers"],
        ),
        (
            &["auxiliary-loss=s2sd", "loss=vic-reg"],
            ["auxiliary-loss.s2sd", "vic-reg"],
        ),
        (
            &["auxiliary-loss=s2sd", "loss=contrastive", "memory={}"],
            ["s2sd", "[memory]"],
        ),
        (
            &["auxiliary-loss.mdr.levels=[]"],
            ["auxiliary-loss.mdr.levels", "finite"],
        ),
        (
            &["auxiliary-loss.metrix.weight=0"],
            ["auxiliary-loss.metrix.weight", "above 0"],
        ),
        (&["auxiliary-loss=s2d"], ["s2d", "did you mean `s2sd`"]),
        (
            &["loss=triplet-margin", "miner.rho-regularization.probability=2"],
            ["miner.rho-regularization.probability", "between 0 and 1"],
        ),
        (
            &["intra-class.source=members", "intra-class.point-weight=1"],
            ["point-weight", "members"],
        ),
    ] {
        refused("proxy-anchor", assignments, names);
    }
    let mut layers = Overlay::preset("proxy-anchor").unwrap();
    layers.set("miner.rho-regularization.miner=batch-hard").unwrap();
    layers.set("loss=triplet-margin").unwrap();
    let text = toml::to_string(&layers.resolve().unwrap().miner).unwrap();
    assert!(text.contains("batch-hard"), "{text}");
}

#[test]
fn training_ends_when_its_minutes_are_over() {
    let limited = train("proxy-anchor", &["train.max-minutes=0.0001"]);
    assert!(limited.base.len() <= 1, "{} steps", limited.base.len());
}

#[test]
fn what_does_not_fit_together_is_refused_by_name() {
    for (assignments, names) in [
        (&["loss.vic-reg={}", "miner=batch-hard"][..], ["vic-reg", "batch-hard"]),
        (&["loss.proxy-anchor={}", "memory={}"], ["proxy-anchor", "memory"]),
        (&["loss.vic-reg={}", "memory={}"], ["vic-reg", "memory"]),
        (&["loss.contrastive={}", "memory.size=11"], ["memory.size = 11", "12"]),
        (
            &["loss.self-supervised={}", "model.freeze-trunk=true"],
            ["self-supervised", "freeze-trunk"],
        ),
        (
            &[
                "loss.triplet-margin={}",
                "miner=embeddings-already-packaged-as-triplets",
            ],
            ["m-per-class", "fixed-triplets"],
        ),
        (&["miner=batch-hrad"], ["batch-hrad", "did you mean `batch-hard`"]),
        (&["train.max-minutes=-1"], ["train.max-minutes", "-1"]),
    ] {
        refused("proxy-anchor", assignments, names);
    }
}
