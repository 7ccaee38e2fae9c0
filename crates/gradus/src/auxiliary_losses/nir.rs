//! Non-isotropy regularisation: embeddings of a class must have a shape that its proxy alone does not give away.

use gradus_core::random::{self, SliceRandom, derive, purpose};
use serde::{Deserialize, Serialize};

use super::{AuxiliaryInput, AuxiliaryLossConfig, AuxiliaryModule, AuxiliaryShape, refuse, weight};
use crate::config::Config;
use crate::intra_class::arithmetic::indices;
use crate::models::head::Linear;
use crate::numerics::normalize;
use crate::tensor::{Module, Tensor, activation};

/// Settings of [`Nir`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NirConfig {
    /// Weight beside the base loss. Default 0.01, ours.
    pub weight: f64,
    /// Coupling blocks of the flow. Default 8, ours.
    pub blocks: usize,
    /// Width of the layer inside each block. Default 128, ours.
    pub hidden: usize,
    /// Bound on the logarithm of the scale in each block. Default 2, ours.
    pub clamp: f64,
}

impl Default for NirConfig {
    fn default() -> Self {
        Self {
            weight: 0.01,
            blocks: 8,
            hidden: 128,
            clamp: 2.0,
        }
    }
}

impl AuxiliaryLossConfig for NirConfig {
    type Module = Nir;
    const SUMMARY: &'static str = "a flow from embeddings to Gaussian noise, given the proxy, keeps variety inside classes";
    const PAPER: &'static str = "Roth et al., Non-isotropy Regularization for Proxy-based Deep Metric Learning, CVPR";
    const YEAR: u16 = 2022;

    fn validate(&self) -> Result<(), String> {
        weight("nir", self.weight)?;
        if !(1..=64).contains(&self.blocks) {
            return refuse("nir", "blocks", self.blocks, "1 to 64");
        }
        if !(1..=16384).contains(&self.hidden) {
            return refuse("nir", "hidden", self.hidden, "a width between 1 and 16384");
        }
        if !(self.clamp > 0.0 && self.clamp <= 10.0) {
            return refuse("nir", "clamp", self.clamp, "a number above 0 and at most 10");
        }
        Ok(())
    }

    fn fits(&self, config: &Config) -> Result<(), String> {
        if config.loss.proxies_per_class() == Some(1) {
            return Ok(());
        }
        Err(format!(
            "auxiliary-loss.nir maps embeddings to noise given the proxy of their class, but loss.{} does not have one proxy per \
             class: choose such a loss, for example proxy-anchor, or leave [auxiliary-loss] out",
            config.loss.name()
        ))
    }

    fn init(&self, shape: &AuxiliaryShape<'_>) -> Nir {
        let dim = shape.dim;
        let changed = dim - dim / 2;
        let seeds: Vec<u64> = (1..=self.blocks as u64).map(|block| derive(shape.seed, &[block])).collect();
        let flow = seeds.iter().map(|&seed| Coupling {
            first: Linear::new("coupling.first", dim / 2 + dim, self.hidden, seed, shape.device),
            second: Linear::new("coupling.second", self.hidden, 2 * changed, seed, shape.device),
        });
        let orders = seeds.iter().map(|&seed| {
            let mut order: Vec<usize> = (0..dim).collect();
            order.shuffle(&mut random::stream(seed, &[purpose::INITIAL]));
            order
        });
        Nir {
            flow: flow.collect(),
            orders: orders.collect(),
            config: self.clone(),
        }
    }
}

/// The part of a coupling block that learns: what half of the axes and the proxy say of the other half.
#[derive(Module, Debug)]
pub struct Coupling {
    first: Linear,
    second: Linear,
}

/// Non-isotropy regularisation, NIR (Roth et al., Non-isotropy Regularization for Proxy-based Deep Metric Learning, CVPR 2022).
///
/// A normalising flow, conditioned on the unit proxy `P` of the class, maps each embedding to `u`, which must be Gaussian noise:
/// `weight * mean over rows of ( |u|^2 / 2 - log |det J| )`. What the flow can only undo knowing `P` alone is variety around
/// the proxy, so that proxies no longer draw their class to isotropic balls. Flow, embeddings and proxies learn together.
///
/// Each block deals the axes out in an order of its own, fixed by the seed, and changes the second half `b` by the first half
/// `a`: `b exp(s) + t`, with `(r, t)` from a hidden layer with ReLU that sees `a` and `P`, and `s = clamp tanh(r / clamp)`;
/// `log |det J|` is the sum of all `s`. The flow learns at the rate of the model's head and is dropped after training.
///
/// For losses with one proxy per class.
///
/// # Shapes
/// Embeddings `[b, d]`, proxies `[classes, d]`. Parameters: `blocks x hidden x (3 d / 2 + d)` or so.
#[derive(Module, Debug)]
pub struct Nir {
    flow: Vec<Coupling>,
    #[module(skip)]
    orders: Vec<Vec<usize>>,
    #[module(skip)]
    config: NirConfig,
}

impl AuxiliaryModule for Nir {
    fn forward(&self, input: &AuxiliaryInput<'_>) -> Result<Tensor<1>, String> {
        let proxies = input.proxies.clone().ok_or("auxiliary-loss.nir was handed no proxies")?;
        let mut u = input.embeddings.clone();
        let [rows, dim] = u.dims();
        if rows == 0 {
            return Ok(u.sum().mul_scalar(0.0));
        }
        let (kept, changed) = (dim / 2, dim - dim / 2);
        let own = indices(input.labels.iter().map(|&label| label as usize), [rows], &u);
        let proxies = normalize(proxies.select(0, own)); // [b, d]
        let mut determinant = u.clone().sum().mul_scalar(0.0);
        for (coupling, order) in self.flow.iter().zip(&self.orders) {
            let dealt = u.select(1, indices(order.iter().copied(), [dim], &proxies));
            let (a, b) = (dealt.clone().narrow(1, 0, kept), dealt.narrow(1, kept, changed));
            let seen = Tensor::cat(vec![a.clone(), proxies.clone()], 1);
            let found = coupling.second.forward(activation::relu(coupling.first.forward(seen)));
            let clamp = self.config.clamp;
            let scale = found.clone().narrow(1, 0, changed).mul_scalar(clamp.recip()).tanh().mul_scalar(clamp);
            let shift = found.narrow(1, changed, changed);
            determinant = determinant + scale.clone().sum();
            u = Tensor::cat(vec![a, b * scale.exp() + shift], 1);
        }
        let energy = u.square().sum().mul_scalar(0.5);
        Ok((energy - determinant).mul_scalar(self.config.weight / rows as f64))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::embedding_augmentation::testing::unit_rows;
    use crate::losses::LossConfig;
    use crate::losses::testing::{near, scalar};
    use crate::state::named_arrays;
    use crate::tensor::{Device, TensorData};
    use std::sync::Arc;

    #[test]
    fn agrees_with_naive_loops() {
        let (dim, hidden, clamp) = (5, 3, 0.7);
        let labels: Arc<[u32]> = [1u32, 0, 1, 2].into();
        let (x, proxies) = (unit_rows(4, dim, 1), unit_rows(3, dim, 2));
        let device = Device::flex();
        let config = NirConfig {
            weight: 0.3,
            blocks: 2,
            hidden,
            clamp,
        };
        let nir = config.init(&AuxiliaryShape {
            dim,
            features: 4,
            classes: 3,
            loss: &LossConfig::default(),
            seed: 5,
            device: &device,
        });
        let tensor = |values: &[f64], scale: f64| {
            let values: Vec<f64> = values.iter().map(|value| value * scale).collect();
            let rows = values.len() / dim;
            Tensor::<2>::from_data(TensorData::new(values, [rows, dim]), &device)
        };
        let value = nir.forward(&AuxiliaryInput {
            embeddings: tensor(&x, 1.0),
            features: None,
            proxies: Some(tensor(&proxies, 4.0)),
            labels: &labels,
            mined: None,
            seed: 0,
        });

        let arrays = named_arrays(&nir);
        let layer = |block: usize, name: &str, input: &[f64]| -> Vec<f64> {
            let of = |part: &str| {
                let path = format!("flow.{block}.{name}.{part}");
                &arrays.iter().find(|array| array.name == path).unwrap().values
            };
            let rows = of("weight").chunks(input.len()).zip(of("bias"));
            rows.map(|(row, bias)| row.iter().zip(input).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(*bias))
                .collect()
        };
        let mut sum = 0.0;
        for (row, &label) in labels.iter().enumerate() {
            let mut u = x[row * dim..][..dim].to_vec();
            for (block, order) in nir.orders.iter().enumerate() {
                let dealt: Vec<f64> = order.iter().map(|&axis| u[axis]).collect();
                let (a, b) = dealt.split_at(2);
                let seen = [a, &proxies[label as usize * dim..][..dim]].concat();
                let inner: Vec<f64> = layer(block, "first", &seen).into_iter().map(|h| h.max(0.0)).collect();
                assert_eq!(inner.len(), hidden);
                let found = layer(block, "second", &inner);
                u = a.to_vec();
                for (axis, b) in b.iter().enumerate() {
                    let s = clamp * (found[axis] / clamp).tanh();
                    u.push(b * s.exp() + found[3 + axis]);
                    sum -= s;
                }
            }
            sum += u.iter().map(|u| u * u / 2.0).sum::<f64>();
        }
        near(scalar(&value.unwrap()), 0.3 * sum / 4.0);
        assert_ne!(nir.orders[0], nir.orders[1]);
    }
}
