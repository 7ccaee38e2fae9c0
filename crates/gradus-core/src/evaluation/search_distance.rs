//! What "nearest" means, and how rows are prepared so that matrix products find it.
//!
//! A search runs in two precisions. Single-precision products of prepared rows **screen**: they place almost every row on one
//! side of a relevant item for sure, because their error has a proven bound ([`Space::slack`]). The few rows inside the bound
//! are compared by [`Space::key`], computed in double precision from the rows as they were given. So the ranking is that of
//! double precision, whatever the block size, the number of threads or the kernel. For the cosine, products of rows rounded to
//! 16 bits can screen instead (`integer_products.rs`): faster, with a wider bound.

use std::ops::{Range, RangeInclusive};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::EvaluationError;
use super::blocks::products;
use super::integer_products::{IntegerProducts, IntegerRows, slack, worst_error};
use super::rows::Rows;
use super::single_dots::{roundings, single_dots};
use super::unit_rows::{DEPTH_MULTIPLE, ROW_MULTIPLE};
use crate::vectorized::vectorized;

/// By what the gallery is ranked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SearchDistance {
    /// Cosine of the angle, larger is nearer; the default, as in the papers of the benchmarks.
    #[default]
    Cosine,
    /// Inner product of the rows as they are, larger is nearer.
    InnerProduct,
    /// Euclidean distance of the rows as they are, smaller is nearer.
    Euclidean,
}

/// Rows read at a time while the extent of a set is measured.
const SURVEYED: usize = 4096;

/// Rows made ready for matrix products, padded with zeros to [`ROW_MULTIPLE`] rows and [`DEPTH_MULTIPLE`] columns.
#[derive(Clone, Debug, Default)]
pub(super) struct Prepared {
    pub(super) len: usize,
    pub(super) stride: usize,
    /// Empty where the rows are screened in integers.
    pub(super) values: Vec<f32>,
    /// Empty where they are screened in single precision.
    pub(super) integers: IntegerRows,
    /// Length of each row: as given for the cosine, as prepared otherwise.
    pub(super) norms: Vec<f64>,
    /// What is added to the product with each row; empty where nothing is.
    pub(super) bias: Vec<f32>,
}

impl Prepared {
    fn padded_len(&self) -> usize {
        self.len.next_multiple_of(ROW_MULTIPLE)
    }

    fn padded_values(&self, rows: Range<usize>) -> &[f32] {
        &self.values[rows.start * self.stride..rows.end * self.stride]
    }
}

/// The coordinates in which two sets are screened.
#[derive(Clone, Debug)]
pub(super) struct Space {
    distance: SearchDistance,
    dim: usize,
    /// Subtracted before products (Euclidean distance: a common offset would eat the digits of small distances).
    centre: Vec<f64>,
    /// A power of two, so that scaling is exact.
    scale: f64,
    /// The longest prepared row.
    reach: f64,
    /// Rows are screened in integers.
    integers: Option<IntegerProducts>,
}

impl Space {
    /// Measures what the distance needs to know of both sets: nothing for the cosine, else one pass over each. With `integers`,
    /// which is for the cosine only, rows are screened by them.
    pub(super) fn new(
        distance: SearchDistance,
        integers: Option<IntegerProducts>,
        queries: &dyn Rows,
        gallery: Option<&dyn Rows>,
    ) -> Result<Self, EvaluationError> {
        let dim = queries.dim();
        let mut space = Self {
            distance,
            dim,
            centre: vec![0.0; dim],
            scale: 1.0,
            reach: 1.0,
            integers: integers.filter(|_| distance == SearchDistance::Cosine),
        };
        if distance == SearchDistance::Cosine {
            return Ok(space);
        }
        let sets: Vec<(&dyn Rows, &'static str)> = std::iter::once((queries, "query"))
            .chain(gallery.map(|gallery| (gallery, "gallery")))
            .collect();
        if distance == SearchDistance::Euclidean {
            let mut centre = vec![0.0_f64; dim];
            let mut count = 0_usize;
            each_block(&sets, |rows| {
                count += rows.len() / dim;
                for row in rows.chunks_exact(dim) {
                    for (centre, &value) in centre.iter_mut().zip(row) {
                        *centre += f64::from(value);
                    }
                }
            })?;
            // Only a shift: any finite centre gives right results, the mean gives the least work.
            space.centre = centre.iter().map(|sum| sum / count.max(1) as f64).collect();
        }
        let mut longest = 0.0_f64;
        each_block(&sets, |rows| {
            for row in rows.chunks_exact(dim) {
                longest = longest.max(space.length(row));
            }
        })?;
        if longest > 0.0 {
            space.scale = (-longest.log2().ceil()).exp2();
        }
        space.reach = (longest * space.scale).max(f64::MIN_POSITIVE);
        Ok(space)
    }

    /// Whether rows are screened in integers.
    pub(super) fn in_integers(&self) -> bool {
        self.integers.is_some()
    }

    fn length(&self, row: &[f32]) -> f64 {
        let squares = row
            .iter()
            .zip(&self.centre)
            .map(|(&value, centre)| (f64::from(value) - centre).powi(2));
        squares.sum::<f64>().sqrt()
    }

    /// Prepares rows `[len, dim]`; `fault(row, problem)` makes the error for a row that cannot be compared.
    pub(super) fn prepare(
        &self,
        raw: &[f32],
        fault: &(dyn Fn(usize, &'static str) -> EvaluationError + Sync),
        prepared: &mut Prepared,
    ) -> Result<(), EvaluationError> {
        let row = |row: usize| &raw[row * self.dim..(row + 1) * self.dim];
        self.prepare_rows(raw.len() / self.dim, row, fault, prepared)
    }

    /// Prepares `len` rows that need not stand one after the other.
    pub(super) fn prepare_rows<'a>(
        &self,
        len: usize,
        source: impl Fn(usize) -> &'a [f32] + Sync,
        fault: &(dyn Fn(usize, &'static str) -> EvaluationError + Sync),
        prepared: &mut Prepared,
    ) -> Result<(), EvaluationError> {
        let stride = self.dim.next_multiple_of(DEPTH_MULTIPLE);
        prepared.len = len;
        prepared.stride = stride;
        prepared.norms.clear();
        prepared.norms.resize(len, 0.0);
        if self.integers.is_some() {
            let (rows, norms) = (prepared.padded_len(), &mut prepared.norms);
            #[expect(
                clippy::redundant_closure,
                reason = "a function passed by its name is called as it was compiled: without AVX2"
            )]
            let found = prepared.integers.fill(
                source,
                rows,
                stride,
                norms,
                #[inline(always)]
                |row| directed(row),
            );
            return match found {
                Some((row, problem)) => Err(fault(row, problem)),
                None => Ok(()),
            };
        }
        prepared.values.clear();
        prepared.values.resize(prepared.padded_len() * stride, 0.0);
        let faulty = prepared
            .values
            .par_chunks_exact_mut(stride)
            .zip(&mut prepared.norms)
            .enumerate()
            .with_min_len(64)
            .filter_map(|(row, (target, norm))| {
                let source = source(row);
                let problem = vectorized(
                    #[inline(always)]
                    || self.prepare_row(source, target, norm),
                );
                Some((row, problem.err()?))
            })
            .min_by_key(|&(row, _)| row);
        if let Some((row, problem)) = faulty {
            return Err(fault(row, problem));
        }
        prepared.bias.clear();
        if self.distance == SearchDistance::Euclidean {
            prepared
                .bias
                .extend(prepared.norms.iter().map(|norm| (-norm * norm / 2.0) as f32));
            prepared.bias.resize(prepared.padded_len(), 0.0);
        }
        Ok(())
    }

    /// Prepares one row, or says what is wrong with it.
    #[inline(always)]
    fn prepare_row(&self, source: &[f32], target: &mut [f32], norm: &mut f64) -> Result<(), &'static str> {
        match self.distance {
            SearchDistance::Cosine => {
                let length = directed(source)?;
                *norm = length;
                for (unit, &value) in target.iter_mut().zip(source) {
                    *unit = (f64::from(value) / length) as f32;
                }
            }
            SearchDistance::InnerProduct | SearchDistance::Euclidean => {
                let length = self.length(source);
                if !length.is_finite() {
                    return Err(NOT_FINITE);
                }
                *norm = length * self.scale;
                for ((target, &value), centre) in target.iter_mut().zip(source).zip(&self.centre) {
                    *target = ((f64::from(value) - centre) * self.scale) as f32;
                }
            }
        }
        Ok(())
    }

    /// Screens rows of one prepared block against rows of another, both from a multiple of [`ROW_MULTIPLE`] to another.
    ///
    /// # Shapes
    /// `scores` becomes row-major `[queries, gallery]`; the bias is not yet added.
    pub(super) fn screen(
        &self,
        queries: (&Prepared, Range<usize>),
        gallery: (&Prepared, Range<usize>),
        scores: &mut Vec<f32>,
    ) {
        let ((queries, rows), (gallery, columns)) = (queries, gallery);
        match self.integers {
            Some(integers) => {
                integers.products(queries.integers.panels(rows), gallery.integers.panels(columns), scores);
            }
            None => products(
                queries.padded_values(rows),
                gallery.padded_values(columns),
                queries.stride,
                scores,
            ),
        }
    }

    /// How far a gallery row is from a query, in double precision: smaller is nearer, whatever the distance.
    #[inline(always)]
    pub(super) fn key<Q: Copy + Into<f64>>(&self, query: &[Q], row: &[f32], row_norm: f64) -> f64 {
        self.key_of(self.apart(query, row), row_norm)
    }

    /// What there is to measure between two rows, the same to the last bit if they are exchanged.
    #[inline(always)]
    pub(super) fn apart<Q: Copy + Into<f64>>(&self, query: &[Q], row: &[f32]) -> f64 {
        match self.distance {
            SearchDistance::Cosine | SearchDistance::InnerProduct => dot(query, row),
            SearchDistance::Euclidean => squared_distance(query, row),
        }
    }

    /// The [`key`](Self::key) of a row that is so far [`apart`](Self::apart) from a query.
    #[inline(always)]
    pub(super) fn key_of(&self, apart: f64, row_norm: f64) -> f64 {
        match self.distance {
            SearchDistance::Cosine => -apart / row_norm,
            SearchDistance::InnerProduct => -apart,
            SearchDistance::Euclidean => apart,
        }
    }

    /// By how much a [`rough_score`](Self::rough_score) can be off; `None` where single precision is of no use.
    ///
    /// Sums as in [`slack`](Self::slack), of as many terms as [`roundings`] says.
    #[inline(always)]
    pub(super) fn rough_error(&self) -> Option<f64> {
        /// More than the arithmetic in double precision can err by, and products that vanish.
        const NEGLECTED: f64 = 1e-9;
        let depth = roundings(self.dim) as f64 * f64::from(f32::EPSILON) / 2.0;
        let error = 1.01 * depth / (1.0 - depth).max(0.01) + NEGLECTED;
        (self.distance == SearchDistance::Cosine).then_some(error)
    }

    /// The screened number of two rows of these lengths anew, from their inner product in single precision; `None` where that is of no
    /// use.
    #[inline(always)]
    pub(super) fn rough_score(&self, product: f32, query_norm: f64, row_norm: f64) -> Option<f64> {
        /// Lengths of rows whose products neither overflow in single precision nor vanish.
        const LENGTHS: RangeInclusive<f64> = 1e-12..=1e12;
        let fit = LENGTHS.contains(&query_norm) && LENGTHS.contains(&row_norm);
        fit.then(
            #[inline(always)]
            || f64::from(product) / (query_norm * row_norm),
        )
    }

    /// [`rough_score`](Self::rough_score) of pairs of rows, each with its length, and by how much each can be off. The rows of all pairs
    /// are read side by side.
    #[inline(always)]
    pub(super) fn rough_scores<const PAIRS: usize>(
        &self,
        pairs: [[(&[f32], f64); 2]; PAIRS],
    ) -> Option<([f64; PAIRS], f64)> {
        let error = self.rough_error()?;
        let products = single_dots(pairs.map(
            #[inline(always)]
            |pair| pair.map(|row| row.0),
        ));
        let mut scores = [0.0; PAIRS];
        for (score, (product, [query, row])) in scores.iter_mut().zip(products.into_iter().zip(pairs)) {
            *score = self.rough_score(product, query.1, row.1)?;
        }
        Some((scores, error))
    }

    /// The number that screening would give for this key if it made no error.
    #[inline(always)]
    pub(super) fn screened(&self, key: f64, query_norm: f64) -> f64 {
        match self.distance {
            SearchDistance::Cosine => -key / query_norm,
            SearchDistance::InnerProduct => -key * self.scale * self.scale,
            SearchDistance::Euclidean => (query_norm * query_norm - key * self.scale * self.scale) / 2.0,
        }
    }

    /// By how much screening can be wrong for a row of `queries`, whichever row of `gallery` (`None`: any there could be) it is
    /// compared with.
    ///
    /// In integers: see `integer_products.rs`. In single precision:
    /// A sum of d products in any order errs by at most `d u / (1 - d u) |q| |g|`, u = 2^-24 (Higham, Accuracy and Stability
    /// of Numerical Algorithms, 2002, section 3.1). The 8 more cover the rounding of both prepared rows, of the bias and of
    /// its addition; the last term covers products below the normal range.
    pub(super) fn slack(&self, queries: &Prepared, row: usize, gallery: Option<&Prepared>) -> f64 {
        if self.integers.is_some() {
            let any = worst_error(self.dim);
            let gallery = gallery.map_or(any, |gallery| gallery.integers.largest_error());
            return slack(self.dim, queries.integers.error(row), gallery);
        }
        let query_norm = queries.norms[row];
        let depth = self.dim.next_multiple_of(DEPTH_MULTIPLE) as f64 + 8.0;
        let unit = f64::from(f32::EPSILON) / 2.0;
        let share = 1.01 * depth * unit / (1.0 - depth * unit).max(0.01);
        let size = match self.distance {
            SearchDistance::Cosine => 1.0,
            SearchDistance::InnerProduct => query_norm * self.reach,
            SearchDistance::Euclidean => query_norm * self.reach + self.reach * self.reach,
        };
        share * size + 1e-36
    }
}

const NOT_FINITE: &str = "holds a value that is not finite";

/// The length of a row, which has to have a direction.
#[inline(always)]
fn directed(row: &[f32]) -> Result<f64, &'static str> {
    let length = dot(row, row).sqrt();
    // In double precision: no finite single-precision row overflows or vanishes.
    if !length.is_finite() {
        Err(NOT_FINITE)
    } else if length == 0.0 {
        Err("is zero")
    } else {
        Ok(length)
    }
}

fn each_block(sets: &[(&dyn Rows, &'static str)], mut visit: impl FnMut(&[f32])) -> Result<(), EvaluationError> {
    let mut buffer = Vec::new();
    for (set, what) in sets {
        for first in (0..set.len()).step_by(SURVEYED) {
            let rows = first..(first + SURVEYED).min(set.len());
            let values = set.read(rows, &mut buffer)?;
            if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                let row = first + at / set.dim();
                return Err(row_error(*set, what, row, NOT_FINITE));
            }
            visit(values);
        }
    }
    Ok(())
}

pub(super) fn row_error(set: &dyn Rows, what: &'static str, row: usize, problem: &'static str) -> EvaluationError {
    EvaluationError::Row {
        what,
        row,
        id: set.name(row),
        problem,
    }
}

const LANES: usize = 16;

/// Inner product in double precision, always summed in the same order.
#[inline(always)]
pub(super) fn dot<A: Copy + Into<f64>>(a: &[A], b: &[f32]) -> f64 {
    sum_of(a, b, |x, y| x * y)
}

/// Inner product in single precision, always summed in the same order.
#[inline(always)]
pub(super) fn single_dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 32;
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    lanes.iter().sum::<f32>() + rest
}

#[inline(always)]
fn squared_distance<A: Copy + Into<f64>>(a: &[A], b: &[f32]) -> f64 {
    sum_of(a, b, |x, y| (x - y) * (x - y))
}

#[inline(always)]
fn sum_of<A: Copy + Into<f64>>(a: &[A], b: &[f32], term: impl Fn(f64, f64) -> f64) -> f64 {
    let mut lanes = [0.0_f64; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] += term(x[lane].into(), f64::from(y[lane]));
        }
    }
    let rest: f64 = a_rest
        .iter()
        .zip(b_rest)
        .map(|(&x, &y)| term(x.into(), f64::from(y)))
        .sum();
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::random_set;

    /// What screening computes stays within the slack of what it stands for.
    #[test]
    fn screening_keeps_its_promise() {
        for integers in [None, IntegerProducts::detect()] {
            promise_is_kept(integers);
        }
    }

    fn promise_is_kept(integers: Option<IntegerProducts>) {
        for (offset, size) in [(0.0_f32, 1.0_f32), (1000.0, 1.0), (0.0, 1e30), (3.0, 1e-30)] {
            for distance in [
                SearchDistance::Cosine,
                SearchDistance::InnerProduct,
                SearchDistance::Euclidean,
            ] {
                let mut set: EmbeddingSet = random_set(5, 60, 37, 4);
                for value in &mut set.values {
                    *value = (*value + offset) * size;
                }
                let space = Space::new(distance, integers, &set, None).unwrap();
                let mut prepared = Prepared::default();
                let fault = |row, problem| row_error(&set, "query", row, problem);
                space.prepare(&set.values, &fault, &mut prepared).unwrap();
                let mut scores = Vec::new();
                space.screen((&prepared, 0..64), (&prepared, 0..64), &mut scores);
                for q in 0..60 {
                    for g in 0..60 {
                        let sum = scores[q * 64 + g] + prepared.bias.get(g).copied().unwrap_or(0.0);
                        let key = space.key(set.row(q), set.row(g), prepared.norms[g]);
                        let ideal = space.screened(key, prepared.norms[q]);
                        for gallery in [Some(&prepared), None] {
                            let slack = space.slack(&prepared, q, gallery);
                            assert!(
                                (f64::from(sum) - ideal).abs() <= slack,
                                "{distance:?} {offset} {size}: {sum} {ideal} {slack}"
                            );
                        }
                    }
                }
            }
        }
    }
}
