//! Quadruplet loss: triplets, and positive pairs closer than pairs of two other classes.

use serde::{Deserialize, Serialize};

use super::{
    Accepts, Entries, LabelNeed, MetricLoss, MetricLossConfig, ReducerConfig, Term, TripletCost, Triplets, TripletsPerAnchor,
    Unit, View, check,
};
use crate::distances::DistanceConfig;
use crate::tensor::{Bool, Device, Int, Module, Tensor, TensorData, activation};

/// Farther than any distance (or less alike than any similarity): a pair that is not there.
const FAR: f64 = 1e30;

/// Settings of [`QuadrupletLoss`]; the margins stand as 1 to 0.5 like the paper's, which follow the batch there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct QuadrupletConfig {
    /// How much farther the negative must be, as a squared distance of unit vectors; 1.
    pub margin: f64,
    /// How much farther the two other items must be from each other; 0.5.
    pub second_margin: f64,
    /// How many triplets of each anchor count where none were mined: "all" or a number; all.
    pub triplets_per_anchor: TripletsPerAnchor,
}

impl Default for QuadrupletConfig {
    fn default() -> Self {
        Self {
            margin: 1.0,
            second_margin: 0.5,
            triplets_per_anchor: TripletsPerAnchor::All,
        }
    }
}

impl MetricLossConfig for QuadrupletConfig {
    type Loss = QuadrupletLoss;
    const SUMMARY: &'static str = "triplets, and positive pairs closer than pairs of two other classes";
    const PAPER: &'static str =
        "Chen et al., Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-Identification, CVPR";
    const YEAR: u16 = 2017;
    const ACCEPTS: Accepts = Accepts {
        labels: LabelNeed::Classes,
        ..Accepts::PAIRS
    };
    const TERMS: &'static [(&'static str, Unit)] =
        &[("triplet-loss", Unit::Triplet), ("quadruplet-loss", Unit::Triplet)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::SQUARED_EUCLIDEAN
    }

    fn default_reducer(&self) -> ReducerConfig {
        ReducerConfig::AVG_NON_ZERO
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        check::finite("quadruplet", "margin", self.margin, default.margin)?;
        check::finite("quadruplet", "second-margin", self.second_margin, default.second_margin)
    }

    fn init(&self, _dim: usize, _classes: usize, _seed: u64, _device: &Device) -> QuadrupletLoss {
        QuadrupletLoss { config: self.clone() }
    }
}

/// Quadruplet loss (Chen et al., Beyond Triplet Loss: A Deep Quadruplet Network for Person Re-Identification, CVPR 2017).
///
/// With squared Euclidean distances `d` between normalised embeddings and `[x]+ = max(x, 0)`, for anchor `a`, positive `p`,
/// negative `n` and an item `l` of a third class: `[d_ap - d_an + margin]+` and `[d_ap - d_nl + second_margin]+`; each term
/// is the mean over its non-zero values. With a similarity the differences turn around.
///
/// Of the quadruplets that share `a`, `p` and `n` the one with the nearest `l` counts, which costs most, so there are as many
/// values as triplets; a batch of two classes has none of the second kind. The paper learns `d` by a classifier and takes
/// its margins from the batch, `w` times the difference of the mean distances with `w` 1 and 0.5; here they are fixed.
///
/// Triplets are enumerated block by block; the tape holds `batch x batch` matrices only.
///
/// # Shapes
/// Embeddings `[batch, dim]` of any length, references `[references, dim]`. Memory: a few `references x references`.
#[derive(Module, Debug)]
pub struct QuadrupletLoss {
    #[module(skip)]
    config: QuadrupletConfig,
}

impl MetricLoss for QuadrupletLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let choice = view.triplets(self.config.triplets_per_anchor.number());
        if choice.is_empty() {
            return vec![];
        }
        let distances = view.distances(); // [anchors, references]
        let is_similarity = view.distance().is_similarity();
        let hinge = |margin: f64| -> TripletCost {
            Box::new(move |Entries { positive, negative, .. }| {
                let violation = if is_similarity {
                    negative - positive
                } else {
                    positive - negative
                };
                activation::relu(violation.add_scalar(margin))
            })
        };
        let among = if view.is_within() {
            distances.clone()
        } else {
            view.distances_between_references()
        };
        let term = |name, negative, margin| {
            let triplets = Triplets {
                choice: choice.clone(),
                positive: distances.clone(),
                negative,
                opposite: None,
                cost: Some(hinge(margin)),
            };
            Term::triplets(name, triplets)
        };
        vec![
            term("triplet-loss", distances.clone(), self.config.margin),
            term("quadruplet-loss", third(view, &among), self.config.second_margin),
        ]
    }
}

/// How far the nearest item of a third class is from each negative, `[anchors, references]`; beyond all distances where
/// there is no third class.
///
/// # Shapes
/// `among` `[references, references]`.
fn third(view: &View<'_>, among: &Tensor<2>) -> Tensor<2> {
    let anchors = view.classes();
    let references = view.comparison().reference_set().labels.classes();
    let references = references.expect("the loss needs one class per item: check() refuses other labels");
    let (rows, columns) = (anchors.len(), references.len());
    let device = among.device().inner();
    let classes = |labels: &[u32]| {
        let labels: Vec<i64> = labels.iter().map(|&label| i64::from(label)).collect();
        let count = labels.len();
        Tensor::<1, Int>::from_data(TensorData::new(labels, [count]), &device)
    };
    let other = classes(references);
    let across = other.clone().reshape([1, columns]).expand([columns, columns]);
    let is_similarity = view.distance().is_similarity();
    let far = if is_similarity { -FAR } else { FAR };
    // The nearest item outside of some classes: how far, `[references, 1]`, and of which class, `[references]`.
    let nearest = |excluded: Tensor<2, Bool>| {
        let allowed = among.clone().mask_fill(excluded, far);
        let seen = allowed.clone().without_autodiff();
        let (_, at) = if is_similarity {
            seen.max_dim_with_indices(1)
        } else {
            seen.min_dim_with_indices(1)
        };
        (allowed.gather(1, at.clone()), other.clone().select(0, at.reshape([columns])))
    };
    let of = |class: Tensor<1, Int>| across.clone().equal(class.reshape([columns, 1]).expand([columns, columns]));
    let own = of(other.clone());
    let (first, class) = nearest(own.clone());
    let (second, _) = nearest(own.bool_or(of(class.clone())));
    // The first is of the anchor's own class for some anchors: then the second counts, which is of neither.
    let shape = [rows, columns];
    let anchor = classes(anchors).reshape([rows, 1]).expand(shape);
    let taken = class.reshape([1, columns]).expand(shape).equal(anchor);
    first
        .transpose()
        .expand(shape)
        .mask_where(taken, second.transpose().expand(shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Comparison;
    use crate::losses::LossConfig;
    use crate::losses::testing::{chord, circle, near, scalar};

    const ANGLES: [f64; 9] = [0.0, 0.7, 0.6, 2.0, 2.1, 0.9, 5.0, 1.4, 3.3];
    const LABELS: [u32; 9] = [0, 0, 1, 1, 2, 0, 2, 4, 4];

    /// Both terms by loops over anchors of one list and all other items of another.
    fn naive(config: &QuadrupletConfig, anchors: &[usize], references: &[usize], same: bool) -> [f64; 2] {
        let d = |a: usize, b: usize| chord(ANGLES[a] - ANGLES[b]).powi(2);
        let mut found: [Vec<f64>; 2] = [vec![], vec![]];
        for &a in anchors {
            for &p in references.iter().filter(|&&p| LABELS[p] == LABELS[a] && !(same && p == a)) {
                for &n in references.iter().filter(|&&n| LABELS[n] != LABELS[a]) {
                    found[0].push(d(a, p) - d(a, n) + config.margin);
                    let thirds = references.iter().filter(|&&l| LABELS[l] != LABELS[a] && LABELS[l] != LABELS[n]);
                    let costs = thirds.map(|&l| d(a, p) - d(n, l) + config.second_margin);
                    found[1].push(costs.fold(0.0, f64::max));
                }
            }
        }
        found.map(|costs| {
            let above: Vec<f64> = costs.into_iter().filter(|&cost| cost > 0.0).collect();
            assert!(above.len() > 2, "{}", above.len());
            above.iter().sum::<f64>() / above.len() as f64
        })
    }

    #[test]
    fn agrees_with_naive_loops() {
        let config = QuadrupletConfig {
            margin: 0.8,
            second_margin: 0.4,
            ..Default::default()
        };
        let loss = LossConfig::from(config.clone()).init(2, 5, 0, &Device::flex());
        let batch = circle(&ANGLES, &LABELS);
        let all: Vec<usize> = (0..9).collect();
        let within = loss.evaluate(&Comparison::within(&batch));
        let expected = naive(&config, &all, &all, true);
        for ((_, term), expected) in within.terms.iter().zip(expected) {
            near(scalar(term), expected);
        }
        let (anchors, references) = ([0, 2, 4, 7], [1, 3, 5, 6, 8]);
        let set = |items: &[usize]| {
            let angles: Vec<f64> = items.iter().map(|&item| ANGLES[item]).collect();
            let labels: Vec<u32> = items.iter().map(|&item| LABELS[item]).collect();
            circle(&angles, &labels)
        };
        let across = loss.evaluate(&Comparison::with_references(&set(&anchors), &set(&references)));
        let expected = naive(&config, &anchors, &references, false);
        for ((_, term), expected) in across.terms.iter().zip(expected) {
            near(scalar(term), expected);
        }
    }

    #[test]
    fn two_classes_have_triplets_only() {
        let loss = LossConfig::from(QuadrupletConfig::default()).init(2, 2, 0, &Device::flex());
        let found = loss.evaluate(&Comparison::within(&circle(&[0.0, 0.5, 0.6, 2.0], &[0, 0, 1, 1])));
        assert!(scalar(&found.terms[0].1) > 0.0);
        near(scalar(&found.terms[1].1), 0.0);
    }
}
