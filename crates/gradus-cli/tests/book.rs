//! The guide: every command in it runs as it stands, and every page of it is in its table of contents.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The guide's text, beside the crates.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../book/src")
}

/// The blocks of one language in a chapter.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let opening = format!("```{language}");
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_end() == opening {
            let block: Vec<&str> = lines.by_ref().take_while(|line| line.trim_end() != "```").collect();
            blocks.push(block.join("\n"));
        }
    }
    blocks
}

/// Runs the commands of a chapter in an empty folder.
fn follow(chapter: &str) {
    let text = std::fs::read_to_string(source().join(format!("{chapter}.md"))).unwrap();
    let commands = blocks(&text, "sh");
    assert!(!commands.is_empty(), "{chapter} has no commands");
    let program = Path::new(env!("CARGO_BIN_EXE_gradus")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    let folder = tempfile::tempdir().unwrap();
    for block in commands {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &block])
            .env("PATH", &path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{chapter}:\n{block}\n{said}");
    }
}

macro_rules! chapters {
    ($($test:ident = $file:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            follow($file);
        })+

        /// Chapters whose commands are run.
        const FOLLOWED: &[&str] = &[$($file),+];
    };
}

chapters! {
    getting_started = "getting-started",
    own_images = "own-images",
    vectors = "vectors",
    losses = "losses",
    method = "method",
    evaluating = "evaluating",
    serving = "serving",
    migrating = "migrating",
}

/// Chapters whose Rust is run by the documentation tests of `gradus-examples`, and whose Python by the tests of the Python package.
const ELSEWHERE: &[&str] = &["library", "extending", "python"];

#[test]
fn every_chapter_is_listed_and_no_snippet_is_left_out() {
    let summary = std::fs::read_to_string(source().join("SUMMARY.md")).unwrap();
    let mut listed: Vec<String> = summary
        .split("](")
        .skip(1)
        .map(|rest| rest.split(".md)").next().unwrap().to_owned())
        .collect();
    let mut there: Vec<String> = std::fs::read_dir(source())
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".md")?.to_owned()))
        .filter(|name| name != "SUMMARY")
        .collect();
    listed.sort();
    there.sort();
    assert_eq!(listed, there);
    for name in there {
        let text = std::fs::read_to_string(source().join(format!("{name}.md"))).unwrap();
        let fences: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("```")).collect();
        for language in fences.iter().step_by(2) {
            let covered = match *language {
                "sh" => FOLLOWED.contains(&name.as_str()),
                "rust" | "python" => ELSEWHERE.contains(&name.as_str()),
                _ => false,
            };
            assert!(covered, "{name}: a block of `{language}` is run by no test");
        }
        for image in text.split("](images/").skip(1) {
            let file = image.split(')').next().unwrap();
            assert!(source().join("images").join(file).is_file(), "{name}: no {file}");
        }
    }
}
