//! Sets and naive references shared by the tests of this module.

use super::blocks::similarities;
use super::unit_rows::UnitRows;
use crate::EmbeddingSet;
use crate::random::{Rng, stream};

/// Random rows around random class centres; labels dealt at random, so some classes are larger and some lone.
pub(crate) fn random_set(seed: u64, len: usize, dim: usize, classes: u32) -> EmbeddingSet {
    let mut random = stream(seed, &[0]);
    let centres: Vec<Vec<f32>> = (0..classes)
        .map(|_| (0..dim).map(|_| random.random_range(-1.0..1.0)).collect())
        .collect();
    let labels: Vec<u32> = (0..len).map(|_| random.random_range(0..classes)).collect();
    let mut values = Vec::new();
    for &label in &labels {
        values.extend(
            centres[label as usize]
                .iter()
                .map(|centre| centre + random.random_range(-1.0..1.0_f32)),
        );
    }
    EmbeddingSet {
        dim,
        values,
        labels,
        ids: (0..len).map(|index| format!("{index}.png")).collect(),
    }
}

/// Rows with entries -1 and 1: equal similarities everywhere, and exact duplicates.
pub(crate) fn lattice_set(seed: u64, len: usize, dim: usize, classes: u32) -> EmbeddingSet {
    let mut set = random_set(seed, len, dim, classes);
    for value in &mut set.values {
        *value = if *value < 0.0 { -1.0 } else { 1.0 };
    }
    set
}

/// `len` rows whose second half repeats the first.
pub(crate) fn scattered_duplicates(seed: u64, len: usize, dim: usize) -> EmbeddingSet {
    let half = random_set(seed, len / 2, dim, 4);
    let twice: Vec<usize> = (0..half.len()).chain(0..half.len()).collect();
    half.select(&twice)
}

/// All similarities at once, as the engine computes them (their accuracy is tested beside the engine).
pub(crate) fn similarity_matrix(queries: &EmbeddingSet, gallery: &EmbeddingSet) -> Vec<Vec<f32>> {
    let queries = UnitRows::in_given_order(queries, "query").unwrap();
    let gallery = UnitRows::in_given_order(gallery, "gallery").unwrap();
    let mut scores = Vec::new();
    similarities(
        &queries,
        0..queries.padded_len(),
        &gallery,
        0..gallery.padded_len(),
        &mut scores,
    );
    scores
        .chunks_exact(gallery.padded_len())
        .take(queries.len())
        .map(|row| row[..gallery.len()].to_vec())
        .collect()
}
