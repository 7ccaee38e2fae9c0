//! The loss against its definition in plain loops, and what every configuration promises.
#![allow(clippy::unwrap_used)]

use super::super::synthesis::tests::unit_rows;
use super::super::{
    AnchorConfig, GateConfig, GateKind, MembersConfig, MembersMode, ProjectorConfig, RankedPairs, RankingConfig, Relu,
    WeightSchedule,
};
use super::*;
use crate::intra_class::synthesis::{
    ClassCovarianceConfig, DifferenceTransferConfig, GaussianConfig, ImageAugmentationConfig, LearnedDirectionsConfig,
    PositiveInterpolationConfig,
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
        ranked: None,
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
                            let mean = |k: usize| members.iter().map(|&i| x[i][k]).sum::<f64>() / members.len() as f64;
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
    let mixtures = MembersConfig {
        mixtures: 4,
        ..members.members.clone()
    };
    configs.push(IntraClassConfig {
        members: mixtures,
        ..members.clone()
    });
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
