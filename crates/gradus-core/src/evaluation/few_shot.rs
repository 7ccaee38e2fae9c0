//! Few-shot classification: can classes never seen be told apart from a handful of examples?

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::EvaluationError;
use super::unit_rows::UnitRows;
use crate::random::{purpose, stream};

/// How episodes are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FewShotOptions {
    /// Classes of an episode; default 20, as on Omniglot (Lake et al. 2015).
    pub ways: usize,
    /// Examples of each class, whose mean is its centroid; default 1.
    pub shots: usize,
    /// Other members of each class that are classified; default 15 (Snell et al. 2017).
    pub queries: usize,
    /// Episodes; default 1000 (Snell et al. 2017).
    pub episodes: usize,
    /// Seed of the episodes; default 0.
    pub seed: u64,
}

impl Default for FewShotOptions {
    fn default() -> Self {
        Self {
            ways: 20,
            shots: 1,
            queries: 15,
            episodes: 1000,
            seed: 0,
        }
    }
}

/// Accuracy over episodes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FewShot {
    /// Mean over episodes of the share of queries classified correctly.
    pub accuracy: f64,
    /// Half the width of its 95 % interval: `1.96 s / sqrt(episodes)`, with s the standard deviation over episodes (divided by
    /// `episodes - 1`); `None` for one episode.
    pub ci95: Option<f64>,
    /// Classes with enough members to take part.
    pub classes: usize,
    /// Classes left out, which have fewer than `shots + queries` members.
    pub small_classes: usize,
}

/// N-way K-shot accuracy of the nearest centroid (Snell et al. 2017).
///
/// Each episode draws `ways` classes and, of each, `shots` examples and `queries` other members, all without replacement. A
/// query belongs to the class whose centroid (mean of the unit-length examples, not normalised again) is nearest in Euclidean
/// distance; of equal distances the class drawn first wins, so a space without differences scores `1 / ways`. Episode e is a
/// function of the seed and e alone: the result does not depend on the number of threads.
///
/// # Errors
/// A number that is 0, fewer than two ways, or fewer than `ways` classes with `shots + queries` members.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{FewShotOptions, UnitRows, few_shot};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9],
///     labels: vec![0, 0, 1, 1],
///     ids: vec![String::new(); 4],
/// };
/// let options = FewShotOptions { ways: 2, queries: 1, episodes: 10, ..FewShotOptions::default() };
/// let found = few_shot(&UnitRows::new(&set, "query")?, &options)?;
/// assert_eq!((found.accuracy, found.ci95), (1.0, Some(0.0)));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn few_shot(rows: &UnitRows, options: &FewShotOptions) -> Result<FewShot, EvaluationError> {
    let FewShotOptions {
        ways,
        shots,
        queries,
        episodes,
        seed,
    } = *options;
    if ways < 2 || shots == 0 || queries == 0 || episodes == 0 {
        return Err(EvaluationError::Options(format!(
            "an episode of {ways} ways, {shots} shots and {queries} queries, {episodes} times, decides nothing: at least two ways, and \
             at least one shot, query and episode are needed"
        )));
    }
    let needed = shots.saturating_add(queries);
    let classes: Vec<_> = rows
        .classes()
        .iter()
        .map(|class| class.rows.clone())
        .filter(|members| members.len() >= needed)
        .collect();
    let small_classes = rows.classes().len() - classes.len();
    if classes.len() < ways {
        let largest = rows.classes().iter().map(|class| class.rows.len()).max().unwrap_or(0);
        return Err(EvaluationError::Options(format!(
            "{ways} ways need {ways} classes with at least {needed} members ({shots} shots and {queries} queries), but only {} of {} \
             classes have as many (the largest has {largest}): ask for fewer ways, shots or queries",
            classes.len(),
            rows.classes().len()
        )));
    }
    let shares: Vec<f64> = (0..episodes)
        .into_par_iter()
        .map(|episode| {
            let mut random = stream(seed, &[purpose::EPISODES, episode as u64]);
            let drawn: Vec<Vec<usize>> = rand::seq::index::sample(&mut random, classes.len(), ways)
                .into_iter()
                .map(|class| {
                    let members = &classes[class];
                    rand::seq::index::sample(&mut random, members.len(), needed)
                        .into_iter()
                        .map(|member| members.start + member)
                        .collect()
                })
                .collect();
            correct(rows, &drawn, shots) as f64 / (ways * queries) as f64
        })
        .collect();
    let accuracy = shares.iter().sum::<f64>() / episodes as f64;
    let ci95 = (episodes > 1).then(|| {
        let squares: f64 = shares.iter().map(|share| (share - accuracy).powi(2)).sum();
        1.96 * (squares / (episodes - 1) as f64).sqrt() / (episodes as f64).sqrt()
    });
    Ok(FewShot {
        accuracy,
        ci95,
        classes: classes.len(),
        small_classes,
    })
}

/// Queries (the members after the first `shots` of each class) nearest to their own centroid.
fn correct(rows: &UnitRows, classes: &[Vec<usize>], shots: usize) -> usize {
    let dim = rows.dim();
    let mut centroids = vec![0.0_f64; classes.len() * dim];
    for (centroid, members) in centroids.chunks_exact_mut(dim).zip(classes) {
        for &member in &members[..shots] {
            for (sum, &value) in centroid.iter_mut().zip(rows.row(member)) {
                *sum += f64::from(value);
            }
        }
        for value in centroid {
            *value /= shots as f64;
        }
    }
    let queries = classes
        .iter()
        .enumerate()
        .flat_map(|(own, members)| members[shots..].iter().map(move |&member| (own, rows.row(member))));
    queries
        .filter(|(own, query)| {
            let mut nearest = (f64::INFINITY, 0);
            for (class, centroid) in centroids.chunks_exact(dim).enumerate() {
                let distance = squared_distance(query, centroid);
                if distance < nearest.0 {
                    nearest = (distance, class);
                }
            }
            nearest.1 == *own
        })
        .count()
}

fn squared_distance(a: &[f32], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f64; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f64 = rest.map(|(&x, y)| (f64::from(x) - y).powi(2)).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for ((lane, &x), y) in lanes.iter_mut().zip(x).zip(y) {
            let difference = f64::from(x) - y;
            *lane += difference * difference;
        }
    }
    lanes.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EmbeddingSet;
    use crate::evaluation::testing::random_set;

    fn rows(set: &EmbeddingSet) -> UnitRows {
        UnitRows::new(set, "query").unwrap()
    }

    fn options(ways: usize, shots: usize, queries: usize, episodes: usize) -> FewShotOptions {
        FewShotOptions {
            ways,
            shots,
            queries,
            episodes,
            seed: 5,
        }
    }

    #[test]
    fn correct_queries_by_hand() {
        let set = EmbeddingSet {
            dim: 2,
            // Class 0 at angles 0, 20 and 60 degrees, class 1 at 90, 80 and 30.
            values: [0.0_f32, 20.0, 60.0, 90.0, 80.0, 30.0]
                .iter()
                .flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()])
                .collect(),
            labels: vec![0, 0, 0, 1, 1, 1],
            ids: vec![String::new(); 6],
        };
        let rows = rows(&set);
        assert_eq!(correct(&rows, &[vec![0, 1, 2], vec![3, 4, 5]], 1), 2);
        // Centroids at 10 and 60 degrees: the queries at 60 and at 80 go to class 1.
        assert_eq!(correct(&rows, &[vec![0, 1, 2], vec![3, 5, 4]], 2), 1);
    }

    #[test]
    fn every_draw_of_the_whole_set_equals_the_exhaustive_mean() {
        // Two classes of two members: an episode has one of 8 outcomes, whose mean is known by enumeration.
        let set = random_set(3, 40, 3, 2);
        let rows = rows(&set);
        let classes: Vec<Vec<usize>> = rows
            .classes()
            .iter()
            .map(|class| class.rows.clone().collect())
            .collect();
        let (mut sum, mut count) = (0.0, 0.0);
        for &a in &classes[0] {
            for &b in &classes[0] {
                for &c in &classes[1] {
                    for &d in &classes[1] {
                        if a != b && c != d {
                            sum += correct(&rows, &[vec![a, b], vec![c, d]], 1) as f64 / 2.0;
                            count += 1.0;
                        }
                    }
                }
            }
        }
        let found = few_shot(&rows, &options(2, 1, 1, 20_000)).unwrap();
        let ci95 = found.ci95.unwrap();
        assert!(
            ci95 < 0.01 && (found.accuracy - sum / count).abs() < 2.0 * ci95,
            "{found:?} {}",
            sum / count
        );
    }

    #[test]
    fn a_space_without_differences_scores_chance_and_threads_do_not_matter() {
        let mut set = random_set(4, 300, 5, 10);
        let known = rows(&set);
        let found = few_shot(&known, &options(4, 2, 3, 50)).unwrap();
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(
            found,
            alone.install(|| few_shot(&known, &options(4, 2, 3, 50))).unwrap()
        );
        assert!(found.accuracy > 0.5 && found.accuracy < 1.0);
        set.values.fill(1.0);
        assert_eq!(few_shot(&rows(&set), &options(4, 2, 3, 50)).unwrap().accuracy, 0.25);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let mut set = random_set(4, 300, 5, 10);
        let message = |set: &EmbeddingSet, options| few_shot(&rows(set), &options).unwrap_err().to_string();
        assert!(message(&set, options(20, 1, 1, 5)).contains("only 10 of 10 classes"));
        assert!(message(&set, options(2, 1, 1000, 5)).contains("at least 1001 members"));
        assert!(message(&set, options(2, 0, 1, 5)).contains("at least one shot"));
        assert!(message(&set, options(1, 1, 1, 5)).contains("two ways"));
        set.labels[0] = 99;
        let found = few_shot(&rows(&set), &options(2, 1, 1, 1)).unwrap();
        assert_eq!((found.small_classes, found.ci95), (1, None));
    }

    #[test]
    fn all_examples_make_the_centroid() {
        let set = EmbeddingSet {
            dim: 2,
            values: vec![0.0, 1.0, 1.0, 0.0, 1.0, 0.0, 0.8, -0.6, -1.0, 0.0, -1.0, 0.0],
            labels: vec![0, 0, 0, 1, 1, 1],
            ids: vec![String::new(); 6],
        };
        // The first examples alone, (0, 1) and (0.8, -0.6), would give the query (1, 0) to the other class.
        assert_eq!(correct(&rows(&set), &[vec![0, 1, 2], vec![3, 4, 5]], 2), 2);
    }

    #[test]
    fn the_interval_is_that_of_a_normal_mean_with_the_unbiased_deviation() {
        let mut set = random_set(9, 60, 3, 3);
        set.values
            .iter_mut()
            .zip(random_set(10, 60, 3, 60).values)
            .for_each(|(value, noise)| *value = noise);
        let rows = rows(&set);
        let run = |episodes| few_shot(&rows, &options(2, 1, 5, episodes)).unwrap();
        // An episode does not depend on how many there are.
        let first = run(1).accuracy;
        let both = run(2);
        let second = 2.0 * both.accuracy - first;
        assert!(
            (first - second).abs() > 0.01,
            "the episodes should differ: {first} {second}"
        );
        let expected = 1.96 * (first - second).abs() / 2.0;
        assert!(
            (both.ci95.unwrap() - expected).abs() < 1e-9,
            "{:?} {expected}",
            both.ci95
        );
    }
}
