//! Seeded initial parameters: drawn on the host from (seed, name), so that two models built alike are alike whatever
//! the order in which their parameters are first touched.

use gradus_core::random::{self, Rng, purpose};

use crate::tensor::{Device, Param, Tensor, TensorData};

fn name_number(name: &str) -> u64 {
    // FNV-1a: any fixed hash does, it only has to be the same on every machine.
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A parameter of independent normal values with mean 0 and the given standard deviation.
#[must_use]
pub fn normal<const D: usize>(
    shape: [usize; D],
    deviation: f64,
    seed: u64,
    name: &str,
    device: &Device,
) -> Param<Tensor<D>> {
    let mut stream = random::stream(seed, &[purpose::INITIAL, name_number(name)]);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| (stream.sample::<f64, _>(rand_distr::StandardNormal) * deviation) as f32)
        .collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A parameter of independent values uniform in `[-bound, bound]`.
#[must_use]
pub fn uniform<const D: usize>(
    shape: [usize; D],
    bound: f64,
    seed: u64,
    name: &str,
    device: &Device,
) -> Param<Tensor<D>> {
    let mut stream = random::stream(seed, &[purpose::INITIAL, name_number(name)]);
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|_| ((stream.random::<f64>() * 2.0 - 1.0) * bound) as f32)
        .collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A parameter filled with one value.
#[must_use]
pub fn constant<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    let count = shape.iter().product();
    Param::from_tensor(Tensor::from_data(TensorData::new(vec![value; count], shape), device))
}
