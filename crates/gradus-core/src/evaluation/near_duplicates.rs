//! Groups of rows that are almost the same.

use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;

use super::blocks::{Tile, ranges, similarities};
use super::unit_rows::UnitRows;
use super::{EvaluationError, EvaluationOptions, Rows};
use crate::EmbeddingSet;

/// Rows that are read and compared together, at most.
const BLOCK: usize = 8192;

/// Groups of rows whose neighbours are nearer than a threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct NearDuplicates {
    /// Rows that hang together by pairs above the threshold: groups by their first row, rows rising.
    pub groups: Vec<Vec<u32>>,
    /// Pairs above the threshold.
    pub pairs: u64,
}

/// Finds all pairs of rows whose cosine similarity is at least `threshold`, and puts those that hang together into groups.
///
/// Exact: single-precision products screen, and what they leave open is compared in double precision. Rows that do not lie in memory
/// are read block by block, within half of `options.memory`. The number of threads changes nothing.
///
/// # Errors
/// A threshold outside -1..=1, no row, a row that is zero or not finite, a file that cannot be read.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{EvaluationOptions, near_duplicates};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.0, 1.0, 0.999, 0.001],
///     labels: vec![0; 3],
///     ids: vec![String::new(); 3],
/// };
/// let found = near_duplicates(&set, 0.95, &EvaluationOptions::default())?;
/// assert_eq!((found.groups, found.pairs), (vec![vec![0, 2]], 1));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn near_duplicates(
    rows: &dyn Rows,
    threshold: f64,
    options: &EvaluationOptions,
) -> Result<NearDuplicates, EvaluationError> {
    if !(-1.0..=1.0).contains(&threshold) {
        return Err(EvaluationError::Options(format!(
            "a similarity of {threshold} cannot be: expected one between -1 and 1, such as 0.95"
        )));
    }
    let (len, dim) = (rows.len(), rows.dim());
    if len == 0 || dim == 0 {
        return Err(EvaluationError::Empty {
            what: "query",
            rows: len,
            dim,
        });
    }
    if u32::try_from(len).is_err() {
        return Err(EvaluationError::TooLarge {
            what: "query",
            rows: len,
        });
    }
    // Two blocks, each as given and at unit length.
    let block = (options.memory / 2 / (4 * dim * size_of::<f32>())).clamp(32, BLOCK);
    let found = Mutex::new(Found {
        parents: (0..len as u32).collect(),
        pairs: 0,
    });
    super::blocks::on_threads(options.threads, || {
        for first in ranges(0..len, block) {
            let own = Block::read(rows, first.clone())?;
            own.compare(&own, threshold, &found);
            for second in ranges(first.end..len, block) {
                let other = Block::read(rows, second)?;
                own.compare(&other, threshold, &found);
            }
        }
        Ok(())
    })?;
    let mut found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut groups: Vec<Vec<u32>> = vec![Vec::new(); len];
    for row in 0..len as u32 {
        groups[found.root(row) as usize].push(row);
    }
    groups.retain(|group| group.len() > 1);
    Ok(NearDuplicates {
        groups,
        pairs: found.pairs,
    })
}

/// Rows that were put together so far; the root of a group is its first row.
struct Found {
    parents: Vec<u32>,
    pairs: u64,
}

impl Found {
    fn root(&mut self, mut row: u32) -> u32 {
        while self.parents[row as usize] != row {
            let above = self.parents[self.parents[row as usize] as usize];
            self.parents[row as usize] = above;
            row = above;
        }
        row
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b) as usize] = a.min(b);
    }
}

/// Some of the rows, as given and at unit length.
struct Block {
    first: usize,
    set: EmbeddingSet,
    unit: UnitRows,
}

impl Block {
    fn read(rows: &dyn Rows, range: Range<usize>) -> Result<Self, EvaluationError> {
        let mut buffer = Vec::new();
        let set = EmbeddingSet {
            dim: rows.dim(),
            values: rows.read(range.clone(), &mut buffer)?.to_vec(),
            labels: vec![0; range.len()],
            ids: range.clone().map(|row| rows.name(row)).collect(),
        };
        let unit = UnitRows::in_given_order(&set, "query")?;
        Ok(Self {
            first: range.start,
            set,
            unit,
        })
    }

    fn compare(&self, other: &Self, threshold: f64, found: &Mutex<Found>) {
        let tile = Tile {
            queries: 128,
            gallery: 1024,
        };
        // What a sum of products of unit rows can be off in single precision, and rows for their rounding to unit length.
        let slack = (self.set.dim + 8) as f64 * f64::from(f32::EPSILON);
        let same = self.first == other.first;
        ranges(0..self.unit.padded_len(), tile.queries)
            .collect::<Vec<_>>()
            .into_par_iter()
            .for_each_init(Vec::new, |scores, queries| {
                for gallery in ranges(0..other.unit.padded_len(), tile.gallery) {
                    if same && gallery.end <= queries.start {
                        continue;
                    }
                    similarities(&self.unit, queries.clone(), &other.unit, gallery.clone(), scores);
                    let mut pairs = Vec::new();
                    for (i, scores) in queries
                        .clone()
                        .zip(scores.chunks_exact(gallery.len()))
                        .take(self.set.len() - queries.start)
                    {
                        let from = if same {
                            (i + 1).max(gallery.start)
                        } else {
                            gallery.start
                        };
                        for j in from..gallery.end.min(other.set.len()) {
                            let score = f64::from(scores[j - gallery.start]);
                            let near = score >= threshold + slack
                                || (score >= threshold - slack && self.exact(i, other, j) >= threshold);
                            if near {
                                pairs.push((self.first + i, other.first + j));
                            }
                        }
                    }
                    if !pairs.is_empty() {
                        let mut found = found.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        found.pairs += pairs.len() as u64;
                        pairs.into_iter().for_each(|(a, b)| found.join(a as u32, b as u32));
                    }
                }
            });
    }

    fn exact(&self, i: usize, other: &Self, j: usize) -> f64 {
        let [mut product, mut left, mut right] = [0.0_f64; 3];
        for (&x, &y) in self.set.row(i).iter().zip(other.set.row(j)) {
            let (x, y) = (f64::from(x), f64::from(y));
            product += x * y;
            left += x * x;
            right += y * y;
        }
        // A multiple of a row is as near as can be, whatever is rounded.
        let cosine = product / (left.sqrt() * right.sqrt());
        if 1.0 - cosine < 1e-13 { 1.0 } else { cosine }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::{lattice_set, random_set, scattered_duplicates};

    fn naive(set: &EmbeddingSet, threshold: f64) -> NearDuplicates {
        let len = set.len();
        let unit: Vec<Vec<f64>> = (0..len)
            .map(|row| {
                let row: Vec<f64> = set.row(row).iter().map(|value| f64::from(*value)).collect();
                let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
                row.into_iter().map(|value| value / length).collect()
            })
            .collect();
        let mut group: Vec<usize> = (0..len).collect();
        let mut pairs = 0;
        for i in 0..len {
            for j in i + 1..len {
                let score: f64 = unit[i].iter().zip(&unit[j]).map(|(a, b)| a * b).sum();
                if score >= threshold - 1e-13 {
                    pairs += 1;
                    let (old, new) = (group[i].max(group[j]), group[i].min(group[j]));
                    group
                        .iter_mut()
                        .filter(|name| **name == old)
                        .for_each(|name| *name = new);
                }
            }
        }
        let mut groups: Vec<Vec<u32>> = vec![Vec::new(); len];
        (0..len).for_each(|row| groups[group[row]].push(row as u32));
        groups.retain(|group| group.len() > 1);
        NearDuplicates { groups, pairs }
    }

    #[test]
    fn groups_equal_those_of_every_pair_in_double_precision() {
        for set in [
            random_set(1, 300, 3, 4),
            scattered_duplicates(2, 120, 9),
            lattice_set(3, 200, 4, 3),
            random_set(4, 70, 40, 3),
        ] {
            for threshold in [0.5, 0.8, 0.95, 0.999, 1.0] {
                let expected = naive(&set, threshold);
                for (memory, threads) in [(1 << 30, 2), (0, 1)] {
                    let options = EvaluationOptions {
                        memory,
                        threads,
                        ..EvaluationOptions::default()
                    };
                    let found = near_duplicates(&set, threshold, &options).unwrap();
                    assert_eq!(found, expected, "{} rows, {threshold}, {memory}", set.len());
                }
            }
        }
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let set = random_set(1, 10, 3, 2);
        let refused = |rows: &dyn Rows, threshold| {
            near_duplicates(rows, threshold, &EvaluationOptions::default())
                .unwrap_err()
                .to_string()
        };
        assert!(refused(&set, 1.5).contains("1.5"));
        assert!(refused(&EmbeddingSet::default(), 0.9).contains("empty"));
        let mut zero = set;
        zero.values[6..9].fill(0.0);
        assert!(refused(&zero, 0.9).contains("is zero"));
    }
}
