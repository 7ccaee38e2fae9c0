//! Every network as an ONNX model, run in pure Rust, against the network itself.

#![allow(clippy::unwrap_used)]

use gradus::models::{BACKBONES, BackboneConfig, Embedder, HeadConfig, Mode, ModelConfig, Pooling};
use gradus::tensor::{Device, Tensor, TensorData};
use gradus_onnx::{Batch, Graph, OnnxModel, Preprocessing, calibrate};
use image::RgbImage;

/// Pictures with edges and shades, the same everywhere.
fn pictures(count: usize, size: usize) -> Vec<RgbImage> {
    (0..count as u32)
        .map(|number| {
            RgbImage::from_fn(size as u32, size as u32, |x, y| {
                let wave = |a: u32, b: u32| ((x * a + y * b + number * 37) % 256) as u8;
                image::Rgb([
                    wave(3, 1),
                    wave(1, 5 + number),
                    if x * 2 > y + 5 * number { 200 } else { 30 },
                ])
            })
        })
        .collect()
}

fn tensor(pictures: &[RgbImage]) -> Tensor<4> {
    let size = pictures[0].width() as usize;
    let mut numbers = Vec::new();
    for picture in pictures {
        Preprocessing::plain().numbers(picture, &mut numbers);
    }
    Tensor::from_data(
        TensorData::new(numbers, [pictures.len(), 3, size, size]),
        &Device::default(),
    )
}

/// A network whose running statistics are no longer those of the start.
fn network(config: &ModelConfig, size: usize) -> Embedder {
    let network = config.init(5, &Device::default()).unwrap();
    // Running statistics move a tenth of the way each time; before they arrive, deep networks see no difference between pictures.
    let pictures = tensor(&pictures(4, size));
    for pass in 1..=200 {
        let _ = network.forward(pictures.clone(), Mode::Train);
        if pass % 10 == 0 {
            let embeddings = network
                .forward(pictures.clone(), Mode::Evaluate)
                .try_into_vec_as::<f32>()
                .unwrap();
            if largest_difference(&embeddings[..config.width], &embeddings[config.width..2 * config.width]) > 1e-3 {
                break;
            }
        }
    }
    network
}

fn graph_of(network: &Embedder, size: usize, opset: i64) -> Graph {
    let mut graph = Graph::new(opset);
    let images = graph.input("images", &[3, size, size]);
    let embeddings = network.graph(&mut graph, images);
    graph.output("embeddings", &embeddings);
    graph
}

/// Embeddings of a graph, and the bytes of its file.
fn run(graph: &Graph, pictures: &[RgbImage]) -> (Vec<f32>, usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let bytes = graph.encode(Batch::Dynamic, &[]).unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let model = OnnxModel::open(&path, None).unwrap();
    (
        model.embed_images(pictures, &Preprocessing::plain()).unwrap().0,
        bytes.len(),
    )
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

fn agrees(config: &ModelConfig, size: usize, opset: i64) {
    let network = network(config, size);
    let pictures = pictures(3, size);
    let expected = network
        .forward(tensor(&pictures), Mode::Evaluate)
        .try_into_vec_as::<f32>()
        .unwrap();
    let (found, _) = run(&graph_of(&network, size, opset), &pictures);
    let difference = largest_difference(&expected, &found);
    assert!(
        difference < 2e-5,
        "{:?} at {size} pixels: {difference}",
        config.backbone
    );
    // Rows that are all alike would agree whatever the network does.
    let (first, second) = (&expected[..config.width], &expected[config.width..2 * config.width]);
    let told_apart = largest_difference(first, second);
    assert!(
        told_apart > 10.0 * difference,
        "{:?} sees no difference: {told_apart}",
        config.backbone
    );
}

fn small(backbone: BackboneConfig) -> ModelConfig {
    ModelConfig {
        backbone,
        width: 64,
        ..ModelConfig::default()
    }
}

#[test]
fn every_backbone_computes_the_same() {
    for info in BACKBONES {
        agrees(
            &small(BackboneConfig::by_name(info.name).unwrap()),
            info.minimum_size.max(64).next_multiple_of(info.size_step),
            17,
        );
    }
}

#[test]
fn odd_sizes_and_the_padding_of_tensorflow_are_kept() {
    let tensorflow: BackboneConfig =
        toml::from_str::<toml::Table>("mobilenet-v2 = { padding = \"tensorflow\", width-multiplier = 0.35 }")
            .unwrap()
            .try_into()
            .unwrap();
    let nine: BackboneConfig = toml::from_str::<toml::Table>("conv4 = { channels = 9 }")
        .unwrap()
        .try_into()
        .unwrap();
    agrees(&small(nine), 33, 17);
    for size in [63, 70, 97] {
        agrees(&small(tensorflow.clone()), size, 17);
        agrees(&small(BackboneConfig::by_name("squeezenet1.1").unwrap()), size, 17);
        agrees(&small(BackboneConfig::by_name("resnet20-cifar").unwrap()), size, 17);
    }
}

#[test]
fn every_pooling_head_and_set_of_operators_computes_the_same() {
    let conv4 = small(BackboneConfig::by_name("conv4").unwrap());
    for pooling in [
        Pooling::Average,
        Pooling::Max,
        Pooling::Sum,
        Pooling::Gem,
        Pooling::Grid,
    ] {
        // 40 pixels leave a map of 2 x 2, 100 one of 6 x 6, for the grid's overlapping places.
        for size in [40, 100] {
            agrees(
                &ModelConfig {
                    pooling,
                    ..conv4.clone()
                },
                size,
                17,
            );
        }
    }
    for head in [
        HeadConfig::Linear,
        HeadConfig::Mlp { hidden: 24 },
        HeadConfig::Residual { hidden: 24 },
    ] {
        for normalise_features in [false, true] {
            let config = ModelConfig {
                head,
                normalise_features,
                ..conv4.clone()
            };
            agrees(&config, 32, 17);
        }
    }
    for opset in Graph::OLDEST_OPSET..=Graph::NEWEST_OPSET {
        agrees(&conv4, 32, opset);
    }
}

#[test]
fn half_precision_halves_the_file_and_hardly_moves_embeddings() {
    let network = network(&small(BackboneConfig::by_name("convnet").unwrap()), 48);
    let pictures = pictures(3, 48);
    let graph = graph_of(&network, 48, 17);
    let (whole, bytes) = run(&graph, &pictures);
    let (halved, half_bytes) = run(&graph.with_half_weights(), &pictures);
    let difference = largest_difference(&whole, &halved);
    assert!(difference > 0.0 && difference < 2e-3, "{difference}");
    assert!(half_bytes * 100 < bytes * 52, "{half_bytes} of {bytes}");
}

#[test]
fn eight_bits_quarter_the_file_and_keep_directions() {
    for name in ["convnet", "resnet20-cifar", "squeezenet1.1", "mobilenet-v2"] {
        let config = small(BackboneConfig::by_name(name).unwrap());
        let network = network(&config, 64);
        let graph = graph_of(&network, 64, 17);
        let seen = pictures(4, 64);
        let mut numbers = Vec::new();
        for picture in &seen {
            Preprocessing::plain().numbers(picture, &mut numbers);
        }
        let calibration = calibrate(&graph, [Ok((numbers, vec![4, 3, 64, 64]))]).unwrap();
        assert_eq!(calibration.len(), graph.activations().len());
        let (whole, bytes) = run(&graph, &seen);
        let (eight, eight_bytes) = run(&graph.quantised(&calibration), &seen);
        for (a, b) in whole.chunks_exact(64).zip(eight.chunks_exact(64)) {
            let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
            assert!(cosine > 0.95 && cosine < 1.0, "{name}: {cosine}");
        }
        assert!(eight_bytes * 2 < bytes, "{name}: {eight_bytes} of {bytes}");
    }
}
