//! Where the lines of a grid lie.

/// Four to eight round numbers between two, and the digits that tell them apart.
pub(crate) fn ticks(low: f64, high: f64) -> (Vec<f64>, usize) {
    let rough = (high - low) / 5.0;
    let power = rough.log10().floor();
    let unit = 10.0_f64.powf(power);
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * unit)
        .into_iter()
        .find(|&step| step >= rough)
        .unwrap_or(10.0 * unit);
    let digits = (-step.log10().floor()).max(0.0) as usize;
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    ((first..=last).map(|number| number as f64 * step).collect(), digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let (found, digits) = ticks(-0.013, 0.021);
        assert_eq!(digits, 2);
        let expected = [-0.01, 0.0, 0.01, 0.02];
        assert!(
            found.len() == 4 && found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12),
            "{found:?}"
        );
        for (low, high) in [(0.0, 1.0), (0.41, 0.43), (-30.0, 900.0), (0.0, 2e-4)] {
            let (found, _) = ticks(low, high);
            assert!((3..=9).contains(&found.len()), "{low} {high}: {found:?}");
            assert!(found.iter().all(|tick| (low..=high).contains(tick)));
        }
    }
}
