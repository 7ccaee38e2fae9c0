//! Numerically safe building blocks of losses: log-sum-exp, square root, normalisation, masked mean.
//!
//! Every function takes its constants from its input, so that it computes in the input's own precision, stays finite
//! with finite gradients on degenerate input (empty rows, zero vectors, zero distances) and reads nothing back to the
//! host. NaN in the input is never hidden: it comes out again.
//!
//! Single precision on the processor takes the one-pass kernels of `gradus-kernels`; the formulas in plain operations serve
//! everything else and are what the kernels are tested against.

use gradus_kernels as kernels;

use crate::tensor::{Bool, DType, Tensor, activation};

/// Length below which a vector counts as zero and a square below which a root counts as zero.
pub const EPSILON: f64 = 1e-12;

/// `log(sum(exp(x)))` along one axis, with the maximum taken out first.
///
/// An entry of minus infinity counts as absent; a row with nothing else is minus infinity and has gradient 0.
///
/// # Shapes
/// `x` any; the result has extent 1 on axis `dim`.
///
/// # Panics
/// If `x` has no such axis or its extent is 0.
#[must_use]
pub fn log_sum_exp<const D: usize>(x: Tensor<D>, dim: usize) -> Tensor<D> {
    if dim + 1 == D {
        let mut shape = x.dims();
        let columns = shape[dim];
        shape[dim] = 1;
        let rows: Tensor<2> = x.clone().reshape([shape.iter().product(), columns]);
        if let Some(value) = by_kernel(&rows, Tensor::ones_like, false) {
            return value.reshape(shape);
        }
    }
    // The gradient is softmax(x) whatever is subtracted, so the maximum needs no tape.
    let maximum = x.clone().without_autodiff().max_dim(dim);
    let empty = maximum.clone().equal_scalar(f64::NEG_INFINITY);
    let maximum = maximum.mask_fill(empty.clone(), 0.0);
    let sum = (x - maximum.clone()).exp().sum_dim(dim).mask_fill(empty.clone(), 1.0);
    (sum.log() + maximum).mask_fill(empty, f64::NEG_INFINITY)
}

/// `log(1 + sum(exp(x)))` of each row, over the entries where `mask` is true (all without one).
///
/// A row whose mask is empty is exactly 0 with gradient 0. Masking happens before `exp`, so that a masked entry that
/// would overflow does no harm.
///
/// # Shapes
/// `x` `[n, m]`, `mask` `[n, m]`; the result `[n, 1]`.
///
/// # Panics
/// If `m` is 0 or the shapes differ.
#[must_use]
pub fn log_one_plus_sum_exp(x: Tensor<2>, mask: Option<Tensor<2, Bool>>) -> Tensor<2> {
    let weights = |x: &Tensor<2>| match &mask {
        Some(mask) => x.zeros_like().mask_fill(mask.clone(), 1.0),
        None => x.ones_like(),
    };
    if let Some(value) = by_kernel(&x, weights, true) {
        return value;
    }
    let x = match mask {
        Some(mask) => x.mask_fill(mask.bool_not(), f64::NEG_INFINITY),
        None => x,
    };
    let maximum = x.clone().without_autodiff().max_dim(1).clamp_min(0.0);
    let sum = (x - maximum.clone()).exp().sum_dim(1);
    // log(exp(-max) + sum) + max, written so that a small sum keeps its digits when max is 0.
    let one_less = maximum.clone().neg().exp().sub_scalar(1.0);
    (sum + one_less).log1p() + maximum
}

/// The sum of exponentials by the kernel, where it applies; `weights` get the values outside autodiff.
fn by_kernel(x: &Tensor<2>, weights: impl FnOnce(&Tensor<2>) -> Tensor<2>, one_more: bool) -> Option<Tensor<2>> {
    if x.dtype() != DType::F32 {
        return None;
    }
    kernels::log_sum_exp_rows(x, &weights(&x.clone().without_autodiff()), one_more)
}

/// Square root that is 0 with gradient 0 at and below [`EPSILON`], where the true gradient grows without bound.
///
/// # Shapes
/// The shape of `x`.
#[must_use]
pub fn safe_sqrt<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if let Some(root) = kernels::safe_root(&x, EPSILON) {
        return root;
    }
    let zero = x.clone().without_autodiff().lower_equal_scalar(EPSILON);
    x.mask_fill(zero.clone(), 1.0).sqrt().mask_fill(zero, 0.0)
}

/// `x^exponent` of what is not negative, which is 0 with gradient 0 at and below [`EPSILON`].
///
/// # Shapes
/// The shape of `x`.
#[must_use]
pub fn safe_power<const D: usize>(x: Tensor<D>, exponent: f64) -> Tensor<D> {
    if exponent == 1.0 {
        return x;
    }
    let zero = x.clone().without_autodiff().lower_equal_scalar(EPSILON);
    let power = x.mask_fill(zero.clone(), 1.0).log().mul_scalar(exponent).exp();
    power.mask_fill(zero, 0.0)
}

/// Euclidean lengths of rows; 0 with gradient 0 for a row shorter than [`EPSILON`].
///
/// # Shapes
/// `x` `[n, dim]`; the result `[n, 1]`.
///
/// # Panics
/// If `dim` is 0.
#[must_use]
pub fn lengths(x: Tensor<2>) -> Tensor<2> {
    let scale = x.clone().without_autodiff().abs().max_dim(1);
    let zero = scale.clone().lower_scalar(EPSILON);
    let scale = scale.mask_fill(zero.clone(), 1.0);
    let length = (x / scale.clone())
        .square()
        .sum_dim(1)
        .mask_fill(zero.clone(), 1.0)
        .sqrt();
    (length * scale).mask_fill(zero, 0.0)
}

/// Rows divided by their Euclidean length; a row shorter than [`EPSILON`] becomes 0 with gradient 0.
///
/// Rows are scaled by their largest entry first, so that squares neither overflow nor vanish.
///
/// # Shapes
/// `x` `[n, dim]`; the result `[n, dim]`.
///
/// # Panics
/// If `dim` is 0.
#[must_use]
pub fn normalize(x: Tensor<2>) -> Tensor<2> {
    if let Some(unit) = kernels::unit_rows(&x, EPSILON) {
        return unit;
    }
    let shape = x.dims();
    // Direction does not depend on scale, so the scale is a constant to autodiff.
    let scale = x.clone().without_autodiff().abs().max_dim(1);
    let zero = scale.clone().lower_scalar(EPSILON);
    let scaled = x / scale.mask_fill(zero.clone(), 1.0);
    let length = scaled.clone().square().sum_dim(1).mask_fill(zero.clone(), 1.0).sqrt();
    (scaled / length).mask_fill(zero.expand(shape), 0.0)
}

/// Products of all rows of a set with each other.
///
/// # Shapes
/// `x` `[n, dim]`; the result `[n, n]`.
#[must_use]
pub fn gram(x: Tensor<2>) -> Tensor<2> {
    if let Some(products) = kernels::gram(&x) {
        return products;
    }
    x.clone().matmul(x.transpose())
}

/// Cosines between the rows of `a` and the rows of `b`; 0 where a row is zero.
///
/// # Shapes
/// `a` `[n, dim]`, `b` `[m, dim]`; the result `[n, m]`.
///
/// # Panics
/// If the widths differ or are 0.
#[must_use]
pub fn cosine_matrix(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    normalize(a).matmul(normalize(b).transpose())
}

/// Mean over the entries where `mask` is true; 0 with gradient 0 if there are none.
///
/// # Shapes
/// `mask` has the shape of `x`; the result is `[1]`.
#[must_use]
pub fn masked_mean<const D: usize>(x: Tensor<D>, mask: Tensor<D, Bool>) -> Tensor<1> {
    let count = x
        .clone()
        .without_autodiff()
        .zeros_like()
        .mask_fill(mask.clone(), 1.0)
        .sum()
        .clamp_min(1.0);
    x.mask_fill(mask.bool_not(), 0.0).sum() / count
}

/// `log(1 + exp(x))`, exact at both ends.
///
/// # Shapes
/// The shape of `x`.
#[must_use]
pub fn softplus<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if let Some(value) = kernels::softplus(&x) {
        return value;
    }
    // Burn's default threshold of 20 is wrong in the 9th digit, which double precision notices.
    activation::softplus_with_threshold(x, 1.0, 40.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Device, TensorData};

    fn tracked<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values, shape), &Device::flex().autodiff()).require_grad()
    }

    fn mask(values: Vec<bool>, shape: [usize; 2]) -> Tensor<2, Bool> {
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    fn host<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
        x.try_to_vec_as::<f32>().expect("floats")
    }

    fn gradient<const D: usize, const E: usize>(of: &Tensor<D>, at: &Tensor<E>) -> Vec<f32> {
        let gradients = of.clone().sum().backward();
        host(&at.grad(&gradients).expect("tracked"))
    }

    fn near(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                "{found} is not {expected}"
            );
        }
    }

    #[test]
    fn log_sum_exp_survives_large_and_empty_rows() {
        let none = f32::NEG_INFINITY;
        let x = tracked(vec![1.0, 2.0, 3.0, 1e4, 1e4, none, none, none, none], [3, 3]);
        let value = log_sum_exp(x.clone(), 1);
        assert_eq!(value.dims(), [3, 1]);
        let found = host(&value);
        near(&found[..2], &[3.407_606, 1e4 + 2.0f32.ln()]);
        assert_eq!(found[2], none);
        let gradient = gradient(&value.slice([0..2, 0..1]), &x);
        near(
            &gradient,
            &[0.090_030_57, 0.244_728_48, 0.665_240_94, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0],
        );
    }

    #[test]
    fn the_gradient_of_an_empty_row_is_zero() {
        let x = tracked(vec![f32::NEG_INFINITY; 4], [2, 2]);
        near(&gradient(&log_sum_exp(x.clone(), 1), &x), &[0.0; 4]);
    }

    #[test]
    fn log_one_plus_sum_exp_masks_before_exp() {
        let x = tracked(vec![1.0, 1e6, -2.0, 500.0, 3.0, 3.0, -30.0, -30.0], [4, 2]);
        let keep = mask(vec![true, false, true, true, false, false, true, true], [4, 2]);
        let value = log_one_plus_sum_exp(x.clone(), Some(keep));
        let found = host(&value);
        near(&found[..3], &[(1.0f32 + 1.0f32.exp()).ln(), 500.0, 0.0]);
        assert!(
            (found[3] / (2.0 * (-30.0f32).exp()) - 1.0).abs() < 1e-5,
            "a small sum lost its digits: {}",
            found[3]
        );
        let e = 1.0f32.exp();
        near(
            &gradient(&value, &x),
            &[e / (1.0 + e), 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0],
        );
        assert_eq!(found[2], 0.0);
        near(
            &host(&log_one_plus_sum_exp(tracked(vec![0.0, 0.0], [1, 2]), None)),
            &[3.0f32.ln()],
        );
    }

    #[test]
    fn safe_sqrt_has_no_slope_at_zero() {
        let x = tracked(vec![0.0, -1e-7, 4.0, 1e-6], [4]);
        let root = safe_sqrt(x.clone());
        near(&host(&root), &[0.0, 0.0, 2.0, 1e-3]);
        near(&gradient(&root, &x), &[0.0, 0.0, 0.25, 500.0]);
    }

    #[test]
    fn normalize_is_safe_from_tiny_to_huge() {
        let x = tracked(vec![3.0, 4.0, 0.0, 0.0, 3e30, 4e30, 3e-11, -4e-11], [4, 2]);
        let unit = normalize(x.clone());
        near(&host(&unit), &[0.6, 0.8, 0.0, 0.0, 0.6, 0.8, 0.6, -0.8]);
        // d(u1)/dx = (1 - u1^2, -u1 u2) / length
        let gradient = gradient(&unit.narrow(1, 0, 1), &x);
        near(&gradient[..4], &[0.128, -0.096, 0.0, 0.0]);
        assert!(gradient.iter().all(|value| value.is_finite()));
    }

    #[test]
    fn not_a_number_is_not_hidden() {
        let x = tracked(vec![f32::NAN, 1.0], [1, 2]);
        assert!(host(&normalize(x.clone()))[0].is_nan());
        assert!(host(&log_one_plus_sum_exp(x.clone(), None))[0].is_nan());
        assert!(host(&safe_sqrt(x.clone()))[0].is_nan());
        assert!(host(&log_sum_exp(x, 1))[0].is_nan());
    }

    #[test]
    fn cosine_matrix_compares_rows() {
        let a = tracked(vec![2.0, 0.0, 0.0, 0.0], [2, 2]);
        let b = tracked(vec![5.0, 0.0, 0.0, 1.0, -1.0, -1.0], [3, 2]);
        near(
            &host(&cosine_matrix(a, b)),
            &[1.0, 0.0, -(0.5f32.sqrt()), 0.0, 0.0, 0.0],
        );
    }

    #[test]
    fn masked_mean_of_nothing_is_zero_but_tracked() {
        let x = tracked(vec![1.0, f32::INFINITY, 3.0, 8.0], [2, 2]);
        let some = masked_mean(x.clone(), mask(vec![true, false, true, false], [2, 2]));
        near(&host(&some), &[2.0]);
        near(&gradient(&some, &x), &[0.5, 0.0, 0.5, 0.0]);
        let none = masked_mean(x.clone(), mask(vec![false; 4], [2, 2]));
        near(&host(&none), &[0.0]);
        near(&gradient(&none, &x), &[0.0; 4]);
    }

    #[test]
    fn kernels_agree_with_plain_operations_in_double_precision() {
        use crate::distances::{DistanceConfig, matrix};
        use gradus_core::random::{self, Rng};

        type Function = Box<dyn Fn(Tensor<2>) -> Tensor<2>>;
        let power = |p: f64| -> Function {
            let distance = DistanceConfig::Lp {
                p,
                power: 1.0,
                normalize: false,
            };
            Box::new(move |x| {
                let others = x.clone().narrow(0, 3, 5).mul_scalar(0.5);
                matrix(&distance, x, Some(others))
            })
        };
        let functions: Vec<(&str, Function)> = vec![
            ("normalize", Box::new(normalize)),
            ("gram", Box::new(gram)),
            ("safe_sqrt", Box::new(safe_sqrt)),
            ("softplus", Box::new(softplus)),
            ("log_sum_exp", Box::new(|x| log_sum_exp(x, 1))),
            (
                "log_one_plus_sum_exp",
                Box::new(|x| {
                    let mask = x.clone().without_autodiff().greater_scalar(1.0);
                    log_one_plus_sum_exp(x, Some(mask))
                }),
            ),
            ("p = 1", power(1.0)),
            ("p = 1.5", power(1.5)),
            ("p = 3", power(3.0)),
            ("p = 4", power(4.0)),
        ];
        let (rows, columns) = (70, 261); // more than a block of rows, more than a few vectors, neither a multiple
        let mut stream = random::stream(9, &[]);
        let mut draw = |count: usize| -> Vec<f32> { (0..count).map(|_| stream.random::<f32>() * 4.0 - 2.0).collect() };
        let mut values = draw(rows * columns);
        values[columns..2 * columns].fill(0.0);
        let weights = draw(rows * columns);
        let evaluate = |function: &Function, dtype: DType| -> (Vec<f64>, Vec<f64>) {
            let device = Device::flex().autodiff();
            let data = TensorData::new(values.clone(), [rows, columns]);
            let leaf = Tensor::<2>::from_data(data, (&device, dtype)).require_grad();
            let value = function(leaf.clone());
            let shape = value.dims();
            let weights = TensorData::new(weights[..shape.iter().product()].to_vec(), shape);
            let weights = Tensor::<2>::from_data(weights, (&device.inner(), dtype));
            let gradients = (value.clone() * weights).sum().backward();
            let slopes = leaf.grad(&gradients).expect("tracked");
            let host = |x: Tensor<2>| x.cast(DType::F64).try_to_vec_as::<f64>().expect("floats");
            (host(value), host(slopes))
        };
        for (name, function) in &functions {
            let (single, double) = (evaluate(function, DType::F32), evaluate(function, DType::F64));
            for (what, found, expected) in [("value", single.0, double.0), ("gradient", single.1, double.1)] {
                assert_eq!(found.len(), expected.len());
                for (found, expected) in found.iter().zip(&expected) {
                    let near = (found - expected).abs() <= 2e-4 * expected.abs().max(1.0);
                    assert!(near, "{name}, {what}: {found} is not {expected}");
                }
            }
        }
    }

    #[test]
    fn softplus_is_exact_at_both_ends() {
        let x = tracked(vec![-100.0, -20.0, 0.0, 30.0, 1e4], [5]);
        let value = softplus(x.clone());
        near(&host(&value), &[0.0, 0.0, 2.0f32.ln(), 30.0, 1e4]);
        assert!(host(&value)[1] > 0.0);
        near(&gradient(&value, &x), &[0.0, 0.0, 0.5, 1.0, 1.0]);
    }
}
