//! `gradus mine` as a user runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{labels, npy, refused, run};
use serde_json::json;

fn matrix(folder: &Path, name: &str, rows: &[[f32; 2]]) -> String {
    let bytes: Vec<u8> = rows
        .as_flattened()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    npy(folder, name, "<f4", &format!("({}, 2)", rows.len()), &bytes)
}

const ROWS: [[f32; 2]; 4] = [[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]];

#[test]
fn pairs_and_triplets_are_printed() {
    let folder = tempfile::tempdir().unwrap();
    let embeddings = matrix(folder.path(), "e.npy", &ROWS);
    let classes = labels(folder.path(), "y.npy", &[5, 5, 7, 7]);
    let mine = |name: &'static str, more: &[&str]| {
        let fixed = [
            "mine",
            "--name",
            name,
            "--embeddings",
            &embeddings,
            "--labels",
            &classes,
            "--json",
        ];
        common::json(&[&fixed[..], more].concat())
    };
    let expected =
        json!({"kind": "triplets", "anchors": [0, 1, 2, 3], "positives": [1, 0, 3, 2], "negatives": [2, 2, 1, 1]});
    assert_eq!(mine("batch-hard", &[]), expected);
    let found = mine("pair-margin", &["--set", "pos-margin=0.7", "--set", "neg-margin=0.5"]);
    assert_eq!(
        found,
        json!({"kind": "pairs", "positive_pairs": [], "negative_pairs": [[1, 2], [2, 1]]})
    );
    let found = mine(
        "pair-margin",
        &[
            "--set",
            "distance=cosine",
            "--set",
            "pos-margin=1",
            "--set",
            "neg-margin=0.9",
        ],
    );
    assert_eq!(found["positive_pairs"], json!([[0, 1], [1, 0], [2, 3], [3, 2]]));
    let random = |seed| mine("distance-weighted", &["--seed", seed]);
    assert_eq!(random("1"), random("1"));
    let references = matrix(folder.path(), "r.npy", &[[0.0, -1.0], [1.0, 0.0]]);
    let reference_classes = labels(folder.path(), "ry.npy", &[7, 5]);
    let reference = [
        "--reference-embeddings",
        &references,
        "--reference-labels",
        &reference_classes,
    ];
    let found = mine("batch-hard", &reference);
    assert_eq!(found["anchors"], json!([0, 1, 2, 3]));
    assert_eq!(found["positives"], json!([1, 1, 0, 0]));
    assert_eq!(found["negatives"], json!([0, 0, 1, 1]));
    let shown = run(&[
        "mine",
        "--name",
        "hdc",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
    ]);
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(
        shown.status.success() && text.contains("positive pairs") && text.contains("possible"),
        "{text}"
    );
}

#[test]
fn bad_input_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let embeddings = matrix(folder, "e.npy", &ROWS);
    let classes = labels(folder, "y.npy", &[5, 5, 7, 7]);
    let mine = |name: &str, embeddings: &str, labels: &str, more: &[&str]| {
        let fixed = ["mine", "--name", name, "--embeddings", embeddings, "--labels", labels];
        refused(&[&fixed[..], more].concat())
    };
    let message = mine("batch-hart", &embeddings, &classes, &[]);
    assert!(message.contains("did you mean `batch-hard`"), "{message}");
    let message = mine("pair-margin", &embeddings, &classes, &["--set", "pos-margim=1"]);
    assert!(message.contains("did you mean `pos-margin`"), "{message}");
    let message = mine("pair-margin", &embeddings, &classes, &["--set", "pos-margin=nan"]);
    assert!(message.contains("miner.pair-margin.pos-margin is NaN"), "{message}");
    let message = mine("pair-margin", &embeddings, &classes, &["--set", "pos-margin=wide"]);
    assert!(message.contains("wide"), "{message}");
    let message = mine("angular", &embeddings, &classes, &["--set", "distance=cosine"]);
    assert!(message.contains("miner.angular.distance"), "{message}");
    let both = ["--set", "pos-strategy=semihard", "--set", "neg-strategy=semihard"];
    let message = mine("batch-easy-hard", &embeddings, &classes, &both);
    assert!(message.contains("neg-strategy is semihard"), "{message}");
    let message = mine("embeddings-already-packaged-as-triplets", &embeddings, &classes, &[]);
    assert!(message.contains("groups of three"), "{message}");

    let broken = matrix(folder, "nan.npy", &[ROWS[0], ROWS[1], [f32::NAN, 0.0], ROWS[3]]);
    let message = mine("batch-hard", &broken, &classes, &[]);
    assert!(
        message.contains("nan.npy") && message.contains("row 2 holds NaN"),
        "{message}"
    );
    let floats = npy(folder, "floats.npy", "<f8", "(4,)", &[0; 32]);
    let message = mine("batch-hard", &embeddings, &floats, &[]);
    assert!(
        message.contains("integer labels") && message.contains("f8"),
        "{message}"
    );
    let message = mine("batch-hard", &classes, &classes, &[]);
    assert!(message.contains("floating-point"), "{message}");
    let message = mine("batch-hard", &floats, &classes, &[]);
    assert!(message.contains("matrix"), "{message}");
    let column = npy(folder, "column.npy", "<i8", "(4, 1)", &[0; 32]);
    let message = mine("batch-hard", &embeddings, &column, &[]);
    assert!(message.contains("[4, 1]"), "{message}");
    let short = labels(folder, "short.npy", &[1, 2, 3]);
    let message = mine("batch-hard", &embeddings, &short, &[]);
    assert!(
        message.contains("4 embeddings") && message.contains("3 labels"),
        "{message}"
    );
    let below = labels(folder, "below.npy", &[0, 1, -1, 1]);
    let message = mine("batch-hard", &embeddings, &below, &[]);
    assert!(message.contains("row 2 is -1"), "{message}");
    let message = mine(
        "batch-hard",
        &folder.join("nowhere.npy").display().to_string(),
        &classes,
        &[],
    );
    assert!(message.contains("nowhere.npy"), "{message}");
    let message = mine(
        "batch-hard",
        &embeddings,
        &classes,
        &["--reference-embeddings", &embeddings],
    );
    assert!(message.contains("--reference-labels"), "{message}");
    let wide = npy(folder, "wide.npy", "<f4", "(4, 3)", &[0; 48]);
    let reference = ["--reference-embeddings", &wide, "--reference-labels", &classes];
    let message = mine("batch-hard", &embeddings, &classes, &reference);
    assert!(message.contains("width 2") && message.contains("width 3"), "{message}");
}

#[test]
fn lists_show_what_can_be_chosen() {
    for (what, name) in [
        ("miners", "multi-similarity"),
        ("distances", "cosine"),
        ("samplers", "hierarchical"),
        ("embedding-augmentations", "proxy-synthesis"),
        ("auxiliary-losses", "s2sd"),
    ] {
        let listed = common::json(&["list", what, "--json"]);
        let entries = listed[what].as_array().unwrap();
        assert!(entries.iter().any(|entry| entry["name"] == name), "{listed}");
        assert!(run(&["list", what]).status.success());
    }
    let listed = common::json(&["list", "miners", "--json"]);
    let entries = listed["miners"].as_array().unwrap();
    let miner = entries.iter().find(|entry| entry["name"] == "pair-margin").unwrap();
    assert_eq!(miner["defaults"]["pos-margin"], 0.2);
}
