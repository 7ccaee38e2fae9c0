//! Completions, manual pages and the version, as a system asks for them.

#![allow(clippy::unwrap_used)]

mod common;

use common::{json, path, refused, run};

#[test]
fn completions_know_the_commands_and_their_options() {
    for (shell, word) in [
        ("bash", "complete -F _gradus"),
        ("zsh", "#compdef gradus"),
        ("fish", "complete -c gradus"),
    ] {
        let output = run(&["completions", shell]);
        assert!(output.status.success());
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            script.contains(word) && script.contains("few-shot") && script.contains("part-rows"),
            "{shell}"
        );
    }
    assert_eq!(run(&["completions", "basic"]).status.code(), Some(2));
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = json(&["manual", "--out", &path(folder.path(), "man1"), "--json"]);
    let names: Vec<&str> = pages["pages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|page| page.as_str().unwrap())
        .collect();
    for name in [
        "gradus.1",
        "gradus-train.1",
        "gradus-index-build.1",
        "gradus-bench-train-step.1",
    ] {
        assert!(
            names.iter().any(|page| page.ends_with(&format!("/{name}"))),
            "{name} of {names:?}"
        );
    }
    let page = std::fs::read_to_string(folder.path().join("man1/gradus-train.1")).unwrap();
    assert!(page.contains(".TH gradus-train 1") && page.contains("\\-\\-epochs"));
    std::fs::write(folder.path().join("file"), b"").unwrap();
    assert!(refused(&["manual", "--out", &path(folder.path(), "file/man1")]).contains("cannot make the folder"));
}

#[test]
fn the_version_names_the_features() {
    let said = |flag: &str| String::from_utf8(run(&[flag]).stdout).unwrap();
    assert_eq!(said("-V").trim(), format!("gradus {}", env!("CARGO_PKG_VERSION")));
    let long = said("--version");
    assert!(
        long.contains("features: ") && long.contains("-cuda") && long.contains("+qdrant-edge"),
        "{long}"
    );
}
