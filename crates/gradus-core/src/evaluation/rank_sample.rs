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

    /// The score below which relevant items of a query are hopeless, from the scores of the sample (which it reorders).
    #[inline(always)]
    pub(super) fn hopeless(&self, scores: &mut [f32], known: &[u32], horizon: Horizon) -> f32 {
        for &position in known {
            let number = position as usize / self.part;
            if self.positions.get(number) == Some(&position) {
                scores[number] = f32::NEG_INFINITY;
            }
        }
        match self.needed(horizon.limit(known.len())) {
            Some(needed) => *scores.select_nth_unstable_by(needed - 1, |a, b| b.total_cmp(a)).1,
            None => f32::NEG_INFINITY,
        }
    }
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
        assert_eq!(
            sample.hopeless(&mut scores, &[], Horizon::RELEVANT),
            256.0 - SURE as f32
        );
        let known = [sample.positions()[255], sample.positions()[9]];
        let mut scores: Vec<f32> = (0..256).map(|score| score as f32).collect();
        assert_eq!(sample.hopeless(&mut scores, &known, Horizon::within(800)), 255.0 - 76.0);
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
