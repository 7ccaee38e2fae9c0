//! Ranks of relevant items among the rows of shortlists: what screened scores leave open is decided by better ones, and in the end
//! exactly.
//!
//! Of two relevant items nobody asks which is nearer: if so many irrelevant rows stand before each, sorted b_1 <= b_2 <= …, then their
//! ranks are j + b_j. So rows are told apart only where a relevant and an irrelevant one stand close together.

use std::cmp::Ordering::Equal;
use std::ops::Range;

use super::comparison::WORD;
use super::exact_search::{Block, Search};
use super::shortlist::{Listed, Shortlists};
use crate::vectorized::vectorized;

/// Queries whose open items are measured together, so that a row of the gallery is read once for all of them.
pub(super) const TOGETHER: usize = 128;

/// Pairs of rows whose distances are computed side by side.
const SIDE_BY_SIDE: usize = 4;

/// A row of a shortlist.
#[derive(Clone, Copy, Debug)]
struct Item {
    row: u32,
    relevant: bool,
    /// Whether one of the other kind stands so close that either can be the nearer one.
    open: bool,
    /// Irrelevant rows that stand before it and are no items any more.
    before: u32,
    /// Larger is nearer.
    score: f64,
}

/// A query and an open item of it.
#[derive(Clone, Copy, Debug, Default)]
struct Pair {
    query: u32,
    row: u32,
    item: u32,
}

/// What was found of a query.
#[derive(Debug, Default)]
struct Placed {
    /// Whether its list was whole.
    whole: bool,
    /// How many irrelevant rows stand before each relevant item that was placed.
    before: Vec<u32>,
    /// Its part of the items that are open.
    open: Range<usize>,
}

/// What is kept from lists to lists.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    placed: Vec<Placed>,
    items: Vec<Item>,
    open: Vec<Item>,
    /// Of the open items, in single precision.
    scores: Vec<f64>,
    pairs: Vec<Pair>,
    by_row: Vec<Pair>,
    starts: Vec<u32>,
    query: Vec<f64>,
}

impl Search<'_> {
    /// Calls `visit` with each of the queries and the rising ranks of relevant items among the rows of its list; rows that take no part
    /// are passed over. Without ranks where the list was not whole. Screened scores are in order where they differ by more than
    /// `apart(query)`.
    pub(super) fn ranks_among(
        &self,
        (own, queries): (Block<'_>, Range<usize>),
        target: Block<'_>,
        lists: impl Iterator<Item = Shortlists>,
        apart: impl Fn(usize) -> f64,
        scratch: &mut Scratch,
        mut visit: impl FnMut(usize, Option<&mut dyn Iterator<Item = u32>>),
    ) {
        scratch.open.clear();
        scratch.placed.resize_with(queries.len(), Placed::default);
        for (number, lists) in lists.enumerate() {
            lists.finish(|place, list| {
                let Scratch {
                    placed, items, open, ..
                } = &mut *scratch;
                let (place, start) = (number * WORD + place, open.len());
                let query = queries.start + place;
                let placed = &mut placed[place];
                placed.before.clear();
                placed.whole = list.is_some();
                if let Some(list) = list {
                    self.judge(own.index(query), target, list, items);
                    sift(items, apart(query), &mut placed.before);
                    open.extend_from_slice(items);
                }
                placed.open = start..open.len();
            });
        }
        let error = self.score_open((own, queries.clone()), target, scratch);
        for query in queries.clone() {
            let Scratch {
                placed,
                items,
                open,
                scores,
                query: wide,
                ..
            } = &mut *scratch;
            let Placed {
                whole,
                before,
                open: part,
            } = &mut placed[query - queries.start];
            if !*whole {
                visit(query, None);
                continue;
            }
            items.clear();
            items.extend_from_slice(&open[part.clone()]);
            if let Some(error) = error {
                for (item, &score) in items.iter_mut().zip(&scores[part.clone()]) {
                    item.score = score;
                }
                items.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
                sift(items, 2.0 * error, before);
            }
            if !items.is_empty() {
                self.measure_items((own, query), target, items, wide);
                count(items, before);
            }
            before.sort_unstable();
            visit(
                query,
                Some(&mut before.iter().zip(1..).map(|(&before, place)| before + place)),
            );
        }
    }

    /// Which rows of a list are relevant to a query; those that take no part are left out.
    fn judge(&self, query: usize, target: Block<'_>, list: &[Listed], items: &mut Vec<Item>) {
        items.clear();
        for listed in list {
            if let Some(relevant) = self.relevance.judge(query, target.index(listed.row as usize)) {
                items.push(Item {
                    row: listed.row,
                    relevant,
                    open: false,
                    before: 0,
                    score: f64::from(listed.score),
                });
            }
        }
    }

    /// Scores of the open items in single precision, and by how much each can be off; `None` where that is of no use.
    fn score_open(
        &self,
        (own, queries): (Block<'_>, Range<usize>),
        target: Block<'_>,
        scratch: &mut Scratch,
    ) -> Option<f64> {
        scratch.pair(queries.len(), target.end());
        let Scratch { pairs, scores, .. } = scratch;
        let dim = self.queries.dim();
        vectorized(
            #[inline(always)]
            || {
                let mut error = None;
                for pairs in pairs.chunks(SIDE_BY_SIDE) {
                    let rows: [_; SIDE_BY_SIDE] = std::array::from_fn(
                        #[inline(always)]
                        |place| {
                            let pair = pairs[place.min(pairs.len() - 1)];
                            let (query, row) = (queries.start + pair.query as usize, pair.row as usize);
                            [
                                (own.raw(query, dim), own.norm(query)),
                                (target.raw(row, dim), target.norm(row)),
                            ]
                        },
                    );
                    let (found, off) = self.space.rough_scores(rows)?;
                    for (pair, score) in pairs.iter().zip(found) {
                        scores[pair.item as usize] = score;
                    }
                    error = Some(off);
                }
                error
            },
        )
    }

    /// Puts items in the order of their exact distances.
    fn measure_items(
        &self,
        (own, query): (Block<'_>, usize),
        target: Block<'_>,
        items: &mut [Item],
        wide: &mut Vec<f64>,
    ) {
        vectorized(
            #[inline(always)]
            || {
                own.widen(query, self.queries.dim(), wide);
                for item in items.iter_mut() {
                    item.score = -self.key(wide, target, item.row as usize);
                }
            },
        );
        let index = |item: &Item| target.index(item.row as usize);
        // Distances are finite; -0 and 0 are the same.
        items.sort_unstable_by(|a, b| {
            let nearer = b.score.partial_cmp(&a.score).unwrap_or(Equal);
            nearer.then_with(|| index(a).cmp(&index(b)))
        });
    }
}

impl Scratch {
    /// Pairs so many queries with their open items: where these are many, by the rows of the gallery.
    fn pair(&mut self, queries: usize, gallery: usize) {
        /// Neighbouring rows need no order; so many parts of the gallery are told apart.
        const PARTS: usize = 4096;
        self.scores.resize(self.open.len(), 0.0);
        self.pairs.clear();
        for (query, placed) in self.placed[..queries].iter().enumerate() {
            self.pairs.extend(placed.open.clone().map(|item| Pair {
                query: query as u32,
                row: self.open[item].row,
                item: item as u32,
            }));
        }
        // Few rows are asked for twice; a query is, by all its items.
        if self.pairs.len() < gallery {
            return;
        }
        let shift = (gallery / PARTS).next_power_of_two().ilog2();
        let part = |row: u32| row as usize >> shift;
        self.starts.clear();
        self.starts.resize(part(gallery as u32) + 2, 0);
        for pair in &self.pairs {
            self.starts[part(pair.row) + 1] += 1;
        }
        for part in 1..self.starts.len() {
            self.starts[part] += self.starts[part - 1];
        }
        self.by_row.resize(self.pairs.len(), Pair::default());
        for &pair in &self.pairs {
            let at = &mut self.starts[part(pair.row)];
            self.by_row[*at as usize] = pair;
            *at += 1;
        }
        std::mem::swap(&mut self.pairs, &mut self.by_row);
    }
}

/// Of items that stand in the order of their scores, keeps those that stand within `apart` of one of the other kind; of the other
/// relevant ones it is sure how many irrelevant rows stand `before` them.
fn sift(items: &mut Vec<Item>, apart: f64, before: &mut Vec<u32>) {
    let mut last = [f64::INFINITY; 2];
    for item in items.iter_mut() {
        let other = last[usize::from(!item.relevant)];
        item.open = other - item.score <= apart;
        last[usize::from(item.relevant)] = item.score;
    }
    let mut next = [f64::NEG_INFINITY; 2];
    for item in items.iter_mut().rev() {
        let other = next[usize::from(!item.relevant)];
        item.open |= item.score - other <= apart;
        next[usize::from(item.relevant)] = item.score;
    }
    // Without branches: which kind an item is of is hard to guess.
    let (mut irrelevant, mut sure, mut kept, mut placed) = (0, 0, 0, before.len());
    before.resize(placed + items.len(), 0);
    for place in 0..items.len() {
        let item = items[place];
        before[placed] = item.before + irrelevant;
        placed += usize::from(item.relevant && !item.open);
        items[kept] = Item {
            before: item.before + sure,
            ..item
        };
        kept += usize::from(item.open);
        irrelevant += u32::from(!item.relevant);
        sure += u32::from(!item.relevant && !item.open);
    }
    before.truncate(placed);
    items.truncate(kept);
}

/// Counts the irrelevant rows before each relevant item; all stand in their order.
fn count(items: &[Item], before: &mut Vec<u32>) {
    let mut irrelevant = 0;
    for item in items {
        if item.relevant {
            before.push(item.before + irrelevant);
        } else {
            irrelevant += 1;
        }
    }
}
