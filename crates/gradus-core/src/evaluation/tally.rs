//! Counts, for each relevant item of each query, the rows of the gallery that stand before it.
//!
//! All counts only grow by addition, so any number of threads may count blocks in any order and end at the same numbers.

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;

use super::comparison::{Comparison, WORD, places};
use super::ranks::{Horizon, Ranked};
use super::undecided::Undecided;
use crate::vectorized::vectorized;

/// Up to this many relevant items are counted one after the other over a whole block, without branches.
const LEVELS: usize = 8;

/// Up to this many a number is compared with all of them to find its place.
const COMPARED: usize = 64;

/// Numbers that are compared at once.
const LANES: usize = 8;

/// Items are given up after one in so many blocks.
const PRUNED: usize = 4;

/// Bytes a relevant item takes while its block of queries is searched.
pub(super) const BYTES_PER_POSITIVE: usize = 60;

/// A relevant item: how far it is (see `Space::key`), where it stands in the gallery, how relevant it is.
pub(super) type Positive = (f64, u32, f32);

/// The relevant items of a block of queries and the counts so far.
#[derive(Debug)]
pub(super) struct Tally {
    starts: Vec<usize>,
    /// Those of each query, nearest first.
    positives: Vec<Vec<Positive>>,
    /// Whether not all are equally relevant.
    graded: bool,
    /// Between these bounds a screened number may belong to either side of the item.
    low: Vec<f32>,
    high: Vec<f32>,
    /// For each of as many equal steps from the lowest to the highest `low` of a query as it has items: how many items are on higher
    /// steps. Where a number stands among them is then found in a few looks.
    above: Vec<u32>,
    /// Rows whose first relevant successor is this item.
    before: Vec<AtomicU32>,
    /// Relevant items that can still be within the horizon: a prefix, since ranks rise.
    active: Vec<AtomicU32>,
    /// The deepest rank that is asked for, of each item and of the best.
    limits: Vec<[usize; 2]>,
}

impl Tally {
    /// From the relevant items of each query, in any order; `screened(query, key)` is the number screening stands for, and how far it can
    /// be off.
    pub(super) fn new(
        mut positives: Vec<Vec<Positive>>,
        (horizon, graded): (Horizon, bool),
        screened: impl Fn(usize, f64) -> (f64, f64) + Sync,
    ) -> Self {
        let mut starts = Vec::with_capacity(positives.len() + 1);
        starts.push(0);
        for list in &positives {
            starts.push(starts[starts.len() - 1] + list.len());
        }
        let total = starts[positives.len()];
        let (mut low, mut high) = (vec![0.0; total], vec![0.0; total]);
        let mut above = vec![0; total];
        positives
            .par_iter_mut()
            .zip(parts(&mut low, &starts))
            .zip(parts(&mut high, &starts))
            .zip(parts(&mut above, &starts))
            .enumerate()
            .for_each(|(query, (((positives, low), high), above))| {
                positives.sort_unstable_by(|a, b| before(*a, *b));
                vectorized(
                    #[inline(always)]
                    || {
                        for ((positive, low), high) in positives.iter().zip(low.iter_mut()).zip(high.iter_mut()) {
                            let (middle, slack) = screened(query, positive.0);
                            (*low, *high) = ((middle - slack) as f32, (middle + slack) as f32);
                            // More than rounding took or gave.
                            *low -= low.abs() * f32::EPSILON + f32::MIN_POSITIVE;
                            *high += high.abs() * f32::EPSILON + f32::MIN_POSITIVE;
                        }
                        // Few are compared one by one.
                        if low.len() > COMPARED {
                            Steps::over(low).fill(low, above);
                        }
                    },
                );
            });
        let limits = positives.iter().map(Vec::len);
        let limits: Vec<_> = limits
            .map(|count| [horizon.limit(count), horizon.best_limit(count)])
            .collect();
        // Ranks are at least places.
        let within = |(positives, &[limit, _]): (&Vec<Positive>, &[usize; 2])| {
            AtomicU32::new(positives.len().min(limit.max(1)) as u32)
        };
        let active = positives.iter().zip(&limits).map(within).collect();
        let zeros = (0..total).into_par_iter().with_min_len(1 << 12);
        let counts = zeros.map(|_| AtomicU32::new(0)).collect();
        Self {
            starts,
            positives,
            graded,
            low,
            high,
            above,
            before: counts,
            active,
            limits,
        }
    }

    /// How many relevant items of a query are still counted; 0 where there are none.
    #[inline(always)]
    pub(super) fn active(&self, query: usize) -> usize {
        self.active[query].load(Relaxed) as usize
    }

    /// Whether the numbers that are not above all of so many items are placed one by one.
    #[inline(always)]
    pub(super) fn one_by_one(active: usize) -> bool {
        active > LEVELS
    }

    /// How many rows of so many can be left open at most, each as often as it is.
    #[inline(always)]
    pub(super) fn most_undecided(active: usize, rows: usize) -> usize {
        if Self::one_by_one(active) { rows } else { rows * active }
    }

    /// Counts a block of screened numbers, of which `scores[i]` belongs to row `first + i` of the gallery, for a query and those of its
    /// items that were [`active`](Self::active). Where numbers are placed [one by one](Self::one_by_one), `skip(i)` says which do not
    /// count. Where screening leaves open which of some items stand before a row, `decide` says how many of all items do, or as many as
    /// can.
    #[inline(always)]
    pub(super) fn count(
        &self,
        (query, active): (usize, usize),
        scores: &[f32],
        first: usize,
        skip: impl Fn(usize) -> bool,
        mut decide: impl FnMut(Undecided) -> usize,
    ) {
        let start = self.starts[query];
        let items = Items {
            low: &self.low[start..start + active],
            high: &self.high[start..start + active],
            counts: &self.before[start..start + active],
        };
        let place = |offset: usize, certain: usize, uncertain: usize| {
            if certain == uncertain {
                return certain;
            }
            decide(Undecided {
                query: query as u32,
                row: (first + offset) as u32,
                certain: certain as u32,
                uncertain: uncertain as u32,
                counted: uncertain < active,
            })
        };
        if !Self::one_by_one(active) {
            items.count_levels(scores, place);
        } else if active <= COMPARED {
            items.count_compared(scores, skip, place);
        } else {
            let all = start..self.starts[query + 1];
            let steps = Steps::over(&self.low[all.clone()]);
            items.count_steps(scores, (steps, &self.above[all]), skip, place);
        }
        // Not for every block: that costs more than a few items more.
        if (first / scores.len() + query).is_multiple_of(PRUNED) {
            self.prune(query);
        }
    }

    /// How many relevant items stand before a row whose place screening left open: by its score within `error`, if there is one, and its
    /// exact key.
    #[inline(always)]
    pub(super) fn decide(&self, row: Undecided, rough: Option<(f64, f64)>, key: impl FnOnce() -> f64) -> usize {
        let first = self.starts[row.query as usize];
        let (mut certain, mut uncertain) = (first + row.certain as usize, first + row.uncertain as usize);
        if let Some((score, error)) = rough {
            // Items stand in the middle of their bounds, which are equally wide, but for rounding to single precision.
            let half = f64::from(self.high[certain] - self.low[certain]) / 2.0;
            let error = error + 8.0 * f64::from(f32::EPSILON) * (score.abs() + error + 2.0 * half);
            let before = |from: usize, than: f64| {
                let low = &self.low[from..uncertain];
                from + low.partition_point(|&low| f64::from(low) + half > than)
            };
            certain = before(certain, score + error);
            uncertain = before(certain, score - error);
        }
        if certain < uncertain {
            let item = (key(), row.row, 0.0);
            let among = &self.positives[row.query as usize][certain - first..uncertain - first];
            certain += among.partition_point(|&positive| before(positive, item).is_lt());
        }
        certain - first
    }

    /// Whether anybody still asks for the place of a row.
    pub(super) fn matters(&self, row: &Undecided) -> bool {
        row.certain < self.active[row.query as usize].load(Relaxed)
    }

    /// Moves a row that was counted behind all items in question to its place. Not while blocks are counted for its query.
    #[inline(always)]
    pub(super) fn settle(&self, row: Undecided, place: usize) {
        if place == row.uncertain as usize {
            return;
        }
        let first = self.starts[row.query as usize];
        if row.counted {
            self.before[first + row.uncertain as usize].fetch_sub(1, Relaxed);
        }
        self.before[first + place].fetch_add(1, Relaxed);
    }

    /// Gives up the relevant items whose rank is already beyond the horizon.
    #[inline(always)]
    fn prune(&self, query: usize) {
        let active = self.active[query].load(Relaxed) as usize;
        let start = self.starts[query];
        let mut rank = 0;
        for place in 0..active {
            rank += 1 + self.before[start + place].load(Relaxed) as usize;
            if rank > self.limits[query][usize::from(place == 0)] {
                self.active[query].fetch_min(place as u32, Relaxed);
                return;
            }
        }
    }

    /// What was found for each query.
    pub(super) fn finish(mut self) -> Vec<Ranked> {
        // Taken apart in parallel, too.
        let positives = std::mem::take(&mut self.positives).into_par_iter().enumerate();
        let lists = positives.map(|(query, positives)| {
            let range = self.starts[query]..self.starts[query + 1];
            let mut rank = 0_usize;
            let mut ranks = Vec::new();
            for (place, count) in self.before[range].iter().enumerate() {
                rank += 1 + count.load(Relaxed) as usize;
                if rank > self.limits[query][usize::from(place == 0)] {
                    break;
                }
                ranks.push(rank as u32);
            }
            Ranked {
                relevant: positives.len() as u32,
                ranks,
                degrees: if self.graded {
                    positives.iter().map(|positive| positive.2).collect()
                } else {
                    Vec::new()
                },
            }
        });
        lists.collect()
    }
}

/// The items of a query that are still counted. `place(offset, certain, uncertain)` says how many of them stand before a number of which
/// that is known.
#[derive(Clone, Copy)]
struct Items<'a> {
    low: &'a [f32],
    high: &'a [f32],
    counts: &'a [AtomicU32],
}

impl Items<'_> {
    /// Counts for one item after the other, at most [`LEVELS`].
    #[inline(always)]
    fn count_levels(self, scores: &[f32], mut place: impl FnMut(usize, usize, usize) -> usize) {
        let active = self.low.len();
        let last = self.low[active - 1];
        let mut reaching = 0_u32;
        for &score in scores {
            reaching += u32::from(score >= last);
        }
        if reaching == 0 {
            return;
        }
        let mut above = [0_u32; LEVELS];
        for item in (0..active).rev() {
            let (low, high) = (self.low[item], self.high[item]);
            let (mut sure, mut possible) = (0_u32, 0_u32);
            for &score in scores {
                sure += u32::from(score > high);
                possible += u32::from(score >= low);
            }
            if possible == 0 {
                break;
            }
            above[item] = sure;
            if possible > sure {
                for (offset, &score) in scores.iter().enumerate() {
                    if score >= low && score <= high {
                        above[item] += u32::from(place(offset, item, item + 1) == item);
                    }
                }
            }
        }
        let mut previous = 0;
        for (count, &above) in self.counts.iter().zip(&above) {
            if above > previous {
                count.fetch_add(above - previous, Relaxed);
            }
            previous = above;
        }
    }

    /// Places number by number, each compared with all items, at most [`COMPARED`]: that costs less than a branch taken by chance.
    #[inline(always)]
    fn count_compared(
        self,
        scores: &[f32],
        skip: impl Fn(usize) -> bool,
        mut place: impl FnMut(usize, usize, usize) -> usize,
    ) {
        let (low, low_rest) = self.low.as_chunks::<LANES>();
        let (high, high_rest) = self.high.as_chunks::<LANES>();
        let (mut last_low, mut last_high) = ([[f32::NEG_INFINITY; LANES]; 1], [[f32::NEG_INFINITY; LANES]; 1]);
        last_low[0][..low_rest.len()].copy_from_slice(low_rest);
        last_high[0][..high_rest.len()].copy_from_slice(high_rest);
        let last = ..usize::from(!low_rest.is_empty());
        let last = last_low[last].iter().zip(&last_high[last]);
        // One more for the numbers that are behind all items; a bit says which are not 0.
        let (mut found, mut touched) = ([0_u32; COMPARED + 1], 0_u64);
        let sure = self.open(
            scores,
            skip,
            #[inline(always)]
            |offset, score| {
                let (mut above, mut reached) = ([0_u32; LANES], [0_u32; LANES]);
                for (low, high) in low.iter().zip(high).chain(last.clone()) {
                    for lane in 0..LANES {
                        above[lane] += u32::from(low[lane] > score);
                        reached[lane] += u32::from(high[lane] >= score);
                    }
                }
                let place = place(offset, sum(above), sum(reached));
                found[place] += 1;
                touched |= 1_u64.checked_shl(place as u32).unwrap_or(0);
            },
        );
        found[0] += sure;
        touched |= u64::from(sure > 0);
        while touched != 0 {
            let place = touched.trailing_zeros() as usize;
            touched &= touched - 1;
            if let Some(count) = self.counts.get(place) {
                count.fetch_add(found[place], Relaxed);
            }
        }
    }

    /// Places number by number, each looked up among the steps of all items that were tried.
    #[inline(always)]
    fn count_steps(
        self,
        scores: &[f32],
        (steps, above): (Steps, &[u32]),
        skip: impl Fn(usize) -> bool,
        mut place: impl FnMut(usize, usize, usize) -> usize,
    ) {
        let sure = self.open(
            scores,
            skip,
            #[inline(always)]
            |offset, score| {
                let certain = steps.place(score, self.low, above);
                let uncertain = match self.high.get(certain) {
                    Some(&high_of_it) if high_of_it >= score => {
                        certain + self.high[certain..].partition_point(|&high| high >= score)
                    }
                    _ => certain,
                };
                if let Some(count) = self.counts.get(place(offset, certain, uncertain)) {
                    count.fetch_add(1, Relaxed);
                }
            },
        );
        if sure > 0 {
            self.counts[0].fetch_add(sure, Relaxed);
        }
    }

    /// Calls `place(offset, score)` for the scores between the bounds of all items, but for those to skip, and says how many are above.
    #[inline(always)]
    fn open(self, scores: &[f32], skip: impl Fn(usize) -> bool, mut place: impl FnMut(usize, f32)) -> u32 {
        let (last, best) = (self.low[self.low.len() - 1], self.high[0]);
        let mut sure = 0_u32;
        let (chunks, rest) = scores.as_chunks::<WORD>();
        let mut filled_up = [[f32::NEG_INFINITY; WORD]; 1];
        filled_up[0][..rest.len()].copy_from_slice(rest);
        let filled_up = &filled_up[..usize::from(!rest.is_empty())];
        let compare = Comparison::new();
        for (number, chunk) in chunks.iter().chain(filled_up).enumerate() {
            let open = compare.at_least(chunk, last);
            if open == 0 {
                continue;
            }
            let above = !compare.at_most(chunk, best);
            sure += above.count_ones();
            for at in places(open & !above) {
                let offset = number * WORD + at;
                if !skip(offset) {
                    place(offset, chunk[at]);
                }
            }
        }
        sure
    }
}

#[inline(always)]
fn sum(lanes: [u32; LANES]) -> usize {
    lanes.iter().sum::<u32>() as usize
}

/// The part of each query.
fn parts<'a, T>(mut values: &'a mut [T], starts: &[usize]) -> Vec<&'a mut [T]> {
    let lengths = starts.windows(2).map(|pair| pair[1] - pair[0]);
    let mut parts = Vec::with_capacity(lengths.len());
    for length in lengths {
        let (part, rest) = values.split_at_mut(length);
        parts.push(part);
        values = rest;
    }
    parts
}

/// The range of a query's `low`, cut into as many steps of equal height as there are items.
#[derive(Clone, Copy)]
struct Steps {
    lowest: f32,
    per_unit: f32,
    count: usize,
}

impl Steps {
    /// `low` is in falling order.
    #[inline(always)]
    fn over(low: &[f32]) -> Self {
        let (lowest, highest) = match low {
            [] => (0.0, 0.0),
            [first, .., last] => (*last, *first),
            [only] => (*only, *only),
        };
        let height = highest - lowest;
        Self {
            lowest,
            per_unit: if height > 0.0 { low.len() as f32 / height } else { 0.0 },
            count: low.len(),
        }
    }

    /// The step of a score.
    #[inline(always)]
    fn of(&self, score: f32) -> usize {
        // A number below 0 or none becomes 0.
        (((score - self.lowest) * self.per_unit) as usize).min(self.count - 1)
    }

    /// Counts, for each step, the items on higher ones.
    fn fill(&self, low: &[f32], above: &mut [u32]) {
        let mut items = 0;
        for (step, above) in above.iter_mut().enumerate().rev() {
            while low.get(items).is_some_and(|&low| self.of(low) > step) {
                items += 1;
            }
            *above = items as u32;
        }
    }

    /// How many of the items `low` are above a score. `low` may be a prefix of all items.
    #[inline(always)]
    fn place(&self, score: f32, low: &[f32], above: &[u32]) -> usize {
        const FEW: usize = 8;
        let step = self.of(score);
        let from = (above[step] as usize).min(low.len());
        // Rounding never turns the order of two numbers around, so only items on the same step can be on either side.
        let to = match step.checked_sub(1) {
            Some(step) => (above[step] as usize).min(low.len()),
            None => low.len(),
        };
        let within = &low[from..to];
        if within.len() <= FEW {
            from + within.iter().map(|&low| usize::from(low > score)).sum::<usize>()
        } else {
            from + within.partition_point(|&low| low > score)
        }
    }
}

/// The order of the ranking: nearer first, then smaller index.
#[inline(always)]
fn before(a: Positive, b: Positive) -> Ordering {
    // Distances are finite; -0 and 0 are the same.
    if a.0 < b.0 {
        Ordering::Less
    } else if a.0 > b.0 {
        Ordering::Greater
    } else {
        a.1.cmp(&b.1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_is_that_of_a_search_over_all(
            mut low in prop::collection::vec(prop_oneof![-1.0_f32..1.0, prop::sample::select(vec![0.0_f32, 0.25, 1e-30, -1e30, 1e30])], 1..60),
            scores in prop::collection::vec(-1.5_f32..1.5, 1..40),
            prefix in 1_usize..60,
        ) {
            low.sort_by(|a, b| b.total_cmp(a));
            let steps = Steps::over(&low);
            let mut above = vec![0; low.len()];
            steps.fill(&low, &mut above);
            let active = &low[..prefix.min(low.len())];
            for score in scores.into_iter().chain(low.iter().copied()).chain([f32::NEG_INFINITY, f32::INFINITY]) {
                prop_assert_eq!(steps.place(score, active, &above), active.partition_point(|&low| low > score), "{}", score);
            }
        }
    }
}
