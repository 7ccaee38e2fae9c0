//! `gradus bench` as a user runs it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{json, refused, run};

#[test]
fn every_loss_is_measured_in_a_process_of_its_own() {
    let found = json(&[
        "bench",
        "losses",
        "--batch",
        "8",
        "--dim",
        "6",
        "--repeats",
        "1",
        "--json",
    ]);
    let listed = json(&["list", "losses", "--json"]);
    let known: Vec<&str> = listed["losses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|loss| loss["name"].as_str().unwrap())
        .collect();
    let measured: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(measured, known);
    for (name, cost) in found.as_object().unwrap() {
        assert!(cost["median_ms"].as_f64().unwrap() > 0.0, "{name}: {cost}");
        assert_eq!(cost.as_object().unwrap().len(), 2, "{name}: {cost}");
        if cfg!(target_os = "linux") {
            let peak = cost["peak_mib"].as_f64().unwrap();
            assert!((1.0..1000.0).contains(&peak), "{name}: {cost}");
        }
    }
}

#[test]
fn the_peak_is_that_of_the_loss() {
    // A batch of 2048 rows has matrices of 16 MiB, which the loss of the small one never saw.
    let peak = |batch: &str| {
        let found = json(&[
            "bench",
            "losses",
            "--loss",
            "contrastive",
            "--batch",
            batch,
            "--dim",
            "4",
            "--repeats",
            "1",
            "--json",
        ]);
        found["contrastive"]["peak_mib"].as_f64()
    };
    let (Some(small), Some(large)) = (peak("8"), peak("2048")) else {
        // Only Linux counts it.
        assert_ne!(std::env::consts::OS, "linux");
        return;
    };
    assert!(large > small + 32.0, "{small} {large}");
}

#[test]
fn some_losses_as_a_table() {
    let output = run(&[
        "bench",
        "losses",
        "--loss",
        "nca",
        "--loss",
        "contrastive",
        "--batch",
        "8",
        "--dim",
        "4",
        "--repeats",
        "2",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<&str> = text
        .lines()
        .skip(2)
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(names, ["contrastive", "nca"], "{text}");
}

#[test]
fn bad_input_is_refused_by_name() {
    assert!(refused(&["bench", "losses", "--loss", "contrastiv"]).contains("contrastive"));
    assert!(refused(&["bench", "losses", "--repeats", "0"]).contains("--repeats"));
    let message = refused(&[
        "bench",
        "losses",
        "--loss",
        "nca",
        "--loss",
        "circle",
        "--batch",
        "8",
        "--set",
        "gamma=1.0",
    ]);
    assert!(message.contains("nca") && message.contains("gamma"), "{message}");
}

/// A measurement of a tiny network, as JSON.
fn tiny(verb: &str, more: &[&str]) -> serde_json::Value {
    let arguments = [
        "bench", verb, "--model", "convnet", "--size", "16", "--batch", "3", "--json",
    ];
    json(&[&arguments[..], more].concat())
}

/// Every key is a number above 0.
fn positive(found: &serde_json::Value, keys: &[&str]) {
    for key in keys {
        assert!(found[*key].as_f64().is_some_and(|value| value > 0.0), "{key}: {found}");
    }
    if cfg!(target_os = "linux") {
        assert!(found["peak_mib"].as_f64().is_some_and(|peak| peak > 1.0), "{found}");
    }
}

#[test]
fn training_steps_are_measured() {
    let found = tiny("train-step", &["--steps", "3"]);
    positive(&found, &["median_ms", "best_ms", "gflops"]);
    // By hand: blocks of 32, 64, 128, 256 channels on 16, 8, 4, 2 pixels, a head of 512, 100 proxies.
    let first = 16 * 16 * 9 * 3 * 32;
    let others = 9 * (8 * 8 * 32 * 64 + 4 * 4 * 64 * 128 + 2 * 2 * 128 * 256);
    let dense = 256 * 512 + 512 * 100;
    assert_eq!(
        found["operations"],
        f64::from(2 * 3 * (2 * first + 3 * (others + dense)))
    );
    let blocks = 9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 2 * (32 + 64 + 128 + 256);
    assert_eq!(found["parameters"], blocks + 256 * 512 + 512 + 512 * 100);
    let rate = found["operations"].as_f64().unwrap() / found["median_ms"].as_f64().unwrap() / 1e6;
    assert!((rate / found["gflops"].as_f64().unwrap() - 1.0).abs() < 0.01, "{found}");
    assert_eq!((&found["model"], &found["steps"]), (&"convnet".into(), &3.into()));

    // The very same steps with plain Burn and one thread: the same loss after all of them.
    let plain = tiny("train-step", &["--steps", "3", "--kernels", "stock", "--threads", "1"]);
    assert_eq!((&plain["kernels"], &plain["threads"]), (&"stock".into(), &1.into()));
    let (own, plain) = (found["loss"].as_f64().unwrap(), plain["loss"].as_f64().unwrap());
    assert!((own - plain).abs() < 1e-5 * own, "{own} {plain}");
    // The steps do train: after fewer of them the loss is still higher.
    let earlier = tiny("train-step", &["--steps", "1"])["loss"].as_f64().unwrap();
    assert!(earlier > 1.5 * own, "{earlier} {own}");
}

#[test]
fn inference_is_measured() {
    let found = tiny("infer", &["--repeats", "2"]);
    positive(&found, &["median_ms", "best_ms", "images_per_second", "gflops"]);
    let rate = 3e3 / found["median_ms"].as_f64().unwrap();
    assert!(
        (rate / found["images_per_second"].as_f64().unwrap() - 1.0).abs() < 0.01,
        "{found}"
    );
}

#[test]
fn search_is_measured() {
    for more in [
        &["--queries", "20"][..],
        &["--task", "ranks"],
        &["--task", "ranks", "--queries", "20"],
        &[],
    ] {
        let arguments = ["bench", "search", "--n", "300", "--dim", "16", "--k", "3", "--json"];
        let found = json(&[&arguments[..], more].concat());
        positive(&found, &["queries_per_second"]);
        let queries = if more.contains(&"--queries") { 20 } else { 300 };
        assert_eq!(
            (&found["queries"], &found["n"]),
            (&queries.into(), &300.into()),
            "{found}"
        );
    }
    assert!(refused(&["bench", "search", "--n", "1", "--dim", "8"]).contains("at least 2"));
}

#[test]
fn kernels_are_measured_layer_by_layer() {
    let arguments = [
        "bench",
        "kernels",
        "--model",
        "mobilenet-v2",
        "--size",
        "32",
        "--batch",
        "1",
        "--repeats",
        "1",
    ];
    let found = json(&[&arguments[..], &["--json"]].concat());
    let peak = found["peak_gflops"].as_f64().unwrap();
    assert!(peak > 0.1, "{found}");
    let layers = found["models"][0]["layers"].as_array().unwrap();
    // 52 convolutions: a stem, 17 blocks of three save the first of two, a last one.
    let count: u64 = layers.iter().map(|layer| layer["count"].as_u64().unwrap()).sum();
    assert_eq!(count, 52);
    assert!(layers[0]["input_gradient"].is_null(), "{}", layers[0]);
    for (number, layer) in layers.iter().enumerate() {
        let passes = ["forward", "weight_gradient", "input_gradient"];
        for pass in &passes[..if number == 0 { 2 } else { 3 }] {
            let pass = &layer[*pass];
            assert!(pass["gflops"].as_f64().unwrap() > 0.0, "{layer}");
            let share = pass["gflops"].as_f64().unwrap() / peak;
            assert!((share - pass["share"].as_f64().unwrap()).abs() < 1e-3, "{layer}");
        }
    }
    let text = String::from_utf8(run(&arguments).stdout).unwrap();
    assert!(text.contains("peak:") && text.contains("3->32 32x32 k3 s2"), "{text}");
}

#[test]
fn the_loader_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    for (class, count) in [("a", 3), ("b", 4)] {
        std::fs::create_dir(folder.path().join(class)).unwrap();
        for number in 0..count {
            let file = folder.path().join(class).join(format!("{number}.png"));
            image::RgbImage::from_pixel(20, 30, image::Rgb([number, 2, 3]))
                .save(file)
                .unwrap();
        }
    }
    let path = common::path(folder.path(), "");
    let arguments = [
        "bench",
        "loader",
        "--data",
        &path,
        "--size",
        "16",
        "--batch",
        "3",
        "--epochs",
        "2",
        "--threads",
        "1",
    ];
    let found = json(&[&arguments[..], &["--json"]].concat());
    positive(&found, &["images_per_second"]);
    assert_eq!(
        (&found["images"], &found["threads"]),
        (&14.into(), &1.into()),
        "{found}"
    );
    assert!(refused(&["bench", "loader", "--data", &path, "--crop-scale", "2"]).contains("crop"));
}

#[test]
fn networks_are_refused_by_name() {
    for verb in ["train-step", "infer", "kernels"] {
        let message = refused(&["bench", verb, "--model", "convent"]);
        assert!(
            message.contains("convnet") && message.contains("mobilenet-v2"),
            "{message}"
        );
        let message = refused(&["bench", verb, "--model", "resnet18", "--size", "8"]);
        assert!(message.contains("--size") && message.contains("32"), "{message}");
        assert!(refused(&["bench", verb, "--model", "resnet18", "--batch", "0"]).contains("--batch"));
    }
    assert!(refused(&["bench", "train-step", "--model", "convnet", "--steps", "0"]).contains("--steps"));
}
