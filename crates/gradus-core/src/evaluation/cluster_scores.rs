//! How well given clusters agree with given classes.

use serde::Serialize;

use super::EvaluationError;

/// Agreement of an assignment with the classes; 1 is a perfect match in each.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClusterScores {
    /// Normalised mutual information: `I(U, V) / ((H(U) + H(V)) / 2)`, the arithmetic mean as in scikit-learn since 0.22.
    /// Grows with the number of clusters, even of random ones: compare it only between equal numbers, or look at `ami`.
    pub nmi: f64,
    /// The same with the geometric mean, `I(U, V) / sqrt(H(U) H(V))` (Strehl and Ghosh 2002), as older papers report.
    pub nmi_geometric: f64,
    /// Adjusted mutual information `(I - E[I]) / ((H(U) + H(V)) / 2 - E[I])` with the exact expectation under the
    /// hypergeometric model (Vinh et al. 2010): 0 on average for random clusters.
    pub ami: f64,
    /// Pairwise F1: harmonic mean of pairwise precision and recall (Manning et al. 2008, section 16.3).
    pub f1: f64,
    /// Share of pairs of one cluster that belong to one class; 1 if no cluster holds a pair.
    pub pair_precision: f64,
    /// Share of pairs of one class that lie in one cluster; 1 if no class holds a pair.
    pub pair_recall: f64,
    /// Share of items in the most frequent class of their cluster.
    pub purity: f64,
    /// Classes that occur.
    pub classes: usize,
    /// Clusters that occur.
    pub clusters: usize,
}

/// Scores an assignment of items to clusters against their classes.
///
/// Names do not matter, only who is together. Special cases are those of scikit-learn: one class and one cluster are a perfect
/// match (1); otherwise a single class or cluster has no information (0).
///
/// # Errors
/// No items, or as many clusters as classes are not given.
///
/// ```
/// use gradus_core::evaluation::cluster_scores;
///
/// let scores = cluster_scores(&[0, 0, 1, 1], &[7, 7, 3, 3])?;
/// assert!((scores.nmi - 1.0).abs() < 1e-12);
/// assert_eq!((scores.f1, scores.purity), (1.0, 1.0));
/// let scores = cluster_scores(&[0, 0, 1, 1], &[0, 1, 0, 1])?;
/// assert!(scores.nmi < 1e-12 && (scores.ami + 0.5).abs() < 1e-12);
/// assert_eq!((scores.f1, scores.purity), (0.0, 0.5));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn cluster_scores(classes: &[u32], clusters: &[u32]) -> Result<ClusterScores, EvaluationError> {
    if classes.len() != clusters.len() {
        return Err(EvaluationError::Options(format!(
            "{} labels and {} assigned clusters do not describe the same items: one of each per item is needed",
            classes.len(),
            clusters.len()
        )));
    }
    if classes.is_empty() {
        return Err(EvaluationError::Options(
            "an assignment of no items to clusters cannot be scored: give at least one".into(),
        ));
    }
    let table = Contingency::new(classes, clusters);
    let (h_classes, h_clusters) = (entropy(&table.classes), entropy(&table.clusters));
    let single = [table.classes.len() == 1, table.clusters.len() == 1];
    let (nmi, nmi_geometric, ami) = if single == [true, true] {
        (1.0, 1.0, 1.0)
    } else if single != [false, false] {
        (0.0, 0.0, 0.0)
    } else {
        let information = table.mutual_information();
        let mean = 0.5 * (h_classes + h_clusters);
        let expected = table.expected_information();
        (
            information / mean,
            information / (h_classes * h_clusters).sqrt(),
            away_from_zero(information - expected) / away_from_zero(mean - expected),
        )
    };
    let together: f64 = table.cells.iter().map(|cell| pairs(cell.count)).sum();
    let in_clusters: f64 = table.clusters.iter().copied().map(pairs).sum();
    let in_classes: f64 = table.classes.iter().copied().map(pairs).sum();
    let share = |whole: f64| if whole > 0.0 { together / whole } else { 1.0 };
    let f1 = if in_clusters + in_classes > 0.0 {
        2.0 * together / (in_clusters + in_classes)
    } else {
        1.0
    };
    let mut largest = vec![0_u64; table.clusters.len()];
    for cell in &table.cells {
        largest[cell.cluster] = largest[cell.cluster].max(cell.count);
    }
    Ok(ClusterScores {
        nmi,
        nmi_geometric,
        ami,
        f1,
        pair_precision: share(in_clusters),
        pair_recall: share(in_classes),
        purity: largest.iter().sum::<u64>() as f64 / table.items as f64,
        classes: table.classes.len(),
        clusters: table.clusters.len(),
    })
}

/// Items shared by a class and a cluster.
struct Cell {
    class: usize,
    cluster: usize,
    count: u64,
}

/// How often each class meets each cluster; only pairs that occur.
struct Contingency {
    items: u64,
    /// Items of each class.
    classes: Vec<u64>,
    /// Items of each cluster.
    clusters: Vec<u64>,
    cells: Vec<Cell>,
}

impl Contingency {
    fn new(classes: &[u32], clusters: &[u32]) -> Self {
        let (class_places, class_counts) = places(classes);
        let (cluster_places, cluster_counts) = places(clusters);
        let mut both: Vec<(u32, u32)> = class_places.into_iter().zip(cluster_places).collect();
        both.sort_unstable();
        let cells = both
            .chunk_by(|a, b| a == b)
            .map(|run| Cell {
                class: run[0].0 as usize,
                cluster: run[0].1 as usize,
                count: run.len() as u64,
            })
            .collect();
        Self {
            items: classes.len() as u64,
            classes: class_counts,
            clusters: cluster_counts,
            cells,
        }
    }

    /// In nats.
    fn mutual_information(&self) -> f64 {
        let items = self.items as f64;
        let terms = self.cells.iter().map(|cell| {
            let count = cell.count as f64;
            let (class, cluster) = (self.classes[cell.class] as f64, self.clusters[cell.cluster] as f64);
            count / items * ((count * items).ln() - (class * cluster).ln())
        });
        terms.sum::<f64>().max(0.0)
    }

    /// `E[I]` over all assignments with the same sizes (Vinh et al. 2010, equation 24a).
    fn expected_information(&self) -> f64 {
        let items = self.items;
        let n = items as f64;
        let factorial = log_factorials(items as usize);
        let log_factorial = |number: u64| factorial[number as usize];
        let cluster_sizes = tally(&self.clusters);
        let mut sum = 0.0;
        // Classes of one size, with clusters of one size, have the same expectation.
        for (a, classes) in tally(&self.classes) {
            for &(b, clusters) in &cluster_sizes {
                let fixed = log_factorial(a) + log_factorial(b) + log_factorial(items - a) + log_factorial(items - b)
                    - log_factorial(items);
                let product = (a as f64 * b as f64).ln();
                let mut expectation = 0.0;
                for both in (a + b).saturating_sub(items).max(1)..=a.min(b) {
                    let weight = fixed
                        - log_factorial(both)
                        - log_factorial(a - both)
                        - log_factorial(b - both)
                        - log_factorial(items + both - a - b);
                    expectation += both as f64 / n * ((n * both as f64).ln() - product) * weight.exp();
                }
                sum += expectation * (classes * clusters) as f64;
            }
        }
        sum
    }
}

/// A dense number for each name, and how often it occurs.
fn places(names: &[u32]) -> (Vec<u32>, Vec<u64>) {
    let mut distinct = names.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let mut counts = vec![0; distinct.len()];
    let places = names
        .iter()
        .map(|name| {
            let place = distinct.partition_point(|other| other < name);
            counts[place] += 1;
            place as u32
        })
        .collect();
    (places, counts)
}

/// Each size with the number of groups that have it.
fn tally(sizes: &[u64]) -> Vec<(u64, u64)> {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    sizes
        .chunk_by(|a, b| a == b)
        .map(|run| (run[0], run.len() as u64))
        .collect()
}

/// `ln k!` for k up to `largest`; compensated, so that the sum of many logarithms keeps its digits.
fn log_factorials(largest: usize) -> Vec<f64> {
    let mut all = Vec::with_capacity(largest + 1);
    let (mut sum, mut lost) = (0.0_f64, 0.0_f64);
    all.push(0.0);
    for number in 1..=largest {
        let term = (number as f64).ln() - lost;
        let next = sum + term;
        lost = (next - sum) - term;
        sum = next;
        all.push(sum);
    }
    all
}

fn entropy(sizes: &[u64]) -> f64 {
    let items: u64 = sizes.iter().sum();
    let items = items as f64;
    -sizes
        .iter()
        .map(|&size| size as f64 / items * (size as f64 / items).ln())
        .sum::<f64>()
}

fn pairs(count: u64) -> f64 {
    count as f64 * (count as f64 - 1.0) / 2.0
}

/// A perfect match must not become 0 / 0 by rounding: at least the smallest step of 1 away from zero.
fn away_from_zero(value: f64) -> f64 {
    if value < 0.0 {
        value.min(-f64::EPSILON)
    } else {
        value.max(f64::EPSILON)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(serde::Deserialize)]
    struct Golden {
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        classes: Vec<u32>,
        clusters: Vec<u32>,
        nmi: f64,
        nmi_geometric: f64,
        ami: f64,
        f1: f64,
        purity: f64,
    }

    /// Numbers of scikit-learn, written by tools/golden/clustering.py.
    #[test]
    fn scores_equal_scikit_learn() {
        let golden: Golden = serde_json::from_str(include_str!("golden/clustering.json")).unwrap();
        assert!(golden.cases.len() > 15);
        for (number, case) in golden.cases.iter().enumerate() {
            let found = cluster_scores(&case.classes, &case.clusters).unwrap();
            for (name, ours, theirs) in [
                ("nmi", found.nmi, case.nmi),
                ("nmi_geometric", found.nmi_geometric, case.nmi_geometric),
                ("ami", found.ami, case.ami),
                ("f1", found.f1, case.f1),
                ("purity", found.purity, case.purity),
            ] {
                assert!((ours - theirs).abs() < 1e-9, "case {number}: {name} {ours} {theirs}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let message = |a: &[u32], b: &[u32]| cluster_scores(a, b).unwrap_err().to_string();
        assert!(message(&[1, 2], &[1]).contains("2 labels and 1 assigned"));
        assert!(message(&[], &[]).contains("no items"));
    }

    proptest! {
        #[test]
        fn pairs_are_counted_and_names_do_not_matter(items in prop::collection::vec((0_u32..5, 0_u32..4), 1..40)) {
            let (classes, clusters): (Vec<u32>, Vec<u32>) = items.iter().copied().unzip();
            let found = cluster_scores(&classes, &clusters).unwrap();
            let (mut both, mut one, mut other) = (0.0, 0.0, 0.0);
            for i in 0..items.len() {
                for j in 0..i {
                    let (class, cluster) = (classes[i] == classes[j], clusters[i] == clusters[j]);
                    both += f64::from(u8::from(class && cluster));
                    one += f64::from(u8::from(cluster));
                    other += f64::from(u8::from(class));
                }
            }
            let share = |whole: f64| if whole > 0.0 { both / whole } else { 1.0 };
            prop_assert_eq!(found.pair_precision, share(one));
            prop_assert_eq!(found.pair_recall, share(other));
            let renamed: Vec<u32> = clusters.iter().map(|cluster| 1000 - 7 * cluster).collect();
            let again = cluster_scores(&classes, &renamed).unwrap();
            prop_assert!((again.nmi - found.nmi).abs() < 1e-12 && (again.ami - found.ami).abs() < 1e-9);
            let turned = cluster_scores(&clusters, &classes).unwrap();
            prop_assert!((turned.nmi - found.nmi).abs() < 1e-12 && (turned.f1 - found.f1).abs() < 1e-12);
        }
    }
}
