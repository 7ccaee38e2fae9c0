//! The anchor loss: the outermost ring must stay inside the class.

use serde::{Deserialize, Serialize};

use crate::numerics::log_one_plus_sum_exp;
use crate::tensor::Tensor;

/// The anchor loss; section `[intra-class.anchor]`.
///
/// `L(i) = 1/alpha * log(1 + sum_j exp(alpha (m - s(q(x_i^j), q(P_{y_i})))))` (arXiv 2304.10941): every generated sample is
/// held at the proxy of its class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AnchorConfig {
    /// Sharpness `alpha`. Default 32, Proxy-Anchor's.
    pub alpha: f64,
    /// Least similarity `m` to the proxy. Default 0.1, Proxy-Anchor's.
    pub margin: f64,
    /// Only the last selected sample of each class counts, as in the paper's released code. Default false.
    pub last_of_class: bool,
    /// Whether the logarithm is divided by `alpha`; the paper's released code does not. Default true.
    pub divide_by_alpha: bool,
}

impl Default for AnchorConfig {
    fn default() -> Self {
        Self {
            alpha: 32.0,
            margin: 0.1,
            last_of_class: false,
            divide_by_alpha: true,
        }
    }
}

impl AnchorConfig {
    /// The loss of every row.
    ///
    /// # Shapes
    /// `similarities` of the levels to the proxy of the class `[n, levels]`; result `[n, 1]`.
    #[must_use]
    pub fn loss(&self, similarities: Tensor<2>) -> Tensor<2> {
        let violation = similarities.neg().add_scalar(self.margin).mul_scalar(self.alpha);
        let loss = log_one_plus_sum_exp(violation, None);
        if self.divide_by_alpha {
            loss.mul_scalar(1.0 / self.alpha)
        } else {
            loss
        }
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return Err(format!(
                "intra-class.anchor.alpha is {}: expected a positive number",
                self.alpha
            ));
        }
        if !self.margin.is_finite() {
            return Err(format!(
                "intra-class.anchor.margin is {}: expected a finite number",
                self.margin
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tensor::Device;

    #[test]
    fn equals_plain_loops() {
        let rows = [[0.9f32, 0.5, 0.1], [-1.0, -0.5, 0.0], [1.0, 1.0, 1.0]];
        for divide_by_alpha in [true, false] {
            for (alpha, margin) in [(32.0, 0.1), (4.0, 0.6)] {
                let config = AnchorConfig {
                    alpha,
                    margin,
                    divide_by_alpha,
                    last_of_class: false,
                };
                let got = config
                    .loss(Tensor::from_data(rows, &Device::flex()))
                    .try_into_vec_as::<f64>()
                    .unwrap();
                for (row, got) in rows.iter().zip(got) {
                    let sum: f64 = row.iter().map(|&s| (alpha * (margin - f64::from(s))).exp()).sum();
                    let expected = (1.0 + sum).ln() / if divide_by_alpha { alpha } else { 1.0 };
                    assert!(
                        (got - expected).abs() < 1e-5 * expected.max(1.0),
                        "{got}, not {expected}"
                    );
                }
            }
        }
    }
}
