//! Where the relevant items stand in the ranking of each query: all that the retrieval metrics need.

use rayon::prelude::*;

use super::blocks::{Tile, on_threads, ranges, similarities};
use super::neighbors::nearer;
use super::unit_rows::UnitRows;
use super::{EvaluationError, EvaluationOptions};

/// How deep into the ranking the relevant items are placed. The best one is always placed, however deep it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// Only the best relevant item (Recall@K).
    Best,
    /// Down to rank R, the number of relevant items of the query (MAP@R, R-precision).
    Relevant,
    /// Down to a fixed rank.
    Within(usize),
    /// All of them.
    Everything,
}

/// Ranks (from 1) of the relevant items of every query, in the order of the query set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PositiveRanks {
    relevant: Vec<u32>,
    starts: Vec<usize>,
    ranks: Vec<u32>,
}

impl PositiveRanks {
    /// From one list per query: the number of relevant items and the rising ranks that lie within the horizon.
    #[must_use]
    pub fn from_lists(lists: impl IntoIterator<Item = (u32, Vec<u32>)>) -> Self {
        let mut all = Self {
            relevant: Vec::new(),
            starts: vec![0],
            ranks: Vec::new(),
        };
        for (relevant, ranks) in lists {
            all.relevant.push(relevant);
            all.ranks.extend(ranks);
            all.starts.push(all.ranks.len());
        }
        all
    }

    /// Number of queries.
    #[must_use]
    pub fn queries(&self) -> usize {
        self.relevant.len()
    }

    /// Number of relevant items of a query (R), 0 for a lone query.
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn relevant(&self, query: usize) -> usize {
        self.relevant[query] as usize
    }

    /// Rising ranks of the relevant items within the horizon; the first is there whenever the query is not a lone one.
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn of(&self, query: usize) -> &[u32] {
        &self.ranks[self.starts[query]..self.starts[query + 1]]
    }

    /// Queries whose class has no other member in the gallery: nothing is relevant to them.
    #[must_use]
    pub fn lone_queries(&self) -> usize {
        self.relevant.iter().filter(|&&relevant| relevant == 0).count()
    }
}

/// Places the relevant items of every query in its ranking of the gallery (without one: of the other queries).
///
/// Exact and in one pass: the blocks with the class of a query come first, then every block only counts how many items
/// stand before each relevant one. Equal similarities are ordered by index; the query itself is left out by index.
///
/// # Errors
/// If the widths differ or threads cannot be started.
pub fn rank_positives(
    queries: &UnitRows,
    gallery: Option<&UnitRows>,
    horizon: Horizon,
    options: &EvaluationOptions,
) -> Result<PositiveRanks, EvaluationError> {
    let single_set = gallery.is_none();
    let gallery = gallery.unwrap_or(queries);
    if gallery.dim() != queries.dim() {
        return Err(EvaluationError::Width {
            queries: queries.dim(),
            gallery: gallery.dim(),
        });
    }
    let mut labels = vec![0_u32; queries.len()];
    for class in queries.classes() {
        labels[class.rows.clone()].fill(class.label);
    }
    let sorted: Vec<(u32, Vec<u32>)> = on_threads(options.threads, || {
        let tile = Tile::for_memory(options.memory, queries, gallery, rayon::current_num_threads());
        let blocks: Vec<_> = ranges(gallery.padded_len(), tile.gallery).collect();
        let tiles: Vec<_> = ranges(queries.padded_len(), tile.queries).collect();
        let counted = tiles.into_par_iter().map_init(Vec::new, |scores, rows| {
            let real = rows.start..rows.end.min(queries.len());
            let mut counters: Vec<Counter> = real
                .clone()
                .map(|row| {
                    let own = single_set.then(|| queries.order()[row]);
                    Counter {
                        class: gallery.class(labels[row]),
                        own,
                        ..Counter::default()
                    }
                })
                .collect();
            let with_class = |block: &std::ops::Range<usize>, counters: &[Counter]| {
                counters
                    .iter()
                    .any(|counter| counter.class.start < block.end && block.start < counter.class.end)
            };
            let mut held = usize::MAX;
            for (number, block) in blocks.iter().enumerate() {
                if with_class(block, &counters) {
                    similarities(queries, rows.clone(), gallery, block.clone(), scores);
                    held = number;
                    for (counter, row) in counters.iter_mut().zip(scores.chunks_exact(block.len())) {
                        counter.collect(row, block, gallery.order());
                    }
                }
            }
            for counter in &mut counters {
                counter.begin(horizon);
            }
            // The block still in the buffer is counted first and not multiplied again.
            let order = (held < blocks.len())
                .then_some(held)
                .into_iter()
                .chain((0..blocks.len()).filter(|&number| number != held));
            for (turn, number) in order.enumerate() {
                let block = &blocks[number];
                if turn > 0 || number != held {
                    similarities(queries, rows.clone(), gallery, block.clone(), scores);
                }
                for (counter, row) in counters.iter_mut().zip(scores.chunks_exact(block.len())) {
                    counter.count(row, block, gallery.order());
                }
            }
            counters.into_iter().map(Counter::finish).collect::<Vec<_>>()
        });
        Ok(counted.flatten_iter().collect())
    })?;
    let mut lists: Vec<(u32, Vec<u32>)> = vec![(0, Vec::new()); queries.len()];
    for (list, &index) in sorted.into_iter().zip(queries.order()) {
        lists[index as usize] = list;
    }
    Ok(PositiveRanks::from_lists(lists))
}

/// Counts, for one query, the irrelevant items that stand before each relevant one.
#[derive(Default)]
struct Counter {
    /// Positions of the query's class in the gallery.
    class: std::ops::Range<usize>,
    /// Index of the query itself, if it is in the gallery.
    own: Option<u32>,
    /// Relevant items, nearest first.
    positives: Vec<(f32, u32)>,
    /// Irrelevant items whose first relevant successor is this one.
    before: Vec<u32>,
    /// Relevant items that can still be within the horizon: a prefix, since ranks rise.
    active: usize,
    relevant: usize,
    limit: usize,
}

impl Counter {
    fn collect(&mut self, scores: &[f32], block: &std::ops::Range<usize>, order: &[u32]) {
        for position in self.class.start.max(block.start)..self.class.end.min(block.end) {
            let index = order[position];
            if Some(index) != self.own {
                self.positives.push((scores[position - block.start], index));
            }
        }
    }

    fn begin(&mut self, horizon: Horizon) {
        self.positives.sort_unstable_by(|a, b| nearer(*a, *b));
        self.relevant = self.positives.len();
        self.limit = match horizon {
            Horizon::Best => 0,
            Horizon::Relevant => self.relevant,
            Horizon::Within(rank) => rank,
            Horizon::Everything => usize::MAX,
        };
        self.active = self.relevant;
        self.before = vec![0; self.relevant];
        self.prune();
    }

    fn count(&mut self, scores: &[f32], block: &std::ops::Range<usize>, order: &[u32]) {
        if self.active == 0 {
            return;
        }
        let end = block.end.min(order.len());
        let class_start = self.class.start.clamp(block.start, end);
        let class_end = self.class.end.clamp(class_start, end);
        for part in [block.start..class_start, class_end..end] {
            self.count_part(&scores[part.start - block.start..part.end - block.start], &order[part]);
        }
        self.prune();
    }

    fn count_part(&mut self, scores: &[f32], indices: &[u32]) {
        const CHUNK: usize = 32;
        let positives = &self.positives[..self.active];
        let last = positives[self.active - 1].0;
        for (scores, indices) in scores.chunks(CHUNK).zip(indices.chunks(CHUNK)) {
            if self.active == 1 {
                // Only the best relevant item is left: two counts without branches.
                let greater: u32 = scores.iter().map(|&score| u32::from(score > last)).sum();
                let equal: u32 = scores.iter().map(|&score| u32::from(score == last)).sum();
                self.before[0] += greater;
                if equal > 0 {
                    let ties = scores
                        .iter()
                        .zip(indices)
                        .filter(|&(&score, &index)| score == last && index < positives[0].1);
                    self.before[0] += ties.count() as u32;
                }
            } else if scores.iter().fold(false, |any, &score| any | (score >= last)) {
                for (&score, &index) in scores.iter().zip(indices) {
                    if score >= last {
                        let place = positives.partition_point(|&positive| nearer(positive, (score, index)).is_lt());
                        if let Some(before) = self.before.get_mut(place).filter(|_| place < self.active) {
                            *before += 1;
                        }
                    }
                }
            }
        }
    }

    fn prune(&mut self) {
        let mut irrelevant: usize = self.before[..self.active].iter().map(|&before| before as usize).sum();
        while self.active > 1 && self.active + irrelevant > self.limit {
            self.active -= 1;
            irrelevant -= self.before[self.active] as usize;
        }
    }

    fn finish(self) -> (u32, Vec<u32>) {
        let mut irrelevant = 0;
        let ranks = self.before[..self.active].iter().enumerate().map(|(place, &before)| {
            irrelevant += before;
            place as u32 + 1 + irrelevant
        });
        let ranks: Vec<u32> = ranks.collect();
        (self.relevant as u32, ranks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::{lattice_set, random_set, similarity_matrix};
    use proptest::prelude::*;

    /// Ranks of all relevant items by sorting every row.
    fn naive(queries: &EmbeddingSet, gallery: Option<&EmbeddingSet>) -> Vec<Vec<u32>> {
        let target = gallery.unwrap_or(queries);
        let matrix = similarity_matrix(queries, target);
        (0..queries.len())
            .map(|query| {
                let mut all: Vec<usize> = (0..target.len())
                    .filter(|&other| gallery.is_some() || other != query)
                    .collect();
                all.sort_by(|&a, &b| matrix[query][b].partial_cmp(&matrix[query][a]).unwrap().then(a.cmp(&b)));
                let relevant = all
                    .iter()
                    .enumerate()
                    .filter(|&(_, &other)| target.labels[other] == queries.labels[query]);
                relevant.map(|(place, _)| place as u32 + 1).collect()
            })
            .collect()
    }

    fn agree(queries: &EmbeddingSet, gallery: Option<&EmbeddingSet>, options: &EvaluationOptions) {
        let query_rows = UnitRows::new(queries, "query").unwrap();
        let gallery_rows = gallery.map(|gallery| UnitRows::new(gallery, "gallery").unwrap());
        let expected = naive(queries, gallery);
        for horizon in [
            Horizon::Best,
            Horizon::Relevant,
            Horizon::Within(9),
            Horizon::Everything,
        ] {
            let found = rank_positives(&query_rows, gallery_rows.as_ref(), horizon, options).unwrap();
            for (query, all) in expected.iter().enumerate() {
                assert_eq!(found.relevant(query), all.len());
                let limit = match horizon {
                    Horizon::Best => 0,
                    Horizon::Relevant => all.len(),
                    Horizon::Within(rank) => rank,
                    Horizon::Everything => usize::MAX,
                };
                let within: Vec<u32> = all
                    .iter()
                    .enumerate()
                    .filter(|&(place, &rank)| place == 0 || rank as usize <= limit)
                    .map(|(_, &rank)| rank)
                    .collect();
                assert_eq!(found.of(query), within, "query {query}, {horizon:?}");
            }
        }
    }

    #[test]
    fn ranks_equal_a_full_sort() {
        let options = EvaluationOptions {
            memory: 0,
            threads: 2,
            ..EvaluationOptions::default()
        };
        agree(&random_set(1, 300, 24, 9), None, &options);
        agree(&random_set(1, 120, 24, 9), Some(&random_set(2, 200, 24, 11)), &options);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn ranks_equal_a_full_sort_with_many_ties(
            seed in 0_u64..1000, len in 1_usize..140, dim in 1_usize..5, classes in 1_u32..40, threads in 1_usize..4, memory in prop::sample::select(vec![0_usize, 30_000, 1 << 30]),
        ) {
            let options = EvaluationOptions { memory, threads, ..EvaluationOptions::default() };
            // Few distinct directions: most similarities are tied, many exactly.
            let set = lattice_set(seed, len, dim, classes);
            agree(&set, None, &options);
            agree(&set, Some(&lattice_set(seed + 1, 70, dim, classes)), &options);
        }
    }
}
