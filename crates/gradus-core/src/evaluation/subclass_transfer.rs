//! Sub-class transfer: what a space trained on coarse classes knows about fine ones.

use rayon::prelude::*;
use serde::Serialize;

use super::EvaluationError;
use super::unit_rows::{UnitRows, distance};

/// Retrieval of fine classes inside their coarse class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct SubclassTransfer {
    /// Share of queries whose nearest member of the same coarse class has the same fine class.
    pub recall_at_1: f64,
    /// R-precision: of the R nearest members of the same coarse class, the share of the same fine class, where R is how many
    /// of those there are; mean over queries.
    pub r_precision: f64,
    /// What `recall_at_1` and `r_precision` would be on average in a random order: the mean share of the fine class.
    pub chance: f64,
    /// Queries counted.
    pub queries: usize,
    /// Queries left out: alone in their fine class, or with no other fine class in their coarse one.
    pub skipped: usize,
}

/// Retrieves fine classes among the members of the query's own coarse class only, so that telling coarse classes apart, which
/// was trained, does not help (training on coarse, testing on fine labels: method of Roth et al. 2020 and others; the
/// restriction to the coarse class is gradus's).
///
/// `rows` are sorted by coarse class; `fine` is the fine class of each item in the order of the set the rows were made from.
/// Euclidean distances of unit rows; of equally far ones the first counts.
///
/// # Errors
/// Not one fine class per row, or no query with something to find and something to confuse it with.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{UnitRows, subclass_transfer};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.0, 1.0, 0.9, 0.1, 0.1, 0.9],
///     labels: vec![0; 4],
///     ids: vec![String::new(); 4],
/// };
/// let found = subclass_transfer(&UnitRows::new(&set, "query")?, &[5, 6, 5, 6])?;
/// assert_eq!((found.recall_at_1, found.r_precision), (1.0, 1.0));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn subclass_transfer(rows: &UnitRows, fine: &[u32]) -> Result<SubclassTransfer, EvaluationError> {
    if fine.len() != rows.len() {
        return Err(EvaluationError::Options(format!(
            "{} embeddings have {} fine labels: one for each is needed",
            rows.len(),
            fine.len()
        )));
    }
    let fine_of = |position: usize| fine[rows.order()[position] as usize];
    let found: Vec<[f64; 3]> = rows
        .classes()
        .par_iter()
        .flat_map(|class| {
            let members = class.rows.clone();
            members.clone().into_par_iter().filter_map(move |query| {
                let others = members.clone().filter(|&other| other != query);
                let mut near: Vec<(f32, usize)> = others
                    .map(|other| (distance(rows.row(query), rows.row(other)), other))
                    .collect();
                let hit = |place: &(f32, usize)| fine_of(place.1) == fine_of(query);
                let relevant = near.iter().filter(|place| hit(place)).count();
                if relevant == 0 || relevant == near.len() {
                    return None;
                }
                near.select_nth_unstable_by(relevant, |a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                near.truncate(relevant);
                let hits = near.iter().filter(|place| hit(place)).count();
                let first = near.iter().min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?;
                Some([
                    f64::from(u8::from(hit(first))),
                    hits as f64 / relevant as f64,
                    relevant as f64 / (members.len() - 1) as f64,
                ])
            })
        })
        .collect();
    if found.is_empty() {
        return Err(EvaluationError::Options(format!(
            "none of the {} embeddings has both another member of its fine class and one of another fine class inside its coarse class: \
             are coarse and fine labels given in this order?",
            rows.len()
        )));
    }
    let mean = |at: usize| found.iter().map(|query| query[at]).sum::<f64>() / found.len() as f64;
    Ok(SubclassTransfer {
        recall_at_1: mean(0),
        r_precision: mean(1),
        chance: mean(2),
        queries: found.len(),
        skipped: rows.len() - found.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::random_set;

    #[test]
    fn retrieval_inside_the_coarse_class_equals_a_full_sort() {
        let mut set = random_set(3, 200, 7, 12);
        let fine = set.labels.clone();
        set.labels.iter_mut().for_each(|label| *label %= 3);
        // One alone in its fine class, and a coarse class of a single fine one.
        let mut fine: Vec<u32> = fine
            .into_iter()
            .map(|label| if label % 3 == 2 { 2 } else { label })
            .collect();
        let elsewhere = set.labels.iter().position(|&coarse| coarse != 2).unwrap();
        fine[elsewhere] = 99;
        let rows = UnitRows::new(&set, "query").unwrap();
        let found = subclass_transfer(&rows, &fine).unwrap();
        let (mut recall, mut precision, mut chance, mut queries) = (0.0, 0.0, 0.0, 0);
        for query in 0..set.len() {
            let mut near: Vec<usize> = (0..set.len())
                .filter(|&other| other != query && set.labels[other] == set.labels[query])
                .collect();
            let place = |item: usize| rows.order().iter().position(|&other| other as usize == item).unwrap();
            let far = |other: usize| distance(rows.row(place(query)), rows.row(place(other)));
            near.sort_by(|&a, &b| far(a).partial_cmp(&far(b)).unwrap().then(a.cmp(&b)));
            let hits: Vec<bool> = near.iter().map(|&other| fine[other] == fine[query]).collect();
            let relevant = hits.iter().filter(|&&hit| hit).count();
            if relevant > 0 && relevant < hits.len() {
                recall += f64::from(u8::from(hits[0]));
                precision += hits[..relevant].iter().filter(|&&hit| hit).count() as f64 / relevant as f64;
                chance += relevant as f64 / hits.len() as f64;
                queries += 1;
            }
        }
        assert_eq!((found.queries, found.skipped), (queries, set.len() - queries));
        assert!(queries > 50 && found.skipped > 20);
        let count = queries as f64;
        assert!((found.recall_at_1 - recall / count).abs() < 1e-12);
        assert!((found.r_precision - precision / count).abs() < 1e-12);
        assert!((found.chance - chance / count).abs() < 1e-12);
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() {
        let set = random_set(3, 20, 7, 3);
        let rows = UnitRows::new(&set, "query").unwrap();
        assert!(
            subclass_transfer(&rows, &[1])
                .unwrap_err()
                .to_string()
                .contains("1 fine labels")
        );
        assert!(
            subclass_transfer(&rows, &set.labels)
                .unwrap_err()
                .to_string()
                .contains("in this order")
        );
    }
}
