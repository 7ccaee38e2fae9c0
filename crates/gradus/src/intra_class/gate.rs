//! The gate: only samples already on the side of their class make sensible sources of generated ones.

use serde::{Deserialize, Serialize};

use super::arithmetic::ones_where;
use crate::numerics::normalize;
use crate::tensor::Tensor;

/// What decides whether a sample is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GateKind {
    /// `s(x_i, P_{y_i}) >= threshold`, the cosine to the own proxy (arXiv 2304.10941).
    #[default]
    Cosine,
    /// `x_i . P_{y_i} >= threshold` with the proxy as it is: its strictness depends on the proxy's norm. This is what the
    /// paper's released code computes.
    RawProduct,
    /// Every sample is used.
    None,
    /// `s(x_i, P_{y_i}) < threshold`: a control, the samples the paper throws away.
    Inverted,
}

/// The gate and its threshold; section `[intra-class.gate]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct GateConfig {
    /// What decides. Default `cosine`.
    pub kind: GateKind,
    /// Least (for `inverted`: unreached) similarity to the own proxy. Default 0.05, the paper's.
    pub threshold: f64,
}

impl Default for GateConfig {
    fn default() -> Self {
        Self {
            kind: GateKind::Cosine,
            threshold: 0.05,
        }
    }
}

impl GateConfig {
    /// Whether deciding needs the proxy of each sample, hence its class.
    #[must_use]
    pub fn needs_proxies(&self) -> bool {
        self.kind != GateKind::None
    }

    /// 1 for every row that may be used and 0 for the others, outside autodiff: no value is read back to the host.
    ///
    /// # Shapes
    /// `embeddings` and `own_proxies` (row i: the proxy of the class of sample i) `[b, d]`; result `[b, 1]`.
    #[must_use]
    pub fn mask(&self, embeddings: &Tensor<2>, own_proxies: &Tensor<2>) -> Tensor<2> {
        let x = embeddings.clone().without_autodiff();
        let proxies = own_proxies.clone().without_autodiff();
        let similarity = match self.kind {
            GateKind::Cosine | GateKind::Inverted => (normalize(x) * normalize(proxies)).sum_dim(1),
            GateKind::RawProduct => (x * proxies).sum_dim(1),
            GateKind::None => return x.sum_dim(1).ones_like(),
        };
        let selected = match self.kind {
            GateKind::Inverted => similarity.clone().lower_elem(self.threshold),
            _ => similarity.clone().greater_equal_elem(self.threshold),
        };
        ones_where(selected, &similarity)
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        if self.threshold.is_finite() {
            Ok(())
        } else {
            Err(format!(
                "intra-class.gate.threshold is {}: expected a finite number",
                self.threshold
            ))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::tensor::{Device, TensorData};

    fn tensor(values: Vec<f32>) -> Tensor<2> {
        let rows = values.len() / 2;
        Tensor::from_data(TensorData::new(values, [rows, 2]), &Device::flex())
    }

    fn selected(kind: GateKind, threshold: f64) -> Vec<f32> {
        // Cosines to the proxies: 1, 0.6, 0, -1, 0.6; raw products: 10, 0.06, 0, -2, 60.
        let x = tensor(vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0, -1.0, 0.0, 0.6, 0.8]);
        let proxies = tensor(vec![10.0, 0.0, 0.1, 0.0, 3.0, 0.0, 2.0, 0.0, 100.0, 0.0]);
        GateConfig { kind, threshold }
            .mask(&x, &proxies)
            .try_into_vec_as()
            .unwrap()
    }

    #[test]
    fn each_kind_selects_what_it_says() {
        assert_eq!(selected(GateKind::Cosine, 0.5), [1.0, 1.0, 0.0, 0.0, 1.0]);
        assert_eq!(selected(GateKind::Cosine, 0.0), [1.0, 1.0, 1.0, 0.0, 1.0]);
        assert_eq!(selected(GateKind::RawProduct, 0.5), [1.0, 0.0, 0.0, 0.0, 1.0]);
        assert_eq!(selected(GateKind::Inverted, 0.5), [0.0, 0.0, 1.0, 1.0, 0.0]);
        assert_eq!(selected(GateKind::None, 0.5), [1.0; 5]);
    }

    #[test]
    fn inverted_is_the_complement_of_cosine() {
        for threshold in [-2.0, -0.3, 0.0, 0.05, 0.6, 2.0] {
            let pairs = selected(GateKind::Cosine, threshold)
                .into_iter()
                .zip(selected(GateKind::Inverted, threshold));
            assert!(pairs.into_iter().all(|(cosine, inverted)| cosine + inverted == 1.0));
        }
    }

    #[test]
    fn the_raw_gate_depends_on_the_norm_of_the_proxy_and_the_cosine_gate_does_not() {
        let x = tensor(vec![0.6, 0.8]);
        for (norm, expected) in [(0.01f32, [1.0f32, 0.0]), (100.0, [1.0, 1.0])] {
            let proxy = tensor(vec![norm, 0.0]);
            let cosine = GateConfig::default().mask(&x, &proxy).try_into_vec_as::<f32>().unwrap();
            let raw = GateConfig {
                kind: GateKind::RawProduct,
                threshold: 0.05,
            };
            let raw = raw.mask(&x, &proxy).try_into_vec_as::<f32>().unwrap();
            assert_eq!([cosine[0], raw[0]], expected);
        }
    }
}
