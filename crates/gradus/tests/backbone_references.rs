//! Backbones against torchvision, timm and pretrained-models.pytorch, stage by stage, with weights that both sides compute.
//!
//! `tools/golden/backbones.py` fills every array of a reference with numbers that depend on the array's name and position alone and
//! writes down what the network computes; here a file is filled by the same rule under the names that gradus believes in, read as a
//! user's file is read, and compared stage by stage.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gradus::models::weights::{blank_trunk, fitting, load_trunk, read_file, write_trunk};
use gradus::models::{BackboneConfig, BackboneInfo, Embedder, Family, Mode, ModelConfig};
use gradus::state::{NamedArray, named_shapes, write_safetensors};
use gradus::tensor::{Device, Tensor, TensorData};
use gradus::train::gradient::ParameterGradients;
use gradus_kernels::{Implementation, set_implementation};
use serde_json::Value;

fn with_implementation(implementation: Implementation) -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    set_implementation(implementation);
    turn
}

fn golden() -> Value {
    serde_json::from_str(include_str!("../../../tests/golden/backbones.json")).unwrap()
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Numbers from -1 to 1: SplitMix64 of the name's hash plus the position.
fn draws(name: &str) -> impl Iterator<Item = f64> {
    let start = fnv(name);
    (1_u64..).map(move |position| {
        let mut z = position.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(start);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 40) as f64 / f64::from(1_u32 << 23) - 1.0
    })
}

/// An array as the generator fills it.
fn filled(name: String, shape: Vec<usize>, gain: f64) -> NamedArray {
    let last = name.rsplit('.').next().unwrap();
    let axes = shape.iter().filter(|extent| **extent != 1).count();
    let fan: usize = shape[1..].iter().product();
    let number = |u: f64| match last {
        "running_var" => 1.0 + 0.5 * u,
        "gamma" | "layer_scale" => 0.5 + 0.25 * u,
        "cls_token" | "class_token" | "pos_embed" | "pos_embedding" => 0.5 * u,
        last if last.ends_with("weight") && axes >= 2 => u * (gain / fan as f64).sqrt(),
        last if last.ends_with("weight") => 1.0 + 0.2 * u,
        _ => 0.1 * u,
    };
    let count = shape.iter().product();
    let values = draws(&name).take(count).map(|u| number(u) as f32).collect();
    NamedArray { name, shape, values }
}

/// One image of numbers from 0 to 1, normalised as the backbone's weights want it.
fn image(size: usize, info: &BackboneInfo, device: &Device) -> Tensor<4> {
    let (mean, deviation) = info.normalisation;
    let values: Vec<f32> = draws("image")
        .take(3 * size * size)
        .enumerate()
        .map(|(index, u)| {
            let (channel, row, column) = (index / (size * size), index / size % size, index % size);
            let wave = 0.11 * row as f64 + 0.07 * column as f64 * (channel as f64 + 1.0) + channel as f64;
            let pixel = (0.5 * (u + 1.0) / 2.0 + 0.5 * (0.5 + 0.5 * wave.sin())) as f32;
            (pixel - mean[channel]) / deviation[channel]
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [1, 3, size, size]), device)
}

struct Case {
    name: String,
    golden: Value,
    backbone: BackboneConfig,
    family: Family,
}

impl Case {
    fn new(name: &str) -> Self {
        let golden = golden()["cases"][name].clone();
        let options = serde_json::json!({ golden["backbone"].as_str().unwrap(): golden["options"] });
        let family = golden["family"].as_str().unwrap();
        Self {
            name: name.to_owned(),
            backbone: serde_json::from_value(options).unwrap(),
            family: Family::ALL.into_iter().find(|known| known.name() == family).unwrap(),
            golden,
        }
    }

    /// The names and shapes that gradus believes the reference's arrays to have.
    fn arrays(&self) -> Vec<(String, Vec<usize>)> {
        let trunk = blank_trunk(&self.backbone);
        let families = self.backbone.info().families;
        let position = families.iter().position(|family| *family == self.family).unwrap();
        named_shapes(&trunk)
            .into_iter()
            .map(|(name, shape)| {
                let names = trunk.backbone().file_names(&name);
                assert_eq!(names.len(), families.len(), "{name}");
                (
                    names[position].clone(),
                    trunk.backbone().file_shape(self.family, &name, &shape),
                )
            })
            .collect()
    }

    /// A file of the reference's weights, with a classifier and a counter that nobody asked for.
    fn network(&self, freeze_batch_norm: bool, device: &Device) -> Embedder {
        let gain = self.golden["gain"].as_f64().unwrap();
        let mut arrays: Vec<NamedArray> = self
            .arrays()
            .into_iter()
            .map(|(name, shape)| filled(name, shape, gain))
            .collect();
        for extra in ["fc.weight", "bn.num_batches_tracked"] {
            arrays.push(filled(extra.to_owned(), vec![2], 1.0));
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("weights.safetensors");
        write_safetensors(&path, &arrays, &BTreeMap::new()).unwrap();
        let config = ModelConfig {
            backbone: self.backbone.clone(),
            weights: Some(path),
            normalise_features: false,
            freeze_batch_norm,
            ..ModelConfig::default()
        };
        config.init(1, device).unwrap()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .collect()
    }

    /// Compares names, every stage and the features.
    fn check(&self) {
        let mut lines: Vec<String> = self
            .arrays()
            .into_iter()
            .map(|(name, shape)| {
                let shape: Vec<String> = shape.iter().map(usize::to_string).collect();
                format!("{name} {}\n", shape.join(","))
            })
            .collect();
        lines.sort();
        let names = &self.golden["names"];
        assert_eq!(names["arrays"].as_u64(), Some(lines.len() as u64), "{}", self.name);
        assert_eq!(
            names["digest"].as_str().unwrap(),
            format!("{:016x}", fnv(&lines.concat())),
            "{}: names and shapes",
            self.name
        );
        let features = Self::numbers(&self.golden["features"]);
        if features.is_empty() {
            return;
        }
        let network = self.network(false, &Device::default());
        let size = self.golden["size"].as_u64().unwrap() as usize;
        let images = image(size, self.backbone.info(), &Device::default());
        let (trunk, mut x) = (network.trunk().unwrap().backbone(), images.clone());
        let stages = self.golden["stages"].as_array().unwrap();
        let mut worst = 0.0_f64;
        for (index, stage) in stages.iter().enumerate() {
            x = trunk.block(index, x, Mode::Evaluate);
            let found = host(x.clone());
            let shape = Self::numbers(&stage["shape"]);
            assert_eq!(
                shape.iter().product::<f64>(),
                found.len() as f64,
                "{} stage {index}",
                self.name
            );
            let count = found.len() as f64;
            let mean = found.iter().sum::<f64>() / count;
            let rms = (found.iter().map(|value| value * value).sum::<f64>() / count).sqrt();
            let scale = stage["rms"].as_f64().unwrap();
            let places = (1..=8_u64).map(|place| found[(place * 2_654_435_761 % found.len() as u64) as usize]);
            let expected = [stage["mean"].as_f64().unwrap(), scale];
            let expected = expected.into_iter().chain(Self::numbers(&stage["values"]));
            for (found, expected) in [mean, rms].into_iter().chain(places).zip(expected) {
                worst = worst.max((found - expected).abs() / scale);
                assert!(
                    (found - expected).abs() < 1e-4 * scale,
                    "{} stage {index} of {}: {found}, expected {expected}",
                    self.name,
                    stages.len()
                );
            }
        }
        let found = host(network.features(images, Mode::Evaluate));
        let scale = self.golden["feature_rms"].as_f64().unwrap();
        for (found, expected) in found.iter().zip(&features) {
            worst = worst.max((found - expected).abs() / scale);
            assert!(
                (found - expected).abs() < 1e-4 * scale,
                "{}: feature {found}, expected {expected}",
                self.name
            );
        }
        let rms = (found.iter().map(|value| value * value).sum::<f64>() / found.len() as f64).sqrt();
        assert!(
            (rms / scale - 1.0).abs() < 1e-4,
            "{}: {rms}, expected {scale}",
            self.name
        );
        println!(
            "{}: {} stages, largest difference {worst:.1e} of the root mean square",
            self.name,
            stages.len()
        );
    }
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor
        .try_into_vec_as::<f32>()
        .unwrap()
        .into_iter()
        .map(f64::from)
        .collect()
}

/// One test per network, so that they show by name.
macro_rules! reproduced {
    ($($test:ident: $($case:literal),+;)+) => {
        $(#[test]
        fn $test() {
            let _turn = with_implementation(Implementation::Own);
            for case in [$($case),+] {
                Case::new(case).check();
            }
        })+

        #[test]
        fn every_case_is_looked_at() {
            let looked: Vec<&str> = [$($($case),+),+].into();
            let golden = golden();
            let cases = golden["cases"].as_object().unwrap();
            assert_eq!(cases.len(), looked.len());
            assert!(looked.iter().all(|case| cases.contains_key(*case)));
        }
    };
}

reproduced! {
    resnet101_is_reproduced: "resnet101", "resnet101-timm";
    googlenet_is_reproduced: "googlenet";
    bn_inception_is_reproduced: "bn-inception";
    efficientnet_is_reproduced: "efficientnet", "efficientnet-timm";
    convnext_is_reproduced: "convnext", "convnext-timm";
    vit_b16_is_reproduced: "vit-b16", "vit-b16-timm";
    vit_s16_is_reproduced: "vit-s16", "vit-s16-native", "vit-s16-dino", "vit-s16-patches";
    dinov2_is_reproduced: "dinov2";
}

#[test]
fn plain_operations_reproduce_the_features_too() {
    let _turn = with_implementation(Implementation::Stock);
    for case in ["googlenet", "efficientnet", "vit-s16"] {
        Case::new(case).check();
    }
}

/// What is new and trains: gradients reach every parameter, and are numbers.
#[test]
fn gradients_reach_every_parameter() {
    let _turn = with_implementation(Implementation::Own);
    let device = Device::default().autodiff();
    for name in [
        "resnet101",
        "googlenet",
        "bn-inception",
        "efficientnet-b0",
        "convnext-tiny",
        "vit-s16",
        "vit-b16",
        "dinov2-s14",
    ] {
        let backbone = BackboneConfig::by_name(name).unwrap();
        let info = backbone.info();
        // Without batch statistics the fresh weights of this one let nothing through, as little as torchvision's would.
        let network = if name == "efficientnet-b0" {
            Case::new("efficientnet").network(true, &device)
        } else {
            let config = ModelConfig {
                backbone,
                freeze_batch_norm: true,
                ..ModelConfig::default()
            };
            config.init(5, &device).unwrap()
        };
        let images = image(info.minimum_size, info, &device);
        let embeddings = network.forward(images, Mode::Train);
        let weights: Vec<f32> = (0..128).map(|index| (index as f32 * 0.7).sin()).collect();
        let weights = Tensor::<2>::from_data(TensorData::new(weights, [1, 128]), &device);
        let mut gradients = (embeddings * weights).sum().backward();
        let mut gradients = ParameterGradients::collect(&network, &mut gradients);
        for (path, _) in named_shapes(&network) {
            if !network.is_trainable(&path) {
                continue;
            }
            let gradient = gradients
                .take(&path)
                .unwrap_or_else(|| panic!("{name}: {path} has no gradient"));
            let norm = host(gradient).iter().map(|value| value * value).sum::<f64>();
            assert!(norm.is_finite() && norm > 0.0, "{name}: {path}: {norm}");
        }
        assert_eq!(gradients.paths().count(), 0, "{name}");
    }
}

#[test]
fn files_written_under_other_names_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "efficientnet-b0",
        "convnext-tiny",
        "bn-inception",
        "mobilenet-v2",
        "vit-s16",
    ] {
        let backbone = BackboneConfig::by_name(name).unwrap();
        let config = ModelConfig {
            backbone: backbone.clone(),
            ..ModelConfig::default()
        };
        let network = config.init(3, &Device::default()).unwrap();
        let trunk = network.trunk().unwrap();
        for family in backbone.info().families {
            let path = folder.path().join(format!("{name}-{}.safetensors", family.name()));
            let count = write_trunk(trunk, &backbone, *family, backbone.info().normalisation, &path).unwrap();
            assert_eq!(count, named_shapes(trunk).len());
            let (read, info) = load_trunk(blank_trunk(&backbone), name, &path).unwrap();
            assert_eq!(
                gradus::state::named_arrays(&read),
                gradus::state::named_arrays(trunk),
                "{name}"
            );
            let (mean, deviation) = info.normalisation.unwrap();
            let (own_mean, own_deviation) = backbone.info().normalisation;
            for (found, expected) in mean.iter().chain(&deviation).zip(own_mean.iter().chain(&own_deviation)) {
                assert!((found - expected).abs() < 1e-6, "{name}: {found}, not {expected}");
            }
        }
    }
    let timm = folder.path().join("efficientnet-b0-timm.safetensors");
    assert_eq!(fitting(&timm).unwrap(), Some("efficientnet-b0"));
    let conv4 = BackboneConfig::default();
    let path = folder.path().join("conv4.safetensors");
    let refusal = write_trunk(
        &blank_trunk(&conv4),
        &conv4,
        Family::Timm,
        conv4.info().normalisation,
        &path,
    )
    .unwrap_err()
    .to_string();
    assert!(
        refusal.contains("`conv4` has no names of the family `timm`"),
        "{refusal}"
    );
    assert!(!path.exists());
}

#[test]
fn a_wrong_file_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let write = |case: &str, container: &str, change: &dyn Fn(&mut Vec<NamedArray>)| {
        let case = Case::new(case);
        let arrays = case.arrays().into_iter();
        let mut arrays: Vec<NamedArray> = arrays
            .map(|(name, shape)| NamedArray {
                name: format!("{container}{name}"),
                values: vec![0.5; shape.iter().product()],
                shape,
            })
            .collect();
        change(&mut arrays);
        write_safetensors(&path, &arrays, &BTreeMap::new()).unwrap();
    };
    let load = |name: &str| {
        let backbone = BackboneConfig::by_name(name).unwrap();
        load_trunk(blank_trunk(&backbone), name, &path)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    // The containers of training scripts, around names that look like containers themselves.
    write("vit-b16", "state_dict.module.", &|_| ());
    assert_eq!(load("vit-b16"), Ok(()));
    // Missing tensors go by the names of the file's own family.
    write("efficientnet-timm", "", &|arrays| {
        arrays.retain(|array| array.name != "blocks.1.0.se.conv_reduce.bias");
        arrays.push(filled("blocks.9.0.conv_pw.weight".to_owned(), vec![2, 2], 1.0));
    });
    let message = load("efficientnet-b0").unwrap_err();
    assert!(
        message.contains("missing: blocks.1.0.se.conv_reduce.bias; not part of it: blocks.9.0.conv_pw.weight."),
        "{message}"
    );
    // The right backbone is named where the file is one's.
    write("googlenet", "", &|_| ());
    let message = load("bn-inception").unwrap_err();
    assert!(
        message.contains("They are those of the backbone `googlenet`."),
        "{message}"
    );
    assert!(
        message.contains("missing: conv1_7x7_s2.weight") && message.contains("not part of it: conv1."),
        "{message}"
    );
    // Positions of another size say which one.
    write("vit-s16", "", &|arrays| {
        let positions = arrays.iter_mut().find(|array| array.name == "pos_embed").unwrap();
        *positions = filled("pos_embed".to_owned(), vec![1, 577, 384], 1.0);
    });
    let message = load("vit-s16").unwrap_err();
    assert!(
        message.contains("pos_embed is [1, 577, 384], expected [1, 197, 384]")
            && message.contains("384 px: set the backbone's `trained-size`"),
        "{message}"
    );
    let larger: BackboneConfig = toml::from_str("vit-s16.trained-size = 384").unwrap();
    assert!(load_trunk(blank_trunk(&larger), "vit-s16", &path).is_ok());
    // Axes of extent 1 do not matter, other shapes do, even with as many numbers.
    write("convnext", "", &|arrays| {
        let scale = arrays
            .iter_mut()
            .find(|array| array.name == "features.1.0.layer_scale")
            .unwrap();
        scale.shape = vec![96];
    });
    assert_eq!(load("convnext-tiny"), Ok(()));
    write("convnext", "", &|arrays| {
        let weight = arrays
            .iter_mut()
            .find(|array| array.name == "features.1.0.block.3.weight")
            .unwrap();
        weight.shape.reverse();
    });
    let message = load("convnext-tiny").unwrap_err();
    assert!(
        message.contains("features.1.0.block.3.weight is [96, 384], expected [384, 96]"),
        "{message}"
    );
    assert!(read_file(&path).is_ok());
}

#[test]
fn options_of_transformers_are_checked() {
    let read = |text: &str| toml::from_str::<ModelConfig>(text).unwrap().validate();
    let refused = |text: &str| read(text).unwrap_err().to_string();
    assert!(
        refused("backbone.vit-s16.trained-size = 100")
            .contains("`trained-size` of the backbone `vit-s16` must be a multiple of 16")
    );
    assert!(refused("pooling = \"gem\"\nbackbone.vit-s16 = {}").contains("nothing to pool"));
    assert!(read("pooling = \"gem\"\nbackbone.vit-s16.output = \"patch-tokens\"").is_ok());
    let size = |name: &str, size: usize| BackboneConfig::by_name(name).unwrap().check_size(size);
    assert!(size("vit-s16", 100).unwrap_err().to_string().contains("multiple of 16"));
    assert!(size("dinov2-s14", 224).is_ok() && size("dinov2-s14", 14).is_err());
    assert!(size("bn-inception", 224).is_ok() && size("bn-inception", 32).is_err());
    assert!(size("resnet18", 33).is_ok());
}
