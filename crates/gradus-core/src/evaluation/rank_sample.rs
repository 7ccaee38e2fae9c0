//! Which relevant items can be within the horizon at all, judged by a sample of the gallery before it is searched.
//!
//! Without it every relevant item of a query counts until enough rows were seen to stand before it, and among many items nearly
//! every row has to be placed. The judgement decides about time alone: what it holds back is proven to be out of reach
//! afterwards, or counted after all (`Tally::unsure`).

use std::ops::Range;

use super::ranks::Horizon;
use super::relevance::Relevance;
use crate::random::{Rng, purpose, stream};

/// Rows of the sample.
pub(super) const SAMPLE: usize = 256;

/// So many rows of the sample have to stand before an item that is held back: by chance alone that hardly ever happens.
const SURE: usize = 12;

/// By how much the projected rank of an item that is held back exceeds the horizon.
const BEYOND: f64 = 3.0;

/// Queries with fewer relevant items gain nothing.
const MANY: usize = 24;

/// One row at random from each of [`SAMPLE`] equal parts of the gallery, so that no order of its rows can mislead it.
#[derive(Clone, Debug)]
pub(super) struct RankSample {
    positions: Vec<u32>,
    part: usize,
    gallery: usize,
}

impl RankSample {
    /// `None` where a sample would not pay: for a small gallery, or where most of these queries have few relevant items or ask
    /// for deep ranks.
    pub(super) fn new(relevance: &Relevance, queries: Range<usize>, horizon: Horizon) -> Option<Self> {
        let gallery = relevance.gallery();
        let part = gallery / SAMPLE;
        if part < 8 {
            return None;
        }
        let mut random = stream(0, &[purpose::RANKS]);
        let positions = (0..SAMPLE)
            .map(|number| (number * part + random.random_range(0..part)) as u32)
            .collect();
        let sample = Self {
            positions,
            part,
            gallery,
        };
        let gain = queries.clone().filter(|&query| {
            let items = relevance.known(query).len();
            items >= MANY && sample.needed(horizon.limit(items)).is_some()
        });
        (2 * gain.count() > queries.len()).then_some(sample)
    }

    /// Where its rows stand in the gallery.
    pub(super) fn positions(&self) -> &[u32] {
        &self.positions
    }

    /// How many of its rows stand before an item that is hopeless.
    fn needed(&self, limit: usize) -> Option<usize> {
        let projected = BEYOND * limit as f64 * SAMPLE as f64 / self.gallery as f64;
        let needed = SURE.max(projected.ceil() as usize + 1);
        (needed <= SAMPLE / 2).then_some(needed)
    }

    /// The score below which relevant items of a query are hopeless, from the scores of the sample.
    #[inline(always)]
    pub(super) fn hopeless(&self, scores: &mut [f32], known: &[u32], horizon: Horizon) -> f32 {
        for &position in known {
            let number = position as usize / self.part;
            if self.positions.get(number) == Some(&position) {
                scores[number] = f32::NEG_INFINITY;
            }
        }
        match self.needed(horizon.limit(known.len())) {
            Some(needed) => reached_by(needed, scores),
            None => f32::NEG_INFINITY,
        }
    }
}

/// A score that so many reach, and hardly more: found by halving what lies between the extremes, without sorting.
#[inline(always)]
fn reached_by(needed: usize, scores: &[f32]) -> f32 {
    const HALVINGS: usize = 16;
    let reach = |least: f32| scores.iter().map(|&score| u32::from(score >= least)).sum::<u32>() as usize;
    let (mut most, mut least) = (f32::NEG_INFINITY, f32::INFINITY);
    for &score in scores {
        most = most.max(score);
        // Those that do not take part have none.
        least = least.min(if score == f32::NEG_INFINITY {
            f32::INFINITY
        } else {
            score
        });
    }
    if reach(least) < needed {
        return f32::NEG_INFINITY;
    }
    for _ in 0..HALVINGS {
        let middle = least + (most - least) / 2.0;
        let reached = reach(middle);
        if reached >= needed {
            least = middle;
        } else {
            most = middle;
        }
        if reached == needed {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_that_of_the_row_that_makes_an_item_hopeless() {
        let labels: Vec<u32> = (0..8192).map(|row| row / 64).collect();
        let relevance = Relevance::new(labels.into(), None).unwrap();
        let sample = RankSample::new(&relevance, 0..8192, Horizon::RELEVANT).unwrap();
        assert!(
            sample
                .positions()
                .iter()
                .enumerate()
                .all(|(number, &at)| at as usize / 32 == number)
        );
        // Three times rank 64 of 8192 are six rows of 256: the least number counts.
        let mut scores: Vec<f32> = (0..256).map(|score| score as f32).collect();
        let hopeless = sample.hopeless(&mut scores, &[], Horizon::RELEVANT);
        assert_eq!(hopeless.ceil(), 256.0 - SURE as f32);
        let known = [sample.positions()[255], sample.positions()[9]];
        let mut scores: Vec<f32> = (0..256).map(|score| score as f32).collect();
        let hopeless = sample.hopeless(&mut scores, &known, Horizon::within(800));
        assert_eq!(hopeless.ceil(), 255.0 - 76.0);
        // Where scores are equal, more have to reach it than need to; where too few take part, none is hopeless.
        let equal = reached_by(3, &[0.5, 0.5, 0.5, 0.5, 0.25]);
        assert!(equal > 0.49 && equal <= 0.5);
        assert_eq!(reached_by(3, &[0.5, 0.5, f32::NEG_INFINITY]), f32::NEG_INFINITY);
        assert_eq!(
            sample.hopeless(&mut scores, &known, Horizon::EVERYTHING),
            f32::NEG_INFINITY
        );
    }

    #[test]
    fn small_galleries_few_items_and_deep_horizons_do_without() {
        let relevance = |rows: u32, size: u32| {
            let labels: Vec<u32> = (0..rows).map(|row| row / size).collect();
            Relevance::new(labels.into(), None).unwrap()
        };
        let has = |rows, size, horizon| RankSample::new(&relevance(rows, size), 0..rows as usize, horizon).is_some();
        assert!(has(4096, 64, Horizon::RELEVANT));
        assert!(!has(1024, 64, Horizon::RELEVANT));
        assert!(!has(4096, 8, Horizon::RELEVANT));
        assert!(!has(4096, 64, Horizon::EVERYTHING));
    }
}
