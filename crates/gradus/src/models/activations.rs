//! Smooth activations, which no normalisation carries out on the way.

use crate::tensor::{Tensor, activation};

/// `x Φ(x)`, Φ the distribution function of the standard normal: the exact form, not the one by `tanh`. Hendrycks and Gimpel,
/// "Gaussian Error Linear Units", 2016.
#[must_use]
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gradus_kernels::gelu(&x).unwrap_or_else(|| activation::gelu(x))
}

/// `x / (1 + exp(-x))`. Elfwing et al., "Sigmoid-Weighted Linear Units", 2017; also called swish.
#[must_use]
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    gradus_kernels::silu(&x).unwrap_or_else(|| activation::silu(x))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Device, TensorData};

    /// Values and slopes at points from -12 to 12.
    fn curve(function: impl Fn(Tensor<1>) -> Tensor<1>) -> (Vec<f32>, Vec<f32>) {
        let points: Vec<f32> = (-1200..=1200).map(|point| point as f32 / 100.0).collect();
        let count = points.len();
        let device = Device::default().autodiff();
        let x = Tensor::<1>::from_data(TensorData::new(points, [count]), &device).require_grad();
        let y = function(x.clone());
        let slopes = x.grad(&y.clone().sum().backward()).unwrap();
        (
            y.try_into_vec_as::<f32>().unwrap(),
            slopes.try_into_vec_as::<f32>().unwrap(),
        )
    }

    fn untracked(function: impl Fn(Tensor<1>) -> Tensor<1>, points: &[f32]) -> Vec<f32> {
        let data = TensorData::new(points.to_vec(), [points.len()]);
        function(Tensor::<1>::from_data(data, &Device::default()))
            .try_into_vec_as::<f32>()
            .unwrap()
    }

    #[test]
    fn kernels_agree_with_plain_operations() {
        for (name, own, plain) in [
            ("gelu", curve(gelu), curve(activation::gelu)),
            ("silu", curve(silu), curve(activation::silu)),
        ] {
            for (found, expected) in own.0.iter().zip(&plain.0).chain(own.1.iter().zip(&plain.1)) {
                let error = (found - expected).abs();
                assert!(
                    error < 1e-6 * expected.abs().max(1.0),
                    "{name}: {found}, expected {expected}"
                );
            }
        }
        // With and without slopes the same values.
        let points: Vec<f32> = (-1200..=1200).map(|point| point as f32 / 100.0).collect();
        assert_eq!(untracked(gelu, &points), curve(gelu).0);
        assert_eq!(untracked(silu, &points), curve(silu).0);
    }

    #[test]
    fn large_numbers_stay_numbers() {
        let far = [-1e30, -100.0, 100.0, 1e30];
        for function in [gelu, silu] {
            let found = untracked(function, &far);
            assert!(found[0].abs() < 1e-20 && found[1].abs() < 1e-20, "{found:?}");
            assert_eq!(found[2..], far[2..]);
        }
        assert!(untracked(gelu, &[f32::NAN])[0].is_nan());
    }
}
