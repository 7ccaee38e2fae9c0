//! What the tests of several miners need.

use rand_distr::{Distribution, StandardNormal};

use super::Mined;
use crate::random::stream;

/// Standard normal numbers, `[count, dim]`.
pub(super) fn random_rows(count: usize, dim: usize, seed: u64) -> Vec<f64> {
    let mut random = stream(seed, &[99]);
    (0..count * dim).map(|_| StandardNormal.sample(&mut random)).collect()
}

/// The same tuples in an order that says nothing.
pub(super) fn sorted(mined: Mined) -> Mined {
    match mined {
        Mined::Pairs(mut pairs) => {
            pairs.positive.sort_unstable();
            pairs.negative.sort_unstable();
            Mined::Pairs(pairs)
        }
        Mined::Triplets(mut triplets) => {
            triplets.sort_unstable();
            Mined::Triplets(triplets)
        }
    }
}
