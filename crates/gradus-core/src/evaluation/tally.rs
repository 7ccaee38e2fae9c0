//! Counts, for each relevant item of each query, the rows of the gallery that stand before it.
//!
//! All counts only grow by addition, so any number of threads may count blocks in any order and end at the same numbers.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use rayon::prelude::*;

use super::ranks::Horizon;

/// Up to this many relevant items are counted one after the other over a whole block, without branches.
const LEVELS: usize = 8;

/// Bytes a relevant item takes while its block of queries is searched.
pub(super) const BYTES_PER_POSITIVE: usize = 60;

/// A relevant item: how far it is (see `Space::key`), where it stands in the gallery, how relevant it is.
pub(super) type Positive = (f64, u32, f32);

/// The relevant items of a block of queries and the counts so far.
#[derive(Debug)]
pub(super) struct Tally {
    starts: Vec<usize>,
    /// Nearest first, but for items of equal degree that are held back.
    positives: Vec<Positive>,
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
    /// Relevant items that were counted from the start: all, or those up to the first hopeless one. If the rank of that one
    /// turns out to be beyond the horizon, so are those of all that follow.
    tried: Vec<u32>,
    limits: Vec<usize>,
}

impl Tally {
    /// From the relevant items of each query in any order; `screened(query, key)` is the number screening stands for, and how
    /// far it can be off. Items below the score `hopeless` of a query (empty: no query has one) are held back, but for the first.
    pub(super) fn new(
        mut lists: Vec<Vec<Positive>>,
        horizon: Horizon,
        hopeless: &[f32],
        screened: impl Fn(usize, f64) -> (f64, f64) + Sync,
    ) -> Self {
        let mut starts = Vec::with_capacity(lists.len() + 1);
        starts.push(0);
        for list in &lists {
            starts.push(starts[starts.len() - 1] + list.len());
        }
        let total = starts[lists.len()];
        let (mut low, mut high) = (vec![0.0; total], vec![0.0; total]);
        let (mut positives, mut above) = (vec![(0.0, 0, 0.0); total], vec![0; total]);
        let limits: Vec<usize> = lists.iter().map(|list| horizon.limit(list.len())).collect();
        let mut tried: Vec<u32> = vec![0; lists.len()];
        lists
            .par_iter_mut()
            .zip(parts(&mut positives, &starts))
            .zip(parts(&mut low, &starts))
            .zip(parts(&mut high, &starts))
            .zip(parts(&mut above, &starts))
            .zip(&mut tried)
            .enumerate()
            .for_each(|(query, (((((list, positives), low), high), above), tried))| {
                let hopeless = hopeless.get(query).copied().unwrap_or(f32::NEG_INFINITY);
                let bounds = |positive: &Positive| {
                    let (middle, slack) = screened(query, positive.0);
                    (
                        ((middle - slack) as f32).next_down(),
                        ((middle + slack) as f32).next_up(),
                    )
                };
                let all = hopeless == f32::NEG_INFINITY;
                let last = put_in_order(list, |positive| all || bounds(positive).1 >= hopeless);
                positives.copy_from_slice(list);
                *list = Vec::new();
                for ((positive, low), high) in positives.iter().zip(low.iter_mut()).zip(high.iter_mut()) {
                    (*low, *high) = bounds(positive);
                }
                *tried = last as u32;
                Steps::over(&low[..last]).fill(&low[..last], &mut above[..last]);
            });
        let active = tried.iter().map(|&tried| AtomicU32::new(tried)).collect();
        let counts = (0..total).map(|_| AtomicU32::new(0)).collect();
        let tally = Self {
            starts,
            positives,
            low,
            high,
            above,
            before: counts,
            active,
            tried,
            limits,
        };
        (0..tally.limits.len()).for_each(|query| tally.prune(query));
        tally
    }

    /// Whether nothing about a query remains to be counted.
    pub(super) fn done(&self, query: usize) -> bool {
        self.active[query].load(Relaxed) == 0
    }

    /// Counts a block of screened numbers: `scores[i]` belongs to row `first + i` of the gallery, whose distance is `exact(i)`.
    #[inline(always)]
    pub(super) fn count(&self, query: usize, scores: &[f32], first: usize, exact: impl Fn(usize) -> f64) {
        let active = self.active[query].load(Relaxed) as usize;
        if active == 0 {
            return;
        }
        let range = self.starts[query]..self.starts[query] + active;
        let (low, high) = (&self.low[range.clone()], &self.high[range.clone()]);
        let (positives, counts) = (&self.positives[range.clone()], &self.before[range]);
        let last = low[active - 1];
        let mut reaching = 0_u32;
        for &score in scores {
            reaching += u32::from(score >= last);
        }
        if reaching == 0 {
            return;
        }
        if active <= LEVELS {
            let mut above = [0_u32; LEVELS];
            for place in (0..active).rev() {
                let (low, high) = (low[place], high[place]);
                let (mut sure, mut possible) = (0_u32, 0_u32);
                for &score in scores {
                    sure += u32::from(score > high);
                    possible += u32::from(score >= low);
                }
                if possible == 0 {
                    break;
                }
                above[place] = sure;
                if possible > sure {
                    for (offset, &score) in scores.iter().enumerate() {
                        if score >= low && score <= high {
                            let item = (exact(offset), (first + offset) as u32, 0.0);
                            above[place] += u32::from(before(item, positives[place]).is_lt());
                        }
                    }
                }
            }
            let mut previous = 0;
            for (count, &above) in counts.iter().zip(&above) {
                if above > previous {
                    count.fetch_add(above - previous, Relaxed);
                }
                previous = above;
            }
        } else {
            // As many as a word has bits, which say which numbers have to be placed.
            const CHUNK: usize = 32;
            let all = self.starts[query]..self.starts[query] + self.tried[query] as usize;
            let steps = Steps::over(&self.low[all.clone()]);
            let above_steps = &self.above[all];
            let best = high[0];
            let mut sure = 0_u32;
            let (chunks, rest) = scores.as_chunks::<CHUNK>();
            let mut filled_up = [f32::NEG_INFINITY; CHUNK];
            filled_up[..rest.len()].copy_from_slice(rest);
            for (number, chunk) in chunks.iter().chain(std::iter::once(&filled_up)).enumerate() {
                let (mut above, mut open) = (0_u32, 0_u32);
                for (offset, &score) in chunk.iter().enumerate() {
                    above += u32::from(score > best);
                    open |= u32::from((score >= last) & (score <= best)) << offset;
                }
                sure += above;
                while open != 0 {
                    let offset = open.trailing_zeros() as usize;
                    open &= open - 1;
                    let score = chunk[offset];
                    // The items `certain..uncertain` are too close for screening to tell.
                    let certain = steps.place(score, low, above_steps);
                    let uncertain = match high.get(certain) {
                        Some(&high_of_it) if high_of_it >= score => {
                            certain + high[certain..].partition_point(|&high| high >= score)
                        }
                        _ => certain,
                    };
                    let place = if certain == uncertain {
                        certain
                    } else {
                        let offset = number * CHUNK + offset;
                        let item = (exact(offset), (first + offset) as u32, 0.0);
                        let among = &positives[certain..uncertain];
                        certain + among.partition_point(|&positive| before(positive, item).is_lt())
                    };
                    if let Some(count) = counts.get(place) {
                        count.fetch_add(1, Relaxed);
                    }
                }
            }
            if sure > 0 {
                counts[0].fetch_add(sure, Relaxed);
            }
        }
        self.prune(query);
    }

    /// Gives up the relevant items whose rank is already beyond the horizon.
    #[inline(always)]
    fn prune(&self, query: usize) {
        let active = self.active[query].load(Relaxed) as usize;
        let start = self.starts[query];
        let mut rank = 0;
        for place in 0..active {
            rank += 1 + self.before[start + place].load(Relaxed) as usize;
            // The best one is always placed.
            if rank > self.limits[query] {
                self.active[query].fetch_min(place.max(1) as u32, Relaxed);
                return;
            }
        }
    }

    /// The queries of which an item that was held back can be within the horizon after all.
    pub(super) fn unsure(&self) -> Vec<usize> {
        let unsure = |&query: &usize| {
            let (first, tried) = (self.starts[query], self.tried[query] as usize);
            let counted = &self.before[first..first + tried];
            let rank = tried + counted.iter().map(|count| count.load(Relaxed) as usize).sum::<usize>();
            first + tried < self.starts[query + 1] && rank <= self.limits[query]
        };
        (0..self.limits.len()).filter(unsure).collect()
    }

    /// For each query the ranks within the horizon, and the degrees of all its relevant items, nearest first.
    pub(super) fn finish(self) -> Vec<(Vec<u32>, Vec<f32>)> {
        let lists = (0..self.limits.len()).into_par_iter().map(|query| {
            let range = self.starts[query]..self.starts[query + 1];
            let mut rank = 0_usize;
            let mut ranks = Vec::new();
            for (place, count) in self.before[range.clone()].iter().enumerate() {
                rank += 1 + count.load(Relaxed) as usize;
                if place > 0 && rank > self.limits[query] {
                    break;
                }
                ranks.push(rank as u32);
            }
            let degrees = self.positives[range].iter().map(|positive| positive.2).collect();
            (ranks, degrees)
        });
        lists.collect()
    }
}

/// Puts relevant items in order, nearest first, and says how many have to be counted: those with a `chance` and the first without. Where
/// all are equally relevant, nobody asks for the order of those behind that one.
fn put_in_order(list: &mut [Positive], chance: impl Fn(&Positive) -> bool) -> usize {
    let mut chances = 0;
    for at in 0..list.len() {
        if chance(&list[at]) {
            list.swap(chances, at);
            chances += 1;
        }
    }
    let (some, none) = list.split_at_mut(chances);
    some.sort_unstable_by(|a, b| before(*a, *b));
    if none.iter().any(|positive| positive.2 != 1.0) {
        none.sort_unstable_by(|a, b| before(*a, *b));
    } else if let Some(nearest) = (0..none.len()).min_by(|&a, &b| before(none[a], none[b])) {
        none.swap(0, nearest);
    }
    list.len().min(chances + 1)
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
fn before(a: Positive, b: Positive) -> std::cmp::Ordering {
    // Distances are finite; -0 and 0 are the same.
    a.0.partial_cmp(&b.0)
        .unwrap_or(std::cmp::Ordering::Equal)
        .then(a.1.cmp(&b.1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_first_item_without_a_chance_is_the_nearest_of_them(
            mut list in prop::collection::vec((-9_i32..9, 0_u32..9, prop::sample::select(vec![1.0_f32, 0.5])), 0..20), chance in -10_i32..10, graded: bool,
        ) {
            if !graded {
                list.iter_mut().for_each(|item| item.2 = 1.0);
            }
            let mut found: Vec<Positive> = list.into_iter().map(|(key, row, degree)| (f64::from(key), row, degree)).collect();
            let mut sorted = found.clone();
            sorted.sort_by(|a, b| before(*a, *b));
            let counted = put_in_order(&mut found, |item| item.0 <= f64::from(chance));
            let chances = sorted.iter().filter(|item| item.0 <= f64::from(chance)).count();
            prop_assert_eq!(counted, sorted.len().min(chances + 1));
            let places = |list: &[Positive]| list.iter().map(|item| (item.0, item.1)).collect::<Vec<_>>();
            prop_assert_eq!(places(&found[..counted]), places(&sorted[..counted]));
            if sorted[counted..].iter().any(|item| item.2 != 1.0) {
                prop_assert_eq!(places(&found), places(&sorted));
            }
        }

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
