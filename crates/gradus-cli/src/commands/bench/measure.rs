//! What all measurements share: medians, peak memory, random rows.

use gradus_core::random::{self, Rng};

use crate::failure::Failure;

/// The middle of the values; of an even number, the mean of both in the middle; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count.is_multiple_of(2) => 0.5 * (values[middle - 1] + values[middle]),
        _ => values[middle],
    }
}

/// The value with at most three digits behind the point.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The most memory this process ever had, in MiB, by the system's own count (`VmHWM` of Linux); none elsewhere.
pub(super) fn peak_mib() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some((kib / 1024.0 * 10.0).round() / 10.0)
}

/// Memory as tables show it.
pub(super) fn mib(peak: Option<f64>) -> String {
    peak.map_or_else(|| "unknown".to_owned(), |peak| format!("{peak:.0}"))
}

/// Refuses the first option that is 0.
pub(super) fn at_least_one(options: &[(&str, usize)]) -> Result<(), Failure> {
    match options.iter().find(|(_, value)| *value == 0) {
        Some((option, _)) => Err(Failure::new(format!("{option} is 0, but it must be at least 1"))),
        None => Ok(()),
    }
}

/// Numbers of mean 0 and variance 1; a sum of uniform ones is normal enough here.
pub(super) fn normal_values(count: usize, seed: u64, part: u64) -> Vec<f32> {
    let mut stream = random::stream(seed, &[random::purpose::INITIAL, part]);
    (0..count)
        .map(|_| {
            let sum: f32 = (0..6).map(|_| stream.random::<f32>() - 0.5).sum();
            sum * std::f32::consts::SQRT_2
        })
        .collect()
}

/// Rows of random direction and unit length.
pub(super) fn unit_rows(rows: usize, dim: usize, seed: u64, part: u64) -> Vec<f32> {
    let mut values = normal_values(rows * dim, seed, part);
    for row in values.chunks_mut(dim) {
        let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        let over = if length > 0.0 { length.recip() } else { 0.0 };
        row.iter_mut().for_each(|value| *value *= over);
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 30.0]), 3.0);
        assert_eq!(median(vec![]), 0.0);
    }

    #[test]
    fn random_values_are_what_they_claim() {
        let values = normal_values(20_000, 1, 0);
        let mean = values.iter().sum::<f32>() / 20_000.0;
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f32>() / 20_000.0;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
        for row in unit_rows(5, 7, 1, 0).chunks(7) {
            let length = row.iter().map(|value| value * value).sum::<f32>();
            assert!((length - 1.0).abs() < 1e-5, "{length}");
        }
    }
}
