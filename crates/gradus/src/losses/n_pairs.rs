//! N-pairs: one positive pair per class, each against the positives of the others.

use serde::{Deserialize, Serialize};

use super::{Accepts, LabelNeed, MetricLoss, MetricLossConfig, Term, Unit, View};
use crate::batch::Mined;
use crate::distances::{self, DistanceConfig};
use crate::numerics::log_sum_exp;
use crate::tensor::{Device, Int, Module, Tensor, TensorData};

/// Settings of [`NPairsLoss`]: none; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NPairsConfig {}

impl MetricLossConfig for NPairsConfig {
    type Loss = NPairsLoss;
    const SUMMARY: &'static str = "one positive pair per class, each told from the positives of the other classes";
    const PAPER: &'static str = "Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NeurIPS";
    const YEAR: u16 = 2016;
    const ACCEPTS: Accepts = Accepts {
        labels: LabelNeed::Classes,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];
    // The first pair of each class counts.
    const ORDER_MATTERS: bool = true;

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::Dot { normalize: true }
    }

    fn validate(&self) -> Result<(), String> {
        Ok(())
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> NPairsLoss {
        NPairsLoss { config: self.clone() }
    }
}

/// N-pairs loss (Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NeurIPS 2016).
///
/// Takes one positive pair (a, p) of each class: the first of its first item, or the first that was mined. Cross entropy of
/// the similarities `s(a_i, p_j)` with target `j = i`: `log sum_j exp(s(a_i, p_j)) - s(a_i, p_i)`; mean over classes with a
/// pair. Similarities are inner products of normalised embeddings by default, as in pytorch-metric-learning; the paper does
/// not normalise (`distance = { dot = { normalize = false } }`). A distance counts as minus itself.
///
/// # Shapes
/// Embeddings `[batch, dim]`, references `[references, dim]`. Memory: `classes x classes`.

#[derive(Module, Debug)]
pub struct NPairsLoss {
    #[module(skip)]
    config: NPairsConfig,
}

impl MetricLoss for NPairsLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let NPairsConfig {} = self.config;
        let pairs = first_pairs(view);
        if pairs.is_empty() {
            return vec![];
        }
        let device = view.anchors().device().inner();
        let rows = |positions: Vec<i64>| -> Tensor<1, Int> {
            let count = positions.len();
            Tensor::from_data(TensorData::new(positions, [count]), &device)
        };
        let side = |end: usize| rows(pairs.iter().map(|pair| i64::from(pair[end])).collect());
        let (anchors, positives) = (view.anchors().select(0, side(0)), view.references().select(0, side(1)));
        let similarities = view.as_similarity(distances::matrix(view.distance(), anchors, Some(positives)));
        let own = Tensor::<1>::ones([pairs.len()], (&device, similarities.dtype()));
        let own = own
            .reshape([1, pairs.len()])
            .expand([pairs.len(), pairs.len()])
            .triu(0)
            .tril(0);
        let target = (similarities.clone() * own).sum_dim(1);
        let costs = log_sum_exp(similarities, 1) - target; // [pairs, 1]

        // Back to one value per anchor.
        let mut place = vec![0_i64; view.comparison().anchors.len()];
        let mut weights = vec![0.0; place.len()];
        for (position, &[anchor, _]) in pairs.iter().enumerate() {
            place[anchor as usize] = position as i64;
            weights[anchor as usize] = 1.0;
        }
        vec![Term::weighted_elements(
            "loss",
            costs.select(0, rows(place)),
            view.column(weights),
        )]
    }
}

/// The first positive pair of each class, by class.
fn first_pairs(view: &View<'_>) -> Vec<[u32; 2]> {
    let comparison = view.comparison();
    let classes = view.classes();
    let mut first = std::collections::BTreeMap::new();
    let mut add = |pair: [u32; 2]| {
        first.entry(classes[pair[0] as usize]).or_insert(pair);
    };
    match &comparison.mined {
        Some(Mined::Triplets(triplets)) => triplets.iter().for_each(|&[a, p, _]| add([a, p])),
        Some(Mined::Pairs(pairs)) => pairs.positive.iter().copied().for_each(add),
        None => {
            for anchor in 0..comparison.anchors.len() {
                let mut others = 0..comparison.reference_set().len();
                if let Some(positive) = others.find(|&other| comparison.relation(anchor, other).positive_weight() > 0.0)
                {
                    add([anchor as u32, positive as u32]);
                }
            }
        }
    }
    first.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 0.6, 2.0, 2.1, 4.0, 0.3];
        let labels = [1, 0, 1, 0, 2, 3, 2];
        let pairs = [[1, 3], [0, 2], [4, 6]];
        let mut expected = 0.0;
        for [a, p] in pairs {
            let s = |b: usize| (angles[a] - angles[b]).cos();
            let sum: f64 = pairs.iter().map(|&[_, other]| s(other).exp()).sum();
            expected += (sum.ln() - s(p)) / 3.0;
        }
        let loss = LossConfig::from(NPairsConfig::default()).init(2, 4, 0, &Device::flex());
        near(scalar(&loss.forward_batch(&circle(&angles, &labels))), expected);
    }
}
