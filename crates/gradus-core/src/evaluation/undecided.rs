//! Rows whose place among relevant items screening leaves open. They are counted behind all items in question, and decided once it is
//! known which items can still be within the horizon: of most, nobody asks any more.

use std::ops::Range;

use rayon::prelude::*;

use super::exact_search::{Block, Search};
use super::tally::Tally;
use crate::vectorized::vectorized;

/// Rows whose distances are computed side by side, so that the memory is asked for several at once.
const SIDE_BY_SIDE: usize = 4;

/// A row of the gallery and some relevant items of a query, of which it is open which stand before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Undecided {
    pub(super) query: u32,
    pub(super) row: u32,
    /// Items that stand before it for sure.
    pub(super) certain: u32,
    /// Items that may stand before it.
    pub(super) uncertain: u32,
    /// Whether it was counted, before item `uncertain`.
    pub(super) counted: bool,
}

/// How many rows wait.
pub(super) fn waiting(undecided: &[&mut Vec<Undecided>]) -> usize {
    undecided.iter().map(|rows| rows.len()).sum()
}

/// Forgets those of which nobody asks any more, and says how many are left.
pub(super) fn still_matter(undecided: &mut [&mut Vec<Undecided>], tally: &Tally) -> usize {
    undecided
        .par_iter_mut()
        .for_each(|rows| rows.retain(|row| tally.matters(row)));
    waiting(undecided)
}

/// Those that still matter, those of each of the `queries` side by side. The lists are empty then.
fn by_query(undecided: &mut [&mut Vec<Undecided>], tally: &Tally, queries: Range<usize>) -> Vec<Undecided> {
    still_matter(undecided, tally);
    let open = || undecided.iter().flat_map(|rows| rows.iter());
    let Some(&any) = open().next() else {
        return Vec::new();
    };
    let mut ends = vec![0_usize; queries.len() + 1];
    for row in open() {
        ends[row.query as usize - queries.start + 1] += 1;
    }
    for query in 0..queries.len() {
        ends[query + 1] += ends[query];
    }
    let mut sorted = vec![any; ends[queries.len()]];
    for row in open() {
        let at = &mut ends[row.query as usize - queries.start];
        sorted[*at] = *row;
        *at += 1;
    }
    for rows in undecided {
        rows.clear();
    }
    sorted
}

impl Search<'_> {
    /// Decides what was left open while the queries `queries`, counted from `first_query` on, were counted.
    pub(super) fn settle(
        &self,
        own: Block<'_>,
        first_query: usize,
        queries: Range<usize>,
        target: Block<'_>,
        tally: &Tally,
        undecided: &mut [&mut Vec<Undecided>],
    ) {
        let open = by_query(undecided, tally, queries);
        open.par_chunk_by(|a, b| a.query == b.query).for_each(|rows| {
            vectorized(
                #[inline(always)]
                || {
                    let mut single = true;
                    for rows in rows.chunks(SIDE_BY_SIDE) {
                        single = self.decide(own, first_query, target, tally, rows, single);
                    }
                },
            );
        });
    }

    /// Decides some rows for the same query, in `single` precision where that will do, and says whether it did for any.
    #[inline(always)]
    fn decide(
        &self,
        own: Block<'_>,
        first_query: usize,
        target: Block<'_>,
        tally: &Tally,
        rows: &[Undecided],
        single: bool,
    ) -> bool {
        let dim = self.queries.dim();
        let query = first_query + rows[0].query as usize;
        let given = own.raw(query, dim);
        let others: [_; SIDE_BY_SIDE] = std::array::from_fn(
            #[inline(always)]
            |place| {
                let row = rows[place.min(rows.len() - 1)].row as usize;
                (target.raw(row, dim), target.norm(row))
            },
        );
        let rough = single.then(
            #[inline(always)]
            || {
                self.space
                    .rough_scores(others.map(|other| [(given, own.norm(query)), other]))
            },
        );
        let rough = rough.flatten();
        let mut exact = 0;
        for (place, &row) in rows.iter().enumerate() {
            let rough = rough.map(|(scores, error)| (scores[place], error));
            let (other, norm) = others[place];
            let place = tally.decide(
                row,
                rough,
                #[inline(always)]
                || {
                    exact += 1;
                    self.space.key(given, other, norm)
                },
            );
            tally.settle(row, place);
        }
        exact < rows.len()
    }
}
