//! Exact search by shortlists: the nearest rows of each query tell where its relevant items stand, as far down as they reach.
//!
//! Scores are looked at as soon as they are made, from both sides where queries search each other. A query is left open where too
//! many rows stand equally near to screening, or where the rank of its best relevant item is asked for and its list does not reach
//! down to it.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rand::seq::SliceRandom;

use super::blocks::{handed_out, ranges};
use super::comparison::WORD;
use super::counting::counted;
use super::exact_search::{Block, Search, pairs_of_blocks};
use super::integer_products::IntegerProducts;
use super::plan::{ShortlistPlan, integers};
use super::ranks::{Horizon, PositiveRanks, Ranked};
use super::relevance::Relevance;
use super::rows::{RowSlice, Rows};
use super::search_distance::{Prepared, Space};
use super::shortlist::Shortlists;
use super::shortlist_ranks::{Scratch, TOGETHER};
use super::unit_rows::ROW_MULTIPLE;
use super::{EvaluationError, EvaluationOptions};
use crate::random::{purpose, stream};
use crate::vectorized::vectorized;

/// Scores so many slacks apart are in the order of the exact ones: screening errs by one on each side, and the little more is for
/// rounding to single precision.
const APART: f64 = 2.001;

/// The search is given up where more than one query in so many is: counting is faster then.
const GIVEN_UP: usize = 8;

const _: () = assert!(
    WORD == ROW_MULTIPLE,
    "queries that share their lists are a block of prepared rows"
);

/// What is asked of the shortlists.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) horizon: Horizon,
    /// How many of the nearest rows are listed for each query.
    pub(super) depths: &'a [u32],
}

/// Rows that are listed at hardly any cost.
const FEW: usize = 64;

/// How many of the nearest rows to list for each query. Not where items are relevant to degrees: those of all of them are asked for.
pub(super) fn depths(relevance: &Relevance, horizon: Horizon) -> Vec<u32> {
    let depth = |query: usize| match relevance.counts(query) {
        (0, _) => 0,
        // Rows that take no part may stand before all others.
        (relevant, apart) => {
            let deepest = horizon.best_limit(relevant).min(reach(relevant, horizon));
            deepest.saturating_add(apart).min(relevance.gallery()) as u32
        }
    };
    (0..relevance.queries()).map(depth).collect()
}

/// How far down a list reaches at most, for a query of so many relevant items. It has to reach as far as all are asked for; the best of
/// them is hardly ever deeper than this.
fn reach(relevant: usize, horizon: Horizon) -> usize {
    horizon.limit(relevant).max(2 * relevant).max(FEW)
}

/// The [`depths`] where lists are faster than counting: not where they hold much of the gallery, nor where the best of a few items,
/// which are quickly counted, is asked for however deep it stands.
pub(super) fn depths_that_pay(relevance: &Relevance, horizon: Horizon) -> Option<Vec<u32>> {
    /// One row in so many may be listed.
    const LISTED: usize = 6;
    if relevance.graded() {
        return None;
    }
    let depths = depths(relevance, horizon);
    let listed: usize = depths.iter().map(|&depth| depth as usize).sum();
    let too_deep = |&query: &usize| {
        let relevant = relevance.counts(query).0;
        2 * relevant < FEW && horizon.best_limit(relevant) > reach(relevant, horizon)
    };
    let (queries, gallery) = (relevance.queries(), relevance.gallery());
    let pay = listed / queries <= gallery / LISTED && (0..queries).filter(too_deep).count() <= queries / 4;
    pay.then_some(depths)
}

/// [`rank_positives`](super::rank_positives) by shortlists, screened in integers or in single precision; `None` where that does not pay.
pub(super) fn listed(
    screened_by: Option<IntegerProducts>,
    queries: &dyn Rows,
    gallery: Option<&dyn Rows>,
    relevance: &Relevance,
    wanted: Wanted<'_>,
    options: &EvaluationOptions,
) -> Result<Option<PositiveRanks>, EvaluationError> {
    let space = Space::new(options.distance, screened_by, queries, gallery)?;
    let Some(plan) = ShortlistPlan::new(queries, gallery, wanted.depths, space.in_integers(), options) else {
        return Ok(None);
    };
    let found = {
        let search = Search {
            queries,
            gallery,
            relevance,
            space: &space,
            tile: plan.tile,
            undecided: 0,
        };
        // Whatever order rows have, those seen first say what to expect of the others.
        let mut order: Vec<u32> = (0..relevance.gallery() as u32).collect();
        order.shuffle(&mut stream(0, &[purpose::RANKS]));
        let (mut own, mut other) = (Prepared::default(), Prepared::default());
        match search.resident(&mut own, &mut other, &order) {
            Ok((own, target)) => search.by_shortlists(own, target, wanted, plan.both_sides),
            // Counting, too, finds what is wrong, and in the order of the rows.
            Err(_) => None,
        }
    };
    let Some(mut found) = found else {
        return Ok(None);
    };
    let open: Vec<usize> = (0..found.len()).filter(|&query| found[query].is_none()).collect();
    // As many at a time as take little room beside the gallery.
    let rows = (options.memory / 8 / (queries.dim() * size_of::<f32>())).max(256);
    let left = EvaluationOptions {
        memory: options.memory / 8 * 7,
        ..options.clone()
    };
    for open in open.chunks(rows) {
        let some = relevance.of_queries(open);
        let screen = integers(queries.dim(), &some, wanted.horizon, &left);
        let mut values = Vec::with_capacity(open.len() * queries.dim());
        let mut buffer = Vec::new();
        for &query in open {
            values.extend_from_slice(queries.read(query..query + 1, &mut buffer)?);
        }
        let rows = RowSlice::new(queries.dim(), &values);
        let gallery = gallery.unwrap_or(queries);
        let counted = counted(screen, &rows, Some(gallery), &some, wanted.horizon, &left)?;
        for (place, &query) in open.iter().enumerate() {
            found[query] = Some(Ranked {
                relevant: counted.relevant(place) as u32,
                ranks: counted.of(place).to_vec(),
                degrees: Vec::new(),
            });
        }
    }
    let mut all = PositiveRanks::empty(relevance.graded());
    all.extend(found.into_iter().flatten());
    Ok(Some(all))
}

/// What a worker keeps from block to block.
#[derive(Default)]
struct Worker {
    scores: Vec<f32>,
    ranks: Scratch,
}

/// Queries that were given up.
struct GivenUp<'a> {
    so_far: &'a AtomicUsize,
    most: usize,
}

impl Search<'_> {
    /// What was found for each query, `None` for those left open; `None` for all where too many would be.
    pub(super) fn by_shortlists(
        &self,
        own: Block<'_>,
        target: Block<'_>,
        wanted: Wanted<'_>,
        both_sides: bool,
    ) -> Option<Vec<Option<Ranked>>> {
        let given_up = GivenUp {
            so_far: &AtomicUsize::new(0),
            most: wanted.depths.len() / GIVEN_UP,
        };
        let mut found = if both_sides {
            self.list_both_sides(own, wanted, &given_up)
        } else {
            self.list(own, target, wanted, &given_up)
        };
        if given_up.too_many() {
            return None;
        }
        found.sort_unstable_by_key(|part| part.0);
        let mut all = vec![None; wanted.depths.len()];
        for (position, found) in found.into_iter().flat_map(|part| part.1).enumerate() {
            all[own.index(position)] = found;
        }
        Some(all)
    }

    /// Queries that search a gallery, block after block of them.
    fn list(
        &self,
        own: Block<'_>,
        target: Block<'_>,
        wanted: Wanted<'_>,
        given_up: &GivenUp<'_>,
    ) -> Vec<(usize, Vec<Option<Ranked>>)> {
        let parts: Vec<_> = ranges(0..own.end(), self.tile.queries).collect();
        handed_out(parts.len(), &mut Vec::new(), |worker: &mut Worker, number| {
            let part = &parts[number];
            let groups = || ranges(part.clone(), WORD);
            let mut lists: Vec<Shortlists> = groups().map(|group| self.empty(own, target, group, wanted)).collect();
            let mut borrowed: Vec<_> = lists.iter_mut().collect();
            for block in ranges(0..target.end(), self.tile.gallery) {
                if given_up.too_many() {
                    return (number, Vec::new());
                }
                self.screen_tile(own, part.clone(), target, block.clone(), &mut worker.scores);
                self.look(
                    own,
                    part.clone(),
                    target,
                    block,
                    (&mut borrowed, &mut []),
                    given_up,
                    worker,
                );
            }
            let mut lists = lists.into_iter();
            let found = ranges(part.clone(), TOGETHER).flat_map(|queries| {
                let lists = lists.by_ref().take(queries.len().div_ceil(WORD));
                self.ranked(own, target, queries, lists, wanted, &mut worker.ranks)
            });
            (number, found.collect())
        })
    }

    /// Queries that search each other.
    fn list_both_sides(
        &self,
        own: Block<'_>,
        wanted: Wanted<'_>,
        given_up: &GivenUp<'_>,
    ) -> Vec<(usize, Vec<Option<Ranked>>)> {
        let groups: Vec<_> = ranges(0..own.end(), WORD).collect();
        let lists = groups
            .iter()
            .map(|group| Mutex::new(self.empty(own, own, group.clone(), wanted)));
        let lists: Vec<_> = lists.collect();
        let side = self.side();
        let mut pairs = pairs_of_blocks(own.end(), side);
        // Neighbours have no block in common, so that workers do not wait for each other.
        let blocks = own.end().div_ceil(side);
        pairs.sort_by_key(|(rows, columns)| (rows.start / side + columns.start / side) % blocks);
        let mut workers: Vec<Worker> = Vec::new();
        handed_out(pairs.len(), &mut workers, |worker, number| {
            let (rows, columns) = &pairs[number];
            if given_up.too_many() {
                return;
            }
            // Always by rising positions, so that none waits for one that waits for it.
            let hold = |positions: &Range<usize>| {
                let lists = lists[positions.start / WORD..positions.end.div_ceil(WORD)].iter();
                let held = lists.map(|lists| lists.lock().unwrap_or_else(PoisonError::into_inner));
                held.collect::<Vec<_>>()
            };
            self.screen_tile(own, rows.clone(), own, columns.clone(), &mut worker.scores);
            let mut some = hold(rows);
            let mut others = if rows == columns { Vec::new() } else { hold(columns) };
            let mut some: Vec<_> = some.iter_mut().map(|lists| &mut **lists).collect();
            let mut others: Vec<_> = others.iter_mut().map(|lists| &mut **lists).collect();
            self.look(
                own,
                rows.clone(),
                own,
                columns.clone(),
                (&mut some, &mut others),
                given_up,
                worker,
            );
        });
        let together: Vec<_> = ranges(0..own.end(), TOGETHER).collect();
        handed_out(together.len(), &mut workers, |worker, number| {
            let queries = &together[number];
            let lists = lists[queries.start / WORD..queries.end.div_ceil(WORD)]
                .iter()
                .map(|lists| {
                    let mut lists = lists.lock().unwrap_or_else(PoisonError::into_inner);
                    std::mem::replace(&mut *lists, Shortlists::new(std::iter::empty(), 0))
                });
            let found = self.ranked(own, own, queries.clone(), lists, wanted, &mut worker.ranks);
            (number, found)
        })
    }

    /// Lists for some neighbouring queries.
    fn empty(&self, own: Block<'_>, target: Block<'_>, queries: Range<usize>, wanted: Wanted<'_>) -> Shortlists {
        let each = |query| (wanted.depths[own.index(query)] as usize, self.apart(own, target, query));
        Shortlists::new(queries.map(each), target.end())
    }

    /// By how much screened scores of a query have to differ, so that their order is sure.
    fn apart(&self, own: Block<'_>, target: Block<'_>, query: usize) -> f64 {
        APART * self.slack(own, target, query)
    }

    /// Offers the scores of queries with a part of the gallery to the lists of these queries, and to those of that part, where it has
    /// any.
    #[expect(
        clippy::too_many_arguments,
        reason = "two blocks, the part of each, and where to list"
    )]
    fn look(
        &self,
        own: Block<'_>,
        rows: Range<usize>,
        target: Block<'_>,
        columns: Range<usize>,
        (lists, others): (&mut [&mut Shortlists], &mut [&mut Shortlists]),
        given_up: &GivenUp<'_>,
        worker: &mut Worker,
    ) {
        let crowded = |lists: &[&mut Shortlists]| lists.iter().map(|lists| lists.crowded()).sum::<usize>();
        let before = crowded(lists) + crowded(others);
        lists.iter_mut().for_each(|lists| lists.expect(columns.len()));
        others.iter_mut().for_each(|lists| lists.expect(rows.len()));
        let width = columns.len().next_multiple_of(WORD);
        // The last rows may be there to pad a block.
        let rest = u32::MAX >> (width - columns.len());
        let (bias, other_bias) = (target.bias(columns.clone()), own.bias(rows.clone()));
        vectorized(
            #[inline(always)]
            || {
                for (query, scores) in rows.clone().zip(worker.scores.chunks_exact(width)) {
                    let place = query - rows.start;
                    let own_lists = &mut *lists[place / WORD];
                    let words = scores.as_chunks::<WORD>().0;
                    for (word, scores) in words.iter().enumerate() {
                        let mut among = if word + 1 == words.len() { rest } else { u32::MAX };
                        let first = columns.start + word * WORD;
                        if self.gallery.is_none() && (first..first + WORD).contains(&query) {
                            among &= !(1 << (query - first));
                        }
                        let biased: [f32; WORD];
                        let from_here = match bias.get(word * WORD..) {
                            Some(bias) if !bias.is_empty() => {
                                biased = std::array::from_fn(|at| scores[at] + bias.get(at).unwrap_or(&0.0));
                                &biased
                            }
                            _ => scores,
                        };
                        own_lists.offer(place % WORD, from_here, among, first);
                        if let Some(others) = others.get_mut(word) {
                            let biased: [f32; WORD];
                            let from_there = match other_bias.get(place) {
                                Some(bias) => {
                                    biased = scores.map(|score| score + bias);
                                    &biased
                                }
                                None => scores,
                            };
                            others.offer_row(from_there, query);
                        }
                    }
                }
            },
        );
        let more = crowded(lists) + crowded(others) - before;
        if more > 0 {
            given_up.so_far.fetch_add(more, Relaxed);
        }
    }

    /// What the lists of some queries tell, `None` for a query that is left open.
    fn ranked(
        &self,
        own: Block<'_>,
        target: Block<'_>,
        queries: Range<usize>,
        lists: impl Iterator<Item = Shortlists>,
        wanted: Wanted<'_>,
        scratch: &mut Scratch,
    ) -> Vec<Option<Ranked>> {
        let mut found = Vec::with_capacity(queries.len());
        let apart = |query| self.apart(own, target, query);
        self.ranks_among((own, queries), target, lists, apart, scratch, |query, all| {
            let index = own.index(query);
            let (relevant, apart) = self.relevance.counts(index);
            // Behind the last row of the list may stand another one.
            let sure = (wanted.depths[index] as usize).saturating_sub(apart);
            let (limit, best) = (wanted.horizon.limit(relevant), wanted.horizon.best_limit(relevant));
            let ranks = all.map(|all| {
                let mut ranks = Vec::new();
                for rank in all {
                    let deepest = if ranks.is_empty() { best } else { limit };
                    if rank as usize > deepest.min(sure) {
                        break;
                    }
                    ranks.push(rank);
                }
                ranks
            });
            let ranks = ranks.filter(|ranks| !ranks.is_empty() || relevant == 0 || best <= sure);
            found.push(ranks.map(|ranks| Ranked {
                relevant: relevant as u32,
                ranks,
                degrees: Vec::new(),
            }));
        });
        found
    }
}

impl GivenUp<'_> {
    fn too_many(&self) -> bool {
        self.so_far.load(Relaxed) > self.most
    }
}
