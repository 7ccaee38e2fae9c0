//! Centroid triplet: an anchor closer to the centroid of its class than to those of others.

use serde::{Deserialize, Serialize};

use super::rows::ratio;
use super::{Accepts, LabelNeed, MetricLoss, MetricLossConfig, ReducerConfig, Support, Term, Unit, View, check};
use crate::distances::{self, DistanceConfig};
use crate::numerics::normalize;
use crate::tensor::{Device, Module, Tensor, TensorData, activation};

/// Settings of [`CentroidTripletLoss`]; the default is gradus' own, for other distances than the authors' (see there).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct CentroidTripletConfig {
    /// How much farther the other centroid must be; 0.3, for squared distances between normalised rows.
    pub margin: f64,
}

impl Default for CentroidTripletConfig {
    fn default() -> Self {
        Self { margin: 0.3 }
    }
}

impl MetricLossConfig for CentroidTripletConfig {
    type Loss = CentroidTripletLoss;
    const SUMMARY: &'static str = "anchors closer to the centroid of their class than to those of others, by a margin";
    const PAPER: &'static str =
        "Wieczorek et al., On the Unreasonable Effectiveness of Centroids in Image Retrieval, ICONIP";
    const YEAR: u16 = 2021;
    const ACCEPTS: Accepts = Accepts {
        mined: Support::Refused,
        labels: LabelNeed::Classes,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Pair)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::SQUARED_EUCLIDEAN
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::AVG_NON_ZERO
    }

    fn validate(&self) -> Result<(), String> {
        check::finite("centroid-triplet", "margin", self.margin, Self::default().margin)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> CentroidTripletLoss {
        CentroidTripletLoss { config: self.clone() }
    }
}

/// Centroid triplet loss (Wieczorek et al., On the Unreasonable Effectiveness of Centroids in Image Retrieval, ICONIP 2021),
/// over all other classes of the batch.
///
/// With `c_own` the mean of the normalised embeddings of an anchor's class without the anchor itself and `c` that of another
/// class: `[d(a, c_own) - d(a, c) + margin]+` with squared Euclidean distances of normalised rows (centroids too; the paper
/// does not normalise); mean over the non-zero pairs of anchor and other class. An anchor alone in its class has none. With a
/// similarity the difference turns around.
///
/// The authors' program takes a margin of 0.5 between Euclidean distances of features that are not normalised, and for each
/// query the nearest other centroid or query of its round only: `distance = { lp = { normalize = false } }` and
/// `margin = 0.5` come near. It adds a triplet loss, a centre loss and cross entropy.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `batch x references`.
#[derive(Module, Debug)]
pub struct CentroidTripletLoss {
    #[module(skip)]
    config: CentroidTripletConfig,
}

impl MetricLoss for CentroidTripletLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let pairs = view.pairs();
        if pairs.triplet_total() == 0.0 {
            return vec![];
        }
        let references = view.comparison().reference_set().labels.classes();
        let (anchors, references) = (view.classes(), references.map_or(&[][..], |classes| &**classes));
        let mut known: Vec<u32> = references.to_vec();
        known.sort_unstable();
        known.dedup();
        let table = |rows: usize, columns: usize, entry: &dyn Fn(usize, usize) -> f64| {
            let values: Vec<f64> = (0..rows * columns)
                .map(|cell| entry(cell / columns, cell % columns))
                .collect();
            let options = (&pairs.positive.device(), pairs.positive.dtype());
            Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), options)
        };
        let rows = normalize(view.references());
        let mean = |members: Tensor<2>| {
            let shape = [members.dims()[0], rows.dims()[1]];
            let count = members.clone().sum_dim(1).expand(shape);
            ratio(members.matmul(rows.clone()), count)
        };
        let member = |class: usize, row: usize| f64::from(u8::from(references[row] == known[class]));
        let centroids = mean(table(known.len(), references.len(), &member)); // [classes, dim]
        let own = mean(pairs.positive.clone()); // [anchors, dim]
        let unit = normalize(view.anchors());
        let to_others = distances::matrix(view.distance(), unit.clone(), Some(centroids)); // [anchors, classes]
        let count = anchors.len();
        let itself = table(count, count, &|row, column| f64::from(u8::from(row == column)));
        let to_own = (distances::matrix(view.distance(), unit, Some(own)) * itself).sum_dim(1); // [anchors, 1]
        let shape = to_others.dims();
        let costs = activation::relu(
            view.margin(to_own.expand(shape), to_others)
                .add_scalar(self.config.margin),
        );
        let weights = table(count, known.len(), &|row, class| {
            f64::from(u8::from(
                known[class] != anchors[row] && pairs.positive_counts[row] > 0.0,
            ))
        });
        vec![Term::pairs("loss", costs, weights)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, near, scalar};

    #[test]
    fn agrees_with_naive_loops() {
        let angles = [0.0f64, 0.5, 1.2, 2.0, 2.1, 0.9, 3.0];
        let labels = [0, 1, 0, 1, 0, 2, 0];
        let margin = 0.5;
        let mut costs = vec![];
        for a in (0..7).filter(|&a| labels[a] != 2) {
            let distance = |class: u32| {
                let members: Vec<usize> = (0..7).filter(|&i| i != a && labels[i] == class).collect();
                let x: f64 = members.iter().map(|&i| angles[i].cos()).sum();
                let y: f64 = members.iter().map(|&i| angles[i].sin()).sum();
                let cosine = (x * angles[a].cos() + y * angles[a].sin()) / x.hypot(y);
                2.0 - 2.0 * cosine
            };
            for other in (0..3).filter(|&class| class != labels[a]) {
                costs.push((distance(labels[a]) - distance(other) + margin).max(0.0));
            }
        }
        let active: Vec<f64> = costs.into_iter().filter(|&cost| cost > 0.0).collect();
        assert!(active.len() > 3);
        let loss = LossConfig::from(CentroidTripletConfig { margin }).init(2, 3, 0, &Device::flex());
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels))),
            active.iter().sum::<f64>() / active.len() as f64,
        );
    }
}
