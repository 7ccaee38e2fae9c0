//! Where the relevant items stand after the heads of the rankings were put into another order.

use rayon::prelude::*;

use super::ranks::{PositiveRanks, Ranked};
use super::relevance::Relevance;

/// Ranks after the first rows of each ranking were put into another order (re-ranking): `head(query)` lists them, as indices of the
/// gallery, nearest first; what is not in it keeps its order behind it.
///
/// `ranks` are those of the original rankings, under [`Horizon::EVERYTHING`](super::Horizon::EVERYTHING). The query itself and rows
/// that take no part (see [`Relevance`]) may be listed and are passed over.
///
/// # Panics
/// If `ranks` do not belong to `relevance`, or lack relevant items.
///
/// ```
/// use gradus_core::evaluation::{PositiveRanks, Relevance, reordered};
/// let relevance = Relevance::new(vec![1].into(), Some(vec![5, 1, 7, 1, 1].into()))?;
/// // Rows 0, 2, 1, 4, 3 in this order; then the first three become 1, 2, 0.
/// let before = PositiveRanks::from_lists([(3, vec![3, 4, 5])]);
/// let after = reordered(&before, &relevance, |_| &[1, 2, 0]);
/// assert_eq!(after.of(0), [1, 4, 5]);
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
#[must_use]
pub fn reordered<'a>(
    ranks: &PositiveRanks,
    relevance: &Relevance,
    head: impl Fn(usize) -> &'a [u32] + Sync,
) -> PositiveRanks {
    assert_eq!(ranks.queries(), relevance.queries(), "one ranking for each query");
    let lists: Vec<Ranked> = (0..ranks.queries())
        .into_par_iter()
        .map(|query| {
            let relevant: Vec<(u32, f32)> = relevance.relevant(query).collect();
            let known = relevance.known(query);
            let (mut found, mut degrees, mut rank) = (Vec::new(), Vec::new(), 0_u32);
            for row in head(query) {
                match relevant.binary_search_by_key(row, |entry| entry.0) {
                    Ok(place) => {
                        rank += 1;
                        found.push(rank);
                        degrees.push(relevant[place].1);
                    }
                    // Known and not relevant: the query itself, or junk.
                    Err(_) if known.binary_search(row).is_ok() => {}
                    Err(_) => rank += 1,
                }
            }
            // The relevant items of the head were those of the best ranks; the others stand where they stood.
            let before = ranks.of(query);
            assert_eq!(before.len(), relevant.len(), "the rank of every relevant item");
            for (&stood, least) in before[found.len()..].iter().zip(rank + 1..) {
                found.push(stood.max(least));
            }
            match ranks.degrees(query) {
                Some(all) => degrees.extend(&all[degrees.len()..]),
                None => degrees.resize(relevant.len(), 1.0),
            }
            Ranked {
                relevant: relevant.len() as u32,
                ranks: found,
                degrees,
            }
        })
        .collect();
    let mut all = PositiveRanks::empty(relevance.graded());
    all.extend(lists);
    all
}

#[cfg(test)]
mod tests {
    use rand::seq::SliceRandom;

    use super::*;
    use crate::evaluation::testing::{random_set, similarity_matrix};
    use crate::evaluation::{EvaluationOptions, Horizon, rank_positives};
    use crate::random::stream;
    use crate::relations::Labels;

    /// Whole rankings written out, with their heads shuffled.
    #[test]
    fn ranks_equal_those_of_rankings_written_out() {
        let set = random_set(3, 60, 8, 7);
        let scores = similarity_matrix(&set, &set);
        let several: Vec<Vec<u32>> = (0..60_u32)
            .map(|row| {
                if row % 9 == 0 {
                    vec![]
                } else {
                    vec![row % 4, 4 + row % 3]
                }
            })
            .collect();
        let cameras: Vec<u32> = (0..60).map(|row| row % 2).collect();
        let plain = || Relevance::new(Labels::from(set.labels.clone()), None).unwrap();
        for (relevance, is_junk) in [
            (plain(), &(|_: usize, _: usize| false) as &dyn Fn(usize, usize) -> bool),
            (
                plain().without_same_camera(cameras.clone(), cameras.clone()).unwrap(),
                &|query, row| set.labels[query] == set.labels[row] && cameras[query] == cameras[row],
            ),
            (
                Relevance::new(Labels::MultiLabel(several.clone().into()), None).unwrap(),
                &|_, row| several[row].is_empty(),
            ),
        ] {
            let before = rank_positives(
                &set,
                None,
                &relevance,
                Horizon::EVERYTHING,
                &EvaluationOptions::default(),
            )
            .unwrap();
            let rankings: Vec<Vec<u32>> = (0..60_usize)
                .map(|query| {
                    let mut order: Vec<u32> = (0..60).filter(|&row| row as usize != query).collect();
                    order.sort_by(|&a, &b| {
                        scores[query][b as usize]
                            .total_cmp(&scores[query][a as usize])
                            .then(a.cmp(&b))
                    });
                    order[..20].shuffle(&mut stream(9, &[query as u64]));
                    order
                })
                .collect();
            let after = reordered(&before, &relevance, |query| &rankings[query][..20]);
            for (query, ranking) in rankings.iter().enumerate() {
                let relevant: Vec<(u32, f32)> = relevance.relevant(query).collect();
                let (mut rank, mut expected, mut degrees) = (0, Vec::new(), Vec::new());
                for &row in ranking {
                    if is_junk(query, row as usize) {
                        continue;
                    }
                    rank += 1;
                    if let Some(entry) = relevant.iter().find(|entry| entry.0 == row) {
                        expected.push(rank);
                        degrees.push(entry.1);
                    }
                }
                assert_eq!(after.of(query), expected, "query {query}");
                assert_eq!(after.relevant(query), relevant.len());
                if relevance.graded() {
                    assert_eq!(after.degrees(query).unwrap(), degrees, "query {query}");
                }
            }
        }
    }
}
