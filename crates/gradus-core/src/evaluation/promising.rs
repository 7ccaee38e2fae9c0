//! Which relevant items can be within the horizon: those of queries that know the same rows are screened together, and only what is
//! not hopeless then is measured in double precision.

use std::ops::Range;

use super::EvaluationError;
use super::blocks::handed_out;
use super::held_back::HeldBack;
use super::rows::Rows;
use super::search::{Block, Search};
use super::search_distance::{Prepared, row_error};
use super::tally::RelevantItems;
use super::unit_rows::ROW_MULTIPLE;
use crate::vectorized::vectorized;

/// Queries, and rows relevant to them, that are screened at a time.
pub(super) const TOGETHER: usize = 128;

/// Rows that were gathered from all over a set.
#[derive(Default)]
struct Gathered {
    raw: Vec<f32>,
    prepared: Prepared,
}

/// What a worker keeps from class to class.
#[derive(Default)]
struct Scratch {
    queries: Gathered,
    relevant: Gathered,
    scores: Vec<f32>,
    query: Vec<f64>,
}

impl Search<'_> {
    /// The relevant items of the queries `rows`: measured where they can reach the score `hopeless` of their query, and the nearest of
    /// the others. All are relevant to the same degree.
    pub(super) fn promising(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        target: Block<'_>,
        hopeless: &[f32],
        slacks: &[f64],
    ) -> Result<Vec<RelevantItems>, EvaluationError> {
        let mut queries: Vec<usize> = rows.clone().collect();
        queries.sort_by_key(|&query| self.relevance.group(query));
        let together: Vec<&[usize]> = queries
            .chunk_by(|&a, &b| self.relevance.group(a) == self.relevance.group(b))
            .flat_map(|class| class.chunks(TOGETHER))
            .collect();
        let found = handed_out(together.len(), |scratch: &mut Scratch, number| {
            let queries = together[number];
            let judges = queries.iter().map(|query| {
                let offset = query - rows.start;
                HeldBack::new(hopeless[offset], slacks[offset])
            });
            (queries, self.judged(own, queries, target, judges.collect(), scratch))
        });
        let mut lists = vec![RelevantItems::default(); rows.len()];
        for (queries, found) in found {
            for (query, list) in queries.iter().zip(found?) {
                lists[query - rows.start] = list;
            }
        }
        Ok(lists)
    }

    /// The relevant items of queries that know the same rows.
    fn judged(
        &self,
        own: Block<'_>,
        queries: &[usize],
        target: Block<'_>,
        mut judges: Vec<HeldBack>,
        scratch: &mut Scratch,
    ) -> Result<Vec<RelevantItems>, EvaluationError> {
        let mut lists = vec![RelevantItems::default(); queries.len()];
        let dim = self.queries.dim();
        let Scratch {
            queries: gathered,
            relevant,
            scores,
            query: row,
        } = scratch;
        self.gather(own, queries.iter().copied(), (self.queries, "query"), gathered)?;
        let padded = |gathered: &Gathered| 0..gathered.prepared.len.next_multiple_of(ROW_MULTIPLE);
        for known in self.relevance.known(queries[0]).chunks(TOGETHER) {
            let positions = known.iter().map(|&position| position as usize);
            // A class that searches itself is gathered once.
            let relevant = if self.gallery.is_none() && queries.iter().copied().eq(positions.clone()) {
                &*gathered
            } else {
                self.gather(target, positions, (self.target(), "gallery"), relevant)?;
                &*relevant
            };
            let (rows, columns) = (padded(gathered), padded(relevant));
            let width = columns.len();
            self.space
                .screen((&gathered.prepared, rows), (&relevant.prepared, columns), scores);
            let at_hand = Block::new(&relevant.raw, &relevant.prepared, 0);
            let bias = &relevant.prepared.bias;
            vectorized(
                #[inline(always)]
                || {
                    let each = queries.iter().zip(&mut lists).zip(&mut judges);
                    for (((&query, list), judge), scores) in each.zip(scores.chunks_exact_mut(width)) {
                        for (score, &bias) in scores.iter_mut().zip(bias) {
                            *score += bias;
                        }
                        list.count += self.mask(query, known, scores);
                        own.widen(query, dim, row);
                        judge.judge(
                            scores,
                            known,
                            #[inline(always)]
                            |place| list.measured.push((self.key(row, at_hand, place), known[place], 1.0)),
                        );
                    }
                },
            );
        }
        for ((&query, list), judge) in queries.iter().zip(&mut lists).zip(&mut judges) {
            vectorized(
                #[inline(always)]
                || {
                    own.widen(query, dim, row);
                    judge.finish(
                        list,
                        #[inline(always)]
                        |position| self.key(row, target, position as usize),
                    );
                },
            );
        }
        Ok(lists)
    }

    /// Overwrites the scores of rows a query knows that are not relevant to it, and says how many are.
    #[inline(always)]
    fn mask(&self, query: usize, known: &[u32], scores: &mut [f32]) -> usize {
        if self.relevance.plain() {
            let itself = known.binary_search(&(query as u32)).ok();
            let itself = itself.filter(|_| self.gallery.is_none());
            if let Some(place) = itself {
                scores[place] = f32::NEG_INFINITY;
            }
            return known.len() - usize::from(itself.is_some());
        }
        let within = known[0]..known[known.len() - 1].saturating_add(1);
        let (mut count, mut place) = (0, 0);
        for (position, _) in self.relevance.relevant_within(query, within) {
            while known[place] != position {
                scores[place] = f32::NEG_INFINITY;
                place += 1;
            }
            place += 1;
            count += 1;
        }
        scores[place..known.len()].fill(f32::NEG_INFINITY);
        count
    }

    /// Copies and prepares rows of a set.
    fn gather(
        &self,
        from: Block<'_>,
        positions: impl Iterator<Item = usize> + Clone + Sync,
        (set, what): (&dyn Rows, &'static str),
        gathered: &mut Gathered,
    ) -> Result<(), EvaluationError> {
        let Gathered { raw, prepared } = gathered;
        raw.clear();
        for position in positions.clone() {
            raw.extend_from_slice(from.raw(position, self.queries.dim()));
        }
        let fault = |row: usize, problem| row_error(set, what, positions.clone().nth(row).unwrap_or(row), problem);
        self.space.prepare(raw, &fault, prepared)
    }
}
