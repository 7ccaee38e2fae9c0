//! Supervised metric losses: one file each, listed once, here.
//!
//! Every loss is composed the same way: a [`Comparison`] (anchors, perhaps references, perhaps what a miner chose) under a
//! distance gives named [`Term`]s of one value per row, pair or triplet; a reducer makes one number of each; the loss is
//! their sum, plus regularisers. Distance, reducer and regularisers can be set for every loss ([`LossOptions`]); what does
//! not fit together is refused by name when the configuration is checked.
//!
//! A new loss is one file (settings with documented defaults, `validate`, the struct, `init`, `terms`, tests) and one
//! line in the registry below; configuration, `gradus list losses`, `gradus loss` and the contract tests follow from that
//! line. CONTRIBUTING.md has the skeleton.
//!
//! A loss of a batch without pairs is `0 * sum(embeddings)`, so that it still has a gradient. Losses read nothing back to
//! the host, and never hold more than a few matrices of `batch x batch` or `batch x classes`. They divide by `mul_scalar`
//! of the reciprocal, because Burn 0.22 rounds the slope of `div_scalar` to single precision.
//!
//! Values and gradients are those of pytorch-metric-learning 2.9.0, which the tests hold them to. Where it is at odds with
//! itself, gradus is not, and the loss says so; for all losses:
//!
//! - Its losses of pairs give 0 where every list of mined indices has at most one entry. Here one pair or triplet counts.
//! - Its reducer `class-weighted` multiplies every value by every weight for losses that are logarithms of sums (angular,
//!   circle, lifted structure, multi-similarity, tuplet margin), and takes classes of rows for those of proxies
//!   (proxy-anchor). Here each value has the weight of its own class.
//! - Its reducer `per-anchor` needs as many references as anchors; here any number will do.
//! - Values too small or too large for single precision count as 0 or infinity there and are kept here (nca, proxy-nca,
//!   nt-xent), and a batch without any value costs 0, where a mean of nothing is NaN (nca).
//!
//! ```
//! use gradus::batch::EmbeddingBatch;
//! use gradus::losses::LossConfig;
//! use gradus::tensor::{Device, Tensor};
//!
//! let device = Device::flex();
//! let loss = LossConfig::default().init(2, 2, 7, &device);
//! let embeddings = Tensor::<2>::from_data([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], &device);
//! let value = loss.forward_batch(&EmbeddingBatch::new(embeddings, vec![0, 0, 1]));
//! assert_eq!(value.dims(), [1]);
//! ```

mod check;
mod compat;
mod differentiate;
mod loss;
mod metric_loss;
mod options;
mod parameters;
mod reducers;
mod regularizers;
mod rows;
mod softmax;
mod terms;
#[cfg(test)]
pub(crate) mod testing;
mod unreduced;
mod view;

use serde::{Deserialize, Serialize};

pub use compat::Compat;
pub use differentiate::{Differentiated, not_finite};
pub use loss::{Evaluation, Loss};
pub use metric_loss::{Accepts, DistanceNeed, LabelNeed, LossInfo, MetricLoss, MetricLossConfig, Support};
pub use options::{Composed, LossOptions, TripletsPerAnchor};
pub use reducers::{ReducerConfig, ReducerInfo};
pub use regularizers::{RegularizerConfig, RegularizerInfo};
pub use terms::{Entries, Rows, Term, TripletChoice, TripletCost, Triplets, Unit, Values};
pub use unreduced::Unreduced;
pub use view::View;

use crate::batch::Comparison;
use crate::tensor::{Device, Module, Tensor};
use loss::Composition;

fn unknown(name: &str) -> String {
    let suggestion = crate::config::closest(name, names().iter().copied())
        .map(|known| format!("; did you mean `{known}`?"))
        .unwrap_or_default();
    format!(
        "there is no loss `{name}`{suggestion} The losses are {}.",
        names().join(", ")
    )
}

macro_rules! register_losses {
    ($($variant:ident $name:literal => $module:ident::{$config:ident, $loss:ident},)+) => {
        $(
            pub mod $module;
            pub use $module::{$config, $loss};

            impl From<$config> for LossConfig {
                fn from(settings: $config) -> Self {
                    Self::$variant(settings.into())
                }
            }
        )+

        /// The choice of a loss with its settings: the section `[loss.NAME]` of a configuration.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[allow(clippy::large_enum_variant)]
        pub enum LossConfig {
            $(
                #[doc = concat!("`[loss.", $name, "]`")]
                #[serde(rename = $name)]
                $variant(Composed<$config>),
            )+
        }

        /// A loss of the registry before it is composed, as a module.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum BaseLoss {
            $(
                #[doc = concat!("`", $name, "`")]
                $variant($loss),
            )+
        }

        impl LossConfig {
            /// Every loss with default settings, sorted by name.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$(Self::from($config::default())),+]
            }

            /// Every loss with the settings that tests must look at.
            #[must_use]
            pub fn examples() -> Vec<Self> {
                let mut all = Vec::new();
                $(all.extend($config::examples().into_iter().map(Self::from));)+
                all
            }

            /// A loss by its name, with default settings.
            ///
            /// # Errors
            /// If there is none, with the names there are.
            pub fn by_name(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok(Self::from($config::default())),)+
                    _ => Err(unknown(name)),
                }
            }

            /// The name in configuration files.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// What the loss can be composed with, its terms and its defaults.
            #[must_use]
            pub fn info(&self) -> LossInfo {
                match self {
                    $(Self::$variant(_) => LossInfo::of::<$config>($name),)+
                }
            }

            /// What the loss can be composed with under its settings.
            #[must_use]
            pub fn accepts(&self) -> Accepts {
                match self {
                    $(Self::$variant(composed) => composed.settings.accepts(),)+
                }
            }

            /// What the loss is composed with.
            #[must_use]
            pub fn options(&self) -> &LossOptions {
                match self {
                    $(Self::$variant(composed) => &composed.options,)+
                }
            }

            /// What the loss is composed with, to be changed.
            pub fn options_mut(&mut self) -> &mut LossOptions {
                match self {
                    $(Self::$variant(composed) => &mut composed.options,)+
                }
            }

            /// How many proxies each class has; none for a loss whose parameters are not proxies by class.
            #[must_use]
            pub fn proxies_per_class(&self) -> Option<usize> {
                match self {
                    $(Self::$variant(composed) => composed.settings.proxies_per_class(),)+
                }
            }

            /// Checks the settings, and that everything fits together.
            ///
            /// # Errors
            /// A message that names the setting, what it is and what it must be.
            pub fn validate(&self) -> Result<(), String> {
                match self {
                    $(Self::$variant(composed) => loss::validate($name, composed),)+
                }
            }

            /// Refuses the reducer `do-nothing`, for what needs one number of the loss.
            ///
            /// # Errors
            /// A message that names the setting and says what to do.
            pub fn validate_reduces(&self) -> Result<(), String> {
                if self.options().reducer != Some(ReducerConfig::DoNothing {}) {
                    return Ok(());
                }
                Err(format!(
                    "loss.{}.reducer is do-nothing, which leaves every value as it is, but one number is needed here; leave it \
                     out, or look at the values with `gradus loss`.",
                    self.name()
                ))
            }

            /// The loss for embeddings of width `dim` and `classes` training classes, with parameters drawn from `seed`.
            #[must_use]
            pub fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> Loss {
                match self {
                    $(
                        Self::$variant(composed) => Loss {
                            base: BaseLoss::$variant(composed.settings.init(dim, classes, seed, device)),
                            composition: Composition::of($name, composed, classes),
                        },
                    )+
                }
            }
        }

        impl MetricLoss for BaseLoss {
            fn terms(&self, view: &View<'_>) -> Vec<Term> {
                match self {
                    $(Self::$variant(loss) => loss.terms(view),)+
                }
            }

            fn check(&self, comparison: &Comparison) -> Result<(), String> {
                match self {
                    $(Self::$variant(loss) => loss.check(comparison),)+
                }
            }

            fn parameters(&self) -> Option<Tensor<2>> {
                match self {
                    $(Self::$variant(loss) => loss.parameters(),)+
                }
            }

            fn has_inner_proxies(&self) -> bool {
                match self {
                    $(Self::$variant(loss) => loss.has_inner_proxies(),)+
                }
            }

            fn with_inner_proxies(self, means: &Tensor<2>) -> Self {
                match self {
                    $(Self::$variant(loss) => Self::$variant(loss.with_inner_proxies(means)),)+
                }
            }

            fn class_limit(&self) -> Option<usize> {
                match self {
                    $(Self::$variant(loss) => loss.class_limit(),)+
                }
            }

            fn with_parameters(self, parameters: Tensor<2>) -> Self {
                match self {
                    $(Self::$variant(loss) => Self::$variant(loss.with_parameters(parameters)),)+
                }
            }
        }

        /// Names of all losses, sorted.
        #[must_use]
        pub fn names() -> &'static [&'static str] {
            &[$($name),+]
        }

        /// What there is to show of all losses, sorted by name.
        #[must_use]
        pub fn info() -> Vec<LossInfo> {
            vec![$(LossInfo::of::<$config>($name)),+]
        }
    };
}

// Sorted; the only place that lists losses.
register_losses! {
    Adaface "adaface" => adaface::{AdafaceConfig, AdafaceLoss},
    Angular "angular" => angular::{AngularConfig, AngularLoss},
    Arcface "arcface" => arcface::{ArcfaceConfig, ArcfaceLoss},
    CentroidTriplet "centroid-triplet" => centroid_triplet::{CentroidTripletConfig, CentroidTripletLoss},
    Circle "circle" => circle::{CircleConfig, CircleLoss},
    Contrastive "contrastive" => contrastive::{ContrastiveConfig, ContrastiveLoss},
    Cosface "cosface" => cosface::{CosfaceConfig, CosfaceLoss},
    Curricularface "curricularface" => curricularface::{CurricularfaceConfig, CurricularfaceLoss},
    DynamicSoftMargin "dynamic-soft-margin" => dynamic_soft_margin::{DynamicSoftMarginConfig, DynamicSoftMarginLoss},
    FastAp "fast-ap" => fast_ap::{FastApConfig, FastApLoss},
    GeneralizedLiftedStructure "generalized-lifted-structure" => generalized_lifted_structure::{
        GeneralizedLiftedStructureConfig, GeneralizedLiftedStructureLoss
    },
    Histogram "histogram" => histogram::{HistogramConfig, HistogramLoss},
    Instance "instance" => instance::{InstanceConfig, InstanceLoss},
    IntraPairVariance "intra-pair-variance" => intra_pair_variance::{IntraPairVarianceConfig, IntraPairVarianceLoss},
    LargeMarginSoftmax "large-margin-softmax" => large_margin_softmax::{LargeMarginSoftmaxConfig, LargeMarginSoftmaxLoss},
    LiftedStructure "lifted-structure" => lifted_structure::{LiftedStructureConfig, LiftedStructureLoss},
    Manifold "manifold" => manifold::{ManifoldConfig, ManifoldLoss},
    Margin "margin" => margin::{MarginConfig, MarginLoss},
    Matryoshka "matryoshka" => matryoshka::{MatryoshkaConfig, MatryoshkaLoss},
    MultiSimilarity "multi-similarity" => multi_similarity::{MultiSimilarityConfig, MultiSimilarityLoss},
    MultipleLosses "multiple-losses" => multiple_losses::{MultipleLossesConfig, MultipleLosses},
    NPairs "n-pairs" => n_pairs::{NPairsConfig, NPairsLoss},
    Nca "nca" => nca::{NcaConfig, NcaLoss},
    NormalizedSoftmax "normalized-softmax" => normalized_softmax::{NormalizedSoftmaxConfig, NormalizedSoftmaxLoss},
    NtXent "nt-xent" => nt_xent::{NtXentConfig, NtXentLoss},
    P2sGrad "p2s-grad" => p2s_grad::{P2sGradConfig, P2sGradLoss},
    Pnp "pnp" => pnp::{PnpConfig, PnpLoss},
    ProxyAnchor "proxy-anchor" => proxy_anchor::{ProxyAnchorConfig, ProxyAnchorLoss},
    ProxyNca "proxy-nca" => proxy_nca::{ProxyNcaConfig, ProxyNcaLoss},
    ProxyNcaOriginal "proxy-nca-original" => proxy_nca_original::{ProxyNcaOriginalConfig, ProxyNcaOriginalLoss},
    ProxyNcaPlusPlus "proxy-nca-plus-plus" => proxy_nca_plus_plus::{ProxyNcaPlusPlusConfig, ProxyNcaPlusPlusLoss},
    Quadruplet "quadruplet" => quadruplet::{QuadrupletConfig, QuadrupletLoss},
    RankedList "ranked-list" => ranked_list::{RankedListConfig, RankedListLoss},
    RecallAtK "recall-at-k" => recall_at_k::{RecallAtKConfig, RecallAtKLoss},
    Roadmap "roadmap" => roadmap::{RoadmapConfig, RoadmapLoss},
    SelfSupervised "self-supervised" => self_supervised::{SelfSupervisedConfig, SelfSupervisedLoss},
    SignalToNoiseRatioContrastive "signal-to-noise-ratio-contrastive" => signal_to_noise_ratio_contrastive::{
        SignalToNoiseRatioContrastiveConfig, SignalToNoiseRatioContrastiveLoss
    },
    SmoothAp "smooth-ap" => smooth_ap::{SmoothApConfig, SmoothApLoss},
    SoftTriple "soft-triple" => soft_triple::{SoftTripleConfig, SoftTripleLoss},
    Sphereface "sphereface" => sphereface::{SpherefaceConfig, SpherefaceLoss},
    SubCenterArcface "sub-center-arcface" => sub_center_arcface::{SubCenterArcfaceConfig, SubCenterArcfaceLoss},
    SupCon "sup-con" => sup_con::{SupConConfig, SupConLoss},
    ThresholdConsistentMargin "threshold-consistent-margin" => threshold_consistent_margin::{
        ThresholdConsistentMarginConfig, ThresholdConsistentMarginLoss
    },
    TripletMargin "triplet-margin" => triplet_margin::{TripletMarginConfig, TripletMarginLoss},
    TupletMargin "tuplet-margin" => tuplet_margin::{TupletMarginConfig, TupletMarginLoss},
    VicReg "vic-reg" => vic_reg::{VicRegConfig, VicRegLoss},
}

impl Default for LossConfig {
    fn default() -> Self {
        ProxyAnchorConfig::default().into()
    }
}

#[cfg(test)]
mod contract;
