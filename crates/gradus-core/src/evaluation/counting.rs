//! Exact search by counting: how many rows of the gallery stand before each relevant item.
//!
//! Blocks of products are counted as soon as they are made; where queries search each other each block serves both sides.

use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{handed_out, ranges};
use super::exact_search::{Block, Search, pairs_of_blocks};
use super::integer_products::IntegerProducts;
use super::plan::Plan;
use super::ranks::{Horizon, PositiveRanks};
use super::relevance::Relevance;
use super::rows::Rows;
use super::search_distance::{Prepared, Space, row_error};
use super::tally::{Positive, Tally};
use super::transpose::transpose;
use super::undecided::{Undecided, still_matter, waiting};
use super::unit_rows::ROW_MULTIPLE;
use super::{EvaluationError, EvaluationOptions};
use crate::vectorized::vectorized;

/// [`rank_positives`](super::rank_positives) by counting, screened in integers or in single precision.
pub(super) fn counted(
    integers: Option<IntegerProducts>,
    queries: &dyn Rows,
    gallery: Option<&dyn Rows>,
    relevance: &Relevance,
    horizon: Horizon,
    options: &EvaluationOptions,
) -> Result<PositiveRanks, EvaluationError> {
    let space = Space::new(options.distance, integers, queries, gallery)?;
    let plan = Plan::new(queries, gallery, relevance, space.in_integers(), options);
    let search = Search {
        queries,
        gallery,
        relevance,
        space: &space,
        tile: plan.tile,
        undecided: plan.undecided,
    };
    let mut found = PositiveRanks::empty(relevance.graded());
    if plan.resident {
        let (mut own, mut other) = (Prepared::default(), Prepared::default());
        let (own, target) = search.resident(&mut own, &mut other, &[])?;
        for rows in &plan.chunks {
            let tally = search.tally(own, rows.clone(), horizon, Some(target), 0)?;
            if gallery.is_none() && plan.chunks.len() == 1 {
                search.count_both_sides(own, &tally);
            } else {
                search.count(own, rows.clone(), target, &tally);
            }
            found.extend(tally.finish());
        }
    } else {
        let (mut buffer, mut prepared) = (Vec::new(), Prepared::default());
        for rows in &plan.chunks {
            let first = rows.start;
            let raw = queries.read(rows.clone(), &mut buffer)?;
            space.prepare(
                raw,
                &|row, problem| row_error(queries, "query", first + row, problem),
                &mut prepared,
            )?;
            let own = Block::new(raw, &prepared, first);
            let tally = search.tally(own, rows.clone(), horizon, None, plan.streamed_rows)?;
            search.stream(own, rows.clone(), plan.streamed_rows, &tally)?;
            found.extend(tally.finish());
        }
    }
    Ok(found)
}

/// Pairs of blocks that are counted before it is looked how many rows wait to be decided.
const ROUND: usize = 128;

/// What a worker keeps from block to block.
#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    transposed: Vec<f32>,
    raw: Vec<f32>,
    prepared: Prepared,
    undecided: Vec<Undecided>,
    /// How many rows may wait to be decided; others are decided at once.
    most: usize,
}

impl Search<'_> {
    /// Finds how far the relevant items of the queries `rows` are, exactly.
    fn tally(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        horizon: Horizon,
        resident: Option<Block<'_>>,
        batch: usize,
    ) -> Result<Tally, EvaluationError> {
        let slacks: Vec<f64> = rows
            .clone()
            .map(|row| {
                self.space
                    .slack(own.prepared, row - own.first, resident.map(|target| target.prepared))
            })
            .collect();
        let mut lists = vec![Vec::new(); rows.len()];
        match resident {
            Some(target) => self.measure(
                own,
                rows.clone(),
                target,
                0..u32::MAX,
                &|position| position as usize,
                &mut lists,
            ),
            None => {
                // The relevant rows alone are read, neighbours at once.
                let mut needed: Vec<u32> = rows
                    .clone()
                    .flat_map(|query| self.relevance.relevant(query).map(|relevant| relevant.0))
                    .collect();
                needed.sort_unstable();
                needed.dedup();
                let (mut buffer, mut raw, mut prepared) = (Vec::new(), Vec::new(), Prepared::default());
                for batch in needed.chunks(batch) {
                    raw.clear();
                    for run in batch.chunk_by(|a, b| a + 1 == *b) {
                        let run = run[0] as usize..run[run.len() - 1] as usize + 1;
                        raw.extend_from_slice(self.target().read(run, &mut buffer)?);
                    }
                    let fault = |row: usize, problem| row_error(self.target(), "gallery", batch[row] as usize, problem);
                    self.space.prepare(&raw, &fault, &mut prepared)?;
                    let place = |position: u32| batch.partition_point(|&row| row < position);
                    let within = batch[0]..batch[batch.len() - 1].saturating_add(1);
                    let read = Block::new(&raw, &prepared, 0);
                    self.measure(own, rows.clone(), read, within, &place, &mut lists);
                }
            }
        }
        let how = (horizon, self.relevance.graded());
        Ok(Tally::new(
            lists,
            how,
            #[inline(always)]
            |offset, key| {
                let norm = own.norm(rows.start + offset);
                (self.space.screened(key, norm), slacks[offset])
            },
        ))
    }

    /// Appends how far the relevant items at the positions `within` are to the `lists` of the queries `rows`; `place(position)` says
    /// where a row of the gallery stands among the rows at hand.
    fn measure(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        target: Block<'_>,
        within: Range<u32>,
        place: &(dyn Fn(u32) -> usize + Sync),
        lists: &mut [Vec<Positive>],
    ) {
        // Queries that know the same rows one after the other: these stay in the cache.
        let mut lists: Vec<_> = lists.iter_mut().enumerate().collect();
        lists.sort_by_key(|(offset, _)| self.relevance.group(rows.start + offset));
        lists.into_par_iter().with_min_len(16).for_each(|(offset, list)| {
            let query = rows.start + offset;
            vectorized(
                #[inline(always)]
                || {
                    // Widened once for all its items.
                    let mut row = Vec::new();
                    own.widen(query, self.queries.dim(), &mut row);
                    // No `extend`: what that calls is compiled without AVX2.
                    for (position, degree) in self.relevance.relevant_within(query, within.clone()) {
                        list.push((self.key(&row, target, place(position)), position, degree));
                    }
                },
            );
        });
    }

    /// Reads and prepares rows of the gallery.
    fn load(
        &self,
        rows: Range<usize>,
        buffer: &mut Vec<f32>,
        prepared: &mut Prepared,
        work: impl FnOnce(Block<'_>),
    ) -> Result<(), EvaluationError> {
        let (target, first) = (self.target(), rows.start);
        let raw = target.read(rows, buffer)?;
        let fault = |row, problem| row_error(target, "gallery", first + row, problem);
        self.space.prepare(raw, &fault, prepared)?;
        work(Block::new(raw, prepared, first));
        Ok(())
    }

    /// Counts a gallery in memory, blocks of queries in parallel.
    fn count(&self, own: Block<'_>, rows: Range<usize>, target: Block<'_>, tally: &Tally) {
        let tiles: Vec<_> = ranges(rows.clone(), self.tile.queries).collect();
        let most = self.undecided / rayon::current_num_threads().max(1);
        let mut kept = Vec::new();
        handed_out(tiles.len(), &mut kept, |scratch: &mut Scratch, number| {
            let part = &tiles[number];
            scratch.most = most;
            for block in ranges(target.first..target.end(), self.tile.gallery) {
                let end = block.end;
                self.count_tile(own, part.clone(), rows.start, target, block, tally, scratch);
                // Nobody else counts for these queries.
                if scratch.undecided.len() > most / 2 || end == target.end() {
                    let queries = part.start - rows.start..part.end - rows.start;
                    self.settle(own, rows.start, queries, target, tally, &mut [&mut scratch.undecided]);
                }
            }
        });
    }

    /// Counts queries that search each other: every product is looked at from both sides.
    fn count_both_sides(&self, own: Block<'_>, tally: &Tally) {
        let pairs = pairs_of_blocks(own.end(), self.side());
        let mut kept: Vec<Scratch> = Vec::new();
        for (number, round) in pairs.chunks(ROUND).enumerate() {
            handed_out(round.len(), &mut kept, |scratch: &mut Scratch, number| {
                // Half of what may wait is for what this round finds.
                scratch.most = scratch.undecided.len() + self.undecided / 2 / ROUND;
                let (rows, columns) = round[number].clone();
                self.count_tile(own, rows.clone(), 0, own, columns.clone(), tally, scratch);
                if rows != columns {
                    let width = columns.len().next_multiple_of(ROW_MULTIPLE);
                    transpose(&scratch.scores, width, &mut scratch.transposed);
                    let height = scratch.transposed.len() / width;
                    self.count_scores(
                        own,
                        columns,
                        0,
                        own,
                        rows,
                        tally,
                        (&mut scratch.transposed, height),
                        (&mut scratch.undecided, scratch.most),
                    );
                }
            });
            let mut undecided: Vec<_> = kept.iter_mut().map(|scratch| &mut scratch.undecided).collect();
            let most = self.undecided / 2;
            let last = (number + 1) * ROUND >= pairs.len();
            // Of those that wait for long, few matter still; the longer they wait, the fewer.
            if last || (waiting(&undecided) > most && still_matter(&mut undecided, tally) > most / 2) {
                self.settle(own, 0, 0..own.end(), own, tally, &mut undecided);
            }
        }
    }

    /// Reads the gallery block by block, blocks in parallel.
    fn stream(&self, own: Block<'_>, rows: Range<usize>, size: usize, tally: &Tally) -> Result<(), EvaluationError> {
        let blocks: Vec<_> = ranges(0..self.target().len(), size).collect();
        blocks
            .into_par_iter()
            .with_max_len(1)
            .try_for_each_init(Scratch::default, |scratch, block| {
                let (mut raw, mut prepared) = (std::mem::take(&mut scratch.raw), std::mem::take(&mut scratch.prepared));
                let done = self.load(block, &mut raw, &mut prepared, |target| {
                    for part in ranges(rows.clone(), self.tile.queries) {
                        for block in ranges(target.first..target.end(), self.tile.gallery) {
                            self.count_tile(own, part.clone(), rows.start, target, block, tally, scratch);
                        }
                    }
                });
                (scratch.raw, scratch.prepared) = (raw, prepared);
                done
            })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "two blocks, the part of each, and where to count"
    )]
    fn count_tile(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        first_query: usize,
        target: Block<'_>,
        columns: Range<usize>,
        tally: &Tally,
        scratch: &mut Scratch,
    ) {
        if rows.clone().all(|query| tally.active(query - first_query) == 0) && self.gallery.is_some() {
            return;
        }
        self.screen_tile(own, rows.clone(), target, columns.clone(), &mut scratch.scores);
        let width = columns.len().next_multiple_of(ROW_MULTIPLE);
        // The diagonal and the relevant items are overwritten, which the other side does not mind: they are its own. It does mind a bias.
        let shared = own.prepared.bias.is_empty();
        let mut scores = if shared {
            std::mem::take(&mut scratch.scores)
        } else {
            scratch.scores.clone()
        };
        let later = (&mut scratch.undecided, scratch.most);
        self.count_scores(
            own,
            rows,
            first_query,
            target,
            columns,
            tally,
            (&mut scores, width),
            later,
        );
        if shared {
            scratch.scores = scores;
        }
    }

    /// Counts scores `[rows, width]` of queries with a part of the gallery.
    #[expect(
        clippy::too_many_arguments,
        reason = "two blocks, the part of each, and where to count"
    )]
    fn count_scores(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        first_query: usize,
        target: Block<'_>,
        columns: Range<usize>,
        tally: &Tally,
        (scores, width): (&mut [f32], usize),
        (undecided, most): (&mut Vec<Undecided>, usize),
    ) {
        let dim = self.queries.dim();
        let bias = target.bias(columns.clone());
        vectorized(
            #[inline(always)]
            || {
                for (query, scores) in rows.clone().zip(scores.chunks_exact_mut(width)) {
                    let active = tally.active(query - first_query);
                    if active == 0 {
                        continue;
                    }
                    let scores = &mut scores[..columns.len()];
                    for (score, &bias) in scores.iter_mut().zip(bias) {
                        *score += bias;
                    }
                    // No relevant item is above all of them, so that it is met only where numbers are placed one by one, if they are.
                    let one_by_one = self.gallery.is_none() && self.relevance.plain() && Tally::one_by_one(active);
                    if !one_by_one {
                        let known = self.relevance.known(query);
                        let from = known.partition_point(|&position| (position as usize) < columns.start);
                        for &position in known[from..]
                            .iter()
                            .take_while(|&&position| (position as usize) < columns.end)
                        {
                            scores[position as usize - columns.start] = f32::NEG_INFINITY;
                        }
                    }
                    if self.gallery.is_none() && columns.contains(&query) {
                        scores[query - columns.start] = f32::NEG_INFINITY;
                    }
                    let given = (own.raw(query, dim), own.norm(query));
                    // For all numbers or none: what is said of one item has to fit what is said of the next.
                    let later = undecided.len() + Tally::most_undecided(active, scores.len()) <= most;
                    // Not where rows stand so close together that single precision cannot tell them apart either.
                    let mut single = true;
                    tally.count(
                        (query - first_query, active),
                        scores,
                        columns.start,
                        #[inline(always)]
                        |offset| {
                            one_by_one && self.relevance.group(query) == self.relevance.group(columns.start + offset)
                        },
                        #[inline(always)]
                        |row| {
                            if later {
                                undecided.push(row);
                                return row.uncertain as usize;
                            }
                            let position = row.row as usize;
                            let other = (target.raw(position, dim), target.norm(position));
                            let rough = single.then(
                                #[inline(always)]
                                || self.space.rough_scores([[given, other]]),
                            );
                            tally.decide(
                                row,
                                rough.flatten().map(|(scores, error)| (scores[0], error)),
                                #[inline(always)]
                                || {
                                    single = false;
                                    self.space.key(given.0, other.0, other.1)
                                },
                            )
                        },
                    );
                }
            },
        );
    }
}
