//! Seeded random streams: every draw is a pure function of a seed and a path of numbers such as (epoch, item).
//!
//! No stream is ever carried from one step to the next, so there is no generator state to save: a resumed run draws
//! exactly what the uninterrupted one would have drawn, whatever the number of threads.

use rand::SeedableRng;
pub use rand::{Rng, RngCore, seq::SliceRandom};
pub use rand_xoshiro::Xoshiro256PlusPlus;

/// Mixes a seed with a path of numbers into one well-spread 64-bit seed (SplitMix64 finaliser per element).
///
/// ```
/// use gradus_core::random::derive;
/// assert_eq!(derive(7, &[1, 2]), derive(7, &[1, 2]));
/// assert_ne!(derive(7, &[1, 2]), derive(7, &[2, 1]));
/// ```
#[must_use]
pub fn derive(seed: u64, path: &[u64]) -> u64 {
    let mut state = mix(seed ^ 0x9e37_79b9_7f4a_7c15);
    for &step in path {
        state = mix(state.rotate_left(23) ^ mix(step.wrapping_add(0x9e37_79b9_7f4a_7c15)));
    }
    state
}

/// The random stream of a seed and a path: the same arguments give the same stream on every machine.
#[must_use]
pub fn stream(seed: u64, path: &[u64]) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(derive(seed, path))
}

fn mix(value: u64) -> u64 {
    let mut z = value;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Names of the purposes streams are derived for, so that two uses never share a stream by accident.
pub mod purpose {
    /// Order of items and classes in batches.
    pub const SAMPLER: u64 = 1;
    /// Augmentation of an item.
    pub const AUGMENT: u64 = 2;
    /// Graded augmentation of an item (the intra-class source `augmentations`).
    pub const GRADED: u64 = 3;
    /// Initial parameters.
    pub const INITIAL: u64 = 4;
    /// Directions of generated samples.
    pub const SYNTHESIS: u64 = 5;
    /// The drawing of flora.
    pub const FLORA: u64 = 6;
    /// Which training classes are held out for validation.
    pub const VALIDATION: u64 = 7;
    /// What random miners choose.
    pub const MINER: u64 = 9;
    /// What is generated in embedding space for the base loss.
    pub const AUGMENTED_EMBEDDINGS: u64 = 10;
    /// Episodes of few-shot classification.
    pub const EPISODES: u64 = 20;
    /// Where k-means starts.
    pub const CLUSTERING: u64 = 21;
    /// Settings that a search tries.
    pub const SEARCH: u64 = 23;
    /// Pairs of a verification that looks at a sample.
    pub const PAIRS: u64 = 22;
    /// What a page shows of many items.
    pub const SHOWN: u64 = 24;
    /// What tells equal rows of a map apart.
    pub const MAP: u64 = 25;
    /// In which order the rows of a gallery are searched.
    pub const RANKS: u64 = 26;
}
