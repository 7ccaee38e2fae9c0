//! Quantiles of Student's t distribution.

/// The number that a t-distributed variable of `degrees` degrees of freedom stays below with `probability` (Student 1908).
///
/// From the regularised incomplete beta function, `P(|T| > t) = I_x(degrees / 2, 1 / 2)` at `x = degrees / (degrees + t^2)`, inverted by
/// bisection; right to about ten digits.
///
/// # Panics
/// If `probability` is not between 0 and 1, or `degrees` not positive.
///
/// ```
/// use gradus_core::statistics::student_t_quantile;
/// assert!((student_t_quantile(0.975, 4.0) - 2.776_445_105).abs() < 1e-8);
/// ```
#[must_use]
pub fn student_t_quantile(probability: f64, degrees: f64) -> f64 {
    assert!(
        probability > 0.0 && probability < 1.0 && degrees > 0.0,
        "no quantile of Student's t: probability {probability}, {degrees} degrees of freedom"
    );
    if probability < 0.5 {
        return -student_t_quantile(1.0 - probability, degrees);
    }
    let upper = 2.0 * (1.0 - probability);
    let beyond = |t: f64| incomplete_beta(degrees / (degrees + t * t), degrees / 2.0, 0.5);
    let (mut low, mut high) = (0.0_f64, 1.0_f64);
    while beyond(high) > upper && high < 1e300 {
        high *= 2.0;
    }
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if beyond(middle) > upper {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function by its continued fraction (Abramowitz and Stegun 26.5.8), evaluated from the front
/// (Lentz 1976).
fn incomplete_beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0.0 {
        return 0.0;
    }
    if x >= 1.0 {
        return 1.0;
    }
    // The fraction converges fast below the mean; above it, the other tail is computed.
    if x > (a + 1.0) / (a + b + 2.0) {
        return 1.0 - incomplete_beta(1.0 - x, b, a);
    }
    let front = (a * x.ln() + b * (1.0 - x).ln() + ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)).exp() / a;
    let bounded = |value: f64| if value.abs() < 1e-300 { 1e-300 } else { value };
    let mut c = 1.0;
    let mut d = bounded(1.0 - (a + b) * x / (a + 1.0)).recip();
    let mut fraction = d;
    for m in 1..500 {
        let m = f64::from(m);
        let even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m));
        d = bounded(1.0 + even * d).recip();
        c = bounded(1.0 + even / c);
        fraction *= c * d;
        let odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0));
        d = bounded(1.0 + odd * d).recip();
        c = bounded(1.0 + odd / c);
        let change = c * d;
        fraction *= change;
        if (change - 1.0).abs() < 1e-15 {
            break;
        }
    }
    front * fraction
}

/// Logarithm of the gamma function of a positive number: shifted above 10, then Stirling's series.
fn ln_gamma(x: f64) -> f64 {
    let (mut x, mut shift) = (x, 0.0);
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let square = 1.0 / (x * x);
    let series =
        (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square * (1.0 / 1680.0 - square / 1188.0)))) / x;
    (x - 0.5) * x.ln() - x + 0.5 * (2.0 * std::f64::consts::PI).ln() + series - shift
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy 1.17.1: `scipy.stats.t.ppf`.
    #[test]
    fn quantiles_equal_scipy() {
        for (probability, degrees, expected) in [
            (0.975, 1.0, 12.706_204_736_174_698),
            (0.975, 2.0, 4.302_652_729_749_462),
            (0.975, 4.0, 2.776_445_105_197_793),
            (0.975, 9.0, 2.262_157_162_798_205),
            (0.95, 7.0, 1.894_578_605_090_006_8),
            (0.995, 30.0, 2.749_995_653_567),
            (0.975, 1000.0, 1.962_339_080_827_408_8),
            (0.025, 4.0, -2.776_445_105_197_793),
        ] {
            let found = student_t_quantile(probability, degrees);
            assert!(
                (found / expected - 1.0).abs() < 1e-9,
                "{probability} {degrees}: {found}"
            );
        }
        assert!(student_t_quantile(0.5, 3.0).abs() < 1e-12);
    }

    #[test]
    fn ln_gamma_equals_factorials() {
        let mut factorial = 1.0_f64;
        for n in 1..20_u32 {
            assert!((ln_gamma(f64::from(n)) - factorial.ln()).abs() < 1e-11);
            factorial *= f64::from(n);
        }
        assert!((ln_gamma(0.5) - std::f64::consts::PI.sqrt().ln()).abs() < 1e-12);
    }
}
