//! `gradus compare` with a study file.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{gradus, json, path, refused, run};
use serde_json::Value;

/// Two small sets of plants, two arms, and settings that train in a moment.
const STUDY: &str = r#"
seeds = [0, 1, 2]

[base]
train.epochs = 2
train.max-batches = 2
transform.size = 32
transform.flip = 0.0
model.width = 64
model.freeze-batch-norm = false
optimizer.rate = 1e-3
sampler.m-per-class = { classes = 4, samples = 3 }
data.flora = { species = 12, images = 5, size = 32 }

[data.plants]
path = "flora"

[data.others]
path = "flora"
set = ["data.flora.seed=9"]

[arm.proxy-anchor]

[arm.ranking]
preset = "gradus"
set = ["intra-class.weight=20"]

[reference]
backbone = "squeezenet1.1"
size = 48
"#;

/// The same with more plants in one set, so that classes are left to hold out.
fn one_set() -> String {
    let others = "[data.others]\npath = \"flora\"\nset = [\"data.flora.seed=9\"]\n";
    assert!(STUDY.contains(others));
    STUDY
        .replace(others, "")
        .replace("[0, 1, 2]", "[0, 1]")
        .replace("species = 12", "species = 24")
}

fn study(folder: &Path, text: &str) -> String {
    let file = path(folder, "study.toml");
    std::fs::write(&file, text).unwrap();
    file
}

fn compare(folder: &Path, out: &str, more: &[&str]) -> Vec<String> {
    let mut all: Vec<String> = ["compare", "--config"].map(str::to_owned).to_vec();
    all.push(path(folder, "study.toml"));
    all.extend(["--out".to_owned(), path(folder, out), "--json".to_owned()]);
    all.extend(more.iter().map(|&argument| argument.to_owned()));
    all
}

fn result(folder: &Path, out: &str, more: &[&str]) -> Value {
    let all = compare(folder, out, more);
    json(&all.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_study_reports_means_differences_and_intervals() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path(), STUDY);
    let report = path(folder.path(), "report.md");
    let page = path(folder.path(), "report.html");
    let found = result(folder.path(), "runs", &["--markdown", &report, "--html", &page]);
    assert_eq!(found["baseline"], "proxy-anchor");
    assert_eq!(found["seeds"], serde_json::json!([0, 1, 2]));
    for data in ["plants", "others"] {
        let set = &found["data"][data];
        for arm in ["proxy-anchor", "ranking"] {
            let entry = &set["arms"][arm];
            let runs = entry["runs"].as_array().unwrap();
            assert_eq!(runs.len(), 3);
            for measure in ["recall@1", "map@r", "order_preservation", "reference_spearman"] {
                let mean = runs.iter().map(|run| run[measure].as_f64().unwrap()).sum::<f64>() / 3.0;
                assert!((entry[measure].as_f64().unwrap() - mean).abs() < 1e-12, "{measure}");
                assert!(entry["intervals"][measure]["half_width"].as_f64().unwrap() >= 0.0);
            }
        }
        assert_eq!(set["untrained"]["runs"][0]["epochs"], 0);
        let difference = &set["differences"]["ranking"];
        for measure in ["recall@1", "map@r", "order_preservation", "reference_spearman"] {
            let of = |arm: &str| set["arms"][arm][measure].as_f64().unwrap();
            let paired = &difference[measure];
            // What the queries contributed adds up to what the runs report.
            let expected = of("ranking") - of("proxy-anchor");
            assert!(
                (paired["difference"].as_f64().unwrap() - expected).abs() < 1e-6,
                "{data} {measure} {paired}"
            );
            let [low, high] = [0, 1].map(|side| paired["interval"][side].as_f64().unwrap());
            assert!(low <= high && paired["per_seed"].as_array().unwrap().len() == 3);
        }
        assert!(set["differences"].get("proxy-anchor").is_none());
    }
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(
        text.contains("## plants") && text.contains("| ranking |") && text.contains("±"),
        "{text}"
    );
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(
        page.contains("<svg") && page.contains("ranking") && !page.contains("http://") && !page.contains("https://")
    );
    // Finished runs are read: called again, nothing is trained and nothing changes. Of a finished run only results are kept.
    let place = folder.path().join("runs/plants/ranking-seed-1");
    assert!(place.join("model.safetensors").exists() && !place.join("checkpoints").exists());
    let written = std::fs::metadata(place.join("model.safetensors"))
        .unwrap()
        .modified()
        .unwrap();
    let again = result(folder.path(), "runs", &[]);
    assert!(found["data"] == again["data"], "the numbers changed");
    assert_eq!(
        std::fs::metadata(place.join("model.safetensors"))
            .unwrap()
            .modified()
            .unwrap(),
        written
    );
    // A record that is lost is measured again from the model, to the same numbers.
    std::fs::remove_file(place.join("queries.json")).unwrap();
    assert!(
        found["data"] == result(folder.path(), "runs", &[])["data"],
        "the numbers changed"
    );
}

/// What makes differences paired.
#[test]
fn arms_of_one_seed_start_from_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path(), STUDY);
    result(folder.path(), "runs", &["--epochs", "0", "--seeds", "3,4"]);
    let model = |run: &str| std::fs::read(folder.path().join(format!("runs/plants/{run}/model.safetensors"))).unwrap();
    assert!(model("proxy-anchor-seed-3") == model("ranking-seed-3"));
    assert!(model("proxy-anchor-seed-3") != model("proxy-anchor-seed-4"));
    // An arm has what its preset brings where a network starts from random weights; the baseline does not.
    let config =
        |run: &str| std::fs::read_to_string(folder.path().join(format!("runs/plants/{run}/config.toml"))).unwrap();
    assert!(config("ranking-seed-3").contains("widths = [512]"));
    assert!(!config("proxy-anchor-seed-3").contains("widths"));
}

#[test]
fn processes_side_by_side_come_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path(), &STUDY.replace("[0, 1, 2]", "[0, 1]"));
    let one = result(folder.path(), "one", &["--set", "data.threads=1"]);
    let two = result(folder.path(), "two", &["--set", "data.threads=1", "--parallel", "2"]);
    for data in ["plants", "others"] {
        for arm in ["proxy-anchor", "ranking"] {
            let of = |result: &Value| result["data"][data]["arms"][arm]["recall@1"].as_f64().unwrap();
            assert!((of(&one) - of(&two)).abs() < 0.05, "{data} {arm}");
        }
        assert_eq!(
            two["data"][data]["arms"]["ranking"]["runs"].as_array().unwrap().len(),
            2
        );
    }
}

#[test]
fn a_killed_study_goes_on_and_keeps_what_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    study(folder.path(), &STUDY.replace("[0, 1, 2]", "[0, 1]"));
    let whole = result(folder.path(), "whole", &[]);
    for (place, more) in [("one", &[][..]), ("two", &["--parallel", "2"][..])] {
        let mut child = gradus()
            .args(compare(folder.path(), place, more))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let first = folder
            .path()
            .join(place)
            .join("plants/proxy-anchor-seed-0/queries.json");
        let started = Instant::now();
        while !first.exists() && started.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let last = folder.path().join(place).join("others/ranking-seed-1/queries.json");
        assert!(!last.exists(), "the study ended before it was killed");
        let before = std::fs::metadata(&first).unwrap().modified().unwrap();
        let found = result(folder.path(), place, &[]);
        assert_eq!(std::fs::metadata(&first).unwrap().modified().unwrap(), before);
        if place == "one" {
            for data in ["plants", "others"] {
                let of = |result: &Value| result["data"][data]["differences"].clone();
                assert_eq!(of(&found), of(&whole), "{data}");
            }
        }
    }
}

#[test]
fn wrong_arms_are_refused_before_anything_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let with = |more: &str| {
        study(folder.path(), &format!("{STUDY}\n{more}"));
        let all = compare(folder.path(), "runs", &[]);
        let message = refused(&all.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(!folder.path().join("runs/plants").exists(), "{message}");
        message
    };
    let message = with("[arm.wrong]\npreset = \"gradus\"\nset = [\"intra-class.wieght=1\"]");
    assert!(
        message.contains("arm `wrong` on data set `plants`") && message.contains("did you mean `weight`"),
        "{message}"
    );
    // What only shows with the data.
    let message = with("[arm.wrong]\npreset = \"gradus\"\nset = [\"sampler.m-per-class.classes=7\"]");
    assert!(
        message.contains("arm `wrong`") && message.contains("classes"),
        "{message}"
    );
    let message = with("[arm.wrong]\npreset = \"gradus\"\nset = [\"model.weights=nowhere.safetensors\"]");
    assert!(
        message.contains("arm `wrong`") && message.contains("nowhere.safetensors"),
        "{message}"
    );
    let message = with("[data.gone]\npath = \"gone\"");
    assert!(message.contains("data set `gone`"), "{message}");
    let message = with("[data.typo]\npaths = \"gone\"");
    assert!(message.contains("did you mean `path`"), "{message}");
    study(folder.path(), STUDY);
    let file = path(folder.path(), "study.toml");
    assert!(refused(&["compare", "--config", &file, "--baseline", "rankin"]).contains("did you mean `ranking`"));
    assert!(refused(&["compare", "--config", &file, "--parallel", "0"]).contains("--parallel"));
    assert_eq!(
        run(&["compare", "--config", &file, "--losses", "all"]).status.code(),
        Some(2)
    );
    // Another configuration in the same folder is refused, too.
    result(folder.path(), "runs", &["--seeds", "0", "--epochs", "1"]);
    let other = compare(folder.path(), "runs", &["--seeds", "0"]);
    assert!(refused(&other.iter().map(String::as_str).collect::<Vec<_>>()).contains("another configuration"));
}

/// Trials are measured on classes held out of the training classes, the best is tested, and all arms get the same number.
#[test]
fn a_search_chooses_on_validation_classes_and_tests_once() {
    let folder = tempfile::tempdir().unwrap();
    let ranges = "[tune.range]\n\"optimizer.rate\" = { low = 1e-4, high = 1e-2, log = true }\n[arm.ranking.range]\n\"intra-class.weight\" = \
                  [5.0, 50.0]\n";
    let text = one_set();
    study(folder.path(), &format!("{text}\n{ranges}"));
    let report = path(folder.path(), "report.md");
    let found = result(folder.path(), "one", &["--tune", "3", "--markdown", &report]);
    for arm in ["proxy-anchor", "ranking"] {
        let tuned = &found["tuned"]["arms"][arm];
        let trials = tuned["trials"].as_array().unwrap();
        assert_eq!(trials.len(), 3);
        let score = |trial: &Value| trial["score"].as_f64().unwrap_or(f64::NEG_INFINITY);
        let best = trials.iter().map(score).fold(f64::NEG_INFINITY, f64::max);
        assert_eq!(tuned["score"].as_f64(), Some(best));
        // The chosen settings are those of the runs that were tested.
        let place = folder.path().join(format!("one/plants/{arm}-seed-1/config.toml"));
        let config: toml::Table = toml::from_str(&std::fs::read_to_string(place).unwrap()).unwrap();
        let rate = tuned["settings"]
            .get("optimizer.rate")
            .map_or(1e-3, |rate| rate.as_f64().unwrap());
        assert!((config["optimizer"]["rate"].as_float().unwrap() - rate).abs() < 1e-12);
        assert!(config["data"]["validation"].as_float().unwrap() == 0.0);
    }
    // 12 training classes: a quarter of them is 3 classes of 5 images.
    let place = folder
        .path()
        .join("one/tune/plants/ranking-trial-1-seed-0/metrics.json");
    let trial: Value = serde_json::from_str(&std::fs::read_to_string(place).unwrap()).unwrap();
    assert_eq!(
        (trial["classes"].as_u64(), trial["queries"].as_u64()),
        (Some(3), Some(15))
    );
    assert!(std::fs::read_to_string(&report).unwrap().contains("optimizer.rate="));
    let again = result(folder.path(), "one", &["--tune", "3", "--parallel", "2"]);
    assert!(again["tuned"] == found["tuned"] && again["data"] == found["data"]);
    let side_by_side = result(folder.path(), "two", &["--tune", "3", "--parallel", "2"]);
    assert_eq!(
        side_by_side["tuned"]["arms"]["ranking"]["trials"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    // A trial that diverges loses, and the search goes on.
    let text = text.replace(
        "optimizer.rate = 1e-3",
        "optimizer.rate = 1e-3\noptimizer.clipping = \"none\"",
    );
    study(
        folder.path(),
        &format!("{text}\n[tune.range]\n\"optimizer.rate\" = [1e30]\n"),
    );
    let found = result(folder.path(), "wild", &["--tune", "2"]);
    let trials = &found["tuned"]["arms"]["ranking"]["trials"];
    assert!(trials[0]["chosen"] == true && trials[1]["score"].is_null(), "{trials}");
}

#[test]
fn folds_validate_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let text = one_set();
    study(folder.path(), &text);
    let found = result(folder.path(), "runs", &["--folds", "3"]);
    let read = |place: &str| -> Value {
        serde_json::from_str(&std::fs::read_to_string(folder.path().join("runs").join(place)).unwrap()).unwrap()
    };
    let of_folds: Vec<f64> = (1..=3)
        .map(|fold| {
            read(&format!("plants/ranking-seed-1-fold-{fold}/metrics.json"))["map@r"]
                .as_f64()
                .unwrap()
        })
        .collect();
    let runs = &found["data"]["plants"]["arms"]["ranking"]["runs"];
    assert_eq!(runs.as_array().unwrap().len(), 2);
    let mean = of_folds.iter().sum::<f64>() / 3.0;
    assert!((runs[1]["map@r"].as_f64().unwrap() - mean).abs() < 1e-12);
    assert!(runs[1]["validation.map@r"].as_f64().is_some());
    let paired = &found["data"]["plants"]["differences"]["ranking"]["map@r"];
    let of = |arm: &str| found["data"]["plants"]["arms"][arm]["map@r"].as_f64().unwrap();
    assert!((paired["difference"].as_f64().unwrap() - (of("ranking") - of("proxy-anchor"))).abs() < 1e-6);
    let file = path(folder.path(), "study.toml");
    assert!(refused(&["compare", "--config", &file, "--folds", "1"]).contains("at least 2"));
    assert!(refused(&["compare", "--config", &file, "--folds", "7"]).contains("fewer folds"));
    assert!(refused(&["compare", "--config", &file, "--tune", "3"]).contains("searches nothing"));
}
