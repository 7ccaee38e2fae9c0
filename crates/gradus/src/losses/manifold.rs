//! Manifold similarity: random walks over the batch and a few proxies, each the centre of a meta-class.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::softmax::own_entries;
use super::{Accepts, MetricLoss, MetricLossConfig, Support, Term, Unit, View, check};
use crate::batch::Comparison;
use crate::distances::{self, DistanceConfig};
use crate::initial;
use crate::numerics::{cosine_matrix, log_one_plus_sum_exp};
use crate::tensor::{Bool, Device, Module, Param, Tensor, TensorData};

/// Settings of [`ManifoldLoss`]; defaults are those of pytorch-metric-learning and of the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ManifoldConfig {
    /// Width of the embeddings; that of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l: Option<usize>,
    /// Number of proxies, which is the number of meta-classes; 50.
    pub k: usize,
    /// Weight of the context part, at least 0; 1.
    pub lambda_c: f64,
    /// How far similarity spreads in the random walk, above 0 and below 1; 0.8.
    pub alpha: f64,
    /// By how much the own proxy must be more similar than another; 0.0005.
    pub margin: f64,
}

impl Default for ManifoldConfig {
    fn default() -> Self {
        Self {
            l: None,
            k: 50,
            lambda_c: 1.0,
            alpha: 0.8,
            margin: 5e-4,
        }
    }
}

impl MetricLossConfig for ManifoldConfig {
    type Loss = ManifoldLoss;
    const SUMMARY: &'static str = "random-walk similarity to the proxies of meta-classes, of items and of their neighbourhoods";
    const PAPER: &'static str =
        "Aziere and Todorovic, Ensemble Deep Manifold Similarity Learning using Hard Proxies, CVPR";
    const YEAR: u16 = 2019;
    const ACCEPTS: Accepts = Accepts {
        mined: Support::Refused,
        ..Accepts::PROXIES
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Reduced)];

    fn examples() -> Vec<Self> {
        let few = Self {
            k: 3,
            margin: 0.01,
            ..Self::default()
        };
        vec![Self::default(), few]
    }

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        let name = "manifold";
        check::count(name, "k", self.k, default.k)?;
        check::not_negative(name, "lambda-c", self.lambda_c, default.lambda_c)?;
        check::above_zero(name, "alpha", self.alpha, default.alpha)?;
        check::within(name, "alpha", self.alpha, default.alpha, [0.0, 1.0])?;
        check::finite(name, "margin", self.margin, default.margin)
    }

    fn init(&self, dim: usize, _classes: usize, seed: u64, device: &Device) -> ManifoldLoss {
        ManifoldLoss {
            proxies: initial::normal([self.k, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// Manifold loss (Aziere and Todorovic, Ensemble Deep Manifold Similarity Learning using Hard Proxies, CVPR 2019).
///
/// Batch and `k` proxies are the nodes of a graph with edges `exp(2 [cosine]+)`, none from a node to itself; `S` is its
/// matrix divided by the roots of the degrees of both ends, and `F = (1 - alpha) (I - alpha S)^-1` the similarity by random
/// walks. With `f` the entries of `F` between items and proxies, and `g` the cosines between the rows of `F` of items and of
/// proxies (the similarity of their neighbourhoods), each for its own proxy `m`: mean over the batch of
/// `log(1 + sum of exp(f_p - f_m + margin) over the proxies p for which that is at least 0)`, plus `lambda-c` times the same
/// of `g`.
///
/// The meta-class of an item, hence its own proxy, is its label modulo `k`: the label itself where there are at least as many
/// proxies as classes. pytorch-metric-learning takes meta-classes in place of mined tuples and else draws them at random for
/// every batch; it inverts in single precision; its `lambda-c` of infinity gives an infinite loss and is refused here.
///
/// The inverse comes from repeated squaring (`alpha` below 1 makes the series converge), its slope from the inverse itself, so
/// the tape holds no steps of the iteration. Proxies start standard normal.
///
/// # Shapes
/// Embeddings `[batch, dim]`, proxies `[k, dim]`; neither needs unit norm. Memory: a few `(batch + k) x (batch + k)`.
#[derive(Module, Debug)]
pub struct ManifoldLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: ManifoldConfig,
}

impl MetricLoss for ManifoldLoss {
    fn check(&self, comparison: &Comparison) -> Result<(), String> {
        let [_, width] = comparison.anchors.embeddings.dims();
        match self.config.l {
            Some(l) if l != width => Err(format!(
                "loss.manifold.l is {l}, but the embeddings have width {width}; leave it out."
            )),
            _ => Ok(()),
        }
    }

    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let ManifoldConfig {
            lambda_c,
            alpha,
            margin,
            ..
        } = self.config;
        let proxies = self.proxies.val();
        let [count, _] = proxies.dims();
        let own = meta_class_mask(view, count);
        let [batch, _] = own.dims();
        let nodes = Tensor::cat(vec![view.anchors(), proxies], 0);
        let itself = diagonal(batch + count, view);
        let similarities = distances::matrix(view.distance(), nodes, None);
        let edges = similarities
            .clamp_min(0.0)
            .mul_scalar(2.0)
            .exp()
            .mask_fill(itself.clone(), 0.0);
        let roots = edges.clone().sum_dim(1).sqrt().recip(); // degrees are at least 1
        let walk = (edges * roots.clone() * roots.transpose()).mul_scalar(alpha);
        let spread = inverse(walk, itself, alpha).mul_scalar(1.0 - alpha);
        let of_items = spread.clone().narrow(0, 0, batch);
        let of_proxies = spread.narrow(0, batch, count);
        let intrinsic = of_items.clone().narrow(1, batch, count); // [batch, k]
        let context = cosine_matrix(of_items, of_proxies); // [batch, k]
        let cost = |similarity: Tensor<2>| {
            let behind = similarity.clone() - own_entries(&similarity, &own);
            let behind = behind.add_scalar(margin);
            let costs_nothing = behind.clone().without_autodiff().lower_scalar(0.0);
            let counts = costs_nothing.bool_or(own.clone()).bool_not();
            log_one_plus_sum_exp(behind, Some(counts)).mean()
        };
        vec![Term::reduced(
            "loss",
            cost(intrinsic) + cost(context).mul_scalar(lambda_c),
        )]
    }

    fn parameters(&self) -> Option<Tensor<2>> {
        Some(self.proxies.val())
    }

    fn with_parameters(self, parameters: Tensor<2>) -> Self {
        Self {
            proxies: replaced(self.proxies, &parameters),
            config: self.config,
        }
    }
}

/// True where the column is the meta-class of the row, `[batch, count]`.
fn meta_class_mask(view: &View<'_>, count: usize) -> Tensor<2, Bool> {
    let labels = view.classes();
    let mut values = vec![false; labels.len() * count];
    for (row, &label) in labels.iter().enumerate() {
        values[row * count + label as usize % count] = true;
    }
    let data = TensorData::new(values, [labels.len(), count]);
    Tensor::from_data(data, &view.anchors().device().inner())
}

fn diagonal(size: usize, view: &View<'_>) -> Tensor<2, Bool> {
    let values: Vec<bool> = (0..size * size).map(|cell| cell / size == cell % size).collect();
    Tensor::from_data(TensorData::new(values, [size, size]), &view.anchors().device().inner())
}

/// `(I - walk)^-1` of a matrix whose spectral radius is at most `alpha < 1`.
fn inverse(walk: Tensor<2>, diagonal: Tensor<2, Bool>, alpha: f64) -> Tensor<2> {
    // I + M + M^2 + ... = (I + M)(I + M^2)(I + M^4)...; stops when what is left out is below any precision.
    let mut power = walk.clone().without_autodiff();
    let identity = power.zeros_like().mask_fill(diagonal, 1.0);
    let mut sum = identity.clone() + power.clone();
    let steps = (1e-18_f64.ln() / alpha.ln()).max(2.0).log2().ceil() as usize;
    for _ in 1..steps {
        power = power.clone().matmul(power);
        sum = sum.clone() + sum.matmul(power.clone());
    }
    // d(A^-1) = -A^-1 dA A^-1: this has the value of the inverse (an error of it squared) and its slope.
    let applied = sum.clone() - walk.matmul(sum.clone());
    sum.clone().mul_scalar(2.0) - sum.matmul(applied)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::EmbeddingBatch;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, directions, matrix, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0], [0_u32, 3, 1, 2, 1]);
        let proxies = [0.3f64, 2.0, 1.0];
        let (alpha, margin, lambda_c) = (0.6, 0.02, 0.7);
        let nodes: Vec<f64> = angles.iter().chain(&proxies).copied().collect();
        let size = nodes.len();
        let edge = |i: usize, j: usize| {
            if i == j {
                0.0
            } else {
                (2.0 * (nodes[i] - nodes[j]).cos().max(0.0)).exp()
            }
        };
        let degree = |i: usize| (0..size).map(|j| edge(i, j)).sum::<f64>();
        // Random walks summed one step at a time.
        let mut spread = vec![vec![0.0; size]; size];
        for (start, row) in spread.iter_mut().enumerate() {
            let mut now = vec![0.0; size];
            now[start] = 1.0 - alpha;
            for _ in 0..200 {
                row.iter_mut().zip(&now).for_each(|(sum, value)| *sum += value);
                now = (0..size)
                    .map(|j| {
                        let arriving = (0..size).map(|i| now[i] * edge(i, j) / (degree(i) * degree(j)).sqrt());
                        alpha * arriving.sum::<f64>()
                    })
                    .collect();
            }
        }
        let cosine = |a: &[f64], b: &[f64]| {
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        let mut expected = 0.0;
        for (item, label) in labels.iter().enumerate() {
            let own = *label as usize % 3;
            let cost = |similarity: &dyn Fn(usize) -> f64| {
                let behind = (0..3)
                    .filter(|&p| p != own)
                    .map(|p| similarity(p) - similarity(own) + margin);
                (1.0 + behind.filter(|x| *x >= 0.0).map(f64::exp).sum::<f64>()).ln() / 5.0
            };
            expected += cost(&|p| spread[item][5 + p]);
            expected += lambda_c * cost(&|p| cosine(&spread[item], &spread[5 + p]));
        }
        let config = ManifoldConfig {
            l: Some(2),
            k: 3,
            lambda_c,
            alpha,
            margin,
        };
        let loss = LossConfig::from(config).init(2, 4, 0, &Device::flex());
        let loss = loss.with_parameters(directions(&proxies, 3.0));
        near(scalar(&loss.forward_batch(&circle(&angles, &labels))), expected);
        let wide = EmbeddingBatch::new(matrix(vec![1.0; 9], [3, 3]), vec![0, 1, 2]);
        let message = loss.check(&Comparison::within(&wide)).expect_err("width 3");
        assert!(message.contains("loss.manifold.l is 2"), "{message}");
    }
}
