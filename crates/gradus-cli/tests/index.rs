//! `gradus index`, `search`, `calibrate` and `duplicates`, as typed.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{json, labels, npy, path, refused, run};
use serde_json::Value;

/// Forty unit vectors of four classes: a class is a direction, its members turn away from it step by step.
fn rows() -> (Vec<u8>, Vec<i64>) {
    let (mut bytes, mut classes) = (Vec::new(), Vec::new());
    for number in 0..40_u16 {
        let class = number % 4;
        let angle = f32::from(number / 4) * 0.03;
        let mut row = [0.0_f32; 5];
        row[usize::from(class)] = angle.cos();
        row[4] = angle.sin();
        bytes.extend(row.iter().flat_map(|value| value.to_le_bytes()));
        classes.push(i64::from(class));
    }
    (bytes, classes)
}

fn built(folder: &Path, engine: &str) -> (String, String, String) {
    let (bytes, classes) = rows();
    let embeddings = npy(folder, "e.npy", "<f4", "(40, 5)", &bytes);
    let labels = labels(folder, "l.npy", &classes);
    let table: String = (0..40)
        .map(|row| format!("{row},{},{}\n", row * 2, row % 2 == 0))
        .collect();
    let payload = path(folder, "p.csv");
    std::fs::write(&payload, format!("id,price,new\n{table}")).unwrap();
    let index = path(folder, "index");
    let found = json(&[
        "index",
        "build",
        "--embeddings",
        &embeddings,
        "--labels",
        &labels,
        "--payload",
        &payload,
        "--out",
        &index,
        "--engine",
        engine,
        "--json",
    ]);
    assert_eq!(
        (&found["count"], &found["classes"], &found["added"]),
        (&40.into(), &4.into(), &40.into())
    );
    assert_eq!(found["recall@10"], 1.0);
    assert!(found["size_mib"].as_f64().unwrap() > 0.0 && found["build_s"].is_number());
    (index, embeddings, labels)
}

fn ids(found: &Value) -> Vec<&str> {
    let hits = found["queries"][0]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["id"].as_str().unwrap()).collect()
}

#[test]
fn an_index_is_built_searched_extended_and_pruned() {
    for engine in ["flat", "qdrant-edge"] {
        let folder = tempfile::tempdir().unwrap();
        let (index, embeddings, _) = built(folder.path(), engine);
        let search = |more: &[&str]| {
            let words = [
                "search",
                "--index",
                &index,
                "--embeddings",
                &embeddings,
                "--row",
                "8",
                "--json",
                "--k",
                "3",
            ];
            json(&words.iter().chain(more).copied().collect::<Vec<_>>())
        };
        let found = search(&[]);
        assert_eq!(found["engine"], engine);
        assert_eq!(ids(&found)[0], "8");
        assert_eq!(found["queries"][0]["class"], "0");
        assert_eq!(found["queries"][0]["unknown"], false);
        assert_eq!(found["queries"][0]["threshold"], Value::Null);
        assert_eq!(found["queries"][0]["hits"][0]["payload"]["price"], 16);
        assert_eq!(ids(&search(&["--filter", "price>=40", "--filter", "class=0"]))[0], "20");
        assert!(
            ids(&search(&["--filter", "new=false"]))
                .iter()
                .all(|id| id.parse::<usize>().unwrap() % 2 == 1)
        );
        let strict = search(&["--filter", "class=1", "--threshold", "0.9"]);
        assert_eq!(
            (&strict["queries"][0]["unknown"], &strict["queries"][0]["class"]),
            (&true.into(), &Value::Null)
        );
        assert_eq!(ids(&strict).len(), 3, "the nearest are shown all the same");

        // Rows without a name are numbered on.
        let added = json(&["index", "add", "--index", &index, "--embeddings", &embeddings, "--json"]);
        assert_eq!((&added["added"], &added["count"]), (&40.into(), &80.into()));
        let deleted = json(&[
            "index", "delete", "--index", &index, "--id", "48", "--id", "8", "--json",
        ]);
        assert_eq!((&deleted["deleted"], &deleted["count"]), (&2.into(), &78.into()));
        assert!(!ids(&search(&[])).contains(&"8"));
        let deleted = json(&["index", "delete", "--index", &index, "--filter", "class=0", "--json"]);
        assert_eq!(deleted["deleted"], 9);
        let stats = json(&["index", "stats", "--index", &index, "--recall-queries", "20", "--json"]);
        assert_eq!(
            (&stats["count"], &stats["deleted"], &stats["recall@10"]),
            (&69.into(), &11.into(), &1.0.into())
        );
        assert_eq!(stats["fields"]["price"], "number");
        let text = String::from_utf8(run(&["index", "stats", "--index", &index]).stdout).unwrap();
        assert!(text.contains("items         69") && text.contains(engine), "{text}");
    }
}

#[test]
fn thresholds_are_calibrated_stored_used_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (index, embeddings, labels) = built(folder.path(), "flat");
    let found = json(&["calibrate", "--index", &index, "--false-match-rate", "0.01", "--json"]);
    // Members of a class differ by 0.03 from the next; other classes are as near as the last members: 1 - sin^2(0.27) apart.
    let threshold = found["thresholds"]["global"].as_f64().unwrap();
    assert!(threshold > 0.0 && threshold < 0.999, "{found}");
    assert_eq!(
        (&found["false_match_rate"], &found["queries"]),
        (&0.0.into(), &40.into())
    );
    assert_eq!(found["auc"], 1.0);
    let written: Value =
        serde_json::from_slice(&std::fs::read(Path::new(&index).join("calibration.json")).unwrap()).unwrap();
    assert_eq!(written["thresholds"], found["thresholds"]);
    let opposite: Vec<u8> = [0.0_f32, 0.0, 0.0, -1.0, 0.1]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let query = npy(folder.path(), "q.npy", "<f4", "(1, 5)", &opposite);
    let answer = json(&["search", "--index", &index, "--embeddings", &query, "--json"]);
    assert_eq!(answer["queries"][0]["unknown"], true);
    let known = json(&[
        "search",
        "--index",
        &index,
        "--embeddings",
        &embeddings,
        "--row",
        "5",
        "--json",
    ]);
    assert_eq!(
        (&known["queries"][0]["unknown"], &known["queries"][0]["class"]),
        (&false.into(), &"1".into())
    );
    // Held-out items of the same classes, and thresholds of classes.
    let held = json(&[
        "calibrate",
        "--index",
        &index,
        "--embeddings",
        &embeddings,
        "--labels",
        &labels,
        "--best-f1",
        "--per-class",
        "--json",
    ]);
    assert_eq!(held["f1"], 1.0);
    assert!(held["genuine"].as_u64().unwrap() == 40);
    let text = String::from_utf8(run(&["search", "--index", &index, "--embeddings", &query]).stdout).unwrap();
    assert!(text.contains("unknown (threshold"), "{text}");
    json(&["calibrate", "--index", &index, "--remove", "--json"]);
    assert_eq!(
        json(&["search", "--index", &index, "--embeddings", &query, "--json"])["queries"][0]["unknown"],
        false
    );
    assert!(refused(&["calibrate", "--index", &index]).contains("--best-f1"));
    assert!(refused(&["calibrate", "--index", &index, "--false-match-rate", "7"]).contains("between 0 and 1"));
}

#[test]
fn near_duplicates_are_grouped() {
    let folder = tempfile::tempdir().unwrap();
    let (index, embeddings, _) = built(folder.path(), "flat");
    // Neighbours in a class are cos(0.03) = 0.99955 apart: each class hangs together, and row 36 to 39 share no direction.
    let found = json(&[
        "duplicates",
        "--embeddings",
        &embeddings,
        "--threshold",
        "0.9995",
        "--json",
    ]);
    assert_eq!(
        (&found["groups"].as_array().unwrap().len(), &found["superfluous"]),
        (&4, &36.into())
    );
    assert_eq!(found["groups"][1][0], "1");
    assert_eq!(found["pairs"], 36);
    let of_index = json(&["duplicates", "--index", &index, "--threshold", "0.9995", "--json"]);
    assert_eq!(of_index["groups"], found["groups"]);
    let none = json(&[
        "duplicates",
        "--embeddings",
        &embeddings,
        "--threshold",
        "0.9999",
        "--json",
    ]);
    assert_eq!(none["groups"], Value::Array(Vec::new()));
    assert!(refused(&["duplicates", "--embeddings", &embeddings, "--threshold", "2"]).contains("between -1 and 1"));
    assert!(refused(&["duplicates", "--threshold", "0.9"]).contains("--index"));
}

#[test]
fn a_page_of_pictures_stands_alone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("pictures");
    let (mut names, mut bytes) = (String::new(), Vec::new());
    for number in 0..6_u8 {
        let name = format!("c{}/<{number}>.png", number % 2);
        std::fs::create_dir_all(root.join(format!("c{}", number % 2))).unwrap();
        let picture = image::RgbImage::from_pixel(300, 200, image::Rgb([40 * number, 90, 200]));
        picture.save(root.join(&name)).unwrap();
        names.push_str(&format!("{number},{name},{}\n", number % 2));
        bytes.extend([1.0, f32::from(number)].iter().flat_map(|value| value.to_le_bytes()));
    }
    let embeddings = npy(folder.path(), "e.npy", "<f4", "(6, 2)", &bytes);
    std::fs::write(folder.path().join("e.csv"), format!("row,path,label\n{names}")).unwrap();
    let (index, page) = (path(folder.path(), "index"), path(folder.path(), "hits.html"));
    let root = root.to_str().unwrap();
    json(&[
        "index",
        "build",
        "--embeddings",
        &embeddings,
        "--images",
        root,
        "--out",
        &index,
        "--json",
    ]);
    let words = [
        "search",
        "--index",
        &index,
        "--embeddings",
        &embeddings,
        "--row",
        "2",
        "--threshold",
        "0.95",
        "--html",
        &page,
        "--json",
    ];
    let found = json(&words);
    assert_eq!(found["queries"][0]["hits"][0]["image"], "c0/<2>.png");
    assert_eq!(found["queries"][0]["class"], "c0");
    let text = std::fs::read_to_string(&page).unwrap();
    assert_eq!(text.matches("<img src=\"data:image/jpeg;base64,").count(), 5);
    assert!(
        text.contains("alt=\"hit 1: c0 c0/&lt;2&gt;.png, score 1.0000\""),
        "{text}"
    );
    assert!(text.contains("prefers-color-scheme: dark") && text.contains("class=\"hit below\""));
    assert!(!text.contains("http") && !text.contains("<script"));
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (index, embeddings, _) = built(folder.path(), "flat");
    let wide = npy(folder.path(), "w.npy", "<f4", "(1, 3)", &[0, 0, 128, 63].repeat(3));
    for (arguments, expected) in [
        (
            &["search", "--index", "nowhere", "--embeddings", &embeddings][..],
            "holds no index",
        ),
        (
            &["search", "--index", &index, "--embeddings", &wide],
            "width 3 do not fit",
        ),
        (
            &["search", "--index", &index, "--embeddings", &embeddings, "--row", "40"],
            "has 40 rows",
        ),
        (
            &[
                "search",
                "--index",
                &index,
                "--embeddings",
                &embeddings,
                "--filter",
                "cost<3",
            ],
            "its fields are class, new, price",
        ),
        (
            &[
                "search",
                "--index",
                &index,
                "--embeddings",
                &embeddings,
                "--threshold",
                "7",
            ],
            "between -1 and 1",
        ),
        (&["search", "--index", &index, "bird.jpg"], "built from embeddings"),
        (
            &["index", "delete", "--index", &index, "--id", "nobody"],
            "no item nobody",
        ),
        (
            &["index", "add", "--index", &index, "--embeddings", &wide],
            "width 3 do not fit",
        ),
        (
            &[
                "index",
                "build",
                "--embeddings",
                &embeddings,
                "--out",
                &index,
                "--engine",
                "faiss",
            ],
            "flat, qdrant-edge",
        ),
        (
            &[
                "index",
                "build",
                "--embeddings",
                &embeddings,
                "--out",
                folder.path().to_str().unwrap(),
            ],
            "other files",
        ),
        (&["index", "stats", "--url", "localhost:1"], "no address"),
    ] {
        let message = refused(arguments);
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
    assert_eq!(json(&["index", "stats", "--index", &index, "--json"])["count"], 40);
}
