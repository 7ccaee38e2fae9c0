//! The module a trainer calls: gate, source of ranked items, projector, losses and their sum.

use gradus_core::random::{self, SliceRandom, purpose};

use super::arithmetic::{constant, indices, normalize_last, ones_where, rows_by_label};
use super::config::{Aggregate, BaseOn, IntraClassConfig, Source};
use super::members::MembersSpace;
use super::projector::Projector;
use super::statistics::ClassStatistics;
use super::synthesis::{
    Directions, GeneratorConfig, Sources, class_covariance, difference_transfer, displacements, gaussian,
    learned_directions, positive_interpolation, stream_of,
};
use crate::batch::EmbeddingBatch;
use crate::numerics::normalize;
use crate::tensor::{Device, Module, Param, Tensor, TensorData};

/// The intra-class part of a training step, with its parameters.
///
/// Parameter paths: `projector.weight`, `projector.bias`, `directions`.
#[derive(Module, Debug)]
pub struct IntraClass {
    /// The projector `q`, where one is used.
    pub projector: Option<Projector>,
    /// Trainable directions `[levels, dim]`, with the generator `learned-directions`.
    pub directions: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: IntraClassConfig,
}

/// What a step hands in.
#[derive(Debug)]
pub struct IntraClassInput<'a> {
    /// Embeddings `x` of unit norm `[b, d]`, with labels.
    pub batch: &'a EmbeddingBatch,
    /// Proxies of the base loss `[classes, d]`, of any norm; without any, the class means of the batch stand in.
    pub proxies: Option<Tensor<2>>,
    /// What [`MembersSpace`] names instead of the embeddings, `[b, features]`, tracked. Needed with
    /// [`IntraClassConfig::ranked_space`].
    pub ranked: Option<Tensor<2>>,
    /// Teacher features of the same augmented images `[b, t]`, of any norm; no gradient flows into them. Needed with
    /// [`IntraClassConfig::needs_teacher`].
    pub teacher: Option<Tensor<2>>,
    /// Re-embedded graded augmentations `[b, levels, d]`, weakest first, tracked. Needed with
    /// [`IntraClassConfig::graded_levels`].
    pub graded: Option<Tensor<3>>,
    /// Class statistics, with [`IntraClassConfig::needs_statistics`]; before the first ones nothing is generated.
    pub statistics: Option<&'a ClassStatistics>,
    /// The share of the run that is done, 0 to 1: what [`WeightSchedule`](super::WeightSchedule) goes by.
    pub progress: f64,
    /// Derived from (seed, epoch, step): everything random in the step is a function of it.
    pub seed: u64,
}

/// What a step gets back.
#[derive(Debug)]
pub struct IntraClassOutput {
    /// The weighted sum to add to the base loss, `[1]`; finite and tracked even when no sample is selected.
    pub loss: Tensor<1>,
    /// What happened.
    pub report: IntraClassReport,
}

/// What happened in a step. Tensors are `[1]`, outside autodiff, and stay on the device until asked for.
#[derive(Debug, Clone)]
pub struct IntraClassReport {
    /// Number of samples used: past the gate, and with something to rank.
    pub selected: Tensor<1>,
    /// Number of samples in the batch.
    pub batch: usize,
    /// Aggregated ranking loss, before weighting.
    pub ranking: Tensor<1>,
    /// Aggregated anchor loss, before weighting.
    pub anchor: Tensor<1>,
    /// Share of the ranked pairs of selected samples in the wrong order, ties included.
    pub misordered: Option<Tensor<1>>,
    /// Share of the ranked pairs of selected samples meeting their margin.
    pub margin_met: Option<Tensor<1>>,
}

impl IntraClassReport {
    /// The numbers, read back to the host: `selected` (a share of the batch), `ranking`, `anchor`, and where pairs are counted
    /// `misordered` and `margin-met`. What cannot be read is left out.
    #[must_use]
    pub fn values(&self) -> Vec<(&'static str, f64)> {
        let read = |x: &Tensor<1>| x.clone().try_into_scalar::<f64>().ok();
        let selected = read(&self.selected).map(|count| count / self.batch.max(1) as f64);
        let entries = [
            ("selected", selected),
            ("ranking", read(&self.ranking)),
            ("anchor", read(&self.anchor)),
            ("misordered", self.misordered.as_ref().and_then(read)),
            ("margin-met", self.margin_met.as_ref().and_then(read)),
        ];
        entries
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value)))
            .collect()
    }
}

impl IntraClassConfig {
    /// The module of this configuration for embeddings of width `dim`: a function of the seed alone.
    #[must_use]
    pub fn init(&self, dim: usize, seed: u64, device: &Device) -> IntraClass {
        let learned = self.source == Source::Synthetic && self.is_active();
        let directions = matches!(self.generator, GeneratorConfig::LearnedDirections(_)) && learned;
        IntraClass {
            projector: self
                .uses_projector()
                .then(|| Projector::new(dim, self.projector.relu, seed, device)),
            directions: directions.then(|| learned_directions::parameter(self.levels, dim, seed, device)),
            config: self.clone(),
        }
    }
}

impl IntraClass {
    /// The configuration it was made with.
    #[must_use]
    pub fn config(&self) -> &IntraClassConfig {
        &self.config
    }

    /// What the base loss should see: `x`, or `q(x)` with `base-on = "projection"`.
    ///
    /// # Shapes
    /// `x` and result `[b, d]`.
    #[must_use]
    pub fn base_input(&self, x: Tensor<2>) -> Tensor<2> {
        match (self.config.base_on, &self.projector) {
            (BaseOn::Projection, Some(projector)) => projector.forward(x),
            _ => x,
        }
    }

    /// The intra-class loss of a batch.
    ///
    /// # Panics
    /// If the teacher features, the graded augmentations or what is ranked instead of the embeddings are needed and missing or
    /// of a wrong shape, or if a label has no proxy although proxies are given and looked at: all of it is up to the trainer, none to its user.
    #[must_use]
    pub fn forward(&self, input: &IntraClassInput<'_>) -> IntraClassOutput {
        if !self.config.is_active() || input.batch.is_empty() {
            return silent(input);
        }
        match self.config.source {
            Source::None => silent(input),
            Source::Members => self.rank_members(input),
            Source::Synthetic | Source::Augmentations => self.rank_levels(input),
        }
    }

    fn rank_levels(&self, input: &IntraClassInput<'_>) -> IntraClassOutput {
        let config = &self.config;
        let x = input.batch.embeddings.clone();
        let [rows, dim] = x.dims();
        let (items, eligible) = if config.ranks_graded() {
            (graded(input, [rows, config.levels, dim]), None)
        } else {
            self.generate(input)
        };
        let anchored = config.anchor_weight > 0.0;
        let proxies = (anchored || config.gate.needs_proxies()).then(|| own_proxies(input));
        let selected = self.selected(&x, proxies.as_ref(), eligible.as_deref());

        let levels = config.levels;
        let source = self.project(x.clone()).unsqueeze_dim::<3>(1); // [b, 1, d]
        let items = self
            .project(items.reshape([rows * levels, dim]))
            .reshape([rows, levels, dim]);
        let similarities = (items.clone() * source).sum_dim(2).reshape([rows, levels]);
        let similarities = if config.shuffle_intensities {
            dealt_out(similarities, input.seed)
        } else {
            similarities
        };

        let weights = self.row_weights(&selected, input);
        let ranking = (config.ranking.loss(similarities.clone()) * weights.clone()).sum();
        let point =
            (config.point_weight > 0.0).then(|| (config.point.loss(similarities.clone()) * weights.clone()).sum());
        let anchor = proxies.filter(|_| anchored).map(|proxies| {
            let proxies = self.project(proxies);
            // Only rectification after the norm leaves rows that are not of unit norm.
            let unit = self.projector.as_ref().is_none_or(Projector::gives_unit_rows);
            let (items, proxies) = if unit {
                (items, proxies)
            } else {
                (normalize_last(items), normalize(proxies))
            };
            let similarities = (items * proxies.unsqueeze_dim::<3>(1))
                .sum_dim(2)
                .reshape([rows, levels]);
            let weights = if config.anchor.last_of_class {
                self.row_weights(&last_of_class(&selected, &input.batch.labels), input)
            } else {
                weights
            };
            (config.anchor.loss(similarities) * weights).sum()
        });

        let (misordered, margin_met) = config.ranking.quality(&similarities);
        let count = selected.clone().sum();
        let share = |rows: Tensor<2>| Some((rows * selected.clone()).sum() / count.clone().clamp_min(1.0));
        let (misordered, margin_met) = (share(misordered), share(margin_met));
        let mut output = self.output(input, ranking, anchor, count, misordered, margin_met);
        if let Some(point) = point {
            output.loss = output.loss + point.mul_scalar(config.weight_at(input.progress) * config.point_weight);
        }
        output
    }

    fn rank_members(&self, input: &IntraClassInput<'_>) -> IntraClassOutput {
        let config = &self.config;
        let x = input.batch.embeddings.clone();
        let [rows, _] = x.dims();
        let teacher = input
            .teacher
            .as_ref()
            .expect("the source `members` needs teacher features in every step");
        let [given, _] = teacher.dims();
        assert_eq!(given, rows, "{given} rows of teacher features for a batch of {rows}");
        let labels = &input.batch.labels;
        let student = match config.ranked_space() {
            MembersSpace::Embedding => x.clone(),
            space => input
                .ranked
                .clone()
                .unwrap_or_else(|| panic!("members are ranked in the {} in every step", space.name())),
        };
        let ranked = config.members.rows(
            student,
            teacher,
            labels,
            config.ranking.scale,
            config.shuffle_intensities,
            input.seed,
        );
        let proxies = config.gate.needs_proxies().then(|| own_proxies(input));
        let selected = self.selected(&x, proxies.as_ref(), Some(&ranked.eligible));
        let ranking = (ranked.loss * self.row_weights(&selected, input)).sum();
        let (misordered, margin_met) = match ranked.counts {
            Some([ordered, wrong, met]) => {
                let total = |rows: Tensor<2>| (rows * selected.clone()).sum();
                let ordered = total(ordered).clamp_min(1.0);
                (Some(total(wrong) / ordered.clone()), Some(total(met) / ordered))
            }
            None => (None, None),
        };
        let count = selected.sum();
        self.output(input, ranking, None, count, misordered, margin_met)
    }

    /// Generated samples `[b, levels, d]`, and the rows that anything could be generated for.
    fn generate(&self, input: &IntraClassInput<'_>) -> (Tensor<3>, Option<Vec<bool>>) {
        let x = input.batch.embeddings.clone();
        let outside = x.clone().without_autodiff();
        let sources = Sources {
            embeddings: &outside,
            labels: &input.batch.labels,
            levels: self.config.levels,
            step: self.config.step,
            statistics: input.statistics,
            seed: input.seed,
        };
        let directions: Directions = match (&self.config.generator, &self.directions) {
            (GeneratorConfig::LearnedDirections(config), Some(directions)) => {
                learned_directions::generate(config, directions.val(), &sources)
            }
            (GeneratorConfig::ClassCovariance(_), _) => class_covariance::generate(&sources),
            (GeneratorConfig::PositiveInterpolation(config), _) => positive_interpolation::generate(config, &sources),
            (GeneratorConfig::DifferenceTransfer(_), _) => difference_transfer::generate(&sources),
            // Learned directions without their parameter and augmentations without a generator do not get here.
            (
                GeneratorConfig::Gaussian(_)
                | GeneratorConfig::LearnedDirections(_)
                | GeneratorConfig::ImageAugmentation(_),
                _,
            ) => gaussian::generate(&sources),
        };
        let eligible = directions.eligible.clone();
        (
            x.unsqueeze_dim::<3>(1) + displacements(directions, &outside, self.config.tangent),
            eligible,
        )
    }

    /// `q`, or the L2 norm alone without a projector.
    fn project(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.projector {
            Some(projector) => projector.forward(x),
            None => normalize(x),
        }
    }

    /// 1 for the rows past the gate with something to rank, else 0: `[b, 1]`, outside autodiff.
    fn selected(&self, x: &Tensor<2>, proxies: Option<&Tensor<2>>, eligible: Option<&[bool]>) -> Tensor<2> {
        let gate = match proxies {
            Some(proxies) => self.config.gate.mask(x, proxies),
            None => x.clone().without_autodiff().sum_dim(1).ones_like(),
        };
        match eligible {
            Some(eligible) => {
                let values: Vec<f64> = eligible.iter().map(|&eligible| f64::from(u8::from(eligible))).collect();
                let count = values.len();
                gate * constant::<2, 2>(TensorData::new(values, [count, 1]), x)
            }
            None => gate,
        }
    }

    /// The factor of each row in the aggregate, `[b, 1]`.
    fn row_weights(&self, selected: &Tensor<2>, input: &IntraClassInput<'_>) -> Tensor<2> {
        let count = match self.config.aggregate {
            Aggregate::Mean => selected.clone().sum().unsqueeze_dim::<2>(0),
            Aggregate::ClassSum => same_class(&input.batch.labels, selected).matmul(selected.clone()),
        };
        selected.clone() / count.clamp_min(1.0)
    }

    fn output(
        &self,
        input: &IntraClassInput<'_>,
        ranking: Tensor<1>,
        anchor: Option<Tensor<1>>,
        selected: Tensor<1>,
        misordered: Option<Tensor<1>>,
        margin_met: Option<Tensor<1>>,
    ) -> IntraClassOutput {
        let config = &self.config;
        let reported = ranking.clone().without_autodiff();
        let reported_anchor = anchor
            .as_ref()
            .map_or_else(|| reported.zeros_like(), |anchor| anchor.clone().without_autodiff());
        let weight = config.weight_at(input.progress);
        let ranked = ranking.mul_scalar(weight * config.ranking_weight);
        let loss = match anchor {
            Some(anchor) => ranked + anchor.mul_scalar(weight * config.anchor_weight),
            None => ranked,
        };
        IntraClassOutput {
            loss,
            report: IntraClassReport {
                selected,
                batch: input.batch.len(),
                ranking: reported,
                anchor: reported_anchor,
                misordered,
                margin_met,
            },
        }
    }
}

/// Nothing is ranked: zero, still a function of the embeddings, since a constant cannot be differentiated.
fn silent(input: &IntraClassInput<'_>) -> IntraClassOutput {
    let loss = input.batch.embeddings.clone().sum().mul_scalar(0.0);
    let zero = loss.clone().without_autodiff().zeros_like();
    IntraClassOutput {
        loss,
        report: IntraClassReport {
            selected: zero.clone(),
            batch: input.batch.len(),
            ranking: zero.clone(),
            anchor: zero,
            misordered: None,
            margin_met: None,
        },
    }
}

fn graded(input: &IntraClassInput<'_>, expected: [usize; 3]) -> Tensor<3> {
    let graded = input
        .graded
        .clone()
        .expect("ranking augmentations needs their embeddings in every step");
    assert_eq!(graded.dims(), expected, "graded augmentations of a wrong shape");
    graded
}

/// The proxy of the class of each row, or the mean of its class in the batch, `[b, d]`.
fn own_proxies(input: &IntraClassInput<'_>) -> Tensor<2> {
    let batch = input.batch;
    match &input.proxies {
        Some(proxies) => {
            let [classes, _] = proxies.dims();
            let greatest = batch.labels.iter().copied().max().unwrap_or(0) as usize;
            assert!(greatest < classes, "label {greatest} has no proxy: there are {classes}");
            proxies.clone().select(0, batch.label_tensor())
        }
        None => {
            let same = same_class(&batch.labels, &batch.embeddings);
            let count = same.clone().sum_dim(1);
            (same / count).matmul(batch.embeddings.clone())
        }
    }
}

/// 1 where two rows share their class, `[b, b]`, of the number type of `like`.
fn same_class(labels: &[u32], like: &Tensor<2>) -> Tensor<2> {
    let count = labels.len();
    let mut values = Vec::with_capacity(count * count);
    for a in labels {
        values.extend(labels.iter().map(|b| f64::from(u8::from(a == b))));
    }
    constant(TensorData::new(values, [count, count]), like)
}

/// Of the selected rows the last of each class, `[b, 1]`.
fn last_of_class(selected: &Tensor<2>, labels: &[u32]) -> Tensor<2> {
    let count = labels.len();
    let mut later = vec![0.0f64; count * count];
    for members in rows_by_label(labels).values() {
        for (position, &row) in members.iter().enumerate() {
            members[position + 1..]
                .iter()
                .for_each(|&other| later[row * count + other] = 1.0);
        }
    }
    let later = constant::<2, 2>(TensorData::new(later, [count, count]), selected).matmul(selected.clone());
    selected.clone() * ones_where(later.lower_elem(0.5), selected)
}

/// The control: the levels of each row in a random order of its own.
fn dealt_out(similarities: Tensor<2>, seed: u64) -> Tensor<2> {
    let [rows, levels] = similarities.dims();
    let mut order = Vec::with_capacity(rows * levels);
    for row in 0..rows {
        let mut levels: Vec<usize> = (0..levels).collect();
        levels.shuffle(&mut random::stream(
            seed,
            &[purpose::SYNTHESIS, stream_of::LABELS, row as u64],
        ));
        order.extend(levels);
    }
    let order = indices::<2, 2>(order, [rows, levels], &similarities);
    similarities.gather(1, order)
}

#[cfg(test)]
mod tests;
