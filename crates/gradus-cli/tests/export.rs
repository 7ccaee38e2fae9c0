//! `gradus export` and `gradus embed --onnx` as a user runs them.

#![cfg(feature = "onnx")]
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{json, npy, path, refused};
use gradus_core::embeddings::read_matrix;
use gradus_onnx::{Batch, Graph};

/// A small data set of plants, and a run on its first classes; `epochs` of training.
fn trained(folder: &Path, epochs: &str) -> (String, String) {
    let (data, run) = (path(folder, "plants"), path(folder, "run"));
    let size = ["--species", "12", "--images", "8", "--size", "32", "--json"];
    json(&[&["data", "generate", "flora", "--out", &data][..], &size].concat());
    let fixed = [
        "train",
        "--json",
        "--out",
        &run,
        "--data",
        &data,
        "--preset",
        "proxy-anchor",
        "--size",
        "32",
        "--width",
        "64",
        "--epochs",
        epochs,
    ];
    let sampler = [
        "--set",
        "sampler.m-per-class.classes=4",
        "--set",
        "sampler.m-per-class.samples=4",
    ];
    json(&[&fixed[..], &sampler].concat());
    (data, run)
}

/// A folder of pictures of many sizes.
fn pictures(folder: &Path) -> String {
    let photos = folder.join("photos");
    std::fs::create_dir(&photos).unwrap();
    for (number, (width, height)) in [(64, 48), (40, 90), (33, 33), (200, 120), (20, 31)]
        .into_iter()
        .enumerate()
    {
        let number = number as u32;
        image::RgbImage::from_fn(width, height, |x, y| {
            let tile = (x / 9 + y / 7 + number) % 3;
            image::Rgb([(x * 5 % 256) as u8, (tile * 100) as u8, (y * (3 + number) % 256) as u8])
        })
        .save(photos.join(format!("{number}.png")))
        .unwrap();
    }
    path(folder, "photos")
}

fn largest_difference(a: &str, b: &str) -> f64 {
    let ((width, a), (other, b)) = (read_matrix(Path::new(a)).unwrap(), read_matrix(Path::new(b)).unwrap());
    assert_eq!((width, a.len()), (other, b.len()));
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

/// The tests of a program built with the feature compute by the library that ORT_DYLIB_PATH names, if it names one.
#[test]
fn onnxruntime_computes_the_same_or_what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_, run) = trained(folder.path(), "0");
    let words = [
        "export",
        "--run",
        &run,
        "--format",
        "onnx",
        "--check",
        "--runtime",
        "onnxruntime",
        "--json",
    ];
    if cfg!(not(feature = "onnxruntime")) {
        assert!(refused(&words).contains("without the feature `onnxruntime`"));
        return;
    }
    let missing = std::process::Command::new(env!("CARGO_BIN_EXE_gradus"))
        .args(words)
        .env("ORT_DYLIB_PATH", "/no/such/libonnxruntime.so")
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(2), "{message}");
    assert!(
        message.contains("onnxruntime could not be loaded") && message.contains("name the file in ORT_DYLIB_PATH"),
        "{message}"
    );
    if std::env::var_os("ORT_DYLIB_PATH").is_some() {
        let found = json(&words);
        assert_eq!(found["check"]["runtime"], "onnxruntime");
        assert!(found["check"]["largest_difference"].as_f64().unwrap() < 1e-5, "{found}");
    }
}

#[test]
fn a_run_becomes_a_model_that_embeds_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let photos = pictures(folder.path());
    let (data, run) = trained(folder.path(), "1");
    json(&[
        "embed",
        "--run",
        &run,
        "--images",
        &photos,
        "--out",
        &at("expected.npy"),
        "--json",
    ]);

    let found = json(&["export", "--run", &run, "--format", "onnx", "--check", "--json"]);
    let model = path(Path::new(&run), "model.onnx");
    assert_eq!(found["files"][0].as_str(), Some(model.as_str()));
    assert_eq!(
        (found["opset"].as_u64(), found["precision"].as_str()),
        (Some(17), Some("f32"))
    );
    assert!(found["check"]["images"].as_u64().unwrap() >= 48, "{found}");
    assert!(found["check"]["largest_difference"].as_f64().unwrap() < 1e-5, "{found}");
    let text = std::fs::read_to_string(path(Path::new(&run), "model.json")).unwrap();
    let described: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (described["resize"].as_u64(), described["center_crop"].as_u64()),
        (Some(32), Some(32))
    );

    // Beside the file, with flags alone, of a fixed batch, and with everything inside.
    let embed = |model: &str, out: &str, more: &[&str]| {
        let fixed = ["embed", "--onnx", model, "--images", &photos, "--out", out, "--json"];
        let found = json(&[&fixed[..], more].concat());
        assert_eq!((found["images"].as_u64(), found["width"].as_u64()), (Some(5), Some(64)));
        largest_difference(&at("expected.npy"), out)
    };
    assert!(embed(&model, &at("beside.npy"), &[]) < 1e-5);
    std::fs::copy(&model, at("alone.onnx")).unwrap();
    let flags = [
        "--resize",
        "32",
        "--center-crop",
        "32",
        "--mean",
        "0.485,0.456,0.406",
        "--std",
        "0.229,0.224,0.225",
    ];
    assert!(embed(&at("alone.onnx"), &at("flags.npy"), &flags) < 1e-5);
    assert!(
        embed(
            &at("alone.onnx"),
            &at("other.npy"),
            &[&flags[..], &["--filter", "bicubic"]].concat()
        ) > 1e-4
    );
    let export = |name: &str, more: &[&str]| {
        let out = at(name);
        let fixed = ["export", "--run", &run, "--format", "onnx", "--out", &out, "--json"];
        (json(&[&fixed[..], more].concat()), out.clone())
    };
    let (_, fixed) = export("two.onnx", &["--batch", "2", "--opset", "20"]);
    assert!(embed(&fixed, &at("two.npy"), &[]) < 1e-5);
    let (_, inside) = export("inside.onnx", &["--preprocess", "inside"]);
    // Pixels may be rounded to the next level.
    assert!(embed(&inside, &at("inside.npy"), &["--batch-size", "1"]) < 3e-2);
    let errors = refused(&[
        "embed",
        "--onnx",
        &inside,
        "--images",
        &photos,
        "--out",
        &at("many.npy"),
    ]);
    assert!(errors.contains("--batch-size 1"), "{errors}");

    // The embeddings of a data set have its labels.
    json(&[
        "embed",
        "--onnx",
        &model,
        "--data",
        &data,
        "--out",
        &at("test.npy"),
        "--json",
    ]);
    let measured = json(&["evaluate", "--embeddings", &at("test.npy"), "--json"]);
    let expected = json(&["evaluate", "--run", &run, "--json"]);
    let difference = measured["recall@1"].as_f64().unwrap() - expected["recall@1"].as_f64().unwrap();
    assert!(difference.abs() < 1e-9, "{measured} {expected}");

    let (half, _) = export("half.onnx", &["--f16", "--check"]);
    assert!(
        half["bytes"].as_u64().unwrap() * 100 < found["bytes"].as_u64().unwrap() * 60,
        "{half}"
    );
    let difference = half["check"]["largest_difference"].as_f64().unwrap();
    assert!(difference > 0.0 && difference < 5e-3, "{half}");

    let (eight, _) = export("eight.onnx", &["--int8", "--calibration-images", "40"]);
    assert!(eight["bytes"].as_u64() < half["bytes"].as_u64(), "{eight}");
    let recalls = &eight["recall@1"];
    let loss = recalls["f32"].as_f64().unwrap() - recalls["int8"].as_f64().unwrap();
    assert!(loss.abs() < 0.1, "{eight}");
    assert_eq!(recalls["f32"], expected["recall@1"]);
}

#[test]
fn a_head_on_vectors_becomes_a_small_model_or_a_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let (mut bytes, mut classes) = (Vec::new(), Vec::new());
    for row in 0..240_usize {
        classes.push((row % 24) as i64);
        for column in 0..20_usize {
            let mixed = ((row % 24) * 31 + column * 17) % 23 + (row * 7 + column * 3) % 5;
            bytes.extend((mixed as f32 / 14.0 - 1.0).to_le_bytes());
        }
    }
    let vectors = npy(folder.path(), "e.npy", "<f4", "(240, 20)", &bytes);
    let labels = common::labels(folder.path(), "y.npy", &classes);
    let train = |out: &str, more: &[&str]| {
        let fixed = [
            "train",
            "--embeddings",
            &vectors,
            "--labels",
            &labels,
            "--train-classes",
            "0-15",
            "--test-classes",
            "16-23",
            "--width",
            "64",
            "--epochs",
            "1",
            "--out",
            out,
            "--json",
            "--set",
            "sampler.m-per-class.classes=8",
            "--set",
            "sampler.m-per-class.samples=4",
        ];
        json(&[&fixed[..], more].concat());
    };
    let (linear, curved) = (at("linear"), at("curved"));
    train(&linear, &["--set", "model.initial=random"]);
    train(
        &curved,
        &["--set", "model.head.mlp.hidden=16", "--set", "model.initial=random"],
    );
    for run in [&linear, &curved] {
        let model = at("head.onnx");
        let found = json(&[
            "export", "--run", run, "--format", "onnx", "--out", &model, "--check", "--json",
        ]);
        assert_eq!(found["files"].as_array().unwrap().len(), 1, "{found}");
        assert!(found["check"]["largest_difference"].as_f64().unwrap() < 1e-5, "{found}");
        let [expected, embedded] = ["a.npy", "b.npy"].map(at);
        json(&[
            "embed",
            "--run",
            run,
            "--embeddings",
            &vectors,
            "--out",
            &expected,
            "--json",
        ]);
        json(&[
            "embed",
            "--onnx",
            &model,
            "--embeddings",
            &vectors,
            "--out",
            &embedded,
            "--json",
        ]);
        assert!(largest_difference(&expected, &embedded) < 1e-5);
        let photos = ["embed", "--onnx", &model, "--images", &at("."), "--out", &embedded];
        assert!(refused(&photos).contains("--embeddings"));
    }

    let matrix = at("head.npy");
    let found = json(&[
        "export", "--run", &linear, "--format", "matrix", "--out", &matrix, "--json",
    ]);
    assert_eq!(
        (found["inputs"].as_u64(), found["width"].as_u64()),
        (Some(20), Some(64))
    );
    let (width, weight) = read_matrix(Path::new(&matrix)).unwrap();
    assert_eq!((width, weight.len()), (64, 20 * 64));
    let stored = std::fs::read(at("head.bias.npy")).unwrap();
    let bias: Vec<f64> = stored[stored.len() - 256..]
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f64::from(f32::from_le_bytes(*bytes)))
        .collect();
    // The first row by hand: unit length, product, bias, unit length.
    json(&[
        "embed",
        "--run",
        &linear,
        "--embeddings",
        &vectors,
        "--out",
        &at("a.npy"),
        "--json",
    ]);
    let (_, expected) = read_matrix(Path::new(&at("a.npy"))).unwrap();
    let (_, given) = read_matrix(Path::new(&vectors)).unwrap();
    let length = |row: &[f64]| row.iter().map(|value| value * value).sum::<f64>().sqrt();
    let first = &given[..20];
    let product: Vec<f64> = (0..64)
        .map(|column| {
            bias[column]
                + (0..20)
                    .map(|row| first[row] / length(first) * weight[row * 64 + column])
                    .sum::<f64>()
        })
        .collect();
    for (column, value) in product.iter().enumerate() {
        assert!((value / length(&product) - expected[column]).abs() < 1e-5, "{column}");
    }
    assert!(refused(&["export", "--run", &curved, "--format", "matrix", "--out", &matrix]).contains("not linear"));
    let asked = [
        "export",
        "--run",
        &linear,
        "--format",
        "onnx",
        "--out",
        &at("x.onnx"),
        "--int8",
    ];
    assert!(refused(&asked).contains("--int8"));
    let asked = [
        "export", "--run", &linear, "--format", "matrix", "--out", &matrix, "--f16",
    ];
    assert!(refused(&asked).contains("--f16"));
}

#[test]
fn what_cannot_be_exported_or_run_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| path(folder.path(), name);
    let photos = pictures(folder.path());
    let (_, run) = trained(folder.path(), "0");
    let export = |more: &[&str]| refused(&[&["export", "--run", &run, "--format", "onnx"][..], more].concat());
    assert!(export(&["--opset", "9"]).contains("17 to 22"));
    assert!(export(&["--batch", "many"]).contains("`many`"));
    assert!(export(&["--out", &at("model.bin")]).contains("model.bin"));
    assert!(refused(&["export", "--run", &run, "--format", "matrix"]).contains("--format onnx"));
    assert!(refused(&["export", "--run", &at("nowhere"), "--format", "onnx"]).contains("nowhere"));
    assert!(!Path::new(&path(Path::new(&run), "model.onnx")).exists());

    json(&[
        "export",
        "--run",
        &run,
        "--format",
        "onnx",
        "--out",
        &at("model.onnx"),
        "--json",
    ]);
    let embed = |model: &str, more: &[&str]| {
        let out = at("e.npy");
        let errors = refused(
            &[
                &["embed", "--onnx", &at(model), "--images", &photos, "--out", &out][..],
                more,
            ]
            .concat(),
        );
        assert!(!Path::new(&out).exists(), "{model} wrote something");
        errors
    };
    let whole = std::fs::read(at("model.onnx")).unwrap();
    std::fs::write(at("cut.onnx"), &whole[..whole.len() / 2]).unwrap();
    assert!(embed("cut.onnx", &[]).contains("cut.onnx"));
    std::fs::write(at("text.onnx"), "a list of birds\n").unwrap();
    assert!(embed("text.onnx", &[]).contains("not an ONNX model"));
    assert!(embed("missing.onnx", &[]).contains("missing.onnx"));
    std::fs::write(at("bare.onnx"), &whole).unwrap();
    let errors = embed("bare.onnx", &[]);
    assert!(errors.contains("bare.json") && errors.contains("--mean"), "{errors}");
    assert!(embed("bare.onnx", &["--mean", "0,0", "--std", "1,1,1"]).contains("three numbers"));
    let errors = embed(
        "bare.onnx",
        &[
            "--mean",
            "0,0,0",
            "--std",
            "1,1,1",
            "--resize",
            "40",
            "--center-crop",
            "40",
        ],
    );
    assert!(errors.contains("[any, 3, 32, 32]"), "{errors}");
    std::fs::write(at("bare.json"), "{\"mean\": [0, 0, 0]}").unwrap();
    assert!(embed("bare.onnx", &[]).contains("std"));
    assert!(embed("model.onnx", &["--output", "logits"]).contains("`embeddings`"));
    assert!(embed("model.onnx", &["--resize", "a lot"]).contains("HEIGHTxWIDTH"));
    assert!(embed("model.onnx", &["--layout", "cub"]).contains("--data"));

    // A model of two inputs.
    let mut graph = Graph::new(17);
    let images = graph.input("images", &[3, 8, 8]);
    let mask = graph.input("mask", &[3, 8, 8]);
    let sum = graph.add(images, mask);
    let flat = graph.flatten(sum);
    graph.output("sums", &flat);
    std::fs::write(at("two.onnx"), graph.encode(Batch::Dynamic, &[]).unwrap()).unwrap();
    let errors = embed("two.onnx", &[]);
    assert!(
        errors.contains("2 inputs") && errors.contains("`images`") && errors.contains("`mask`"),
        "{errors}"
    );
}
