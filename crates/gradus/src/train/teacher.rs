//! Who orders the members of a class: a network that is not the one being trained.

use std::sync::OnceLock;

use super::average;
use crate::config::{TeacherConfig, TeacherKind, TeacherSpace};
use crate::models::{Embedder, Mode};
use crate::numerics::normalize;
use crate::tensor::{Module, Tensor, TensorData, adaptive_avg_pool2d};

/// Positions along each side of the map that orders members.
const MAP_GRID: usize = 4;

/// Pixels along each side of the thumbnail that orders members.
const THUMBNAIL: usize = 8;

/// Places along each side at which edges are counted, and directions they are told apart by.
const EDGE_GRID: usize = 4;
const EDGE_DIRECTIONS: usize = 8;

/// A network outside autodiff whose similarities give the order.
#[derive(Debug)]
pub struct Teacher {
    network: Embedder,
    space: TeacherSpace,
    moving: Option<f64>,
    /// Blocks up to the map of [`TeacherSpace::MiddleMap`], once the first images told.
    middle_map: OnceLock<usize>,
    /// Mean and deviation the student's images were normalised with, and those this network wants, where they differ.
    renormalise: Option<Renormalise>,
}

/// How to bring images normalised for one network to the normalisation of another.
#[derive(Debug, Clone, Copy)]
pub struct Renormalise {
    factor: [f32; 3],
    offset: [f32; 3],
}

impl Renormalise {
    /// From (mean, deviation) of the student to those of the teacher; `None` when they are the same.
    #[must_use]
    pub fn between(student: ([f32; 3], [f32; 3]), teacher: ([f32; 3], [f32; 3])) -> Option<Self> {
        if student == teacher {
            return None;
        }
        let mut this = Self {
            factor: [1.0; 3],
            offset: [0.0; 3],
        };
        for channel in 0..3 {
            this.factor[channel] = student.1[channel] / teacher.1[channel];
            this.offset[channel] = (student.0[channel] - teacher.0[channel]) / teacher.1[channel];
        }
        Some(this)
    }
}

impl Teacher {
    /// A teacher with the given weights.
    #[must_use]
    pub fn new(network: &Embedder, config: &TeacherConfig, renormalise: Option<Renormalise>) -> Self {
        let space = match (config.kind, config.space) {
            // Another network has no trained head: its features are what it knows.
            (TeacherKind::Network, TeacherSpace::Embedding) => TeacherSpace::Features,
            (_, space) => space,
        };
        let moving = (config.kind == TeacherKind::MovingAverage).then_some(config.momentum.0);
        Self {
            network: network.valid(),
            space,
            moving,
            middle_map: OnceLock::new(),
            renormalise,
        }
    }

    /// The network, for checkpoints.
    #[must_use]
    pub fn network(&self) -> &Embedder {
        &self.network
    }

    /// Whether it changes during training and so belongs into every checkpoint.
    #[must_use]
    pub fn moves(&self) -> bool {
        self.moving.is_some()
    }

    /// The rows `[batch, width]` that order images `[batch, 3, height, width]`.
    #[must_use]
    pub fn see(&self, images: Tensor<4>) -> Tensor<2> {
        let images = images.without_autodiff();
        if self.space == TeacherSpace::Thumbnail {
            return thumbnails(images);
        }
        let images = match self.renormalise {
            Some(Renormalise { factor, offset }) => {
                let device = images.device();
                let factor = Tensor::<4>::from_data(TensorData::new(factor.to_vec(), [1, 3, 1, 1]), &device);
                let offset = Tensor::<4>::from_data(TensorData::new(offset.to_vec(), [1, 3, 1, 1]), &device);
                images * factor + offset
            }
            None => images,
        };
        // What all images share would make every pair look alike.
        let centred = |rows: Tensor<2>| rows.clone() - rows.mean_dim(0);
        match self.space {
            TeacherSpace::Map => return centred(self.network.spatial_features(images, MAP_GRID)),
            TeacherSpace::Middle => return centred(normalize(self.network.middle_features(images))),
            TeacherSpace::MiddleMap => {
                let blocks = *self
                    .middle_map
                    .get_or_init(|| self.network.last_stage_but_one(images.clone().narrow(0, 0, 1)));
                let map = self.network.spatial_features_between(images, blocks, MAP_GRID);
                return centred(normalize(map));
            }
            TeacherSpace::Embedding | TeacherSpace::Features | TeacherSpace::Thumbnail => {}
        }
        self.judge(self.network.features(images, Mode::Evaluate))
    }

    /// The rows that order pooled features `[batch, width]` (a frozen trunk's, computed once).
    #[must_use]
    pub fn judge(&self, features: Tensor<2>) -> Tensor<2> {
        let features = features.without_autodiff();
        match self.space {
            TeacherSpace::Embedding => self.network.head(features),
            TeacherSpace::Features
            | TeacherSpace::Map
            | TeacherSpace::Middle
            | TeacherSpace::MiddleMap
            | TeacherSpace::Thumbnail => features,
        }
    }

    /// Follows the student by one step, if this teacher is a moving average.
    #[must_use]
    pub fn follow(self, student: &Embedder) -> Self {
        match self.moving {
            Some(decay) => Self {
                network: average::update(self.network, student, decay, |path| student.is_frozen(path)),
                ..self
            },
            None => self,
        }
    }
}

/// What images look like without any network, in two halves of equal weight: colours (8 x 8 pixels, each channel without its
/// mean over the image: what is bright where, not how bright) and edges (their strength in 8 directions at 4 x 4 places,
/// without what all images of the batch share).
///
/// # Shapes
/// `[batch, 3, height, width]` → `[batch, 320]` (fewer where images are smaller).
fn thumbnails(images: Tensor<4>) -> Tensor<2> {
    Tensor::cat(vec![normalize(colours(images.clone())), normalize(edges(images))], 1)
}

/// `[batch, 3, height, width]` → `[batch, 192]`.
fn colours(images: Tensor<4>) -> Tensor<2> {
    let [batch, channels, height, width] = images.dims();
    let small = adaptive_avg_pool2d(images, [height.min(THUMBNAIL), width.min(THUMBNAIL)]);
    let pixels: Tensor<3> = small.flatten(2, 3);
    let mean = pixels.clone().mean_dim(2);
    let [_, _, positions] = pixels.dims();
    (pixels - mean).reshape([batch, channels * positions])
}

/// `[batch, 3, height, width]` → `[batch, 128]`.
fn edges(images: Tensor<4>) -> Tensor<2> {
    let [batch, _, height, width] = images.dims();
    let grey: Tensor<4> = images.mean_dim(1); // [batch, 1, height, width]
    let window = |top: usize, left: usize| {
        let (rows, columns) = (height.saturating_sub(2), width.saturating_sub(2));
        grey.clone()
            .slice([0..batch, 0..1, top..top + rows, left..left + columns])
    };
    if height < 3 || width < 3 {
        return Tensor::zeros([batch, 1], &grey.device());
    }
    let (across, down) = (window(1, 2) - window(1, 0), window(2, 1) - window(0, 1));
    let directions = (0..EDGE_DIRECTIONS).map(|direction| {
        let angle = std::f64::consts::TAU * direction as f64 / EDGE_DIRECTIONS as f64;
        let slope = across.clone().mul_scalar(angle.cos()) + down.clone().mul_scalar(angle.sin());
        slope.clamp_min(0.0)
    });
    let strength = Tensor::cat(directions.collect(), 1); // [batch, 8, height - 2, width - 2]
    let places = adaptive_avg_pool2d(strength, [(height - 2).min(EDGE_GRID), (width - 2).min(EDGE_GRID)]);
    // The root keeps one strong edge from hiding all others.
    let rows: Tensor<2> = places.sqrt().flatten(1, 3);
    rows.clone() - rows.mean_dim(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::{BackboneConfig, ModelConfig};
    use crate::tensor::Device;

    /// `[2, 3, edge, edge]`, no pixel like another.
    fn two_images(edge: usize, device: &Device) -> Tensor<4> {
        let values: Vec<f32> = (0..2 * 3 * edge * edge)
            .map(|at| ((at * at + 7 * at) % 101) as f32 / 50.0 - 1.0)
            .collect();
        Tensor::from_data(TensorData::new(values, [2, 3, edge, edge]), device)
    }

    #[test]
    fn the_middle_is_an_average_over_places_three_quarters_up_without_what_all_share() {
        let device = Device::default();
        let config = TeacherConfig {
            space: TeacherSpace::Middle,
            ..TeacherConfig::default()
        };
        // Blocks run, and where the channels of what comes out of them lie.
        for (backbone, blocks, width, channels_last) in [("conv4", 3, 64, false), ("vit-s16", 10, 384, true)] {
            let model = ModelConfig {
                backbone: BackboneConfig::by_name(backbone).unwrap(),
                ..ModelConfig::default()
            };
            let network = model.init(1, &device).unwrap();
            let images = two_images(32, &device);
            let rows = Teacher::new(&network, &config, None).see(images.clone());
            assert_eq!(rows.dims(), [2, width]);
            let rows = rows.try_into_vec_as::<f32>().unwrap();

            let between = network.trunk().unwrap().forward(images, 0..blocks, Mode::Evaluate);
            let between: Vec<f32> = between.try_into_vec_as::<f32>().unwrap();
            let places = between.len() / 2 / width;
            let average = |image: usize| -> Vec<f64> {
                let map = &between[image * width * places..][..width * places];
                let value = |channel: usize, place: usize| match channels_last {
                    true => map[place * width + channel],
                    false => map[channel * places + place],
                };
                let sum = |channel| (0..places).map(|place| f64::from(value(channel, place))).sum::<f64>();
                let sums: Vec<f64> = (0..width).map(sum).collect();
                let norm = sums.iter().map(|sum| sum * sum).sum::<f64>().sqrt();
                sums.iter().map(|sum| sum / norm).collect()
            };
            let (first, second) = (average(0), average(1));
            let mut largest = 0.0_f64;
            for channel in 0..width {
                let half = (first[channel] - second[channel]) / 2.0;
                let (found, other) = (f64::from(rows[channel]), f64::from(rows[width + channel]));
                assert!(
                    (found - half).abs() < 1e-5 && (other + half).abs() < 1e-5,
                    "{backbone}, channel {channel}"
                );
                largest = largest.max(half.abs());
            }
            assert!(largest > 1e-3, "{backbone} cannot tell the images apart: {largest}");
        }
    }

    #[test]
    fn the_map_of_the_last_stage_but_one_says_what_is_where() {
        let device = Device::default();
        let config = TeacherConfig {
            space: TeacherSpace::MiddleMap,
            ..TeacherConfig::default()
        };
        // Blocks run, places at the start that are none (the class token), and where the channels of what comes out of them lie.
        for (backbone, blocks, width, skipped, channels_last) in
            [("conv4", 3, 64, 0, false), ("vit-s16", 10, 384, 1, true)]
        {
            let model = ModelConfig {
                backbone: BackboneConfig::by_name(backbone).unwrap(),
                ..ModelConfig::default()
            };
            let network = model.init(1, &device).unwrap();
            let images = two_images(32, &device);
            let teacher = Teacher::new(&network, &config, None);
            let rows = teacher.see(images.clone());
            let again = teacher.see(images.clone()).try_into_vec_as::<f32>().unwrap();

            let between = network.trunk().unwrap().forward(images, 0..blocks, Mode::Evaluate);
            let between: Vec<f32> = between.try_into_vec_as::<f32>().unwrap();
            let all = between.len() / 2 / width;
            let places = all - skipped;
            assert_eq!(rows.dims(), [2, width * places]);
            let rows = rows.try_into_vec_as::<f32>().unwrap();
            assert_eq!(rows, again);
            let map = |image: usize| -> Vec<f64> {
                let map = &between[image * width * all..][..width * all];
                let values = (0..width * places).map(|at| {
                    let (channel, place) = (at / places, at % places + skipped);
                    f64::from(match channels_last {
                        true => map[place * width + channel],
                        false => map[channel * all + place],
                    })
                });
                let values: Vec<f64> = values.collect();
                let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
                values.iter().map(|value| value / norm).collect()
            };
            let (first, second) = (map(0), map(1));
            let mut largest = 0.0_f64;
            for at in 0..width * places {
                let half = (first[at] - second[at]) / 2.0;
                assert!(
                    (f64::from(rows[at]) - half).abs() < 1e-5,
                    "{backbone}, number {at}: {} {half}",
                    rows[at]
                );
                largest = largest.max(half.abs());
            }
            assert!(largest > 1e-3, "{backbone} cannot tell the images apart: {largest}");
        }
        // 14 of 19 blocks of MobileNetV2 halve the image four times, whether the sides divide or not.
        let model = ModelConfig {
            backbone: BackboneConfig::by_name("mobilenet-v2").unwrap(),
            ..ModelConfig::default()
        };
        let network = model.init(1, &device).unwrap();
        for side in [48, 64, 96, 112] {
            assert_eq!(network.last_stage_but_one(two_images(side, &device)), 14, "{side} px");
        }
    }

    #[test]
    fn colours_average_and_forget_how_bright_an_image_is() {
        let device = Device::default();
        let edge = 16;
        let image: Vec<f32> = (0..3 * edge * edge).map(|value| (value % 37) as f32).collect();
        let brighter: Vec<f32> = image.iter().map(|value| value + 5.0).collect();
        let both = [image.clone(), brighter].concat();
        let rows = colours(Tensor::from_data(TensorData::new(both, [2, 3, edge, edge]), &device));
        assert_eq!(rows.dims(), [2, 3 * THUMBNAIL * THUMBNAIL]);
        let rows = rows.try_into_vec_as::<f32>().unwrap();
        let (first, second) = rows.split_at(192);
        let pixel = |channel: usize, y: usize, x: usize| image[channel * edge * edge + y * edge + x];
        for channel in 0..3 {
            let mean = (0..edge * edge)
                .map(|at| pixel(channel, at / edge, at % edge))
                .sum::<f32>()
                / 256.0;
            for place in 0..64 {
                let (y, x) = (place / 8 * 2, place % 8 * 2);
                let block = pixel(channel, y, x)
                    + pixel(channel, y, x + 1)
                    + pixel(channel, y + 1, x)
                    + pixel(channel, y + 1, x + 1);
                let found = first[channel * 64 + place];
                assert!(
                    (found - (block / 4.0 - mean)).abs() < 1e-4,
                    "{channel} {place}: {found}"
                );
            }
        }
        assert!(first.iter().zip(second).all(|(a, b)| (a - b).abs() < 1e-4));
    }

    #[test]
    fn edges_tell_directions_apart() {
        let device = Device::default();
        let edge = 16;
        // Brighter to the right, and brighter downwards: the only difference is the direction.
        let ramp = |along: fn(usize) -> usize| (0..3 * edge * edge).map(move |at| along(at % (edge * edge)) as f32);
        let images: Vec<f32> = ramp(|at| at % 16).chain(ramp(|at| at / 16)).collect();
        let rows = edges(Tensor::from_data(
            TensorData::new(images.clone(), [2, 3, edge, edge]),
            &device,
        ));
        assert_eq!(rows.dims(), [2, EDGE_DIRECTIONS * EDGE_GRID * EDGE_GRID]);
        let rows = rows.try_into_vec_as::<f32>().unwrap();
        for direction in 0..EDGE_DIRECTIONS {
            let angle = std::f32::consts::TAU * direction as f32 / 8.0;
            let strength = |slope: f32| (2.0 * slope).max(0.0).sqrt();
            let half = (strength(angle.cos()) - strength(angle.sin())) / 2.0;
            for place in 0..16 {
                let (right, down) = (rows[direction * 16 + place], rows[128 + direction * 16 + place]);
                assert!(
                    (right - half).abs() < 1e-3 && (down + half).abs() < 1e-3,
                    "{direction}: {right} {down} {half}"
                );
            }
        }
        let both = thumbnails(Tensor::from_data(TensorData::new(images, [2, 3, edge, edge]), &device));
        assert_eq!(both.dims(), [2, 320]);
        let plain = thumbnails(Tensor::zeros([2, 3, 2, 2], &device))
            .try_into_vec_as::<f32>()
            .unwrap();
        assert!(plain.iter().all(|value| *value == 0.0));
    }
}
