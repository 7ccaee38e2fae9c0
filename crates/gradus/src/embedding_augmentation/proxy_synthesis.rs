//! Proxy Synthesis: classes between two classes, with a proxy between their proxies.

use gradus_core::random::{self, Rng, SliceRandom, purpose};
use rand_distr::Beta;
use serde::{Deserialize, Serialize};

use super::{AugmentationInput, Augmented, EmbeddingAugmentation, refuse};
use crate::batch::{Comparison, ItemSet};
use crate::intra_class::arithmetic::indices;
use crate::losses::LossConfig;
use crate::numerics::normalize;
use crate::state::named_shapes;
use crate::tensor::{Device, Tensor};

/// Further classes for one step (Gu et al., Proxy Synthesis: Learning with Synthetic Classes for Deep Metric
/// Learning, AAAI 2021).
///
/// With `t ~ Beta(alpha, alpha)`, drawn once per batch, row `i` and a row `j` of another class give `x = unit(t x_i +
/// (1 - t) x_j)` of a new class with the proxy `P = unit(t unit(P_{y_i}) + (1 - t) unit(P_{y_j}))`. The base loss
/// sees batch and synthetic rows against old and synthetic proxies; gradients reach rows and proxies through both.
///
/// The authors take the next row for `j` and ask for batches in which neighbours differ in class. Here batches hold
/// several members of a class, so rows are shuffled and `j` is the next row *of another class*; a batch of one class
/// stays as it is. A weight regulariser of the loss sees the synthetic proxies, too.
///
/// For losses with one proxy per class that compare directions, and that keep nothing else over steps.
///
/// # Shapes
/// Rows `[b + g, d]`, proxies `[classes + g, d]`, `g = round(ratio * b)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProxySynthesis {
    /// Both parameters of the Beta distribution: below 1 mixes stay near one of both. Default 0.4, the authors'.
    pub alpha: f64,
    /// Synthetic rows for each row of the batch, above 0 and at most 1. Default 1, the authors'.
    pub ratio: f64,
}

impl Default for ProxySynthesis {
    fn default() -> Self {
        Self { alpha: 0.4, ratio: 1.0 }
    }
}

/// What is mixed, by position, and how.
struct Mixes {
    share: f64,
    pairs: Vec<[usize; 2]>,
}

impl ProxySynthesis {
    fn mixes(&self, labels: &[u32], seed: u64) -> Mixes {
        let mut stream = random::stream(seed, &[purpose::AUGMENTED_EMBEDDINGS, 0]);
        // Settings that passed `validate` make a distribution.
        let share = Beta::new(self.alpha, self.alpha).map_or(0.5, |beta| stream.sample(beta));
        let mut order: Vec<usize> = (0..labels.len()).collect();
        order.shuffle(&mut stream);
        let count = (self.ratio * labels.len() as f64).round() as usize;
        let partner = |place: usize| {
            let mut others = (1..order.len()).map(|step| order[(place + step) % order.len()]);
            others.find(|&other| labels[other] != labels[order[place]])
        };
        let pairs = (0..count.min(order.len())).filter_map(|place| Some([order[place], partner(place)?]));
        Mixes {
            share,
            pairs: pairs.collect(),
        }
    }
}

impl EmbeddingAugmentation for ProxySynthesis {
    const SUMMARY: &'static str = "classes between two classes, with a proxy between their proxies";
    const PAPER: &'static str =
        "Gu et al., Proxy Synthesis: Learning with Synthetic Classes for Deep Metric Learning, AAAI";
    const YEAR: u16 = 2021;

    fn validate(&self) -> Result<(), String> {
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("proxy-synthesis", "alpha", self.alpha, "a number above 0; 0.4 is usual");
        }
        if !(self.ratio > 0.0 && self.ratio <= 1.0) {
            return refuse("proxy-synthesis", "ratio", self.ratio, "a number above 0 and at most 1");
        }
        Ok(())
    }

    fn fits(&self, loss: &LossConfig) -> Result<(), String> {
        if loss.proxies_per_class() != Some(1) {
            return Err(
                "the loss does not have one proxy per class, which synthetic classes are mixed from; choose such a loss, for \
                 example proxy-anchor or normalized-softmax"
                    .to_owned(),
            );
        }
        if loss.info().lengths_matter {
            return Err("the loss looks at lengths, which a mix does not keep; choose a loss of directions".to_owned());
        }
        // A step's copy of the loss, with more classes, would take what it remembers to the grave.
        let shapes = named_shapes(&loss.init(2, 2, 0, &Device::flex()));
        if shapes.len() != 1 || shapes[0].1 != [2, 2] {
            return Err(
                "the loss keeps more than proxies over the steps, which synthetic classes would disturb; choose another loss"
                    .to_owned(),
            );
        }
        let options = loss.options();
        if options.reducer.as_ref().is_some_and(|reducer| reducer.class_limit().is_some()) {
            return Err("its reducer has weights for known classes only; choose another reducer".to_owned());
        }
        Ok(())
    }

    fn augment(&self, input: &AugmentationInput<'_>) -> Augmented {
        let labels = &**input.labels;
        let Mixes { share, pairs } = self.mixes(labels, input.seed);
        let Some(proxies) = input.loss.proxies().filter(|_| !pairs.is_empty()) else {
            return Augmented {
                comparison: input.plain(),
                loss: None,
            };
        };
        let x = &input.embeddings;
        let count = pairs.len();
        let mixed = |rows: &Tensor<2>, of: &dyn Fn(usize) -> usize| {
            let side = |side: usize| {
                let positions = indices(pairs.iter().map(|pair| of(pair[side])), [count], x);
                normalize(rows.clone().select(0, positions))
            };
            normalize(side(0).mul_scalar(share) + side(1).mul_scalar(1.0 - share)) // [g, d]
        };
        let [classes, _] = proxies.dims();
        let rows = Tensor::cat(vec![x.clone(), mixed(x, &|row| row)], 0);
        let further = mixed(&proxies, &|row| labels[row] as usize);
        let mut classes_of_rows = labels.to_vec();
        classes_of_rows.extend((classes..classes + count).map(|class| class as u32));
        Augmented {
            comparison: Comparison::within(ItemSet::new(rows, classes_of_rows)),
            loss: Some(input.loss.with_further_classes(further)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::{proxy_anchor, unit_rows};
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{near, scalar};
    use std::sync::Arc;

    #[test]
    fn partners_are_of_other_classes_and_every_row_is_used_once() {
        let labels = [0, 0, 0, 1, 1, 1, 1, 2];
        let synthesis = ProxySynthesis::default();
        let Mixes { share, pairs } = synthesis.mixes(&labels, 3);
        assert!((0.0..=1.0).contains(&share));
        let mut firsts: Vec<usize> = pairs.iter().map(|pair| pair[0]).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert!(pairs.iter().all(|pair| labels[pair[0]] != labels[pair[1]]));
        assert_eq!(synthesis.mixes(&labels, 3).pairs, pairs);
        assert_ne!(synthesis.mixes(&labels, 4).pairs, pairs);
        let half = ProxySynthesis { ratio: 0.5, ..synthesis };
        assert_eq!(half.mixes(&labels, 3).pairs.len(), 4);
        assert!(half.mixes(&[5; 4], 3).pairs.is_empty());
    }

    #[test]
    fn agrees_with_naive_loops_under_proxy_anchor() {
        let (dim, labels) = (5, [0u32, 0, 1, 2, 2, 1]);
        let (x, proxies) = (unit_rows(6, dim, 1), unit_rows(4, dim, 2).into_iter().map(|p| p * 3.0).collect::<Vec<_>>());
        let synthesis = ProxySynthesis { alpha: 1.0, ratio: 1.0 };
        let Mixes { share, pairs } = synthesis.mixes(&labels, 9);
        let unit = |row: Vec<f64>| {
            let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
            row.into_iter().map(|v| v / norm).collect::<Vec<f64>>()
        };
        let row = |values: &[f64], i: usize| unit(values[i * dim..(i + 1) * dim].to_vec());
        let mix = |a: Vec<f64>, b: Vec<f64>| unit(a.iter().zip(&b).map(|(a, b)| share * a + (1.0 - share) * b).collect());
        let mut rows: Vec<Vec<f64>> = (0..6).map(|i| row(&x, i)).collect();
        let mut centres: Vec<Vec<f64>> = (0..4).map(|c| row(&proxies, c)).collect();
        let mut classes = labels.to_vec();
        for (number, &[i, j]) in pairs.iter().enumerate() {
            rows.push(mix(row(&x, i), row(&x, j)));
            centres.push(mix(row(&proxies, labels[i] as usize), row(&proxies, labels[j] as usize)));
            classes.push(4 + number as u32);
        }
        let expected = proxy_anchor(&rows, &classes, &centres);

        let device = Device::flex().autodiff();
        let tensor = |values: &[f64], count: usize| {
            Tensor::<2>::from_data(crate::tensor::TensorData::new(values.to_vec(), [count, dim]), &device)
        };
        let loss = LossConfig::default().init(dim, 4, 0, &device).with_proxies(tensor(&proxies, 4));
        let labels: Arc<[u32]> = labels.into();
        let embeddings = tensor(&x, 6).require_grad();
        let augmented = synthesis.augment(&AugmentationInput {
            embeddings: embeddings.clone(),
            labels: &labels,
            loss: &loss,
            statistics: None,
            seed: 9,
        });
        let with = augmented.loss.unwrap();
        with.check(&augmented.comparison).unwrap();
        let value = with.forward(&augmented.comparison);
        near(scalar(&value), expected);
        // Gradients reach the proxies that the mixes are made of.
        let gradients = value.backward();
        let slope = loss.proxies().unwrap().grad(&gradients).unwrap();
        assert!(scalar(&slope.abs().sum()) > 0.0 && embeddings.grad(&gradients).is_some());
    }

    #[test]
    fn losses_it_does_not_fit_are_refused_by_name() {
        for (name, why) in [
            ("contrastive", "one proxy per class"),
            ("soft-triple", "one proxy per class"),
            ("curricularface", "keeps more than proxies"),
            ("large-margin-softmax", "lengths"),
        ] {
            let message = super::super::EmbeddingAugmentationConfig::ProxySynthesis(ProxySynthesis::default())
                .validate(&LossConfig::by_name(name).unwrap())
                .unwrap_err();
            assert!(message.contains(name) && message.contains(why), "{message}");
        }
        for name in ["proxy-anchor", "proxy-nca", "normalized-softmax", "cosface", "arcface"] {
            ProxySynthesis::default().fits(&LossConfig::by_name(name).unwrap()).unwrap();
        }
    }
}
