//! From a map of features to one vector per image.

use gradus_onnx::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::graph::numbers;
use crate::initial;
use crate::tensor::{Device, Module, Param, Tensor, adaptive_avg_pool2d};

/// How the positions of the last feature map are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// Mean over positions: what classification networks were trained with, hence the default.
    #[default]
    Average,
    /// Maximum over positions.
    Max,
    /// Average plus maximum, as in Proxy-Anchor's and the method's released code.
    Sum,
    /// Generalised mean `(mean x^p)^(1/p)` with one learnable `p`, from 3. Radenović et al., "Fine-tuning CNN Image
    /// Retrieval with No Human Annotation", 2018.
    Gem,
    /// Averages at 4 x 4 places side by side, so that features still say where things are; 16 times as many features. For
    /// small networks, whose few channels say too little without their place (Snell et al., 2017, keep every position).
    Grid,
}

/// Places along each side of [`Pooling::Grid`].
const GRID: usize = 4;

impl Pooling {
    /// Number of features made of one channel.
    #[must_use]
    pub fn features_per_channel(self) -> usize {
        match self {
            Self::Grid => GRID * GRID,
            Self::Average | Self::Max | Self::Sum | Self::Gem => 1,
        }
    }
}

/// The pooling of a network, with its parameter if it has one.
#[derive(Module, Debug)]
pub struct PoolingLayer {
    #[module(skip)]
    kind: Pooling,
    power: Option<Param<Tensor<1>>>,
}

impl PoolingLayer {
    /// How positions are put together.
    #[must_use]
    pub fn kind(&self) -> Pooling {
        self.kind
    }

    /// Builds the layer.
    #[must_use]
    pub fn new(kind: Pooling, device: &Device) -> Self {
        Self {
            kind,
            power: (kind == Pooling::Gem).then(|| initial::constant([1], 3.0, device)),
        }
    }

    /// Pools `[batch, channels, height, width]` to `[batch, channels]`, or to `[batch, channels * 16]` on a grid.
    #[must_use]
    pub fn forward(&self, map: Tensor<4>) -> Tensor<2> {
        let [batch, channels, height, width] = map.dims();
        if self.kind == Pooling::Grid {
            let places = if (height, width) == (GRID, GRID) {
                map
            } else {
                adaptive_avg_pool2d(map, [GRID, GRID])
            };
            return places.flatten(1, 3);
        }
        let positions: Tensor<3> = map.reshape([batch, channels, height * width]);
        let average = |x: Tensor<3>| -> Tensor<3> { x.mean_dim(2) };
        let pooled = match (self.kind, &self.power) {
            (Pooling::Gem, Some(power)) => generalised_mean(positions, power.val()),
            (Pooling::Average | Pooling::Gem | Pooling::Grid, _) => average(positions),
            (Pooling::Max, _) => positions.max_dim(2),
            (Pooling::Sum, _) => average(positions.clone()) + positions.max_dim(2),
        };
        pooled.reshape([batch, channels])
    }
}

impl PoolingLayer {
    /// The layer as ONNX operators: from `[channels, height, width]` to `[features]`.
    pub fn graph(&self, graph: &mut Graph, map: Value) -> Value {
        let pooled = match (self.kind, &self.power) {
            (Pooling::Grid, _) => graph.adaptive_average(map, GRID),
            (Pooling::Gem, Some(power)) => {
                let power = numbers(power.val())[0].max(0.1);
                graph.generalised_mean(map, power)
            }
            (Pooling::Average | Pooling::Gem, _) => graph.global_average(map),
            (Pooling::Max, _) => graph.global_maximum(map),
            (Pooling::Sum, _) => {
                let average = graph.global_average(map.clone());
                let maximum = graph.global_maximum(map);
                graph.add(average, maximum)
            }
        };
        graph.flatten(pooled)
    }
}

fn generalised_mean(positions: Tensor<3>, power: Tensor<1>) -> Tensor<3> {
    // Powers are taken of values divided by their maximum: `x^p` itself overflows once p has grown.
    let power = power.clamp_min(0.1).reshape([1, 1, 1]);
    let logarithm = positions.clamp_min(1e-6).log();
    let largest = logarithm.clone().detach().max_dim(2);
    let mean = ((logarithm - largest.clone()) * power.clone()).exp().mean_dim(2);
    (mean.log() / power + largest).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::TensorData;

    fn pooled(kind: Pooling, values: Vec<f32>) -> Vec<f32> {
        let device = Device::default();
        let map = Tensor::<4>::from_data(TensorData::new(values, [1, 2, 1, 2]), &device);
        PoolingLayer::new(kind, &device)
            .forward(map)
            .try_into_vec_as::<f32>()
            .unwrap()
    }

    #[test]
    fn each_kind_gives_its_formula() {
        let values = vec![1.0, 3.0, 0.0, 2.0];
        assert_eq!(pooled(Pooling::Average, values.clone()), [2.0, 1.0]);
        assert_eq!(pooled(Pooling::Max, values.clone()), [3.0, 2.0]);
        assert_eq!(pooled(Pooling::Sum, values.clone()), [5.0, 3.0]);
        let gem = pooled(Pooling::Gem, values);
        assert!(
            (gem[0] - 14.0_f32.cbrt()).abs() < 1e-5 && (gem[1] - 4.0_f32.cbrt()).abs() < 1e-5,
            "{gem:?}"
        );
    }

    #[test]
    fn gem_survives_zeros_and_huge_values() {
        let gem = pooled(Pooling::Gem, vec![0.0, 0.0, 1e30, 1e30]);
        assert!(
            (gem[0] - 1e-6).abs() < 1e-8 && (gem[1] / 1e30 - 1.0).abs() < 1e-3,
            "{gem:?}"
        );
        let device = Device::default().autodiff();
        let map = Tensor::<4>::from_data(TensorData::new(vec![0.0_f32, 0.0, 1e20, 3.0], [1, 2, 1, 2]), &device);
        let map = map.require_grad();
        let layer = PoolingLayer::new(Pooling::Gem, &device);
        let gradients = layer.forward(map.clone()).sum().backward();
        let power = layer
            .power
            .as_ref()
            .unwrap()
            .val()
            .grad(&gradients)
            .unwrap()
            .into_scalar::<f32>();
        assert!(power.is_finite() && power != 0.0);
        let gradient = map.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
        assert!(gradient.iter().all(|value| value.is_finite()), "{gradient:?}");
    }

    #[test]
    fn gem_gradients_match_finite_differences() {
        let device = Device::default().autodiff();
        let values = [0.5_f32, 1.2, 2.0, 0.9];
        let value = |values: &[f32], power: f32| {
            let map = Tensor::<3>::from_data(TensorData::new(values.to_vec(), [1, 1, 4]), &device);
            generalised_mean(map, Tensor::from_floats([power], &device))
                .sum()
                .into_scalar::<f32>()
        };
        let map = Tensor::<3>::from_data(TensorData::new(values.to_vec(), [1, 1, 4]), &device).require_grad();
        let power = Tensor::<1>::from_floats([3.0], &device).require_grad();
        let gradients = generalised_mean(map.clone(), power.clone()).sum().backward();
        let analytic = map.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
        for index in 0..4 {
            let (mut above, mut below) = (values, values);
            above[index] += 1e-2;
            below[index] -= 1e-2;
            let numeric = (value(&above, 3.0) - value(&below, 3.0)) / 2e-2;
            assert!(
                (numeric - analytic[index]).abs() < 1e-3,
                "{numeric} {}",
                analytic[index]
            );
        }
        let numeric = (value(&values, 3.01) - value(&values, 2.99)) / 2e-2;
        let analytic = power.grad(&gradients).unwrap().into_scalar::<f32>();
        assert!((numeric - analytic).abs() < 1e-3, "{numeric} {analytic}");
    }

    #[test]
    fn the_grid_keeps_places_whatever_the_size_of_the_map() {
        let device = Device::default().autodiff();
        let layer = PoolingLayer::new(Pooling::Grid, &device);
        for edge in [2_usize, 4, 6, 8] {
            let values: Vec<f32> = (0..2 * edge * edge).map(|value| value as f32).collect();
            let map = Tensor::<4>::from_data(TensorData::new(values.clone(), [1, 2, edge, edge]), &device);
            let map = map.require_grad();
            let pooled = layer.forward(map.clone());
            assert_eq!(pooled.dims(), [1, 2 * Pooling::Grid.features_per_channel()]);
            let gradients = pooled.clone().sum().backward();
            let pooled = pooled.try_into_vec_as::<f32>().unwrap();
            // Place (row, column) averages the positions floor(row * edge / 4) to ceil((row + 1) * edge / 4).
            for (index, found) in pooled.iter().enumerate() {
                let (channel, row, column) = (index / 16, index / 4 % 4, index % 4);
                let span = |place: usize| place * edge / 4..((place + 1) * edge).div_ceil(4);
                let mut members = Vec::new();
                for y in span(row) {
                    members.extend(span(column).map(|x| values[channel * edge * edge + y * edge + x]));
                }
                let expected = members.iter().sum::<f32>() / members.len() as f32;
                assert!((found - expected).abs() < 1e-4, "{edge}: {found}, not {expected}");
            }
            let gradient = map.grad(&gradients).unwrap().try_into_vec_as::<f32>().unwrap();
            assert!((gradient.iter().sum::<f32>() - 32.0).abs() < 1e-3);
        }
    }
}
