//! How many seeds would settle a difference.

use serde::{Deserialize, Serialize};

use super::student_t_quantile;

/// More seeds than this are not asked for.
const MOST: usize = 100_000;
/// Standard normal quantiles of 0.975 and 0.8.
const TWO_SIDED: f64 = 1.959_963_985;
const POWER: f64 = 0.841_621_234;

/// Seeds that settle a difference of the size that was seen, if the classes stay the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedsNeeded {
    /// The least n with `t(0.975, n - 1) s / sqrt(n) < |difference|`: a study of so many seeds has an even chance (power one half) that
    /// its interval excludes zero.
    pub half_width: usize,
    /// `((1.96 + 0.84) s / difference)^2`, rounded up, at least 2: with so many, the chance is 80 %.
    pub power_80: usize,
}

/// Seeds that a difference needs, from the standard deviation `s` of the paired differences over seeds; `None` if there is no
/// difference, or if more than 100,000 would be needed.
///
/// ```
/// use gradus_core::statistics::seeds_needed;
/// // t(0.975, 6) / sqrt(7) = 0.925, t(0.975, 5) / sqrt(6) = 1.049
/// assert_eq!(seeds_needed(1.0, 1.0).unwrap().half_width, 7);
/// assert_eq!(seeds_needed(0.0, 1.0), None);
/// ```
#[must_use]
pub fn seeds_needed(difference: f64, deviation: f64) -> Option<SeedsNeeded> {
    let size = difference.abs();
    if size == 0.0 || !size.is_finite() || !deviation.is_finite() {
        return None;
    }
    let half_width = |n: usize| student_t_quantile(0.975, n as f64 - 1.0) * deviation / (n as f64).sqrt();
    if half_width(MOST) >= size {
        return None;
    }
    // The half-width falls with n.
    let (mut below, mut enough) = (1, MOST);
    while enough - below > 1 {
        let middle = below.midpoint(enough);
        if half_width(middle) < size {
            enough = middle;
        } else {
            below = middle;
        }
    }
    let power = ((TWO_SIDED + POWER) * deviation / size).powi(2).ceil() as usize;
    Some(SeedsNeeded {
        half_width: enough,
        power_80: power.max(2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_number_of_seeds_is_found() {
        for ratio in [0.05, 0.3, 1.0, 2.5, 40.0] {
            let found = seeds_needed(-1.0, ratio).unwrap();
            let narrow = |n: usize| student_t_quantile(0.975, n as f64 - 1.0) * ratio / (n as f64).sqrt() < 1.0;
            let naive = (2..).find(|&n| narrow(n)).unwrap();
            assert_eq!(found.half_width, naive, "{ratio}");
        }
        assert_eq!(seeds_needed(0.5, 1.0).unwrap().power_80, 32);
        assert_eq!(seeds_needed(1e-9, 1.0), None);
        assert_eq!(
            seeds_needed(1.0, 0.0).unwrap(),
            SeedsNeeded {
                half_width: 2,
                power_80: 2
            }
        );
    }
}
