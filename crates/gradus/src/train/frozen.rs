//! Features of a frozen trunk, computed once.

use std::collections::BTreeMap;

use super::embed::{self, Images, Output};
use super::error::TrainError;
use super::events::Observer;
use crate::models::Embedder;
use crate::tensor::{Device, Tensor, TensorData};

/// The features of the training and validation items, and of graded views of the training items.
#[derive(Debug)]
pub(super) struct FrozenFeatures {
    width: usize,
    /// Row of each item of the data set in `values`.
    row_of: BTreeMap<usize, usize>,
    values: Vec<f32>,
    /// Levels, and `[rows, levels, width]`.
    graded: Option<(usize, Vec<f32>)>,
}

impl FrozenFeatures {
    /// Runs the trunk over all images.
    pub(super) fn compute(
        embedder: &Embedder,
        images: &Images,
        train: &[usize],
        validation: &[usize],
        graded_levels: Option<usize>,
        seed: u64,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let items: Vec<usize> = train.iter().chain(validation).copied().collect();
        let (labels, what) = (vec![0; items.len()], "features of the frozen trunk");
        let mut features = embed::embed(embedder, images, &items, labels, Output::Features, what, observer)?;
        let graded = match graded_levels {
            Some(levels) => {
                let (plain, graded) = embed::graded_features(embedder, images, train, levels, seed, observer)?;
                // An anchor must be the view its graded augmentations start from.
                features.values[..plain.len()].copy_from_slice(&plain);
                Some((levels, graded))
            }
            None => None,
        };
        Ok(Self {
            width: features.dim,
            row_of: items.into_iter().enumerate().map(|(row, item)| (item, row)).collect(),
            values: features.values,
            graded,
        })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// The features of some items, row by row.
    pub(super) fn rows_of(&self, items: &[usize]) -> Vec<f32> {
        self.gather(items, &self.values, self.width)
    }

    /// The features of some items, `[items, width]`.
    pub(super) fn of(&self, items: &[usize], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(self.rows_of(items), [items.len(), self.width]), device)
    }

    /// The features of their graded views, `[items * levels, width]`.
    pub(super) fn graded_of(&self, items: &[usize], device: &Device) -> Option<Tensor<2>> {
        let (levels, values) = self.graded.as_ref()?;
        let rows = self.gather(items, values, levels * self.width);
        let shape = [items.len() * levels, self.width];
        Some(Tensor::from_data(TensorData::new(rows, shape), device))
    }

    fn gather(&self, items: &[usize], values: &[f32], width: usize) -> Vec<f32> {
        let mut rows = Vec::with_capacity(items.len() * width);
        for item in items {
            let row = self.row_of[item];
            rows.extend_from_slice(&values[row * width..(row + 1) * width]);
        }
        rows
    }
}
