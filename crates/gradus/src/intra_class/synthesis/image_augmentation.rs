//! The image itself, changed more and more: the only generator that needs no guess about the embedding.

use serde::{Deserialize, Serialize};

/// The image augmented at strengths `t_j = tanh(0.2 j)` and embedded again, after SSR (Fu et al., AAAI 2021).
///
/// The data pipeline draws the images and the trainer embeds them; they come in as
/// [`IntraClassInput::graded`](crate::intra_class::IntraClassInput::graded). `tangent` does not apply to them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ImageAugmentationConfig {}

/// The strength of level `level`, counted from 1: crops keep a share `1 - t` of the image, perspective moves by `t`, colours
/// vary by `1 +- t/2`.
///
/// ```
/// use gradus::intra_class::synthesis::image_augmentation::strength;
/// assert_eq!(strength(0), 0.0);
/// assert!((strength(5) - 1f64.tanh()).abs() < 1e-12);
/// ```
#[must_use]
pub fn strength(level: usize) -> f64 {
    (0.2 * level as f64).tanh()
}
