//! Relevant items that are hopelessly far by their cosine in single precision alone: of most nobody needs to know more.

use super::search_distance::{SearchDistance, Space, single_dot};
use super::tally::Positive;

/// Lengths of rows whose products neither overflow in single precision nor vanish.
const LENGTHS: std::ops::RangeInclusive<f64> = 1e-12..=1e12;

/// More than what is neglected: the double-precision arithmetic around single-precision products, and products that vanish.
const NEGLECTED: f64 = 1e-9;

/// Judges the relevant items of one query.
#[derive(Debug)]
pub(super) struct HeldBack<'a> {
    query: &'a [f32],
    length: f64,
    /// By how much a cosine in single precision can be wrong.
    error: f64,
    /// An item with a cosine below this is hopeless, however screening and single precision err.
    below: f64,
    items: Vec<(f64, u32)>,
    nearest: f64,
}

impl<'a> HeldBack<'a> {
    /// For a query of that length, whose items are hopeless where screening, wrong by `slack` at most, puts them below `threshold`.
    /// `None` where single precision cannot tell.
    pub(super) fn new(space: &Space, query: &'a [f32], length: f64, threshold: f32, slack: f64) -> Option<Self> {
        if space.distance() != SearchDistance::Cosine || !LENGTHS.contains(&length) || !threshold.is_finite() {
            return None;
        }
        // A sum of d products in any order errs by at most d u / (1 - d u) |q| |g|, u = 2^-24 (as in `Space::slack`).
        let depth = query.len() as f64 * f64::from(f32::EPSILON) / 2.0;
        let error = 1.01 * depth / (1.0 - depth).max(0.01) + NEGLECTED;
        Some(Self {
            query,
            length,
            error,
            // Rounding the threshold's neighbours to single precision is within a millionth.
            below: f64::from(threshold) - slack - error - 1e-6,
            items: Vec::new(),
            nearest: f64::NEG_INFINITY,
        })
    }

    /// Whether an item is hopeless; if so, it is kept for [`finish`](Self::finish).
    #[inline(always)]
    pub(super) fn holds_back(&mut self, position: u32, row: &[f32], length: f64) -> bool {
        if !LENGTHS.contains(&length) {
            return false;
        }
        let cosine = f64::from(single_dot(self.query, row)) / (self.length * length);
        let hopeless = cosine < self.below;
        if hopeless {
            self.items.push((cosine, position));
            self.nearest = self.nearest.max(cosine);
        }
        hopeless
    }

    /// Appends the items that were held back: their keys are exact (`key(position)`) wherever one can be the nearest of them, by which
    /// all are judged afterwards; else good enough to stay behind it.
    #[inline(always)]
    pub(super) fn finish(self, list: &mut Vec<Positive>, key: impl Fn(u32) -> f64) {
        let close = self.nearest - 2.0 * self.error;
        for (cosine, position) in self.items {
            let key = if cosine >= close {
                key(position)
            } else {
                -cosine * self.length
            };
            list.push((key, position, 1.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::search_distance::dot;
    use super::*;
    use crate::evaluation::testing::random_set;

    const SLACK: f64 = 1e-4;

    /// What is held back is hopeless by its exact cosine, and the nearest of it is exact and stays in front.
    #[test]
    fn what_is_held_back_is_hopeless() {
        for (dim, size) in [(1, 1.0_f32), (7, 1e11), (64, 1e-11), (515, 1.0)] {
            let mut set = random_set(dim as u64, 200, dim, 2);
            // Some rows twice, some hardly different: single precision cannot tell which is nearer.
            for row in (0..198).step_by(3) {
                set.values.copy_within(row * dim..(row + 1) * dim, (row + 1) * dim);
                set.values[(row + 1) * dim] *= 1.0 + f32::EPSILON;
            }
            set.values.iter_mut().for_each(|value| *value *= size);
            let space = Space::new(SearchDistance::Cosine, None, &set, None).unwrap();
            let length = |row: usize| dot(set.row(row), set.row(row)).sqrt();
            let key = |row: u32| space.key(set.row(0), set.row(row as usize), length(row as usize));
            let cosine = |key: f64| -key / length(0);
            let mut held = 0;
            for threshold in [-0.9_f32, -0.1, 0.0, 0.2, 0.9] {
                let mut judge = HeldBack::new(&space, set.row(0), length(0), threshold, SLACK).unwrap();
                let rows = 1..200_u32;
                let back: Vec<u32> = rows
                    .filter(|&row| judge.holds_back(row, set.row(row as usize), length(row as usize)))
                    .collect();
                held += back.len();
                for row in 1..200 {
                    let margin = cosine(key(row)) - (f64::from(threshold) - SLACK);
                    assert!(!back.contains(&row) || margin < 0.0, "{dim} {threshold}");
                    assert!(back.contains(&row) || margin > -2e-4, "{dim} {threshold}: {margin}");
                }
                let mut finished = Vec::new();
                judge.finish(&mut finished, key);
                assert_eq!(finished.iter().map(|item| item.1).collect::<Vec<_>>(), back);
                let nearest = |items: &[Positive]| items.iter().copied().min_by(|a, b| a.partial_cmp(b).unwrap());
                let exact: Vec<Positive> = back.iter().map(|&row| (key(row), row, 1.0)).collect();
                assert_eq!(nearest(&finished), nearest(&exact));
            }
            assert!(held > 100);
        }
    }

    #[test]
    fn what_single_precision_cannot_tell_is_left_alone() {
        let set = random_set(1, 3, 5, 2);
        let new = |distance, length, threshold| {
            let space = Space::new(distance, None, &set, None).unwrap();
            HeldBack::new(&space, set.row(0), length, threshold, SLACK).is_some()
        };
        assert!(new(SearchDistance::Cosine, 1.0, 0.5));
        assert!(!new(SearchDistance::Cosine, 1e13, 0.5));
        assert!(!new(SearchDistance::Cosine, 1e-13, 0.5));
        assert!(!new(SearchDistance::Cosine, 1.0, f32::NEG_INFINITY));
        assert!(!new(SearchDistance::Euclidean, 1.0, 0.5));
        let space = Space::new(SearchDistance::Cosine, None, &set, None).unwrap();
        let mut judge = HeldBack::new(&space, set.row(0), 1.0, 2.0, SLACK).unwrap();
        assert!(judge.holds_back(1, set.row(1), 1.0));
        assert!(!judge.holds_back(1, set.row(1), 1e13));
    }
}
