//! Simultaneous similarity-based self-distillation: wide heads on the same features teach the narrow one.

use gradus_core::EmbeddingSet;
use gradus_core::random::derive;
use serde::{Deserialize, Serialize};

use super::{AuxiliaryInput, AuxiliaryLossConfig, AuxiliaryModule, AuxiliaryShape, refuse, weight};
use crate::batch::{Comparison, ItemSet};
use crate::config::Config;
use crate::losses::{Loss, Support};
use crate::models::{Head, HeadConfig};
use crate::numerics::{gram, normalize};
use crate::tensor::{Device, Module, Tensor, TensorData, activation};
use crate::train::start::class_means;

/// Settings of [`S2sd`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct S2sdConfig {
    /// Weight of the distillation beside the base loss. Default 50, the authors'.
    pub weight: f64,
    /// Temperature of the softmax over similarities. Default 1, the authors'.
    pub temperature: f64,
    /// Widths of the extra heads. Default 512, 1024, 1536, 2048, the authors'.
    pub widths: Vec<usize>,
    /// Form of the extra heads. Default linear, as the model's own head; `mlp` adds a hidden layer.
    pub head: HeadConfig,
    /// Whether the pooled features teach, too, as one more head without parameters or loss. Default false.
    pub features: bool,
}

impl Default for S2sdConfig {
    fn default() -> Self {
        Self {
            weight: 50.0,
            temperature: 1.0,
            widths: vec![512, 1024, 1536, 2048],
            head: HeadConfig::Linear,
            features: false,
        }
    }
}

impl AuxiliaryLossConfig for S2sdConfig {
    type Module = S2sd;
    const SUMMARY: &'static str = "wide extra heads with losses of their own teach their similarities to the embedding";
    const PAPER: &'static str =
        "Roth et al., Simultaneous Similarity-based Self-Distillation for Deep Metric Learning, ICML";
    const YEAR: u16 = 2021;
    const NEEDS_FEATURES: bool = true;

    fn validate(&self) -> Result<(), String> {
        weight("s2sd", self.weight)?;
        if !(self.temperature.is_finite() && self.temperature > 0.0) {
            return refuse("s2sd", "temperature", self.temperature, "a number above 0; 1 is usual");
        }
        let widths = format!("{:?}", self.widths);
        if self.widths.len() > 16 || self.widths.iter().any(|width| !(1..=16384).contains(width)) {
            return refuse("s2sd", "widths", widths, "up to 16 widths between 1 and 16384");
        }
        if self.widths.is_empty() && !self.features {
            return refuse("s2sd", "widths", widths, "at least one width, or features = true: there is no teacher");
        }
        if let HeadConfig::Mlp { hidden } | HeadConfig::Residual { hidden } = self.head
            && !(1..=16384).contains(&hidden)
        {
            return refuse("s2sd", "head.mlp.hidden", hidden, "a width between 1 and 16384");
        }
        Ok(())
    }

    fn fits(&self, config: &Config) -> Result<(), String> {
        let loss = config.loss.name();
        if config.loss.accepts().references == Support::Required {
            return Err(format!(
                "auxiliary-loss.s2sd gives every head the base loss on one view of the batch, but loss.{loss} compares two views: \
                 choose another loss, or leave [auxiliary-loss] out"
            ));
        }
        if config.memory.is_some() {
            return Err(
                "auxiliary-loss.s2sd gives every head the base loss on the batch, but [memory] holds embeddings of the model's \
                 own head only: leave one of the two out"
                    .to_owned(),
            );
        }
        if let (Some(miner), Some(augmentation)) = (&config.miner, &config.embedding_augmentation)
            && augmentation.adds_rows()
        {
            return Err(format!(
                "auxiliary-loss.s2sd shows its heads the pairs that miner.{} chose, but with embedding-augmentation.{} some are of \
                 generated rows, which the heads do not have: leave one of the three out",
                miner.name(),
                augmentation.name()
            ));
        }
        Ok(())
    }

    fn init(&self, shape: &AuxiliaryShape<'_>) -> S2sd {
        let seeds = (1..).map(|number| derive(shape.seed, &[number]));
        let (heads, losses) = (self.widths.iter().zip(seeds))
            .map(|(&width, seed)| {
                (
                    Head::new(self.head, shape.features, width, seed, shape.device),
                    shape.loss.init(width, shape.classes, seed, shape.device),
                )
            })
            .unzip();
        S2sd {
            heads,
            losses,
            config: self.clone(),
        }
    }
}

/// Simultaneous similarity-based self-distillation, S2SD (Roth et al., Simultaneous Similarity-based
/// Self-Distillation for Deep Metric Learning, ICML 2021).
///
/// Each extra head `g` embeds the same pooled features, wider than the model's own head `x`, under a base loss of its
/// own. With cosine matrices `S` and `p = softmax over a row of S_g / T` (a constant to the gradient), `q = softmax
/// of S_x / T`: `mean over heads L_base(g) + weight * T^2 * mean over teachers, rows of KL(p || q)`. The heads are
/// dropped after training.
///
/// The authors halve base loss and head losses, so that their weight is twice this one's. Heads learn at the rate of
/// the model's head, their proxies at the criterion's, and where `train.proxies = "class-means"`, at the class means
/// of the untrained heads. What a miner chose for the model's own head counts for all. The features get gradients
/// from the heads' losses (where the trunk is trained), none from teaching.
///
/// # Shapes
/// Embeddings `[b, d]`, features `[b, f]`. Parameters: `f x` the sum of widths, and proxies.
#[derive(Module, Debug)]
pub struct S2sd {
    heads: Vec<Head>,
    losses: Vec<Loss>,
    #[module(skip)]
    config: S2sdConfig,
}

impl AuxiliaryModule for S2sd {
    fn forward(&self, input: &AuxiliaryInput<'_>) -> Result<Tensor<1>, String> {
        let temperature = self.config.temperature;
        let features = input.features.clone().ok_or("auxiliary-loss.s2sd was handed no pooled features")?;
        let cosines = |x: Tensor<2>| gram(normalize(x)).mul_scalar(temperature.recip()); // [b, b]
        let student = activation::log_softmax(cosines(input.embeddings.clone()), 1);
        let [rows, _] = student.dims();
        let distance = |teacher: Tensor<2>| {
            let teacher = activation::log_softmax(cosines(teacher.without_autodiff()), 1);
            let cost = teacher.clone().exp() * (student.clone().neg() + teacher);
            cost.sum().mul_scalar(temperature * temperature / rows.max(1) as f64)
        };
        let zero = input.embeddings.clone().sum().mul_scalar(0.0);
        let (mut own, mut taught) = (zero.clone(), zero);
        for (head, loss) in self.heads.iter().zip(&self.losses) {
            let wide = head.forward(features.clone()); // [b, width]
            let mut comparison = Comparison::within(ItemSet::new(wide.clone(), input.labels.to_vec())).with_seed(input.seed);
            comparison.mined = input.mined.cloned();
            loss.check(&comparison)?;
            own = own + loss.forward(&comparison);
            taught = taught + distance(wide);
        }
        let mut teachers = self.heads.len();
        if self.config.features {
            taught = taught + distance(features);
            teachers += 1;
        }
        let mean = |sum: Tensor<1>, count: usize| sum.mul_scalar(1.0 / count.max(1) as f64);
        Ok(mean(own, self.heads.len()) + mean(taught, teachers).mul_scalar(self.config.weight))
    }

    fn started(self, features: &EmbeddingSet, classes: usize) -> Result<Self, String> {
        let device = self.devices().first().cloned().unwrap_or_else(|| Device::flex().autodiff());
        let parts = self.heads.iter().zip(self.losses);
        let losses = parts.map(|(head, loss)| {
            if !loss.has_proxies() {
                return Ok(loss);
            }
            let head = head.valid();
            let mut values = Vec::new();
            for rows in features.values.chunks(features.dim.max(1) * 4096) {
                let data = TensorData::new(rows.to_vec(), [rows.len() / features.dim.max(1), features.dim]);
                let embeddings = head.forward(Tensor::from_data(data, &device.clone().without_autodiff()));
                values.extend(embeddings.try_into_vec_as::<f32>().map_err(|error| error.to_string())?);
            }
            let embeddings = EmbeddingSet {
                dim: head.width(),
                values,
                labels: features.labels.clone(),
                ids: features.ids.clone(),
            };
            Ok::<_, String>(loss.with_proxies(class_means(&embeddings, classes, &device)))
        });
        Ok(Self {
            losses: losses.collect::<Result<_, String>>()?,
            ..self
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::embedding_augmentation::testing::{proxy_anchor, unit_rows};
    use crate::losses::LossConfig;
    use crate::losses::testing::{near, scalar};
    use std::sync::Arc;

    fn host(x: &Tensor<2>) -> Vec<Vec<f64>> {
        let [_, dim] = x.dims();
        let values = x.clone().try_into_vec_as::<f64>().unwrap();
        values.chunks(dim).map(<[f64]>::to_vec).collect()
    }

    fn unit(row: &[f64]) -> Vec<f64> {
        let norm = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        row.iter().map(|value| value / norm).collect()
    }

    fn softmax_rows(rows: &[Vec<f64>], temperature: f64) -> Vec<Vec<f64>> {
        let rows: Vec<Vec<f64>> = rows.iter().map(|row| unit(row)).collect();
        let similarities = |a: &Vec<f64>| -> Vec<f64> {
            let s = rows.iter().map(|b| (a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / temperature).exp());
            let s: Vec<f64> = s.collect();
            let sum: f64 = s.iter().sum();
            s.into_iter().map(|value| value / sum).collect()
        };
        rows.iter().map(similarities).collect()
    }

    #[test]
    fn agrees_with_naive_loops() {
        let device = Device::flex().autodiff();
        let labels: Arc<[u32]> = [0u32, 1, 0, 2, 1].into();
        for (features_teach, temperature) in [(false, 1.0), (true, 0.5)] {
            let config = S2sdConfig {
                weight: 3.0,
                temperature,
                widths: vec![6, 9],
                features: features_teach,
                ..Default::default()
            };
            let module = config.init(&AuxiliaryShape {
                dim: 4,
                features: 7,
                classes: 3,
                loss: &LossConfig::default(),
                seed: 4,
                device: &device,
            });
            let leaf = |rows: Vec<f64>, dim: usize| {
                Tensor::<2>::from_data(TensorData::new(rows, [5, dim]), &device).require_grad()
            };
            let (x, features) = (leaf(unit_rows(5, 4, 1), 4), leaf(unit_rows(5, 7, 2), 7));
            let set = EmbeddingSet {
                dim: 7,
                values: features.clone().try_into_vec_as::<f32>().unwrap(),
                labels: labels.to_vec(),
                ids: vec![String::new(); 5],
            };
            let module = module.started(&set, 3).unwrap();
            let value = module
                .forward(&AuxiliaryInput {
                    embeddings: x.clone(),
                    features: Some(features.clone()),
                    proxies: None,
                    labels: &labels,
                    mined: None,
                    seed: 0,
                })
                .unwrap();

            let student = softmax_rows(&host(&x), temperature);
            let divergence = |teacher: &[Vec<f64>]| {
                let teacher = softmax_rows(teacher, temperature);
                let cells = teacher.concat().into_iter().zip(student.concat());
                cells.map(|(p, q)| p * (p / q).ln()).sum::<f64>() * temperature * temperature / 5.0
            };
            let (mut own, mut taught) = (0.0, 0.0);
            for (head, loss) in module.heads.iter().zip(&module.losses) {
                let wide = host(&head.forward(features.clone()));
                let proxies: Vec<Vec<f64>> = (0..3u32)
                    .map(|class| {
                        let members: Vec<&Vec<f64>> =
                            wide.iter().zip(&*labels).filter(|(_, label)| **label == class).map(|(row, _)| row).collect();
                        unit(&(0..wide[0].len()).map(|k| members.iter().map(|row| row[k]).sum()).collect::<Vec<f64>>())
                    })
                    .collect();
                let found = host(&loss.proxies().unwrap());
                assert!(found.concat().iter().zip(proxies.concat()).all(|(a, b)| (a - b).abs() < 1e-5));
                own += proxy_anchor(&wide, &labels, &proxies);
                taught += divergence(&wide);
            }
            let mut teachers = 2.0;
            if features_teach {
                taught += divergence(&host(&features));
                teachers += 1.0;
            }
            assert!(taught > 1e-3);
            near(scalar(&value), own / 2.0 + 3.0 * taught / teachers);

            // Teaching moves the student only.
            let gradients = value.backward();
            assert!(x.grad(&gradients).is_some() && features.grad(&gradients).is_some());
        }
    }

    #[test]
    fn a_perfect_student_has_nothing_to_learn_and_settings_are_checked() {
        let device = Device::flex();
        let labels: Arc<[u32]> = [0u32, 1, 0].into();
        let config = S2sdConfig {
            widths: vec![],
            features: true,
            ..Default::default()
        };
        config.validate().unwrap();
        let module = config.init(&AuxiliaryShape {
            dim: 4,
            features: 4,
            classes: 2,
            loss: &LossConfig::default(),
            seed: 4,
            device: &device,
        });
        let x = Tensor::<2>::from_data(TensorData::new(unit_rows(3, 4, 1), [3, 4]), &device);
        let value = module.forward(&AuxiliaryInput {
            embeddings: x.clone(),
            features: Some(x.mul_scalar(3.0)),
            proxies: None,
            labels: &labels,
            mined: None,
            seed: 0,
        });
        assert!(scalar(&value.unwrap()).abs() < 1e-5);
        let none = S2sdConfig {
            widths: vec![],
            ..Default::default()
        };
        assert!(none.validate().unwrap_err().contains("no teacher"));
    }
}
