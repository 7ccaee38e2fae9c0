//! Exact search: where the relevant items stand in the ranking of each query.

use std::ops::Range;

use rayon::prelude::*;

use super::blocks::{handed_out, on_threads, ranges};
use super::integer_products::IntegerProducts;
use super::plan::{Plan, Tile, integers};
use super::rank_sample::{RankSample, SAMPLE};
use super::ranks::{Horizon, PositiveRanks, Ranked};
use super::relevance::Relevance;
use super::rows::Rows;
use super::search_distance::{Prepared, Space, row_error};
use super::tally::{RelevantItems, Tally};
use super::transpose::transpose;
use super::undecided::{Undecided, still_matter, waiting};
use super::unit_rows::ROW_MULTIPLE;
use super::{EvaluationError, EvaluationOptions};
use crate::vectorized::vectorized;

/// Places the relevant items of every query in its ranking of the gallery (without one: of the other queries).
///
/// Exact: single-precision products screen, and whatever their proven error bound leaves open is compared in double precision
/// on the rows as given (see `search_distance.rs`). Equal distances are ordered by index; the query itself is left out by index.
/// Blocks of products are counted as soon as they are made; where queries search each other each block serves both sides.
/// Rows that do not fit into `options.memory` are read block by block, once for each block of queries.
///
/// # Errors
/// Sets that are empty, of different widths or not described by `relevance`, a row that is not finite or (cosine) zero, a file
/// that cannot be read, threads that cannot be started.
pub fn rank_positives(
    queries: &dyn Rows,
    gallery: Option<&dyn Rows>,
    relevance: &Relevance,
    horizon: Horizon,
    options: &EvaluationOptions,
) -> Result<PositiveRanks, EvaluationError> {
    check(queries, gallery, relevance)?;
    let integers = integers(queries.dim(), relevance, horizon, options);
    screened_by(integers, queries, gallery, relevance, horizon, options)
}

/// [`rank_positives`], screened in integers or in single precision.
fn screened_by(
    integers: Option<IntegerProducts>,
    queries: &dyn Rows,
    gallery: Option<&dyn Rows>,
    relevance: &Relevance,
    horizon: Horizon,
    options: &EvaluationOptions,
) -> Result<PositiveRanks, EvaluationError> {
    on_threads(options.threads, || {
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
            let mut own = Prepared::default();
            let (raw, what) = (queries.in_memory().unwrap_or_default(), "query");
            space.prepare(raw, &|row, problem| row_error(queries, what, row, problem), &mut own)?;
            let own = Block::new(raw, &own, 0);
            let mut other = Prepared::default();
            let target = match gallery {
                None => own,
                Some(gallery) => {
                    let raw = gallery.in_memory().unwrap_or_default();
                    space.prepare(
                        raw,
                        &|row, problem| row_error(gallery, "gallery", row, problem),
                        &mut other,
                    )?;
                    Block::new(raw, &other, 0)
                }
            };
            for rows in &plan.chunks {
                let hopeless = search.hopeless(own, rows.clone(), target, horizon)?;
                let tally = search.tally(own, rows.clone(), horizon, Some((target, &hopeless)), 0)?;
                if gallery.is_none() && plan.chunks.len() == 1 {
                    search.count_both_sides(own, &tally);
                } else {
                    search.count(own, rows.clone(), target, &tally);
                }
                let unsure = tally.unsure();
                let mut lists = tally.finish();
                search.count_again(own, rows.clone(), target, horizon, &unsure, &mut lists)?;
                found.extend(lists);
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
    })
}

fn check(queries: &dyn Rows, gallery: Option<&dyn Rows>, relevance: &Relevance) -> Result<(), EvaluationError> {
    let target = gallery.unwrap_or(queries);
    for (set, what) in [(queries, "query"), (target, "gallery")] {
        let (rows, dim) = (set.len(), set.dim());
        if rows == 0 || dim == 0 {
            return Err(EvaluationError::Empty { what, rows, dim });
        }
        if u32::try_from(rows).is_err() {
            return Err(EvaluationError::TooLarge { what, rows });
        }
    }
    if target.dim() != queries.dim() {
        return Err(EvaluationError::Width {
            queries: queries.dim(),
            gallery: target.dim(),
        });
    }
    for (what, labels, rows) in [
        ("query", relevance.queries(), queries.len()),
        ("gallery", relevance.gallery(), target.len()),
    ] {
        if labels != rows {
            return Err(EvaluationError::Options(format!(
                "the {what} set has {rows} rows and {labels} labels: expected one label for each row"
            )));
        }
    }
    Ok(())
}

/// Pairs of blocks that are counted before it is looked how many rows wait to be decided.
const ROUND: usize = 128;

/// Prepared rows with what they were made from.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    raw: &'a [f32],
    prepared: &'a Prepared,
    /// Position of its first row in the whole set.
    first: usize,
}

impl<'a> Block<'a> {
    pub(super) fn new(raw: &'a [f32], prepared: &'a Prepared, first: usize) -> Self {
        Self { raw, prepared, first }
    }

    /// The row at a position of the whole set, as given.
    #[inline(always)]
    pub(super) fn raw(&self, position: usize, dim: usize) -> &'a [f32] {
        let at = (position - self.first) * dim;
        &self.raw[at..at + dim]
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

    fn end(&self) -> usize {
        self.first + self.prepared.len
    }

    /// The prepared rows at positions whose start is a multiple of [`ROW_MULTIPLE`] within the block, with those that pad them.
    fn padded(&self, positions: Range<usize>) -> (&'a Prepared, Range<usize>) {
        let end = (positions.end - self.first).next_multiple_of(ROW_MULTIPLE);
        (self.prepared, positions.start - self.first..end)
    }

    fn bias(&self, positions: Range<usize>) -> &'a [f32] {
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
    tile: Tile,
    /// How many rows may wait to be decided.
    undecided: usize,
}

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
    pub(super) fn target(&self) -> &dyn Rows {
        self.gallery.unwrap_or(self.queries)
    }

    /// How far a row at hand is from a query that was widened, exactly.
    #[inline(always)]
    pub(super) fn key(&self, query: &[f64], target: Block<'_>, at: usize) -> f64 {
        self.space
            .key(query, target.raw(at, self.queries.dim()), target.norm(at))
    }

    /// Finds how far the relevant items of the queries `rows` are, exactly.
    fn tally(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        horizon: Horizon,
        resident: Option<(Block<'_>, &[f32])>,
        batch: usize,
    ) -> Result<Tally, EvaluationError> {
        let slacks: Vec<f64> = rows
            .clone()
            .map(|row| {
                self.space.slack(
                    own.prepared,
                    row - own.first,
                    resident.map(|(target, _)| target.prepared),
                )
            })
            .collect();
        let mut lists = vec![RelevantItems::default(); rows.len()];
        let mut thresholds = &[][..];
        match resident {
            Some((target, hopeless)) if !hopeless.is_empty() && !self.relevance.graded() => {
                thresholds = hopeless;
                lists = self.promising(own, rows.clone(), target, hopeless, &slacks)?;
            }
            Some((target, _)) => self.measure(
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
            thresholds,
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
        lists: &mut [RelevantItems],
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
                        list.count += 1;
                        list.measured
                            .push((self.key(&row, target, place(position)), position, degree));
                    }
                },
            );
        });
    }

    /// For each query the score below which a relevant item is hopelessly far beyond the horizon; empty where a sample of the
    /// gallery would not pay.
    fn hopeless(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        target: Block<'_>,
        horizon: Horizon,
    ) -> Result<Vec<f32>, EvaluationError> {
        let Some(sample) =
            RankSample::new(self.relevance, rows.clone(), horizon).filter(|_| self.tile.gallery >= SAMPLE)
        else {
            return Ok(Vec::new());
        };
        let (dim, positions) = (self.queries.dim(), sample.positions());
        let mut prepared = Prepared::default();
        let fault = |row: usize, problem| row_error(self.target(), "gallery", positions[row] as usize, problem);
        let row = |row: usize| target.raw(positions[row] as usize, dim);
        self.space.prepare_rows(SAMPLE, row, &fault, &mut prepared)?;
        let parts: Vec<_> = ranges(rows.clone(), self.tile.queries).collect();
        let found = handed_out(parts.len(), &mut Vec::new(), |scores: &mut Vec<f32>, number| {
            let part = &parts[number];
            self.space
                .screen(own.padded(part.clone()), (&prepared, 0..SAMPLE), scores);
            let mut thresholds = Vec::with_capacity(part.len());
            vectorized(
                #[inline(always)]
                || {
                    for (query, scores) in part.clone().zip(scores.chunks_exact_mut(SAMPLE)) {
                        for (score, &bias) in scores.iter_mut().zip(&prepared.bias) {
                            *score += bias;
                        }
                        thresholds.push(sample.hopeless(scores, self.relevance.known(query), horizon));
                    }
                },
            );
            (number, thresholds)
        });
        let mut thresholds = vec![f32::NEG_INFINITY; rows.len()];
        for (number, found) in found {
            let first = number * self.tile.queries;
            thresholds[first..first + found.len()].copy_from_slice(&found);
        }
        Ok(thresholds)
    }

    /// Counts the `unsure` queries (positions within `rows`) with all their relevant items, and replaces what was found.
    fn count_again(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        target: Block<'_>,
        horizon: Horizon,
        unsure: &[usize],
        lists: &mut [Ranked],
    ) -> Result<(), EvaluationError> {
        // With their neighbours: a block of prepared rows starts where it can.
        let blocks: Vec<&[usize]> = unsure.chunk_by(|a, b| a / ROW_MULTIPLE == b / ROW_MULTIPLE).collect();
        let again = blocks.into_par_iter().with_max_len(1).map(|block| {
            let first = rows.start + block[0] / ROW_MULTIPLE * ROW_MULTIPLE;
            let part = first..(first + ROW_MULTIPLE).min(rows.end);
            let tally = self.tally(own, part.clone(), horizon, Some((target, &[])), 0)?;
            self.count(own, part.clone(), target, &tally);
            Ok((part.start - rows.start, tally.finish()))
        });
        for (first, found) in again.collect::<Result<Vec<_>, EvaluationError>>()? {
            lists[first..first + found.len()].clone_from_slice(&found);
        }
        Ok(())
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
        let side = match self.tile.queries.min(self.tile.gallery) {
            // The kernel's own 24 rows, too, go into this many without rest.
            256 => 192,
            smaller => smaller,
        };
        let pairs = pairs_of_blocks(own.end(), side);
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
        self.space.screen(
            own.padded(rows.clone()),
            target.padded(columns.clone()),
            &mut scratch.scores,
        );
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
                                || self.space.rough_scores(given, [other]),
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

/// Blocks of at most `side` rows of which each meets each once. A block meets itself in halves: then the products of one half with the
/// other, too, are made once and seen from both sides.
fn pairs_of_blocks(rows: usize, side: usize) -> Vec<(Range<usize>, Range<usize>)> {
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
    use proptest::prelude::*;

    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::SearchDistance;
    use crate::evaluation::testing::{lattice_set, random_set};

    /// Rows that admit to no memory, so that they are read in blocks.
    struct Streamed<'a>(&'a EmbeddingSet);

    impl Rows for Streamed<'_> {
        fn len(&self) -> usize {
            self.0.len()
        }

        fn dim(&self) -> usize {
            self.0.dim
        }

        fn read<'a>(&'a self, rows: Range<usize>, buffer: &'a mut Vec<f32>) -> Result<&'a [f32], EvaluationError> {
            buffer.clear();
            buffer.extend_from_slice(&self.0.values[rows.start * self.0.dim..rows.end * self.0.dim]);
            Ok(buffer)
        }
    }

    /// Ranks of all relevant items by sorting every row in double precision. Independent of the engine.
    fn naive(queries: &EmbeddingSet, gallery: Option<&EmbeddingSet>, distance: SearchDistance) -> Vec<Vec<u32>> {
        let target = gallery.unwrap_or(queries);
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
        (0..queries.len())
            .map(|query| {
                let a = queries.row(query);
                let far = |row: usize| {
                    let b = target.row(row);
                    match distance {
                        SearchDistance::Cosine => -product(a, b) / product(b, b).sqrt(),
                        SearchDistance::InnerProduct => -product(a, b),
                        SearchDistance::Euclidean => a
                            .iter()
                            .zip(b)
                            .map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2))
                            .sum(),
                    }
                };
                let mut all: Vec<(f64, usize)> = (0..target.len())
                    .filter(|&row| gallery.is_some() || row != query)
                    .map(|row| (far(row), row))
                    .collect();
                all.sort_by(|a, b| a.partial_cmp(b).unwrap());
                let relevant = all
                    .iter()
                    .enumerate()
                    .filter(|(_, one)| target.labels[one.1] == queries.labels[query]);
                relevant.map(|(place, _)| place as u32 + 1).collect()
            })
            .collect()
    }

    fn agree(queries: &EmbeddingSet, gallery: Option<&EmbeddingSet>, options: &EvaluationOptions) {
        let labels = |set: &EmbeddingSet| set.labels.clone().into();
        let relevance = Relevance::new(labels(queries), gallery.map(labels)).unwrap();
        let expected = naive(queries, gallery, options.distance);
        let streamed = (Streamed(queries), gallery.map(Streamed));
        for horizon in [
            Horizon::BEST,
            Horizon::RELEVANT,
            Horizon::within(9),
            Horizon::EVERYTHING,
        ] {
            let in_memory = gallery.map(|gallery| gallery as &dyn Rows);
            let read = streamed.1.as_ref().map(|gallery| gallery as &dyn Rows);
            let sources: [(&dyn Rows, Option<&dyn Rows>); 3] =
                [(queries, in_memory), (&streamed.0, read), (queries, read)];
            for (rows, others) in &sources[..if gallery.is_some() { 3 } else { 2 }] {
                // In single precision, in integers where this processor can, and as the search itself chooses.
                for found in [
                    screened_by(None, *rows, *others, &relevance, horizon, options),
                    screened_by(IntegerProducts::detect(), *rows, *others, &relevance, horizon, options),
                    rank_positives(*rows, *others, &relevance, horizon, options),
                ] {
                    let found = found.unwrap();
                    for (query, all) in expected.iter().enumerate() {
                        assert_eq!(found.relevant(query), all.len());
                        let limit = horizon.limit(all.len());
                        let within: Vec<u32> = all
                            .iter()
                            .enumerate()
                            .filter(|&(place, &rank)| place == 0 || rank as usize <= limit)
                            .map(|(_, &rank)| rank)
                            .collect();
                        assert_eq!(found.of(query), within, "query {query}, {horizon:?}, {options:?}");
                    }
                }
            }
        }
    }

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

    #[test]
    fn ranks_equal_a_full_sort() {
        for distance in [
            SearchDistance::Cosine,
            SearchDistance::InnerProduct,
            SearchDistance::Euclidean,
        ] {
            for memory in [0, 1 << 30] {
                let options = EvaluationOptions {
                    memory,
                    threads: 2,
                    distance,
                    ..EvaluationOptions::default()
                };
                // Classes of 30 take the way of long lists, classes of 3 that of short ones.
                agree(&random_set(1, 300, 24, 9), None, &options);
                agree(&random_set(3, 300, 24, 100), None, &options);
                agree(&random_set(1, 120, 24, 9), Some(&random_set(2, 200, 24, 11)), &options);
            }
        }
    }

    /// Distances of near-duplicates far from the origin, where single precision has no digit left, and of rows of any size.
    #[test]
    fn near_duplicates_and_extreme_sizes_keep_their_order() {
        for (offset, size) in [(3000.0, 1.0), (0.0, 1e30), (0.0, 1e-36)] {
            let mut set = random_set(4, 150, 8, 12);
            for value in &mut set.values {
                *value = (*value + offset) * size;
            }
            for distance in [
                SearchDistance::InnerProduct,
                SearchDistance::Euclidean,
                SearchDistance::Cosine,
            ] {
                agree(
                    &set,
                    None,
                    &EvaluationOptions {
                        distance,
                        ..EvaluationOptions::default()
                    },
                );
            }
        }
    }

    #[test]
    fn junk_of_the_same_camera_neither_helps_nor_harms() {
        // Nearest first: the same identity by the same camera, a stranger, the same identity by another camera.
        let set = |values: &[f32], labels: &[u32]| EmbeddingSet {
            dim: 2,
            values: values.to_vec(),
            labels: labels.to_vec(),
            ids: vec![String::new(); labels.len()],
        };
        let queries = set(&[1.0, 0.0], &[7]);
        let gallery = set(&[0.0, 1.0, 1.0, 0.0, 1.0, 0.5, 1.0, 0.2], &[7, 7, 7, 3]);
        let relevance = Relevance::new(vec![7].into(), Some(gallery.labels.clone().into())).unwrap();
        let options = EvaluationOptions::default();
        let ranks =
            |relevance| rank_positives(&queries, Some(&gallery), &relevance, Horizon::EVERYTHING, &options).unwrap();
        assert_eq!(ranks(relevance.clone()).of(0), [1, 3, 4]);
        let seen = relevance.without_same_camera(vec![0], vec![1, 0, 1, 0]).unwrap();
        assert_eq!(ranks(seen).of(0), [2, 3]);
    }

    #[test]
    fn items_that_a_sample_misjudges_are_counted_after_all() {
        let mut set = random_set(8, 2080, 16, 52);
        set.values.iter_mut().for_each(|value| *value += 3.0);
        let sorted: Vec<usize> = {
            let mut order: Vec<usize> = (0..set.len()).collect();
            order.sort_by_key(|&row| set.labels[row]);
            order
        };
        let mut set = set.select(&sorted);
        let relevance = Relevance::new(set.labels.clone().into(), None).unwrap();
        agree(&set, None, &EvaluationOptions::default());
        // Rows near everything where the sample looks: it takes them for a tenth of the gallery, and they are 20.
        let sample = RankSample::new(&relevance, 0..set.len(), Horizon::RELEVANT).unwrap();
        for &position in sample.positions().iter().step_by(13) {
            set.values[position as usize * 16..][..16].fill(3.0);
        }
        let queries = set.select(&(0..set.len()).step_by(9).collect::<Vec<_>>());
        for distance in [SearchDistance::Cosine, SearchDistance::Euclidean] {
            let options = EvaluationOptions {
                distance,
                threads: 2,
                ..EvaluationOptions::default()
            };
            agree(&set, None, &options);
            agree(&queries, Some(&set), &options);
        }
    }

    /// Classes that take several blocks, of whose rows half are junk to each query.
    #[test]
    fn large_classes_seen_by_two_cameras_are_placed_as_without_a_sample() {
        let set = random_set(11, 2080, 16, 13);
        let cameras: Vec<u32> = (0..2080).map(|row| row / 3 % 2).collect();
        let relevance = Relevance::new(set.labels.clone().into(), None).unwrap();
        let relevance = relevance.without_same_camera(cameras.clone(), cameras).unwrap();
        assert!(RankSample::new(&relevance, 0..2080, Horizon::RELEVANT).is_some());
        let options = EvaluationOptions::default();
        let found = rank_positives(&set, None, &relevance, Horizon::RELEVANT, &options).unwrap();
        let all = rank_positives(&set, None, &relevance, Horizon::EVERYTHING, &options).unwrap();
        for query in 0..2080 {
            let relevant = all.relevant(query);
            assert_eq!(found.relevant(query), relevant);
            let within = |&(place, rank): &(usize, u32)| place == 0 || rank as usize <= relevant;
            let expected = all.of(query).iter().copied().enumerate().filter(within);
            assert_eq!(
                found.of(query),
                expected.map(|(_, rank)| rank).collect::<Vec<_>>(),
                "{query}"
            );
        }
    }

    /// A sample for each of several blocks of queries, and little room for rows that wait.
    #[test]
    fn items_are_judged_in_blocks_of_queries_too() {
        let set = random_set(12, 2080, 16, 16);
        let relevance = Relevance::new(set.labels.clone().into(), None).unwrap();
        let options = EvaluationOptions {
            memory: 9_000_000,
            threads: 2,
            ..EvaluationOptions::default()
        };
        let plan = on_threads(2, || Ok(Plan::new(&set, None, &relevance, true, &options))).unwrap();
        assert!(plan.resident && plan.chunks.len() > 1 && plan.tile.gallery >= SAMPLE);
        assert!(RankSample::new(&relevance, plan.chunks[1].clone(), Horizon::RELEVANT).is_some());
        agree(&set, None, &options);
    }

    /// Far more relevant items than can be within the horizon, most of them equally far to single precision, of which the nearest has to
    /// be found.
    #[test]
    fn crowded_items_that_are_held_back_stay_behind() {
        for (seed, dim) in [(1, 16), (2, 33)] {
            let set = crowded_set(seed, 2080, dim, 1e-3, 40);
            agree(&set, None, &EvaluationOptions::default());
            let queries = set.select(&(0..set.len()).step_by(9).collect::<Vec<_>>());
            agree(&queries, Some(&set), &EvaluationOptions::default());
        }
    }

    /// Rows around few directions, closer together than rounding to 16 bits can tell (though not so close that the sums of a naive
    /// loop in double precision are in doubt); some twice, some of one number alone, of very different lengths.
    fn crowded_set(seed: u64, len: usize, dim: usize, spread: f32, classes: u32) -> EmbeddingSet {
        let directions = random_set(seed, 3, dim, 3);
        let mut set = random_set(seed + 1, len, dim, classes);
        for row in 0..len {
            let values = row * dim..(row + 1) * dim;
            match row % 11 {
                7 => set.values.copy_within((row - 5) * dim..(row - 4) * dim, row * dim),
                9 => {
                    set.values[values.clone()].fill(0.0);
                    set.values[row * dim + row % dim] = 1.0;
                }
                _ => {
                    for (value, direction) in set.values[values.clone()].iter_mut().zip(directions.row(row % 3)) {
                        *value = direction + *value * spread;
                    }
                }
            }
            // A power of two: the direction stays what it is to the last bit.
            let factor = [1.0, 2.0_f32.powi(40), 2.0_f32.powi(-40)][row % 5 % 3];
            set.values[values].iter_mut().for_each(|value| *value *= factor);
        }
        set
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn ranks_equal_a_full_sort_where_rounding_leaves_much_open(
            seed in 0_u64..1000, len in 1_usize..140, dim in prop::sample::select(vec![1_usize, 2, 7, 15, 16, 17, 40, 513]),
            spread in prop::sample::select(vec![1e-2_f32, 1e-3, 1e-4]), classes in 1_u32..40, threads in 1_usize..4,
            memory in prop::sample::select(vec![0_usize, 30_000, 1 << 30]),
        ) {
            let options = EvaluationOptions { memory, threads, ..EvaluationOptions::default() };
            let set = crowded_set(seed, len, dim, spread, classes);
            agree(&set, None, &options);
            agree(&set, Some(&crowded_set(seed, 70, dim, spread, classes)), &options);
        }

        #[test]
        fn ranks_equal_a_full_sort_with_many_ties(
            seed in 0_u64..1000, len in 1_usize..140, dim in 1_usize..5, classes in 1_u32..40, threads in 1_usize..4,
            memory in prop::sample::select(vec![0_usize, 30_000, 1 << 30]),
            distance in prop::sample::select(vec![SearchDistance::Cosine, SearchDistance::InnerProduct, SearchDistance::Euclidean]),
        ) {
            let options = EvaluationOptions { memory, threads, distance, ..EvaluationOptions::default() };
            // Few distinct directions: most distances are tied, many exactly.
            let set = lattice_set(seed, len, dim, classes);
            agree(&set, None, &options);
            agree(&set, Some(&lattice_set(seed + 1, 70, dim, classes)), &options);
        }
    }
}
