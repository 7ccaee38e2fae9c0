//! Ranking of real members in the order of a teacher that never saw the labels: the structure a supervised loss destroys
//! is held against the structure the untouched network still has.

use gradus_core::random::{self, SliceRandom, purpose};
use serde::{Deserialize, Serialize};

use super::arithmetic::{constant, indices, ones_where, rows_by_label};
use super::mixtures::Mixtures;
use super::synthesis::stream_of;
use crate::numerics::{cosine_matrix, log_one_plus_sum_exp};
use crate::tensor::{Bool, Int, Tensor, TensorData, activation};

/// What is held against the teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MembersMode {
    /// The order of every pair of members of the class.
    #[default]
    Pairwise,
    /// The distribution of similarities over the members of the class.
    Listwise,
    /// The distribution of similarities over the whole batch, whatever the class.
    All,
    /// The linear correlation of the similarities over the members of the class: their order and proportions, not their size, so
    /// that a class may still be drawn together.
    Correlation,
}

/// Where members are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MembersSpace {
    /// In the embedding, where neighbours are looked for.
    #[default]
    Embedding,
    /// In the pooled features that the head embeds: the head stays free to forget what the base loss does not want.
    Features,
    /// Three quarters of the trunk's blocks up, averaged over places.
    Middle,
}

impl MembersSpace {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Features => "features",
            Self::Middle => "middle",
        }
    }
}

/// Ranking of members; section `[intra-class.members]`.
///
/// With `s` the cosines of the model and `t` those of the teacher, seen from sample i:
/// - `pairwise`: over pairs with `t_p > t_q`, `v_pq = s_q - s_p + margin_scale (t_p - t_q)`,
///   `L(i) = 1/scale * log(1 + sum exp(scale * v_pq))`;
/// - `listwise` and `all`: `L(i) = KL(softmax(t / T) || softmax(s / T))`, over the other members of the class or over
///   the whole rest of the batch;
/// - `correlation`: `L(i) = 1 - cov(s, t) / sqrt((var(s) + 1e-6) (var(t) + 1e-6))` over the other members of the class (Pearson's
///   correlation, as between teacher and student in Huang et al., Knowledge Distillation from a Stronger Teacher, NeurIPS 2022).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MembersConfig {
    /// What is held against the teacher. Default `pairwise`.
    pub mode: MembersMode,
    /// Where they are ranked. Default `embedding`; the others are for trunks that are trained.
    pub space: MembersSpace,
    /// How much of the teacher's gap is asked for. Default 1, ours: the whole of it.
    pub margin_scale: f64,
    /// Temperature `T` of the softmaxes. Default 0.1, ours.
    pub temperature: f64,
    /// Samples generated in each class of the batch, ranked beside its other members: `sum_k w_k x_k / |x_k|` over the members of the class
    /// for the model, the same `w` over their teacher rows for the teacher, `w` drawn from the flat Dirichlet distribution. Default 0.
    pub mixtures: usize,
}

impl Default for MembersConfig {
    fn default() -> Self {
        Self {
            mode: MembersMode::Pairwise,
            space: MembersSpace::Embedding,
            margin_scale: 1.0,
            temperature: 0.1,
            mixtures: 0,
        }
    }
}

/// Loss and quality of every row.
#[derive(Debug)]
pub(super) struct MembersRows {
    /// `[b, 1]`, zero where there is nothing to rank.
    pub(super) loss: Tensor<2>,
    /// 1 for rows with at least two members to rank, on the host: known from the labels alone.
    pub(super) eligible: Vec<bool>,
    /// Number of pairs the teacher orders, of those in the wrong order, and of those meeting their margin, each `[b, 1]` and
    /// outside autodiff. `None` for `all`, where the cube of pairs would cost more than the loss.
    pub(super) counts: Option<[Tensor<2>; 3]>,
}

/// Whom each row is compared with, in the batch and, numbered on from there, among mixtures: lists of equal length, filled up with the
/// row itself under a mask.
struct Partners {
    index: Tensor<2, Int>,
    /// The same lists, in an order of its own where intensities are shuffled.
    teacher_index: Tensor<2, Int>,
    present: Tensor<2, Bool>,
    eligible: Vec<bool>,
}

fn partners(
    mode: MembersMode,
    labels: &[u32],
    mixtures: &[u32],
    shuffled: bool,
    seed: u64,
    like: &Tensor<2>,
) -> Partners {
    let rows = labels.len();
    let classes = rows_by_label(&[labels, mixtures].concat());
    let width = match mode {
        MembersMode::All => rows,
        MembersMode::Pairwise | MembersMode::Listwise | MembersMode::Correlation => {
            classes.values().map(Vec::len).max().unwrap_or(0)
        }
    };
    let width = width.saturating_sub(1).max(1);
    let everyone: Vec<usize> = (0..rows).collect();
    let mut index = Vec::with_capacity(rows * width);
    let mut teacher_index = Vec::with_capacity(rows * width);
    let mut present = Vec::with_capacity(rows * width);
    let mut eligible = Vec::with_capacity(rows);
    for (row, label) in labels.iter().enumerate() {
        let candidates = match mode {
            MembersMode::All => &everyone,
            MembersMode::Pairwise | MembersMode::Listwise | MembersMode::Correlation => {
                classes.get(label).unwrap_or(&everyone)
            }
        };
        let others: Vec<usize> = candidates.iter().copied().filter(|&other| other != row).collect();
        let mut dealt = others.clone();
        if shuffled {
            dealt.shuffle(&mut random::stream(
                seed,
                &[purpose::SYNTHESIS, stream_of::LABELS, row as u64],
            ));
        }
        // With a single member there is no order and the softmaxes are both 1.
        eligible.push(others.len() >= 2);
        let padding = width - others.len();
        present.extend((0..width).map(|column| if column < others.len() { 1.0f64 } else { 0.0 }));
        index.extend(others.into_iter().chain(std::iter::repeat_n(row, padding)));
        teacher_index.extend(dealt.into_iter().chain(std::iter::repeat_n(row, padding)));
    }
    Partners {
        index: indices(index, [rows, width], like),
        teacher_index: indices(teacher_index, [rows, width], like),
        present: constant::<2, 2>(TensorData::new(present, [rows, width]), like).greater_elem(0.5),
        eligible,
    }
}

impl MembersConfig {
    /// Loss and quality of every row of a batch.
    ///
    /// # Shapes
    /// `student` (embeddings, or what `space` names) `[b, d]`, `teacher` `[b, t]`, `labels` `b`.
    pub(super) fn rows(
        &self,
        student: Tensor<2>,
        teacher: &Tensor<2>,
        labels: &[u32],
        scale: f64,
        shuffled: bool,
        seed: u64,
    ) -> MembersRows {
        let mixtures = Mixtures::of(labels, self.mixtures, seed);
        let partners = partners(self.mode, labels, &mixtures.labels, shuffled, seed, &student);
        let teacher = teacher.clone().without_autodiff().cast(student.dtype());
        let gathered =
            |x: Tensor<2>, index: Tensor<2, Int>| cosine_matrix(x.clone(), mixtures.below(x)).gather(1, index);
        let student = gathered(student, partners.index);
        let teacher = gathered(teacher, partners.teacher_index);
        let eligible = partners.eligible;
        let pairs = (self.mode != MembersMode::All).then(|| Pairs::of(&student, &teacher, &partners.present));
        let counts = pairs.as_ref().map(|pairs| pairs.counts(self.margin_scale));
        let loss = match (self.mode, pairs) {
            (MembersMode::Pairwise, Some(pairs)) => {
                let violation = (pairs.margin.mul_scalar(self.margin_scale) - pairs.gap).mul_scalar(scale);
                log_one_plus_sum_exp(violation, Some(pairs.ordered)).mul_scalar(1.0 / scale)
            }
            (MembersMode::Correlation, _) => uncorrelated(student, teacher, partners.present),
            _ => self.divergence(student, teacher, partners.present),
        };
        MembersRows { loss, eligible, counts }
    }

    /// `KL(softmax(t / T) || softmax(s / T))` of every row over the present columns.
    fn divergence(&self, student: Tensor<2>, teacher: Tensor<2>, present: Tensor<2, Bool>) -> Tensor<2> {
        let absent = present.bool_not();
        // A large negative number instead of minus infinity: differences of logarithms stay finite under the mask.
        let log_softmax = |x: Tensor<2>| {
            activation::log_softmax(x.mul_scalar(1.0 / self.temperature).mask_fill(absent.clone(), -1e30), 1)
        };
        let teacher = log_softmax(teacher);
        let difference = (teacher.clone() - log_softmax(student)).mask_fill(absent.clone(), 0.0);
        (teacher.exp() * difference).sum_dim(1)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if !(self.margin_scale.is_finite() && self.margin_scale >= 0.0) {
            return Err(format!(
                "intra-class.members.margin-scale is {}: expected a number of at least 0",
                self.margin_scale
            ));
        }
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return Err(format!(
                "intra-class.members.temperature is {}: expected a positive number",
                self.temperature
            ));
        }
        if self.mixtures > 0 && self.mode == MembersMode::All {
            return Err(format!(
                "intra-class.members.mixtures is {} but intra-class.members.mode is \"all\", which compares a batch with itself whatever \
                 the class; set mixtures = 0, or another mode",
                self.mixtures
            ));
        }
        Ok(())
    }
}

/// Every ordered pair of partners of every row, `[n, k * k]`.
struct Pairs {
    /// How much more alike the first is than the second, to the model.
    gap: Tensor<2>,
    /// The same to the teacher.
    margin: Tensor<2>,
    /// Where there are both, and the teacher finds the first one nearer.
    ordered: Tensor<2, Bool>,
}

impl Pairs {
    /// From similarities `[n, k]` with the partners that are `present`.
    fn of(student: &Tensor<2>, teacher: &Tensor<2>, present: &Tensor<2, Bool>) -> Self {
        let [rows, width] = student.dims();
        let differences = |x: &Tensor<2>| {
            let gaps = x.clone().unsqueeze_dim::<3>(2) - x.clone().unsqueeze_dim::<3>(1);
            gaps.reshape([rows, width * width])
        };
        let both = present.clone().unsqueeze_dim::<3>(2).expand([rows, width, width]);
        let both = both.bool_and(present.clone().unsqueeze_dim::<3>(1).expand([rows, width, width]));
        let margin = differences(teacher);
        let ordered = both
            .reshape([rows, width * width])
            .bool_and(margin.clone().greater_elem(0.0));
        Self {
            gap: differences(student),
            margin,
            ordered,
        }
    }

    /// Of every row the pairs, those in the wrong order, and those whose gap is at least `margin_scale` of the teacher's, `[n, 1]`.
    fn counts(&self, margin_scale: f64) -> [Tensor<2>; 3] {
        let gap = self.gap.clone().without_autodiff();
        let count = |mask: Tensor<2, Bool>| ones_where(mask.bool_and(self.ordered.clone()), &gap).sum_dim(1);
        let wrong = gap.clone().lower_equal_elem(0.0);
        let met = (gap.clone() - self.margin.clone().mul_scalar(margin_scale)).greater_equal_elem(0.0);
        [count(self.ordered.clone()), count(wrong), count(met)]
    }
}

/// Added to a variance of similarities, so that a class in one point has a finite gradient.
const VARIANCE_FLOOR: f64 = 1e-6;

/// One minus Pearson's correlation of every row over the present columns, `[n, 1]`; zero where there are fewer than two.
fn uncorrelated(student: Tensor<2>, teacher: Tensor<2>, present: Tensor<2, Bool>) -> Tensor<2> {
    let mask = ones_where(present, &student.clone().without_autodiff());
    let count = mask.clone().sum_dim(1);
    let some = ones_where(count.clone().greater_elem(1.5), &count);
    let count = count.clamp_min(1.0);
    let centred = |x: Tensor<2>| {
        let mean = (x.clone() * mask.clone()).sum_dim(1) / count.clone();
        (x - mean) * mask.clone()
    };
    let (student, teacher) = (centred(student), centred(teacher));
    let deviation = |x: Tensor<2>| ((x.square().sum_dim(1) / count.clone()).add_scalar(VARIANCE_FLOOR)).sqrt();
    let covariance = (student.clone() * teacher.clone()).sum_dim(1) / count.clone();
    let correlation = covariance / (deviation(student) * deviation(teacher));
    (correlation.neg().add_scalar(1.0)) * some
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    const LABELS: [u32; 9] = [4, 4, 9, 4, 9, 4, 7, 9, 1];

    fn tensor(width: usize, seed: u64) -> (Tensor<2>, Vec<Vec<f64>>) {
        use gradus_core::random::Rng;
        let mut stream = random::stream(seed, &[]);
        let mut rows = Vec::new();
        let mut values = Vec::new();
        for _ in 0..LABELS.len() {
            let row: Vec<f32> = (0..width).map(|_| stream.random::<f32>() - 0.3).collect();
            let norm = row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>().sqrt();
            rows.push(row.iter().map(|&v| f64::from(v) / norm).collect());
            values.extend(row);
        }
        (
            Tensor::from_data(TensorData::new(values, [LABELS.len(), width]), &Device::flex()),
            rows,
        )
    }

    fn cosine(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    /// The definitions, in plain loops.
    fn oracle(config: &MembersConfig, s: &[Vec<f64>], t: &[Vec<f64>], scale: f64) -> Vec<f64> {
        (0..LABELS.len())
            .map(|i| {
                let others: Vec<usize> = (0..LABELS.len())
                    .filter(|&j| j != i && (config.mode == MembersMode::All || LABELS[j] == LABELS[i]))
                    .collect();
                let mine: Vec<f64> = others.iter().map(|&j| cosine(&s[i], &s[j])).collect();
                let theirs: Vec<f64> = others.iter().map(|&j| cosine(&t[i], &t[j])).collect();
                if config.mode == MembersMode::Pairwise {
                    let mut sum = 1.0;
                    for p in 0..others.len() {
                        for q in 0..others.len() {
                            if theirs[p] > theirs[q] {
                                let margin = config.margin_scale * (theirs[p] - theirs[q]);
                                sum += (scale * (mine[q] - mine[p] + margin)).exp();
                            }
                        }
                    }
                    sum.ln() / scale
                } else if config.mode == MembersMode::Correlation {
                    if others.len() < 2 {
                        return 0.0;
                    }
                    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
                    let (a, b) = (mean(&mine), mean(&theirs));
                    let products = mine.iter().zip(&theirs).map(|(m, h)| (m - a) * (h - b)).sum::<f64>();
                    let variance = |x: &[f64], mean: f64| {
                        x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / x.len() as f64 + VARIANCE_FLOOR
                    };
                    1.0 - products / others.len() as f64 / (variance(&mine, a) * variance(&theirs, b)).sqrt()
                } else {
                    let total = |x: &[f64]| x.iter().map(|v| (v / config.temperature).exp()).sum::<f64>();
                    let (mine_total, theirs_total) = (total(&mine), total(&theirs));
                    mine.iter()
                        .zip(&theirs)
                        .map(|(m, h)| {
                            let p = (h / config.temperature).exp() / theirs_total;
                            let q = (m / config.temperature).exp() / mine_total;
                            p * (p / q).ln()
                        })
                        .sum()
                }
            })
            .collect()
    }

    #[test]
    fn equals_plain_loops_in_every_mode() {
        let (x, s) = tensor(4, 1);
        let (teacher, t) = tensor(6, 2);
        for mode in [
            MembersMode::Pairwise,
            MembersMode::Listwise,
            MembersMode::All,
            MembersMode::Correlation,
        ] {
            for (margin_scale, temperature, scale) in [(1.0, 0.1, 32.0), (0.0, 0.5, 5.0), (0.5, 1.0, 12.0)] {
                let config = MembersConfig {
                    mode,
                    margin_scale,
                    temperature,
                    ..MembersConfig::default()
                };
                let rows = config.rows(x.clone(), &teacher, &LABELS, scale, false, 0);
                let got = rows.loss.try_into_vec_as::<f64>().unwrap();
                for (i, (got, expected)) in got.iter().zip(oracle(&config, &s, &t, scale)).enumerate() {
                    assert!(
                        (got - expected).abs() < 2e-5 * expected.max(1.0),
                        "{config:?} row {i}: {got}, not {expected}"
                    );
                }
                let eligible: Vec<bool> = if mode == MembersMode::All {
                    vec![true; 9]
                } else {
                    LABELS.iter().map(|&label| label == 4 || label == 9).collect()
                };
                assert_eq!(rows.eligible, eligible);
            }
        }
    }

    #[test]
    fn mixtures_count_as_further_members() {
        let (x, _) = tensor(4, 1);
        let (teacher, _) = tensor(6, 2);
        let mixtures = Mixtures::of(&LABELS, 3, 5);
        let labels = [&LABELS[..], &mixtures.labels].concat();
        // The same rows handed in as real members; those of the batch come first.
        let (all, all_teacher) = (mixtures.below(x.clone()), mixtures.below(teacher.clone()));
        for mode in [MembersMode::Pairwise, MembersMode::Listwise, MembersMode::Correlation] {
            let config = MembersConfig {
                mode,
                ..MembersConfig::default()
            };
            let plain = config.rows(all.clone(), &all_teacher, &labels, 32.0, false, 5);
            let expected = plain.loss.try_into_vec_as::<f64>().unwrap();
            let mixing = MembersConfig { mixtures: 3, ..config };
            let rows = mixing.rows(x.clone(), &teacher, &LABELS, 32.0, false, 5);
            let got = rows.loss.try_into_vec_as::<f64>().unwrap();
            for (row, (got, expected)) in got.iter().zip(&expected).enumerate() {
                assert!(
                    (got - expected).abs() < 1e-5,
                    "{mode:?} row {row}: {got}, not {expected}"
                );
            }
            assert_eq!(rows.eligible, plain.eligible[..LABELS.len()]);
        }
        let all = MembersConfig {
            mode: MembersMode::All,
            mixtures: 3,
            ..MembersConfig::default()
        };
        assert!(
            all.validate()
                .unwrap_err()
                .contains("intra-class.members.mixtures is 3")
        );
    }

    #[test]
    fn a_student_that_equals_its_teacher_is_in_order() {
        let (x, _) = tensor(4, 1);
        let labels = &LABELS[..];
        for mode in [MembersMode::Listwise, MembersMode::All] {
            let config = MembersConfig {
                mode,
                ..Default::default()
            };
            let loss = config
                .rows(x.clone(), &x, labels, 32.0, false, 0)
                .loss
                .try_into_vec_as::<f64>()
                .unwrap();
            assert!(loss.iter().all(|value| value.abs() < 1e-6), "{loss:?}");
        }
        let [ordered, wrong, met] = MembersConfig {
            margin_scale: 0.999,
            ..Default::default()
        }
        .rows(x.clone(), &x, labels, 32.0, false, 0)
        .counts
        .unwrap()
        .map(|count| count.try_into_vec_as::<f64>().unwrap());
        // Three others give three ordered pairs, two others one.
        assert_eq!(ordered, [3.0, 3.0, 1.0, 3.0, 1.0, 3.0, 0.0, 1.0, 0.0]);
        assert_eq!(wrong, [0.0; 9]);
        assert_eq!(met, ordered);
    }

    #[test]
    fn shuffling_deals_the_teachers_values_to_wrong_partners() {
        let (x, _) = tensor(4, 1);
        let config = MembersConfig::default();
        let total = |shuffled, seed| {
            let rows = config.rows(x.clone(), &x, &LABELS, 32.0, shuffled, seed);
            let [_, wrong, _] = rows.counts.unwrap();
            wrong.sum().try_into_scalar::<f64>().unwrap()
        };
        assert_eq!(total(false, 5), 0.0);
        assert!((1..9).map(|seed| total(true, seed)).sum::<f64>() > 10.0);
        assert_eq!(total(true, 3), total(true, 3));
    }

    #[test]
    fn extremes_stay_finite() {
        let device = Device::flex();
        let same = Tensor::<2>::from_data([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], &device);
        for mode in [
            MembersMode::Pairwise,
            MembersMode::Listwise,
            MembersMode::All,
            MembersMode::Correlation,
        ] {
            let config = MembersConfig {
                mode,
                temperature: 1e-3,
                ..Default::default()
            };
            for labels in [[0, 0, 0, 0], [0, 1, 2, 3]] {
                let x = same.clone().autodiff().require_grad();
                let rows = config.rows(x.clone(), &same, &labels, 32.0, false, 0);
                let gradients = rows.loss.clone().sum().backward();
                let loss = rows.loss.try_into_vec_as::<f64>().unwrap();
                let gradient = x.grad(&gradients).unwrap().try_into_vec_as::<f64>().unwrap();
                assert!(
                    loss.iter().chain(&gradient).all(|value| value.is_finite()),
                    "{mode:?} {loss:?} {gradient:?}"
                );
            }
        }
    }
}
