//! The rows of the gallery that can be among the nearest of a query, gathered while its screened scores pass by.

use super::comparison::{Comparison, WORD, places};
use crate::vectorized::vectorized;

/// Rows a list has room for beside one and a half times those it is asked for.
const ROOM: usize = 2 * WORD;

/// By how many standard deviations (and rows) more rows may be seen early than there are to be expected.
const SURE: f64 = 5.0;

/// The shortlists of [`WORD`] neighbouring queries, or fewer at the end of a set: the best rows so far of each, cut back whenever there
/// is no room for more.
#[derive(Debug)]
pub(super) struct Shortlists {
    /// A row whose score is below that of its query is not among the nearest.
    thresholds: [f32; WORD],
    /// Where the rows of each list end so far and where they are cut back: next to each other, since every row that is listed asks for
    /// both.
    ends: [usize; WORD],
    full: [usize; WORD],
    lists: Vec<Shortlist>,
    /// One list after the other.
    rows: Vec<Listed>,
    scores: Vec<f32>,
    /// Rows that were offered, of all that will be.
    seen: usize,
    all: usize,
    /// Queries that were given up because too many rows stand equally near.
    crowded: usize,
}

/// A row of the gallery with its screened score.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Listed {
    pub(super) score: f32,
    pub(super) row: u32,
}

#[derive(Debug)]
struct Shortlist {
    /// How many rows are asked for.
    depth: usize,
    /// Rows whose screened scores differ by more are in the order of their exact ones.
    apart: f64,
    /// Its part of the rows, in no order.
    start: usize,
    room_until: usize,
}

impl Shortlists {
    /// For queries of each of which so many nearest of `all` rows are asked for, by scores that are in order where they differ by more
    /// than `apart`. Rows come in random order.
    pub(super) fn new(queries: impl Iterator<Item = (usize, f64)>, all: usize) -> Self {
        let mut lists: Vec<Shortlist> = Vec::with_capacity(WORD);
        let (mut thresholds, mut ends, mut full) = ([f32::INFINITY; WORD], [0; WORD], [0; WORD]);
        let mut start = 0;
        for (query, (depth, apart)) in queries.enumerate() {
            ends[query] = start;
            let mut room_until = start;
            // Where no row is asked for, none is near enough. What takes no part has a score of negative infinity.
            if depth > 0 {
                thresholds[query] = f32::MIN;
                room_until += capacity(depth);
            }
            full[query] = room_until.min(start + 2 * WORD);
            lists.push(Shortlist {
                depth,
                apart,
                start,
                room_until,
            });
            start = room_until;
        }
        Self {
            thresholds,
            ends,
            full,
            lists,
            rows: vec![Listed::default(); start],
            scores: Vec::new(),
            seen: 0,
            all,
            crowded: 0,
        }
    }

    /// The most bytes a list takes of which so many rows are asked for.
    pub(super) fn bytes(depth: usize) -> usize {
        size_of::<Shortlist>() + capacity(depth) * (size_of::<Listed>() + size_of::<f32>())
    }

    /// The most rows in a list of which so many are asked for.
    pub(super) fn most(depth: usize) -> usize {
        capacity(depth)
    }

    /// How many queries were given up.
    pub(super) fn crowded(&self) -> usize {
        self.crowded
    }

    /// So many more rows will be offered next.
    pub(super) fn expect(&mut self, rows: usize) {
        self.seen += rows;
        // Memory is asked at once for all places where they may be written, not for one after the other.
        let next = |&end: &usize| self.rows.get(end).map_or(0, |listed| listed.row);
        std::hint::black_box(self.ends.iter().map(next).fold(0, u32::wrapping_add));
    }

    /// Scores of a query, of which those of `among` belong to the rows from `first` on.
    #[inline(always)]
    pub(super) fn offer(&mut self, query: usize, scores: &[f32; WORD], among: u32, first: usize) {
        let compare = Comparison::new();
        let mut near = compare.at_least(scores, self.thresholds[query]) & among;
        if near == 0 {
            return;
        }
        if self.ends[query] + near.count_ones() as usize > self.full[query] {
            self.cut(query);
            near &= compare.at_least(scores, self.thresholds[query]);
        }
        let mut end = self.ends[query];
        for place in places(near) {
            let row = (first + place) as u32;
            self.rows[end] = Listed {
                score: scores[place],
                row,
            };
            end += 1;
        }
        self.ends[query] = end;
    }

    /// Scores of one row, one for each query.
    #[inline(always)]
    pub(super) fn offer_row(&mut self, scores: &[f32; WORD], row: usize) {
        for query in places(Comparison::new().at_least_each(scores, &self.thresholds)) {
            let score = scores[query];
            if self.ends[query] == self.full[query] {
                self.cut(query);
                if score < self.thresholds[query] {
                    continue;
                }
            }
            self.rows[self.ends[query]] = Listed { score, row: row as u32 };
            self.ends[query] += 1;
        }
    }

    /// Drops what is not among the nearest of a query.
    #[cold]
    fn cut(&mut self, query: usize) {
        let depth = self.lists[query].depth as f64;
        let seen = self.seen as f64 / self.all as f64;
        // Of rows in random order hardly ever more are among those seen so far. Whether they were is seen in the end.
        let expected = depth * seen;
        let most = expected + SURE * expected.sqrt() + SURE;
        self.keep_nearest(query, most.min(depth).ceil() as usize);
        let (list, end) = (&self.lists[query], self.ends[query]);
        // Those of the next look might have no room.
        if end + WORD > list.room_until {
            self.ends[query] = list.start;
            self.thresholds[query] = f32::INFINITY;
            self.crowded += 1;
        }
        self.full[query] = list.room_until.min(end + (end - list.start) / 2 + WORD);
    }

    /// Keeps the rows that can be among so many nearest of those listed, and raises the threshold accordingly.
    fn keep_nearest(&mut self, query: usize, count: usize) {
        let list = &self.lists[query];
        let rows = &mut self.rows[list.start..self.ends[query]];
        if rows.len() <= count {
            return;
        }
        self.scores.resize(rows.len(), 0.0);
        let (scores, mut threshold) = (&mut self.scores[..], self.thresholds[query]);
        let mut kept = 0;
        vectorized(
            #[inline(always)]
            || {
                for (score, listed) in scores.iter_mut().zip(rows.iter()) {
                    *score = listed.score;
                }
                let reached = f64::from(reached_by(count, scores)) - list.apart;
                threshold = threshold.max((reached as f32).next_down());
                let least = threshold;
                for place in 0..rows.len() {
                    let listed = rows[place];
                    rows[kept] = listed;
                    kept += usize::from(listed.score >= least);
                }
            },
        );
        self.thresholds[query] = threshold;
        self.ends[query] = list.start + kept;
    }

    /// Whether all rows that can be among the nearest of a query are listed.
    fn whole(&self, query: usize) -> bool {
        let (list, threshold) = (&self.lists[query], self.thresholds[query]);
        let rows = &self.rows[list.start..self.ends[query]];
        let sure = |listed: &&Listed| f64::from(listed.score) >= f64::from(threshold) + list.apart;
        list.depth == 0 || threshold == f32::MIN || rows.iter().filter(sure).count() >= list.depth
    }

    /// Calls `visit` with each query and the rows among which the nearest are, by falling scores; without any where it was given up, or
    /// rows are missing.
    pub(super) fn finish(mut self, mut visit: impl FnMut(usize, Option<&[Listed]>)) {
        let (mut order, mut listed) = (Vec::new(), Vec::new());
        for query in 0..self.lists.len() {
            if !self.whole(query) {
                visit(query, None);
                continue;
            }
            self.keep_nearest(query, self.lists[query].depth);
            let rows = &self.rows[self.lists[query].start..self.ends[query]];
            order.clear();
            order.extend(
                rows.iter()
                    .map(|listed| u64::from(falling(listed.score)) << 32 | u64::from(listed.row)),
            );
            order.sort_unstable();
            listed.clear();
            listed.extend(order.iter().map(|&both| Listed {
                score: score((both >> 32) as u32),
                row: both as u32,
            }));
            visit(query, Some(&listed));
        }
    }
}

/// Rows a list has room for.
fn capacity(depth: usize) -> usize {
    depth + depth / 2 + ROOM
}

/// A score that so many reach, and few more: found by halving what lies between the extremes, without sorting.
#[inline(always)]
fn reached_by(needed: usize, scores: &[f32]) -> f32 {
    const HALVINGS: usize = 16;
    const LANES: usize = 8;
    let few = needed / 16;
    let reach = |least: f32| scores.iter().map(|&score| u32::from(score >= least)).sum::<u32>() as usize;
    let (mut highest, mut lowest) = ([f32::NEG_INFINITY; LANES], [f32::INFINITY; LANES]);
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            // Not `max` and `min`, which take care of what is not a number.
            highest[lane] = if chunk[lane] > highest[lane] {
                chunk[lane]
            } else {
                highest[lane]
            };
            lowest[lane] = if chunk[lane] < lowest[lane] {
                chunk[lane]
            } else {
                lowest[lane]
            };
        }
    }
    let mut most = highest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let mut least = lowest.iter().chain(rest).copied().fold(f32::INFINITY, f32::min);
    for _ in 0..HALVINGS {
        let middle = least + (most - least) / 2.0;
        let reached = reach(middle);
        if reached >= needed {
            least = middle;
        } else {
            most = middle;
        }
        if (needed..=needed + few).contains(&reached) {
            break;
        }
    }
    least
}

/// A number that falls as the score rises.
#[inline(always)]
fn falling(score: f32) -> u32 {
    let bits = score.to_bits();
    // Positive numbers rise with their bits; negative ones fall, and have the highest bit.
    if bits >> 31 == 0 { !bits ^ 1 << 31 } else { bits }
}

/// The score of a [`falling`] number.
#[inline(always)]
fn score(falling: u32) -> f32 {
    f32::from_bits(if falling >> 31 == 0 {
        !falling ^ 1 << 31
    } else {
        falling
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the lists of some queries hold in the end.
    fn finished(lists: Shortlists) -> Vec<Option<Vec<Listed>>> {
        let mut found = Vec::new();
        lists.finish(|query, list| {
            assert_eq!(query, found.len());
            found.push(list.map(<[_]>::to_vec));
        });
        found
    }

    proptest! {
        #[test]
        fn scores_fall_as_their_numbers_rise(scores in prop::collection::vec(-2.0_f32..2.0, 2)) {
            let [a, b] = [scores[0], scores[1]];
            prop_assert_eq!(falling(a) < falling(b), a > b);
            prop_assert_eq!(score(falling(a)).to_bits(), a.to_bits());
            prop_assert!(falling(0.5) < falling(0.0) && falling(0.0) < falling(-0.0) && falling(-0.0) < falling(-0.5));
        }

        /// Offered from both sides, in any order: all rows that are within `apart` of the last that is asked for, nearest first.
        #[test]
        fn a_list_holds_what_can_be_among_the_nearest(
            seed in 0_u64..1000, words in 1_usize..40, depth in 1_usize..300, apart in prop::sample::select(vec![0.0, 1e-3]),
        ) {
            use crate::random::{Rng, purpose, stream};
            let mut random = stream(seed, &[purpose::RANKS]);
            let depths = [depth, 0, 1];
            let scores: Vec<[[f32; WORD]; 3]> = (0..words)
                .map(|_| std::array::from_fn(|_| std::array::from_fn(|_| random.random_range(-1.0..1.0))))
                .collect();
            let mut lists = Shortlists::new(depths.into_iter().map(|depth| (depth, apart)), words * WORD);
            for (word, scores) in scores.iter().enumerate() {
                lists.expect(WORD);
                if word % 2 == 0 {
                    for (query, scores) in scores.iter().enumerate() {
                        // The last row takes no part.
                        lists.offer(query, scores, u32::MAX >> 1, word * WORD);
                    }
                } else {
                    (0..WORD - 1).for_each(|row| {
                        let mut each = [0.0; WORD];
                        (0..3).for_each(|query| each[query] = scores[query][row]);
                        lists.offer_row(&each, word * WORD + row);
                    });
                }
            }
            prop_assert_eq!(lists.crowded(), 0);
            for (query, found) in finished(lists).into_iter().enumerate() {
                let mut all: Vec<Listed> = scores.iter().enumerate().flat_map(|(word, scores)| {
                    let rows = scores[query][..WORD - 1].iter().enumerate();
                    rows.map(move |(row, &score)| Listed { score, row: (word * WORD + row) as u32 })
                }).collect();
                all.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
                let found = found.unwrap();
                prop_assert_eq!(&found[..], &all[..found.len()]);
                let least = depths[query].min(all.len());
                prop_assert!(found.len() >= least && found.len() <= least + least / 16 + 2 + all.len() / 100, "{} {}", found.len(), least);
                if depths[query] > 0 && found.len() < all.len() {
                    let last = f64::from(all[depths[query] - 1].score);
                    prop_assert!(f64::from(all[found.len()].score) < last - apart);
                }
            }
        }
    }

    #[test]
    fn a_list_that_rows_in_an_unlucky_order_misled_is_not_whole() {
        // All near rows at once, and first: far more than a tenth of them were to be expected.
        let mut lists = Shortlists::new([(200, 0.0), (200, 0.0)].into_iter(), 80 * WORD);
        for word in 0..80 {
            lists.expect(WORD);
            let far = |row: usize| -((word * WORD + row) as f32);
            let first = std::array::from_fn(|row| if word < 8 { 1.0 + row as f32 } else { far(row) });
            lists.offer(0, &first, u32::MAX, word * WORD);
            let even = std::array::from_fn(|row| {
                if row % 8 == word % 8 {
                    1.0 + word as f32
                } else {
                    far(row)
                }
            });
            lists.offer(1, &even, u32::MAX, word * WORD);
        }
        let found = finished(lists);
        assert!(found[0].is_none());
        assert!(found[1].as_ref().unwrap().len() >= 200);
    }

    #[test]
    fn too_many_rows_that_are_equally_near_are_given_up() {
        let mut lists = Shortlists::new([(5, 0.1), (5, 0.1)].into_iter(), 40 * WORD);
        for word in 0..40 {
            lists.expect(WORD);
            let crowd = std::array::from_fn(|row| 0.5 + 0.001 * row as f32);
            lists.offer(0, &crowd, u32::MAX, word * WORD);
            let few = std::array::from_fn(|row| if word == 39 { row as f32 } else { 0.5 });
            lists.offer(1, &few, u32::from(word == 39) * 0xff00, word * WORD);
        }
        assert_eq!(lists.crowded(), 1);
        let found = finished(lists);
        assert!(found[0].is_none());
        assert_eq!(found[1].as_ref().unwrap().len(), 5);
    }
}
