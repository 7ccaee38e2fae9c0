//! Relevant items that are hopelessly far by their screened scores alone: of most nobody needs to know more.

use super::tally::{Positive, RelevantItems};

/// Scores so many slacks apart are in the order of the exact ones: screening errs by one on each side, and the third is more than
/// rounding to single precision.
const APART: f64 = 3.0;

/// Judges the relevant items of one query.
#[derive(Debug)]
pub(super) struct HeldBack {
    /// By how much a screened score can be wrong.
    slack: f64,
    /// An item with a score below this is hopeless, however screening errs.
    below: f64,
    items: Vec<(f64, u32)>,
    nearest: f64,
}

impl HeldBack {
    /// For a query whose items, of which there are `most`, are hopeless where their exact score and `slack` together stay below
    /// `threshold`.
    pub(super) fn new(threshold: f32, slack: f64, most: usize) -> Self {
        Self {
            slack,
            below: f64::from(threshold) - APART * slack,
            items: Vec::with_capacity(most),
            nearest: f64::NEG_INFINITY,
        }
    }

    /// Whether an item is hopeless; if so, it is kept for [`finish`](Self::finish).
    #[inline(always)]
    pub(super) fn holds_back(&mut self, position: u32, score: f32) -> bool {
        let score = f64::from(score);
        let hopeless = score < self.below;
        if hopeless {
            self.items.push((score, position));
            self.nearest = self.nearest.max(score);
        }
        hopeless
    }

    /// Measures (`key(position)`) those of the items held back that can be the nearest of them, by which all are judged afterwards.
    #[inline(always)]
    pub(super) fn finish(&mut self, list: &mut RelevantItems, key: impl Fn(u32) -> f64) {
        let close = self.nearest - APART * self.slack;
        list.count += self.items.len();
        for &(score, position) in &self.items {
            if score >= close {
                let measured: Positive = (key(position), position, 1.0);
                list.measured.push(measured);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLACK: f64 = 1e-4;

    /// What is held back is hopeless by its exact score, and the nearest of it is measured.
    #[test]
    fn what_is_held_back_is_hopeless() {
        // Exact scores in steps of half the slack, screened with every error there can be.
        let exact = |row: u32| f64::from(row / 5 % 97) * SLACK / 2.0;
        let screened = |row: u32| (exact(row) + (f64::from(row % 5) / 2.0 - 1.0) * SLACK) as f32;
        let mut held = 0;
        for threshold in [-1.0_f32, 0.0, 1e-3, 3e-3, 9e-3] {
            let mut judge = HeldBack::new(threshold, SLACK, 500);
            let back: Vec<u32> = (0..500).filter(|&row| judge.holds_back(row, screened(row))).collect();
            held += back.len();
            for row in 0..500 {
                let margin = exact(row) - (f64::from(threshold) - SLACK);
                assert!(!back.contains(&row) || margin < 0.0, "{threshold}");
                assert!(back.contains(&row) || margin > -3.5 * SLACK, "{threshold}: {margin}");
            }
            let mut list = RelevantItems::default();
            judge.finish(&mut list, |row| -exact(row));
            assert_eq!(list.count, back.len());
            let nearest = back.iter().map(|&row| exact(row)).fold(f64::NEG_INFINITY, f64::max);
            for &row in &back {
                let measured = list.measured.contains(&(-exact(row), row, 1.0));
                assert!(measured || exact(row) < nearest, "{threshold}: {row}");
                assert!(!measured || exact(row) > nearest - 5.5 * SLACK, "{threshold}: {row}");
            }
        }
        assert!(held > 300);
    }
}
