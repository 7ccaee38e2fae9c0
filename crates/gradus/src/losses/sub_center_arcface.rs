//! Sub-centre ArcFace: several weights per class, of which the nearest counts, so that noisy items get their own.

use serde::{Deserialize, Serialize};

use super::parameters::replaced;
use super::{Accepts, MetricLoss, MetricLossConfig, Term, Unit, View, arcface, check};
use crate::distances::DistanceConfig;
use crate::initial;
use crate::numerics::cosine_matrix;
use crate::tensor::{Device, Module, Param, Tensor};

/// Settings of [`SubCenterArcfaceLoss`]; defaults are those of pytorch-metric-learning and of the paper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SubCenterArcfaceConfig {
    /// Angle added to the own class, in degrees; 28.6.
    pub margin: f64,
    /// What cosines are multiplied by before the softmax; 64.
    pub scale: f64,
    /// How many weights each class has; 3.
    pub sub_centers: usize,
}

impl Default for SubCenterArcfaceConfig {
    fn default() -> Self {
        Self {
            margin: 28.6,
            scale: 64.0,
            sub_centers: 3,
        }
    }
}

/// Which sub-centre most items of a class are nearest to, and which items are far from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubCenters {
    /// Row of the parameters that holds the dominant sub-centre of each class; none for a class without items.
    pub dominant: Vec<Option<usize>>,
    /// Items farther from the dominant sub-centre of their class than the threshold, ascending: likely wrong labels.
    pub outliers: Vec<usize>,
}

impl SubCenterArcfaceConfig {
    /// Finds dominant sub-centres and outliers of items, on the host. The threshold is an angle in degrees; the paper's
    /// and pytorch-metric-learning's is 75.
    ///
    /// # Shapes
    /// `parameters` `[classes * sub-centers, dim]` as [`Loss::parameters`](super::Loss::parameters) gives them,
    /// `embeddings` `[items, dim]`, `labels` one per item.
    ///
    /// # Errors
    /// If shapes or labels do not fit, with what was expected.
    pub fn sub_centers(
        &self,
        parameters: &Tensor<2>,
        embeddings: &Tensor<2>,
        labels: &[u32],
        threshold: f64,
    ) -> Result<SubCenters, String> {
        let ([rows, width], [items, dim]) = (parameters.dims(), embeddings.dims());
        let per_class = self.sub_centers.max(1);
        let classes = rows / per_class;
        if width != dim || rows % per_class != 0 || items != labels.len() {
            return Err(format!(
                "{rows} sub-centres of width {width} ({per_class} per class), {items} embeddings of width {dim} and {} \
                 labels do not fit together.",
                labels.len()
            ));
        }
        if let Some((item, label)) = labels
            .iter()
            .enumerate()
            .find(|(_, label)| **label as usize >= classes)
        {
            return Err(format!(
                "item {item} has the label {label}, but there are sub-centres of {classes} classes."
            ));
        }
        let cosines = cosine_matrix(
            embeddings.clone().without_autodiff(),
            parameters.clone().without_autodiff(),
        );
        let cosines = cosines
            .try_into_vec_as::<f64>()
            .map_err(|error| format!("the cosines could not be read: {error:?}"))?;
        let own = |item: usize| &cosines[item * rows + labels[item] as usize * per_class..][..per_class];
        let first_largest = |values: &mut dyn Iterator<Item = f64>| {
            let mut best = (0, f64::NEG_INFINITY);
            for (index, value) in values.enumerate() {
                if value > best.1 {
                    best = (index, value);
                }
            }
            best.0
        };
        let mut times = vec![0_u32; rows];
        for (item, &label) in labels.iter().enumerate() {
            times[label as usize * per_class + first_largest(&mut own(item).iter().copied())] += 1;
        }
        let dominant: Vec<Option<usize>> = times
            .chunks(per_class)
            .enumerate()
            .map(|(class, times)| {
                let nearest = first_largest(&mut times.iter().map(|&times| f64::from(times)));
                (times[nearest] > 0).then_some(class * per_class + nearest)
            })
            .collect();
        let bound = threshold.to_radians().cos();
        let is_far = |item: &usize| {
            let center = dominant[labels[*item] as usize];
            center.is_some_and(|center| cosines[item * rows + center] < bound)
        };
        Ok(SubCenters {
            outliers: (0..items).filter(is_far).collect(),
            dominant,
        })
    }
}

impl MetricLossConfig for SubCenterArcfaceConfig {
    type Loss = SubCenterArcfaceLoss;
    const SUMMARY: &'static str = "ArcFace against the nearest of several weights per class";
    const PAPER: &'static str =
        "Deng et al., Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces, ECCV";
    const YEAR: u16 = 2020;
    const ACCEPTS: Accepts = Accepts::PROXIES;
    const TERMS: &'static [(&'static str, Unit)] = &[("loss", Unit::Element)];

    fn default_distance(&self) -> DistanceConfig {
        DistanceConfig::COSINE
    }

    fn proxies_per_class(&self) -> Option<usize> {
        Some(self.sub_centers)
    }

    fn validate(&self) -> Result<(), String> {
        let default = Self::default();
        let name = "sub-center-arcface";
        check::within(name, "margin", self.margin, default.margin, [0.0, 180.0])?;
        check::above_zero(name, "scale", self.scale, default.scale)?;
        check::count(name, "sub-centers", self.sub_centers, default.sub_centers)
    }

    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> SubCenterArcfaceLoss {
        let rows = classes * self.sub_centers;
        SubCenterArcfaceLoss {
            proxies: initial::normal([rows, dim], 1.0, seed, "loss.proxies", device),
            config: self.clone(),
        }
    }
}

/// Sub-centre ArcFace loss (Deng et al., Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy Web Faces,
/// ECCV 2020).
///
/// [ArcFace](super::ArcfaceLoss) with `cos(theta_c) = max_k cosine(x, w_ck)` over the sub-centres of class `c`; mean over
/// the batch. Only the nearest sub-centre of each class has a slope. Sub-centres start standard normal, or at the class
/// means with a little seeded noise. [`SubCenterArcfaceConfig::sub_centers`] finds outliers after training.
///
/// # Shapes
/// Embeddings `[batch, dim]`, sub-centres `[classes * sub-centers, dim]`, those of a class together; neither needs unit
/// norm. Memory: `batch x classes * sub-centers`.
#[derive(Module, Debug)]
pub struct SubCenterArcfaceLoss {
    proxies: Param<Tensor<2>>,
    #[module(skip)]
    config: SubCenterArcfaceConfig,
}

impl MetricLoss for SubCenterArcfaceLoss {
    fn terms(&self, view: &View<'_>) -> Vec<Term> {
        let proxies = self.proxies.val();
        let [rows, _] = proxies.dims();
        let per_class = self.config.sub_centers.max(1);
        let classes = rows / per_class;
        if classes == 0 {
            return vec![];
        }
        let own = view.class_mask(classes);
        let [batch, _] = own.dims();
        let cosines = view.distances_to(proxies).reshape([batch, classes, per_class]);
        let nearest = cosines.max_dim(2).reshape([batch, classes]);
        let costs = arcface::costs(nearest, own, self.config.margin, self.config.scale);
        vec![Term::elements("loss", costs * view.anchor_weights())]
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::losses::LossConfig;
    use crate::losses::testing::{circle, directions, near, scalar};

    const CENTRES: [f64; 6] = [0.3, 2.9, 2.0, -1.2, 1.0, 4.0];

    fn config() -> SubCenterArcfaceConfig {
        SubCenterArcfaceConfig {
            margin: 30.0,
            scale: 5.0,
            sub_centers: 2,
        }
    }

    #[test]
    fn agrees_with_naive_loops() {
        let (angles, labels) = ([0.0f64, 0.5, 1.9, 2.2, -1.0, 2.7], [0usize, 0, 1, 2, 1, 0]);
        let mut expected = 0.0;
        for (angle, &label) in angles.iter().zip(&labels) {
            let nearest = |c: usize| {
                let cosine = |k: usize| (angle - CENTRES[2 * c + k]).cos();
                cosine(0).max(cosine(1))
            };
            let z = |c: usize| {
                let margin = if c == label { 30.0_f64.to_radians() } else { 0.0 };
                (5.0 * (nearest(c).acos() + margin).cos()).exp()
            };
            expected -= (z(label) / (0..3).map(z).sum::<f64>()).ln() / 6.0;
        }
        let loss = LossConfig::from(config())
            .init(2, 3, 0, &Device::flex())
            .with_parameters(directions(&CENTRES, 3.0));
        near(
            scalar(&loss.forward_batch(&circle(&angles, &labels.map(|label| label as u32)))),
            expected,
        );
    }

    #[test]
    fn outliers_are_far_from_the_dominant_sub_centre() {
        // Two items of class 0 are nearest to its first sub-centre, one to its second; class 1 has none.
        let batch = circle(&[0.2, 0.5, 2.9, 1.0, 1.1, 2.7], &[0, 0, 0, 2, 2, 2]);
        let parameters = directions(&CENTRES, 3.0);
        let found = config()
            .sub_centers(&parameters, &batch.embeddings, &batch.labels, 75.0)
            .expect("fits");
        assert_eq!(found.dominant, [Some(0), None, Some(4)]);
        assert_eq!(found.outliers, [2, 5]);
        let wrong = config().sub_centers(&parameters, &batch.embeddings, &[0, 0, 0, 3, 2, 2], 75.0);
        assert!(wrong.expect_err("class 3").contains("item 3"));
    }

    #[test]
    fn class_means_reach_every_sub_centre_with_a_little_noise() {
        let loss = LossConfig::from(config()).init(2, 3, 0, &Device::flex());
        assert!(loss.proxies().is_none());
        let means = directions(&[0.0, 1.0, 2.0], 1.0);
        let rows = loss.with_proxies(means.clone()).parameters().expect("sub-centres");
        let cosines = cosine_matrix(rows, means).try_to_vec_as::<f32>().expect("floats");
        for row in 0..6 {
            let cosine = cosines[row * 3 + row / 2];
            assert!(cosine > 0.9 && cosine < 1.0, "{cosine}");
        }
    }
}
