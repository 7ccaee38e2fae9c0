//! Embeddings made ready for comparison: unit length, members of a class side by side, padded for matrix products.

use std::ops::Range;

use super::EvaluationError;
use super::rows::Rows;
use crate::EmbeddingSet;

/// Rows and depth are padded with zeros to a multiple of these, so that every matrix product takes the same path through the
/// kernels whatever the sizes: only then is a similarity the same number in every block size and at every position.
pub(super) const ROW_MULTIPLE: usize = 32;
pub(super) const DEPTH_MULTIPLE: usize = 16;

/// Rows divided by their length, sorted by class and, inside a class, by index.
///
/// The copy costs `len * dim` floats; everything else in the evaluation works in blocks on top of it.
#[derive(Clone, Debug)]
pub struct UnitRows {
    dim: usize,
    stride: usize,
    values: Vec<f32>,
    order: Vec<u32>,
    classes: Vec<ClassRange>,
}

/// Where the rows of one class lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRange {
    /// The label.
    pub label: u32,
    /// Positions of its rows.
    pub rows: Range<usize>,
}

impl UnitRows {
    /// Normalises and sorts `set`, called `what` in messages (`query`, `gallery`).
    ///
    /// # Errors
    /// An empty or inconsistent set, or a row that is zero or not finite.
    pub fn new(set: &EmbeddingSet, what: &'static str) -> Result<Self, EvaluationError> {
        check(set, what)?;
        let mut order: Vec<u32> = (0..set.len() as u32).collect();
        order.sort_by_key(|&index| (set.labels[index as usize], index));
        Self::gather(set, &set.values, |row| set.labels[row], order, what)
    }

    /// The same without sorting by class: positions are the indices of `set`. There is then one "class" per run of labels.
    pub(crate) fn in_given_order(set: &EmbeddingSet, what: &'static str) -> Result<Self, EvaluationError> {
        check(set, what)?;
        Self::gather(
            set,
            &set.values,
            |row| set.labels[row],
            (0..set.len() as u32).collect(),
            what,
        )
    }

    /// Rows without labels, in the order they have: one class.
    pub(crate) fn of_rows(rows: &dyn Rows, what: &'static str) -> Result<Self, EvaluationError> {
        let (len, dim) = (rows.len(), rows.dim());
        if len == 0 || dim == 0 {
            return Err(EvaluationError::Empty { what, rows: len, dim });
        }
        if u32::try_from(len).is_err() {
            return Err(EvaluationError::TooLarge { what, rows: len });
        }
        let mut buffer = Vec::new();
        let values = rows.read(0..len, &mut buffer)?;
        Self::gather(rows, values, |_| 0, (0..len as u32).collect(), what)
    }

    fn gather(
        rows: &dyn Rows,
        given: &[f32],
        label: impl Fn(usize) -> u32,
        order: Vec<u32>,
        what: &'static str,
    ) -> Result<Self, EvaluationError> {
        let dim = rows.dim();
        let stride = dim.next_multiple_of(DEPTH_MULTIPLE);
        let mut values = vec![0.0_f32; order.len().next_multiple_of(ROW_MULTIPLE) * stride];
        for (target, &index) in values.chunks_exact_mut(stride).zip(&order) {
            let row = &given[index as usize * dim..(index as usize + 1) * dim];
            // Squared in f64: no finite f32 row overflows or vanishes.
            let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
            let problem = if !norm.is_finite() {
                Some("holds a value that is not finite")
            } else if norm == 0.0 {
                Some("is zero")
            } else {
                None
            };
            if let Some(problem) = problem {
                let row = index as usize;
                return Err(EvaluationError::Row {
                    what,
                    row,
                    id: rows.name(row),
                    problem,
                });
            }
            for (unit, &value) in target.iter_mut().zip(row) {
                *unit = (f64::from(value) / norm) as f32;
            }
        }
        let mut classes: Vec<ClassRange> = Vec::new();
        for (position, &index) in order.iter().enumerate() {
            let label = label(index as usize);
            match classes.last_mut() {
                Some(class) if class.label == label => class.rows.end = position + 1,
                _ => classes.push(ClassRange {
                    label,
                    rows: position..position + 1,
                }),
            }
        }
        Ok(Self {
            dim,
            stride,
            values,
            order,
            classes,
        })
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether there is no row (never the case for rows that were made).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Width of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The row at `position` of the sorted order.
    ///
    /// # Panics
    /// If `position` is not below [`len`](Self::len).
    #[must_use]
    pub fn row(&self, position: usize) -> &[f32] {
        &self.values[position * self.stride..position * self.stride + self.dim]
    }

    /// Index, in the set the rows were made from, of each position.
    #[must_use]
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// The classes, by rising label.
    #[must_use]
    pub fn classes(&self) -> &[ClassRange] {
        &self.classes
    }

    /// Where the rows of the class `label` lie; an empty range if it has none.
    #[must_use]
    pub fn class(&self, label: u32) -> Range<usize> {
        match self.classes.binary_search_by_key(&label, |class| class.label) {
            Ok(found) => self.classes[found].rows.clone(),
            Err(_) => 0..0,
        }
    }

    pub(super) fn stride(&self) -> usize {
        self.stride
    }

    /// Rows including the zero rows that fill the last multiple.
    pub(super) fn padded_len(&self) -> usize {
        self.values.len() / self.stride
    }

    /// Padded rows at the positions `rows` (which may reach to [`padded_len`](Self::padded_len)).
    pub(super) fn padded(&self, rows: Range<usize>) -> &[f32] {
        &self.values[rows.start * self.stride..rows.end * self.stride]
    }
}

/// Euclidean distance of two rows.
///
/// From differences, not from `2 - 2 s`: near-duplicates keep their order where the similarity has run out of digits.
#[must_use]
pub fn distance(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks
        .remainder()
        .iter()
        .zip(b_chunks.remainder())
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += (x - y) * (x - y);
        }
    }
    (lanes.iter().sum::<f32>() + rest).sqrt()
}

pub(super) fn check(set: &EmbeddingSet, what: &'static str) -> Result<(), EvaluationError> {
    let rows = set.labels.len();
    if rows.checked_mul(set.dim) != Some(set.values.len()) || set.ids.len() != rows {
        return Err(EvaluationError::Inconsistent {
            what,
            values: set.values.len(),
            dim: set.dim,
            labels: rows,
            ids: set.ids.len(),
        });
    }
    if rows == 0 || set.dim == 0 {
        return Err(EvaluationError::Empty {
            what,
            rows,
            dim: set.dim,
        });
    }
    if u32::try_from(rows).is_err() {
        return Err(EvaluationError::TooLarge { what, rows });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(dim: usize, values: &[f32], labels: &[u32]) -> EmbeddingSet {
        EmbeddingSet {
            dim,
            values: values.to_vec(),
            labels: labels.to_vec(),
            ids: (0..labels.len()).map(|index| format!("image-{index}.png")).collect(),
        }
    }

    #[test]
    fn rows_are_sorted_by_class_then_index_and_have_unit_length() {
        let rows = UnitRows::new(&set(2, &[3.0, 4.0, 0.0, 2.0, 5.0, 0.0], &[7, 1, 7]), "query").unwrap();
        assert_eq!(rows.order(), [1, 0, 2]);
        assert_eq!(rows.row(1), [0.6, 0.8]);
        assert_eq!(rows.class(7), 1..3);
        assert!(rows.class(8).is_empty());
    }

    #[test]
    fn huge_and_tiny_rows_keep_their_direction() {
        let rows = UnitRows::new(&set(2, &[3e38, 2e38, 3e-45, 0.0], &[0, 0]), "query").unwrap();
        assert!((rows.row(0).iter().map(|value| value * value).sum::<f32>() - 1.0).abs() < 1e-6);
        assert_eq!(rows.row(1), [1.0, 0.0]);
    }

    #[test]
    fn a_row_without_direction_is_named() {
        for (bad, word) in [(0.0, "zero"), (f32::NAN, "finite"), (f32::INFINITY, "finite")] {
            let error = UnitRows::new(&set(1, &[1.0, bad], &[0, 0]), "gallery")
                .unwrap_err()
                .to_string();
            assert!(
                error.contains("row 1 (image-1.png) of the gallery set") && error.contains(word),
                "{error}"
            );
        }
    }

    #[test]
    fn sets_that_lie_about_their_size_are_refused() {
        let mut lying = set(2, &[1.0; 4], &[0, 0]);
        lying.labels.push(1);
        assert!(matches!(
            UnitRows::new(&lying, "query"),
            Err(EvaluationError::Inconsistent { .. })
        ));
        assert!(matches!(
            UnitRows::new(&set(4, &[], &[]), "query"),
            Err(EvaluationError::Empty { .. })
        ));
        assert!(matches!(
            UnitRows::new(&set(0, &[], &[1]), "query"),
            Err(EvaluationError::Empty { .. })
        ));
    }

    #[test]
    fn distance_matches_the_plain_loop_at_odd_widths() {
        for dim in [1, 15, 16, 17, 63] {
            let a: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..dim).map(|i| (i as f32 * 0.91).cos()).collect();
            let naive: f64 = a
                .iter()
                .zip(&b)
                .map(|(x, y)| f64::from(x - y).powi(2))
                .sum::<f64>()
                .sqrt();
            assert!((f64::from(distance(&a, &b)) - naive).abs() < 1e-5);
        }
    }
}
