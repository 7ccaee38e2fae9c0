//! Samples, points or classes generated in embedding space that enter the *base* loss: one file each, listed once,
//! here.
//!
//! Unlike the generators of [`intra_class`](crate::intra_class), whose samples are ranked, what is generated here
//! counts as further members, negatives or classes. Nothing has parameters, and nothing is left of it after training.
//! Every draw is a function of the step's seed, and no embedding is read back to the host.
//!
//! ```text
//! x [b, d], labels ─► augmentation ─► what the base loss compares [b + generated, d], perhaps with further proxies
//! ```
//!
//! A new augmentation is one file (settings with documented defaults that implement [`EmbeddingAugmentation`], tests)
//! and one line in the registry below; the section `[embedding-augmentation.NAME]` and its checks follow from that
//! line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::{Comparison, ItemSet};
use crate::intra_class::ClassStatistics;
use crate::intra_class::synthesis::ClassCovarianceConfig;
use crate::losses::{Loss, LossConfig, Support};
use crate::tensor::Tensor;

/// What is augmented.
#[derive(Debug)]
pub struct AugmentationInput<'a> {
    /// What the base loss would see, `[b, d]`.
    pub embeddings: Tensor<2>,
    /// The class of each row.
    pub labels: &'a Arc<[u32]>,
    /// The base loss.
    pub loss: &'a Loss,
    /// Means and variances of the classes, for augmentations that ask for them.
    pub statistics: Option<&'a ClassStatistics>,
    /// Everything random is a function of it.
    pub seed: u64,
}

impl AugmentationInput<'_> {
    /// The batch compared with itself, as it is without augmentation.
    #[must_use]
    pub fn plain(&self) -> Comparison {
        Comparison::within(ItemSet::new(self.embeddings.clone(), self.labels.to_vec()))
    }
}

/// What the base loss looks at instead of the plain batch.
#[derive(Debug)]
pub struct Augmented {
    /// The rows it compares.
    pub comparison: Comparison,
    /// The loss with further classes, where there are any.
    pub loss: Option<Loss>,
}

/// A way to augment a batch of embeddings; the settings are the augmentation, as it remembers nothing.
pub trait EmbeddingAugmentation: Default + Clone + Serialize {
    /// One line on what is generated.
    const SUMMARY: &'static str;
    /// First author, title and venue of the paper.
    const PAPER: &'static str;
    /// Year of the paper.
    const YEAR: u16;
    /// Whether there are further rows, which a miner that takes batches apart by position cannot place.
    const ADDS_ROWS: bool = true;

    /// Checks the settings.
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    fn validate(&self) -> Result<(), String>;

    /// Checks that the base loss can take what is generated.
    ///
    /// # Errors
    /// Why it cannot, in half a sentence that follows `loss.NAME`, and what to do.
    fn fits(&self, loss: &LossConfig) -> Result<(), String> {
        let _ = loss;
        Ok(())
    }

    /// The class statistics it needs, if any.
    fn statistics(&self) -> Option<&ClassCovarianceConfig> {
        None
    }

    /// What the base loss looks at.
    fn augment(&self, input: &AugmentationInput<'_>) -> Augmented;
}

/// What there is to show of an augmentation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AugmentationInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what is generated.
    pub summary: &'static str,
    /// First author, title and venue.
    pub paper: &'static str,
    /// Year of the paper.
    pub year: u16,
    /// Its settings with their default values.
    pub defaults: serde_json::Value,
}

impl AugmentationInfo {
    fn of<A: EmbeddingAugmentation>(name: &'static str) -> Self {
        Self {
            name,
            summary: A::SUMMARY,
            paper: A::PAPER,
            year: A::YEAR,
            defaults: serde_json::to_value(A::default()).unwrap_or_default(),
        }
    }
}

macro_rules! register_augmentations {
    ($($variant:ident $name:literal => $module:ident::$augmentation:ident,)+) => {
        $(
            pub mod $module;
            pub use $module::$augmentation;
        )+

        /// The choice of an augmentation with its settings: the section `[embedding-augmentation.NAME]` of a
        /// configuration.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum EmbeddingAugmentationConfig {
            $(
                #[doc = concat!("`[embedding-augmentation.", $name, "]`")]
                #[serde(rename = $name)]
                $variant($augmentation),
            )+
        }

        impl EmbeddingAugmentationConfig {
            /// Every augmentation with default settings, sorted by name.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$(Self::$variant($augmentation::default())),+]
            }

            /// The name in configuration files.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// The class statistics it needs, if any.
            #[must_use]
            pub fn statistics(&self) -> Option<&ClassCovarianceConfig> {
                match self {
                    $(Self::$variant(augmentation) => augmentation.statistics(),)+
                }
            }

            /// Whether there are further rows beside those of the batch.
            #[must_use]
            pub fn adds_rows(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$augmentation as EmbeddingAugmentation>::ADDS_ROWS,)+
                }
            }

            /// What the base loss looks at.
            #[must_use]
            pub fn augment(&self, input: &AugmentationInput<'_>) -> Augmented {
                match self {
                    $(Self::$variant(augmentation) => augmentation.augment(input),)+
                }
            }

            fn validate_settings(&self) -> Result<(), String> {
                match self {
                    $(Self::$variant(augmentation) => augmentation.validate(),)+
                }
            }

            fn fits(&self, loss: &LossConfig) -> Result<(), String> {
                match self {
                    $(Self::$variant(augmentation) => augmentation.fits(loss),)+
                }
            }
        }

        /// What there is to show of all augmentations, sorted by name.
        #[must_use]
        pub fn info() -> Vec<AugmentationInfo> {
            vec![$(AugmentationInfo::of::<$augmentation>($name)),+]
        }
    };
}

// Sorted; the only place that lists augmentations.
register_augmentations! {
    ClassCovariance "class-covariance" => class_covariance::ClassCovariance,
    EmbeddingExpansion "embedding-expansion" => embedding_expansion::EmbeddingExpansion,
    ProxySynthesis "proxy-synthesis" => proxy_synthesis::ProxySynthesis,
}

impl EmbeddingAugmentationConfig {
    /// Checks the settings, and that the base loss can take what is generated.
    ///
    /// # Errors
    /// A message that names what does not fit and what to do.
    pub fn validate(&self, loss: &LossConfig) -> Result<(), String> {
        self.validate_settings()?;
        let here = |problem: String| {
            format!(
                "embedding-augmentation.{} with loss.{}: {problem}, or set embedding-augmentation = \"none\" (the preset `gradus` \
                 brings class-covariance)",
                self.name(),
                loss.name()
            )
        };
        if loss.accepts().references == Support::Required {
            return Err(here(
                "the loss compares two views of every image, where there is no one batch to augment; choose another loss"
                    .to_owned(),
            ));
        }
        self.fits(loss).map_err(here)
    }
}

/// Refuses a setting by name.
fn refuse(name: &str, setting: &str, value: impl std::fmt::Display, wanted: &str) -> Result<(), String> {
    Err(format!(
        "embedding-augmentation.{name}.{setting} is {value}: expected {wanted}"
    ))
}

#[cfg(test)]
pub(crate) mod testing;
