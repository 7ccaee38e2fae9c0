//! The mean of a few repetitions with its interval.

use serde::{Deserialize, Serialize};

use super::student_t_quantile;

/// A mean over seeds with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanInterval {
    /// The mean.
    pub mean: f64,
    /// The interval is the mean plus and minus this: `t(0.975, n - 1) s / sqrt(n)`; `None` of a single value.
    pub half_width: Option<f64>,
    /// Standard deviation over the repetitions, divisor `n - 1`; `None` of a single value.
    pub deviation: Option<f64>,
    /// Repetitions.
    pub count: usize,
}

/// The mean with its 95 % t-interval; `None` of no value.
///
/// ```
/// use gradus_core::statistics::mean_interval;
/// let found = mean_interval(&[1.0, 2.0, 3.0]).unwrap();
/// assert_eq!((found.mean, found.deviation), (2.0, Some(1.0)));
/// assert!((found.half_width.unwrap() - 4.302_652_73 / 3.0_f64.sqrt()).abs() < 1e-8);
/// ```
#[must_use]
pub fn mean_interval(values: &[f64]) -> Option<MeanInterval> {
    let count = values.len();
    if count == 0 {
        return None;
    }
    let n = count as f64;
    let mean = values.iter().sum::<f64>() / n;
    let deviation = (count > 1).then(|| {
        let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        (squares / (n - 1.0)).sqrt()
    });
    Some(MeanInterval {
        mean,
        half_width: deviation.map(|deviation| student_t_quantile(0.975, n - 1.0) * deviation / n.sqrt()),
        deviation,
        count,
    })
}
