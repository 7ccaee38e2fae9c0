//! What a miner found, and how it is turned into what a loss needs.

use rayon::prelude::*;
use serde::Serialize;

use super::{Partners, Relations};
use crate::random::{Rng, purpose, stream};

/// Pairs of positions `[anchor, reference]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pairs {
    /// Pairs that belong together.
    pub positive: Vec<[u32; 2]>,
    /// Pairs that do not.
    pub negative: Vec<[u32; 2]>,
}

impl Pairs {
    /// The pairs of one anchor with its partners.
    pub(super) fn of(anchor: usize, partners: &Partners) -> Self {
        let with_anchor = |others: &[u32]| others.iter().map(|&other| [anchor as u32, other]).collect();
        Self {
            positive: with_anchor(&partners.positives),
            negative: with_anchor(&partners.negatives),
        }
    }

    /// The pairs of several anchors, one after the other.
    pub(super) fn joined(parts: Vec<Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.positive.extend(part.positive);
            all.negative.extend(part.negative);
        }
        all
    }
}

/// What a miner chose: positions of anchors in the batch, of positives and negatives in the reference set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mined {
    /// Positive and negative pairs, independent of each other.
    Pairs(Pairs),
    /// `[anchor, positive, negative]`.
    Triplets(Vec<[u32; 3]>),
}

impl Mined {
    /// Whether nothing was chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Pairs(pairs) => pairs.positive.is_empty() && pairs.negative.is_empty(),
            Self::Triplets(triplets) => triplets.is_empty(),
        }
    }

    /// As pairs: a triplet is its positive and its negative pair, as often as it occurs.
    #[must_use]
    pub fn into_pairs(self) -> Pairs {
        match self {
            Self::Pairs(pairs) => pairs,
            Self::Triplets(triplets) => Pairs {
                positive: triplets.iter().map(|&[a, p, _]| [a, p]).collect(),
                negative: triplets.iter().map(|&[a, _, n]| [a, n]).collect(),
            },
        }
    }

    /// As triplets: every positive pair with every negative pair of the same anchor, in the order of the positive pairs.
    #[must_use]
    pub fn into_triplets(self) -> Vec<[u32; 3]> {
        let pairs = match self {
            Self::Triplets(triplets) => return triplets,
            Self::Pairs(pairs) => pairs,
        };
        let mut negatives = pairs.negative;
        // Stable: the negatives of an anchor keep their order.
        negatives.sort_by_key(|&[anchor, _]| anchor);
        let mut triplets = Vec::new();
        for [anchor, positive] in pairs.positive {
            let first = negatives.partition_point(|&[other, _]| other < anchor);
            let of_anchor = negatives[first..].iter().take_while(|[other, _]| *other == anchor);
            triplets.extend(of_anchor.map(|&[_, negative]| [anchor, positive, negative]));
        }
        triplets
    }

    /// How much each of the `count` items of the batch is looked at: how often it was chosen over how often the most
    /// chosen item was; 1 for all where nothing was chosen. With a separate reference set (`same` false) only anchors
    /// count, as positives and negatives are no items of the batch.
    #[must_use]
    pub fn weights(&self, count: usize, same: bool) -> Vec<f32> {
        let mut times = vec![0_u64; count];
        let mut add = |item: u32, is_anchor: bool| {
            if let Some(times) = times.get_mut(item as usize).filter(|_| same || is_anchor) {
                *times += 1;
            }
        };
        match self {
            Self::Pairs(pairs) => {
                for &[anchor, other] in pairs.positive.iter().chain(&pairs.negative) {
                    add(anchor, true);
                    add(other, false);
                }
            }
            Self::Triplets(triplets) => {
                for &[anchor, positive, negative] in triplets {
                    add(anchor, true);
                    add(positive, false);
                    add(negative, false);
                }
            }
        }
        match times.iter().max() {
            Some(&most) if most > 0 => times.iter().map(|&times| (times as f64 / most as f64) as f32).collect(),
            _ => vec![1.0; count],
        }
    }
}

/// All positive and all negative pairs, by anchor, then by partner.
#[must_use]
pub fn all_pairs(relations: &Relations<'_>) -> Pairs {
    let anchors = (0..relations.queries()).into_par_iter();
    Pairs::joined(
        anchors
            .map(|anchor| Pairs::of(anchor, &relations.partners(anchor)))
            .collect(),
    )
}

/// All triplets `[anchor, positive, negative]` one after the other; only one anchor's partners are held at a time.
pub fn all_triplets<'a>(relations: &'a Relations<'a>) -> impl Iterator<Item = [u32; 3]> + 'a {
    (0..relations.queries()).flat_map(move |anchor| {
        let partners = relations.partners(anchor);
        let width = partners.negatives.len();
        (0..partners.positives.len() * width).map(move |at| {
            [
                anchor as u32,
                partners.positives[at / width],
                partners.negatives[at % width],
            ]
        })
    })
}

/// `per_anchor` triplets of each anchor that has a positive and a negative, both drawn uniformly with replacement.
#[must_use]
pub fn random_triplets(relations: &Relations<'_>, per_anchor: usize, seed: u64) -> Vec<[u32; 3]> {
    let of_anchor = |anchor: usize| {
        let partners = relations.partners(anchor);
        if partners.positives.is_empty() || partners.negatives.is_empty() {
            return Vec::new();
        }
        let mut random = stream(seed, &[purpose::MINER, anchor as u64]);
        (0..per_anchor)
            .map(|_| {
                let positive = partners.positives[random.random_range(0..partners.positives.len())];
                let negative = partners.negatives[random.random_range(0..partners.negatives.len())];
                [anchor as u32, positive, negative]
            })
            .collect()
    };
    let found: Vec<Vec<[u32; 3]>> = (0..relations.queries()).into_par_iter().map(of_anchor).collect();
    found.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relations::Labels;

    #[test]
    fn pairs_join_on_equal_anchors_and_triplets_keep_repetitions() {
        let pairs = Mined::Pairs(Pairs {
            positive: vec![[2, 5], [0, 1], [2, 4], [3, 1]],
            negative: vec![[2, 9], [0, 8], [2, 7], [2, 9]],
        });
        let triplets = pairs.into_triplets();
        let expected = [
            [2, 5, 9],
            [2, 5, 7],
            [2, 5, 9],
            [0, 1, 8],
            [2, 4, 9],
            [2, 4, 7],
            [2, 4, 9],
        ];
        assert_eq!(triplets, expected);
        let pairs = Mined::Triplets(triplets).into_pairs();
        assert_eq!(pairs.positive[..4], [[2, 5], [2, 5], [2, 5], [0, 1]]);
        assert_eq!(pairs.negative[..4], [[2, 9], [2, 7], [2, 9], [0, 8]]);
    }

    #[test]
    fn weights_count_occurrences() {
        let triplets = Mined::Triplets(vec![[0, 1, 2], [0, 3, 2], [0, 1, 4]]);
        assert_eq!(
            triplets.weights(6, true),
            [1.0, 2.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0, 0.0]
        );
        assert_eq!(triplets.weights(2, false), [1.0, 0.0]);
        let pairs = Mined::Pairs(Pairs {
            positive: vec![[0, 1]],
            negative: vec![[0, 2], [1, 2]],
        });
        assert_eq!(pairs.weights(3, true), [1.0, 1.0, 1.0]);
        assert_eq!(pairs.weights(3, false), [1.0, 0.5, 0.0]);
        assert_eq!(Mined::Triplets(Vec::new()).weights(2, true), [1.0, 1.0]);
        assert_eq!(Mined::Pairs(Pairs::default()).weights(0, true), [0.0; 0]);
    }

    #[test]
    fn everything_is_enumerated_once() {
        let (query, reference) = (Labels::from(vec![0, 1, 0, 2]), Labels::from(vec![1, 1, 0]));
        for relations in [
            Relations::within(&query),
            Relations::between(&query, &reference).unwrap(),
        ] {
            let mut expected = Vec::new();
            for a in 0..relations.queries() as u32 {
                let partners = relations.partners(a as usize);
                for &p in &partners.positives {
                    expected.extend(partners.negatives.iter().map(|&n| [a, p, n]));
                }
            }
            assert!(!expected.is_empty());
            assert_eq!(all_triplets(&relations).collect::<Vec<_>>(), expected);
            assert_eq!(Mined::Pairs(all_pairs(&relations)).into_triplets(), expected);
        }
    }

    #[test]
    fn random_triplets_are_spread_over_all() {
        let labels = Labels::from(vec![0, 0, 0, 1, 1, 2]);
        let relations = Relations::within(&labels);
        let all: Vec<[u32; 3]> = all_triplets(&relations).collect();
        let found = random_triplets(&relations, 3000, 5);
        assert_eq!(found.len(), 5 * 3000);
        assert_eq!(found, random_triplets(&relations, 3000, 5));
        assert_ne!(found, random_triplets(&relations, 3000, 6));
        for triplet in &all {
            let of_anchor = all.iter().filter(|other| other[0] == triplet[0]).count() as f64;
            let times = found.iter().filter(|other| *other == triplet).count() as f64;
            let expected = 3000.0 / of_anchor;
            assert!(
                (times - expected).abs() < 5.0 * expected.sqrt(),
                "{triplet:?}: {times} of {expected}"
            );
        }
        assert!(found.iter().all(|triplet| all.contains(triplet)));
    }
}
