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
use super::single_dots::single_dots;
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
    /// Where the row of the item stands in the gallery as given.
    index: u32,
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
    /// Of the open items with their queries, in single precision.
    products: Vec<f32>,
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
                    let apart = apart(query);
                    vectorized(
                        #[inline(always)]
                        || sift(items, apart, &mut placed.before),
                    );
                    open.extend_from_slice(items);
                }
                placed.open = start..open.len();
            });
        }
        let error = self.space.rough_error();
        if error.is_some() {
            self.multiply_open((own, queries.clone()), target, scratch);
        }
        for query in queries.clone() {
            let Scratch {
                placed,
                items,
                open,
                products,
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
            let products = products.get(part.clone()).unwrap_or_default();
            if let Some(error) = error.filter(|_| self.score_anew((own, query), target, items, products)) {
                items.sort_unstable_by(|a, b| b.score.total_cmp(&a.score));
                vectorized(
                    #[inline(always)]
                    || sift(items, 2.0 * error, before),
                );
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

    /// Multiplies the open items with their queries in single precision.
    fn multiply_open(&self, (own, queries): (Block<'_>, Range<usize>), target: Block<'_>, scratch: &mut Scratch) {
        scratch.pair(queries.len(), target);
        let Scratch { pairs, products, .. } = scratch;
        let dim = self.queries.dim();
        vectorized(
            #[inline(always)]
            || {
                for pairs in pairs.chunks(SIDE_BY_SIDE) {
                    let rows = std::array::from_fn::<_, SIDE_BY_SIDE, _>(
                        #[inline(always)]
                        |place| {
                            let pair = pairs[place.min(pairs.len() - 1)];
                            let query = queries.start + pair.query as usize;
                            [own.raw(query, dim), target.given(pair.index as usize, dim)]
                        },
                    );
                    for (pair, product) in pairs.iter().zip(single_dots(rows)) {
                        products[pair.item as usize] = product;
                    }
                }
            },
        );
    }

    /// Scores items anew by their products, and says whether that is of use for all of them.
    fn score_anew(
        &self,
        (own, query): (Block<'_>, usize),
        target: Block<'_>,
        items: &mut [Item],
        products: &[f32],
    ) -> bool {
        let norm = own.norm(query);
        items.iter_mut().zip(products).all(|(item, &product)| {
            let score = self.space.rough_score(product, norm, target.norm(item.row as usize));
            item.score = score.unwrap_or_default();
            score.is_some()
        })
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
    /// Bytes for queries whose lists hold so many rows each.
    pub(super) fn bytes(rows: usize) -> usize {
        let open = size_of::<Item>() + size_of::<f32>() + 2 * size_of::<Pair>() + size_of::<u32>();
        TOGETHER * rows * open
    }

    /// Pairs so many queries with their open items: where these are many, by the rows of the gallery.
    fn pair(&mut self, queries: usize, target: Block<'_>) {
        /// Neighbouring rows need no order; so many parts of the gallery are told apart.
        const PARTS: usize = 4096;
        self.products.resize(self.open.len(), 0.0);
        self.pairs.clear();
        for (query, placed) in self.placed[..queries].iter().enumerate() {
            self.pairs.extend(placed.open.clone().map(|item| Pair {
                query: query as u32,
                index: target.index(self.open[item].row as usize) as u32,
                item: item as u32,
            }));
        }
        // Few rows are asked for twice; a query is, by all its items.
        let gallery = target.end();
        if self.pairs.len() < gallery {
            return;
        }
        let shift = (gallery / PARTS).next_power_of_two().ilog2();
        let part = |pair: &Pair| pair.index as usize >> shift;
        self.starts.clear();
        self.starts.resize((gallery >> shift) + 2, 0);
        for pair in &self.pairs {
            self.starts[part(pair) + 1] += 1;
        }
        for part in 1..self.starts.len() {
            self.starts[part] += self.starts[part - 1];
        }
        self.by_row.resize(self.pairs.len(), Pair::default());
        for &pair in &self.pairs {
            let at = &mut self.starts[part(&pair)];
            self.by_row[*at as usize] = pair;
            *at += 1;
        }
        std::mem::swap(&mut self.pairs, &mut self.by_row);
    }
}

/// Of items that stand in the order of their scores, keeps those that stand within `apart` of one of the other kind; of the other
/// relevant ones it is sure how many irrelevant rows stand `before` them.
#[inline(always)]
fn sift(items: &mut Vec<Item>, apart: f64, before: &mut Vec<u32>) {
    let mut last = Last::new(f64::INFINITY);
    for item in items.iter_mut() {
        item.open = last.of_the_other_kind(item) - item.score <= apart;
    }
    let mut next = Last::new(f64::NEG_INFINITY);
    for item in items.iter_mut().rev() {
        item.open |= item.score - next.of_the_other_kind(item) <= apart;
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

/// The scores of the last items of both kinds.
struct Last {
    relevant: f64,
    irrelevant: f64,
}

impl Last {
    fn new(score: f64) -> Self {
        Self {
            relevant: score,
            irrelevant: score,
        }
    }

    /// That of the last item of the other kind than this one, which is the last of its own from now on.
    #[inline(always)]
    fn of_the_other_kind(&mut self, item: &Item) -> f64 {
        let Self { relevant, irrelevant } = *self;
        *self = if item.relevant {
            Self {
                relevant: item.score,
                irrelevant,
            }
        } else {
            Self {
                relevant,
                irrelevant: item.score,
            }
        };
        if item.relevant { irrelevant } else { relevant }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Scores that are off by up to a number, sifted with twice that number, tell what the true ones tell, once those left over are
        /// put into their order.
        #[test]
        fn what_is_sifted_out_stands_where_it_should(
            rows in prop::collection::vec((0_u32..40, -4_i32..=4, any::<bool>()), 0..60), twice: bool,
        ) {
            const OFF: f64 = 1.0;
            let exact = |row: u32| f64::from(rows[row as usize].0) * OFF / 2.0;
            let score = |row: u32, error: f64| exact(row) + f64::from(rows[row as usize].1) / 4.0 * error;
            let mut items: Vec<Item> = (0..rows.len() as u32)
                .map(|row| Item { row, relevant: rows[row as usize].2, open: false, before: 0, score: score(row, OFF) })
                .collect();
            let nearer = |a: &Item, b: &Item| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row));
            let mut before = Vec::new();
            items.sort_by(nearer);
            sift(&mut items, 2.0 * OFF, &mut before);
            let sifted = items.len();
            if twice {
                items.iter_mut().for_each(|item| item.score = score(item.row, OFF / 8.0));
                items.sort_by(nearer);
                sift(&mut items, OFF / 4.0, &mut before);
            }
            prop_assert!(items.len() <= sifted && items.iter().all(|item| item.open));
            items.iter_mut().for_each(|item| item.score = exact(item.row));
            items.sort_by(nearer);
            count(&items, &mut before);
            before.sort_unstable();
            let mut all: Vec<u32> = (0..rows.len() as u32).collect();
            all.sort_by(|&a, &b| exact(b).total_cmp(&exact(a)).then(a.cmp(&b)));
            let relevant = |row: &&u32| rows[**row as usize].2;
            let expected: Vec<u32> = (0..all.len())
                .filter(|&place| relevant(&&all[place]))
                .map(|place| all[..place].iter().filter(|row| !relevant(row)).count() as u32)
                .collect();
            prop_assert_eq!(before, expected);
        }
    }
}
