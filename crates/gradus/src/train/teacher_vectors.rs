//! Vectors in a file in the place of a teacher: what any model, or anything else, knows of the images.

use std::collections::HashMap;
use std::path::Path;

use gradus_core::data::layouts::list_vectors;

use super::error::TrainError;
use super::prepare::PreparedData;
use crate::state::NamedArray;
use crate::tensor::{Device, Tensor, TensorData};

/// One vector for each training image, in the order of the training images.
#[derive(Debug)]
pub(super) struct TeacherVectors {
    /// `[training images, width]`, without what all of them share, of mean square 1.
    array: NamedArray,
    /// The row of each item that is trained on.
    rows: HashMap<usize, usize>,
}

impl TeacherVectors {
    /// Reads those of the training images, found by their names.
    ///
    /// # Errors
    /// If the file cannot be read, names an image twice, has a vector that is not finite or zero throughout, or none for a training
    /// image, or if all vectors are the same.
    pub(super) fn read(path: &Path, data: &PreparedData) -> Result<Self, TrainError> {
        let refuse = |problem: String| TrainError::Config(format!("teacher.vectors = {}: {problem}", path.display()));
        let found = list_vectors(path).map_err(|error| refuse(error.to_string()))?;
        let mut by_name = HashMap::with_capacity(found.len());
        for item in &found {
            let name = item.source.name();
            if by_name.insert(name.clone(), item).is_some() {
                return Err(refuse(format!(
                    "it has two vectors of {name}: expected one of each image"
                )));
            }
        }
        let (mut values, mut missing) = (Vec::new(), Vec::new());
        for &item in &data.train {
            let name = data.items[item].source.name();
            match by_name.get(&name).and_then(|found| found.source.vector()) {
                Some(vector) => values.extend_from_slice(vector),
                None => missing.push(name),
            }
        }
        if let (Some(first), Some(other)) = (missing.first(), found.first()) {
            return Err(refuse(format!(
                "{} of {} training images have no vector in it, {first} among them (the first name it has is {}): embed the same folder, \
                 written as in --data (`gradus embed --images`)",
                missing.len(),
                data.train.len(),
                other.source.name(),
            )));
        }
        let Some(centred) = centred(&values, data.train.len()) else {
            return Err(refuse(
                "the vectors of all training images are the same: there is no order in them".to_owned(),
            ));
        };
        let array = NamedArray {
            name: "vectors".to_owned(),
            shape: vec![data.train.len(), values.len() / data.train.len().max(1)],
            values: centred,
        };
        Self::from_arrays(vec![array], data).map_err(refuse)
    }

    /// Those that [`array`](Self::array) gave for the same training images.
    ///
    /// # Errors
    /// If there are not as many.
    pub(super) fn from_arrays(arrays: Vec<NamedArray>, data: &PreparedData) -> Result<Self, String> {
        let fits = |array: &NamedArray| {
            array.shape.len() == 2
                && array.shape[0] == data.train.len()
                && array.values.len() == array.shape[0] * array.shape[1]
        };
        match <[NamedArray; 1]>::try_from(arrays) {
            Ok([array]) if fits(&array) => Ok(Self {
                array,
                rows: data.train.iter().enumerate().map(|(row, &item)| (item, row)).collect(),
            }),
            _ => Err(format!(
                "expected one vector for each of {} training images",
                data.train.len()
            )),
        }
    }

    /// What goes into the run folder, so that a resumed run does not depend on the file.
    pub(super) fn array(&self) -> &NamedArray {
        &self.array
    }

    /// The rows `[items, width]` of items that are trained on.
    pub(super) fn rows(&self, items: &[usize], device: &Device) -> Tensor<2> {
        let width = self.array.shape[1];
        let values: Vec<f32> = items
            .iter()
            .flat_map(|item| &self.array.values[self.rows[item] * width..][..width])
            .copied()
            .collect();
        Tensor::from_data(TensorData::new(values, [items.len(), width]), device)
    }
}

/// The rows less their mean (what all images share would make every pair look alike), of mean square 1, so that no unit of theirs is too
/// small or too large for single precision; none where all of them are the same.
fn centred(values: &[f32], rows: usize) -> Option<Vec<f32>> {
    let width = (values.len() / rows.max(1)).max(1);
    let mut mean = vec![0.0_f64; width];
    for row in values.chunks_exact(width) {
        for (sum, value) in mean.iter_mut().zip(row) {
            *sum += f64::from(*value) / rows as f64;
        }
    }
    let less: Vec<f64> = values
        .iter()
        .enumerate()
        .map(|(at, value)| f64::from(*value) - mean[at % width])
        .collect();
    let size = (less.iter().map(|value| value * value).sum::<f64>() / less.len().max(1) as f64).sqrt();
    let largest = mean.iter().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    // What rounding leaves of vectors that are all the same is no order.
    (size > 1e-9 * largest && size > 0.0).then(|| less.iter().map(|value| (value / size) as f32).collect())
}
