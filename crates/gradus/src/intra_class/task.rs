//! The module a trainer calls: gate, source of ranked items, projector, losses and their sum.

use gradus_core::random::{self, SliceRandom, purpose};

use super::arithmetic::{constant, indices, normalize_last, ones_where, rows_by_label};
use super::config::{Aggregate, BaseOn, IntraClassConfig, Source};
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
    /// If the teacher features or the graded augmentations that the configuration needs are missing or of a wrong shape, or if
    /// a label has no proxy although proxies are given and looked at: all of it is up to the trainer, none to its user.
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
        let ranked = config.members.rows(
            x.clone(),
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::synthesis::tests::unit_rows;
    use super::super::{
        AnchorConfig, GateConfig, GateKind, MembersConfig, MembersMode, ProjectorConfig, RankedPairs, RankingConfig,
        Relu, WeightSchedule,
    };
    use super::*;
    use crate::intra_class::synthesis::{
        ClassCovarianceConfig, DifferenceTransferConfig, GaussianConfig, ImageAugmentationConfig,
        LearnedDirectionsConfig, PositiveInterpolationConfig,
    };
    use crate::tensor::ModuleVisitor;
    use gradus_core::EmbeddingSet;

    const DIM: usize = 6;
    const LABELS: [u32; 8] = [2, 0, 2, 1, 0, 2, 1, 0];

    fn device() -> Device {
        Device::flex().autodiff()
    }

    /// A batch whose embeddings are a leaf of the tape.
    fn leaf(x: Tensor<2>, labels: &[u32]) -> EmbeddingBatch {
        EmbeddingBatch::new(x.autodiff().require_grad(), labels.to_vec())
    }

    fn input(batch: &EmbeddingBatch) -> IntraClassInput<'_> {
        IntraClassInput {
            batch,
            proxies: None,
            teacher: None,
            graded: None,
            statistics: None,
            progress: 0.0,
            seed: 11,
        }
    }

    fn host<const D: usize>(x: Tensor<D>) -> Vec<f64> {
        x.without_autodiff().try_into_vec_as::<f64>().unwrap()
    }

    fn value(output: &IntraClassOutput) -> f64 {
        host(output.loss.clone())[0]
    }

    fn reported(output: &IntraClassOutput, name: &str) -> f64 {
        output
            .report
            .values()
            .into_iter()
            .find(|entry| entry.0 == name)
            .unwrap()
            .1
    }

    fn gradient(batch: &EmbeddingBatch, output: &IntraClassOutput) -> Vec<f64> {
        host(batch.embeddings.grad(&output.loss.backward()).unwrap())
    }

    fn rows(x: &Tensor<2>) -> Vec<Vec<f64>> {
        let [_, dim] = x.dims();
        host(x.clone()).chunks(dim).map(<[f64]>::to_vec).collect()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(x, y)| x * y).sum()
    }

    fn unit(a: &[f64]) -> Vec<f64> {
        let norm = dot(a, a).sqrt();
        a.iter()
            .map(|value| if norm > 0.0 { value / norm } else { 0.0 })
            .collect()
    }

    fn generators() -> Vec<GeneratorConfig> {
        vec![
            GeneratorConfig::Gaussian(GaussianConfig {}),
            GeneratorConfig::LearnedDirections(LearnedDirectionsConfig::default()),
            GeneratorConfig::LearnedDirections(LearnedDirectionsConfig {
                renormalise_directions: true,
                shuffle: true,
            }),
            GeneratorConfig::ClassCovariance(ClassCovarianceConfig::default()),
            GeneratorConfig::PositiveInterpolation(PositiveInterpolationConfig::default()),
            GeneratorConfig::DifferenceTransfer(DifferenceTransferConfig {}),
            GeneratorConfig::ImageAugmentation(ImageAugmentationConfig {}),
        ]
    }

    fn statistics(dim: usize) -> ClassStatistics {
        let x = unit_rows(12, dim, 77);
        let set = EmbeddingSet {
            dim,
            values: x.try_into_vec_as::<f32>().unwrap(),
            labels: (0..12).map(|row| row % 3).collect(),
            ids: vec![String::new(); 12],
        };
        let mut statistics = ClassStatistics::default();
        statistics.observe(&set);
        statistics
    }

    /// The loss by its definition, in plain loops: (total, ranking, anchor, number of selected rows).
    #[allow(clippy::too_many_arguments)]
    fn oracle(
        config: &IntraClassConfig,
        model: &IntraClass,
        x: &[Vec<f64>],
        items: &[Vec<Vec<f64>>],
        proxies: &[Vec<f64>],
        labels: &[u32],
    ) -> (f64, f64, f64, usize) {
        let q = |x: &[f64]| -> Vec<f64> {
            let Some(projector) = &model.projector else {
                return unit(x);
            };
            let (w, b) = (rows(&projector.weight.val()), host(projector.bias.val()));
            let y: Vec<f64> = (0..x.len())
                .map(|k| b[k] + (0..x.len()).map(|l| x[l] * w[l][k]).sum::<f64>())
                .collect();
            let relu = |y: Vec<f64>| -> Vec<f64> { y.into_iter().map(|value| value.max(0.0)).collect() };
            match config.projector.relu {
                Relu::None => unit(&y),
                Relu::BeforeNorm => unit(&relu(y)),
                Relu::AfterNorm => relu(unit(&y)),
            }
        };
        let count = x.len();
        let own: Vec<&Vec<f64>> = labels.iter().map(|&label| &proxies[label as usize]).collect();
        let selected: Vec<bool> = (0..count)
            .map(|i| {
                let cosine = dot(&unit(&x[i]), &unit(own[i]));
                match config.gate.kind {
                    GateKind::Cosine => cosine >= config.gate.threshold,
                    GateKind::Inverted => cosine < config.gate.threshold,
                    GateKind::RawProduct => dot(&x[i], own[i]) >= config.gate.threshold,
                    GateKind::None => true,
                }
            })
            .collect();
        let ranking: Vec<f64> = (0..count)
            .map(|i| {
                let c: Vec<f64> = items[i].iter().map(|item| dot(&q(item), &q(&x[i]))).collect();
                let mut sum = 1.0;
                for (p, near) in c.iter().enumerate() {
                    for (q, far) in c.iter().enumerate().skip(p + 1) {
                        if config.ranking.pairs == RankedPairs::All || q == p + 1 {
                            sum += (config.ranking.scale * (far - near + config.ranking.margin_of(q - p))).exp();
                        }
                    }
                }
                config.ranking.halves as f64 * sum.ln() / config.ranking.scale
            })
            .collect();
        let anchor: Vec<f64> = (0..count)
            .map(|i| {
                let alpha = config.anchor.alpha;
                let similarity = |item: &Vec<f64>| dot(&unit(&q(item)), &unit(&q(own[i])));
                let sum: f64 = items[i]
                    .iter()
                    .map(|item| (alpha * (config.anchor.margin - similarity(item))).exp())
                    .sum();
                (1.0 + sum).ln() / if config.anchor.divide_by_alpha { alpha } else { 1.0 }
            })
            .collect();
        let chosen = |last: bool| -> Vec<bool> {
            (0..count)
                .map(|i| selected[i] && !(last && (i + 1..count).any(|j| selected[j] && labels[j] == labels[i])))
                .collect()
        };
        let aggregate = |values: &[f64], chosen: Vec<bool>| -> f64 {
            let mean = |rows: Vec<usize>| {
                if rows.is_empty() {
                    0.0
                } else {
                    rows.iter().map(|&i| values[i]).sum::<f64>() / rows.len() as f64
                }
            };
            match config.aggregate {
                Aggregate::Mean => mean((0..count).filter(|&i| chosen[i]).collect()),
                Aggregate::ClassSum => (0..proxies.len())
                    .map(|class| {
                        mean(
                            (0..count)
                                .filter(|&i| chosen[i] && labels[i] as usize == class)
                                .collect(),
                        )
                    })
                    .sum(),
            }
        };
        let ranking = aggregate(&ranking, chosen(false));
        let anchor = aggregate(&anchor, chosen(config.anchor.last_of_class));
        let total = config.weight * (config.ranking_weight * ranking + config.anchor_weight * anchor);
        (
            total,
            ranking,
            anchor,
            selected.iter().filter(|&&selected| selected).count(),
        )
    }

    #[test]
    fn equals_plain_loops_over_the_whole_pipeline() {
        let x = unit_rows(8, DIM, 1);
        let proxies = unit_rows(3, DIM, 2) * Tensor::from_data([[0.2], [3.0], [1.0]], &Device::flex());
        let graded = unit_rows(8 * 3, DIM, 3).reshape([8, 3, DIM]);
        let items: Vec<Vec<Vec<f64>>> = rows(&graded.clone().reshape([24, DIM]))
            .chunks(3)
            .map(<[Vec<f64>]>::to_vec)
            .collect();
        let mut partly = 0;
        for kind in [
            GateKind::Cosine,
            GateKind::RawProduct,
            GateKind::None,
            GateKind::Inverted,
        ] {
            for aggregate in [Aggregate::Mean, Aggregate::ClassSum] {
                for (enabled, relu) in [
                    (false, Relu::None),
                    (true, Relu::None),
                    (true, Relu::BeforeNorm),
                    (true, Relu::AfterNorm),
                ] {
                    for quirks in [false, true] {
                        let config = IntraClassConfig {
                            weight: 0.7,
                            anchor_weight: 0.4,
                            levels: 3,
                            source: Source::Augmentations,
                            aggregate,
                            gate: GateConfig { kind, threshold: 0.05 },
                            projector: ProjectorConfig { enabled, relu },
                            ranking: RankingConfig {
                                halves: if quirks { 2 } else { 1 },
                                ..Default::default()
                            },
                            anchor: AnchorConfig {
                                last_of_class: quirks,
                                divide_by_alpha: !quirks,
                                ..AnchorConfig::default()
                            },
                            ..IntraClassConfig::sgar()
                        };
                        let mut model = config.init(DIM, 5, &device());
                        if let Some(projector) = &mut model.projector {
                            // A bias of zero would hide one that is left out.
                            let bias = Tensor::from_data([0.1, -0.2, 0.05, 0.3, 0.0, -0.1], &device());
                            projector.bias = Param::from_tensor(bias);
                        }
                        let batch = leaf(x.clone(), &LABELS);
                        let given = IntraClassInput {
                            proxies: Some(proxies.clone()),
                            graded: Some(graded.clone()),
                            ..input(&batch)
                        };
                        let output = model.forward(&given);
                        let expected = oracle(&config, &model, &rows(&x), &items, &rows(&proxies), &LABELS);
                        let close = |a: f64, b: f64| (a - b).abs() < 2e-5 * b.max(1.0);
                        assert!(
                            close(value(&output), expected.0),
                            "{config:?}: {} not {expected:?}",
                            value(&output)
                        );
                        assert!(close(reported(&output, "ranking"), expected.1));
                        assert!(close(reported(&output, "anchor"), expected.2));
                        assert_eq!(reported(&output, "selected") * 8.0, expected.3 as f64);
                        partly += usize::from(expected.3 > 0 && expected.3 < 8);
                        // Without proxies the class means stand in.
                        let means: Vec<Vec<f64>> = (0..3)
                            .map(|class| {
                                let x = rows(&x);
                                let members: Vec<usize> = (0..8).filter(|&i| LABELS[i] == class).collect();
                                let mean =
                                    |k: usize| members.iter().map(|&i| x[i][k]).sum::<f64>() / members.len() as f64;
                                (0..DIM).map(mean).collect()
                            })
                            .collect();
                        let given = IntraClassInput {
                            graded: Some(graded.clone()),
                            ..input(&batch)
                        };
                        let expected = oracle(&config, &model, &rows(&x), &items, &means, &LABELS);
                        let got = value(&model.forward(&given));
                        assert!(close(got, expected.0), "{config:?}: {got} not {expected:?}");
                    }
                }
            }
        }
        assert!(partly >= 24, "gates must let some samples through and hold some back");
    }

    #[test]
    fn synthetic_ranks_what_the_generator_gives() {
        let x = unit_rows(8, DIM, 1);
        let statistics = statistics(DIM);
        for generator in generators() {
            let graded = matches!(generator, GeneratorConfig::ImageAugmentation(_));
            if graded {
                continue;
            }
            for tangent in [false, true] {
                let config = IntraClassConfig {
                    generator: generator.clone(),
                    tangent,
                    ..IntraClassConfig::sgar()
                };
                let model = config.init(DIM, 5, &device());
                let batch = leaf(x.clone(), &LABELS);
                let given = IntraClassInput {
                    statistics: Some(&statistics),
                    ..input(&batch)
                };
                let (items, eligible) = model.generate(&given);
                assert!(eligible.is_none_or(|eligible| eligible.iter().all(|&eligible| eligible)));
                assert_eq!(items.dims(), [8, 5, DIM]);
                let direct = value(&model.forward(&given));
                let ranked = IntraClassConfig {
                    source: Source::Augmentations,
                    ..config
                };
                let ranked = IntraClass {
                    config: ranked,
                    ..model
                };
                let handed = IntraClassInput {
                    graded: Some(items),
                    ..input(&batch)
                };
                assert!((value(&ranked.forward(&handed)) - direct).abs() < 1e-6 && direct > 0.0);
            }
        }
    }

    #[test]
    fn ranking_needs_no_label() {
        let x = unit_rows(8, DIM, 1);
        let graded = unit_rows(8 * 5, DIM, 3).reshape([8, 5, DIM]);
        let mut cases = 0;
        for source in [Source::Synthetic, Source::Augmentations] {
            for generator in generators().into_iter().filter(|generator| !generator.needs_labels()) {
                let config = IntraClassConfig {
                    source,
                    generator,
                    anchor_weight: 0.0,
                    gate: GateConfig {
                        kind: GateKind::None,
                        ..Default::default()
                    },
                    ..IntraClassConfig::sgar()
                };
                let model = config.init(DIM, 5, &device());
                let loss = |labels: [u32; 8], proxies: Option<Tensor<2>>| {
                    let batch = leaf(x.clone(), &labels);
                    value(&model.forward(&IntraClassInput {
                        proxies,
                        graded: Some(graded.clone()),
                        ..input(&batch)
                    }))
                };
                let expected = loss(LABELS, None);
                assert!(expected > 0.0);
                // One class, all different, and labels that no proxy exists for.
                assert_eq!(loss([0; 8], None), expected);
                assert_eq!(loss([7, 6, 5, 4, 3, 2, 1, 0], None), expected);
                assert_eq!(loss([u32::MAX; 8], Some(unit_rows(2, DIM, 2))), expected);
                cases += 1;
            }
        }
        assert_eq!(cases, 8);
    }

    fn everything() -> Vec<IntraClassConfig> {
        let mut configs = vec![
            IntraClassConfig::sgar(),
            IntraClassConfig::sgar_released(),
            IntraClassConfig::disabled(),
        ];
        for generator in generators() {
            configs.push(IntraClassConfig {
                generator,
                tangent: true,
                ..IntraClassConfig::sgar()
            });
        }
        for mode in [
            MembersMode::Pairwise,
            MembersMode::Listwise,
            MembersMode::All,
            MembersMode::Correlation,
        ] {
            let members = MembersConfig {
                mode,
                ..Default::default()
            };
            configs.push(IntraClassConfig {
                members,
                ..IntraClassConfig::members()
            });
        }
        let members = configs.last().unwrap().clone();
        configs.push(IntraClassConfig {
            gate: GateConfig::default(),
            aggregate: Aggregate::ClassSum,
            shuffle_intensities: true,
            ..members
        });
        configs
    }

    #[test]
    fn an_empty_gate_gives_zero_and_stays_tracked() {
        let x = unit_rows(8, DIM, 1);
        for config in everything() {
            let config = IntraClassConfig {
                gate: GateConfig {
                    kind: GateKind::Cosine,
                    threshold: 2.0,
                },
                ..config
            };
            let model = config.init(DIM, 5, &device());
            let batch = leaf(x.clone(), &LABELS);
            let graded = unit_rows(8 * config.levels, DIM, 3).reshape([8, config.levels, DIM]);
            let given = IntraClassInput {
                teacher: Some(x.clone()),
                graded: Some(graded),
                ..input(&batch)
            };
            let output = model.forward(&given);
            assert_eq!(value(&output), 0.0, "{config:?}");
            assert_eq!(reported(&output, "selected"), 0.0);
            assert!(output.report.values().iter().all(|entry| entry.1 == 0.0));
            assert!(gradient(&batch, &output).iter().all(|&value| value == 0.0));
        }
    }

    #[test]
    fn odd_batches_stay_finite_and_tracked() {
        let zero = Tensor::<2>::zeros([4, DIM], &Device::flex());
        let one = unit_rows(1, DIM, 1);
        let batches = [
            (one.clone(), vec![0]),
            (one.clone().repeat_dim(0, 5), vec![0; 5]),
            (one.repeat_dim(0, 5), vec![0, 1, 2, 1, 0]),
            (unit_rows(5, DIM, 2), vec![0, 1, 2, 3, 4]),
            (unit_rows(6, DIM, 2), vec![0, 0, 0, 0, 0, 1]),
            (zero, vec![0, 0, 0, 1]),
            (unit_rows(6, DIM, 2) * 1e6, vec![0, 0, 0, 1, 1, 1]),
        ];
        let statistics = statistics(DIM);
        for config in everything() {
            let model = config.init(DIM, 5, &device());
            for (x, labels) in &batches {
                for proxies in [None, Some(unit_rows(5, DIM, 9) * 1e3)] {
                    let batch = leaf(x.clone(), labels);
                    let levels = config.levels;
                    let given = IntraClassInput {
                        proxies,
                        teacher: Some(x.clone().repeat_dim(1, 2)),
                        graded: Some(x.clone().unsqueeze_dim::<3>(1).repeat_dim(1, levels)),
                        statistics: Some(&statistics),
                        ..input(&batch)
                    };
                    let output = model.forward(&given);
                    assert!(
                        value(&output).is_finite() && value(&output) > -1e-6,
                        "{config:?} {labels:?}"
                    );
                    assert!(
                        gradient(&batch, &output).iter().all(|value| value.is_finite()),
                        "{config:?} {labels:?}"
                    );
                    assert!(output.report.values().iter().all(|entry| entry.1.is_finite()));
                }
            }
        }
    }

    #[test]
    fn class_covariance_without_statistics_is_silent() {
        let generator = GeneratorConfig::ClassCovariance(ClassCovarianceConfig::default());
        let model = IntraClassConfig {
            generator,
            ..IntraClassConfig::sgar()
        }
        .init(DIM, 5, &device());
        let batch = leaf(unit_rows(8, DIM, 1), &LABELS);
        let output = model.forward(&input(&batch));
        assert_eq!(value(&output), 0.0);
        assert!(gradient(&batch, &output).iter().all(|&value| value == 0.0));
    }

    #[test]
    fn the_schedule_scales_everything_of_the_method() {
        let base = IntraClassConfig {
            point_weight: 0.3,
            ..IntraClassConfig::sgar()
        };
        let batch = leaf(unit_rows(8, DIM, 1), &LABELS);
        let at = |schedule, progress| {
            let config = IntraClassConfig {
                schedule,
                ..base.clone()
            };
            value(&config.init(DIM, 5, &device()).forward(&IntraClassInput {
                progress,
                ..input(&batch)
            }))
        };
        let plain = at(WeightSchedule::Constant, 0.3);
        assert!(plain > 0.0);
        assert_eq!(plain, at(WeightSchedule::Constant, 0.9));
        for (schedule, progress, factor) in [
            (WeightSchedule::Rising, 0.0, 0.0),
            (WeightSchedule::Rising, 0.75, 1.5),
            (WeightSchedule::Falling, 0.75, 0.5),
        ] {
            assert!(
                (at(schedule, progress) - factor * plain).abs() < 1e-6,
                "{schedule:?} {progress}"
            );
        }
    }

    #[test]
    fn a_step_is_a_function_of_its_seed() {
        for config in [IntraClassConfig::sgar(), IntraClassConfig::sgar_released()] {
            let (a, b) = (config.init(DIM, 5, &device()), config.init(DIM, 5, &device()));
            let batch = leaf(unit_rows(8, DIM, 1), &LABELS);
            let run = |model: &IntraClass, seed| value(&model.forward(&IntraClassInput { seed, ..input(&batch) }));
            assert_eq!(run(&a, 3), run(&b, 3));
            assert_ne!(run(&a, 3), run(&a, 4));
            let other = config.init(DIM, 6, &device());
            assert_ne!(run(&a, 3), run(&other, 3));
        }
    }

    #[test]
    fn shuffled_labels_break_the_order() {
        let x = unit_rows(8, DIM, 1);
        // Exactly ordered: each level farther along the same other direction.
        let far = unit_rows(8, DIM, 2).unsqueeze_dim::<3>(1);
        let steps = Tensor::<3>::from_data([[[0.2f32], [0.6], [1.2], [2.4], [9.0]]], &Device::flex());
        let graded = x.clone().unsqueeze_dim::<3>(1) + far * steps;
        let run = |shuffle_intensities| {
            let config = IntraClassConfig {
                source: Source::Augmentations,
                shuffle_intensities,
                anchor_weight: 0.0,
                gate: GateConfig {
                    kind: GateKind::None,
                    ..Default::default()
                },
                projector: ProjectorConfig {
                    enabled: false,
                    ..Default::default()
                },
                ..IntraClassConfig::sgar()
            };
            let batch = leaf(x.clone(), &LABELS);
            let given = IntraClassInput {
                graded: Some(graded.clone()),
                ..input(&batch)
            };
            config.init(DIM, 5, &device()).forward(&given)
        };
        let (right, shuffled) = (run(false), run(true));
        assert_eq!(reported(&right, "misordered"), 0.0);
        let share = reported(&shuffled, "misordered");
        assert!((0.3..0.7).contains(&share), "{share}");
        assert!(value(&shuffled) > value(&right));
    }

    #[test]
    fn members_are_averaged_over_samples_with_something_to_rank() {
        let x = unit_rows(8, DIM, 1);
        let teacher = unit_rows(8, 4, 2);
        let labels = [0, 0, 0, 1, 1, 1, 2, 2];
        for mode in [
            MembersMode::Pairwise,
            MembersMode::Listwise,
            MembersMode::All,
            MembersMode::Correlation,
        ] {
            for aggregate in [Aggregate::Mean, Aggregate::ClassSum] {
                let members = MembersConfig {
                    mode,
                    ..Default::default()
                };
                let config = IntraClassConfig {
                    weight: 2.0,
                    ranking_weight: 0.9,
                    aggregate,
                    members: members.clone(),
                    ..IntraClassConfig::members()
                };
                let batch = leaf(x.clone(), &labels);
                let given = IntraClassInput {
                    teacher: Some(teacher.clone()),
                    ..input(&batch)
                };
                let output = config.init(DIM, 5, &device()).forward(&given);
                let loss = host(members.rows(x.clone(), &teacher, &labels, 32.0, false, 0).loss);
                let expected = match (mode, aggregate) {
                    (MembersMode::All, Aggregate::Mean) => loss.iter().sum::<f64>() / 8.0,
                    (MembersMode::All, Aggregate::ClassSum) => {
                        loss[..6].iter().sum::<f64>() / 3.0 + loss[6..].iter().sum::<f64>() / 2.0
                    }
                    (_, Aggregate::Mean) => loss[..6].iter().sum::<f64>() / 6.0,
                    (_, Aggregate::ClassSum) => loss[..6].iter().sum::<f64>() / 3.0,
                };
                assert!((value(&output) - 1.8 * expected).abs() < 1e-5, "{mode:?} {aggregate:?}");
                let selected = if mode == MembersMode::All { 1.0 } else { 0.75 };
                assert_eq!(reported(&output, "selected"), selected);
            }
        }
    }

    #[test]
    fn the_base_sees_what_the_switch_says() {
        let x = unit_rows(4, DIM, 1);
        let sgar = IntraClassConfig::sgar().init(DIM, 5, &device());
        assert_eq!(host(sgar.base_input(x.clone())), host(x.clone()));
        let released = IntraClassConfig::sgar_released().init(DIM, 5, &device());
        let projected = released.projector.as_ref().unwrap().forward(x.clone());
        assert_eq!(host(released.base_input(x.clone())), host(projected));
        assert_ne!(host(released.base_input(x.clone())), host(x));
    }

    #[test]
    fn parameters_have_the_promised_paths() {
        #[derive(Default)]
        struct Paths {
            stack: Vec<String>,
            found: Vec<String>,
        }
        impl ModuleVisitor for Paths {
            fn enter_module(&mut self, name: &str, _kind: &str) {
                self.stack.push(name.to_owned());
            }
            fn exit_module(&mut self, _name: &str, _kind: &str) {
                self.stack.pop();
            }
            fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<D>>) {
                self.found.push(self.stack.join("."));
            }
        }
        let mut paths = Paths::default();
        IntraClassConfig::sgar_released()
            .init(DIM, 5, &device())
            .visit(&mut paths);
        assert_eq!(paths.found, ["projector.weight", "projector.bias", "directions"]);
        let count = |config: IntraClassConfig| config.init(DIM, 5, &device()).num_params();
        assert_eq!(count(IntraClassConfig::sgar()), DIM * DIM + DIM);
        assert_eq!(count(IntraClassConfig::members()), 0);
        assert_eq!(count(IntraClassConfig::disabled()), 0);
    }
}
