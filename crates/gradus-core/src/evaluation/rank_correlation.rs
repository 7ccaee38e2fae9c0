//! Rank correlations with ties: Spearman's rho and Kendall's tau-b.

use std::cmp::Ordering;

/// Spearman's rank correlation: Pearson's correlation of mid-ranks (tied values share the mean of their places).
///
/// `None` if either side is constant or shorter than two: there is then no order to compare. Values must not be NaN.
///
/// # Panics
/// If the lengths differ.
///
/// ```
/// use gradus_core::evaluation::spearman;
/// assert_eq!(spearman(&[1.0, 2.0, 3.0], &[10.0, 20.0, 40.0]), Some(1.0));
/// assert_eq!(spearman(&[1.0, 1.0, 1.0], &[10.0, 20.0, 40.0]), None);
/// ```
#[must_use]
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "two sequences to correlate must have the same length");
    let (a, b) = (doubled_mid_ranks(a), doubled_mid_ranks(b));
    // Doubled mid-ranks are integers with mean n + 1: everything stays exact until the end.
    let centre = a.len() as i64 + 1;
    let (mut ab, mut aa, mut bb) = (0_i64, 0_i64, 0_i64);
    for (a, b) in a.iter().zip(&b) {
        ab += (a - centre) * (b - centre);
        aa += (a - centre) * (a - centre);
        bb += (b - centre) * (b - centre);
    }
    (aa > 0 && bb > 0)
        .then(|| ab as f64 / (aa as f64 * bb as f64).sqrt())
        .map(|value| value.clamp(-1.0, 1.0))
}

/// Kendall's tau-b: `(concordant - discordant) / sqrt((pairs - ties in a)(pairs - ties in b))`, by merge sort (Knight 1966).
///
/// `None` if either side is constant or shorter than two. Values must not be NaN.
///
/// # Panics
/// If the lengths differ.
#[must_use]
pub fn kendall_tau_b(a: &[f64], b: &[f64]) -> Option<f64> {
    assert_eq!(a.len(), b.len(), "two sequences to correlate must have the same length");
    let mut points: Vec<(f64, f64)> = a.iter().copied().zip(b.iter().copied()).collect();
    points.sort_by(|x, y| compare(x.0, y.0).then(compare(x.1, y.1)));
    let pairs = pairs(points.len());
    let ties_a = tied_pairs(&points, |x, y| x.0 == y.0);
    let ties_both = tied_pairs(&points, |x, y| x == y);
    let mut second: Vec<f64> = points.iter().map(|point| point.1).collect();
    let discordant = inversions(&mut second);
    let ties_b = tied_pairs(&second, |x, y| x == y);
    if pairs == ties_a || pairs == ties_b {
        return None;
    }
    let balance = pairs - ties_a - ties_b + ties_both - 2 * discordant;
    Some((balance as f64 / (((pairs - ties_a) as f64).sqrt() * ((pairs - ties_b) as f64).sqrt())).clamp(-1.0, 1.0))
}

fn compare(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or(Ordering::Equal)
}

fn pairs(len: usize) -> i64 {
    let len = len as i64;
    len * (len - 1) / 2
}

/// Twice the mid-rank (from 1) of each value, so that it is an integer.
fn doubled_mid_ranks(values: &[f64]) -> Vec<i64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| compare(values[a], values[b]));
    let mut ranks = vec![0_i64; values.len()];
    let mut start = 0;
    for run in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let doubled = (2 * start + run.len() + 1) as i64;
        for &index in run {
            ranks[index] = doubled;
        }
        start += run.len();
    }
    ranks
}

fn tied_pairs<T>(sorted: &[T], same: impl Fn(&T, &T) -> bool) -> i64 {
    sorted.chunk_by(same).map(|run| pairs(run.len())).sum()
}

/// Sorts and counts the pairs that stood in falling order.
fn inversions(values: &mut [f64]) -> i64 {
    if values.len() < 2 {
        return 0;
    }
    let middle = values.len() / 2;
    let mut count = inversions(&mut values[..middle]) + inversions(&mut values[middle..]);
    let mut merged = Vec::with_capacity(values.len());
    let (mut left, mut right) = (0, middle);
    while left < middle && right < values.len() {
        if values[right] < values[left] {
            count += (middle - left) as i64;
            merged.push(values[right]);
            right += 1;
        } else {
            merged.push(values[left]);
            left += 1;
        }
    }
    merged.extend_from_slice(&values[left..middle]);
    merged.extend_from_slice(&values[right..]);
    values.copy_from_slice(&merged);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        a: Vec<f64>,
        b: Vec<f64>,
        spearman: Option<f64>,
        kendall_tau_b: Option<f64>,
    }

    /// Numbers of scipy, written by tools/golden/ranks.py.
    #[test]
    fn both_equal_scipy() {
        let golden: Golden = serde_json::from_str(include_str!("golden/ranks.json")).unwrap();
        assert!(golden.cases.len() > 20);
        for case in golden.cases {
            for (ours, theirs) in [
                (spearman(&case.a, &case.b), case.spearman),
                (kendall_tau_b(&case.a, &case.b), case.kendall_tau_b),
            ] {
                match (ours, theirs) {
                    (Some(ours), Some(theirs)) => assert!(
                        (ours - theirs).abs() < 1e-12,
                        "{ours} {theirs} {:?} {:?}",
                        case.a,
                        case.b
                    ),
                    (ours, theirs) => assert_eq!(ours, theirs),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn kendall_equals_counting_pairs(points in prop::collection::vec((0_u8..6, 0_u8..6), 0..30)) {
            let a: Vec<f64> = points.iter().map(|point| f64::from(point.0)).collect();
            let b: Vec<f64> = points.iter().map(|point| f64::from(point.1)).collect();
            let (mut balance, mut untied_a, mut untied_b) = (0, 0, 0);
            for i in 0..points.len() {
                for j in 0..i {
                    let (x, y) = (points[i].0.cmp(&points[j].0) as i32, points[i].1.cmp(&points[j].1) as i32);
                    balance += x * y;
                    untied_a += x * x;
                    untied_b += y * y;
                }
            }
            let naive = (untied_a > 0 && untied_b > 0).then(|| f64::from(balance) / (f64::from(untied_a) * f64::from(untied_b)).sqrt());
            match (kendall_tau_b(&a, &b), naive) {
                (Some(ours), Some(naive)) => prop_assert!((ours - naive).abs() < 1e-12),
                (ours, naive) => prop_assert_eq!(ours, naive),
            }
        }

        #[test]
        fn any_rising_change_of_scale_keeps_both(points in prop::collection::vec((-5.0..5.0_f64, -5.0..5.0_f64), 2..20)) {
            let a: Vec<f64> = points.iter().map(|point| point.0).collect();
            let b: Vec<f64> = points.iter().map(|point| point.1).collect();
            let scaled: Vec<f64> = a.iter().map(|value| value * 3.0 + 1.0).collect();
            let falling: Vec<f64> = b.iter().map(|value| -value).collect();
            prop_assert_eq!(spearman(&a, &b), spearman(&scaled, &b));
            prop_assert_eq!(kendall_tau_b(&a, &b), kendall_tau_b(&scaled, &b));
            prop_assert_eq!(spearman(&a, &b).map(|value| -value), spearman(&a, &falling));
            prop_assert_eq!(kendall_tau_b(&a, &b), kendall_tau_b(&b, &a));
        }
    }
}
