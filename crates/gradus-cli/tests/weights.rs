//! `gradus weights` as a user runs it.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;

use common::{json, path, refused, run};
use gradus::models::BackboneConfig;
use gradus::models::weights::blank_trunk;
use gradus::state::{NamedArray, named_shapes, read_safetensors, write_safetensors};

/// Arrays of a backbone under its first family's names.
fn arrays(name: &str) -> Vec<NamedArray> {
    let trunk = blank_trunk(&BackboneConfig::by_name(name).unwrap());
    named_shapes(&trunk)
        .into_iter()
        .map(|(own, shape)| NamedArray {
            name: trunk.backbone().file_names(&own)[0].clone(),
            values: vec![0.25; shape.iter().product()],
            shape,
        })
        .collect()
}

#[test]
fn a_file_is_recognised_and_its_differences_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(folder.path(), "weights.safetensors");
    let write = |arrays: &[NamedArray]| write_safetensors(file.as_ref(), arrays, &BTreeMap::new()).unwrap();
    let mut whole = arrays("googlenet");
    whole.push(NamedArray {
        name: "aux1.fc1.weight".to_owned(),
        shape: vec![1],
        values: vec![0.0],
    });
    write(&whole);
    let found = json(&["weights", "check", &file, "--json"]);
    assert_eq!(
        (found["backbone"].as_str(), found["fits"].as_bool()),
        (Some("googlenet"), Some(true))
    );
    assert_eq!(found["differences"]["ignored"][0], "aux1.fc1.weight");

    whole.remove(0);
    whole[0].values[0] = f32::INFINITY;
    whole[1].shape = vec![8, 8];
    whole.push(NamedArray {
        name: "extra".to_owned(),
        shape: vec![2],
        values: vec![0.0; 2],
    });
    let (infinite, other) = (whole[0].name.clone(), whole[1].name.clone());
    write(&whole);
    for backbone in [None, Some("googlenet")] {
        let mut command = vec!["weights", "check", &file];
        command.extend(backbone.into_iter().flat_map(|name| ["--backbone", name]));
        let output = run(&command);
        assert_eq!(output.status.code(), Some(2));
        let text = String::from_utf8(output.stdout).unwrap();
        for line in [
            "does not fit the backbone `googlenet`".to_owned(),
            "  missing: conv1.conv.weight [64, 3, 7, 7]".to_owned(),
            "  not part of it: extra [2]".to_owned(),
            format!("  of another shape: {other} is [8, 8], expected [64]"),
            format!("  not finite: {infinite}"),
        ] {
            assert!(text.contains(&line), "{line} is not in {text}");
        }
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(errors.contains("there are 4 differences"), "{errors}");
    }
    let output = run(&[
        "weights",
        "check",
        &file,
        "--backbone",
        "resnet18",
        "--set",
        "stages=3",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(2));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["fits"], false);
    // Three stages miss nothing of the fourth.
    let missing = found["differences"]["missing"].as_array().unwrap();
    assert!(missing.iter().any(|entry| entry[0] == "layer3.0.conv1.weight"));
    assert!(
        !missing
            .iter()
            .any(|entry| entry[0].as_str().unwrap().starts_with("layer4"))
    );
}

#[test]
fn what_cannot_be_checked_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = path(folder.path(), "weights.pth");
    std::fs::write(&text, "not weights").unwrap();
    assert!(refused(&["weights", "check", &text]).contains("could not be read as a PyTorch checkpoint"));
    let absent = path(folder.path(), "absent.safetensors");
    assert!(refused(&["weights", "check", &absent]).contains("absent.safetensors could not be read"));
    let file = path(folder.path(), "w.safetensors");
    write_safetensors(file.as_ref(), &arrays("resnet18"), &BTreeMap::new()).unwrap();
    assert!(refused(&["weights", "check", &file, "--backbone", "resnet19"]).contains("Did you mean `resnet18`"));
    let range = refused(&["weights", "check", &file, "--backbone", "resnet18", "--set", "stages=9"]);
    assert!(range.contains("`stages`") && range.contains("from 1 to 4"), "{range}");
}

#[test]
fn a_run_is_written_under_other_names_and_serves_as_weights() {
    let folder = tempfile::tempdir().unwrap();
    let (out, exported) = (path(folder.path(), "run"), path(folder.path(), "trunk.safetensors"));
    let train = |out: &str, more: &[&str]| {
        let fixed = [
            "train",
            "--json",
            "--out",
            out,
            "--preset",
            "proxy-anchor",
            "--data",
            "flora",
            "--size",
            "32",
            "--epochs",
            "0",
            "--width",
            "64",
            "--set",
            "data.flora.species=12",
            "--set",
            "data.flora.images=6",
            "--set",
            "data.flora.size=32",
            "--set",
            "sampler.m-per-class.classes=4",
            "--set",
            "sampler.m-per-class.samples=4",
            "--backbone",
            "mobilenet-v2",
        ];
        json(&[&fixed[..], more].concat())
    };
    train(&out, &[]);
    for names in ["torchvision", "timm"] {
        let found = json(&[
            "weights", "export", "--run", &out, "--names", names, "--out", &exported, "--json",
        ]);
        assert_eq!(
            (found["tensors"].as_u64(), found["names"].as_str()),
            (Some(260), Some(names))
        );
        let first = if names == "timm" {
            "conv_stem.weight"
        } else {
            "features.0.0.weight"
        };
        let (read, metadata) = read_safetensors(exported.as_ref()).unwrap();
        assert!(read.iter().any(|array| array.name == first), "{names}");
        assert!(metadata["input"].contains("mean 0.485"), "{metadata:?}");
        let check = json(&["weights", "check", &exported, "--json"]);
        assert_eq!(
            (check["backbone"].as_str(), check["fits"].as_bool()),
            (Some("mobilenet-v2"), Some(true))
        );
    }
    let again = path(folder.path(), "again");
    train(&again, &["--weights", &exported]);
    let trunk = |run: &str| -> Vec<NamedArray> {
        let (arrays, _) = read_safetensors(path(run.as_ref(), "model.safetensors").as_ref()).unwrap();
        arrays
            .into_iter()
            .filter(|array| array.name.starts_with("trunk."))
            .collect()
    };
    assert_eq!(trunk(&again), trunk(&out));

    // What teaches the order inside classes, where nobody says: a pretrained trunk's own middle while the trunk is trained.
    let ranked = [
        "--weights",
        &exported,
        "--set",
        "intra-class.source=members",
        "--set",
        "intra-class.weight=1",
    ];
    for (number, (more, space)) in [
        (&[][..], "middle-map"),
        (&["--freeze-trunk"][..], "embedding"),
        (&["--set", "teacher.kind=moving-average"][..], "embedding"),
        (&["--set", "teacher.space=map"][..], "map"),
    ]
    .into_iter()
    .enumerate()
    {
        let taught = path(folder.path(), &format!("taught{number}"));
        train(&taught, &[&ranked[..], more].concat());
        let stored = std::fs::read_to_string(path(taught.as_ref(), "config.toml")).unwrap();
        let stored: toml::Table = toml::from_str(&stored).unwrap();
        assert_eq!(stored["teacher"]["space"].as_str(), Some(space), "{more:?}");
    }

    let refusal = refused(&[
        "weights", "export", "--run", &out, "--names", "authors", "--out", &exported,
    ]);
    assert!(
        refusal.contains("no names of the family `authors`") && refusal.contains("torchvision, timm"),
        "{refusal}"
    );
    let other = path(folder.path(), "trunk.pth");
    assert!(refused(&["weights", "export", "--run", &out, "--out", &other]).contains("written as .safetensors"));
    assert!(
        refused(&[
            "weights",
            "export",
            "--run",
            &folder.path().display().to_string(),
            "--out",
            &exported
        ])
        .contains("holds no run")
    );
}
