//! Verification: same or different, decided by a threshold on the similarity of a pair.

use std::sync::atomic::{AtomicU32, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::EvaluationError;
use super::blocks::similarities;
use super::search_distance::single_dot;
use super::unit_rows::UnitRows;
use crate::EmbeddingSet;
use crate::random::{Rng, purpose, stream};

/// Rows of one block of similarities: fixed, so that nothing depends on the number of threads.
const QUERIES: usize = 256;
const GALLERY: usize = 1024;
/// Most similarities that are kept (20 bytes each): a bound of 640 MiB where two large classes make half of all pairs.
const KEPT: u64 = 1 << 25;

/// Which pairs are looked at, and where the curve is read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VerificationOptions {
    /// False accept rates at which the true accept rate is read; default 0.1, 0.01, 0.001 and 0.0001.
    pub false_accept_rates: Vec<f64>,
    /// Up to so many pairs all are looked at, unless there are more than 2^25 of either kind (same or different): similarities of
    /// the rarer kind are kept, with counts, at 20 bytes each. Default 200 million (20,000 rows).
    pub all_pairs: u64,
    /// Beyond, so many pairs of either kind are drawn, or all there are of a kind that has fewer; default 5 million.
    pub sampled_pairs: u64,
    /// Seed of the drawn pairs; default 0.
    pub seed: u64,
}

impl Default for VerificationOptions {
    fn default() -> Self {
        Self {
            false_accept_rates: vec![0.1, 0.01, 0.001, 0.0001],
            all_pairs: 200_000_000,
            sampled_pairs: 5_000_000,
            seed: 0,
        }
    }
}

/// What the receiver operating characteristic of all thresholds says.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// Area under the curve: the probability that a pair of one class is more similar than a pair of two, ties half.
    pub auc: f64,
    /// Equal error rate: where the share of different pairs accepted equals that of same pairs rejected, on the curve with
    /// straight lines between its points.
    pub eer: f64,
    /// True accept rate at each false accept rate asked for: the greatest of any threshold whose false accept rate is no greater.
    pub tar_at_far: Vec<(f64, f64)>,
    /// Pairs of one class looked at.
    pub same_pairs: u64,
    /// Pairs of two classes looked at.
    pub different_pairs: u64,
    /// Whether the pairs are a sample.
    pub sampled: bool,
}

impl Verification {
    /// False non-match rate at each false match rate asked for: `FNMR@FMR = 1 - TAR@FAR` (ISO/IEC 19795-1).
    #[must_use]
    pub fn fnmr_at_fmr(&self) -> Vec<(f64, f64)> {
        self.tar_at_far
            .iter()
            .map(|&(rate, accepted)| (rate, 1.0 - accepted))
            .collect()
    }
}

/// Verification by cosine similarity over the pairs of a set.
///
/// All pairs, exactly: similarities of the rarer kind of pair are sorted, and the others, block by block, only counted between
/// them. Where there are more than `all_pairs`, pairs of either kind are drawn with a seed (with replacement, so every pair of
/// a kind is equally likely; all pairs of a kind that has no more than asked for). No result depends on the number of threads.
///
/// # Errors
/// No pair of one class or none of two, or a rate outside 0..=1.
///
/// ```
/// use gradus_core::EmbeddingSet;
/// use gradus_core::evaluation::{UnitRows, VerificationOptions, verification};
///
/// let set = EmbeddingSet {
///     dim: 2,
///     values: vec![1.0, 0.0, 0.9, 0.1, 0.0, 1.0, 0.1, 0.9],
///     labels: vec![0, 0, 1, 1],
///     ids: vec![String::new(); 4],
/// };
/// let found = verification(&UnitRows::new(&set, "query")?, &VerificationOptions::default())?;
/// assert_eq!((found.auc, found.eer, found.same_pairs, found.different_pairs), (1.0, 0.0, 2, 4));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn verification(rows: &UnitRows, options: &VerificationOptions) -> Result<Verification, EvaluationError> {
    check(&options.false_accept_rates)?;
    let sizes: Vec<u64> = rows.classes().iter().map(|class| class.rows.len() as u64).collect();
    let len = rows.len() as u64;
    let same: u64 = sizes.iter().map(|size| size * (size - 1) / 2).sum();
    let all = len * (len - 1) / 2;
    let different = all - same;
    some_of_both(same, different)?;
    let class_of = class_of(rows);
    let exactly = all <= options.all_pairs.min(u64::from(u32::MAX)) && same.min(different) <= KEPT;
    let (curve, sampled) = if exactly {
        (all_pairs(rows, &class_of, same <= different), false)
    } else {
        (sampled_pairs(rows, &class_of, [same, different], options), true)
    };
    Ok(curve.read(&options.false_accept_rates, sampled))
}

/// [`verification`] in double precision: the cosine of every pair of the rows as given, cosines that differ by rounding alone
/// counted as equal. For sets of few pairs, where a single pair shows in the numbers.
pub(super) fn verification_of_few(
    sets: &[&EmbeddingSet],
    options: &VerificationOptions,
) -> Result<Verification, EvaluationError> {
    check(&options.false_accept_rates)?;
    let mut rows: Vec<(u32, Vec<f64>)> = Vec::new();
    for set in sets {
        for (index, &label) in set.labels.iter().enumerate() {
            let row = set.row(index).iter().map(|&value| f64::from(value));
            let length = row.clone().map(|value| value * value).sum::<f64>().sqrt();
            rows.push((label, row.map(|value| value / length).collect()));
        }
    }
    let mut pairs: Vec<(f64, bool)> = rows
        .par_iter()
        .enumerate()
        .flat_map_iter(|(first, (label, row))| {
            let others = &rows[first + 1..];
            others
                .iter()
                .map(move |(other, values)| (cosine(row, values), label == other))
        })
        .collect();
    pairs.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let mut curve = Curve::default();
    for equal in pairs.chunk_by(|a, b| a.0 - b.0 < ROUNDING) {
        let same = equal.iter().filter(|pair| pair.1).count() as u64;
        curve.steps.push([same, equal.len() as u64 - same]);
    }
    let same = curve.steps.iter().map(|step| step[0]).sum();
    some_of_both(same, pairs.len() as u64 - same)?;
    Ok(curve.read(&options.false_accept_rates, false))
}

/// Cosines nearer than this are one: the sums of a thousand products in double precision are not surer.
const ROUNDING: f64 = 1e-13;

/// Inner product in eight partial sums, which the compiler can keep in vectors.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let (blocks, others) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in blocks.0.iter().zip(others.0) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = blocks.1.iter().zip(others.1).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

/// Verification from similarities of given pairs, and whether each is of one class.
///
/// # Errors
/// Lengths that differ, a similarity that is NaN, no pair of one kind, or a rate outside 0..=1.
///
/// ```
/// use gradus_core::evaluation::verification_of_pairs;
///
/// let found = verification_of_pairs(&[0.9, 0.8, 0.7, 0.2], &[true, false, true, false], &[0.5])?;
/// assert_eq!((found.auc, found.eer, found.tar_at_far[0]), (0.75, 0.5, (0.5, 1.0)));
/// # Ok::<(), gradus_core::evaluation::EvaluationError>(())
/// ```
pub fn verification_of_pairs(
    similarities: &[f32],
    same: &[bool],
    false_accept_rates: &[f64],
) -> Result<Verification, EvaluationError> {
    check(false_accept_rates)?;
    if similarities.len() != same.len() {
        return Err(EvaluationError::Options(format!(
            "{} similarities and {} statements whether a pair is of one class do not belong together",
            similarities.len(),
            same.len()
        )));
    }
    if let Some(pair) = similarities.iter().position(|similarity| similarity.is_nan()) {
        return Err(EvaluationError::Options(format!(
            "the similarity of pair {pair} is NaN, which no threshold accepts or rejects; pairs are counted from 0"
        )));
    }
    let of_kind = |kind: bool| -> Vec<f32> {
        let pairs = similarities.iter().zip(same).filter(|(_, same)| **same == kind);
        pairs.map(|(&similarity, _)| similarity).collect()
    };
    let (accepted, rejected) = (of_kind(true), of_kind(false));
    some_of_both(accepted.len() as u64, rejected.len() as u64)?;
    Ok(Curve::of_lists(accepted, rejected).read(false_accept_rates, false))
}

fn check(rates: &[f64]) -> Result<(), EvaluationError> {
    match rates.iter().find(|rate| !(0.0..=1.0).contains(*rate)) {
        Some(rate) => Err(EvaluationError::Options(format!(
            "a false accept rate of {rate} cannot be: expected a share between 0 and 1"
        ))),
        None => Ok(()),
    }
}

fn some_of_both(same: u64, different: u64) -> Result<(), EvaluationError> {
    if same == 0 || different == 0 {
        return Err(EvaluationError::Options(format!(
            "verification compares pairs of one class with pairs of two, but there are {same} and {different}: evaluate at least two \
             classes, one of them with two members"
        )));
    }
    Ok(())
}

/// Number of the class at each position.
fn class_of(rows: &UnitRows) -> Vec<u32> {
    let mut all = Vec::with_capacity(rows.len());
    for (number, class) in rows.classes().iter().enumerate() {
        all.resize(class.rows.end, number as u32);
    }
    all
}

/// Calls `visit(state, similarity, of one class)` for every pair `i < j`, in blocks; one state per task.
fn visit_pairs<T: Send>(
    rows: &UnitRows,
    class_of: &[u32],
    state: impl Fn() -> T + Sync + Send,
    visit: impl Fn(&mut T, f32, bool) + Sync + Send,
    join: impl Fn(T, T) -> T + Sync + Send,
) -> T {
    let padded = rows.padded_len();
    let blocks: Vec<usize> = (0..rows.len()).step_by(QUERIES).collect();
    blocks
        .into_par_iter()
        .fold(
            || (state(), Vec::new()),
            |(mut state, mut scores), first| {
                let queries = first..(first + QUERIES).min(padded);
                for start in (first..padded).step_by(GALLERY) {
                    let gallery = start..(start + GALLERY).min(padded);
                    similarities(rows, queries.clone(), rows, gallery.clone(), &mut scores);
                    for (i, scores) in queries
                        .clone()
                        .zip(scores.chunks_exact(gallery.len()))
                        .take(rows.len() - first)
                    {
                        let from = (i + 1).max(gallery.start);
                        let to = gallery.end.min(rows.len());
                        for j in from..to {
                            visit(&mut state, scores[j - gallery.start], class_of[i] == class_of[j]);
                        }
                    }
                }
                (state, scores)
            },
        )
        .map(|(state, _)| state)
        .reduce(&state, join)
}

fn all_pairs(rows: &UnitRows, class_of: &[u32], keep_same: bool) -> Curve {
    let mut kept: Vec<f32> = visit_pairs(
        rows,
        class_of,
        Vec::new,
        |kept: &mut Vec<f32>, similarity, same| {
            if same == keep_same {
                kept.push(similarity);
            }
        },
        |mut a, mut b| {
            a.append(&mut b);
            a
        },
    );
    kept.par_sort_unstable_by(f32::total_cmp);
    let ladder = Ladder::new(&kept);
    drop(kept);
    let counts = Counts::new(ladder.values.len());
    visit_pairs(
        rows,
        class_of,
        || (),
        |(), similarity, same| {
            if same != keep_same {
                counts.add(&ladder, similarity);
            }
        },
        |(), ()| (),
    );
    ladder.curve(&counts, keep_same)
}

/// The different similarities of one kind of pair, rising, with how often each occurs.
struct Ladder {
    values: Vec<f32>,
    times: Vec<u32>,
    /// First value in each of the equal parts of -1..1: most look-ups end there.
    index: Vec<u32>,
}

/// How many of the other kind are equal to each value, and how many lie below it (and above the one before).
struct Counts {
    equal: Vec<AtomicU32>,
    below: Vec<AtomicU32>,
}

impl Counts {
    fn new(steps: usize) -> Self {
        let zeros = |count| std::iter::repeat_with(|| AtomicU32::new(0)).take(count).collect();
        Self {
            equal: zeros(steps),
            below: zeros(steps + 1),
        }
    }

    fn add(&self, ladder: &Ladder, similarity: f32) {
        let place = ladder.place(similarity);
        let counts = if ladder.values.get(place) == Some(&similarity) {
            &self.equal
        } else {
            &self.below
        };
        counts[place].fetch_add(1, Ordering::Relaxed);
    }
}

impl Ladder {
    const PARTS: usize = 1 << 18;

    /// `sorted` rises.
    fn new(sorted: &[f32]) -> Self {
        let (mut values, mut times) = (Vec::new(), Vec::new());
        for run in sorted.chunk_by(|a, b| a == b) {
            values.push(run[0]);
            times.push(run.len() as u32);
        }
        let mut index = vec![0; Self::PARTS + 1];
        let mut place = 0;
        for (part, first) in index.iter_mut().enumerate() {
            while place < values.len() && Self::part(values[place]) < part {
                place += 1;
            }
            *first = place as u32;
        }
        Self { values, times, index }
    }

    fn part(similarity: f32) -> usize {
        // Saturating, and rising with the similarity: enough to narrow the search.
        (((similarity + 1.0) * (Self::PARTS / 2) as f32) as usize).min(Self::PARTS - 1)
    }

    /// The first value that is not below the similarity.
    fn place(&self, similarity: f32) -> usize {
        let part = Self::part(similarity);
        let (from, to) = (self.index[part] as usize, self.index[part + 1] as usize);
        from + self.values[from..to].partition_point(|&value| value < similarity)
    }

    fn curve(&self, counts: &Counts, is_same: bool) -> Curve {
        let count = |count: &AtomicU32| u64::from(count.load(Ordering::Relaxed));
        let mut curve = Curve::default();
        let mut push = |of_ladder: u64, others: u64| {
            if of_ladder + others > 0 {
                curve.steps.push(if is_same {
                    [of_ladder, others]
                } else {
                    [others, of_ladder]
                });
            }
        };
        push(0, count(&counts.below[self.values.len()]));
        for place in (0..self.values.len()).rev() {
            push(u64::from(self.times[place]), count(&counts.equal[place]));
            push(0, count(&counts.below[place]));
        }
        curve
    }
}

/// Pairs of one class and of two that become accepted together as the threshold falls. Several thresholds may share a step where
/// only pairs of one kind lie between them: the curve is a straight line there.
#[derive(Default)]
struct Curve {
    steps: Vec<[u64; 2]>,
}

impl Curve {
    fn of_lists(mut same: Vec<f32>, mut different: Vec<f32>) -> Self {
        let is_same = same.len() <= different.len();
        if !is_same {
            std::mem::swap(&mut same, &mut different);
        }
        same.par_sort_unstable_by(f32::total_cmp);
        let ladder = Ladder::new(&same);
        let counts = Counts::new(ladder.values.len());
        for similarity in different {
            counts.add(&ladder, similarity);
        }
        ladder.curve(&counts, is_same)
    }

    fn read(&self, rates: &[f64], sampled: bool) -> Verification {
        let totals = self
            .steps
            .iter()
            .fold([0, 0], |sum, step| [sum[0] + step[0], sum[1] + step[1]]);
        let [same, different] = totals.map(|total| total as f64);
        let mut accepted = [0_u64; 2];
        let mut area = 0.0;
        let mut eer = None;
        let mut tar_at_far: Vec<(f64, f64)> = rates.iter().map(|&rate| (rate, 0.0)).collect();
        for step in &self.steps {
            let (tar, far) = (accepted[0] as f64 / same, accepted[1] as f64 / different);
            accepted = [accepted[0] + step[0], accepted[1] + step[1]];
            let (next_tar, next_far) = (accepted[0] as f64 / same, accepted[1] as f64 / different);
            area += step[1] as f64 * (accepted[0] as f64 - 0.5 * step[0] as f64);
            // Rejected same pairs fall from 1 to 0, accepted different ones rise from 0 to 1: they meet once.
            let (gap, next_gap) = (1.0 - tar - far, 1.0 - next_tar - next_far);
            if eer.is_none() && next_gap <= 0.0 {
                eer = Some(far + (next_far - far) * gap / (gap - next_gap));
            }
            for (rate, best) in &mut tar_at_far {
                if next_far <= *rate {
                    *best = next_tar;
                }
            }
        }
        Verification {
            auc: area / (same * different),
            eer: eer.unwrap_or(0.5),
            tar_at_far,
            same_pairs: totals[0],
            different_pairs: totals[1],
            sampled,
        }
    }
}

fn sampled_pairs(rows: &UnitRows, class_of: &[u32], available: [u64; 2], options: &VerificationOptions) -> Curve {
    const PART: u64 = 1 << 16;
    let wanted = options.sampled_pairs.max(1);
    let inside: Vec<u64> = rows
        .classes()
        .iter()
        .scan(0, |sum, class| {
            let size = class.rows.len() as u64;
            *sum += size * (size - 1) / 2;
            Some(*sum)
        })
        .collect();
    // The pair with a number below `available[0]`, counted class by class.
    let same_pair = |number: u64| {
        let class = inside.partition_point(|&end| end <= number);
        let before = if class == 0 { 0 } else { inside[class - 1] };
        let members = rows.classes()[class].rows.clone();
        let (i, j) = pair(number - before);
        (members.start + i, members.start + j)
    };
    let similarity = |(i, j): (usize, usize)| single_dot(rows.row(i), rows.row(j));
    let drawn =
        |kind: u64, draw: &(dyn Fn(&mut crate::random::Xoshiro256PlusPlus) -> (usize, usize) + Sync)| -> Vec<f32> {
            let parts = wanted.div_ceil(PART);
            (0..parts)
                .into_par_iter()
                .flat_map_iter(|part| {
                    let mut random = stream(options.seed, &[purpose::PAIRS, kind, part]);
                    (0..PART.min(wanted - part * PART)).map(move |_| similarity(draw(&mut random)))
                })
                .collect()
        };
    let same = if available[0] <= wanted {
        (0..available[0])
            .into_par_iter()
            .map(|number| similarity(same_pair(number)))
            .collect()
    } else {
        drawn(0, &|random| same_pair(random.random_range(0..available[0])))
    };
    let len = rows.len();
    let different = if available[1] <= wanted {
        (0..len)
            .into_par_iter()
            .flat_map_iter(|i| {
                let end = rows.classes()[class_of[i] as usize].rows.end;
                (end..len).map(move |j| similarity((i, j)))
            })
            .collect()
    } else if available[1] >= available[0] {
        drawn(1, &|random| {
            loop {
                let (i, j) = (random.random_range(0..len), random.random_range(0..len));
                if class_of[i] != class_of[j] {
                    return (i, j);
                }
            }
        })
    } else {
        // Pairs of two classes are rare: drawn by the first row's number of partners instead of by trial.
        let partners: Vec<u64> = (0..len)
            .scan(0, |sum, i| {
                *sum += (len - rows.classes()[class_of[i] as usize].rows.end) as u64;
                Some(*sum)
            })
            .collect();
        drawn(1, &|random| {
            let number = random.random_range(0..available[1]);
            let i = partners.partition_point(|&end| end <= number);
            let before = if i == 0 { 0 } else { partners[i - 1] };
            (
                i,
                rows.classes()[class_of[i] as usize].rows.end + (number - before) as usize,
            )
        })
    };
    Curve::of_lists(same, different)
}

/// The pair `i < j` with a number, counted (0,1), (0,2), (1,2), (0,3), …
fn pair(number: u64) -> (usize, usize) {
    let mut j = ((1.0 + (1.0 + 8.0 * number as f64).sqrt()) / 2.0) as u64;
    // The root is right up to rounding.
    while j * (j - 1) / 2 > number {
        j -= 1;
    }
    while j * (j + 1) / 2 <= number {
        j += 1;
    }
    ((number - j * (j - 1) / 2) as usize, j as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::testing::{lattice_set, random_set, scattered_duplicates};

    #[derive(serde::Deserialize)]
    struct Golden {
        rates: Vec<f64>,
        cases: Vec<Case>,
    }

    #[derive(serde::Deserialize)]
    struct Case {
        similarities: Vec<f32>,
        same: Vec<u8>,
        auc: f64,
        eer: f64,
        tar_at_far: Vec<f64>,
    }

    /// Numbers of scikit-learn, written by tools/golden/verification.py.
    #[test]
    fn few_pairs_are_compared_in_double_precision_and_multiples_are_ties() {
        // Integer vectors: many cosines are equal, and in single precision not all of them are.
        let values: Vec<f32> = (0..60 * 3).map(|at| ((at * 7 + at / 5) % 5) as f32 - 1.5).collect();
        let mut set = EmbeddingSet {
            dim: 3,
            labels: (0..60).map(|row| row % 7).collect(),
            ids: vec![String::new(); 60],
            values,
        };
        for row in 0..30 {
            // Exact multiples of other rows.
            for column in 0..3 {
                set.values[(row + 30) * 3 + column] = 3.0 * set.values[row * 3 + column];
            }
        }
        let (mut area, mut pairs) = (0.0, 0.0);
        let exact = |i: usize, j: usize| {
            let of = |i: usize, j: usize| (0..3).map(|c| f64::from(set.row(i)[c] * set.row(j)[c])).sum::<f64>();
            of(i, j) / (of(i, i) * of(j, j)).sqrt()
        };
        let all: Vec<(f64, bool)> = (0..60)
            .flat_map(|i| (i + 1..60).map(move |j| (i, j)))
            .map(|(i, j)| (exact(i, j), set.labels[i] == set.labels[j]))
            .collect();
        for (one, _) in all.iter().filter(|pair| pair.1) {
            for (other, _) in all.iter().filter(|pair| !pair.1) {
                area += if (one - other).abs() < 1e-12 {
                    0.5
                } else {
                    f64::from(u8::from(one > other))
                };
                pairs += 1.0;
            }
        }
        let found = verification_of_few(&[&set], &VerificationOptions::default()).unwrap();
        assert!(
            (found.auc - area / pairs).abs() < 1e-12,
            "{} {}",
            found.auc,
            area / pairs
        );
        let part = |rows: std::ops::Range<usize>| EmbeddingSet {
            dim: 3,
            values: set.values[rows.start * 3..rows.end * 3].to_vec(),
            labels: set.labels[rows.clone()].to_vec(),
            ids: set.ids[rows].to_vec(),
        };
        let (first, second) = (part(0..25), part(25..60));
        let parts = verification_of_few(&[&first, &second], &VerificationOptions::default()).unwrap();
        assert_eq!(parts, found);
        // Without ties both precisions agree but for rounding.
        let set = random_set(3, 80, 16, 6);
        let few = verification_of_few(&[&set], &VerificationOptions::default()).unwrap();
        let many = verification(&UnitRows::new(&set, "query").unwrap(), &VerificationOptions::default()).unwrap();
        assert!((few.auc - many.auc).abs() < 1e-5 && (few.eer - many.eer).abs() < 1e-2);
    }

    #[test]
    fn curves_equal_scikit_learn() {
        let golden: Golden = serde_json::from_str(include_str!("golden/verification.json")).unwrap();
        assert!(golden.cases.len() > 8);
        for (number, case) in golden.cases.iter().enumerate() {
            let same: Vec<bool> = case.same.iter().map(|&same| same == 1).collect();
            let found = verification_of_pairs(&case.similarities, &same, &golden.rates).unwrap();
            assert!(
                (found.auc - case.auc).abs() < 1e-9,
                "case {number}: {} {}",
                found.auc,
                case.auc
            );
            assert!(
                (found.eer - case.eer).abs() < 1e-9,
                "case {number}: {} {}",
                found.eer,
                case.eer
            );
            for ((_, ours), theirs) in found.tar_at_far.iter().zip(&case.tar_at_far) {
                assert!((ours - theirs).abs() < 1e-9, "case {number}: {ours} {theirs}");
            }
            assert!((found.fnmr_at_fmr()[0].1 + case.tar_at_far[0] - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn all_pairs_equal_the_pairs_one_by_one() {
        for set in [
            random_set(1, 700, 9, 40),
            random_set(2, 300, 9, 2),
            lattice_set(3, 400, 6, 5),
            scattered_duplicates(4, 200, 7),
        ] {
            let rows = UnitRows::new(&set, "query").unwrap();
            let mut scores = Vec::new();
            similarities(&rows, 0..rows.padded_len(), &rows, 0..rows.padded_len(), &mut scores);
            let classes = class_of(&rows);
            let (mut pairs, mut same) = (Vec::new(), Vec::new());
            for i in 0..rows.len() {
                for j in i + 1..rows.len() {
                    pairs.push(scores[i * rows.padded_len() + j]);
                    same.push(classes[i] == classes[j]);
                }
            }
            let options = VerificationOptions::default();
            let expected = verification_of_pairs(&pairs, &same, &options.false_accept_rates).unwrap();
            let found = verification(&rows, &options).unwrap();
            assert_eq!(found, expected);
            // Counted both ways round.
            assert_eq!(
                all_pairs(&rows, &classes, true).read(&[0.1], false),
                all_pairs(&rows, &classes, false).read(&[0.1], false)
            );
            let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            assert_eq!(alone.install(|| verification(&rows, &options)).unwrap(), found);
        }
    }

    #[test]
    fn a_sample_is_near_and_seeded() {
        // Many classes, two classes (same pairs prevail), and one large class beside lone rows (different pairs rare to guess).
        let mut uneven = random_set(8, 600, 6, 3);
        uneven
            .labels
            .iter_mut()
            .enumerate()
            .for_each(|(row, label)| *label = if row < 5 { row as u32 } else { 9 });
        for set in [random_set(5, 900, 6, 30), random_set(6, 500, 6, 2), uneven] {
            let rows = UnitRows::new(&set, "query").unwrap();
            let exact = verification(&rows, &VerificationOptions::default()).unwrap();
            let options = VerificationOptions {
                all_pairs: 1000,
                sampled_pairs: 100_000,
                ..VerificationOptions::default()
            };
            let found = verification(&rows, &options).unwrap();
            assert!(found.sampled && !exact.sampled);
            assert!(found.same_pairs <= 100_000 && found.different_pairs <= 100_000);
            assert!((found.auc - exact.auc).abs() < 0.01, "{} {}", found.auc, exact.auc);
            assert!((found.eer - exact.eer).abs() < 0.01, "{} {}", found.eer, exact.eer);
            assert_eq!(verification(&rows, &options).unwrap(), found);
            let few = VerificationOptions {
                sampled_pairs: 2000,
                ..options.clone()
            };
            let other = VerificationOptions { seed: 1, ..few.clone() };
            assert_ne!(verification(&rows, &few).unwrap(), verification(&rows, &other).unwrap());
            let everything = VerificationOptions {
                sampled_pairs: 10_000_000,
                ..options
            };
            assert!((verification(&rows, &everything).unwrap().auc - exact.auc).abs() < 1e-5);
        }
    }

    #[test]
    fn numbers_name_every_pair_once() {
        let mut number = 0;
        for j in 1..50 {
            for i in 0..j {
                assert_eq!(pair(number), (i, j));
                number += 1;
            }
        }
        let j = 4_000_000_000_u64;
        assert_eq!(pair(j * (j - 1) / 2 + 17), (17, j as usize));
        assert_eq!(pair(j * (j - 1) / 2 - 1), (j as usize - 2, j as usize - 1));
    }

    #[test]
    fn what_cannot_be_verified_is_refused() {
        let message =
            |scores: &[f32], same: &[bool], rate| verification_of_pairs(scores, same, &[rate]).unwrap_err().to_string();
        assert!(message(&[0.1], &[true], 0.1).contains("there are 1 and 0"));
        assert!(message(&[0.1, f32::NAN], &[true, false], 0.1).contains("pair 1 is NaN"));
        assert!(message(&[0.1, 0.2], &[true], 0.1).contains("2 similarities and 1"));
        assert!(message(&[0.1, 0.2], &[true, false], 1.5).contains("1.5"));
        let set = random_set(1, 10, 3, 1);
        let rows = UnitRows::new(&set, "query").unwrap();
        assert!(
            verification(&rows, &VerificationOptions::default())
                .unwrap_err()
                .to_string()
                .contains("45 and 0")
        );
    }
}
