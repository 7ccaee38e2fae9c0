//! Metric learning on vectors of another model, as a user runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{json, labels, npy, path, refused};

const CLASSES: usize = 80;
const MEMBERS: usize = 10;
const WIDTH: usize = 96;

/// Values in -1..1 that look random and are the same everywhere.
fn noise(seed: usize) -> f32 {
    let mixed = (seed as u64 + 1)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .rotate_left(29)
        .wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

/// Classes differ in the first eight numbers; the others are loud and say nothing.
fn files(folder: &Path) -> (String, String) {
    let (mut bytes, mut classes) = (Vec::new(), Vec::new());
    for row in 0..CLASSES * MEMBERS {
        let class = row % CLASSES;
        classes.push(class as i64);
        for column in 0..WIDTH {
            let own = noise(1_000_000 + row * WIDTH + column);
            let value = if column < 8 {
                0.9 * noise(class * 8 + column) + 0.2 * own
            } else {
                0.9 * own
            };
            bytes.extend(value.to_le_bytes());
        }
    }
    let shape = format!("({}, {WIDTH})", CLASSES * MEMBERS);
    (
        npy(folder, "e.npy", "<f4", &shape, &bytes),
        labels(folder, "y.npy", &classes),
    )
}

fn fixed<'a>(embeddings: &'a str, classes: &'a str) -> Vec<&'a str> {
    let split = ["--train-classes", "0-59", "--test-classes", "60-79", "--width", "64"];
    let sampler = [
        "--set",
        "sampler.m-per-class.classes=8",
        "--set",
        "sampler.m-per-class.samples=4",
        "--json",
    ];
    let files = ["train", "--embeddings", embeddings, "--labels", classes];
    [&files[..], &split, &sampler].concat()
}

#[test]
fn a_head_learns_what_tells_unseen_classes_apart_and_embeds_new_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let (embeddings, classes) = files(folder.path());
    let [out, before, again] = ["run", "before", "again"].map(|name| path(folder.path(), name));
    let train = |more: &[&str]| json(&[&fixed(&embeddings, &classes)[..], more].concat());
    let recall = |found: &serde_json::Value| found["recall@1"].as_f64().unwrap();
    for head in [None, Some("model.head.residual.hidden=32")] {
        let set = head.map_or_else(Vec::new, |head| vec!["--set", head]);
        for folder in [&out, &before, &again] {
            let _ = std::fs::remove_dir_all(folder);
        }
        let start = train(&[&["--out", &before, "--epochs", "0"], &set[..]].concat());
        let trained = train(&[&["--out", &out, "--epochs", "30"], &set[..]].concat());
        assert!(
            recall(&trained) > recall(&start) + 0.03,
            "{head:?}: {} after {}",
            recall(&trained),
            recall(&start)
        );
        let mut same = train(&[&["--out", &again, "--epochs", "30"], &set[..]].concat());
        same["seconds"] = trained["seconds"].clone();
        assert_eq!(same, trained);

        let measured = json(&["evaluate", "--run", &out, "--json"]);
        assert_eq!(measured["recall@1"], trained["recall@1"]);
        // Embedded row by row and measured from the file: the same again.
        let file = path(folder.path(), "out.npy");
        let embedded = json(&[
            "embed",
            "--run",
            &out,
            "--embeddings",
            &embeddings,
            "--out",
            &file,
            "--json",
        ]);
        assert_eq!(
            (embedded["images"].as_u64(), embedded["width"].as_u64()),
            (Some(800), Some(64))
        );
        let all = json(&["evaluate", "--embeddings", &file, "--labels", &classes, "--json"]);
        assert!(all["recall@1"].as_f64().unwrap() > 0.4, "{all}");
    }
}

#[test]
fn interrupted_equals_uninterrupted() {
    let folder = tempfile::tempdir().unwrap();
    let (embeddings, classes) = files(folder.path());
    let [whole, parts] = ["whole", "parts"].map(|name| path(folder.path(), name));
    let train = |more: &[&str]| json(&[&fixed(&embeddings, &classes)[..], more].concat());
    let expected = train(&["--out", &whole, "--epochs", "6"]);
    train(&["--out", &parts, "--epochs", "6"]);
    // As if it had been stopped after epoch 3.
    for name in ["metrics.json", "model.safetensors"] {
        std::fs::remove_file(Path::new(&parts).join(name)).unwrap();
    }
    let checkpoints: Vec<_> = std::fs::read_dir(Path::new(&parts).join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let newest = checkpoints.iter().max().unwrap();
    if checkpoints.len() > 1 {
        if newest.is_dir() {
            std::fs::remove_dir_all(newest).unwrap();
        } else {
            std::fs::remove_file(newest).unwrap();
        }
    }
    let resumed = json(&["train", "--resume", &parts, "--json"]);
    for (name, value) in expected
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| *name != "seconds")
    {
        assert_eq!(&resumed[name], value, "{name}");
    }
}

#[test]
fn what_does_not_fit_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (embeddings, classes) = files(folder.path());
    let short = labels(folder.path(), "short.npy", &[0, 1, 2]);
    let out = path(folder.path(), "run");
    let errors = refused(&["train", "--embeddings", &embeddings, "--labels", &short, "--out", &out]);
    assert!(
        errors.contains("3 labels") && errors.contains("800 vectors"),
        "{errors}"
    );
    let errors = refused(&["train", "--embeddings", &embeddings, "--out", &out]);
    assert!(errors.contains("--labels"), "{errors}");
    let errors = refused(&[
        "train",
        "--data",
        &embeddings,
        "--set",
        "data.labels=x.npy",
        "--out",
        &out,
    ]);
    assert!(errors.contains("x.npy"), "{errors}");
    let all = [
        &fixed(&embeddings, &classes)[..],
        &["--out", &out, "--set", "intra-class.source=augmentations"],
    ]
    .concat();
    let errors = refused(&all);
    assert!(
        errors.contains("augmentations") && errors.contains("vectors"),
        "{errors}"
    );
    let all = [
        &fixed(&embeddings, &classes)[..],
        &["--out", &out, "--set", "model.freeze-batch-norm=true"],
    ]
    .concat();
    let errors = refused(&all);
    assert!(errors.contains("freeze-batch-norm"), "{errors}");
    assert!(!Path::new(&out).exists());

    json(&[&fixed(&embeddings, &classes)[..], &["--out", &out, "--epochs", "1"]].concat());
    let narrow = npy(folder.path(), "narrow.npy", "<f4", "(1, 3)", &[0, 0, 128, 63].repeat(3));
    let target = path(folder.path(), "n.npy");
    let errors = refused(&["embed", "--run", &out, "--embeddings", &narrow, "--out", &target]);
    assert!(errors.contains('3') && errors.contains("96"), "{errors}");
    let errors = refused(&["evaluate", "--run", &out, "--data", "flora"]);
    assert!(errors.contains("96") && errors.contains("images"), "{errors}");
}
