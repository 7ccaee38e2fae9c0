//! What both ways of searching exactly share: rows of two sets that were prepared for matrix products, and the blocks they are cut into.

use std::ops::Range;

use super::EvaluationError;
use super::blocks::ranges;
use super::plan::Tile;
use super::relevance::Relevance;
use super::rows::Rows;
use super::search_distance::{Prepared, Space, row_error};
use super::unit_rows::ROW_MULTIPLE;

/// Prepared rows with what they were made from.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    raw: &'a [f32],
    pub(super) prepared: &'a Prepared,
    /// Position of its first row in the whole set.
    pub(super) first: usize,
    /// The place of each prepared row among those as given; empty where that is its own.
    order: &'a [u32],
}

impl<'a> Block<'a> {
    pub(super) fn new(raw: &'a [f32], prepared: &'a Prepared, first: usize) -> Self {
        let order = &[];
        Self {
            raw,
            prepared,
            first,
            order,
        }
    }

    /// Where a row stands in the set as given.
    #[inline(always)]
    pub(super) fn index(&self, position: usize) -> usize {
        self.order.get(position).map_or(position, |&index| index as usize)
    }

    /// The row at a position of the whole set, as given.
    #[inline(always)]
    pub(super) fn raw(&self, position: usize, dim: usize) -> &'a [f32] {
        self.given(self.index(position) - self.first, dim)
    }

    /// The row at a place of those as given.
    #[inline(always)]
    pub(super) fn given(&self, place: usize, dim: usize) -> &'a [f32] {
        &self.raw[place * dim..(place + 1) * dim]
    }

    /// The row at a position of the whole set in double precision.
    #[inline(always)]
    pub(super) fn widen(&self, position: usize, dim: usize, row: &mut Vec<f64>) {
        row.resize(dim, 0.0);
        for (wide, &value) in row.iter_mut().zip(self.raw(position, dim)) {
            *wide = f64::from(value);
        }
    }

    #[inline(always)]
    pub(super) fn norm(&self, position: usize) -> f64 {
        self.prepared.norms[position - self.first]
    }

    pub(super) fn end(&self) -> usize {
        self.first + self.prepared.len
    }

    /// The prepared rows at positions whose start is a multiple of [`ROW_MULTIPLE`] within the block, with those that pad them.
    pub(super) fn padded(&self, positions: Range<usize>) -> (&'a Prepared, Range<usize>) {
        let end = (positions.end - self.first).next_multiple_of(ROW_MULTIPLE);
        (self.prepared, positions.start - self.first..end)
    }

    pub(super) fn bias(&self, positions: Range<usize>) -> &'a [f32] {
        if self.prepared.bias.is_empty() {
            return &[];
        }
        &self.prepared.bias[positions.start - self.first..positions.end - self.first]
    }
}

pub(super) struct Search<'a> {
    pub(super) queries: &'a dyn Rows,
    pub(super) gallery: Option<&'a dyn Rows>,
    pub(super) relevance: &'a Relevance,
    pub(super) space: &'a Space,
    pub(super) tile: Tile,
    /// How many rows may wait to be decided.
    pub(super) undecided: usize,
}

impl Search<'_> {
    pub(super) fn target(&self) -> &dyn Rows {
        self.gallery.unwrap_or(self.queries)
    }

    /// How far a row at hand is from a query that was widened, exactly.
    #[inline(always)]
    pub(super) fn key(&self, query: &[f64], target: Block<'_>, at: usize) -> f64 {
        self.space
            .key(query, target.raw(at, self.queries.dim()), target.norm(at))
    }

    /// Both sets, which lie in memory, prepared, what is searched in the given order.
    pub(super) fn resident<'a>(
        &'a self,
        own: &'a mut Prepared,
        other: &'a mut Prepared,
        order: &'a [u32],
    ) -> Result<(Block<'a>, Block<'a>), EvaluationError> {
        match self.gallery {
            None => {
                let own = self.prepared(self.queries, "query", order, own)?;
                Ok((own, own))
            }
            Some(gallery) => Ok((
                self.prepared(self.queries, "query", &[], own)?,
                self.prepared(gallery, "gallery", order, other)?,
            )),
        }
    }

    fn prepared<'a>(
        &self,
        set: &'a dyn Rows,
        what: &'static str,
        order: &'a [u32],
        prepared: &'a mut Prepared,
    ) -> Result<Block<'a>, EvaluationError> {
        let (raw, dim) = (set.in_memory().unwrap_or_default(), set.dim());
        let index = |row: usize| order.get(row).map_or(row, |&index| index as usize);
        let fault = |row, problem| row_error(set, what, index(row), problem);
        let row = |row| &raw[index(row) * dim..(index(row) + 1) * dim];
        self.space.prepare_rows(raw.len() / dim, row, &fault, prepared)?;
        Ok(Block {
            raw,
            prepared,
            first: 0,
            order,
        })
    }

    /// By how much screening can be wrong for a query, whichever row of the gallery it is compared with.
    pub(super) fn slack(&self, own: Block<'_>, target: Block<'_>, query: usize) -> f64 {
        self.space.slack(own.prepared, query - own.first, Some(target.prepared))
    }

    /// The side of blocks that meet each other.
    pub(super) fn side(&self) -> usize {
        match self.tile.queries.min(self.tile.gallery) {
            // The kernel's own 24 rows, too, go into this many without rest.
            256 => 192,
            smaller => smaller,
        }
    }

    /// Screens queries against a part of the gallery.
    pub(super) fn screen_tile(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        target: Block<'_>,
        columns: Range<usize>,
        scores: &mut Vec<f32>,
    ) {
        self.space.screen(own.padded(rows), target.padded(columns), scores);
    }
}

/// Blocks of at most `side` rows of which each meets each once. A block meets itself in halves: then the products of one half with the
/// other, too, are made once and seen from both sides.
pub(super) fn pairs_of_blocks(rows: usize, side: usize) -> Vec<(Range<usize>, Range<usize>)> {
    let blocks: Vec<_> = ranges(0..rows, side).collect();
    let mut pairs = Vec::new();
    for (number, block) in blocks.iter().enumerate() {
        let half = block.len().div_ceil(2).next_multiple_of(ROW_MULTIPLE);
        let halves: Vec<_> = ranges(block.clone(), half).collect();
        pairs.extend(halves.iter().map(|half| (half.clone(), half.clone())));
        if let [first, second] = &halves[..] {
            pairs.push((first.clone(), second.clone()));
        }
        pairs.extend(blocks[number + 1..].iter().map(|other| (block.clone(), other.clone())));
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_meets_every_row_once() {
        for (rows, side) in [(1, 32), (31, 32), (33, 32), (64, 64), (100, 64), (193, 192), (500, 192)] {
            let mut met = vec![0; rows * rows];
            for (some, others) in pairs_of_blocks(rows, side) {
                // Where prepared rows can be cut.
                assert!(some.start.is_multiple_of(ROW_MULTIPLE) && others.start.is_multiple_of(ROW_MULTIPLE));
                assert!(some.len() <= side && others.len() <= side);
                for row in some.clone() {
                    for other in others.clone() {
                        met[row * rows + other] += 1;
                        met[other * rows + row] += usize::from(some != others);
                    }
                }
            }
            assert!(met.iter().all(|&times| times == 1), "{rows} {side}");
        }
    }
}
