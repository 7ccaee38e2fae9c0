//! Supervised contrastive: all positives of an anchor under one softmax over all others.

use serde::{Deserialize, Serialize};

use super::rows::{once, ratio, weighted_log_sum_exp, without_empty};
use super::{Accepts, MetricLoss, MetricLossConfig, ReducerConfig, Term, Unit, View, check};
use crate::distances::DistanceConfig;
use crate::tensor::{Device, Module};

/// Settings of [`SupConLoss`]; defaults are those of pytorch-metric-learning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SupConConfig {
    /// What cosines are divided by; 0.1.
    pub temperature: f64,
}

impl Default for SupConConfig {
    fn default() -> Self {
        Self { temperature: 0.1 }
    }
}

impl MetricLossConfig for SupConConfig {
    type Loss = SupConLoss;
    const SUMMARY: &'static str = "the positives of an anchor under one softmax over all others; shared labels weigh";
    const PAPER: &'static str = "Khosla et al., Supervised Contrastive Learning, NeurIPS";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts::PAIRS;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::AVG_NON_ZERO
    }

    fn validate(&self) -> Result<(), String> {
        check::above_zero("sup-con", "temperature", self.temperature, Self::default().temperature)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> SupConLoss {
        SupConLoss { config: self.clone() }
    }
}

/// Supervised contrastive loss (Khosla et al., Supervised Contrastive Learning, NeurIPS 2020; the sum over positives outside
/// of the logarithm).
///
/// With `z = cosine / temperature`, for each anchor: minus the mean over its positives `p` of
/// `z_p - log sum_j exp(z_j)`, over all its positives and negatives `j`; mean over the anchors above 0. An anchor without
/// positives is 0, and so is a batch without a positive or without a negative pair. A pair that was mined twice counts once.
///
/// Items with several labels, or levels of a hierarchy, are positives by degrees: the mean over positives is weighted by
/// the share of labels in common, and every item with any share stands once in the softmax.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct SupConLoss {
    #[module(skip)]
    config: SupConConfig,
}

impl MetricLoss for SupConLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = view.pairs();
        if pairs.positive_total() == 0.0 || pairs.negative_total() == 0.0 {
            return vec![];
        }
        let logits = view
            .as_similarity(view.distances())
            .mul_scalar(self.config.temperature.recip()); // [anchors, references]
        let others = once(&(pairs.positive.clone() + pairs.negative));
        let others = without_empty(weighted_log_sum_exp(logits.clone(), &others, 1)).0; // [anchors, 1]
        let weights = pairs.positive.clamp_max(1.0);
        let costs = ((others - logits) * weights.clone()).sum_dim(1);
        vec![Term::elements("loss", ratio(costs, weights.sum_dim(1)))]
    }
}

#[cfg(test)]
mod tests {
    use gradus_core::relations::Labels;

    use super::*;
    use crate::batch::{Comparison, ItemSet};
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn shared_labels_weigh() {
        let angles = [0.0f64, 0.5, 1.2, 2.0];
        let lists: [&[u32]; 4] = [&[0, 1], &[1], &[0, 1, 2], &[3]];
        let weight = |a: usize, b: usize| {
            let common = lists[a].iter().filter(|label| lists[b].contains(label)).count() as f64;
            common / (lists[a].len() as f64 + lists[b].len() as f64 - common)
        };
        let mut costs = vec![];
        for a in 0..3 {
            let others = || (0..4).filter(move |&b| b != a);
            let z = |b: usize| (angles[a] - angles[b]).cos() / 0.5;
            let sum: f64 = others().map(|b| z(b).exp()).sum();
            let total: f64 = others().map(|b| weight(a, b)).sum();
            costs.push(others().map(|b| weight(a, b) * (sum.ln() - z(b))).sum::<f64>() / total);
        }
        let rows = circle(&angles, &[0; 4]).embeddings;
        let labels: Vec<Vec<u32>> = lists.iter().map(|list| list.to_vec()).collect();
        let comparison = Comparison::within(ItemSet::new(rows, Labels::MultiLabel(labels.into())));
        let loss = LossConfig::from(SupConConfig { temperature: 0.5 }).init(2, 4, 0, &Device::flex());
        near(scalar(&loss.forward(&comparison)), costs.iter().sum::<f64>() / 3.0);
    }
}
