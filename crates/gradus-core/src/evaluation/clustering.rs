//! K-means: Lloyd's iterations from k-means++ starts, in blocks of matrix products.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::EvaluationError;
use crate::random::{Rng, RngCore, purpose, stream};

/// Rows per unit of parallel work and centroids compared at once: fixed, so that no sum depends on the number of threads.
const ROWS: usize = 256;
const CENTROIDS: usize = 1024;
/// Up to so many clusters each start is drawn one by one among several candidates; beyond, several are drawn at once.
const ONE_BY_ONE: usize = 1024;
/// The square of a row of values up to this is finite at any width.
const LARGEST: f32 = 1e15;

/// How clusters are searched.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct KMeansOptions {
    /// Clusters; default 8 (scikit-learn's).
    pub clusters: usize,
    /// Independent starts, of which the one with the least inertia is kept; default 10.
    pub restarts: usize,
    /// Most iterations of each; default 300 (scikit-learn's).
    pub iterations: usize,
    /// A start has converged when the summed squared moves of its centroids are at most this share of the mean variance of the
    /// columns; default 1e-4 (scikit-learn's).
    pub tolerance: f64,
    /// Seed of the starts; default 0.
    pub seed: u64,
}

impl Default for KMeansOptions {
    fn default() -> Self {
        Self {
            clusters: 8,
            restarts: 10,
            iterations: 300,
            tolerance: 1e-4,
            seed: 0,
        }
    }
}

/// Clusters of rows.
#[derive(Clone, Debug, PartialEq)]
pub struct KMeans {
    /// Cluster of each row, `[rows]`.
    pub assignments: Vec<u32>,
    /// Rows of each cluster, `[clusters]`; 0 only where there are fewer different rows than clusters, or at the limit of
    /// iterations.
    pub sizes: Vec<usize>,
    /// Mean of each cluster, row-major `[clusters, width]`.
    pub centroids: Vec<f32>,
    /// Sum of squared distances of the rows to their centroids.
    pub inertia: f64,
    /// Iterations of the start that was kept.
    pub iterations: usize,
    /// Whether it converged before the limit of iterations.
    pub converged: bool,
}

/// K-means (Lloyd 1982) from k-means++ starts (Arthur and Vassilvitskii 2007), the best of several.
///
/// Minimises `sum_i ||x_i - c(i)||^2`. A start is drawn, like scikit-learn's, greedily: of `2 + ln(clusters)` candidates drawn in
/// proportion to the squared distance from what is chosen, the one that lowers the sum most. Beyond 1024 clusters, an eighth of
/// those chosen so far are drawn at once instead (as in k-means||, Bahmani et al. 2012): a start then costs about one iteration.
/// An empty cluster takes the row farthest from its centroid. Rows are centred first; distances are in single precision, sums
/// of rows and the inertia in double. A row only changes its cluster for a strictly nearer centroid; products are not
/// repeated for pairs of a row and a centroid that both stayed. Results depend on the seed, not on the number of threads.
///
/// Memory: a copy of the rows, two sets of centroids and 1 MiB of products per thread.
///
/// # Shapes
/// `values` is row-major `[rows, dim]`. Rows are taken as they are: bring them to unit length for cosine distances.
///
/// # Errors
/// No rows, a value that is not finite, more clusters than rows, a setting of 0.
///
/// ```
/// use gradus_core::evaluation::{KMeansOptions, k_means};
///
/// let rows = [0.0, 0.1, 0.2, 5.0, 5.1, 5.2];
/// let found = k_means(&rows, 1, &KMeansOptions { clusters: 2, ..KMeansOptions::default() })?;
/// assert_eq!(found.sizes, [3, 3]);
/// assert!((found.inertia - 0.04).abs() < 1e-6);
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn k_means(values: &[f32], dim: usize, options: &KMeansOptions) -> Result<KMeans, EvaluationError> {
    check(values, dim, options)?;
    let problem = Problem::new(values, dim, options);
    let mut best: Option<KMeans> = None;
    for restart in 0..options.restarts {
        let mut random = stream(options.seed, &[purpose::CLUSTERING, restart as u64]);
        let found = problem.lloyd(problem.starts(&mut random));
        if best.as_ref().is_none_or(|best| found.inertia < best.inertia) {
            best = Some(found);
        }
    }
    let mut best = best.ok_or_else(|| EvaluationError::Options("k-means needs at least one start".into()))?;
    for centroid in best.centroids.chunks_exact_mut(dim) {
        for (value, mean) in centroid.iter_mut().zip(&problem.mean) {
            *value = (f64::from(*value) + mean) as f32;
        }
    }
    Ok(best)
}

fn check(values: &[f32], dim: usize, options: &KMeansOptions) -> Result<(), EvaluationError> {
    let refuse = |problem: String| Err(EvaluationError::Options(problem));
    if dim == 0 || values.is_empty() || !values.len().is_multiple_of(dim) {
        return refuse(format!(
            "{} values of width {dim} are not whole rows to cluster: at least one row is needed, and as many values as rows x width",
            values.len()
        ));
    }
    let rows = values.len() / dim;
    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
        return refuse(format!(
            "row {} holds {}, which has no distance to anything: clustering needs finite rows (rows are counted from 0)",
            at / dim,
            values[at]
        ));
    }
    if let Some(at) = values.iter().position(|value| value.abs() > LARGEST) {
        return refuse(format!(
            "row {} holds {}: squares of values beyond {LARGEST:e} do not fit single precision; scale the rows down before clustering",
            at / dim,
            values[at]
        ));
    }
    if options.clusters == 0 || options.clusters > rows || u32::try_from(rows).is_err() {
        return refuse(format!(
            "{rows} rows cannot be put into {} clusters: expected between 1 and {rows}",
            options.clusters
        ));
    }
    if options.restarts == 0 || options.iterations == 0 || options.tolerance.is_nan() || options.tolerance < 0.0 {
        return refuse(format!(
            "k-means needs at least one start and one iteration, and a tolerance of 0 or more; found {}, {} and {}",
            options.restarts, options.iterations, options.tolerance
        ));
    }
    Ok(())
}

/// Centred rows and what all starts share.
struct Problem<'a> {
    dim: usize,
    rows: usize,
    mean: Vec<f64>,
    values: Vec<f32>,
    squares: Vec<f32>,
    /// Summed squared moves of centroids at which the iterations end.
    still: f64,
    options: &'a KMeansOptions,
}

/// Where a row is, and how near: `||c||^2 - 2 x.c`, which differs from the squared distance by `||x||^2`.
#[derive(Clone, Copy)]
struct Place {
    score: f32,
    cluster: u32,
}

impl<'a> Problem<'a> {
    fn new(values: &[f32], dim: usize, options: &'a KMeansOptions) -> Self {
        let rows = values.len() / dim;
        let mut mean = vec![0.0_f64; dim];
        for row in values.chunks_exact(dim) {
            for (sum, &value) in mean.iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= rows as f64);
        let centred: Vec<f32> = values
            .chunks_exact(dim)
            .flat_map(|row| {
                row.iter()
                    .zip(&mean)
                    .map(|(&value, mean)| (f64::from(value) - mean) as f32)
            })
            .collect();
        let squares: Vec<f32> = centred.par_chunks_exact(dim).map(square).collect();
        let variance: f64 = squares.iter().map(|&square| f64::from(square)).sum::<f64>() / rows as f64 / dim as f64;
        Self {
            dim,
            rows,
            mean,
            values: centred,
            squares,
            still: options.tolerance * variance,
            options,
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.dim..(row + 1) * self.dim]
    }

    /// Rows that become the first centroids.
    fn starts(&self, random: &mut impl RngCore) -> Vec<f32> {
        let clusters = self.options.clusters;
        let mut chosen = vec![random.random_range(0..self.rows)];
        let mut nearest = vec![f32::INFINITY; self.rows];
        self.lower(&mut nearest, &chosen);
        let candidates = 2 + (clusters as f64).ln() as usize;
        while chosen.len() < clusters {
            let mut wheel = Wheel::new(&nearest);
            if clusters > ONE_BY_ONE {
                let together = (chosen.len() / 8).clamp(1, clusters - chosen.len());
                let mut drawn: Vec<usize> = (0..together).filter_map(|_| wheel.draw(random)).collect();
                drawn.sort_unstable();
                drawn.dedup();
                self.fill(&mut drawn, &nearest, &chosen);
                self.lower(&mut nearest, &drawn);
                chosen.extend(drawn);
            } else {
                let mut drawn: Vec<usize> = (0..candidates).filter_map(|_| wheel.draw(random)).collect();
                self.fill(&mut drawn, &nearest, &chosen);
                let best = self.best_candidate(&nearest, &drawn);
                self.lower(&mut nearest, &[best]);
                chosen.push(best);
            }
        }
        chosen.iter().flat_map(|&row| self.row(row).iter().copied()).collect()
    }

    /// If every row coincides with a chosen one, the first row that is not itself chosen.
    fn fill(&self, drawn: &mut Vec<usize>, nearest: &[f32], chosen: &[usize]) {
        if drawn.is_empty() {
            let mut taken = vec![false; nearest.len()];
            chosen.iter().for_each(|&row| taken[row] = true);
            drawn.extend(taken.iter().position(|taken| !taken));
        }
    }

    /// The candidate after which the sum of squared distances is least.
    fn best_candidate(&self, nearest: &[f32], candidates: &[usize]) -> usize {
        let parts: Vec<Vec<f64>> = self
            .products_with(candidates, |first, products, squares| {
                let mut sums = vec![0.0; candidates.len()];
                for (offset, products) in products.chunks_exact(candidates.len()).enumerate() {
                    let row = first + offset;
                    for ((sum, product), square) in sums.iter_mut().zip(products).zip(squares) {
                        let distance = (self.squares[row] + square - 2.0 * product).max(0.0);
                        *sum += f64::from(nearest[row].min(distance));
                    }
                }
                sums
            })
            .collect();
        let total = |candidate: usize| parts.iter().map(|part| part[candidate]).sum::<f64>();
        let mut best = (f64::INFINITY, 0);
        for candidate in 0..candidates.len() {
            let sum = total(candidate);
            if sum < best.0 {
                best = (sum, candidate);
            }
        }
        candidates[best.1]
    }

    /// Lowers the squared distance of every row to the nearest chosen one.
    fn lower(&self, nearest: &mut [f32], added: &[usize]) {
        for added in added.chunks(CENTROIDS) {
            let distances: Vec<Vec<f32>> = self
                .products_with(added, |first, products, squares| {
                    products
                        .chunks_exact(added.len())
                        .enumerate()
                        .map(|(offset, products)| {
                            let least = products
                                .iter()
                                .zip(squares)
                                .map(|(product, square)| square - 2.0 * product)
                                .fold(f32::INFINITY, f32::min);
                            (self.squares[first + offset] + least).max(0.0)
                        })
                        .collect()
                })
                .collect();
            for (nearest, distance) in nearest.iter_mut().zip(distances.into_iter().flatten()) {
                *nearest = nearest.min(distance);
            }
            // Exactly zero, whatever the rounding: a row is never drawn twice.
            added.iter().for_each(|&row| nearest[row] = 0.0);
        }
    }

    /// Products of all rows with some of them, block by block: `work(first row, products, squares of the others)`.
    fn products_with<'s, T: Send>(
        &'s self,
        others: &'s [usize],
        work: impl Fn(usize, &[f32], &[f32]) -> T + Sync + Send + 's,
    ) -> impl IndexedParallelIterator<Item = T> + 's {
        let columns: Vec<f32> = others.iter().flat_map(|&row| self.row(row).iter().copied()).collect();
        let squares: Vec<f32> = others.iter().map(|&row| self.squares[row]).collect();
        self.values
            .par_chunks(ROWS * self.dim)
            .enumerate()
            .map_init(Vec::new, move |scores, (block, rows)| {
                products(rows, &columns, self.dim, scores);
                work(block * ROWS, scores, &squares)
            })
    }

    fn lloyd(&self, mut centroids: Vec<f32>) -> KMeans {
        let clusters = self.options.clusters;
        let mut places = vec![
            Place {
                score: f32::INFINITY,
                cluster: u32::MAX,
            };
            self.rows
        ];
        self.assign(&mut places, &centroids, &vec![true; clusters]);
        let mut refills = self.refill(&places, &centroids);
        let (mut iterations, mut converged) = (0, false);
        while iterations < self.options.iterations && !converged {
            iterations += 1;
            for (row, cluster) in refills {
                places[row] = Place {
                    score: -self.squares[row],
                    cluster,
                };
            }
            let next = self.means(&places, &centroids);
            let moves: Vec<f64> = next
                .par_chunks_exact(self.dim)
                .zip(centroids.par_chunks_exact(self.dim))
                .map(|(new, old)| squared_distance(new, old))
                .collect();
            let moved: Vec<bool> = moves.iter().map(|&distance| distance > 0.0).collect();
            centroids = next;
            let changed = self.assign(&mut places, &centroids, &moved);
            refills = self.refill(&places, &centroids);
            let still = changed == 0 || moves.iter().sum::<f64>() <= self.still;
            converged = still && refills.is_empty();
        }
        let mut sizes = vec![0; clusters];
        places.iter().for_each(|place| sizes[place.cluster as usize] += 1);
        let distances: Vec<f64> = self.distances(&places, &centroids);
        KMeans {
            assignments: places.iter().map(|place| place.cluster).collect(),
            sizes,
            centroids,
            inertia: distances.iter().sum(),
            iterations,
            converged,
        }
    }

    /// Exact squared distance of each row to its centroid.
    fn distances(&self, places: &[Place], centroids: &[f32]) -> Vec<f64> {
        places
            .par_iter()
            .enumerate()
            .map(|(row, place)| {
                let cluster = place.cluster as usize;
                squared_distance(self.row(row), &centroids[cluster * self.dim..(cluster + 1) * self.dim])
            })
            .collect()
    }

    /// Puts every row to its nearest centroid; returns how many changed. Rows whose own centroid stayed are compared with the
    /// moved ones only: the others were farther before and still are.
    fn assign(&self, places: &mut [Place], centroids: &[f32], moved: &[bool]) -> usize {
        let own_moved = |place: &Place| moved.get(place.cluster as usize).copied().unwrap_or(true);
        let (full, partial): (Vec<u32>, Vec<u32>) =
            (0..self.rows as u32).partition(|&row| own_moved(&places[row as usize]));
        let mut changed = 0;
        for (rows, only_moved) in [(full, false), (partial, true)] {
            let some: Vec<u32> = (0..moved.len() as u32)
                .filter(|&cluster| !only_moved || moved[cluster as usize])
                .collect();
            if rows.is_empty() || some.is_empty() {
                continue;
            }
            let gathered: Vec<f32> = if some.len() == moved.len() {
                Vec::new()
            } else {
                let centroid =
                    |cluster: u32| &centroids[cluster as usize * self.dim..(cluster as usize + 1) * self.dim];
                some.iter()
                    .flat_map(|&cluster| centroid(cluster).iter().copied())
                    .collect()
            };
            let columns = if gathered.is_empty() { centroids } else { &gathered };
            let squares: Vec<f32> = columns.par_chunks_exact(self.dim).map(square).collect();
            let found: Vec<Vec<Place>> = rows
                .par_chunks(ROWS)
                .map_init(
                    || (Vec::new(), Vec::new()),
                    |(block, scores), rows| {
                        block.clear();
                        rows.iter()
                            .for_each(|&row| block.extend_from_slice(self.row(row as usize)));
                        let mut best: Vec<Place> = rows.iter().map(|&row| places[row as usize]).collect();
                        if !only_moved {
                            // Their stored score belongs to a centroid that is gone.
                            best.iter_mut().for_each(|place| place.score = f32::INFINITY);
                        }
                        for (part, columns) in columns.chunks(CENTROIDS * self.dim).enumerate() {
                            let count = columns.len() / self.dim;
                            let first = part * CENTROIDS;
                            products(block, columns, self.dim, scores);
                            let squares = &squares[first..first + count];
                            for ((best, products), &row) in best.iter_mut().zip(scores.chunks_exact(count)).zip(rows) {
                                let own = places[row as usize].cluster;
                                choose(best, products, squares, &some[first..first + count], own);
                            }
                        }
                        best
                    },
                )
                .collect();
            for (&row, found) in rows.iter().zip(found.iter().flatten()) {
                changed += usize::from(places[row as usize].cluster != found.cluster);
                places[row as usize] = *found;
            }
        }
        changed
    }

    /// For every empty cluster, the row farthest from its centroid, as long as one lies apart from it: `(row, cluster)`.
    fn refill(&self, places: &[Place], centroids: &[f32]) -> Vec<(usize, u32)> {
        let mut sizes = vec![0_usize; self.options.clusters];
        places.iter().for_each(|place| sizes[place.cluster as usize] += 1);
        let empty: Vec<u32> = (0..sizes.len() as u32)
            .filter(|&cluster| sizes[cluster as usize] == 0)
            .collect();
        if empty.is_empty() {
            return Vec::new();
        }
        let distances = self.distances(places, centroids);
        let mut farthest: Vec<usize> = (0..self.rows).filter(|&row| distances[row] > 0.0).collect();
        farthest.sort_by(|&a, &b| distances[b].total_cmp(&distances[a]).then(a.cmp(&b)));
        // No other cluster may become empty by it.
        farthest.retain(|&row| {
            let size = &mut sizes[places[row].cluster as usize];
            let spare = *size > 1;
            *size -= usize::from(spare);
            spare
        });
        farthest.into_iter().zip(empty).collect()
    }

    /// Means of the clusters, in double precision; an empty one stays where it was.
    fn means(&self, places: &[Place], centroids: &[f32]) -> Vec<f32> {
        let clusters = self.options.clusters;
        let mut starts = vec![0_usize; clusters + 1];
        places.iter().for_each(|place| starts[place.cluster as usize + 1] += 1);
        for cluster in 0..clusters {
            starts[cluster + 1] += starts[cluster];
        }
        let mut members = vec![0_u32; self.rows];
        let mut next = starts.clone();
        for (row, place) in places.iter().enumerate() {
            members[next[place.cluster as usize]] = row as u32;
            next[place.cluster as usize] += 1;
        }
        let mut means = centroids.to_vec();
        means.par_chunks_exact_mut(self.dim).enumerate().for_each_init(
            || vec![0.0_f64; self.dim],
            |sums, (cluster, mean)| {
                let members = &members[starts[cluster]..starts[cluster + 1]];
                if members.is_empty() {
                    return;
                }
                sums.fill(0.0);
                for &row in members {
                    for (sum, &value) in sums.iter_mut().zip(self.row(row as usize)) {
                        *sum += f64::from(value);
                    }
                }
                for (mean, sum) in mean.iter_mut().zip(sums.iter()) {
                    *mean = (sum / members.len() as f64) as f32;
                }
            },
        );
        means
    }
}

/// Keeps the nearest of some centroids; of equally near ones the row's own, then the first.
fn choose(best: &mut Place, products: &[f32], squares: &[f32], clusters: &[u32], own: u32) {
    // Without the bookkeeping first: the compiler turns this loop into vector instructions.
    let score = |(product, square): (&f32, &f32)| square - 2.0 * product;
    let least = products
        .iter()
        .zip(squares)
        .map(score)
        .fold(f32::INFINITY, |a, b| if b < a { b } else { a });
    if least > best.score {
        return;
    }
    let equal = products.iter().zip(squares).map(score).zip(clusters);
    for (score, &cluster) in equal.filter(|(score, _)| *score == least) {
        if score < best.score || cluster == own {
            *best = Place { score, cluster };
        }
    }
}

/// Draws rows in proportion to their weight.
struct Wheel {
    rising: Vec<f64>,
}

impl Wheel {
    fn new(weights: &[f32]) -> Self {
        let mut sum = 0.0;
        let rising = weights
            .iter()
            .map(|&weight| {
                sum += f64::from(weight);
                sum
            })
            .collect();
        Self { rising }
    }

    /// `None` if all weights are zero.
    fn draw(&mut self, random: &mut impl RngCore) -> Option<usize> {
        let total = self.rising.last().copied().filter(|&total| total > 0.0)?;
        let at = random.random::<f64>() * total;
        // The first row whose sum lies beyond: a row without weight repeats the sum before it and is never that.
        let row = self.rising.partition_point(|&sum| sum <= at);
        Some(row.min(self.rising.partition_point(|&sum| sum < total)))
    }
}

/// `a b^T`, row-major `[rows of a, rows of b]`, on one thread.
fn products(a: &[f32], b: &[f32], dim: usize, out: &mut Vec<f32>) {
    let (rows, columns) = (a.len() / dim, b.len() / dim);
    out.resize(rows * columns, 0.0);
    matmul(
        MatMut::from_column_major_slice_mut(out.as_mut_slice(), columns, rows),
        Accum::Replace,
        MatRef::from_row_major_slice(b, columns, dim),
        MatRef::from_row_major_slice(a, rows, dim).transpose(),
        1.0,
        Par::Seq,
    );
}

fn square(row: &[f32]) -> f32 {
    row.iter()
        .map(|&value| f64::from(value) * f64::from(value))
        .sum::<f64>() as f32
}

fn squared_distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::cluster_scores;
    use crate::evaluation::testing::random_set;

    fn options(clusters: usize, restarts: usize) -> KMeansOptions {
        KMeansOptions {
            clusters,
            restarts,
            ..KMeansOptions::default()
        }
    }

    /// Every row is with its nearest centroid, every centroid is the mean of its rows, and the inertia is their distance.
    fn assert_fixed_point(values: &[f32], dim: usize, found: &KMeans) {
        let mut inertia = 0.0;
        let mut sums = vec![0.0_f64; found.centroids.len()];
        for (row, &own) in values.chunks_exact(dim).zip(&found.assignments) {
            let distances: Vec<f64> = found
                .centroids
                .chunks_exact(dim)
                .map(|c| squared_distance(row, c))
                .collect();
            let least = distances.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(
                distances[own as usize] <= least + 1e-5,
                "{} {least}",
                distances[own as usize]
            );
            inertia += distances[own as usize];
            for (sum, &value) in sums[own as usize * dim..].iter_mut().zip(row) {
                *sum += f64::from(value);
            }
        }
        assert!(
            (inertia - found.inertia).abs() < 1e-5 * inertia.max(1.0),
            "{inertia} {}",
            found.inertia
        );
        for (cluster, &size) in found.sizes.iter().enumerate().filter(|(_, size)| **size > 0) {
            for column in 0..dim {
                let mean = sums[cluster * dim + column] / size as f64;
                assert!((mean - f64::from(found.centroids[cluster * dim + column])).abs() < 1e-5);
            }
        }
        assert_eq!(found.sizes.iter().sum::<usize>(), values.len() / dim);
    }

    #[test]
    fn a_converged_result_is_a_fixed_point_whatever_the_sizes() {
        for (len, dim, clusters) in [(700, 17, 9), (300, 3, 60), (1500, 8, 1100), (40, 5, 1), (30, 4, 30)] {
            let set = random_set(len as u64, len, dim, 12);
            let exact = KMeansOptions {
                tolerance: 0.0,
                ..options(clusters, 2)
            };
            let found = k_means(&set.values, dim, &exact).unwrap();
            assert!(
                found.converged && found.sizes.iter().all(|&size| size > 0),
                "{len} {clusters}"
            );
            assert_fixed_point(&set.values, dim, &found);
        }
    }

    #[test]
    fn the_best_partition_of_small_sets_is_found() {
        // All partitions of 9 rows into 3 clusters, by brute force.
        for seed in 0..5 {
            let set = random_set(seed, 9, 2, 3);
            let mut least = f64::INFINITY;
            for code in 0..3_usize.pow(9) {
                let assignments: Vec<usize> = (0..9).map(|row| code / 3_usize.pow(row) % 3).collect();
                let mut inertia = 0.0;
                for cluster in 0..3 {
                    let members: Vec<&[f32]> = (0..9)
                        .filter(|&row| assignments[row] == cluster)
                        .map(|row| set.row(row))
                        .collect();
                    let mean = |column: usize| {
                        members.iter().map(|row| f64::from(row[column])).sum::<f64>() / members.len() as f64
                    };
                    for row in &members {
                        inertia += (0..2)
                            .map(|column| (f64::from(row[column]) - mean(column)).powi(2))
                            .sum::<f64>();
                    }
                }
                least = least.min(inertia);
            }
            let found = k_means(&set.values, 2, &options(3, 30)).unwrap();
            assert!((found.inertia - least).abs() < 1e-5, "{} {least}", found.inertia);
        }
    }

    #[test]
    fn threads_do_not_matter_and_seeds_do() {
        let set = random_set(3, 900, 20, 30);
        let found = k_means(&set.values, 20, &options(30, 2)).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(
                found,
                pool.install(|| k_means(&set.values, 20, &options(30, 2))).unwrap()
            );
        }
        let other = KMeansOptions {
            seed: 1,
            ..options(30, 2)
        };
        assert_ne!(found.assignments, k_means(&set.values, 20, &other).unwrap().assignments);
        assert!(found.inertia <= k_means(&set.values, 20, &options(30, 1)).unwrap().inertia);
    }

    #[test]
    fn clear_clusters_are_found_without_restarts() {
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for class in 0..50_u32 {
            for member in 0..7 {
                values.extend([class as f32 * 10.0 + member as f32 * 0.1, (class % 7) as f32 * 30.0]);
                labels.push(class);
            }
        }
        let found = k_means(&values, 2, &options(50, 1)).unwrap();
        assert!(cluster_scores(&labels, &found.assignments).unwrap().nmi > 0.98);
        let found = k_means(&values, 2, &options(50, 10)).unwrap();
        assert!(cluster_scores(&labels, &found.assignments).unwrap().nmi > 0.999);
    }

    #[test]
    fn empty_clusters_take_the_farthest_rows() {
        let values = [0.0, 0.0, 1.0, 9.0];
        let problem = options(3, 1);
        let problem = Problem::new(&values, 1, &problem);
        // All rows in cluster 0, whose centroid is the (centred) place of the first two rows.
        let places = vec![Place { score: 0.0, cluster: 0 }; 4];
        assert_eq!(problem.refill(&places, &[-2.5, 50.0, 60.0]), [(3, 1), (2, 2)]);
    }

    #[test]
    fn fewer_different_rows_than_clusters_leave_some_empty() {
        let values = [1.0, 1.0, 1.0, 4.0, 4.0, 4.0];
        let found = k_means(&values, 1, &options(4, 3)).unwrap();
        assert_eq!(found.inertia, 0.0);
        assert_eq!(found.sizes.iter().filter(|&&size| size > 0).count(), 2);
        assert_fixed_point(&values, 1, &found);
    }

    #[test]
    fn what_cannot_be_clustered_is_refused() {
        let message =
            |values: &[f32], dim, options: KMeansOptions| k_means(values, dim, &options).unwrap_err().to_string();
        assert!(message(&[1.0, 2.0], 1, options(3, 1)).contains("2 rows cannot be put into 3 clusters"));
        assert!(message(&[1.0, 2.0], 1, options(0, 1)).contains("between 1 and 2"));
        assert!(message(&[1.0, f32::NAN], 1, options(1, 1)).contains("row 1 holds NaN"));
        assert!(message(&[1.0, 2.0, 3.0], 2, options(1, 1)).contains("whole"));
        assert!(message(&[1.0, 2.0], 1, options(1, 0)).contains("at least one start"));
    }

    #[test]
    fn a_row_between_two_clusters_stays_where_it_is() {
        let choice = |own| {
            let mut best = Place {
                score: f32::INFINITY,
                cluster: u32::MAX,
            };
            choose(&mut best, &[1.0, 1.0, 0.0], &[1.0, 1.0, 1.0], &[4, 7, 9], own);
            best.cluster
        };
        assert_eq!([choice(4), choice(7), choice(9)], [4, 7, 4]);
    }

    #[test]
    fn the_tolerance_is_a_share_of_the_variance() {
        let set = random_set(11, 400, 3, 4);
        let loose = KMeansOptions {
            tolerance: 1e-3,
            ..options(12, 1)
        };
        let iterations = |scale: f32| {
            let values: Vec<f32> = set.values.iter().map(|value| value * scale).collect();
            k_means(&values, 3, &loose).unwrap().iterations
        };
        assert!(iterations(1.0) > 2);
        // Powers of two change no digit.
        assert_eq!([iterations(1.0 / 1024.0), iterations(1024.0)], [iterations(1.0); 2]);
    }

    #[test]
    fn starts_are_the_best_of_several_candidates() {
        let set = random_set(5, 300, 2, 5);
        let options = options(10, 1);
        let problem = Problem::new(&set.values, 2, &options);
        let cost = |starts: &[f32]| -> f64 {
            let near = |row: &[f32]| {
                starts
                    .chunks_exact(2)
                    .map(|start| squared_distance(row, start))
                    .fold(f64::INFINITY, f64::min)
            };
            problem.values.chunks_exact(2).map(near).sum()
        };
        // Plain k-means++: one candidate for each start.
        let plain = |random: &mut crate::random::Xoshiro256PlusPlus| {
            let mut starts = problem.row(random.random_range(0..300)).to_vec();
            while starts.len() < 20 {
                let near = |row: &[f32]| {
                    starts
                        .chunks_exact(2)
                        .map(|start| squared_distance(row, start) as f32)
                        .fold(f32::INFINITY, f32::min)
                };
                let nearest: Vec<f32> = problem.values.chunks_exact(2).map(near).collect();
                let row = Wheel::new(&nearest).draw(random).unwrap();
                starts.extend_from_slice(problem.row(row));
            }
            starts
        };
        let (mut best, mut drawn) = (0.0, 0.0);
        for seed in 0..40 {
            best += cost(&problem.starts(&mut stream(seed, &[1])));
            drawn += cost(&plain(&mut stream(seed, &[2])));
        }
        assert!(best < 0.9 * drawn, "{best} {drawn}");
    }
}
