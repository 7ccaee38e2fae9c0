//! `gradus embed --out FOLDER`: many images, part by part, by several processes.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{json, path, refused, run};
use gradus_core::EmbeddingSet;
use gradus_core::embeddings::{parts, read};
use serde_json::Value;

struct Bench {
    folder: tempfile::TempDir,
    run: String,
    images: String,
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let [trained, images] = ["run", "images"].map(|name| path(folder.path(), name));
    let fixed = [
        "train",
        "--data",
        "flora",
        "--preset",
        "proxy-anchor",
        "--epochs",
        "0",
        "--size",
        "32",
        "--width",
        "64",
        "--set",
        "data.flora.species=12",
        "--set",
        "data.flora.images=8",
        "--set",
        "data.flora.size=32",
        "--set",
        "model.backbone.conv4.channels=64",
        "--set",
        "sampler.m-per-class.classes=4",
        "--set",
        "sampler.m-per-class.samples=4",
        "--out",
        &trained,
        "--json",
    ];
    json(&fixed);
    let generated = [
        "data",
        "generate",
        "flora",
        "--species",
        "3",
        "--images",
        "4",
        "--size",
        "32",
        "--out",
        &images,
    ];
    json(&[&generated[..], &["--json"]].concat());
    Bench {
        folder,
        run: trained,
        images,
    }
}

impl Bench {
    fn embed(&self, out: &str, more: &[&str]) -> Value {
        json(&[&self.words(out)[..], more].concat())
    }

    fn words<'a>(&'a self, out: &'a str) -> [&'a str; 8] {
        [
            "embed",
            "--run",
            &self.run,
            "--images",
            &self.images,
            "--out",
            out,
            "--json",
        ]
    }
}

/// The same names and labels and, in the first rows, the same embeddings: how many images go through the network together decides the
/// last bits.
fn alike(a: &EmbeddingSet, b: &EmbeddingSet, rows: usize) {
    assert_eq!((&a.ids, &a.labels), (&b.ids, &b.labels));
    for (a, b) in a.values[..rows * a.dim].iter().zip(&b.values) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn shards_make_the_rows_of_one_file_and_go_on_after_an_interruption() {
    let bench = bench();
    let [file, folder] = ["all.parquet", "vectors"].map(|name| path(bench.folder.path(), name));
    bench.embed(&file, &[]);
    let all = read(Path::new(&file)).unwrap();
    assert_eq!(all.len(), 12);
    for shard in ["2/2", "1/2"] {
        let found = bench.embed(&folder, &["--shard", shard, "--part-rows", "4"]);
        assert_eq!(
            (&found["images"], &found["parts"], &found["kept_parts"]),
            (&6.into(), &2.into(), &0.into())
        );
    }
    alike(&read(Path::new(&folder)).unwrap(), &all, 12);

    // One part lost, one cut short, one whose image changed: these are made again, and no other.
    let files = parts::files(Path::new(&folder)).unwrap();
    assert_eq!(files.len(), 4);
    std::fs::remove_file(&files[0]).unwrap();
    let bytes = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &bytes[..bytes.len() / 2]).unwrap();
    let again = bench.embed(&folder, &["--shard", "1/2", "--part-rows", "4"]);
    assert_eq!((&again["parts"], &again["kept_parts"]), (&2.into(), &0.into()));
    image::RgbImage::new(9, 9).save(&all.ids[11]).unwrap();
    let again = bench.embed(&folder, &["--shard", "2/2", "--part-rows", "4"]);
    assert_eq!((&again["parts"], &again["kept_parts"]), (&1.into(), &1.into()));
    let changed = read(Path::new(&folder)).unwrap();
    alike(&changed, &all, 11);
    let apart = |row: usize| {
        changed
            .row(row)
            .iter()
            .zip(all.row(row))
            .any(|(a, b)| (a - b).abs() > 1e-3)
    };
    assert!(apart(11) && !apart(10));

    let index = path(bench.folder.path(), "index");
    let built = json(&[
        "index",
        "build",
        "--embeddings",
        &folder,
        "--out",
        &index,
        "--engine",
        "flat",
        "--json",
    ]);
    assert_eq!((&built["count"], &built["classes"]), (&12.into(), &3.into()));
    let from_parts = json(&[
        "search",
        "--index",
        &index,
        "--embeddings",
        &folder,
        "--row",
        "7",
        "--k",
        "1",
        "--json",
    ]);
    assert_eq!(
        from_parts["queries"][0]["hits"][0]["id"],
        Value::from(all.ids[7].as_str())
    );
}

/// A file or folder of Parquet is embeddings and labels at once for the commands that take them from two files.
#[test]
fn parquet_stands_for_both_files_of_the_other_commands() {
    let bench = bench();
    let [folder, file, npy, labels] =
        ["vectors", "e.parquet", "e.npy", "y.npy"].map(|name| path(bench.folder.path(), name));
    bench.embed(&folder, &["--part-rows", "5"]);
    let set = read(Path::new(&folder)).unwrap();
    for out in [&file, &npy] {
        gradus_core::embeddings::write(&set, Path::new(out)).unwrap();
    }
    gradus_core::embeddings::write_labels(Path::new(&labels), &set.labels).unwrap();
    for command in [
        &["mine", "--name", "batch-hard"][..],
        &["loss", "--name", "contrastive"],
        &["cluster", "--clusters", "3"],
        &[
            "few-shot",
            "--ways",
            "3",
            "--shots",
            "1",
            "--queries",
            "2",
            "--episodes",
            "5",
        ],
    ] {
        let of = |embeddings: &str, labels: &str| {
            let files = ["--embeddings", embeddings, "--labels", labels, "--json"];
            json(&[command, &files].concat())
        };
        let expected = of(&npy, &labels);
        assert_eq!(of(&file, &file), expected, "{command:?}");
        assert_eq!(of(&folder, &folder), expected, "{command:?}");
        assert_eq!(of(&npy, &folder), expected, "{command:?}");
    }
    let several = ["mine", "--name", "batch-hard", "--embeddings", &file, "--labels", &file];
    let message = refused(&[&several[..], &["--label-kind", "hierarchy"]].concat());
    assert!(message.contains("one class per row"), "{message}");
}

#[test]
fn what_would_mix_or_lose_rows_is_refused() {
    let bench = bench();
    let [folder, file] = ["vectors", "e.npy"].map(|name| path(bench.folder.path(), name));
    bench.embed(&folder, &["--part-rows", "5"]);
    let message = refused(&[&bench.words(&folder)[..], &["--shard", "1/2"]].concat());
    assert!(message.contains("division into 2 shards"), "{message}");
    let message = refused(&[&bench.words(&file)[..], &["--shard", "1/2"]].concat());
    assert!(message.contains("give a folder"), "{message}");
    let output = run(&[&bench.words(&folder)[..], &["--shard", "3/2"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("INDEX/COUNT"));

    // A broken image stops it where no share is tolerated; the parts before it stay.
    let broken = read(Path::new(&folder)).unwrap().ids[7].clone();
    std::fs::write(&broken, b"no picture").unwrap();
    let message = refused(&[&bench.words(&folder)[..], &["--part-rows", "5"]].concat());
    assert!(message.contains("1 of 12 images are broken"), "{message}");
    let tolerated = bench.embed(&folder, &["--part-rows", "5", "--max-bad-images", "0.2"]);
    assert_eq!(
        (&tolerated["images"], &tolerated["bad_images"], &tolerated["kept_parts"]),
        (&4.into(), &1.into(), &2.into())
    );
    assert_eq!(read(Path::new(&folder)).unwrap().len(), 11);
}
