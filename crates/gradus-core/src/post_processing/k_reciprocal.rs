//! K-reciprocal re-ranking: lists ordered by shared reciprocal neighbours.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{PostProcessingError, unit_rows};
use crate::EmbeddingSet;
use crate::evaluation::{EvaluationOptions, distance, nearest};

/// How lists are re-ranked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct KReciprocalOptions {
    /// Neighbours that may be reciprocal; default 20 (Zhong et al. 2017). Half of it for their own neighbours.
    pub k1: usize,
    /// Rows, the query and its nearest, whose neighbourhoods are averaged; default 6 (Zhong et al. 2017).
    pub k2: usize,
    /// Share of the original distance in the final one; default 0.3 (Zhong et al. 2017).
    pub lambda: f64,
    /// Nearest rows of each query that are re-ranked; those behind keep their order behind them. Default 200.
    pub candidates: usize,
}

impl Default for KReciprocalOptions {
    fn default() -> Self {
        Self {
            k1: 20,
            k2: 6,
            lambda: 0.3,
            candidates: 200,
        }
    }
}

/// The re-ranked nearest rows of every query, nearest first.
///
/// # Shapes
/// `indices` and `distances` are row-major `[queries, count]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Reranked {
    /// Rows per query: the candidates asked for, or all there are.
    pub count: usize,
    /// Index of each in the gallery.
    pub indices: Vec<u32>,
    /// Its final distance `(1 - lambda) d_J + lambda d`.
    pub distances: Vec<f32>,
}

impl Reranked {
    /// The rows of one query, nearest first.
    ///
    /// # Panics
    /// If there is no such query.
    #[must_use]
    pub fn of(&self, query: usize) -> &[u32] {
        &self.indices[query * self.count..(query + 1) * self.count]
    }
}

/// A sparse row: places in rising order with their weights.
type Sparse = Vec<(u32, f32)>;

/// K-reciprocal re-ranking (Zhong, Zheng, Cao and Li 2017) of the `candidates` nearest rows of the gallery; without a gallery, of
/// the other queries.
///
/// Over queries and gallery together, with `d` the squared Euclidean distance of unit rows and N(p, k) the row itself and its k
/// nearest: `R(p, k) = {g in N(p, k): p in N(g, k)}`; `R*(p)` adds to `R(p, k1)` each `R(q, k1/2)`, q in `R(p, k1)`, of which more than
/// two thirds lie in it. A row's neighbourhood weighs the members of `R*` by `exp(-d)`, sums to 1, and is averaged over the row
/// and its `k2 - 1` nearest. `d_J` is the Jaccard distance of neighbourhoods, `1 - sum min / sum max`. Unlike the authors'
/// program, distances are not divided by the greatest of their column, as in the paper; equal ones are ordered by index.
///
/// Memory: a copy of the rows, lists of `k1` neighbours and sparse neighbourhoods of all rows; never a matrix of all distances.
///
/// # Errors
/// Sets that cannot be searched (see [`nearest`]), a k1 or k2 of 0, a lambda outside 0..=1.
pub fn k_reciprocal(
    queries: &EmbeddingSet,
    gallery: Option<&EmbeddingSet>,
    options: &KReciprocalOptions,
    search: &EvaluationOptions,
) -> Result<Reranked, PostProcessingError> {
    if options.k1 == 0 || options.k2 == 0 || !(0.0..=1.0).contains(&options.lambda) {
        return Err(PostProcessingError::Options(format!(
            "k-reciprocal re-ranking needs k1 and k2 of at least 1 and a lambda between 0 and 1; found {}, {} and {}",
            options.k1, options.k2, options.lambda
        )));
    }
    let candidates = nearest(queries, gallery, options.candidates, search)?;
    let joined;
    let (all, first) = match gallery {
        Some(gallery) => {
            joined = join(queries, gallery);
            (&joined, queries.len())
        }
        None => (queries, 0),
    };
    let lists = Lists::new(all, options.k1.max(options.k2 - 1), search)?;
    let neighborhoods = neighborhoods(&lists, options.k1);
    let averaged: Vec<Sparse> = (0..all.len())
        .into_par_iter()
        .map(|row| average(lists.of(row, options.k2 - 1), &neighborhoods))
        .collect();
    drop(neighborhoods);
    let count = candidates.count;
    let reranked: Vec<Vec<(f32, u32)>> = (0..queries.len())
        .into_par_iter()
        .map(|query| {
            let places = query * count..(query + 1) * count;
            let mut list: Vec<(f32, usize, u32)> = candidates.indices[places]
                .iter()
                .enumerate()
                .map(|(place, &index)| {
                    let jaccard = jaccard(&averaged[query], &averaged[first + index as usize]);
                    let original = lists.distance(query, first + index as usize);
                    let distance = (1.0 - options.lambda) * jaccard + options.lambda * original;
                    (distance as f32, place, index)
                })
                .collect();
            // Of equal final distances, the original order.
            list.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            list.into_iter().map(|(distance, _, index)| (distance, index)).collect()
        })
        .collect();
    let (distances, indices) = reranked.into_iter().flatten().unzip();
    Ok(Reranked {
        count,
        indices,
        distances,
    })
}

fn join(queries: &EmbeddingSet, gallery: &EmbeddingSet) -> EmbeddingSet {
    EmbeddingSet {
        dim: queries.dim,
        values: [queries.values.as_slice(), &gallery.values].concat(),
        labels: [queries.labels.as_slice(), &gallery.labels].concat(),
        ids: [queries.ids.as_slice(), &gallery.ids].concat(),
    }
}

/// For each row, itself and its nearest others.
struct Lists {
    width: usize,
    entries: Vec<u32>,
    dim: usize,
    values: Vec<f32>,
}

impl Lists {
    fn new(all: &EmbeddingSet, others: usize, search: &EvaluationOptions) -> Result<Self, PostProcessingError> {
        let found = nearest(all, None, others, search)?;
        let mut entries = Vec::with_capacity(all.len() * (found.count + 1));
        for row in 0..all.len() {
            entries.push(row as u32);
            entries.extend(found.of(row));
        }
        Ok(Self {
            width: found.count + 1,
            entries,
            dim: all.dim,
            values: unit_rows(all, "query and gallery")?,
        })
    }

    fn len(&self) -> usize {
        self.entries.len() / self.width
    }

    /// The row itself and its `k` nearest others.
    fn of(&self, row: usize, k: usize) -> &[u32] {
        &self.entries[row * self.width..row * self.width + self.width.min(k + 1)]
    }

    /// Squared Euclidean distance of two rows.
    fn distance(&self, a: usize, b: usize) -> f64 {
        let row = |row: usize| &self.values[row * self.dim..(row + 1) * self.dim];
        f64::from(distance(row(a), row(b))).powi(2)
    }

    /// Members of `N(row, k)` that have the row among their own.
    fn reciprocal(&self, row: usize, k: usize) -> Vec<u32> {
        let near = self.of(row, k).iter().copied();
        near.filter(|&other| self.of(other as usize, k).contains(&(row as u32)))
            .collect()
    }
}

fn neighborhoods(lists: &Lists, k1: usize) -> Vec<Sparse> {
    // Halves of odd numbers are rounded to even, as the authors' program does.
    let half = (k1 as f64 / 2.0).round_ties_even() as usize;
    let halves: Vec<Vec<u32>> = (0..lists.len())
        .into_par_iter()
        .map(|row| lists.reciprocal(row, half))
        .collect();
    (0..lists.len())
        .into_par_iter()
        .map(|row| {
            let own = lists.reciprocal(row, k1);
            let mut members = own.clone();
            for &other in &own {
                let theirs = &halves[other as usize];
                let shared = theirs.iter().filter(|member| own.contains(member)).count();
                if 3 * shared > 2 * theirs.len() {
                    members.extend(theirs);
                }
            }
            members.sort_unstable();
            members.dedup();
            let weights: Vec<f64> = members
                .iter()
                .map(|&member| (-lists.distance(row, member as usize)).exp())
                .collect();
            let sum: f64 = weights.iter().sum();
            members
                .into_iter()
                .zip(weights)
                .map(|(member, weight)| (member, (weight / sum) as f32))
                .collect()
        })
        .collect()
}

/// Mean of the neighbourhoods of some rows.
fn average(rows: &[u32], neighborhoods: &[Sparse]) -> Sparse {
    let mut entries: Vec<(u32, f32)> = rows
        .iter()
        .flat_map(|row| neighborhoods[*row as usize].iter().copied())
        .collect();
    // Stable: equal places are added in the order of the rows.
    entries.sort_by_key(|entry| entry.0);
    entries
        .chunk_by(|a, b| a.0 == b.0)
        .map(|run| {
            (
                run[0].0,
                run.iter().map(|entry| entry.1).sum::<f32>() / rows.len() as f32,
            )
        })
        .collect()
}

/// `1 - sum min / sum max` of two neighbourhoods.
fn jaccard(a: &Sparse, b: &Sparse) -> f64 {
    let (mut i, mut j, mut least) = (0, 0, 0.0_f64);
    while i < a.len() && j < b.len() {
        match a[i].0.cmp(&b[j].0) {
            std::cmp::Ordering::Less => i += 1,
            std::cmp::Ordering::Greater => j += 1,
            std::cmp::Ordering::Equal => {
                least += f64::from(a[i].1.min(b[j].1));
                i += 1;
                j += 1;
            }
        }
    }
    // Both sum to 1, so the greater ones sum to 2 less the smaller ones.
    1.0 - least / (2.0 - least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    /// The paper with full matrices.
    fn naive(
        queries: &EmbeddingSet,
        gallery: Option<&EmbeddingSet>,
        options: &KReciprocalOptions,
    ) -> Vec<Vec<(f64, usize)>> {
        let all = gallery.map_or_else(|| queries.clone(), |gallery| join(queries, gallery));
        let rows = unit_rows(&all, "query").unwrap();
        let n = all.len();
        let dim = all.dim;
        let squared = |a: usize, b: usize| -> f64 {
            (0..dim)
                .map(|at| (f64::from(rows[a * dim + at]) - f64::from(rows[b * dim + at])).powi(2))
                .sum()
        };
        let ranked: Vec<Vec<usize>> = (0..n)
            .map(|row| {
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&a, &b| squared(row, a).total_cmp(&squared(row, b)));
                order
            })
            .collect();
        let near = |row: usize, k: usize| &ranked[row][..(k + 1).min(n)];
        let reciprocal = |row: usize, k: usize| -> Vec<usize> {
            near(row, k)
                .iter()
                .copied()
                .filter(|&other| near(other, k).contains(&row))
                .collect()
        };
        let half = (options.k1 as f64 / 2.0).round_ties_even() as usize;
        let mut weights = vec![vec![0.0; n]; n];
        for (row, weights) in weights.iter_mut().enumerate() {
            let own = reciprocal(row, options.k1);
            let mut members = own.clone();
            for &other in &own {
                let theirs = reciprocal(other, half);
                let shared = theirs.iter().filter(|member| own.contains(member)).count();
                if shared as f64 > 2.0 / 3.0 * theirs.len() as f64 {
                    members.extend(theirs);
                }
            }
            for &member in &members {
                weights[member] = (-squared(row, member)).exp();
            }
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        let averaged: Vec<Vec<f64>> = (0..n)
            .map(|row| {
                let rows = near(row, options.k2 - 1);
                (0..n)
                    .map(|at| rows.iter().map(|&other| weights[other][at]).sum::<f64>() / rows.len() as f64)
                    .collect()
            })
            .collect();
        let first = if gallery.is_some() { queries.len() } else { 0 };
        (0..queries.len())
            .map(|query| {
                let mut list: Vec<(f64, usize)> = (first..n)
                    .filter(|&row| row != query)
                    .map(|row| {
                        let (mut least, mut most) = (0.0, 0.0);
                        for (a, b) in averaged[query].iter().zip(&averaged[row]) {
                            least += a.min(*b);
                            most += a.max(*b);
                        }
                        let jaccard = 1.0 - least / most;
                        (
                            (1.0 - options.lambda) * jaccard + options.lambda * squared(query, row),
                            row - first,
                        )
                    })
                    .collect();
                list.sort_by(|a, b| a.partial_cmp(b).unwrap());
                list
            })
            .collect()
    }

    #[test]
    fn lists_equal_full_matrices() {
        let (queries, gallery) = (random_set(3, 30, 6, 8), random_set(4, 90, 6, 8));
        for (gallery, k1, k2, lambda) in [
            (Some(&gallery), 20, 6, 0.3),
            (Some(&gallery), 7, 1, 0.0),
            (None, 5, 3, 0.5),
            (None, 100, 40, 0.3),
        ] {
            let options = KReciprocalOptions {
                k1,
                k2,
                lambda,
                candidates: 1000,
            };
            let expected = naive(&queries, gallery, &options);
            let found = k_reciprocal(&queries, gallery, &options, &EvaluationOptions::default()).unwrap();
            for (query, expected) in expected.iter().enumerate() {
                assert_eq!(found.of(query).len(), expected.len());
                let distances = &found.distances[query * found.count..];
                for (place, &(distance, _)) in expected.iter().enumerate() {
                    assert!(
                        (f64::from(distances[place]) - distance).abs() < 1e-5,
                        "{} {distance}",
                        distances[place]
                    );
                }
                // Rows with clearly different distances stand where the full matrices put them.
                for (place, pair) in expected.windows(2).enumerate() {
                    let before = place.checked_sub(1).map_or(-1.0, |place| expected[place].0);
                    if pair[1].0 - pair[0].0 > 1e-4 && pair[0].0 - before > 1e-4 {
                        assert_eq!(
                            found.of(query)[place] as usize,
                            pair[0].1,
                            "query {query} place {place}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn candidates_bound_the_lists_and_lambda_one_changes_nothing() {
        let set = random_set(5, 60, 6, 8);
        let search = EvaluationOptions::default();
        let options = KReciprocalOptions {
            candidates: 7,
            lambda: 1.0,
            ..KReciprocalOptions::default()
        };
        let found = k_reciprocal(&set, None, &options, &search).unwrap();
        assert_eq!(found.indices, nearest(&set, None, 7, &search).unwrap().indices);
        let other = KReciprocalOptions { lambda: 0.1, ..options };
        let moved = k_reciprocal(&set, None, &other, &search).unwrap();
        assert_ne!(moved.indices, found.indices);
        for query in 0..60 {
            let sorted = |list: &[u32]| {
                let mut list = list.to_vec();
                list.sort_unstable();
                list
            };
            assert_eq!(sorted(moved.of(query)), sorted(found.of(query)));
        }
    }

    #[test]
    fn settings_without_sense_are_refused() {
        let set = random_set(5, 10, 3, 2);
        for (k1, k2, lambda) in [(0, 1, 0.3), (1, 0, 0.3), (1, 1, 1.5), (1, 1, f64::NAN)] {
            let options = KReciprocalOptions {
                k1,
                k2,
                lambda,
                candidates: 5,
            };
            let error = k_reciprocal(&set, None, &options, &EvaluationOptions::default()).unwrap_err();
            assert!(error.to_string().contains("lambda between 0 and 1"), "{error}");
        }
    }

    #[test]
    fn equal_distances_keep_the_order_of_the_search() {
        let set = |values: &[f32]| EmbeddingSet {
            dim: 2,
            values: values.to_vec(),
            labels: vec![0; values.len() / 2],
            ids: vec![String::new(); values.len() / 2],
        };
        let gallery = set(&[0.0, 1.0, 0.6, 0.8, 0.6, 0.8, 0.6, 0.8]);
        let options = KReciprocalOptions {
            lambda: 1.0,
            ..KReciprocalOptions::default()
        };
        let search = EvaluationOptions::default();
        let found = k_reciprocal(&set(&[1.0, 0.0]), Some(&gallery), &options, &search).unwrap();
        assert_eq!(found.of(0), [1, 2, 3, 0]);
    }
}
