//! The generators: `x_i^j = x_i + (intensity j) * (direction u_i^j)`, one file each.
//!
//! A new generator is one file plus its line in [`GeneratorConfig`] and in the two matches below it. No gradient flows into
//! directions, except into learned ones; every direction is drawn on the host from (seed, row), whatever the number of threads.

pub mod class_covariance;
pub mod difference_transfer;
pub mod gaussian;
pub mod image_augmentation;
pub mod learned_directions;
pub mod positive_interpolation;

use serde::{Deserialize, Serialize};

use super::arithmetic::{constant, normalize_last};
use super::statistics::ClassStatistics;
use crate::numerics::normalize;
use crate::tensor::{Tensor, TensorData};

pub use class_covariance::ClassCovarianceConfig;
pub use difference_transfer::DifferenceTransferConfig;
pub use gaussian::GaussianConfig;
pub use image_augmentation::ImageAugmentationConfig;
pub use learned_directions::LearnedDirectionsConfig;
pub use positive_interpolation::{Path, PositiveInterpolationConfig};

/// Names of the random streams of the method, second in the path after the purpose.
pub(super) mod stream_of {
    /// Directions of a row.
    pub(in super::super) const DIRECTIONS: u64 = 1;
    /// Order of the learned directions.
    pub(in super::super) const ORDER: u64 = 2;
    /// Other samples a row is paired with.
    pub(in super::super) const PARTNERS: u64 = 3;
    /// Shuffled intensity labels, the control.
    pub(in super::super) const LABELS: u64 = 4;
    /// Shares of members in mixtures.
    pub(in super::super) const MIXTURES: u64 = 5;
}

/// Which generator; section `[intra-class.generator.NAME]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GeneratorConfig {
    /// A fresh random direction for each sample and level.
    Gaussian(GaussianConfig),
    /// Trainable directions shared by all samples.
    LearnedDirections(LearnedDirectionsConfig),
    /// Directions the class varies along.
    ClassCovariance(ClassCovarianceConfig),
    /// Toward and beyond another member of the class.
    PositiveInterpolation(PositiveInterpolationConfig),
    /// The difference of two members of another class.
    DifferenceTransfer(DifferenceTransferConfig),
    /// The image itself, augmented at graded strengths and embedded again.
    ImageAugmentation(ImageAugmentationConfig),
}

/// What there is to show of a generator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeneratorInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// Where it comes from.
    pub paper: &'static str,
}

/// Every generator, sorted by name.
pub const GENERATORS: &[GeneratorInfo] = &[
    GeneratorInfo {
        name: "class-covariance",
        summary: "along directions the class varies in, in units of its spread",
        paper: "IAA, Fu et al., TMM 2022",
    },
    GeneratorInfo {
        name: "difference-transfer",
        summary: "the difference of two members of another class, rescaled",
        paper: "the idea of the delta-encoder, Schwartz et al., NeurIPS 2018",
    },
    GeneratorInfo {
        name: "gaussian",
        summary: "a fresh random direction for each sample and level",
        paper: "SGAR as described, Liu et al., arXiv 2304.10941, 2023",
    },
    GeneratorInfo {
        name: "image-augmentation",
        summary: "the image itself, augmented at graded strengths and embedded again",
        paper: "SSR, Fu et al., AAAI 2021",
    },
    GeneratorInfo {
        name: "learned-directions",
        summary: "trainable directions shared by all samples",
        paper: "SGAR as released, Liu et al., arXiv 2304.10941, 2023",
    },
    GeneratorInfo {
        name: "positive-interpolation",
        summary: "toward and beyond another member of the class",
        paper: "Embedding Expansion, Ko and Gu, CVPR 2020",
    },
];

impl Default for GeneratorConfig {
    fn default() -> Self {
        Self::Gaussian(GaussianConfig::default())
    }
}

impl GeneratorConfig {
    /// Whether the class of a sample decides what is generated for it.
    #[must_use]
    pub fn needs_labels(&self) -> bool {
        matches!(
            self,
            Self::ClassCovariance(_) | Self::PositiveInterpolation(_) | Self::DifferenceTransfer(_)
        )
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        match self {
            Self::ClassCovariance(config) => config.validate(),
            _ => Ok(()),
        }
    }
}

/// What a generator sees.
#[derive(Debug)]
pub(super) struct Sources<'a> {
    /// The embeddings outside autodiff, `[b, d]`.
    pub(super) embeddings: &'a Tensor<2>,
    pub(super) labels: &'a [u32],
    pub(super) levels: usize,
    pub(super) step: f64,
    pub(super) statistics: Option<&'a ClassStatistics>,
    pub(super) seed: u64,
}

/// What a generator gives: each displacement is `intensity * direction`.
#[derive(Debug)]
pub(super) struct Directions {
    /// `[b, levels, d]`, or `[1, levels, d]` where all samples share them; weakest level first.
    pub(super) direction: Tensor<3>,
    /// `[b, levels, 1]` or `[1, levels, 1]`.
    pub(super) intensity: Tensor<3>,
    /// Rows that something could be generated for; `None` means all.
    pub(super) eligible: Option<Vec<bool>>,
    /// Whether displacements are scaled to norm 1 in the end, which cancels the intensity.
    pub(super) renormalise: bool,
}

impl Sources<'_> {
    /// The intensities `j * step` of levels 1 to N, the same for all rows.
    pub(super) fn even_intensities(&self) -> Tensor<3> {
        let values: Vec<f64> = (1..=self.levels).map(|level| level as f64 * self.step).collect();
        constant(TensorData::new(values, [1, self.levels, 1]), self.embeddings)
    }
}

/// The displacements of all levels.
///
/// With `tangent` the radial part of each direction is taken out and the rest brought back to its former length, so that the
/// intensity stays what it was.
///
/// # Shapes
/// Result `[b or 1, levels, d]`.
pub(super) fn displacements(directions: Directions, embeddings: &Tensor<2>, tangent: bool) -> Tensor<3> {
    let direction = if tangent {
        let radius = normalize(embeddings.clone()).unsqueeze_dim::<3>(1);
        let length = directions
            .direction
            .clone()
            .powi_scalar(2)
            .sum_dim(2)
            .clamp_min(1e-24)
            .sqrt();
        let radial = (directions.direction.clone() * radius.clone()).sum_dim(2) * radius;
        normalize_last(directions.direction - radial) * length
    } else {
        directions.direction
    };
    let displacement = direction * directions.intensity;
    if directions.renormalise {
        normalize_last(displacement)
    } else {
        displacement
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use super::*;
    use crate::tensor::Device;
    use gradus_core::random::{self, Rng};

    /// Unit rows drawn from a seed.
    pub(in super::super) fn unit_rows(rows: usize, dim: usize, seed: u64) -> Tensor<2> {
        let mut stream = random::stream(seed, &[]);
        let values: Vec<f32> = (0..rows * dim)
            .map(|_| stream.sample(rand_distr::StandardNormal))
            .collect();
        normalize(Tensor::from_data(TensorData::new(values, [rows, dim]), &Device::flex()))
    }

    pub(super) fn sources<'a>(embeddings: &'a Tensor<2>, labels: &'a [u32], seed: u64) -> Sources<'a> {
        Sources {
            embeddings,
            labels,
            levels: 5,
            step: 0.3,
            statistics: None,
            seed,
        }
    }

    pub(super) fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
        x.try_into_vec_as::<f64>().unwrap()
    }

    /// Norm of each displacement, `[rows, levels]` flattened.
    pub(super) fn norms(displacements: Tensor<3>) -> Vec<f64> {
        host(displacements.powi_scalar(2).sum_dim(2).sqrt())
    }

    #[test]
    fn tangent_displacements_are_orthogonal_to_the_source_and_keep_their_length() {
        let x = unit_rows(6, 8, 1);
        let labels = [0, 0, 1, 1, 2, 2];
        let input = sources(&x, &labels, 3);
        let free = displacements(gaussian::generate(&input), &x, false);
        let tangent = displacements(gaussian::generate(&input), &x, true);
        let along = |d: Tensor<3>| host((d * x.clone().unsqueeze_dim::<3>(1)).sum_dim(2));
        assert!(along(free.clone()).iter().any(|value| value.abs() > 0.05));
        assert!(along(tangent.clone()).iter().all(|value| value.abs() < 1e-6));
        for (a, b) in norms(free).iter().zip(norms(tangent)) {
            assert!((a - b).abs() < 1e-6);
        }
    }
}
