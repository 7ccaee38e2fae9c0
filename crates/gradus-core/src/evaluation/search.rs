//! Exact search: where the relevant items stand in the ranking of each query.

use super::blocks::on_threads;
use super::counting::counted;
use super::integer_products::IntegerProducts;
use super::plan::integers;
use super::ranks::{Horizon, PositiveRanks};
use super::relevance::Relevance;
use super::rows::Rows;
use super::shortlist_search::{Wanted, depths_that_pay, listed};
use super::{EvaluationError, EvaluationOptions};

/// Places the relevant items of every query in its ranking of the gallery (without one: of the other queries).
///
/// Exact: single-precision products screen, and whatever their proven error bound leaves open is compared in double precision
/// on the rows as given (see `search_distance.rs`). Equal distances are ordered by index; the query itself is left out by index.
/// Blocks of products are looked at as soon as they are made; where queries search each other each block serves both sides.
/// Where few of the nearest rows tell all that is asked for, they are listed (`shortlist_search.rs`); otherwise it is counted how many
/// rows stand before each relevant item (`tally.rs`). Rows that do not fit into `options.memory` are read block by block, once for each
/// block of queries.
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
    on_threads(options.threads, || {
        if let Some(depths) = depths_that_pay(relevance, horizon) {
            let wanted = Wanted {
                horizon,
                depths: &depths,
            };
            if let Some(found) = listed(IntegerProducts::detect(), queries, gallery, relevance, wanted, options)? {
                return Ok(found);
            }
        }
        let integers = integers(queries.dim(), relevance, horizon, options);
        counted(integers, queries, gallery, relevance, horizon, options)
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

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use proptest::prelude::*;

    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::SearchDistance;
    use crate::evaluation::plan::{Plan, ShortlistPlan};
    use crate::evaluation::shortlist_search::depths;
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
            Horizon::RELEVANT.with_best_within(2),
            Horizon::within(9).with_best_within(0),
            Horizon::EVERYTHING,
        ] {
            let in_memory = gallery.map(|gallery| gallery as &dyn Rows);
            let read = streamed.1.as_ref().map(|gallery| gallery as &dyn Rows);
            let sources: [(&dyn Rows, Option<&dyn Rows>); 3] =
                [(queries, in_memory), (&streamed.0, read), (queries, read)];
            let depths = &depths(&relevance, horizon);
            let wanted = Wanted { horizon, depths };
            for (rows, others) in &sources[..if gallery.is_some() { 3 } else { 2 }] {
                let mut all = vec![rank_positives(*rows, *others, &relevance, horizon, options).unwrap()];
                // In single precision, and in integers where this processor can.
                for integers in [None, IntegerProducts::detect()] {
                    let found = on_threads(options.threads, || {
                        let counted = counted(integers, *rows, *others, &relevance, horizon, options)?;
                        let listed = listed(integers, *rows, *others, &relevance, wanted, options)?;
                        Ok([Some(counted), listed])
                    });
                    all.extend(found.unwrap().into_iter().flatten());
                }
                for (way, found) in all.iter().enumerate() {
                    for (query, all) in expected.iter().enumerate() {
                        assert_eq!(found.relevant(query), all.len());
                        let within = within(all, horizon);
                        assert_eq!(
                            found.of(query),
                            within,
                            "query {query}, way {way}, {horizon:?}, {options:?}"
                        );
                    }
                }
            }
        }
    }

    /// Those of all ranks of a query that are asked for.
    fn within(all: &[u32], horizon: Horizon) -> Vec<u32> {
        let deepest = |place| match place {
            0 => horizon.best_limit(all.len()),
            _ => horizon.limit(all.len()),
        };
        let asked = all
            .iter()
            .enumerate()
            .filter(|&(place, &rank)| rank as usize <= deepest(place));
        asked.map(|(_, &rank)| rank).collect()
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

    /// Classes of whose rows half are junk to each query.
    #[test]
    fn large_classes_seen_by_two_cameras() {
        let set = random_set(11, 2080, 16, 13);
        let cameras: Vec<u32> = (0..2080).map(|row| row / 3 % 2).collect();
        let relevance = Relevance::new(set.labels.clone().into(), None).unwrap();
        let relevance = relevance.without_same_camera(cameras.clone(), cameras).unwrap();
        let options = EvaluationOptions::default();
        let all = rank_positives(&set, None, &relevance, Horizon::EVERYTHING, &options).unwrap();
        for horizon in [Horizon::RELEVANT, Horizon::RELEVANT.with_best_within(1), Horizon::BEST] {
            let depths = &depths(&relevance, horizon);
            let wanted = Wanted { horizon, depths };
            let listed = listed(None, &set, None, &relevance, wanted, &options).unwrap().unwrap();
            let counted = counted(None, &set, None, &relevance, horizon, &options).unwrap();
            for query in 0..2080 {
                let expected = within(all.of(query), horizon);
                for found in [&listed, &counted] {
                    assert_eq!(found.relevant(query), all.relevant(query));
                    assert_eq!(found.of(query), expected, "{query} {horizon:?}");
                }
            }
        }
    }

    /// Lists and counts for each of several blocks of queries, and little room for rows that wait.
    #[test]
    fn queries_are_searched_in_blocks_too() {
        let set = random_set(12, 2080, 16, 16);
        let relevance = Relevance::new(set.labels.clone().into(), None).unwrap();
        let depths = depths(&relevance, Horizon::RELEVANT.with_best_within(1));
        let both_sides = |memory| {
            let options = EvaluationOptions {
                memory,
                threads: 2,
                ..EvaluationOptions::default()
            };
            agree(&set, None, &options);
            on_threads(2, || {
                let plan = Plan::new(&set, None, &relevance, true, &options);
                assert!(plan.resident && plan.chunks.len() > 1, "{memory}");
                let lists = ShortlistPlan::new(&set, None, &depths, true, &options);
                Ok(lists.map(|plan| plan.both_sides))
            })
            .unwrap()
        };
        assert_eq!(
            [12_000_000, 7_000_000, 200_000].map(both_sides),
            [Some(true), Some(false), None]
        );
    }

    /// Rows in an order in which those of a class stand together, and of which many are hard to tell apart.
    #[test]
    fn crowded_rows_are_counted() {
        for (seed, dim) in [(1, 16), (2, 33)] {
            let set = crowded_set(seed, 2080, dim, 1e-3, 40);
            agree(&set, None, &EvaluationOptions::default());
            let queries = set.select(&(0..set.len()).step_by(9).collect::<Vec<_>>());
            agree(&queries, Some(&set), &EvaluationOptions::default());
        }
    }

    /// A few queries of which too many rows stand equally near, and some that no row of their class is near to: only those are counted.
    #[test]
    fn queries_that_lists_leave_open_are_counted() {
        let mut set = random_set(8, 2080, 16, 52);
        let copied = set.row(0).to_vec();
        for row in 0..200 {
            set.values[row * 16..][..16].copy_from_slice(&copied);
        }
        // The other way round, so that its class is the last.
        for row in (300..2080).step_by(60) {
            set.values[row * 16..][..16]
                .iter_mut()
                .for_each(|value| *value = -*value);
        }
        for threads in [1, 2] {
            let options = EvaluationOptions {
                threads,
                ..EvaluationOptions::default()
            };
            agree(&set, None, &options);
            let queries = set.select(&(0..set.len()).step_by(9).collect::<Vec<_>>());
            agree(&queries, Some(&set), &options);
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
