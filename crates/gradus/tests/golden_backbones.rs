//! Backbones against the golden features of reference implementations, parameter counts and training behaviour.
//!
//! Files of pretrained weights are not part of the repository: tests that need them look in `GRADUS_SHARED`, else in
//! `../shared` beside the workspace, and say so when they find nothing.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use gradus::models::backbones::conv4::Conv4Config;
use gradus::models::backbones::mobilenet_v2::{MobilenetV2Config, Padding};
use gradus::models::backbones::resnet::ResnetConfig;
use gradus::models::{
    BACKBONES, BackboneConfig, Convolution, Embedder, HeadConfig, IMAGENET_NORMALISATION, Mode, ModelConfig, Pooling,
    convolutions, read_info,
};
use gradus::state::{
    ModulePath, NamedArray, load_named_arrays, named_arrays, named_shapes, read_safetensors, write_safetensors,
};
use gradus::tensor::{Device, Gradients, Module, ModuleVisitor, Param, Tensor, TensorData};
use gradus::train::gradient::ParameterGradients;
use gradus::train::optimizer::{Clipping, Optimizer, UpdateRule};
use gradus_kernels::{Implementation, set_implementation};

/// The implementation of the kernels is one for the process: tests that compute take turns.
fn with_implementation(implementation: Implementation) -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    set_implementation(implementation);
    turn
}

fn pretrained(file: &str) -> Option<PathBuf> {
    let shared = std::env::var_os("GRADUS_SHARED").map_or_else(
        || Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared")).to_owned(),
        PathBuf::from,
    );
    let path = shared.join("data/pretrained").join(file);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is absent", path.display());
    None
}

fn mobilenet(width_multiplier: f64, padding: Padding) -> BackboneConfig {
    BackboneConfig::MobilenetV2(MobilenetV2Config {
        width_multiplier,
        padding,
    })
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as::<f32>().unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// Checks a file of weights against its golden features, in both implementations of the kernels.
fn reproduces(name: &str, backbone: BackboneConfig, features: &str) {
    let (Some(weights), Some(golden)) = (
        pretrained(&format!("{name}.safetensors")),
        pretrained(&format!("{name}.golden.safetensors")),
    ) else {
        return;
    };
    let (golden, _) = read_safetensors(&golden).unwrap();
    let array = |name: &str| golden.iter().find(|array| array.name == name).unwrap();
    let device = Device::default();
    let config = ModelConfig {
        backbone,
        weights: Some(weights),
        // The golden numbers are the pooled features as they are.
        normalise_features: false,
        ..ModelConfig::default()
    };
    let network = config.init(1, &device).unwrap();
    let shape: [usize; 4] = array("input").shape.clone().try_into().unwrap();
    let images = Tensor::<4>::from_data(TensorData::new(array("input").values.clone(), shape), &device);
    for implementation in [Implementation::Own, Implementation::Stock] {
        let _turn = with_implementation(implementation);
        let found = host(network.features(images.clone(), Mode::Evaluate));
        let difference = largest_difference(&found, &array(features).values);
        println!("{name}, {features}, {implementation:?}: largest difference {difference:.1e}");
        assert!(
            difference < 1e-3,
            "{name}, {features}, {implementation:?}: {difference}"
        );
    }
}

#[test]
fn mobilenet_v2_is_reproduced() {
    for (width, name) in [(1.0, "mobilenet_v2_1.0_imagenet"), (0.35, "mobilenet_v2_0.35_imagenet")] {
        reproduces(name, mobilenet(width, Padding::Torchvision), "features");
        reproduces(name, mobilenet(width, Padding::Tensorflow), "features_tf_padding");
    }
}

#[test]
fn squeezenet_is_reproduced() {
    reproduces(
        "squeezenet1_1_imagenet",
        BackboneConfig::by_name("squeezenet1.1").unwrap(),
        "features",
    );
}

#[test]
fn resnet18_up_to_its_third_stage_is_reproduced() {
    reproduces(
        "resnet18_layer1-3_imagenet",
        BackboneConfig::Resnet18(ResnetConfig { stages: 3 }),
        "features",
    );
}

/// Parameters of the trunk without running statistics.
fn trunk_parameters(network: &Embedder) -> usize {
    named_shapes(network)
        .iter()
        .filter(|(name, _)| name.starts_with("trunk.") && !name.contains(".running_"))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum()
}

#[test]
fn parameter_counts_are_the_published_ones() {
    // The published totals less the classifiers of 1000 (for CIFAR 10) classes.
    let classifier = |features: usize| features * 1000 + 1000;
    for (name, parameters) in [
        ("resnet18", 11_689_512 - classifier(512)),
        ("resnet34", 21_797_672 - classifier(512)),
        ("resnet50", 25_557_032 - classifier(2048)),
        ("resnet101", 44_549_160 - classifier(2048)),
        ("mobilenet-v2", 3_504_872 - classifier(1280)),
        ("efficientnet-b0", 5_288_548 - classifier(1280)),
        ("convnext-tiny", 28_589_128 - classifier(768)),
        ("vit-b16", 86_567_656 - classifier(768)),
        // timm's DeiT-S, less its classifier; its ViT-S/14 of DINOv2 has none.
        ("vit-s16", 22_050_664 - classifier(384)),
        ("dinov2-s14", 22_056_192),
        ("googlenet", 6_624_904 - classifier(1024)),
        // pretrained-models.pytorch's BNInception.
        ("bn-inception", 11_295_240 - classifier(1024)),
        ("squeezenet1.1", 1_235_496 - classifier(512)),
        ("resnet20-cifar", 269_722 - 650),
        ("conv4", 64 * 27 + 3 * 64 * 576 + 4 * 128),
        (
            "convnet",
            9 * (3 * 32 + 32 * 64 + 64 * 128 + 128 * 256) + 2 * (32 + 64 + 128 + 256),
        ),
    ] {
        let backbone = BackboneConfig::by_name(name).unwrap();
        let network = ModelConfig {
            backbone,
            ..ModelConfig::default()
        }
        .init(1, &Device::default())
        .unwrap();
        assert_eq!(trunk_parameters(&network), parameters, "{name}");
    }
}

#[test]
fn multiply_adds_are_the_published_ones() {
    let _turn = with_implementation(Implementation::Own);
    // torchvision's tables, in billions, classifiers of 1000 classes included; convnet by hand.
    let convnet = 64 * 64 * 9 * (3 * 32 + 32 * 64 / 4 + 64 * 128 / 16 + 128 * 256 / 64);
    for (name, size, classifier, published) in [
        ("resnet18", 224, 512_000, 1.814e9),
        ("resnet50", 224, 2_048_000, 4.089e9),
        ("mobilenet-v2", 224, 1_280_000, 0.301e9),
        ("resnet101", 224, 2_048_000, 7.801e9),
        ("efficientnet-b0", 224, 1_280_000, 0.386e9),
        ("googlenet", 224, 1_024_000, 1.498e9),
        ("convnext-tiny", 224, 768_000, 4.456e9),
        ("convnet", 64, 0, f64::from(convnet)),
    ] {
        let config = ModelConfig {
            backbone: BackboneConfig::by_name(name).unwrap(),
            ..ModelConfig::default()
        };
        let network = config.init(1, &Device::default()).unwrap();
        let layers = convolutions(&network, size);
        let counted: u64 = layers.iter().map(Convolution::multiply_adds).sum::<u64>() + classifier;
        assert!((counted as f64 / published - 1.0).abs() < 2e-3, "{name}: {counted}");
        assert_eq!((layers[0].input, layers[0].size), (3, [size; 2]), "{name}");
        // Who does not ask is told nothing, and asking twice gives the same.
        assert_eq!(convolutions(&network, size), layers, "{name}");
    }
}

#[test]
fn fixed_scales_have_no_gradient_and_stay() {
    let _turn = with_implementation(Implementation::Own);
    let device = Device::default().autodiff();
    let config = ModelConfig {
        backbone: BackboneConfig::by_name("resnet20-cifar").unwrap(),
        freeze_batch_norm: true,
        ..ModelConfig::default()
    };
    let scales = |path: &str| path.contains("bn1.") || path.contains("bn2.");
    let gradients = |network: &Embedder| {
        let images = Tensor::<4>::ones([2, 3, 16, 16], &device);
        let embeddings = network.forward(images, Mode::Train);
        let mut gradients = embeddings.powf_scalar(3.0).sum().backward();
        ParameterGradients::collect(network, &mut gradients)
    };
    let trained = config.init(3, &device).unwrap();
    assert!(gradients(&trained).squared_norm(&scales).is_some());

    let fixed = trained.with_fixed_scales();
    let before = named_arrays(&fixed);
    let found = gradients(&fixed);
    assert!(found.squared_norm(&scales).is_none());
    assert!(found.squared_norm(&|path| path.contains("conv1.weight")).is_some());
    let mut optimizer = Optimizer::new(UpdateRule::default(), Clipping::None);
    let updated = optimizer.step(fixed, found, None, &|_| 0.1);
    for (old, new) in before.iter().zip(named_arrays(&updated)) {
        let stays = scales(&old.name) || old.name.contains("running_");
        assert_eq!(old.values == new.values, stays, "{}", old.name);
    }
    // Nor after an update, which makes leaves of what it has changed.
    assert!(gradients(&updated).squared_norm(&scales).is_none());
}

#[test]
fn the_registry_tells_the_truth() {
    let _turn = with_implementation(Implementation::Own);
    for info in BACKBONES {
        let backbone = BackboneConfig::by_name(info.name).unwrap();
        assert_eq!(backbone.info(), info);
        let network = ModelConfig {
            backbone,
            ..ModelConfig::default()
        }
        .init(1, &Device::default())
        .unwrap();
        assert_eq!(network.feature_width(), info.feature_width, "{}", info.name);
        let images = Tensor::<4>::ones([1, 3, info.minimum_size, info.minimum_size], &Device::default());
        let embeddings = network.forward(images, Mode::Evaluate);
        assert_eq!(embeddings.dims(), [1, 128], "{}", info.name);
        let norm = host(embeddings).iter().map(|value| value * value).sum::<f32>();
        assert!((norm - 1.0).abs() < 1e-4, "{}: {norm}", info.name);
        let frozen = network.with_trainable_blocks(Some(0));
        for (name, _) in named_shapes(&frozen) {
            assert_eq!(
                frozen.is_trainable(&name),
                name.starts_with("head."),
                "{}: {name}",
                info.name
            );
        }
    }
    let message = BackboneConfig::by_name("resnet81").unwrap_err().to_string();
    assert!(
        message.contains("Did you mean `resnet18`") && message.contains("mobilenet-v2"),
        "{message}"
    );
}

#[test]
fn configurations_are_read_and_checked() {
    let read = |text: &str| toml::from_str::<ModelConfig>(text);
    assert_eq!(read("").unwrap(), ModelConfig::default());
    let config = read(
        "width = 512\npooling = \"sum\"\nfreeze-batch-norm = true\ninitial = \"random\"\ntrainable-blocks = 5\n\
         head.mlp.hidden = 256\n[backbone.mobilenet-v2]\nwidth-multiplier = 0.35\npadding = \"tensorflow\"",
    )
    .unwrap();
    assert_eq!(config.backbone, mobilenet(0.35, Padding::Tensorflow));
    assert_eq!(config.head, HeadConfig::Mlp { hidden: 256 });
    assert_eq!(read(&toml::to_string(&config).unwrap()).unwrap(), config);
    for info in BACKBONES {
        let backbone = BackboneConfig::by_name(info.name).unwrap();
        let config = ModelConfig {
            backbone,
            ..ModelConfig::default()
        };
        let text = toml::to_string(&config).unwrap();
        assert!(text.contains(info.name), "{text}");
        assert_eq!(read(&text).unwrap(), config, "{}", info.name);
    }
    assert!(read("widht = 3").unwrap_err().to_string().contains("widht"));
    assert!(read("[backbone.conv4]\nchanels = 3").is_err());
    for (text, named) in [
        ("width = 63", "model.width"),
        ("width = 2049", "model.width"),
        ("head.mlp.hidden = 0", "hidden"),
        ("backbone.resnet18.stages = 5", "stages"),
        ("backbone.conv4.channels = 0", "channels"),
        ("backbone.convnet.channels = 7", "channels"),
        ("backbone.mobilenet-v2.width-multiplier = nan", "width-multiplier"),
        ("freeze-trunk = true\ntrainable-blocks = 2", "trainable-blocks"),
    ] {
        let message = read(text).unwrap().validate().unwrap_err().to_string();
        assert!(message.contains(named), "{text}: {message}");
    }
}

#[test]
fn the_legacy_pytorch_file_is_read() {
    let Some(path) = pretrained("resnet20_cifar10-12fca82f.th") else {
        return;
    };
    let backbone = BackboneConfig::by_name("resnet20-cifar").unwrap();
    let config = ModelConfig {
        backbone,
        weights: Some(path),
        ..ModelConfig::default()
    };
    let network = config.init(1, &Device::default()).unwrap();
    assert_eq!(network.blocks(), 10);
    let _turn = with_implementation(Implementation::Own);
    let features = host(network.features(Tensor::ones([1, 3, 32, 32], &Device::default()), Mode::Evaluate));
    assert!(features.iter().all(|value| value.is_finite() && *value >= 0.0));
    let wrong = ModelConfig {
        backbone: BackboneConfig::by_name("resnet18").unwrap(),
        ..config
    };
    let message = wrong.init(1, &Device::default()).unwrap_err().to_string();
    assert!(
        message.contains("another network") && message.contains("conv1.weight"),
        "{message}"
    );
}

#[test]
fn files_state_their_normalisation() {
    let Some(path) = pretrained("mobilenet_v2_0.35_imagenet.safetensors") else {
        return;
    };
    assert_eq!(read_info(&path).unwrap().normalisation, Some(([0.5; 3], [0.5; 3])));
    let backbone = mobilenet(0.35, Padding::Torchvision);
    let config = ModelConfig {
        backbone,
        weights: Some(path),
        ..ModelConfig::default()
    };
    assert_eq!(
        config.init(1, &Device::default()).unwrap().expected_normalisation(),
        ([0.5; 3], [0.5; 3])
    );
    let Some(path) = pretrained("squeezenet1_1_imagenet.safetensors") else {
        return;
    };
    assert_eq!(read_info(&path).unwrap().normalisation, Some(IMAGENET_NORMALISATION));
}

fn small() -> ModelConfig {
    ModelConfig {
        backbone: BackboneConfig::Conv4(Conv4Config { channels: 8 }),
        width: 64,
        ..ModelConfig::default()
    }
}

fn random_images(batch: usize, size: usize, device: &Device) -> Tensor<4> {
    use gradus_core::random::{Rng, stream};
    let mut draws = stream(5, &[99]);
    let values: Vec<f32> = (0..batch * 3 * size * size)
        .map(|_| draws.random::<f32>() * 2.0 - 1.0)
        .collect();
    Tensor::from_data(TensorData::new(values, [batch, 3, size, size]), device)
}

/// The trunk's arrays as a file of another library would name them.
fn trunk_file(network: &Embedder, rename: impl Fn(&str) -> String) -> Vec<NamedArray> {
    named_arrays(network)
        .into_iter()
        .filter_map(|array| {
            let name = rename(array.name.strip_prefix("trunk.")?);
            Some(NamedArray { name, ..array })
        })
        .collect()
}

#[test]
fn a_file_must_hold_the_network_and_nothing_else() {
    let device = Device::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let config = |stages: usize| ModelConfig {
        backbone: BackboneConfig::Resnet18(ResnetConfig { stages }),
        ..ModelConfig::default()
    };
    let source = config(2).init(1, &device).unwrap();
    let whole = trunk_file(&source, |name| {
        format!(
            "module.{}",
            name.replace("downsample.conv", "downsample.0")
                .replace("downsample.norm", "downsample.1")
        )
    });
    let load = |arrays: &[NamedArray], stages: usize| {
        write_safetensors(&path, arrays, &BTreeMap::new()).unwrap();
        let config = ModelConfig {
            weights: Some(path.clone()),
            ..config(stages)
        };
        config.init(2, &device).map_err(|error| error.to_string())
    };
    let extra = |name: &str| NamedArray {
        name: format!("module.{name}"),
        shape: vec![1],
        values: vec![0.0],
    };

    // A classifier and counters are ignored.
    let mut arrays = whole.clone();
    arrays.extend([extra("fc.weight"), extra("bn1.num_batches_tracked")]);
    let loaded = load(&arrays, 2).unwrap();
    let trunk = |network: &Embedder| trunk_file(network, str::to_owned);
    assert_eq!(trunk(&loaded), trunk(&source));
    // Fewer stages than the file has are a choice, more are another network.
    assert!(load(&whole, 1).is_ok());
    let message = load(&whole, 3).unwrap_err();
    assert!(
        message.contains("missing: layer3.0.conv1.weight") && message.contains("more"),
        "{message}"
    );
    // Whatever else is left over, missing, of another shape or not finite is named.
    let mut arrays = whole.clone();
    arrays.push(extra("attention.weight"));
    assert!(
        load(&arrays, 2)
            .unwrap_err()
            .contains("not part of it: attention.weight")
    );
    let message = load(&whole[1..], 2).unwrap_err();
    assert!(
        message.contains("missing: conv1.weight") && message.contains("`resnet18`"),
        "{message}"
    );
    let mut arrays = whole.clone();
    arrays[1].shape = vec![8, 8];
    assert!(
        load(&arrays, 2)
            .unwrap_err()
            .contains("bn1.weight is [8, 8], expected [64]")
    );
    let mut arrays = whole;
    arrays[0].values[3] = f32::NAN;
    assert!(load(&arrays, 2).unwrap_err().contains("not finite, in conv1.weight"));
    // Half a file, no file, other kinds of files.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let refusal = |path: PathBuf| {
        ModelConfig {
            weights: Some(path),
            ..config(2)
        }
        .init(1, &device)
        .unwrap_err()
        .to_string()
    };
    assert!(refusal(path.clone()).contains("weights.safetensors is not a whole safetensors file"));
    assert!(refusal(folder.path().join("absent.safetensors")).contains("absent.safetensors could not be read"));
    let page = folder.path().join("page.pth");
    std::fs::write(&page, "<html>").unwrap();
    assert!(refusal(page).contains("page.pth could not be read as a PyTorch checkpoint"));
    assert!(refusal(folder.path().join("weights.onnx")).contains(".safetensors, .pth"));
}

#[test]
fn timm_names_are_understood() {
    let device = Device::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("timm.safetensors");
    let config = ModelConfig {
        backbone: mobilenet(0.1, Padding::Torchvision),
        ..ModelConfig::default()
    };
    let source = config.init(1, &device).unwrap();
    // The stages of the paper's table 2, written out here rather than asked of the code under test.
    let stages = [1, 2, 3, 4, 3, 3, 1];
    let timm = |name: &str| -> String {
        let parts: Vec<&str> = name.split('.').collect();
        if parts[0] != "layers" {
            let layer = match (parts[0], parts[1]) {
                ("stem", "conv") => "conv_stem",
                ("stem", _) => "bn1",
                (_, "conv") => "conv_head",
                _ => "bn2",
            };
            return format!("{layer}.{}", parts[2]);
        }
        let (mut repeat, mut stage) = (parts[1].parse::<usize>().unwrap(), 0);
        while repeat >= stages[stage] {
            repeat -= stages[stage];
            stage += 1;
        }
        let table = if stage == 0 {
            [
                ("expand", "", ""),
                ("depthwise", "conv_dw", "bn1"),
                ("project", "conv_pw", "bn2"),
            ]
        } else {
            [
                ("expand", "conv_pw", "bn1"),
                ("depthwise", "conv_dw", "bn2"),
                ("project", "conv_pwl", "bn3"),
            ]
        };
        let (_, conv, norm) = table.into_iter().find(|(part, ..)| *part == parts[2]).unwrap();
        format!(
            "blocks.{stage}.{repeat}.{}.{}",
            if parts[3] == "conv" { conv } else { norm },
            parts[4]
        )
    };
    write_safetensors(&path, &trunk_file(&source, timm), &BTreeMap::new()).unwrap();
    let loaded = ModelConfig {
        weights: Some(path),
        ..config
    }
    .init(2, &device)
    .unwrap();
    let trunk = |network: &Embedder| trunk_file(network, str::to_owned);
    assert_eq!(trunk(&loaded), trunk(&source));
}

#[test]
fn a_network_is_a_function_of_its_seed_and_survives_a_file() {
    let device = Device::default();
    let network = |seed: u64| small().init(seed, &device).unwrap();
    assert_eq!(named_arrays(&network(1)), named_arrays(&network(1)));
    assert_ne!(named_arrays(&network(1)), named_arrays(&network(2)));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &named_arrays(&network(1)), &BTreeMap::new()).unwrap();
    let loaded = load_named_arrays(network(2), &read_safetensors(&path).unwrap().0).unwrap();
    assert_eq!(named_arrays(&loaded), named_arrays(&network(1)));
    // A whole saved network serves as weights for the next one.
    let next = ModelConfig {
        weights: Some(path),
        ..small()
    }
    .init(3, &device)
    .unwrap();
    assert_eq!(named_arrays(&next)[0], named_arrays(&network(1))[0]);
}

/// Gradients by dotted path.
fn gradients_of(network: &Embedder, gradients: &Gradients) -> Vec<(String, Vec<f32>)> {
    struct Reader<'a> {
        path: ModulePath,
        gradients: &'a Gradients,
        found: Vec<(String, Vec<f32>)>,
    }
    impl ModuleVisitor for Reader<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.enter(name, container);
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = param.val().grad(self.gradients) {
                self.found.push((self.path.dotted(), host(gradient)));
            }
        }
    }
    let mut reader = Reader {
        path: ModulePath::default(),
        gradients,
        found: Vec::new(),
    };
    network.visit(&mut reader);
    reader.found
}

/// A loss with a definite gradient for every embedding.
fn loss(network: &Embedder, images: Tensor<4>, mode: Mode) -> Tensor<1> {
    let embeddings = network.forward(images, mode);
    let [batch, dim] = embeddings.dims();
    let weights: Vec<f32> = (0..batch * dim)
        .map(|index| ((index * 37 % 101) as f32 / 50.0) - 1.0)
        .collect();
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [batch, dim]), &embeddings.device().inner());
    (embeddings * weights).sum()
}

#[test]
fn features_are_of_unit_length_unless_told_otherwise() {
    let device = Device::default();
    let _turn = with_implementation(Implementation::Own);
    let images = random_images(3, 32, &device);
    let features = |normalise_features: bool| {
        let config = ModelConfig {
            normalise_features,
            ..small()
        };
        let network = config.init(3, &device).unwrap();
        let features = network.features(images.clone(), Mode::Evaluate);
        let embeddings = network.forward(images.clone(), Mode::Evaluate);
        assert_eq!(host(network.head(features.clone())), host(embeddings));
        host(features)
    };
    let (plain, unit) = (features(false), features(true));
    for (plain, unit) in plain.chunks_exact(8).zip(unit.chunks_exact(8)) {
        let length = plain.iter().map(|value| value * value).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() > 1e-2, "nothing to normalise");
        for (plain, unit) in plain.iter().zip(unit) {
            assert!((plain / length - unit).abs() < 1e-5);
        }
    }
}

#[test]
fn gradients_match_finite_differences() {
    let device = Device::default().autodiff();
    for implementation in [Implementation::Own, Implementation::Stock] {
        let _turn = with_implementation(implementation);
        for (mode, freeze_batch_norm) in [(Mode::Train, false), (Mode::Train, true), (Mode::Evaluate, false)] {
            let config = ModelConfig {
                // Dividing by the length takes out the direction of steepest change: too little is left for single precision.
                normalise_features: false,
                pooling: Pooling::Gem,
                freeze_batch_norm,
                ..small()
            };
            let network = config.init(3, &device).unwrap();
            let images = random_images(6, 32, &device);
            let gradients = gradients_of(&network, &loss(&network, images.clone(), mode).backward());
            let arrays = named_arrays(&network);
            let trainable: Vec<&NamedArray> = arrays
                .iter()
                .filter(|array| network.is_trainable(&array.name))
                .collect();
            assert_eq!(
                gradients.len(),
                trainable.len(),
                "every trainable parameter and nothing else has a gradient"
            );
            for (array, (name, gradient)) in trainable.into_iter().zip(&gradients) {
                assert_eq!(&array.name, name);
                // Along the gradient itself, where the loss changes most.
                let norm = gradient
                    .iter()
                    .map(|value| f64::from(*value).powi(2))
                    .sum::<f64>()
                    .sqrt();
                assert!(norm > 1e-6, "{name}: the gradient vanishes");
                let shifted = |step: f64| {
                    let mut arrays = arrays.clone();
                    let array = arrays.iter_mut().find(|array| &array.name == name).unwrap();
                    for (value, slope) in array.values.iter_mut().zip(gradient) {
                        *value += (step * f64::from(*slope) / norm) as f32;
                    }
                    let moved = load_named_arrays(network.clone(), &arrays).unwrap();
                    f64::from(loss(&moved, images.clone(), mode).into_scalar::<f32>())
                };
                let step = 2e-3;
                let numeric = (shifted(step) - shifted(-step)) / (2.0 * step);
                assert!(
                    (numeric / norm - 1.0).abs() < 0.05,
                    "{implementation:?} {mode:?} {name}: {numeric} {norm}"
                );
            }
        }
    }
}

#[test]
fn training_only_the_last_blocks_changes_nothing_else() {
    let _turn = with_implementation(Implementation::Own);
    let device = Device::default().autodiff();
    let images = random_images(4, 32, &device);
    for backbone in [BackboneConfig::default(), mobilenet(0.1, Padding::Tensorflow)] {
        let full = ModelConfig {
            backbone,
            freeze_batch_norm: true,
            ..small()
        }
        .init(1, &device)
        .unwrap();
        let loss_of = |network: &Embedder| loss(network, images.clone(), Mode::Train);
        let expected = loss_of(&full);
        let all = gradients_of(&full, &expected.backward());
        for trainable in [0, 1, 3] {
            let part = full.clone().with_trainable_blocks(Some(trainable));
            assert_eq!(part.trainable_blocks(), trainable);
            let found = loss_of(&part);
            assert_eq!(host(found.clone()), host(expected.clone()));
            let gradients = gradients_of(&part, &found.backward());
            let kept: Vec<_> = all
                .iter()
                .filter(|(name, _)| part.is_trainable(name))
                .cloned()
                .collect();
            assert!(kept.len() < all.len() && !kept.is_empty());
            assert_eq!(gradients, kept);
        }
        assert!(
            !full
                .with_trainable_blocks(Some(0))
                .features(images.clone(), Mode::Train)
                .is_autodiff()
        );
    }
}

fn running(network: &Embedder) -> Vec<NamedArray> {
    named_arrays(network)
        .into_iter()
        .filter(|array| array.name.contains(".running_"))
        .collect()
}

#[test]
fn running_statistics_move_in_training_only() {
    let _turn = with_implementation(Implementation::Own);
    let device = Device::default().autodiff();
    let images = random_images(4, 32, &device);
    let network = small().init(1, &device).unwrap();
    let before = running(&network);
    let copy = network.clone();
    let _ = network.forward(images.clone(), Mode::Evaluate);
    assert_eq!(running(&network), before);
    let _ = network.forward(images.clone(), Mode::Train);
    let after = running(&network);
    assert!(
        after
            .iter()
            .zip(&before)
            .all(|(after, before)| after.values != before.values)
    );
    assert_eq!(running(&copy), before, "a clone is a copy");
    assert_eq!(running(&network.valid()), after, "an update is seen at once");

    // One channel of the first block against a plain computation of its convolution.
    let arrays = named_arrays(&network);
    let weight = &arrays
        .iter()
        .find(|array| array.name == "trunk.layers.0.conv.weight")
        .unwrap()
        .values;
    let pixels = host(images.clone());
    let (size, channel) = (32_usize, 3_usize);
    let mut outputs = Vec::new();
    for (image, row, column) in
        (0..4).flat_map(|image| (0..size * size).map(move |pixel| (image, pixel / size, pixel % size)))
    {
        let mut sum = 0.0_f64;
        for (input, dy, dx) in (0..27).map(|tap| (tap / 9, tap / 3 % 3, tap % 3)) {
            let (y, x) = (row + dy, column + dx);
            if (1..=size).contains(&y) && (1..=size).contains(&x) {
                let pixel = pixels[((image * 3 + input) * size + y - 1) * size + x - 1];
                sum += f64::from(pixel) * f64::from(weight[((channel * 3 + input) * 3 + dy) * 3 + dx]);
            }
        }
        outputs.push(sum);
    }
    let mean = outputs.iter().sum::<f64>() / outputs.len() as f64;
    let variance = outputs.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (outputs.len() - 1) as f64;
    assert!((f64::from(after[0].values[channel]) - 0.1 * mean).abs() < 1e-5);
    assert!((f64::from(after[1].values[channel]) - (0.9 + 0.1 * variance)).abs() < 1e-5);

    for frozen in [
        ModelConfig {
            freeze_batch_norm: true,
            ..small()
        },
        ModelConfig {
            freeze_trunk: true,
            ..small()
        },
    ] {
        let network = frozen.init(1, &device).unwrap();
        let before = running(&network);
        let _ = network.forward(images.clone(), Mode::Train);
        assert_eq!(running(&network), before);
    }
    // The frozen part keeps its statistics, the trained part moves.
    let network = ModelConfig {
        trainable_blocks: Some(1),
        ..small()
    }
    .init(1, &device)
    .unwrap();
    let before = running(&network);
    let _ = network.forward(images, Mode::Train);
    let moved: Vec<bool> = running(&network)
        .iter()
        .zip(&before)
        .map(|(after, before)| after != before)
        .collect();
    assert_eq!(moved, [false, false, false, false, false, false, true, true]);
}

#[test]
fn one_value_per_channel_leaves_finite_statistics() {
    let _turn = with_implementation(Implementation::Own);
    let device = Device::default().autodiff();
    let network = ModelConfig {
        backbone: mobilenet(0.1, Padding::Torchvision),
        ..small()
    }
    .init(1, &device)
    .unwrap();
    let _ = network.forward(random_images(1, 32, &device), Mode::Train);
    assert!(
        running(&network)
            .iter()
            .all(|array| array.values.iter().all(|value| value.is_finite()))
    );
}

#[test]
fn a_linear_head_is_set_exactly() {
    let _turn = with_implementation(Implementation::Own);
    let device = Device::default().autodiff();
    let network = small().init(1, &device).unwrap();
    let weight: Vec<f32> = (0..64 * 8).map(|index| (index as f32 * 0.7).sin()).collect();
    let bias: Vec<f32> = (0..64).map(|index| index as f32 * 0.01).collect();
    let network = network.set_linear_head(&weight, &bias).unwrap();
    let features = [0.5_f32, -1.0, 2.0, 0.0, 1.0, 3.0, -0.25, 0.75];
    let found = host(network.head(Tensor::from_data(TensorData::new(features.to_vec(), [1, 8]), &device)));
    let raw: Vec<f32> = (0..64)
        .map(|row| features.iter().zip(&weight[row * 8..]).map(|(x, w)| x * w).sum::<f32>() + bias[row])
        .collect();
    let norm = raw.iter().map(|value| value * value).sum::<f32>().sqrt();
    let expected: Vec<f32> = raw.iter().map(|value| value / norm).collect();
    assert!(largest_difference(&found, &expected) < 1e-6);
    let tracked = loss(&network, random_images(2, 16, &device), Mode::Train).backward();
    assert!(
        gradients_of(&network, &tracked)
            .iter()
            .any(|(name, _)| name == "head.weight"),
        "still trained"
    );

    assert!(
        network
            .set_linear_head(&weight[1..], &bias)
            .unwrap_err()
            .to_string()
            .contains("511")
    );
    let mlp = ModelConfig {
        head: HeadConfig::Mlp { hidden: 32 },
        ..small()
    }
    .init(1, &device)
    .unwrap();
    assert_eq!(mlp.dim(), 64);
    assert!(
        mlp.set_linear_head(&weight, &bias)
            .unwrap_err()
            .to_string()
            .contains("MLP")
    );
}

#[test]
fn a_zero_feature_vector_has_finite_gradients() {
    let device = Device::default().autodiff();
    let network = small()
        .init(1, &device)
        .unwrap()
        .set_linear_head(&[0.5; 64 * 8], &[0.0; 64])
        .unwrap();
    let features = Tensor::<2>::zeros([2, 8], &device).require_grad();
    let gradients = network.head(features.clone()).sum().backward();
    assert!(
        host(features.grad(&gradients).unwrap())
            .iter()
            .all(|value| value.is_finite())
    );
}
