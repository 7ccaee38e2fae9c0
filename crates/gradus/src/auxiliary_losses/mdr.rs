//! Multi-level distance regularisation: distances between images are drawn to a few levels.

use serde::{Deserialize, Serialize};

use super::{AuxiliaryInput, AuxiliaryLossConfig, AuxiliaryModule, AuxiliaryShape, refuse, weight};
use crate::distances::{self, DistanceConfig};
use crate::intra_class::arithmetic::constant;
use crate::models::running::RunningStatistic;
use crate::tensor::{Module, Param, Tensor, TensorData};

/// Settings of [`Mdr`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MdrConfig {
    /// Weight beside the base loss. Default 0.1; the authors' are 0.1 to 0.6 by data set.
    pub weight: f64,
    /// Share of the running mean and deviation that a batch leaves in place, at least 0 and below 1. Default 0.9, the
    /// authors'.
    pub momentum: f64,
    /// Where the levels start, in standard deviations of the distances. Default -3, 0, 3, the authors'.
    pub levels: Vec<f64>,
}

impl Default for MdrConfig {
    fn default() -> Self {
        Self {
            weight: 0.1,
            momentum: 0.9,
            levels: vec![-3.0, 0.0, 3.0],
        }
    }
}

impl AuxiliaryLossConfig for MdrConfig {
    type Module = Mdr;
    const SUMMARY: &'static str = "distances between images are drawn to a few learned levels";
    const PAPER: &'static str = "Kim and Park, Multi-level Distance Regularization for Deep Metric Learning, AAAI";
    const YEAR: u16 = 2021;

    fn validate(&self) -> Result<(), String> {
        weight("mdr", self.weight)?;
        if !(0.0..1.0).contains(&self.momentum) {
            return refuse("mdr", "momentum", self.momentum, "a number of at least 0 and below 1");
        }
        if self.levels.is_empty() || self.levels.len() > 100 || self.levels.iter().any(|level| !level.is_finite()) {
            return refuse("mdr", "levels", format!("{:?}", self.levels), "1 to 100 finite numbers");
        }
        Ok(())
    }

    fn init(&self, shape: &AuxiliaryShape<'_>) -> Mdr {
        let levels = TensorData::new(self.levels.clone(), [self.levels.len()]);
        Mdr {
            levels: Param::from_tensor(Tensor::from_data(levels, shape.device)),
            moments: RunningStatistic::new(Tensor::zeros([2], &shape.device.clone().without_autodiff())),
            config: self.clone(),
        }
    }
}

/// Multi-level distance regularisation, MDR (Kim and Park, Multi-level Distance Regularization for Deep Metric
/// Learning, AAAI 2021).
///
/// With Euclidean distances `d` of all pairs of a batch, whatever their classes, standardised by running moments, `d'
/// = (d - mean) / deviation`: `weight * mean over pairs of min over levels |d' - level|`. The levels are trained.
/// Mean and deviation are those of the first batch, then `momentum` of what they were plus the rest of the batch's; a
/// batch counts before it is looked at. They are constants to the gradient, move only in training, and are in the
/// checkpoints.
///
/// The authors train on embeddings that are not normalised, divided by their mean distance. All embeddings here are
/// of unit length, on which standardised distances do not depend otherwise.
///
/// # Shapes
/// Embeddings `[b, d]`. Memory: a few `b x b`.
#[derive(Module, Debug)]
pub struct Mdr {
    levels: Param<Tensor<1>>,
    /// Mean and standard deviation of distances; a deviation of 0 says that there are none yet.
    moments: RunningStatistic,
    #[module(skip)]
    config: MdrConfig,
}

impl Mdr {
    /// The levels, `[levels]`, tracked.
    #[must_use]
    pub fn levels(&self) -> Tensor<1> {
        self.levels.val()
    }

    /// Mean and standard deviation `[2]` of the weighted distances, as they are after this batch.
    fn follow(&self, distances: &Tensor<2>, weights: &Tensor<2>) -> Tensor<1> {
        let known = self.moments.value().cast(distances.dtype());
        if !distances.is_tracked() {
            return known;
        }
        let outside = distances.clone().without_autodiff();
        let mean = (outside.clone() * weights.clone()).sum();
        let centred = outside - mean.clone().reshape([1, 1]);
        let deviation = (centred.square() * weights.clone()).sum().sqrt();
        let observed = Tensor::cat(vec![mean, deviation.clamp_min(1e-6)], 0);
        let none = known.clone().narrow(0, 1, 1).equal_scalar(0.0).expand([2]);
        let kept = known.mul_scalar(self.config.momentum) + observed.clone().mul_scalar(1.0 - self.config.momentum);
        let moments = kept.mask_where(none, observed);
        self.moments.replace(moments.clone().cast(self.moments.value().dtype()));
        moments
    }
}

impl AuxiliaryModule for Mdr {
    fn forward(&self, input: &AuxiliaryInput<'_>) -> Result<Tensor<1>, String> {
        let x = input.embeddings.clone();
        let [rows, _] = x.dims();
        if rows < 2 {
            return Ok(x.sum().mul_scalar(0.0));
        }
        // Every pair once, at the weight that makes the sum a mean.
        let share = 2.0 / (rows * (rows - 1)) as f64;
        let once = (0..rows).flat_map(|a| (0..rows).map(move |b| if a < b { share } else { 0.0 }));
        let weights = constant::<2, 2>(TensorData::new(once.collect::<Vec<f64>>(), [rows, rows]), &x);
        let distances = distances::matrix(&DistanceConfig::EUCLIDEAN, x, None);
        let moments = self.follow(&distances, &weights);
        let number = |at: usize| moments.clone().narrow(0, at, 1).reshape([1, 1]);
        let standardised = (distances - number(0)) / number(1).clamp_min(1e-6);
        let levels = self.levels.val();
        let away = |level: usize| (standardised.clone() - levels.clone().narrow(0, level, 1).reshape([1, 1])).abs();
        let nearest = (1..self.config.levels.len()).fold(away(0), |least, level| least.min_pair(away(level)));
        Ok((nearest * weights).sum().mul_scalar(self.config.weight))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::embedding_augmentation::testing::unit_rows;
    use crate::losses::LossConfig;
    use crate::losses::testing::{near, scalar};
    use crate::state::{load_named_arrays, named_arrays};
    use crate::tensor::Device;
    use std::sync::Arc;

    fn module(config: &MdrConfig) -> Mdr {
        let device = Device::flex().autodiff();
        config.init(&AuxiliaryShape {
            dim: 4,
            features: 4,
            classes: 2,
            loss: &LossConfig::default(),
            seed: 0,
            device: &device,
        })
    }

    fn value(module: &Mdr, x: &[f64]) -> f64 {
        let rows = x.len() / 4;
        let x = Tensor::<2>::from_data(TensorData::new(x.to_vec(), [rows, 4]), &Device::flex().autodiff());
        let labels: Arc<[u32]> = vec![0; rows].into();
        let loss = module.forward(&AuxiliaryInput {
            embeddings: x.require_grad(),
            features: None,
            proxies: None,
            labels: &labels,
            mined: None,
            seed: 0,
        });
        scalar(&loss.unwrap())
    }

    fn distances(x: &[f64]) -> Vec<f64> {
        let rows: Vec<&[f64]> = x.chunks(4).collect();
        let mut all = vec![];
        for (place, a) in rows.iter().enumerate() {
            for b in &rows[place + 1..] {
                all.push(a.iter().zip(*b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt());
            }
        }
        all
    }

    #[test]
    fn agrees_with_naive_loops_and_remembers() {
        let config = MdrConfig {
            weight: 0.3,
            levels: vec![-1.0, 0.5, 2.0],
            ..Default::default()
        };
        let mdr = module(&config);
        let mut moments: Option<(f64, f64)> = None;
        for step in 0..4 {
            let x = unit_rows(6, 4, step);
            let d = distances(&x);
            let mean = d.iter().sum::<f64>() / 15.0;
            let deviation = (d.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 15.0).sqrt();
            let (mean, deviation) = match moments {
                None => (mean, deviation),
                Some((m, s)) => (0.9 * m + 0.1 * mean, 0.9 * s + 0.1 * deviation),
            };
            moments = Some((mean, deviation));
            let nearest = |d: &f64| {
                let levels = config.levels.iter().map(|level| ((d - mean) / deviation - level).abs());
                levels.fold(f64::INFINITY, f64::min)
            };
            let expected = 0.3 * d.iter().map(nearest).sum::<f64>() / 15.0;
            near(value(&mdr, &x), expected);
        }
        // What it remembers is saved and comes back.
        let copy = load_named_arrays(module(&config), &named_arrays(&mdr)).unwrap();
        let x = unit_rows(6, 4, 9);
        assert_eq!(value(&copy, &x), value(&mdr, &x));
        assert_ne!(value(&module(&config), &x), value(&mdr, &x));
    }

    #[test]
    fn odd_batches_are_finite() {
        let mdr = module(&MdrConfig::default());
        assert_eq!(value(&mdr, &[1.0, 0.0, 0.0, 0.0]), 0.0);
        assert!(value(&mdr, &[1.0, 0.0, 0.0, 0.0].repeat(3)).is_finite(), "equal rows");
        assert!(value(&mdr, &unit_rows(3, 4, 1)).is_finite());
    }
}
