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

/// What a worker keeps from class to class.
#[derive(Default)]
struct Scratch {
    queries: Prepared,
    relevant: Prepared,
    scores: Vec<f32>,
    query: Vec<f64>,
    measured: Measured,
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
        let found = handed_out(together.len(), &mut Vec::new(), |scratch: &mut Scratch, number| {
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
            measured,
        } = scratch;
        self.gather(own, queries.iter().copied(), (self.queries, "query"), gathered)?;
        let padded = |gathered: &Prepared| 0..gathered.len.next_multiple_of(ROW_MULTIPLE);
        for known in self.relevance.known(queries[0]).chunks(TOGETHER) {
            let positions = known.iter().map(|&position| position as usize);
            // A class that searches itself is gathered once.
            let itself = self.gallery.is_none() && queries.iter().copied().eq(positions.clone());
            measured.clear(if itself { known.len() } else { 0 });
            let relevant = if itself {
                &*gathered
            } else {
                self.gather(target, positions, (self.target(), "gallery"), relevant)?;
                &*relevant
            };
            let (rows, columns) = (padded(gathered), padded(relevant));
            let width = columns.len();
            self.space.screen((gathered, rows), (relevant, columns), scores);
            let bias = &relevant.bias;
            vectorized(
                #[inline(always)]
                || {
                    let each = queries.iter().zip(&mut lists).zip(&mut judges).enumerate();
                    for ((number, ((&query, list), judge)), scores) in each.zip(scores.chunks_exact_mut(width)) {
                        for (score, &bias) in scores.iter_mut().zip(bias) {
                            *score += bias;
                        }
                        list.count += self.mask(query, known, scores);
                        own.widen(query, dim, row);
                        judge.judge(
                            scores,
                            known,
                            #[inline(always)]
                            |place| {
                                let position = known[place] as usize;
                                let other = target.raw(position, dim);
                                let apart = measured.of(
                                    number,
                                    place,
                                    #[inline(always)]
                                    || self.space.apart(row, other),
                                );
                                let key = self.space.key_of(apart, target.norm(position));
                                list.measured.push((key, known[place], 1.0));
                            },
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

    /// Prepares rows of a set that stand together.
    fn gather(
        &self,
        from: Block<'_>,
        positions: impl Iterator<Item = usize>,
        (set, what): (&dyn Rows, &'static str),
        gathered: &mut Prepared,
    ) -> Result<(), EvaluationError> {
        let positions: Vec<usize> = positions.collect();
        let fault = |row: usize, problem| row_error(set, what, positions[row], problem);
        let row = |row: usize| from.raw(positions[row], self.queries.dim());
        self.space.prepare_rows(positions.len(), row, &fault, gathered)
    }
}

/// What was measured between the rows of a class, which is the same from both sides.
#[derive(Default)]
struct Measured {
    /// `[rows, rows]`, no number where nothing was measured.
    apart: Vec<f64>,
    rows: usize,
}

impl Measured {
    /// Forgets all, for a class of so many rows; of none, for rows that do not search each other.
    fn clear(&mut self, rows: usize) {
        self.rows = rows;
        self.apart.clear();
        self.apart.resize(rows * rows, f64::NAN);
    }

    /// What `measure` says of two rows, or said of them in turn.
    #[inline(always)]
    fn of(&mut self, row: usize, other: usize, measure: impl FnOnce() -> f64) -> f64 {
        if self.rows == 0 {
            return measure();
        }
        let turned = self.apart[other * self.rows + row];
        if !turned.is_nan() {
            return turned;
        }
        let apart = measure();
        self.apart[row * self.rows + other] = apart;
        apart
    }
}
