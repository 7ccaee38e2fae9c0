//! Files of others and hostile files; preprocessing inside a file against the transform of runs.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use gradus_core::data::transform::{Interpolation, Resize as TransformResize, TransformConfig};
use gradus_onnx::{Batch, Graph, OnnxModel, Preprocessing};
use image::RgbImage;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A model that flattens images of 4 x 4 pixels and takes two weighted sums.
fn simple(batch: Batch) -> Vec<u8> {
    let mut graph = Graph::new(17);
    let images = graph.input("images", &[3, 4, 4]);
    let flat = graph.flatten(images);
    let weight: Vec<f32> = (0..96).map(|index| (index % 7) as f32 - 3.0).collect();
    let sums = graph.linear(flat, &weight, Some(&[0.5, -0.5]));
    graph.output("sums", &sums);
    graph.encode(batch, &[("made by", "a test")]).unwrap()
}

fn refused(bytes: &[u8], name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), name, bytes);
    let error = OnnxModel::open(&path, None).unwrap_err().to_string();
    assert!(error.contains(name), "{error}");
    error
}

#[test]
fn files_that_are_no_models_are_refused_in_words() {
    let whole = simple(Batch::Dynamic);
    assert!(refused(b"", "empty.onnx").contains("empty"));
    assert!(refused(b"this is a text about birds\n", "text.onnx").contains("not an ONNX model"));
    assert!(refused(&[0xff; 4096], "ones.onnx").contains("not an ONNX model"));
    assert!(
        OnnxModel::open(Path::new("no/such.onnx"), None)
            .unwrap_err()
            .to_string()
            .contains("no/such.onnx")
    );
    // Cut anywhere, a file is refused or runs; it never brings the program down.
    let folder = tempfile::tempdir().unwrap();
    let mut refused_cuts = 0;
    for length in (1..whole.len()).step_by(11) {
        let path = write(folder.path(), "cut.onnx", &whole[..length]);
        match OnnxModel::open(&path, None) {
            Err(error) => {
                assert!(error.to_string().contains("cut.onnx"));
                refused_cuts += 1;
            }
            Ok(model) => drop(model.embed_images(&[RgbImage::new(4, 4)], &Preprocessing::plain())),
        }
    }
    assert!(refused_cuts > whole.len() / 11 / 2, "{refused_cuts}");
}

#[test]
fn one_vector_for_each_image_whatever_the_batch() {
    let folder = tempfile::tempdir().unwrap();
    let images: Vec<RgbImage> = (0..3)
        .map(|number| RgbImage::from_fn(4, 4, |x, y| image::Rgb([x as u8 * 50, y as u8 * 60, number * 90])))
        .collect();
    let free = OnnxModel::open(&write(folder.path(), "free.onnx", &simple(Batch::Dynamic)), None).unwrap();
    let (expected, width) = free.embed_images(&images, &Preprocessing::plain()).unwrap();
    assert_eq!((width, expected.len(), free.fixed_batch()), (2, 6, None));
    // By hand: the weighted sums of the second image.
    let mut numbers = Vec::new();
    Preprocessing::plain().numbers(&images[1], &mut numbers);
    let sum = |row: usize| -> f32 {
        (0..48)
            .map(|index| ((row * 48 + index) % 7) as f32 * numbers[index] - 3.0 * numbers[index])
            .sum()
    };
    assert!((expected[2] - (sum(0) + 0.5)).abs() < 1e-4 && (expected[3] - (sum(1) - 0.5)).abs() < 1e-4);
    // A file of four takes three as well, and five not.
    let four = OnnxModel::open(&write(folder.path(), "four.onnx", &simple(Batch::Fixed(4))), None).unwrap();
    assert_eq!(four.fixed_batch(), Some(4));
    assert_eq!(four.embed_images(&images, &Preprocessing::plain()).unwrap().0, expected);
    let five = [&images[..], &images[..2]].concat();
    assert!(
        four.embed_images(&five, &Preprocessing::plain())
            .unwrap_err()
            .to_string()
            .contains("4 items")
    );
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = OnnxModel::open(&write(folder.path(), "m.onnx", &simple(Batch::Dynamic)), None).unwrap();
    let error = model
        .embed_images(&[RgbImage::new(5, 4)], &Preprocessing::plain())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("[any, 3, 4, 4]") && error.contains("[1, 3, 4, 5]"),
        "{error}"
    );
    let mixed = [RgbImage::new(4, 4), RgbImage::new(5, 4)];
    let error = model
        .embed_images(&mixed, &Preprocessing::plain())
        .unwrap_err()
        .to_string();
    assert!(error.contains("5 x 4"), "{error}");
    let error = model.embed_vectors(&[0.0; 8], 8).unwrap_err().to_string();
    assert!(error.contains("[1, 8]"), "{error}");
    let error = OnnxModel::open(&folder.path().join("m.onnx"), Some("features"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("`features`") && error.contains("`sums`"), "{error}");
    // An output that is no vector.
    let mut graph = Graph::new(17);
    let images = graph.input("images", &[3, 4, 4]);
    let halved = graph.max_pool(images, 2, 2, [0; 4]);
    graph.output("map", &halved);
    let path = write(folder.path(), "map.onnx", &graph.encode(Batch::Dynamic, &[]).unwrap());
    let model = OnnxModel::open(&path, None).unwrap();
    let error = model
        .embed_images(&[RgbImage::new(4, 4)], &Preprocessing::plain())
        .unwrap_err()
        .to_string();
    assert!(error.contains("`map`") && error.contains("[1, 3, 2, 2]"), "{error}");
}

#[test]
fn preprocessing_inside_is_that_of_runs() {
    let folder = tempfile::tempdir().unwrap();
    for (interpolation, opset) in [
        (Interpolation::Bilinear, 17),
        (Interpolation::Bicubic, 18),
        (Interpolation::Lanczos, 21),
    ] {
        let transform = TransformConfig {
            size: 20,
            resize: TransformResize::Pixels(26),
            interpolation,
            ..TransformConfig::default()
        };
        let mut graph = Graph::new(opset);
        let view = graph.preprocessed_pixels("images", &transform);
        let flat = graph.flatten(view);
        graph.output("numbers", &flat);
        let path = write(
            folder.path(),
            "inside.onnx",
            &graph.encode(Batch::Dynamic, &[]).unwrap(),
        );
        let model = OnnxModel::open(&path, None).unwrap();
        let expected = transform.init().unwrap();
        // Shrunk a lot and a little, tall and wide, and enlarged.
        for (width, height) in [(97, 131), (140, 60), (27, 26), (26, 40), (13, 19)] {
            let image = RgbImage::from_fn(width, height, |x, y| {
                image::Rgb([
                    (x * 7 % 256) as u8,
                    (y * x % 256) as u8,
                    if (x / 5 + y / 3) % 2 == 0 { 250 } else { 5 },
                ])
            });
            let (found, length) = model
                .embed_images(std::slice::from_ref(&image), &Preprocessing::none())
                .unwrap();
            assert_eq!(length, 3 * 20 * 20);
            let expected = expected.evaluate(&image);
            // One level of 255 after division by the least standard deviation; more than a level is another resize.
            let level = 1.0 / 255.0 / 0.224;
            // Enlarged by a whole number, many sums lie at a half, which single precision rounds either way.
            let differing = found
                .iter()
                .zip(&expected)
                .filter(|(a, b)| (*a - *b).abs() > 0.1 * level)
                .count();
            let largest = found
                .iter()
                .zip(&expected)
                .map(|(a, b)| (a - b).abs())
                .fold(0.0, f32::max);
            assert!(
                largest < 1.01 * level,
                "{interpolation:?} {width} x {height}: {largest} of {level}"
            );
            assert!(
                differing * 12 < length,
                "{interpolation:?} {width} x {height}: {differing} of {length}"
            );
        }
    }
}

#[test]
fn a_model_of_pixels_refuses_to_scale_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut graph = Graph::new(17);
    let transform = TransformConfig {
        size: 8,
        ..TransformConfig::default()
    };
    let view = graph.preprocessed_pixels("images", &transform);
    let flat = graph.flatten(view);
    graph.output("numbers", &flat);
    let path = write(folder.path(), "p.onnx", &graph.encode(Batch::Dynamic, &[]).unwrap());
    let model = OnnxModel::open(&path, None).unwrap();
    let error = model
        .embed_images(&[RgbImage::new(9, 9)], &Preprocessing::plain())
        .unwrap_err()
        .to_string();
    assert!(error.contains("eight bits"), "{error}");
}
