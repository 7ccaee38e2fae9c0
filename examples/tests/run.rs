//! Every example runs to its end and shows what it promises.

#![allow(clippy::unwrap_used)]

use std::process::Command;

fn run(program: &str) -> String {
    let output = Command::new(program).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The numbers that follow a word, in order.
fn after(text: &str, word: &str) -> Vec<f64> {
    text.split(word)
        .skip(1)
        .map(|rest| {
            rest.trim_start()
                .split([' ', '\n', ','])
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect()
}

#[test]
fn own_model_learns() {
    let losses = after(&run(env!("CARGO_BIN_EXE_own_model")), "loss ");
    assert!(losses.len() == 4 && losses[3] < 0.7 * losses[0], "{losses:?}");
}

#[test]
fn only_evaluation_measures() {
    let text = run(env!("CARGO_BIN_EXE_only_evaluation"));
    let recall = after(&text, "recall@1:")[0];
    assert!(
        recall > 0.2 && recall < 0.999 && after(&text, "recall@8:")[0] > recall,
        "{text}"
    );
}

#[test]
fn only_search_finds_itself_and_heeds_the_filter() {
    let text = run(env!("CARGO_BIN_EXE_only_search"));
    assert!(text.starts_with("nearest: item 0 (1.000)"), "{text}");
    assert!(text.contains("nearest of class 3: item "), "{text}");
}

#[test]
fn ranked_members_come_into_order() {
    let text = run(env!("CARGO_BIN_EXE_ranked_members"));
    let wrong: Vec<f64> = after(&text, ":");
    assert!(wrong[0] > 0.3 && *wrong.last().unwrap() < 0.05, "{text}");
}

#[test]
fn train_from_config_trains() {
    let text = run(env!("CARGO_BIN_EXE_train_from_config"));
    let losses = after(&text, "loss ");
    assert!(losses.len() == 4 && losses[3] < losses[0], "{text}");
    assert!(after(&text, "recall@1")[0] > 0.1, "{text}");
}
