//! The array files that `gradus loss` and `gradus mine` read, and those they refuse.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{json, labels, npy, path, refused};
use serde_json::{Value, json};

// Four points of the plane in halves, so that every precision holds them exactly.
const ROWS: [f32; 8] = [1.0, 0.0, 0.5, 0.75, 0.0, 2.0, -1.0, 0.25];

fn embeddings(folder: &Path, name: &str, dtype: &str, bytes: impl Fn(f32) -> Vec<u8>) -> String {
    let bytes: Vec<u8> = ROWS.into_iter().flat_map(bytes).collect();
    npy(folder, name, dtype, "(4, 2)", &bytes)
}

/// The bits of a half-precision number: of those in `ROWS`, which have few digits.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) as u16 & 0x8000;
    if value == 0.0 {
        return sign;
    }
    let exponent = (bits >> 23 & 0xff) as i32 - 127 + 15;
    sign | (exponent as u16) << 10 | (bits >> 13 & 0x3ff) as u16
}

fn loss(name: &str, embeddings: &str, labels: &str, more: &[&str]) -> Value {
    let fixed = [
        "loss",
        "--name",
        name,
        "--embeddings",
        embeddings,
        "--labels",
        labels,
        "--json",
    ];
    json(&[&fixed[..], more].concat())
}

fn mine(embeddings: &str, labels: &str) -> Value {
    let fixed = [
        "mine",
        "--name",
        "batch-hard",
        "--embeddings",
        embeddings,
        "--labels",
        labels,
    ];
    json(&[&fixed[..], &["--json"]].concat())
}

#[test]
fn every_precision_order_and_byte_order_reads_alike() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let classes = labels(folder, "y.npy", &[7, 7, 100, 100]);
    let double = embeddings(folder, "f8.npy", "<f8", |x| f64::from(x).to_le_bytes().to_vec());
    let expected = loss("contrastive", &double, &classes, &[])["value"].as_f64().unwrap();
    let chosen = mine(&double, &classes);
    let mut columns: Vec<u8> = vec![];
    for column in 0..2 {
        columns.extend((0..4).flat_map(|row| ROWS[row * 2 + column].to_le_bytes()));
    }
    let fortran = npy(folder, "fortran.npy", "<f4", "(4, 2)", &columns);
    let content = std::fs::read(&fortran).unwrap();
    let header = String::from_utf8_lossy(&content[..128]).replace("False", "True ");
    // The lossy text differs from the bytes in NumPy's signature only.
    let header = [&content[..10], &header.as_bytes()[header.find('{').unwrap()..]].concat();
    std::fs::write(&fortran, [&header, &content[128..]].concat()).unwrap();
    let others = [
        embeddings(folder, "f4.npy", "<f4", |x| x.to_le_bytes().to_vec()),
        embeddings(folder, "f2.npy", "<f2", |x| half(x).to_le_bytes().to_vec()),
        embeddings(folder, "f8-big.npy", ">f8", |x| f64::from(x).to_be_bytes().to_vec()),
        embeddings(folder, "f2-big.npy", ">f2", |x| half(x).to_be_bytes().to_vec()),
        fortran,
    ];
    for other in &others {
        let found = loss("contrastive", other, &classes, &[])["value"].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-6, "{other}: {found} is not {expected}");
        assert_eq!(mine(other, &classes), chosen, "{other}");
    }
    let narrow = npy(folder, "u1.npy", "|u1", "(4,)", &[7, 7, 100, 100]);
    let wide = npy(
        folder,
        "i4.npy",
        ">i4",
        "(4,)",
        &[0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 100, 0, 0, 0, 100],
    );
    for other in [narrow, wide] {
        assert_eq!(
            loss("contrastive", &double, &other, &[])["value"].as_f64().unwrap(),
            expected
        );
        assert_eq!(mine(&double, &other), chosen);
    }

    // Half precision is computed, and its gradient written, in single precision; proxies may be halves too.
    let (gradient, of_proxies) = (path(folder, "g.npy"), path(folder, "gw.npy"));
    let far_labels = labels(folder, "far.npy", &[1, 2, 3, 0]);
    let written = [
        "--parameters",
        &others[1],
        "--gradient",
        &gradient,
        "--parameters-gradient",
        &of_proxies,
    ];
    let found = loss("arcface", &others[1], &far_labels, &written)["value"]
        .as_f64()
        .unwrap();
    let written = ["--parameters", &others[0]];
    let expected = loss("arcface", &others[0], &far_labels, &written)["value"]
        .as_f64()
        .unwrap();
    assert!(
        found > 1.0 && (found - expected).abs() < 1e-6,
        "{found} is not {expected}"
    );
    for file in [gradient, of_proxies] {
        assert!(String::from_utf8_lossy(&std::fs::read(file).unwrap()[..128]).contains("<f4"));
    }
}

#[test]
fn what_is_no_such_array_is_refused_by_both() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let good = embeddings(folder, "e.npy", "<f4", |x| x.to_le_bytes().to_vec());
    let classes = labels(folder, "y.npy", &[0, 0, 1, 1]);
    let bytes = std::fs::read(&good).unwrap();
    let with = |name: &str, content: &[u8]| {
        let file = path(folder, name);
        std::fs::write(&file, content).unwrap();
        file
    };
    let of = |name: &str, dtype: &str, shape: &str, length: usize| npy(folder, name, dtype, shape, &vec![0; length]);
    let single = |name: &str, value: f32| {
        let mut content = bytes.clone();
        let place = content.len() - 4;
        content[place..].copy_from_slice(&value.to_le_bytes());
        with(name, &content)
    };
    let wrong_embeddings = [
        (single("nan.npy", f32::NAN), "row 3 holds NaN"),
        (single("inf.npy", f32::INFINITY), "row 3 holds inf"),
        (of("i8.npy", "<i8", "(4, 2)", 64), "floating-point"),
        (of("u3.npy", "<U3", "(4, 2)", 96), "floating-point"),
        (of("b1.npy", "|b1", "(4, 2)", 8), "floating-point"),
        (of("c16.npy", "<c16", "(4, 2)", 128), "floating-point"),
        (of("object.npy", "|O", "(4, 2)", 64), "floating-point"),
        (of("vector.npy", "<f4", "(8,)", 32), "matrix [rows, width]"),
        (of("cube.npy", "<f4", "(4, 2, 1)", 32), "matrix [rows, width]"),
        (of("scalar.npy", "<f4", "()", 4), "matrix [rows, width]"),
        (of("empty.npy", "<f4", "(0, 2)", 0), "no embedding"),
        (of("narrow.npy", "<f4", "(4, 0)", 0), "no embedding"),
        (of("five.npy", "<f4", "(5, 2)", 40), "5 embeddings"),
        (
            of("much.npy", "<f4", "(4000000000, 4000000000)", 32),
            "truncated or damaged",
        ),
        (with("cut.npy", &bytes[..bytes.len() - 3]), "truncated or damaged"),
        (with("long.npy", &[&bytes[..], &[1]].concat()), "truncated or damaged"),
        (with("header.npy", &bytes[..40]), "damaged"),
        (with("nothing.npy", &[]), "not an .npy file"),
        (with("text.npy", b"0.5 0.25\n0.75 1.0\n"), "not an .npy file"),
        (path(folder, "nowhere.npy"), "nowhere.npy"),
    ];
    let wrong_labels = [
        (of("float.npy", "<f8", "(4,)", 32), "integer labels"),
        (of("bool.npy", "|b1", "(4,)", 4), "integer labels"),
        (of("column.npy", "<i8", "(4, 1)", 32), "vector [rows]"),
        (labels(folder, "three.npy", &[0, 0, 1]), "3 labels"),
        (labels(folder, "none.npy", &[]), "0 labels"),
        (labels(folder, "below.npy", &[0, 0, -1, 1]), "row 2 is -1"),
        (
            labels(folder, "above.npy", &[0, 1 << 40, 1, 1]),
            "row 1 is 1099511627776",
        ),
    ];
    let commands = [
        ["loss", "--name", "multi-similarity"],
        ["mine", "--name", "multi-similarity"],
    ];
    for command in &commands {
        let message = |embeddings: &str, labels: &str| {
            refused(&[&command[..], &["--embeddings", embeddings, "--labels", labels]].concat())
        };
        for (file, part) in &wrong_embeddings {
            let found = message(file, &classes);
            assert!(
                found.contains(part) && found.contains(file.as_str()),
                "{command:?} {file}: {found}"
            );
        }
        for (file, part) in &wrong_labels {
            let found = message(&good, file);
            assert!(
                found.contains(part) && found.contains(file.as_str()),
                "{command:?} {file}: {found}"
            );
        }
    }
    let message = |parameters: &str| {
        let fixed = ["loss", "--name", "arcface", "--embeddings", &good, "--labels", &classes];
        refused(&[&fixed[..], &["--parameters", parameters]].concat())
    };
    assert!(message(&of("w-i8.npy", "<i8", "(2, 2)", 32)).contains("floating-point"));
    assert!(message(&of("w-few.npy", "<f4", "(1, 2)", 8)).contains("labels must be below 1"));
    assert!(message(&of("w-turned.npy", "<f4", "(2, 3)", 24)).contains("transpose"));
    assert!(message(&of("w-vector.npy", "<f4", "(2,)", 8)).contains("width 1"));
    assert!(message(&of("w-none.npy", "<f4", "(0, 2)", 0)).contains("no embedding"));
}

#[test]
fn one_file_may_hold_embeddings_and_labels() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let rows = embeddings(folder, "e.npy", "<f4", |x| x.to_le_bytes().to_vec());
    let classes = labels(folder, "y.npy", &[7, 7, 100, 100]);
    let set = gradus_core::EmbeddingSet {
        dim: 2,
        values: ROWS.to_vec(),
        labels: vec![7, 7, 100, 100],
        ids: ["a", "b", "c", "d"].map(String::from).to_vec(),
    };
    let both = path(folder, "both.safetensors");
    gradus_core::embeddings::write(&set, Path::new(&both)).unwrap();
    assert_eq!(mine(&both, &both), mine(&rows, &classes));
    assert_eq!(
        loss("contrastive", &both, &both, &[]),
        loss("contrastive", &rows, &classes, &[])
    );
    let clustered = |rows: &str, labels: &str| {
        json(&[
            "cluster",
            "--embeddings",
            rows,
            "--labels",
            labels,
            "--clusters",
            "2",
            "--json",
        ])
    };
    assert_eq!(clustered(&both, &both), clustered(&rows, &classes));
    // Embeddings are not taken for parameters, nor labels for cameras.
    let fixed = ["--embeddings", &rows, "--labels", &classes];
    let message = refused(&[&["loss", "--name", "arcface", "--parameters", &both], &fixed[..]].concat());
    assert!(message.contains("called parameters"), "{message}");
    let message = refused(&[&["evaluate", "--cameras", &both], &fixed[..]].concat());
    assert!(message.contains("called cameras"), "{message}");
}

#[test]
fn nothing_is_reduced_where_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let classes = labels(folder, "y.npy", &[0, 0, 1, 2]);
    let rows = embeddings(folder, "e.npy", "<f8", |x| f64::from(x).to_le_bytes().to_vec());
    let asked = ["--set", "reducer=do-nothing", "--set", "distance=cosine"];
    let found = loss("triplet-margin", &rows, &classes, &asked);
    let term = &found["terms"]["loss"];
    assert_eq!(found["reducer"], "do-nothing");
    assert!(found.get("value").is_none());
    assert_eq!(term["unit"], "triplet");
    assert_eq!(term["positions"], json!([[0, 1, 2], [0, 1, 3], [1, 0, 2], [1, 0, 3]]));
    let near = |value: &Value, expected: f64| assert!((value.as_f64().unwrap() - expected).abs() < 1e-12, "{value}");
    // Cosines 0 to 1, 0 to 2 and 1 to 2; the margin is 0.05.
    let (pair, other) = (0.5 / 0.8125_f64.sqrt(), 0.75 / 0.8125_f64.sqrt());
    near(&term["values"][0], 0.0);
    near(&term["values"][2], other - pair + 0.05);
    let found = loss("contrastive", &rows, &classes, &["--set", "reducer=do-nothing"]);
    assert_eq!(found["terms"]["pos-loss"]["positions"], json!([[0, 1], [1, 0]]));
    assert_eq!(found["terms"]["neg-loss"]["values"].as_array().unwrap().len(), 10);

    let gradient = path(folder, "g.npy");
    let fixed = [
        "loss",
        "--name",
        "contrastive",
        "--embeddings",
        &rows,
        "--labels",
        &classes,
    ];
    let message = refused(&[&fixed[..], &asked, &["--gradient", &gradient]].concat());
    assert!(
        message.contains("do-nothing") && message.contains("--gradient"),
        "{message}"
    );
    assert!(!Path::new(&gradient).exists());
    let message = refused(&["config", "show", "--set", "loss.contrastive.reducer=do-nothing"]);
    assert!(message.contains("loss.contrastive.reducer is do-nothing"), "{message}");
}
