//! Builds and additions killed at any moment.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::{gradus, json, npy, path, run};

const DIM: usize = 16;
const ROWS: usize = 3000;
const BATCH: usize = 50;
const ENGINES: [&str; 2] = ["flat", "qdrant-edge"];

/// Rows of random direction, a pure function of seed and row.
fn embeddings(folder: &Path, name: &str, rows: usize, seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let bytes: Vec<u8> = (0..rows * DIM)
        .flat_map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 40) as f32 / (1 << 23) as f32 - 1.0).to_le_bytes()
        })
        .collect();
    npy(folder, name, "<f4", &format!("({rows}, {DIM})"), &bytes)
}

/// Starts a command and kills it after a while; whether it was done before.
fn killed(arguments: &[&str], after: Duration) -> bool {
    let mut child = gradus()
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(after);
    // SIGKILL: nothing is cleaned up.
    child.kill().unwrap();
    child.wait().unwrap().success()
}

/// The number of items, or the message of an index that cannot be opened.
fn count(index: &str) -> Result<usize, String> {
    let output = run(&["index", "stats", "--index", index, "--json"]);
    if output.status.success() {
        let stats: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        return Ok(stats["count"].as_u64().unwrap() as usize);
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Rows find themselves, and rows that are not there are not found.
fn finds_itself(index: &str, queries: &str, row: usize, there: bool) {
    let row = row.to_string();
    let found = json(&[
        "search",
        "--index",
        index,
        "--embeddings",
        queries,
        "--row",
        &row,
        "--k",
        "1",
        "--json",
    ]);
    let hit = &found["queries"][0]["hits"][0];
    assert_eq!(hit["id"] == row.as_str(), there, "{found}");
    assert_eq!(hit["score"].as_f64().unwrap() > 0.999_99, there, "{found}");
}

/// Waits that become longer and longer, so that every phase is met whatever the machine.
fn waits() -> impl Iterator<Item = Duration> {
    (0..10).map(|step| Duration::from_millis(4 + 3 * step * step))
}

#[test]
fn a_killed_build_leaves_the_old_index_and_goes_on() {
    for engine in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (
            embeddings(folder.path(), "old.npy", 500, 1),
            embeddings(folder.path(), "new.npy", ROWS, 2),
        );
        let index = path(folder.path(), "index");
        let batch = BATCH.to_string();
        let build = |from: &'static str| {
            let from = if from == "old" { old.clone() } else { new.clone() };
            let words = [
                "index",
                "build",
                "--embeddings",
                &from,
                "--out",
                &index,
                "--engine",
                engine,
                "--batch",
                &batch,
            ];
            let more = ["--recall-queries", "20", "--json"];
            words
                .iter()
                .chain(&more)
                .map(|word| (*word).to_owned())
                .collect::<Vec<String>>()
        };
        let (first, second) = (build("old"), build("new"));
        let words = |command: &[String]| -> Vec<String> { command.to_vec() };
        let kill = |command: &[String], wait| {
            let command = words(command);
            killed(&command.iter().map(String::as_str).collect::<Vec<_>>(), wait)
        };
        let finish = |command: &[String]| {
            let command = words(command);
            json(&command.iter().map(String::as_str).collect::<Vec<_>>())
        };
        for wait in waits() {
            let done = kill(&first, wait);
            match count(&index) {
                Ok(count) => assert_eq!(count, 500),
                Err(message) => assert!(
                    !done && (message.contains("did not finish") || message.contains("no index")),
                    "{message}"
                ),
            }
        }
        assert_eq!(finish(&first)["count"], 500);
        let mut resumed = false;
        for wait in waits() {
            kill(&second, wait);
            let count = count(&index).unwrap();
            assert!(count == 500 || count == ROWS, "{engine}: {count}");
            finds_itself(&index, &new, 777, count == ROWS);
            resumed |= Path::new(&index).join("building.toml").exists();
        }
        let built = finish(&second);
        assert_eq!(built["count"], ROWS);
        assert!(built["recall@10"].as_f64().unwrap() > 0.99, "{built}");
        for row in [0, 777, ROWS - 1] {
            finds_itself(&index, &new, row, true);
        }
        assert!(
            resumed,
            "{engine}: no build was ever killed in the middle: shorter waits are needed"
        );
    }
}

#[test]
fn a_killed_addition_adds_whole_batches() {
    for engine in ENGINES {
        let folder = tempfile::tempdir().unwrap();
        let all = embeddings(folder.path(), "all.npy", ROWS, 3);
        // The same stream: the first rows are those of the longer file.
        let some = embeddings(folder.path(), "some.npy", 1000, 3);
        let index = path(folder.path(), "index");
        let names: String = (0..ROWS).map(|row| format!("{row},{row},0\n")).collect();
        std::fs::write(folder.path().join("all.csv"), format!("row,path,label\n{names}")).unwrap();
        json(&[
            "index",
            "build",
            "--embeddings",
            &some,
            "--out",
            &index,
            "--engine",
            engine,
            "--json",
        ]);
        let batch = BATCH.to_string();
        let add = [
            "index",
            "add",
            "--index",
            &index,
            "--embeddings",
            &all,
            "--batch",
            &batch,
            "--json",
        ];
        let mut before = 1000;
        let mut partly = false;
        for wait in waits() {
            killed(&add, wait);
            let now = count(&index).unwrap();
            assert!(
                now >= before && (now - 1000).is_multiple_of(BATCH),
                "{engine}: {before} {now}"
            );
            finds_itself(&index, &all, now - 1, true);
            if now < ROWS {
                finds_itself(&index, &all, now, false);
            }
            partly |= now > 1000 && now < ROWS;
            before = now;
        }
        let last = json(&add);
        assert_eq!(last["count"], ROWS);
        assert_eq!(
            last["added"].as_u64().unwrap() + last["skipped"].as_u64().unwrap(),
            ROWS as u64
        );
        finds_itself(&index, &all, ROWS - 1, true);
        assert!(
            partly,
            "{engine}: no addition was ever killed in the middle: other waits are needed"
        );
    }
}
