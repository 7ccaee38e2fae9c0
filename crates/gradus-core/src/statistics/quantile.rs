//! Quantiles of a sample.

/// Linear between the two nearest of sorted numbers, as NumPy's default (Hyndman and Fan 1996, type 7).
///
/// # Panics
/// If there is no number.
///
/// ```
/// use gradus_core::statistics::quantile;
/// assert_eq!(quantile(&[0.0, 1.0, 4.0], 0.75), 2.5);
/// ```
#[must_use]
pub fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}
