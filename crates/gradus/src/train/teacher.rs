//! Who orders the members of a class: a network that is not the one being trained.

use std::sync::OnceLock;

use super::average;
use super::thumbnail::thumbnails;
use crate::config::{TeacherConfig, TeacherKind, TeacherSpace};
use crate::models::{Embedder, Mode};
use crate::numerics::normalize;
use crate::tensor::{Module, Tensor, TensorData};

/// Positions along each side of the map that orders members.
const MAP_GRID: usize = 4;

/// A network outside autodiff whose similarities give the order.
#[derive(Debug)]
pub struct Teacher {
    network: Embedder,
    space: TeacherSpace,
    moving: Option<f64>,
    /// Blocks up to the map of [`TeacherSpace::MiddleMap`], once the first images told.
    middle_map: OnceLock<usize>,
    /// Mean and deviation the student's images were normalised with, and those this teacher wants, where they differ.
    renormalise: Option<Renormalise>,
}

/// Mean and deviation of images whose values go from 0 to 1.
pub const PLAIN: ([f32; 3], [f32; 3]) = ([0.0; 3], [1.0; 3]);

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
            TeacherSpace::Thumbnail => return thumbnails(images),
            TeacherSpace::Map => return centred(self.network.spatial_features(images, MAP_GRID)),
            TeacherSpace::Middle => return centred(normalize(self.network.middle_features(images))),
            TeacherSpace::MiddleMap => {
                let blocks = *self
                    .middle_map
                    .get_or_init(|| self.network.last_stage_but_one(images.clone().narrow(0, 0, 1)));
                let map = self.network.spatial_features_between(images, blocks, MAP_GRID);
                return centred(normalize(map));
            }
            TeacherSpace::Embedding | TeacherSpace::Features => {}
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
}
