//! `gradus few-shot` as a user runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{labels, npy, path, refused, run};

/// Eight rows per class on the unit circle; the classes 0, 1 and 2 lie apart, the last two classes coincide.
fn files(folder: &Path) -> (String, String) {
    let (mut bytes, mut classes) = (Vec::new(), Vec::new());
    for (class, centre) in [0.0_f32, 1.5, 3.0, 4.5, 4.5].into_iter().enumerate() {
        for member in 0..8 {
            let angle = centre + 0.02 * member as f32;
            bytes.extend(angle.cos().to_le_bytes());
            bytes.extend(angle.sin().to_le_bytes());
            classes.push(class as i64);
        }
    }
    let embeddings = npy(folder, "e.npy", "<f4", "(40, 2)", &bytes);
    (embeddings, labels(folder, "y.npy", &classes))
}

#[test]
fn embeddings_in_files_are_measured() {
    let folder = tempfile::tempdir().unwrap();
    let (embeddings, classes) = files(folder.path());
    let measure = |more: &[&str]| {
        let fixed = [
            "few-shot",
            "--embeddings",
            &embeddings,
            "--labels",
            &classes,
            "--queries",
            "7",
            "--json",
        ];
        common::json(&[&fixed[..], more].concat())
    };
    let found = measure(&["--ways", "5", "--episodes", "200"]);
    let accuracy = found["accuracy"].as_f64().unwrap();
    // Three classes are certain, the two that coincide are right half of the time.
    assert!((accuracy - 0.8).abs() < 0.03, "{found}");
    assert!(found["ci95"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (found["classes"].as_u64(), found["episodes"].as_u64()),
        (Some(5), Some(200))
    );
    assert_eq!(measure(&["--ways", "5", "--episodes", "200"]), found);
    assert_ne!(
        measure(&["--ways", "5", "--episodes", "200", "--seed", "1"])["accuracy"],
        found["accuracy"]
    );

    let output = run(&[
        "few-shot",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--ways",
        "2",
        "--queries",
        "3",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("2-way 1-shot accuracy: "), "{text}");
}

#[test]
fn a_run_is_measured_on_its_test_classes() {
    let folder = tempfile::tempdir().unwrap();
    let out = path(folder.path(), "run");
    common::json(&[
        "train",
        "--json",
        "--out",
        &out,
        "--data",
        "flora",
        "--preset",
        "proxy-anchor",
        "--size",
        "32",
        "--epochs",
        "0",
        "--width",
        "64",
        "--set",
        "data.flora.species=12",
        "--set",
        "data.flora.images=6",
        "--set",
        "data.flora.size=32",
        "--set",
        "model.backbone.conv4.channels=64",
        "--set",
        "sampler.m-per-class.classes=4",
        "--set",
        "sampler.m-per-class.samples=4",
    ]);
    let found = common::json(&[
        "few-shot",
        "--run",
        &out,
        "--ways",
        "3",
        "--queries",
        "5",
        "--episodes",
        "50",
        "--json",
    ]);
    assert_eq!(found["classes"], 6, "{found}");
    assert_eq!(found["images"], 36);
    let accuracy = found["accuracy"].as_f64().unwrap();
    assert!(accuracy > 1.0 / 3.0 && accuracy <= 1.0, "{found}");
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (embeddings, classes) = files(folder.path());
    let message = refused(&["few-shot", "--embeddings", &embeddings, "--labels", &classes]);
    assert!(
        message.contains("20 ways need 20 classes with at least 16 members"),
        "{message}"
    );
    let few = labels(folder.path(), "few.npy", &[0, 1]);
    let message = refused(&["few-shot", "--embeddings", &embeddings, "--labels", &few]);
    assert!(
        message.contains("40 embeddings") && message.contains("2 labels"),
        "{message}"
    );
    let message = refused(&["few-shot", "--embeddings", &embeddings]);
    assert!(message.contains("--labels"), "{message}");
    let message = refused(&["few-shot"]);
    assert!(message.contains("--run"), "{message}");
}
