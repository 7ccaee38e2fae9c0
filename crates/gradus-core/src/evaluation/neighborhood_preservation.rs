//! Neighbourhood preservation: does a space keep the order inside classes that a reference space sees?

use rayon::prelude::*;
use serde::Serialize;

use super::EvaluationError;
use super::class_centred::cross_scatter;
use super::rank_correlation::spearman;
use super::unit_rows::{UnitRows, distance};

/// Agreement inside classes with a reference space that never saw the labels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct NeighborhoodPreservation {
    /// Share of the k nearest members of the own class that are also among the k nearest in the reference space, mean over
    /// queries; `None` if no class has three members.
    pub knn_overlap: Option<f64>,
    /// What `knn_overlap` would be on average if the order inside classes were random: the mean of `k / (members - 1)`.
    pub knn_overlap_by_chance: Option<f64>,
    /// Spearman's rank correlation between the distances to the other members of the class in both spaces, mean over the queries
    /// that have one (three members, not all equally far).
    pub spearman: Option<f64>,
    /// Linear CKA (Kornblith et al. 2019) of the class-centred rows: `||B^T A||^2 / (||A^T A|| ||B^T B||)`, Frobenius norms;
    /// `None` if one of the spaces has no spread inside classes.
    pub linear_cka: Option<f64>,
    /// Queries counted in `knn_overlap`.
    pub queries: usize,
    /// Queries left out of it, whose class has fewer than three members.
    pub skipped: usize,
}

/// Compares the order inside classes with that of a reference space (a second pretrained network, say).
///
/// `k` (usually 5) is lowered to half of the other members where a class is small: with all of them the overlap would be 1
/// whatever the space. Euclidean distances of unit rows; equally far members are ordered by index. The spaces may differ in
/// width.
///
/// # Errors
/// A k of 0, or spaces that do not hold the same classes in the same order.
///
/// ```
/// use gradus_core::evaluation::{UnitRows, neighborhood_preservation};
/// use gradus_core::EmbeddingSet;
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.9, 0.1, 0.5, 0.5, 0.0, 1.0],
///     labels: vec![0; 4],
///     ids: vec![String::new(); 4],
/// };
/// let rows = UnitRows::new(&set, "query")?;
/// let found = neighborhood_preservation(&rows, &rows, 5)?;
/// assert_eq!((found.knn_overlap, found.spearman), (Some(1.0), Some(1.0)));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn neighborhood_preservation(
    rows: &UnitRows,
    reference: &UnitRows,
    k: usize,
) -> Result<NeighborhoodPreservation, EvaluationError> {
    if k == 0 {
        return Err(EvaluationError::Options(
            "no neighbours (k = 0) have no overlap: ask for at least one".into(),
        ));
    }
    if rows.order() != reference.order() || rows.classes() != reference.classes() {
        return Err(EvaluationError::Options(format!(
            "the embeddings ({} rows, {} classes) and those of the reference space ({} rows, {} classes) are not of the same items: \
             both must hold the same items with the same labels in the same order",
            rows.len(),
            rows.classes().len(),
            reference.len(),
            reference.classes().len()
        )));
    }
    let found: Vec<Query> = of_queries(rows, reference, k);
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
        (count > 0).then(|| sum / count as f64)
    };
    Ok(NeighborhoodPreservation {
        knn_overlap: mean(&mut found.iter().map(|query| query.overlap)),
        knn_overlap_by_chance: mean(&mut found.iter().map(|query| query.chance)),
        spearman: mean(&mut found.iter().filter_map(|query| query.spearman)),
        linear_cka: linear_cka(rows, reference),
        queries: found.len(),
        skipped: rows.len() - found.len(),
    })
}

/// The order around one query.
pub(super) struct Query {
    /// Its position among the rows.
    pub(super) position: usize,
    overlap: f64,
    chance: f64,
    pub(super) spearman: Option<f64>,
}

/// The queries of classes of three members and more, in the order of the rows, which both spaces share.
pub(super) fn of_queries(rows: &UnitRows, reference: &UnitRows, k: usize) -> Vec<Query> {
    rows.classes()
        .par_iter()
        .filter(|class| class.rows.len() >= 3)
        .flat_map(|class| {
            let members = class.rows.clone();
            let k = k.min((members.len() - 1) / 2);
            members.clone().into_par_iter().map(move |query| {
                let distances = |rows: &UnitRows| -> Vec<f64> {
                    let others = members.clone().filter(|&other| other != query);
                    others
                        .map(|other| f64::from(distance(rows.row(query), rows.row(other))))
                        .collect()
                };
                let (here, there) = (distances(rows), distances(reference));
                let near = nearest(&there, k);
                let shared = nearest(&here, k)
                    .into_iter()
                    .filter(|member| near.contains(member))
                    .count();
                Query {
                    position: query,
                    overlap: shared as f64 / k as f64,
                    chance: k as f64 / here.len() as f64,
                    spearman: spearman(&here, &there),
                }
            })
        })
        .collect()
}

/// Places of the `k` least distances; of equal ones the first.
fn nearest(distances: &[f64], k: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..distances.len()).collect();
    let order = |a: &usize, b: &usize| distances[*a].total_cmp(&distances[*b]).then(a.cmp(b));
    if k < places.len() {
        places.select_nth_unstable_by(k, order);
        places.truncate(k);
    }
    places.sort_unstable();
    places
}

fn linear_cka(a: &UnitRows, b: &UnitRows) -> Option<f64> {
    let square = |matrix: Vec<f64>| matrix.iter().map(|value| value * value).sum::<f64>();
    let (own, other) = (square(cross_scatter(a, a)), square(cross_scatter(b, b)));
    (own > 0.0 && other > 0.0).then(|| square(cross_scatter(a, b)) / (own.sqrt() * other.sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::random_set;

    fn pair(len: usize, classes: u32) -> (EmbeddingSet, EmbeddingSet) {
        let one = random_set(1, len, 6, classes);
        let mut other = random_set(2, len, 9, classes);
        other.labels.clone_from(&one.labels);
        (one, other)
    }

    fn rows(set: &EmbeddingSet) -> UnitRows {
        UnitRows::new(set, "query").unwrap()
    }

    #[test]
    fn everything_equals_plain_loops() {
        let (one, other) = pair(150, 12);
        let found = neighborhood_preservation(&rows(&one), &rows(&other), 5).unwrap();
        let (one, other) = (rows(&one), rows(&other));
        let (mut overlap, mut rho, mut queries) = (0.0, 0.0, 0.0);
        for class in one.classes().iter().filter(|class| class.rows.len() >= 3) {
            let k = 5.min((class.rows.len() - 1) / 2);
            for query in class.rows.clone() {
                let sorted = |rows: &UnitRows| {
                    let mut all: Vec<(f32, usize)> = class
                        .rows
                        .clone()
                        .filter(|&row| row != query)
                        .map(|row| (distance(rows.row(query), rows.row(row)), row))
                        .collect();
                    all.sort_by(|a, b| a.partial_cmp(b).unwrap());
                    all.into_iter().map(|(_, row)| row).collect::<Vec<_>>()
                };
                let (a, b) = (sorted(&one), sorted(&other));
                overlap += a[..k].iter().filter(|row| b[..k].contains(row)).count() as f64 / k as f64;
                // Without ties: 1 - 6 sum d^2 / (n (n^2 - 1)).
                let n = a.len() as f64;
                if n > 1.0 {
                    let place =
                        |list: &[usize], row: usize| list.iter().position(|&other| other == row).unwrap() as f64;
                    let squares: f64 = a.iter().map(|&row| (place(&a, row) - place(&b, row)).powi(2)).sum();
                    rho += 1.0 - 6.0 * squares / (n * (n * n - 1.0));
                }
                queries += 1.0;
            }
        }
        assert!((found.knn_overlap.unwrap() - overlap / queries).abs() < 1e-12);
        assert!((found.spearman.unwrap() - rho / queries).abs() < 1e-9);
        assert_eq!(found.queries as f64, queries);
    }

    #[test]
    fn rotations_keep_everything_and_chance_is_what_random_spaces_reach() {
        let (one, other) = pair(400, 10);
        let mut turned = one.clone();
        for row in turned.values.chunks_exact_mut(6) {
            row.reverse();
            row[0] = -row[0];
        }
        let same = neighborhood_preservation(&rows(&one), &rows(&turned), 5).unwrap();
        assert!(same.knn_overlap.unwrap() > 0.99 && same.spearman.unwrap() > 0.999);
        assert!((same.linear_cka.unwrap() - 1.0).abs() < 1e-6);
        let random = neighborhood_preservation(&rows(&one), &rows(&other), 5).unwrap();
        assert!(
            (random.knn_overlap.unwrap() - random.knn_overlap_by_chance.unwrap()).abs() < 0.05,
            "{random:?}"
        );
        assert!(
            random.spearman.unwrap().abs() < 0.1 && random.linear_cka.unwrap() < 0.2,
            "{random:?}"
        );
    }

    #[test]
    fn small_and_collapsed_classes_have_no_number() {
        let mut set = random_set(1, 2, 3, 1);
        let found = neighborhood_preservation(&rows(&set), &rows(&set), 5).unwrap();
        assert_eq!(
            (found.knn_overlap, found.spearman, found.queries, found.skipped),
            (None, None, 0, 2)
        );
        set = random_set(1, 8, 3, 1);
        let spread = rows(&set);
        set.values.fill(1.0);
        let found = neighborhood_preservation(&rows(&set), &spread, 5).unwrap();
        assert_eq!((found.spearman, found.linear_cka), (None, None));
    }

    #[test]
    fn other_items_are_refused() {
        let (one, mut other) = pair(20, 3);
        other.labels[3] += 1;
        let error = neighborhood_preservation(&rows(&one), &rows(&other), 5)
            .unwrap_err()
            .to_string();
        assert!(error.contains("not of the same items"), "{error}");
        assert!(
            neighborhood_preservation(&rows(&one), &rows(&one), 0)
                .unwrap_err()
                .to_string()
                .contains("k = 0")
        );
    }

    #[test]
    fn chance_and_linear_cka_equal_plain_loops() {
        let (one, mut other) = pair(40, 1);
        // Spaces of very different scatter: all of the other one near one direction.
        other.values.chunks_exact_mut(9).for_each(|row| row[0] += 20.0);
        let (one, other) = (rows(&one), rows(&other));
        let found = neighborhood_preservation(&one, &other, 5).unwrap();
        assert!((found.knn_overlap_by_chance.unwrap() - 5.0 / 39.0).abs() < 1e-12);
        let centred = |rows: &UnitRows| -> Vec<Vec<f64>> {
            let dim = rows.dim();
            let mean = |column: usize| (0..40).map(|row| f64::from(rows.row(row)[column])).sum::<f64>() / 40.0;
            let means: Vec<f64> = (0..dim).map(mean).collect();
            (0..40)
                .map(|row| {
                    rows.row(row)
                        .iter()
                        .zip(&means)
                        .map(|(&x, mean)| f64::from(x) - mean)
                        .collect()
                })
                .collect()
        };
        let square = |a: &[Vec<f64>], b: &[Vec<f64>]| -> f64 {
            let entry = |i: usize, j: usize| a.iter().zip(b).map(|(a, b)| a[i] * b[j]).sum::<f64>();
            (0..a[0].len())
                .flat_map(|i| (0..b[0].len()).map(move |j| (i, j)))
                .map(|(i, j)| entry(i, j).powi(2))
                .sum()
        };
        let (a, b) = (centred(&one), centred(&other));
        let expected = square(&a, &b) / (square(&a, &a) * square(&b, &b)).sqrt();
        assert!(
            (found.linear_cka.unwrap() - expected).abs() < 1e-6 * expected,
            "{found:?} {expected}"
        );
    }
}
