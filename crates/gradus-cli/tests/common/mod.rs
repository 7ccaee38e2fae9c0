//! What the tests of the program share.

#![allow(clippy::unwrap_used)]
// Each test program uses a part of it.
#![allow(dead_code)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

pub(crate) fn gradus() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gradus"));
    // What the program keeps for later runs must neither touch the user's own nor come from it.
    command.env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    gradus().args(arguments).output().expect("the program starts")
}

/// The one JSON object a successful command prints.
pub(crate) fn json(arguments: &[&str]) -> Value {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).expect("exactly one JSON object on stdout")
}

/// The message of a command that must fail with exit code 2 and print nothing to stdout.
pub(crate) fn refused(arguments: &[&str]) -> String {
    let output = run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty(), "{arguments:?} printed to stdout");
    assert!(
        !errors.contains("defect") && !errors.contains("panicked"),
        "{arguments:?}: {errors}"
    );
    errors
}

pub(crate) fn path(folder: &Path, name: &str) -> String {
    folder
        .join(name)
        .to_str()
        .expect("temporary paths are UTF-8")
        .to_owned()
}

/// Writes an `.npy` file of version 1.0.
pub(crate) fn npy(folder: &Path, name: &str, dtype: &str, shape: &str, bytes: &[u8]) -> String {
    let mut header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}");
    header.push_str(&" ".repeat(117 - header.len()));
    header.push('\n');
    let mut content = b"\x93NUMPY\x01\x00".to_vec();
    content.extend((header.len() as u16).to_le_bytes());
    content.extend(header.as_bytes());
    content.extend(bytes);
    let file = path(folder, name);
    std::fs::write(&file, content).unwrap();
    file
}

pub(crate) fn labels(folder: &Path, name: &str, labels: &[i64]) -> String {
    let bytes: Vec<u8> = labels.iter().flat_map(|value| value.to_le_bytes()).collect();
    npy(folder, name, "<i8", &format!("({},)", labels.len()), &bytes)
}
