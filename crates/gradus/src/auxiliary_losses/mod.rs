//! Losses beside the base loss that are dropped after training: one file each, listed once, here.
//!
//! An auxiliary loss sees the embeddings `x` of a batch (and, where it asks for them, the pooled features they come
//! from), may hold parameters and running statistics, and is added to the base loss. It is part of the criterion:
//! what it holds is in the checkpoints, not in the model.
//!
//! A new one is one file (settings with documented defaults that implement [`AuxiliaryLossConfig`], the module,
//! tests) and one line in the registry below; the section `[auxiliary-loss.NAME]` and its checks follow from that
//! line.

use std::sync::Arc;

use gradus_core::EmbeddingSet;
use serde::{Deserialize, Serialize};

use crate::batch::Mined;
use crate::config::Config;
use crate::losses::LossConfig;
use crate::tensor::{Device, Module, Tensor};

/// What an auxiliary loss sees of a step.
#[derive(Debug)]
pub struct AuxiliaryInput<'a> {
    /// The embeddings `x` of unit norm, `[b, d]`, tracked.
    pub embeddings: Tensor<2>,
    /// The pooled features they come from, `[b, f]`, for losses that [ask for
    /// them](AuxiliaryLossConfig::NEEDS_FEATURES).
    pub features: Option<Tensor<2>>,
    /// The proxies of the base loss `[classes, d]`, of any norm, where it has one per class.
    pub proxies: Option<Tensor<2>>,
    /// The class of each row.
    pub labels: &'a Arc<[u32]>,
    /// What was mined of the batch for the base loss.
    pub mined: Option<&'a Mined>,
    /// Everything random is a function of it.
    pub seed: u64,
}

/// What an auxiliary loss is made for.
#[derive(Debug)]
pub struct AuxiliaryShape<'a> {
    /// Width of the embedding.
    pub dim: usize,
    /// Width of the pooled features.
    pub features: usize,
    /// Number of training classes.
    pub classes: usize,
    /// The base loss.
    pub loss: &'a LossConfig,
    /// Seed of initial parameters.
    pub seed: u64,
    /// Where they live.
    pub device: &'a Device,
}

/// A loss beside the base loss, with what it learns.
pub trait AuxiliaryModule: Module {
    /// The weighted loss to be added, `[1]`; tracked.
    ///
    /// # Errors
    /// A sentence that says what cannot be looked at.
    fn forward(&self, input: &AuxiliaryInput<'_>) -> Result<Tensor<1>, String>;

    /// Starts at pooled features of the training images, where proxies start at class means.
    ///
    /// # Errors
    /// If the device does not hand numbers back.
    fn started(self, features: &EmbeddingSet, classes: usize) -> Result<Self, String> {
        let _ = (features, classes);
        Ok(self)
    }
}

/// Settings of an auxiliary loss.
pub trait AuxiliaryLossConfig: Default + Clone + Serialize {
    /// The module they describe.
    type Module: AuxiliaryModule;
    /// One line on what it does.
    const SUMMARY: &'static str;
    /// First author, title and venue of the paper.
    const PAPER: &'static str;
    /// Year of the paper.
    const YEAR: u16;
    /// Whether it looks at pooled features.
    const NEEDS_FEATURES: bool = false;

    /// Checks the settings.
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    fn validate(&self) -> Result<(), String>;

    /// Checks that it fits the rest of the configuration.
    ///
    /// # Errors
    /// A message that names what does not fit and what to do.
    fn fits(&self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// The module: a function of the seed alone.
    fn init(&self, shape: &AuxiliaryShape<'_>) -> Self::Module;
}

/// What there is to show of an auxiliary loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuxiliaryInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what it does.
    pub summary: &'static str,
    /// First author, title and venue.
    pub paper: &'static str,
    /// Year of the paper.
    pub year: u16,
    /// Its settings with their default values.
    pub defaults: serde_json::Value,
}

impl AuxiliaryInfo {
    fn of<C: AuxiliaryLossConfig>(name: &'static str) -> Self {
        Self {
            name,
            summary: C::SUMMARY,
            paper: C::PAPER,
            year: C::YEAR,
            defaults: serde_json::to_value(C::default()).unwrap_or_default(),
        }
    }
}

macro_rules! register_auxiliary_losses {
    ($($variant:ident $name:literal => $module:ident::{$config:ident, $loss:ident},)+) => {
        $(
            pub mod $module;
            pub use $module::{$config, $loss};
        )+

        /// The choice of an auxiliary loss with its settings: the section `[auxiliary-loss.NAME]` of a configuration.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum AuxiliaryConfig {
            $(
                #[doc = concat!("`[auxiliary-loss.", $name, "]`")]
                #[serde(rename = $name)]
                $variant($config),
            )+
        }

        /// An auxiliary loss of the registry, as a module.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum AuxiliaryLoss {
            $(
                #[doc = concat!("`", $name, "`")]
                $variant($loss),
            )+
        }

        impl AuxiliaryConfig {
            /// Every auxiliary loss with default settings, sorted by name.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$(Self::$variant($config::default())),+]
            }

            /// The name in configuration files.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// Whether it looks at pooled features.
            #[must_use]
            pub fn needs_features(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$config as AuxiliaryLossConfig>::NEEDS_FEATURES,)+
                }
            }

            /// The module: a function of the seed alone.
            #[must_use]
            pub fn init(&self, shape: &AuxiliaryShape<'_>) -> AuxiliaryLoss {
                match self {
                    $(Self::$variant(config) => AuxiliaryLoss::$variant(config.init(shape)),)+
                }
            }

            /// Checks the settings, and that it fits the rest of the configuration.
            ///
            /// # Errors
            /// A message that names what does not fit and what to do.
            pub fn validate(&self, config: &Config) -> Result<(), String> {
                let train = &config.train;
                let parts = train.gradient_cache > 0 || train.gradient_checkpointing || train.workers > 1;
                if self.needs_features() && parts {
                    return Err(format!(
                        "auxiliary-loss.{} looks at pooled features, which train.gradient-cache, train.gradient-checkpointing and \
                         train.workers do not keep: leave them at their defaults, or [auxiliary-loss] out",
                        self.name()
                    ));
                }
                match self {
                    $(Self::$variant(settings) => {
                        settings.validate()?;
                        settings.fits(config)
                    })+
                }
            }
        }

        impl AuxiliaryLoss {
            /// Whether it looks at pooled features.
            #[must_use]
            pub fn needs_features(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$config as AuxiliaryLossConfig>::NEEDS_FEATURES,)+
                }
            }
        }

        impl AuxiliaryModule for AuxiliaryLoss {
            fn forward(&self, input: &AuxiliaryInput<'_>) -> Result<Tensor<1>, String> {
                match self {
                    $(Self::$variant(loss) => loss.forward(input),)+
                }
            }

            fn started(self, features: &EmbeddingSet, classes: usize) -> Result<Self, String> {
                Ok(match self {
                    $(Self::$variant(loss) => Self::$variant(loss.started(features, classes)?),)+
                })
            }
        }

        /// What there is to show of all auxiliary losses, sorted by name.
        #[must_use]
        pub fn info() -> Vec<AuxiliaryInfo> {
            vec![$(AuxiliaryInfo::of::<$config>($name)),+]
        }
    };
}

// Sorted; the only place that lists auxiliary losses.
register_auxiliary_losses! {
    Mdr "mdr" => mdr::{MdrConfig, Mdr},
    Metrix "metrix" => metrix::{MetrixConfig, Metrix},
    Nir "nir" => nir::{NirConfig, Nir},
    S2sd "s2sd" => s2sd::{S2sdConfig, S2sd},
}

/// Refuses a setting by name.
fn refuse(name: &str, setting: &str, value: impl std::fmt::Display, wanted: &str) -> Result<(), String> {
    Err(format!("auxiliary-loss.{name}.{setting} is {value}: expected {wanted}"))
}

/// Checks a weight.
fn weight(name: &str, value: f64) -> Result<(), String> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    refuse(
        name,
        "weight",
        value,
        "a number above 0; leave [auxiliary-loss] out for none",
    )
}
