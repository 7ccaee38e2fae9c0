//! Position embeddings of a grid of patches, brought to the grid of another image size.

use serde::{Deserialize, Serialize};

use crate::tensor::{Tensor, TensorData};

/// How position embeddings are brought to another grid. Bicubic always; the published codes differ in the rest, which matters
/// in the third digit of an embedding.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PositionInterpolation {
    /// As timm does it, for every set of weights: Keys' kernel (a = -0.5), widened where the grid shrinks (antialiasing).
    #[default]
    Timm,
    /// As torchvision's `interpolate_embeddings` does it: a = -0.75, corners on corners, not widened.
    Torchvision,
    /// As the published code of DINO and DINOv2 (without registers) does it: a = -0.75, not widened, the scale that of a grid
    /// larger by 0.1.
    Dino,
}

/// Keys' cubic convolution kernel.
fn cubic(distance: f64, a: f64) -> f64 {
    let x = distance.abs();
    if x < 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * a
    } else {
        0.0
    }
}

impl PositionInterpolation {
    /// What each of `old` places counts for each of `new` ones, `[new, old]` row-major; the weights of a place add up to 1.
    fn weights(self, old: usize, new: usize) -> Vec<f64> {
        let mut weights = vec![0.0; new * old];
        for (place, row) in weights.chunks_exact_mut(old).enumerate() {
            let middle = place as f64 + 0.5;
            if self == Self::Timm {
                let scale = old as f64 / new as f64;
                let (centre, wide) = (middle * scale, scale.max(1.0));
                // Places beyond the border do not count at all.
                for (index, weight) in row.iter_mut().enumerate() {
                    *weight = cubic((index as f64 + 0.5 - centre) / wide, -0.5);
                }
                let sum: f64 = row.iter().sum();
                row.iter_mut().for_each(|weight| *weight /= sum);
                continue;
            }
            let position = match self {
                Self::Torchvision => place as f64 * (old as f64 - 1.0) / (new as f64 - 1.0).max(1.0),
                _ => middle * old as f64 / (new as f64 + 0.1) - 0.5,
            };
            // Places beyond the border are the one at the border.
            let first = position.floor();
            for step in -1..=2 {
                let index = first + f64::from(step);
                let inside = index.clamp(0.0, old as f64 - 1.0) as usize;
                row[inside] += cubic(position - index, -0.75);
            }
        }
        weights
    }

    /// Brings the embeddings of a square grid to another grid.
    ///
    /// # Shapes
    /// `[1, side * side, width]` to `[1, grid[0] * grid[1], width]`, rows first.
    #[must_use]
    pub fn resample(self, embeddings: Tensor<3>, side: usize, grid: [usize; 2]) -> Tensor<3> {
        let [_, _, width] = embeddings.dims();
        let device = embeddings.device();
        let matrix = |new: usize| -> Tensor<2> {
            let weights: Vec<f32> = self.weights(side, new).iter().map(|&weight| weight as f32).collect();
            Tensor::from_data(TensorData::new(weights, [new, side]), &device)
        };
        let rows = matrix(grid[0]).matmul(embeddings.reshape([side, side * width]));
        let columns = matrix(grid[1]).unsqueeze::<3>().repeat_dim(0, grid[0]);
        let places: Tensor<3> = columns.matmul(rows.reshape([grid[0], side, width]));
        places.reshape([1, grid[0] * grid[1], width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_add_up_to_one_and_the_same_grid_changes_nothing() {
        for kind in [
            PositionInterpolation::Timm,
            PositionInterpolation::Torchvision,
            PositionInterpolation::Dino,
        ] {
            for (old, new) in [(14, 6), (14, 27), (37, 16), (2, 1), (5, 4)] {
                for row in kind.weights(old, new).chunks_exact(old) {
                    assert!((row.iter().sum::<f64>() - 1.0).abs() < 1e-12, "{kind:?} {old} {new}");
                }
            }
        }
        for kind in [PositionInterpolation::Timm, PositionInterpolation::Torchvision] {
            for (index, weight) in kind.weights(7, 7).iter().enumerate() {
                let expected = f64::from(u8::from(index / 7 == index % 7));
                assert!((weight - expected).abs() < 1e-12, "{kind:?}");
            }
        }
    }
}
