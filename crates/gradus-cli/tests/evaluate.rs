//! `gradus evaluate` on files, as a user runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{json, labels, npy, path, refused, run};
use serde_json::Value;

fn matrix(folder: &Path, name: &str, rows: &[[f32; 2]]) -> String {
    let bytes: Vec<u8> = rows
        .as_flattened()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    npy(folder, name, "<f4", &format!("({}, 2)", rows.len()), &bytes)
}

/// Three classes on a circle, the last of one member.
const ROWS: [[f32; 2]; 6] = [[1.0, 0.0], [0.9, 0.1], [0.8, 0.3], [0.3, 0.8], [0.1, 0.9], [0.7, 0.7]];
const CLASSES: [i64; 6] = [4, 4, 4, 7, 7, 9];

fn near(value: &Value, expected: f64) {
    assert!((value.as_f64().unwrap() - expected).abs() < 1e-9, "{value} {expected}");
}

#[test]
fn a_single_set_has_all_keys_and_counts_lone_queries() {
    let folder = tempfile::tempdir().unwrap();
    let embeddings = matrix(folder.path(), "e.npy", &ROWS);
    let classes = labels(folder.path(), "l.npy", &CLASSES);
    let factors = path(folder.path(), "f.csv");
    std::fs::write(&factors, "angle\n350\n10\n40\n0\n90\n5\n").unwrap();
    let fixed = ["evaluate", "--embeddings", &embeddings, "--labels", &classes];
    let all = |more: &[&str]| json(&[&fixed[..], &["--json"], more].concat());
    let found = all(&["--factors", &factors, "--circular", "angle:360"]);
    for key in [
        "recall@1",
        "recall@8",
        "precision@1",
        "r_precision",
        "map@r",
        "map",
        "map@4",
        "map_hits@4",
        "mrr",
        "ndcg@2",
        "cmc@1",
        "density",
        "rho",
        "rho_intra",
        "effective_rank",
        "order_spearman",
        "order_kendall",
        "order_preservation",
        "order_preservation.angle",
        "nmi",
        "ami",
        "f1",
        "auc",
        "eer",
        "tar@far=0.1",
        "fnmr@fmr=0.001",
        "nc1",
        "alignment",
        "uniformity",
        "seconds",
    ] {
        assert!(found[key].is_number(), "{key}: {}", found[key]);
    }
    assert_eq!((&found["queries"], &found["lone_queries"]), (&6.into(), &1.into()));
    assert_eq!(found["order_spearman"], found["order_preservation"]);
    near(&found["recall@8"], 5.0 / 6.0);
    near(&all(&["--lone-queries", "drop", "--k", "8"])["recall@8"], 1.0);
    // Only what is asked for, and K beyond the set is no error.
    let found = all(&["--metrics", "recall@1000,map@r"]);
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "recall@1000",
            "map@r",
            "queries",
            "lone_queries",
            "classes",
            "seconds",
            "peak_mib"
        ]
    );
    let output = run(&[&fixed[..], &["--explain", "--bootstrap", "50", "--per-class"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("over classes") && text.contains("95 % interval") && text.contains("mean average precision"),
        "{text}"
    );
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(
        talk.contains("6 queries in 6 rows of width 2") && talk.contains("MiB"),
        "{talk}"
    );
}

#[test]
fn a_gallery_cameras_and_breakdowns() {
    let folder = tempfile::tempdir().unwrap();
    let queries = matrix(folder.path(), "q.npy", &[[1.0, 0.0], [0.0, 1.0]]);
    let classes = labels(folder.path(), "ql.npy", &[7, 8]);
    let gallery = matrix(
        folder.path(),
        "g.npy",
        &[[0.0, 1.0], [1.0, 0.0], [1.0, 0.5], [1.0, 0.2]],
    );
    let gallery_classes = labels(folder.path(), "gl.npy", &[7, 7, 7, 3]);
    let fixed = [
        "evaluate",
        "--embeddings",
        &queries,
        "--labels",
        &classes,
        "--gallery-embeddings",
        &gallery,
    ];
    let fixed = [
        &fixed[..],
        &["--gallery-labels", &gallery_classes, "--json", "--lone-queries", "drop"],
    ]
    .concat();
    let found = json(&fixed);
    near(&found["map"], (1.0 + 2.0 / 3.0 + 3.0 / 4.0) / 3.0);
    assert_eq!((&found["queries"], &found["lone_queries"]), (&2.into(), &1.into()));
    let cameras = labels(folder.path(), "c.npy", &[0, 0]);
    let gallery_cameras = labels(folder.path(), "gc.npy", &[1, 0, 1, 0]);
    let found = json(
        &[
            &fixed[..],
            &["--cameras", &cameras, "--gallery-cameras", &gallery_cameras],
        ]
        .concat(),
    );
    near(&found["map"], (1.0 / 2.0 + 2.0 / 3.0) / 2.0);
    near(&found["cmc@1"], 0.0);
    let message = refused(&[&fixed[..], &["--cameras", &cameras]].concat());
    assert!(message.contains("--gallery-cameras"), "{message}");
    let table = path(folder.path(), "classes.csv");
    let found = json(
        &[
            &fixed[..],
            &["--metrics", "mrr", "--per-class", &table, "--categories", &cameras],
        ]
        .concat(),
    );
    let lines = std::fs::read_to_string(&table).unwrap();
    assert_eq!(lines, "class,queries,lone_queries,mrr\n7,1,0,1\n8,1,1,\n");
    near(&found["macro"]["mrr"], 1.0);
    assert_eq!(found["per_category"]["0"]["queries"], 2);
}

#[test]
fn clusters_that_are_given_a_reference_space_and_categories() {
    let folder = tempfile::tempdir().unwrap();
    let embeddings = matrix(folder.path(), "e.npy", &ROWS);
    let classes = labels(folder.path(), "l.npy", &CLASSES);
    let clusters = labels(folder.path(), "c.npy", &[1, 1, 1, 0, 0, 5]);
    let found = json(&["evaluate", "--labels", &classes, "--clusters", &clusters, "--json"]);
    for key in ["nmi", "ami", "f1"] {
        near(&found[key], 1.0);
    }
    let message = refused(&[
        "evaluate",
        "--labels",
        &classes,
        "--clusters",
        &labels(folder.path(), "d.npy", &[1]),
    ]);
    assert!(message.contains("6 labels"), "{message}");
    let fixed = ["evaluate", "--embeddings", &embeddings, "--labels", &classes, "--json"];
    let found = json(
        &[
            &fixed[..],
            &[
                "--reference-embeddings",
                &embeddings,
                "--metrics",
                "knn_overlap,linear_cka",
            ],
        ]
        .concat(),
    );
    near(&found["knn_overlap"], 1.0);
    near(&found["linear_cka"], 1.0);
    let message = refused(&[&fixed[..], &["--metrics", "knn_overlap"]].concat());
    assert!(message.contains("--reference-embeddings"), "{message}");
    let short = matrix(folder.path(), "r.npy", &ROWS[..4]);
    let message = refused(&[&fixed[..], &["--reference-embeddings", &short]].concat());
    assert!(message.contains("4 reference embeddings"), "{message}");
    let categories = labels(folder.path(), "k.npy", &[0, 0, 0, 0, 0, 0]);
    let found = json(
        &[
            &fixed[..],
            &["--categories", &categories, "--metrics", "subclass_recall"],
        ]
        .concat(),
    );
    assert!(found["subclass_recall"].as_f64().unwrap() > 0.5);
}

#[test]
fn rows_read_in_blocks_give_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let rows: Vec<[f32; 2]> = (0..3000)
        .map(|at| [(at as f32 * 0.7).sin() + 0.1, (at as f32 * 1.3).cos()])
        .collect();
    let embeddings = matrix(folder.path(), "e.npy", &rows);
    let classes = labels(
        folder.path(),
        "l.npy",
        &(0..3000).map(|at| at % 700).collect::<Vec<i64>>(),
    );
    let fixed = [
        "evaluate",
        "--embeddings",
        &embeddings,
        "--labels",
        &classes,
        "--json",
        "--metrics",
        "recall,map,ndcg",
    ];
    let (whole, blocks) = (json(&fixed), json(&[&fixed[..], &["--memory", "20KiB"]].concat()));
    for key in ["recall@1", "recall@8", "map", "ndcg@4"] {
        assert_eq!(whole[key], blocks[key], "{key}");
    }
    let message = refused(&[&fixed[..5], &["--memory", "20KiB", "--metrics", "density"]].concat());
    assert!(message.contains("memory"), "{message}");
}

#[test]
fn post_processing_is_reported_beside_the_plain_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let at = |degrees: f32| [degrees.to_radians().cos(), degrees.to_radians().sin()];
    let queries = matrix(folder.path(), "q.npy", &[at(0.0)]);
    let classes = labels(folder.path(), "ql.npy", &[5]);
    // The nearest row is a wrong one; the mean of all four directions is near the right ones.
    let gallery = matrix(folder.path(), "g.npy", &[at(-20.0), at(25.0), at(30.0)]);
    let gallery_classes = labels(folder.path(), "gl.npy", &[9, 5, 5]);
    let training = matrix(folder.path(), "t.npy", &[at(0.0), at(10.0), at(80.0), at(200.0)]);
    let fixed = [
        &["evaluate", "--embeddings", &queries, "--labels", &classes][..],
        &["--gallery-embeddings", &gallery, "--gallery-labels", &gallery_classes],
        &["--query-expansion", "3", "--expansion-alpha", "0"],
    ]
    .concat();
    let more = [
        &["--database-augmentation", "1", "--whitening", &training, "--re-ranking"][..],
        &["--lambda", "1", "--candidates", "2"],
    ]
    .concat();
    let found = json(&[&fixed[..], &more, &["--json", "--metrics", "recall@1,mrr,auc"]].concat());
    near(&found["recall@1"], 0.0);
    let effects = found["post_processing"].as_object().unwrap();
    let names: Vec<&String> = effects.keys().collect();
    assert_eq!(
        names,
        ["query-expansion", "database-augmentation", "whitening", "re-ranking"]
    );
    near(&effects["query-expansion"]["recall@1"], 1.0);
    near(&effects["re-ranking"]["mrr"], 0.5);
    for (name, means) in effects {
        assert_eq!(means.as_object().unwrap().len(), 2, "{name}: retrieval metrics only");
    }
    let text = String::from_utf8(run(&fixed).stdout).unwrap();
    assert!(
        text.contains("query-expansion") && text.contains("1.0000 (+1.0000)"),
        "{text}"
    );

    let refusals = [
        (&["--query-expansion", "0"][..], "0 is not in"),
        (&["--expansion-alpha", "2"], "--query-expansion"),
        (&["--k1", "2"], "--re-ranking"),
        (&["--re-ranking", "--lambda", "2"], "lambda"),
        (&["--whitening"], "training embeddings"),
        (&["--whitening", &training, "--whitening-width", "3"], "width"),
        (&["--re-ranking", "--distance", "euclidean"], "cosine"),
        (&["--re-ranking", "--metrics", "density"], "retrieval metric"),
    ];
    let embeddings = matrix(folder.path(), "e.npy", &ROWS);
    let classes = labels(folder.path(), "l.npy", &CLASSES);
    for (flags, words) in refusals {
        let message = refused(&[&["evaluate", "--embeddings", &embeddings, "--labels", &classes], flags].concat());
        assert!(message.contains(words), "{flags:?}: {message}");
    }
    let blocks = ["--memory", "40", "--metrics", "recall", "--query-expansion", "1"];
    let message = refused(
        &[
            &["evaluate", "--embeddings", &embeddings, "--labels", &classes],
            &blocks[..],
        ]
        .concat(),
    );
    assert!(message.contains("in memory"), "{message}");
}

#[test]
fn bad_input_is_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let embeddings = matrix(folder.path(), "e.npy", &ROWS);
    let classes = labels(folder.path(), "l.npy", &CLASSES);
    let evaluate = |embeddings: &str, more: &[&str]| {
        refused(&[&["evaluate", "--embeddings", embeddings, "--labels", &classes], more].concat())
    };
    let mut rows = ROWS;
    rows[2][1] = f32::NAN;
    assert!(evaluate(&matrix(folder.path(), "nan.npy", &rows), &[]).contains("row 2"));
    rows[2] = [f32::NEG_INFINITY, 0.0];
    let infinite = matrix(folder.path(), "inf.npy", &rows);
    assert!(evaluate(&infinite, &["--distance", "euclidean"]).contains("row 2"));
    rows[2] = [0.0, 0.0];
    let zero = matrix(folder.path(), "zero.npy", &rows);
    assert!(evaluate(&zero, &[]).contains("row 2") && evaluate(&zero, &[]).contains("zero"));
    // A zero row has a place, if no direction.
    let fixed = [
        "evaluate",
        "--embeddings",
        &zero,
        "--labels",
        &classes,
        "--metrics",
        "mrr",
        "--json",
    ];
    for distance in ["euclidean", "inner-product"] {
        assert!(json(&[&fixed[..], &["--distance", distance]].concat())["mrr"].is_number());
    }
    let short = matrix(folder.path(), "short.npy", &ROWS[..5]);
    let message = evaluate(&short, &[]);
    assert!(
        message.contains("5 embeddings") && message.contains("6 labels"),
        "{message}"
    );
    let bytes = std::fs::read(&embeddings).unwrap();
    let cut = path(folder.path(), "cut.npy");
    std::fs::write(&cut, &bytes[..bytes.len() - 3]).unwrap();
    assert!(evaluate(&cut, &[]).contains("truncated"));
    let empty = npy(folder.path(), "empty.npy", "<f4", "(0, 2)", &[]);
    let none = labels(folder.path(), "none.npy", &[]);
    let message = evaluate(
        &embeddings,
        &["--gallery-embeddings", &empty, "--gallery-labels", &none],
    );
    assert!(
        message.contains("empty.npy") && message.contains("no embedding"),
        "{message}"
    );
    assert!(evaluate(&embeddings, &["--gallery-embeddings", &embeddings]).contains("--gallery-labels"));
    assert!(evaluate(&embeddings, &["--metrics", "recal@1"]).contains("recall@K"));
    assert!(evaluate(&embeddings, &["--metrics", "order_spearman"]).contains("--factors"));
    assert!(evaluate(&embeddings, &["--k", "0"]).contains("1 and more"));
    assert!(evaluate(&embeddings, &["--memory", "lots"]).contains("512MiB"));
    let message = refused(&["evaluate", "--embeddings", &embeddings]);
    assert!(message.contains("--labels"), "{message}");
}

#[test]
fn labels_may_be_levels_of_a_hierarchy() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let values: Vec<u8> = [[1.0_f32, 0.0], [0.8, 0.6], [-1.0, 0.0], [0.0, 1.0]]
        .as_flattened()
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let embeddings = npy(folder, "e.npy", "<f4", "(4, 2)", &values);
    let levels = npy(folder, "levels.npy", "|u1", "(4, 2)", &[4, 1, 4, 2, 3, 1, 4, 1]);
    let fixed = [
        "evaluate",
        "--embeddings",
        &embeddings,
        "--labels",
        &levels,
        "--metrics",
        "ndcg",
        "--k",
        "1",
    ];
    let found = json(&[&fixed[..], &["--label-kind", "hierarchy", "--json"]].concat());
    // Row 0 finds half of what it could first, row 1 all (a half), row 3 half; row 2 has nothing to find.
    let expected = (0.5 + 1.0 + 0.0 + 0.5) / 4.0;
    assert!((found["ndcg@1"].as_f64().unwrap() - expected).abs() < 1e-9, "{found}");
    let message = refused(&fixed);
    assert!(
        message.contains("row 0 column 0 is 4") && message.contains("hierarchy"),
        "{message}"
    );
    let message = refused(&[&fixed[..], &["--label-kind", "classes"]].concat());
    assert!(message.contains("vector [rows]"), "{message}");
    let message = refused(&[
        "evaluate",
        "--labels",
        &levels,
        "--clusters",
        &levels,
        "--label-kind",
        "hierarchy",
    ]);
    assert!(message.contains("--label-kind"), "{message}");
}
