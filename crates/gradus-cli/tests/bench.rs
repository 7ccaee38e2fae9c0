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
        assert!(!cfg!(target_os = "linux"), "Linux counts memory");
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
