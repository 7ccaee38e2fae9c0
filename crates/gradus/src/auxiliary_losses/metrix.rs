//! Metrix: mixes of a positive and a negative are partly positive, partly negative.

use gradus_core::random::{self, Rng, purpose};
use rand_distr::Beta;
use serde::{Deserialize, Serialize};

use super::{AuxiliaryInput, AuxiliaryLossConfig, AuxiliaryModule, AuxiliaryShape, refuse, weight};
use crate::batch::{Comparison, ItemSet};
use crate::intra_class::arithmetic::{constant, indices};
use crate::numerics::{gram, normalize, safe_sqrt};
use crate::tensor::{Module, Tensor, TensorData, activation};

/// Settings of [`Metrix`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct MetrixConfig {
    /// Weight beside the base loss. Default 0.4, the authors'.
    pub weight: f64,
    /// Both parameters of the Beta distribution the shares are drawn from. Default 2, the authors'.
    pub alpha: f64,
    /// Cosine that a negative may keep. Default 0.5, ours.
    pub margin: f64,
}

impl Default for MetrixConfig {
    fn default() -> Self {
        Self {
            weight: 0.4,
            alpha: 2.0,
            margin: 0.5,
        }
    }
}

impl AuxiliaryLossConfig for MetrixConfig {
    type Module = Metrix;
    const SUMMARY: &'static str = "mixes of a positive and a negative are partly one, partly the other";
    const PAPER: &'static str = "Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR";
    const YEAR: u16 = 2022;

    fn validate(&self) -> Result<(), String> {
        weight("metrix", self.weight)?;
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse("metrix", "alpha", self.alpha, "a number above 0; 2 is usual");
        }
        if !(-1.0..=1.0).contains(&self.margin) {
            return refuse("metrix", "margin", self.margin, "a cosine between -1 and 1");
        }
        Ok(())
    }

    fn init(&self, _shape: &AuxiliaryShape<'_>) -> Metrix {
        Metrix { config: self.clone() }
    }
}

/// Metrix in its contrastive form (Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR
/// 2022), on embeddings.
///
/// For an anchor `a`, a positive `p` and any negative `n`, with `v = unit(t p + (1 - t) n)` and `s` its cosine to
/// `a`: `weight * mean over (a, p, n) of [ -t s + (1 - t) max(s - margin, 0) ]`. The share `t ~ Beta(alpha, alpha)`
/// is drawn for each pair `(a, p)`; the same pair has the same share with all negatives. It stands beside any base
/// loss.
///
/// # Shapes
/// Embeddings `[b, d]`. Mixes are never made: their cosines follow from those of the rows. Memory: a few `b x
/// positives x b`.
#[derive(Module, Debug)]
pub struct Metrix {
    #[module(skip)]
    config: MetrixConfig,
}

impl Metrix {
    /// The share of the positive in each mix, `[count]`.
    fn shares(&self, count: usize, seed: u64) -> Vec<f64> {
        let mut stream = random::stream(seed, &[purpose::AUGMENTED_EMBEDDINGS, 2]);
        match Beta::new(self.config.alpha, self.config.alpha) {
            Ok(beta) => (0..count).map(|_| stream.sample(beta)).collect(),
            // Settings that passed `validate` make a distribution.
            Err(_) => vec![0.5; count],
        }
    }
}

impl AuxiliaryModule for Metrix {
    fn forward(&self, input: &AuxiliaryInput<'_>) -> Result<Tensor<1>, String> {
        let x = normalize(input.embeddings.clone());
        let [rows, _] = x.dims();
        let pairs = Comparison::within(ItemSet::new(x.clone(), input.labels.to_vec())).pairs();
        let positives: Vec<Vec<usize>> = pairs
            .positive_host
            .chunks(rows.max(1))
            .map(|row| (0..rows).filter(|&other| row[other] > 0.0).collect())
            .collect();
        let width = positives.iter().map(Vec::len).max().unwrap_or(0);
        let count = pairs.triplet_total();
        if count == 0.0 {
            return Ok(x.sum().mul_scalar(0.0));
        }
        // Anchors with fewer positives have themselves, at weight 0.
        let slots = || positives.iter().enumerate().flat_map(|(row, own)| (0..width).map(move |slot| own.get(slot).copied().ok_or(row)));
        let index: Vec<usize> = slots().map(|slot| slot.unwrap_or_else(|row| row)).collect();
        let exists: Vec<f64> = slots().map(|slot| f64::from(u8::from(slot.is_ok()))).collect();
        let of_pairs = |values: Vec<f64>| constant::<3, 2>(TensorData::new(values, [rows, width, 1]), &x);
        let shares = of_pairs(self.shares(rows * width, input.seed));
        let rest = shares.clone().neg().add_scalar(1.0);

        let cosines = gram(x.clone()); // [b, b]
        let flat = indices(index.iter().copied(), [rows * width], &x);
        let to_positive = cosines
            .clone()
            .gather(1, indices(index, [rows, width], &x))
            .unsqueeze_dim::<3>(2); // [b, w, 1]
        let between = cosines.clone().select(0, flat).reshape([rows, width, rows]); // positive to negative
        let product = shares.clone() * to_positive + rest.clone() * cosines.unsqueeze_dim::<3>(1); // [b, w, b]
        let square = shares.clone().square() + rest.clone().square()
            + (shares.clone() * rest.clone()).mul_scalar(2.0) * between;
        let s = product / safe_sqrt(square).clamp_min(1e-6);
        let cost = rest * activation::relu(s.clone().sub_scalar(self.config.margin)) - shares * s;
        let weights = of_pairs(exists) * pairs.negative.unsqueeze_dim::<3>(1);
        Ok((cost * weights).sum().mul_scalar(self.config.weight / count))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::embedding_augmentation::testing::unit_rows;
    use crate::losses::testing::{near, scalar};
    use crate::tensor::Device;
    use std::sync::Arc;

    #[test]
    fn agrees_with_naive_loops() {
        let labels = [0u32, 1, 0, 0, 1, 2];
        let x = unit_rows(6, 4, 2);
        let metrix = Metrix {
            config: MetrixConfig {
                margin: 0.1,
                ..Default::default()
            },
        };
        let row = |i: usize| &x[i * 4..][..4];
        let width = 2; // the largest class has three members
        let shares = metrix.shares(6 * width, 5);
        assert!(shares.iter().all(|share| (0.0..=1.0).contains(share)));
        let (mut sum, mut count, mut pushed) = (0.0, 0.0, 0);
        for a in 0..6 {
            let positives = (0..6).filter(|&p| p != a && labels[p] == labels[a]);
            for (slot, p) in positives.enumerate() {
                let t = shares[a * width + slot];
                for n in (0..6).filter(|&n| labels[n] != labels[a]) {
                    let v: Vec<f64> = row(p).iter().zip(row(n)).map(|(p, n)| t * p + (1.0 - t) * n).collect();
                    let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt();
                    let s = row(a).iter().zip(&v).map(|(a, v)| a * v).sum::<f64>() / norm;
                    sum += -t * s + (1.0 - t) * (s - 0.1).max(0.0);
                    count += 1.0;
                    pushed += usize::from(s > 0.1);
                }
            }
        }
        assert!(pushed > 3);
        let device = Device::flex();
        let labels: Arc<[u32]> = labels.into();
        let value = |labels: &Arc<[u32]>| {
            metrix.forward(&AuxiliaryInput {
                embeddings: Tensor::from_data(TensorData::new(x.clone(), [6, 4]), &device),
                features: None,
                proxies: None,
                labels,
                mined: None,
                seed: 5,
            })
        };
        near(scalar(&value(&labels).unwrap()), 0.4 * sum / count);
        for labels in [vec![0u32; 6], vec![0, 1, 2, 3, 4, 5]] {
            assert_eq!(scalar(&value(&labels.into()).unwrap()), 0.0);
        }
    }
}
