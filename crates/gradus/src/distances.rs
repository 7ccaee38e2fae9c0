//! The distances of [`gradus_core::distances`] on tensors: whole matrices with safe slopes, in bounded memory.

pub use gradus_core::distances::{DistanceConfig, DistanceInfo};

use crate::numerics::{EPSILON, gram, lengths, normalize, safe_power, safe_sqrt};
use crate::tensor::{Bool, Tensor};

/// All distances between the rows of two sets; without `reference` between the rows of one.
///
/// Slopes are 0 where the true one does not exist: at distance 0 and for rows of length 0. Beside the inputs and the
/// result a few matrices of the result's size live, but for norms other than `p = 2` in double precision or on another device
/// than the processor, which need `dim` of them.
///
/// # Shapes
/// `query` `[n, dim]`, `reference` `[m, dim]`; the result `[n, m]`.
///
/// # Panics
/// If the widths differ or are 0.
#[must_use]
pub fn matrix(distance: &DistanceConfig, query: Tensor<2>, reference: Option<Tensor<2>>) -> Tensor<2> {
    match *distance {
        DistanceConfig::Cosine {} | DistanceConfig::Dot { normalize: true } => {
            products(both(normalize, query, reference))
        }
        DistanceConfig::Dot { normalize: false } => products(both(|rows| rows, query, reference)),
        DistanceConfig::Lp {
            p: 2.0,
            power,
            normalize: unit,
        } => {
            let squares = if unit {
                squared_between_unit(both(normalize, query, reference))
            } else {
                squared(both(|rows| rows, query, reference))
            };
            if power == 1.0 {
                safe_sqrt(squares)
            } else if power == 2.0 {
                squares.clamp_min(0.0)
            } else {
                safe_power(squares, power / 2.0)
            }
        }
        DistanceConfig::Lp {
            p,
            power,
            normalize: unit,
        } => {
            let rows = |rows: Tensor<2>| if unit { normalize_by(rows, p) } else { rows };
            general(both(rows, query, reference), p, power)
        }
        DistanceConfig::Snr { normalize: unit } => {
            let centred = |rows: Tensor<2>| {
                let rows = if unit { normalize(rows) } else { rows };
                rows.clone() - rows.mean_dim(1)
            };
            signal_to_noise(both(centred, query, reference))
        }
        DistanceConfig::Hyperbolic { curvature, clip } => hyperbolic(query, reference, curvature, clip),
    }
}

/// By how much `x` is farther than `y`: `x - y` of distances, `y - x` of similarities.
#[must_use]
pub fn margin<const D: usize>(distance: &DistanceConfig, x: Tensor<D>, y: Tensor<D>) -> Tensor<D> {
    if distance.is_similarity() { y - x } else { x - y }
}

/// One set, and another one unless its rows are compared with each other.
type Sets = (Tensor<2>, Option<Tensor<2>>);

/// Both sets after the same preparation, which one set needs only once.
fn both(prepare: impl Fn(Tensor<2>) -> Tensor<2>, query: Tensor<2>, reference: Option<Tensor<2>>) -> Sets {
    (prepare(query), reference.map(prepare))
}

fn products((a, b): Sets) -> Tensor<2> {
    match b {
        Some(b) => a.matmul(b.transpose()),
        None => gram(a),
    }
}

/// One number per row of both sets, `[n, 1]` and `[1, m]`.
fn of_rows((a, b): &Sets, number: impl Fn(&Tensor<2>) -> Tensor<2>) -> (Tensor<2>, Tensor<2>) {
    let of_a = number(a);
    let of_b = b.as_ref().map_or_else(|| of_a.clone(), number);
    (of_a, of_b.transpose())
}

fn squared(sets: Sets) -> Tensor<2> {
    let (of_a, of_b) = of_rows(&sets, |rows| rows.clone().square().sum_dim(1));
    products(sets).mul_scalar(-2.0) + of_a + of_b
}

fn squared_between_unit(sets: Sets) -> Tensor<2> {
    // Squared lengths are 1, or 0 for zero vectors, whatever the embeddings: constants.
    let (of_a, of_b) = of_rows(&sets, |rows| rows.clone().without_autodiff().square().sum_dim(1));
    products(sets).mul_scalar(-2.0) + of_a + of_b
}

fn normalize_by(rows: Tensor<2>, p: f64) -> Tensor<2> {
    let shape = rows.dims();
    let scale = rows.clone().without_autodiff().abs().max_dim(1);
    let zero = scale.clone().lower_scalar(EPSILON);
    let scaled = rows / scale.mask_fill(zero.clone(), 1.0);
    let sum = safe_power(scaled.clone().abs(), p)
        .sum_dim(1)
        .mask_fill(zero.clone(), 1.0);
    (scaled / safe_power(sum, p.recip())).mask_fill(zero.expand(shape), 0.0)
}

fn general((a, b): Sets, p: f64, power: f64) -> Tensor<2> {
    let b = b.unwrap_or_else(|| a.clone());
    if let Some(sums) = gradus_kernels::power_sums(&a, &b, p) {
        return safe_power(sums, power / p);
    }
    let [_, dim] = a.dims();
    let column = |axis: usize| {
        let difference = a.clone().narrow(1, axis, 1) - b.clone().narrow(1, axis, 1).transpose();
        safe_power(difference.abs(), p)
    };
    let sum = (1..dim).fold(column(0), |sum, axis| sum + column(axis));
    safe_power(sum, power / p)
}

fn signal_to_noise(sets: Sets) -> Tensor<2> {
    // The number of axes divides both variances and cancels.
    let variance = sets.0.clone().square().sum_dim(1); // [n, 1]
    let silent = variance.clone().without_autodiff().lower_equal_scalar(EPSILON);
    let noise = squared(sets).clamp_min(0.0);
    let shape = noise.dims();
    (noise / variance.mask_fill(silent.clone(), 1.0)).mask_fill(silent.expand(shape), 0.0)
}

/// With `s` the mapped lengths times `sqrt(c)`: `2 / sqrt(c) asinh(u)`,
/// `u^2 = sinh(s_x - s_y)^2 + sinh(2 s_x) sinh(2 s_y) (1 - cos) / 2`, which is Möbius addition without cancellation.
fn hyperbolic(query: Tensor<2>, reference: Option<Tensor<2>>, curvature: f64, clip: f64) -> Tensor<2> {
    let root = curvature.sqrt();
    let same = reference.is_none();
    let mapped = |rows: &Tensor<2>| lengths(rows.clone()).clamp_max(clip).mul_scalar(root); // [n, 1]
    let of_query = mapped(&query);
    let of_reference = reference.as_ref().map_or_else(|| of_query.clone(), mapped).transpose();
    let cosines = matrix(&DistanceConfig::COSINE, query, reference);
    // Rows of length 0 have cosine 0, but also sinh(0) before it.
    let turn = cosines.neg().add_scalar(1.0).clamp_min(0.0);
    let turn = if same {
        let [count, _] = turn.dims();
        let others = Tensor::<2, Bool>::diag_mask([count, count], 0, &turn.device().inner());
        turn.mask_fill(others.bool_not(), 0.0)
    } else {
        turn
    };
    let along = (of_query.clone() - of_reference.clone()).sinh().square();
    let across = (of_query.mul_scalar(2.0).sinh() * of_reference.mul_scalar(2.0).sinh()).mul_scalar(0.5) * turn;
    let square = along + across;
    let u = safe_sqrt(square.clone());
    let hypotenuse = square.clone().add_scalar(1.0).sqrt();
    (u + square / hypotenuse.add_scalar(1.0)).log1p().mul_scalar(2.0 / root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Device, TensorData};
    use gradus_core::random::{self, Rng};

    fn all() -> Vec<DistanceConfig> {
        let mut all: Vec<_> = DistanceConfig::registry().iter().map(|info| info.defaults).collect();
        for normalize in [false, true] {
            all.extend([
                DistanceConfig::SQUARED_EUCLIDEAN,
                DistanceConfig::Lp {
                    p: 1.0,
                    power: 1.0,
                    normalize,
                },
                DistanceConfig::Lp {
                    p: 3.0,
                    power: 2.0,
                    normalize,
                },
                DistanceConfig::Lp {
                    p: 2.0,
                    power: 0.5,
                    normalize,
                },
                DistanceConfig::Dot { normalize },
                DistanceConfig::Snr { normalize },
            ]);
        }
        all.push(DistanceConfig::Hyperbolic {
            curvature: 1.0,
            clip: 0.8,
        });
        all
    }

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = random::stream(seed, &[3]);
        (0..count).map(|_| stream.random::<f32>() * 2.0 - 1.0).collect()
    }

    fn tracked(values: &[f32]) -> Tensor<2> {
        let data = TensorData::new(values.to_vec(), [values.len() / 4, 4]);
        Tensor::from_data(data, &Device::flex().autodiff()).require_grad()
    }

    #[test]
    fn agree_with_the_host() {
        let (a, b) = (noise(12, 1), noise(20, 2));
        for distance in all() {
            let found = matrix(&distance, tracked(&a), Some(tracked(&b)));
            let found = found.try_to_vec_as::<f32>().expect("floats");
            for (found, expected) in found.iter().zip(distance.matrix(&a, &b, 4)) {
                assert!(
                    (found - expected).abs() < 2e-5 * expected.abs().max(1.0),
                    "{distance:?}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn extremes_are_finite() {
        let row = noise(4, 3);
        let opposite: Vec<f32> = row.iter().map(|value| -value).collect();
        let rows = [row.clone(), row, opposite, vec![0.0; 4], vec![2.0; 4], vec![1e-20; 4]].concat();
        for distance in all() {
            for reference in [None, Some(tracked(&rows))] {
                let leaf = tracked(&rows);
                let value = matrix(&distance, leaf.clone(), reference);
                let slopes = leaf.grad(&value.clone().sum().backward()).expect("tracked");
                for number in [value, slopes]
                    .iter()
                    .flat_map(|x| x.try_to_vec_as::<f32>().expect("floats"))
                {
                    assert!(number.is_finite(), "{distance:?}: {number}");
                }
            }
        }
    }
}
