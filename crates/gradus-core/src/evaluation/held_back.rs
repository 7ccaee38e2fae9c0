//! Relevant items that are hopelessly far by their screened scores alone: of most nobody needs to know more.

use super::comparison::{Comparison, WORD, places};
use super::tally::RelevantItems;

/// Scores so many slacks apart are in the order of the exact ones: screening errs by one on each side, and the third is more than
/// rounding to single precision.
const APART: f64 = 3.0;

/// Judges the relevant items of one query.
#[derive(Debug)]
pub(super) struct HeldBack {
    /// By how much screened scores have to differ.
    apart: f64,
    /// An item with a score below this is hopeless, however screening errs.
    below: f32,
    /// Items held back that may be the nearest of them.
    items: Vec<(f32, u32)>,
    nearest: f32,
}

impl HeldBack {
    /// For a query whose items are hopeless where their exact score and `slack` together stay below `threshold`.
    pub(super) fn new(threshold: f32, slack: f64) -> Self {
        let apart = APART * slack;
        Self {
            apart,
            below: below(threshold, apart),
            items: Vec::new(),
            nearest: f32::NEG_INFINITY,
        }
    }

    /// Calls `promising(place)` for the items that are not hopeless, and keeps of the others what [`finish`](Self::finish) needs.
    /// `scores[place]`, negative infinity for what is no relevant item, is that of row `positions[place]` of the gallery.
    #[inline(always)]
    pub(super) fn judge(&mut self, scores: &[f32], positions: &[u32], mut promising: impl FnMut(usize)) {
        let compare = Comparison::new();
        for (number, (scores, positions)) in scores.chunks(WORD).zip(positions.chunks(WORD)).enumerate() {
            let mut chunk = [f32::NEG_INFINITY; WORD];
            chunk[..positions.len()].copy_from_slice(&scores[..positions.len()]);
            let chances = compare.at_least(&chunk, self.below);
            for place in places(chances) {
                if chunk[place] > f32::NEG_INFINITY {
                    promising(number * WORD + place);
                }
            }
            for score in chunk {
                let held_back = if score < self.below { score } else { f32::NEG_INFINITY };
                self.nearest = self.nearest.max(held_back);
            }
            if self.nearest > f32::NEG_INFINITY {
                let close = compare.at_least(&chunk, below(self.nearest, self.apart));
                for place in places(close & !chances) {
                    self.items.push((chunk[place], positions[place]));
                }
            }
        }
    }

    /// Appends, measured (`key(position)`), those of the items held back that can be the nearest of them, by which all are judged.
    #[inline(always)]
    pub(super) fn finish(&self, list: &mut RelevantItems, key: impl Fn(u32) -> f64) {
        let close = below(self.nearest, self.apart);
        for &(score, position) in &self.items {
            if score >= close {
                list.measured.push((key(position), position, 1.0));
            }
        }
    }
}

/// A number as far below another as it has to be, or a little farther.
#[inline(always)]
fn below(score: f32, apart: f64) -> f32 {
    ((f64::from(score) - apart) as f32).next_down()
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
        // In an order of their own, some of them no relevant items.
        let rows: Vec<u32> = (0..500).map(|row| row * 7 % 500).collect();
        let absent = |row: u32| row % 11 == 3;
        let mut held = 0;
        for threshold in [f32::NEG_INFINITY, -1.0, 0.0, 1e-3, 3e-3, 9e-3] {
            let mut judge = HeldBack::new(threshold, SLACK);
            let mut promising = Vec::new();
            for rows in rows.chunks(70) {
                let score = |&row: &u32| if absent(row) { f32::NEG_INFINITY } else { screened(row) };
                let scores: Vec<f32> = rows.iter().map(score).chain([1.0; 5]).collect();
                judge.judge(&scores, rows, |place| promising.push(rows[place]));
            }
            assert!(!promising.iter().any(|&row| absent(row)));
            let back: Vec<u32> = (0..500)
                .filter(|&row| !absent(row) && !promising.contains(&row))
                .collect();
            held += back.len();
            for row in back.iter().chain(&promising) {
                let margin = exact(*row) - (f64::from(threshold) - SLACK);
                assert!(!back.contains(row) || margin < 0.0, "{threshold}");
                assert!(back.contains(row) || margin > -3.5 * SLACK, "{threshold}: {margin}");
            }
            let mut list = RelevantItems::default();
            judge.finish(&mut list, |row| -exact(row));
            let nearest = back.iter().map(|&row| exact(row)).fold(f64::NEG_INFINITY, f64::max);
            for &row in &back {
                let measured = list.measured.contains(&(-exact(row), row, 1.0));
                assert!(measured || exact(row) < nearest, "{threshold}: {row}");
                assert!(!measured || exact(row) > nearest - 5.5 * SLACK, "{threshold}: {row}");
            }
            assert!(list.measured.iter().all(|item| back.contains(&item.1)));
        }
        assert!(held > 300);
    }
}
