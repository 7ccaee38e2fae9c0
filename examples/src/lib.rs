//! Five short programs that use gradus as a library, in `src/bin`; run one with `cargo run --release -p gradus-examples --bin NAME`.
//!
//! | program | what |
//! |---|---|
//! | `own_model` | a Burn model of your own with a loss and a miner of gradus |
//! | `only_evaluation` | Recall@K, MAP@R and the order inside classes of vectors that anything made |
//! | `only_search` | an index of vectors with filters |
//! | `ranked_members` | the ranking loss by itself: what it does to embeddings |
//! | `train_from_config` | a whole training run, as `gradus train` does it |
//!
//! The Rust in the guide (`book/`) is compiled and run as the documentation tests of this crate.

/// Vectors `[classes * members, dim]` around one centre per class, and the class of each: the stand-in for embeddings.
#[must_use]
pub fn clusters(classes: u32, members: u32, dim: usize, spread: f32) -> (Vec<f32>, Vec<u32>) {
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for row in 0..classes * members {
        let class = row % classes;
        for column in 0..dim {
            let centre = noise(u64::from(class) * 10_007 + column as u64);
            let own = noise(1_000_003 + u64::from(row) * 10_007 + column as u64);
            values.push(centre + spread * own);
        }
        labels.push(class);
    }
    (values, labels)
}

/// A value in -1..1 that looks random and is the same everywhere.
fn noise(seed: u64) -> f32 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
}

#[cfg(doctest)]
mod book {
    //! The chapters of the guide whose Rust is run.

    #[doc = include_str!("../../book/src/library.md")]
    struct Library;
    #[doc = include_str!("../../book/src/extending.md")]
    struct Extending;
}
