//! The program as a user runs it: a whole run in seconds, resuming, files that others read, and bad input.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{gradus, json, path, refused, run};
use serde_json::Value;

/// Options for a run of seconds: few small plants, a small network.
const SMALL: [&str; 18] = [
    "--data",
    "flora",
    "--size",
    "32",
    "--set",
    "data.flora.species=12",
    "--set",
    "data.flora.images=8",
    "--set",
    "data.flora.size=32",
    "--set",
    "model.backbone.conv4.channels=64",
    "--set",
    "sampler.m-per-class.classes=4",
    "--set",
    "sampler.m-per-class.samples=4",
    "--width",
    "64",
];

fn train(out: &str, more: &[&str]) -> Vec<String> {
    let fixed = ["train", "--json", "--out", out].into_iter();
    fixed
        .chain(SMALL)
        .chain(more.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn as_refs(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn a_run_trains_evaluates_and_embeds() {
    let folder = tempfile::tempdir().unwrap();
    let out = path(folder.path(), "run");
    for preset in ["proxy-anchor", "sgar", "sgar-released", "gradus"] {
        let out = format!("{out}-{preset}");
        let result = json(&as_refs(&train(&out, &["--preset", preset, "--epochs", "2"])));
        for key in [
            "recall@1",
            "recall@2",
            "recall@4",
            "recall@8",
            "map@r",
            "r_precision",
            "rho",
            "density",
            "order_preservation",
        ] {
            let value = result[key]
                .as_f64()
                .unwrap_or_else(|| panic!("{preset}: no {key} in {result}"));
            assert!(value.is_finite(), "{preset}: {key} = {value}");
        }
        assert_eq!(result["epochs"], 2);
        for file in [
            "config.toml",
            "events.jsonl",
            "metrics.json",
            "model.safetensors",
            "checkpoints/epoch-0002/position.json",
        ] {
            assert!(Path::new(&out).join(file).exists(), "{preset}: no {file}");
        }
        let steps = std::fs::read_to_string(Path::new(&out).join("events.jsonl")).unwrap();
        let losses: Vec<f64> = steps
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64())
            .collect();
        assert!(
            losses.len() == 2 && losses[1] < losses[0],
            "{preset}: the loss does not fall: {losses:?}"
        );
    }
    let run_folder = format!("{out}-proxy-anchor");
    let stored: Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{run_folder}/metrics.json")).unwrap()).unwrap();
    let again = json(&["evaluate", "--run", &run_folder, "--json"]);
    assert_eq!(again["recall@1"], stored["recall@1"]);
    assert_eq!(again["map@r"], stored["map@r"]);

    let images = path(folder.path(), "images");
    json(&[
        "data",
        "generate",
        "flora",
        "--species",
        "3",
        "--images",
        "2",
        "--size",
        "32",
        "--out",
        &images,
        "--json",
    ]);
    let mut written = Vec::new();
    for extension in ["npy", "safetensors", "parquet"] {
        let file = path(folder.path(), &format!("e.{extension}"));
        let result = json(&[
            "embed",
            "--run",
            &run_folder,
            "--images",
            &images,
            "--out",
            &file,
            "--json",
        ]);
        assert_eq!((&result["images"], &result["width"]), (&6.into(), &64.into()));
        written.push(gradus_core::embeddings::read(Path::new(&file)).unwrap());
    }
    assert!(
        written
            .iter()
            .all(|set| set.values == written[0].values && set.labels == [0, 0, 1, 1, 2, 2])
    );
    assert!(
        written[0].ids[5].ends_with("0001.png") || written[0].ids[5].ends_with("0002.png"),
        "{}",
        written[0].ids[5]
    );
}

#[test]
fn a_width_beyond_the_features_starts_at_random_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = path(folder.path(), "run");
    let narrow = run(&as_refs(&train(&out, &["--epochs", "0"])));
    let wide = run(&as_refs(&train(
        &format!("{out}-wide"),
        &["--epochs", "0", "--set", "model.backbone.conv4.channels=32"],
    )));
    for (output, warned) in [(narrow, false), (wide, true)] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("starts at random"), warned, "{said}");
    }
}

#[test]
fn the_same_seed_gives_the_same_weights_and_another_seed_others() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, seed: &str| {
        let out = path(folder.path(), name);
        json(&as_refs(&train(&out, &["--epochs", "1", "--seed", seed])));
        std::fs::read(Path::new(&out).join("model.safetensors")).unwrap()
    };
    let first = weights("a", "1");
    assert!(first == weights("b", "1"), "the same seed gave other weights");
    assert!(first != weights("c", "2"), "another seed gave the same weights");
}

/// Kills a run in the middle and continues it; the weights must be those of the run that was left alone, bit for bit.
#[test]
fn a_killed_run_continues_to_identical_weights() {
    let folder = tempfile::tempdir().unwrap();
    let more = [
        "--preset",
        "gradus",
        "--epochs",
        "6",
        "--seed",
        "3",
        "--set",
        "teacher.kind=\"moving-average\"",
        "--set",
        "train.weight-average=0.9",
    ];
    let whole = path(folder.path(), "whole");
    let expected = json(&as_refs(&train(&whole, &more)));

    let killed = path(folder.path(), "killed");
    let mut child = gradus()
        .args(train(&killed, &more))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let second = PathBuf::from(&killed).join("checkpoints/epoch-0002/position.json");
    let started = Instant::now();
    while !second.exists() && started.elapsed() < Duration::from_secs(120) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(
        !Path::new(&killed).join("model.safetensors").exists(),
        "the run ended before it was killed"
    );

    let result = json(&["train", "--resume", &killed, "--json"]);
    assert_eq!(result["recall@1"], expected["recall@1"]);
    let bytes = |run: &str| std::fs::read(Path::new(run).join("model.safetensors")).unwrap();
    assert!(bytes(&whole) == bytes(&killed), "the resumed run has other weights");
    let epochs = std::fs::read_to_string(Path::new(&killed).join("events.jsonl")).unwrap();
    assert_eq!(
        epochs
            .lines()
            .filter(|line| line.contains("\"event\":\"epoch\""))
            .count(),
        6,
        "{epochs}"
    );
}

#[test]
fn a_frozen_trunk_trains_only_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let weights = |name: &str, epochs: &str| {
        let out = path(folder.path(), name);
        json(&as_refs(&train(&out, &["--freeze-trunk", "--epochs", epochs])));
        gradus::state::read_safetensors(&Path::new(&out).join("model.safetensors"))
            .unwrap()
            .0
    };
    let (before, after) = (weights("before", "0"), weights("after", "2"));
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.name, after.name);
        let changed = before.values != after.values;
        assert_eq!(changed, before.name.starts_with("head"), "{}", before.name);
    }
}

/// The configuration stored with a run of no epochs.
fn stored(folder: &Path, name: &str, more: &[&str]) -> toml::Table {
    let out = path(folder, name);
    json(&as_refs(&train(&out, &[&["--epochs", "0"], more].concat())));
    toml::from_str(&std::fs::read_to_string(Path::new(&out).join("config.toml")).unwrap()).unwrap()
}

#[test]
fn the_start_of_the_network_decides_some_defaults() {
    let folder = tempfile::tempdir().unwrap();
    let number = |config: &toml::Table, key: &str| config["optimizer"][key].as_float().unwrap();
    let random = stored(folder.path(), "random", &["--preset", "gradus"]);
    assert_eq!(random["teacher"]["space"].as_str(), Some("thumbnail"));
    assert!((number(&random, "rate") - 1e-4).abs() < 1e-12);
    assert_eq!(random["auxiliary-loss"]["s2sd"]["widths"][0].as_integer(), Some(512));
    let asked = stored(folder.path(), "asked", &["--set", "teacher.space=map"]);
    assert_eq!(asked["teacher"]["space"].as_str(), Some("map"));
    let frozen = stored(folder.path(), "frozen", &["--freeze-trunk"]);
    assert_eq!(frozen["teacher"]["space"].as_str(), Some("embedding"));
    assert_eq!(frozen["auxiliary-loss"].as_str(), Some("none"));
    assert!(
        (number(&frozen, "rate") - 3e-4).abs() < 1e-12 && (number(&frozen, "criterion-factor") - 333.0).abs() < 1e-9
    );
    let slower = stored(
        folder.path(),
        "slower",
        &["--freeze-trunk", "--set", "optimizer.rate=1e-5"],
    );
    assert!((number(&slower, "rate") - 1e-5).abs() < 1e-12);
}

/// What lies under the name of the embedded plants does not take their place: their seed and number would be silently ignored.
#[test]
fn a_folder_named_flora_does_not_hide_the_embedded_plants() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("flora")).unwrap();
    let output = gradus()
        .current_dir(folder.path())
        .args(as_refs(&train("run", &["--epochs", "0"])))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("./flora"), "{said}");
    let inspected = gradus()
        .current_dir(folder.path())
        .args(["data", "inspect", "flora", "--quick"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inspected.stdout);
    assert!(inspected.status.success() && said.contains("./flora"), "{said}");
}

/// Training stops when the held-out training classes no longer gain, and the best epoch is what is kept.
#[test]
fn early_stopping_keeps_the_best_epoch() {
    let folder = tempfile::tempdir().unwrap();
    let out = path(folder.path(), "run");
    let more = [
        "--preset",
        "proxy-anchor",
        "--epochs",
        "40",
        "--set",
        "data.validation=0.34",
        "--set",
        "optimizer.rate=0.05",
        "--set",
        "train.weight-average=0",
        "--set",
        "train.early-stopping.patience=2",
        "--set",
        "train.early-stopping.measure=\"recall@1\"",
    ];
    let result = json(&as_refs(&train(&out, &more)));
    let events = std::fs::read_to_string(Path::new(&out).join("events.jsonl")).unwrap();
    let events: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| {
        let kind = kind.to_owned();
        events.iter().filter(move |event| event["event"] == kind.as_str())
    };
    let validations: Vec<(u64, f64)> = of("validation")
        .map(|event| {
            (
                event["epoch"].as_u64().unwrap(),
                event["measures"]["recall@1"].as_f64().unwrap(),
            )
        })
        .collect();
    let best = validations
        .iter()
        .fold((0, f64::MIN), |best, &now| if now.1 > best.1 { now } else { best });
    assert_eq!(of("stopped").count(), 1, "never stopped: {validations:?}");
    assert_eq!(validations.last().unwrap().0, best.0 + 2, "{validations:?}");
    assert_eq!(result["epochs"].as_u64().unwrap(), best.0 + 2);
    // The model that was saved is that of the best epoch.
    let read = |file: &str| gradus::state::read_safetensors(&Path::new(&out).join(file)).unwrap().0;
    let kept = read("model.safetensors");
    let of_best = read(&format!("checkpoints/epoch-{:04}/model.safetensors", best.0));
    let of_last = read(&format!("checkpoints/epoch-{:04}/model.safetensors", best.0 + 2));
    let values = |arrays: &[gradus::state::NamedArray], name: &str| {
        let found = arrays.iter().find(|array| array.name == name);
        found.unwrap_or_else(|| panic!("no {name}")).values.clone()
    };
    for array in &kept {
        let name = format!("embedder.{}", array.name);
        assert!(
            array.values == values(&of_best, &name),
            "{name} is not that of the best epoch"
        );
    }
    let head = kept.iter().find(|array| array.name.starts_with("head")).unwrap();
    assert!(head.values != values(&of_last, &format!("embedder.{}", head.name)));
}

#[test]
fn bad_input_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let image = |name: &str, size: u32| {
        let file = folder.path().join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        image::RgbImage::from_fn(size, size, |x, y| image::Rgb([x as u8, y as u8, 7]))
            .save(file)
            .unwrap();
    };
    let message = refused(&["train", "--data", &at("nowhere"), "--out", &at("o1")]);
    assert!(message.contains("nowhere"), "{message}");
    std::fs::create_dir(at("empty")).unwrap();
    let message = refused(&["train", "--data", &at("empty"), "--out", &at("o2")]);
    assert!(message.contains("empty"), "{message}");
    for number in 0..6 {
        image(&format!("one/only/{number}.png"), 20);
    }
    let message = refused(&["train", "--data", &at("one"), "--out", &at("o3")]);
    assert!(message.contains("class"), "{message}");
    for class in ["a", "b", "c", "d"] {
        for number in 0..4 {
            image(&format!("small/{class}/{number}.png"), 20);
        }
    }
    let message = refused(&[
        "train",
        "--data",
        &at("small"),
        "--size",
        "32",
        "--width",
        "64",
        "--out",
        &at("o4"),
    ]);
    assert!(
        message.contains("needs 16 different classes") || message.contains("classes"),
        "{message}"
    );
    std::fs::write(at("small/a/0.png"), b"").unwrap();
    let message = refused(&["train", "--data", &at("small"), "--size", "32", "--out", &at("o5")]);
    assert!(
        message.contains("0.png") && message.contains("--max-bad-images"),
        "{message}"
    );

    let message = refused(&["train", "--set", "train.epoch=3", "--out", &at("o6")]);
    assert!(message.contains("did you mean `epochs`"), "{message}");
    let message = refused(&["train", "--preset", "gradu", "--out", &at("o7")]);
    assert!(message.contains("did you mean `gradus`"), "{message}");
    let message = refused(&["train", "--backbone", "resnet51", "--out", &at("o8")]);
    assert!(message.contains("resnet50"), "{message}");
    std::fs::write(at("weights.safetensors"), b"not weights").unwrap();
    let message = refused(&["train", "--weights", &at("weights.safetensors"), "--out", &at("o9")]);
    assert!(message.contains("weights.safetensors"), "{message}");
    let message = refused(&["evaluate", "--run", &at("small")]);
    assert!(message.contains("holds no run"), "{message}");
    let message = refused(&["train", "--resume", &at("small")]);
    assert!(message.contains("holds no run"), "{message}");
    let message = refused(&["train", "--device", "cuda", "--out", &at("o10")]);
    assert!(message.contains("--features cuda"), "{message}");
    for number in 1..=10 {
        let left = folder.path().join(format!("o{number}"));
        assert!(
            !left.join("model.safetensors").exists(),
            "{} was written",
            left.display()
        );
    }
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = path(folder.path(), "run");
    let arguments = train(
        &out,
        &[
            "--epochs",
            "3",
            "--set",
            "optimizer.rate=1e30",
            "--set",
            "optimizer.clipping=\"none\"",
        ],
    );
    let message = refused(&as_refs(&arguments));
    assert!(
        message.contains("epoch") && message.contains("step") && message.contains("last good checkpoint"),
        "{message}"
    );
    assert!(Path::new(&out).join("checkpoints/epoch-0000/position.json").exists());
    assert!(!Path::new(&out).join("model.safetensors").exists());
}

#[test]
fn lists_and_configurations_print_what_they_say() {
    for (what, name) in [
        ("losses", "proxy-anchor"),
        ("backbones", "mobilenet-v2"),
        ("datasets", "in-shop"),
        ("presets", "sgar-released"),
        ("samplers", "m-per-class"),
        ("generators", "class-covariance"),
        ("metrics", "map@r"),
    ] {
        let listed = json(&["list", what, "--json"]);
        let names: Vec<&str> = listed[what]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|entry| entry["name"].as_str())
            .collect();
        assert!(names.contains(&name), "{what}: {names:?}");
        assert!(run(&["list", what]).status.success());
    }
    let shown = json(&[
        "config",
        "show",
        "--preset",
        "sgar",
        "--set",
        "loss.proxy-anchor.alpha=16",
        "--json",
    ]);
    assert_eq!(shown["loss"]["proxy-anchor"]["alpha"], 16.0);
    assert_eq!(json(&["doctor", "--json"])["ok"], true);
}

#[test]
fn losses_are_compared_and_finished_runs_kept() {
    let home = tempfile::tempdir().unwrap();
    let out = path(home.path(), "runs");
    let shared = [
        "compare",
        "--losses",
        "contrastive,self-supervised",
        "--presets",
        "gradus",
        "--epochs",
        "1",
        "--set",
        "data.flora.species=12",
        "--set",
        "data.flora.images=5",
        "--set",
        "data.flora.size=32",
        "--set",
        "transform.size=32",
        "--set",
        "train.max-batches=1",
        "--out",
        &out,
        "--json",
    ];
    let first = json(&shared);
    for arm in ["contrastive", "self-supervised", "gradus"] {
        let recall = first["arms"][arm]["recall@1"].as_f64().unwrap();
        assert_eq!(first["arms"][arm]["runs"][0]["recall@1"].as_f64(), Some(recall));
        assert_eq!(first["arms"][arm]["runs"][0]["epochs"], 1);
    }
    assert_eq!(first["untrained"]["runs"][0]["epochs"], 0);
    // A finished run is read, not trained again: its own seconds stay what they were.
    let again = json(&shared);
    assert_eq!(first["arms"], again["arms"]);
    let other: Vec<&str> = shared.iter().copied().chain(["--set", "optimizer.rate=0.5"]).collect();
    assert!(refused(&other).contains("another configuration"));
    let message = refused(&["compare", "--losses", "contrastiv"]);
    assert!(message.contains("did you mean `contrastive`"), "{message}");
    assert!(refused(&["compare"]).contains("nothing to compare"));
}
