//! `gradus cluster` as a user runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{labels, npy, path, refused, run};
use serde_json::json;

fn embeddings(folder: &Path, name: &str, rows: &[[f32; 2]]) -> String {
    let bytes: Vec<u8> = rows
        .as_flattened()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    npy(folder, name, "<f4", &format!("({}, 2)", rows.len()), &bytes)
}

const ROWS: [[f32; 2]; 6] = [
    [1.0, 0.0],
    [2.0, 0.0],
    [3.0, 0.0],
    [0.0, 10.0],
    [0.0, 11.0],
    [0.0, 12.0],
];

#[test]
fn clusters_are_written_and_scored() {
    let folder = tempfile::tempdir().unwrap();
    let file = embeddings(folder.path(), "e.npy", &ROWS);
    let classes = labels(folder.path(), "y.npy", &[4, 4, 4, 9, 9, 9]);
    let out = path(folder.path(), "c.npy");
    let fixed = [
        "cluster",
        "--embeddings",
        &file,
        "--labels",
        &classes,
        "--clusters",
        "2",
        "--json",
    ];
    let found = common::json(&[&fixed[..], &["--out", &out]].concat());
    assert_eq!(found["sizes"], json!([3, 3]), "{found}");
    assert!((found["inertia"].as_f64().unwrap() - 4.0).abs() < 1e-5, "{found}");
    for name in ["nmi", "ami", "f1", "purity", "nmi_geometric"] {
        assert!((found[name].as_f64().unwrap() - 1.0).abs() < 1e-9, "{name}: {found}");
    }
    let written = gradus_core::embeddings::read_labels(Path::new(&out)).unwrap();
    assert!(
        written[0] == written[2] && written[3] == written[5] && written[0] != written[3],
        "{written:?}"
    );
    assert_eq!(common::json(&[&fixed[..], &["--out", &out]].concat()), found);

    // At unit length only the direction is left.
    let found = common::json(&[&fixed[..], &["--normalize"]].concat());
    assert!(found["inertia"].as_f64().unwrap() < 1e-9, "{found}");

    let output = run(&["cluster", "--embeddings", &file, "--clusters", "3"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("6 rows in 3 clusters of ") && !text.contains("NMI"),
        "{text}"
    );
}

#[test]
fn what_cannot_be_clustered_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = embeddings(folder.path(), "e.npy", &ROWS);
    let message = refused(&["cluster", "--embeddings", &file, "--clusters", "7"]);
    assert!(message.contains("6 rows cannot be put into 7 clusters"), "{message}");
    let few = labels(folder.path(), "few.npy", &[0, 1]);
    let message = refused(&["cluster", "--embeddings", &file, "--labels", &few, "--clusters", "2"]);
    assert!(message.contains("2 labels"), "{message}");
    let zero = embeddings(folder.path(), "zero.npy", &[[1.0, 0.0], [0.0, 0.0]]);
    let message = refused(&["cluster", "--embeddings", &zero, "--clusters", "2", "--normalize"]);
    assert!(message.contains("row 1"), "{message}");
    let nowhere = path(folder.path(), "missing/c.npy");
    let message = refused(&["cluster", "--embeddings", &file, "--clusters", "2", "--out", &nowhere]);
    assert!(message.contains("could not be written"), "{message}");
}
