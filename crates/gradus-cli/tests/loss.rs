//! `gradus loss` as a user runs it: numbers, gradients, and bad input.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{json, labels, npy, refused, run};
use serde_json::Value;

fn doubles(folder: &Path, name: &str, shape: &str, values: &[f64]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy(folder, name, "<f8", shape, &bytes)
}

fn singles(folder: &Path, name: &str, shape: &str, values: &[f32]) -> String {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy(folder, name, "<f4", shape, &bytes)
}

/// The numbers of an `.npy` file of f8 written by gradus.
fn read_doubles(path: &str) -> Vec<f64> {
    let bytes = std::fs::read(path).unwrap();
    let header = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    assert!(String::from_utf8_lossy(&bytes[..header]).contains("<f8"));
    let numbers = bytes[header..].chunks_exact(8);
    numbers
        .map(|number| f64::from_le_bytes(number.try_into().unwrap()))
        .collect()
}

// Angles 0, 60, 90 and 180 degrees.
const ROWS: [f64; 8] = [1.0, 0.0, 0.5, 0.866_025_403_784_438_6, 0.0, 2.0, -1.0, 0.0];

#[test]
fn values_terms_and_gradients() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let embeddings = doubles(folder.path(), "e.npy", "(4, 2)", &ROWS);
    let single = singles(folder.path(), "f.npy", "(4, 2)", &ROWS.map(|value| value as f32));
    let classes = labels(folder.path(), "y.npy", &[0, 0, 1, 1]);
    let gradient = at("g.npy");
    let found = json(&[
        "loss",
        "--name",
        "contrastive",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--gradient",
        &gradient,
        "--json",
    ]);
    // Positive chords of 60 and 90 degrees; of the negative ones only 30 degrees is below 1.
    let pull = (1.0 + 2.0_f64.sqrt()) / 2.0;
    let push = 1.0 - 2.0 * 15.0_f64.to_radians().sin();
    let near = |found: &Value, expected: f64, tolerance: f64| {
        assert!(
            (found.as_f64().unwrap() - expected).abs() < tolerance,
            "{found} is not {expected}"
        );
    };
    near(&found["value"], pull + push, 1e-12);
    near(&found["terms"]["pos-loss"], pull, 1e-12);
    near(&found["terms"]["neg-loss"], push, 1e-12);
    assert_eq!(read_doubles(&gradient).len(), 8);
    let found = json(&[
        "loss",
        "--name",
        "contrastive",
        "--embeddings",
        &single,
        "--labels",
        &classes,
        "--json",
    ]);
    near(&found["value"], pull + push, 1e-5);

    // With a distance, a reducer and references.
    let found = json(&[
        "loss",
        "--name",
        "contrastive",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--set",
        "distance=cosine",
        "--set",
        "pos-margin=1",
        "--set",
        "neg-margin=0",
        "--set",
        "reducer={sum={}}",
        "--reference-embeddings",
        &embeddings,
        "--reference-labels",
        &classes,
        "--json",
    ]);
    near(&found["terms"]["pos-loss"], 2.0 * 0.5 + 2.0, 1e-12);

    // Proxies, their gradient, and the boundaries of margin as a vector.
    let proxies = doubles(folder.path(), "w.npy", "(3, 2)", &[1.0, 0.0, 0.0, 1.0, -1.0, 0.5]);
    let of_proxies = at("gw.npy");
    json(&[
        "loss",
        "--name",
        "arcface",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--parameters",
        &proxies,
        "--parameters-gradient",
        &of_proxies,
        "--json",
    ]);
    assert!(read_doubles(&of_proxies).iter().any(|slope| slope.abs() > 1e-3));
    let beta = doubles(folder.path(), "b.npy", "(2,)", &[1.0, 1.3]);
    json(&[
        "loss",
        "--name",
        "margin",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--parameters",
        &beta,
        "--set",
        "learn-beta=true",
        "--set",
        "nu=0.1",
        "--parameters-gradient",
        &of_proxies,
        "--json",
    ]);
    assert_eq!(read_doubles(&of_proxies).len(), 2);

    // What a miner chose.
    let mined = run(&[
        "mine",
        "--name",
        "batch-hard",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--json",
    ]);
    std::fs::write(at("m.json"), mined.stdout).unwrap();
    let mined = at("m.json");
    json(&[
        "loss",
        "--name",
        "triplet-margin",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--mined",
        &mined,
        "--json",
    ]);
}

#[test]
fn bad_input_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let embeddings = doubles(folder.path(), "e.npy", "(4, 2)", &ROWS);
    let classes = labels(folder.path(), "y.npy", &[0, 0, 1, 3]);
    let with = |name: &str, embeddings: &str, labels: &str, more: &[&str]| {
        let fixed = [
            "loss",
            "--name",
            name,
            "--embeddings",
            embeddings,
            "--labels",
            labels,
            "--json",
        ];
        refused(&[&fixed[..], more].concat())
    };
    let says = |message: String, parts: &[&str]| {
        parts
            .iter()
            .for_each(|part| assert!(message.contains(part), "{part}: {message}"));
    };
    says(with("contrastiv", &embeddings, &classes, &[]), &["contrastive"]);
    says(
        with("contrastive", &embeddings, &classes, &["--set", "pos-marg=1"]),
        &["pos-margin"],
    );
    says(
        with("contrastive", &embeddings, &classes, &["--set", "distance=euclid"]),
        &["cosine"],
    );
    says(
        with("arcface", &embeddings, &classes, &["--set", "distance=snr"]),
        &["loss.arcface.distance"],
    );
    let mut broken = ROWS;
    broken[5] = f64::NAN;
    let nan = doubles(folder.path(), "nan.npy", "(4, 2)", &broken);
    says(with("contrastive", &nan, &classes, &[]), &["row 2", "NaN"]);
    let floats = doubles(folder.path(), "float.npy", "(4,)", &[0.0, 0.0, 1.0, 1.0]);
    says(with("contrastive", &embeddings, &floats, &[]), &["integer labels"]);
    says(with("contrastive", &classes, &classes, &[]), &["floating-point"]);
    let short = labels(folder.path(), "short.npy", &[0, 0, 1]);
    says(
        with("contrastive", &embeddings, &short, &[]),
        &["4 embeddings", "3 labels"],
    );
    let negative = labels(folder.path(), "negative.npy", &[0, 0, 1, -1]);
    says(with("contrastive", &embeddings, &negative, &[]), &["row 3"]);
    let proxies = doubles(folder.path(), "w.npy", "(3, 2)", &[1.0, 0.0, 0.0, 1.0, -1.0, 0.5]);
    says(
        with("arcface", &embeddings, &classes, &["--parameters", &proxies]),
        &["3 classes", "label 3", "row 3"],
    );
    let wide = doubles(folder.path(), "wide.npy", "(4, 1)", &[1.0; 4]);
    says(
        with("arcface", &embeddings, &classes, &["--parameters", &wide]),
        &["width 1", "width 2"],
    );
    says(
        with("contrastive", &embeddings, &classes, &["--parameters", &proxies]),
        &["no parameters"],
    );
    says(
        with(
            "contrastive",
            &embeddings,
            &classes,
            &["--reference-embeddings", &wide, "--reference-labels", &classes],
        ),
        &["width 2", "width 1"],
    );
    let beta = doubles(folder.path(), "b.npy", "(2,)", &[1.0, 1.3]);
    says(
        with(
            "margin",
            &embeddings,
            &classes,
            &["--parameters", &beta, "--set", "learn-beta=true"],
        ),
        &["2 classes", "label 3"],
    );
}

#[test]
fn items_may_have_several_labels_or_levels() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();
    let embeddings = doubles(home, "e.npy", "(3, 2)", &[1.0, 0.0, 0.6, 0.8, 0.0, 1.0]);
    // Rows 0 and 1 share one of two levels, or one of two labels: a positive pair; row 2 shares none with them.
    let (first, second) = ((0.6_f64.exp(), 0.0_f64.exp()), (0.6_f64.exp(), 0.8_f64.exp()));
    let expected = [first, second].map(|(positive, negative)| ((positive + negative) / positive).ln());
    let expected = expected.iter().sum::<f64>() / 2.0;
    let levels = npy(home, "levels.npy", "|u1", "(3, 2)", &[4, 1, 4, 2, 3, 1]);
    let several = npy(home, "several.npy", "|u1", "(3, 3)", &[1, 1, 0, 0, 1, 0, 0, 0, 1]);
    let arguments = |labels, kind| {
        [
            "--embeddings",
            &embeddings,
            "--labels",
            labels,
            "--label-kind",
            kind,
            "--json",
        ]
    };
    for (labels, kind) in [(&levels, "hierarchy"), (&several, "multi-label")] {
        let loss = ["loss", "--name", "sup-con", "--set", "temperature=1"];
        let found = json(&[&loss[..], &arguments(labels, kind)].concat());
        let found = found["value"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-9, "{kind}: {found} is not {expected}");
    }
    let arguments = arguments(&several, "multi-label");
    let mined = json(&[&["mine", "--name", "batch-hard"], &arguments[..]].concat());
    assert_eq!(mined["anchors"], serde_json::json!([0, 1]));
    let message = refused(&[&["loss", "--name", "proxy-anchor"], &arguments[..]].concat());
    assert!(message.contains("one class per item"), "{message}");
}
