//! Parameters of losses.

use gradus_core::random::{self, Rng, purpose};

use crate::numerics::lengths;
use crate::tensor::{Param, Tensor, TensorData};

/// How long the noise on repeated rows is, as a part of the row's length.
const NOISE: f64 = 0.1;

/// A parameter with new values that keeps its identity, device, precision and training state.
///
/// # Panics
/// If the shapes differ.
pub(super) fn replaced(parameter: Param<Tensor<2>>, values: &Tensor<2>) -> Param<Tensor<2>> {
    parameter.map(|old| {
        assert_eq!(
            old.dims(),
            values.dims(),
            "the new parameters must have the shape of the old ones"
        );
        Tensor::from_data(values.to_data(), (&old.device(), old.dtype())).set_require_grad(old.is_require_grad())
    })
}

/// Each row several times with a little noise from a fixed seed, the copies of a row together, outside autodiff.
pub(super) fn repeated(rows: &Tensor<2>, times: usize) -> Tensor<2> {
    let rows = rows.clone().without_autodiff();
    let [count, dim] = rows.dims();
    if dim == 0 {
        return Tensor::zeros([count * times, dim], (&rows.device(), rows.dtype()));
    }
    let mut stream = random::stream(0, &[purpose::INITIAL, times as u64]);
    let deviation = NOISE / (dim as f64).sqrt();
    let noise: Vec<f64> = (0..count * times * dim)
        .map(|_| stream.sample::<f64, _>(rand_distr::StandardNormal) * deviation)
        .collect();
    let noise = TensorData::new(noise, [count * times, dim]);
    let noise = Tensor::<2>::from_data(noise, (&rows.device(), rows.dtype()));
    let repeat = |x: Tensor<2>| {
        let [_, width] = x.dims();
        x.reshape([count, 1, width])
            .repeat_dim(1, times)
            .reshape([count * times, width])
    };
    repeat(rows.clone()) + noise * repeat(lengths(rows))
}
