//! VICReg: two views agree, every axis varies, no two axes say the same.

use serde::{Deserialize, Serialize};

use super::{Accepts, DistanceNeed, LabelNeed, MetricLoss, MetricLossConfig, Support, Term, Unit, View, check};
use crate::batch::Comparison;
use crate::tensor::{Bool, Device, Module, Tensor, TensorData, activation};

/// Settings of [`VicRegLoss`]; defaults are the paper's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VicRegConfig {
    /// Weight of the squared difference of the views; 25.
    pub invariance_lambda: f64,
    /// Weight of the variance of axes; 25.
    pub variance_mu: f64,
    /// Weight of the covariance of axes; 1.
    pub covariance_v: f64,
    /// What is added to variances before the root; 0.0001.
    pub eps: f64,
}

impl Default for VicRegConfig {
    fn default() -> Self {
        Self {
            invariance_lambda: 25.0,
            variance_mu: 25.0,
            covariance_v: 1.0,
            eps: 1e-4,
        }
    }
}

impl MetricLossConfig for VicRegConfig {
    type Loss = VicRegLoss;
    const SUMMARY: &'static str = "two views: squared difference, standard deviation of axes below 1, covariance";
    const PAPER: &'static str =
        "Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, ICLR";
    const YEAR: u16 = 2022;
    const ACCEPTS: Accepts = Accepts {
        references: Support::Required,
        mined: Support::Refused,
        labels: LabelNeed::Nothing,
        distances: DistanceNeed::Nothing,
    };
    const TERMS: &'static [(&'static str, Unit)] = &[
        ("invariance-loss", Unit::Element),
        ("variance-loss1", Unit::Element),
        ("variance-loss2", Unit::Element),
        ("covariance-loss", Unit::Reduced),
    ];
    const LENGTHS_MATTER: bool = true;

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        let name = "vic-reg";
        check::not_negative(name, "invariance-lambda", self.invariance_lambda, default.invariance_lambda)?;
        check::not_negative(name, "variance-mu", self.variance_mu, default.variance_mu)?;
        check::not_negative(name, "covariance-v", self.covariance_v, default.covariance_v)?;
        check::above_zero(name, "eps", self.eps, default.eps)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> VicRegLoss {
        VicRegLoss { config: self.clone() }
    }
}

/// VICReg loss (Bardes et al., VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, ICLR
/// 2022), for two views of the same items: row `i` of the embeddings and row `i` of the references.
///
/// `lambda` times the mean squared difference of the views; `mu / 2` times the mean over axes of `[1 - sqrt(var + eps)]+`,
/// for each view; `v / dim` times the sum of squared covariances of different axes, for each view. Variances and
/// covariances over the batch, by `rows - 1` (0 for a single row, where pytorch-metric-learning gives NaN). Labels are not
/// looked at. No reducer touches the covariance; the others reduce rows and axes.
///
/// # Shapes
/// Embeddings and references `[batch, dim]`, as they are: not normalised. Memory: `batch x dim` and `dim x dim`.
#[derive(Module, Debug)]
pub struct VicRegLoss {
    #[module(skip)]
    config: VicRegConfig,
}

impl MetricLoss for VicRegLoss {
    fn check(&self, comparison: &Comparison) -> Result<(), String> {
        let (anchors, references) = (comparison.anchors.len(), comparison.reference_set().len());
        if anchors == references {
            return Ok(());
        }
        Err(format!(
            "the loss vic-reg compares two views of the same items row by row, but there are {anchors} embeddings and \
             {references} reference embeddings; give as many."
        ))
    }

    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let VicRegConfig {
            invariance_lambda,
            variance_mu,
            covariance_v,
            eps,
        } = self.config;
        let (first, second) = (view.anchors(), view.references());
        let difference = (first.clone() - second.clone()).square().mean_dim(1);
        let mut terms = vec![Term::elements("invariance-loss", difference.mul_scalar(invariance_lambda))];
        let mut covariances = view.zero();
        for (name, rows) in [("variance-loss1", first), ("variance-loss2", second)] {
            let [count, dim] = rows.dims();
            let over = (count.saturating_sub(1).max(1) as f64).recip();
            let centred = rows.clone() - rows.mean_dim(0);
            let variance = centred.clone().square().sum_dim(0).mul_scalar(over).transpose(); // [dim, 1]
            let deviation = variance.add_scalar(eps).sqrt();
            let missing = activation::relu(deviation.neg().add_scalar(1.0)).mul_scalar(0.5 * variance_mu);
            terms.push(Term::elements(name, missing).of_no_item());
            let covariance = centred.clone().transpose().matmul(centred).mul_scalar(over);
            let between = covariance.mask_fill(diagonal(dim, view), 0.0).square().sum();
            covariances = covariances + between.mul_scalar(covariance_v / dim.max(1) as f64);
        }
        terms.push(Term::reduced("covariance-loss", covariances));
        terms
    }
}

fn diagonal(dim: usize, view: &View<'_>) -> Tensor<2, Bool> {
    let values: Vec<bool> = (0..dim * dim).map(|cell| cell / dim == cell % dim).collect();
    Tensor::from_data(TensorData::new(values, [dim, dim]), &view.anchors().device().inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::ItemSet;
    use crate::losses::LossConfig;
    use crate::losses::testing::{matrix, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let views = [
            [[0.2f64, 1.0], [0.5, -0.3], [-0.1, 0.4]],
            [[0.1, 2.5], [0.7, -0.2], [-0.4, 0.9]],
        ];
        let (lambda, mu, v, eps) = (3.0, 2.0, 0.5, 0.01);
        let mut expected = 0.0;
        for (a, b) in views[0].iter().zip(&views[1]) {
            expected += lambda * ((a[0] - b[0]).powi(2) + (a[1] - b[1]).powi(2)) / 6.0;
        }
        for rows in &views {
            let mean = [0, 1].map(|axis| rows.iter().map(|row| row[axis]).sum::<f64>() / 3.0);
            let product = |i: usize, j: usize| {
                let products = rows.iter().map(|row| (row[i] - mean[i]) * (row[j] - mean[j]));
                products.sum::<f64>() / 2.0
            };
            for axis in 0..2 {
                expected += mu / 2.0 * (1.0 - (product(axis, axis) + eps).sqrt()).max(0.0) / 2.0;
            }
            expected += v * 2.0 * product(0, 1).powi(2) / 2.0;
        }
        let config = VicRegConfig {
            invariance_lambda: lambda,
            variance_mu: mu,
            covariance_v: v,
            eps,
        };
        let set = |rows: &[[f64; 2]; 3]| {
            let values = rows.iter().flatten().map(|&value| value as f32).collect();
            ItemSet::new(matrix(values, [3, 2]), vec![0, 0, 0])
        };
        let loss = LossConfig::from(config).init(2, 1, 0, &Device::flex());
        let comparison = Comparison::with_references(set(&views[0]), set(&views[1]));
        loss.check(&comparison).expect("fits");
        near(scalar(&loss.forward(&comparison)), expected);
    }

    #[test]
    fn a_single_view_and_unequal_views_are_refused() {
        let set = |rows: usize| ItemSet::new(matrix(vec![0.5; rows * 2], [rows, 2]), vec![0; rows]);
        let loss = LossConfig::from(VicRegConfig::default()).init(2, 1, 0, &Device::flex());
        let message = loss.check(&Comparison::within(set(3))).expect_err("one view");
        assert!(message.contains("vic-reg"), "{message}");
        let unequal = Comparison::with_references(set(3), set(2));
        assert!(loss.check(&unequal).expect_err("unequal").contains("3 embeddings and 2"));
    }
}
