//! Which pairs or triplets of a batch a loss looks at: one file per miner, listed once, here.
//!
//! A miner sees rows, what is known of them ([`Labels`]) and a seed, and names pairs or triplets by position. It may take
//! its positives and negatives from a separate reference set (a memory, a gallery, a teacher's batch). Names, parameters
//! and choices are those of pytorch-metric-learning 2.9.0; where two candidates are equal the first is taken. Everything
//! is computed in double precision, anchor by anchor, in parallel; the result depends on input and seed alone.
//!
//! A new miner is one file (settings with documented defaults that implement [`Miner`], tests) and one line in the registry
//! below; configuration, `gradus list miners`, `gradus mine` and the contract tests follow from that line.
//!
//! ```
//! use gradus_core::miners::{Mined, MinerConfig, MiningInput};
//! use gradus_core::relations::Labels;
//!
//! let labels = Labels::from(vec![0, 0, 1]);
//! let input = MiningInput::batch(vec![1.0, 0.0, 0.6, 0.8, 0.0, 1.0], &labels, 2, 7).unwrap();
//! let mined = MinerConfig::by_name("batch-hard").unwrap().mine(&input).unwrap();
//! assert_eq!(mined, Mined::Triplets(vec![[0, 1, 2], [1, 0, 2]]));
//! ```

#[cfg(test)]
mod contract;
#[cfg(test)]
mod golden;
mod input;
mod mined;
#[cfg(test)]
mod testing;

use serde::{Deserialize, Serialize};

pub use input::{MiningInput, Partners, Relations};
pub use mined::{Mined, Pairs, all_pairs, all_triplets, random_triplets};

use crate::distances::DistanceConfig;
use crate::relations::Labels;

/// A way to choose pairs or triplets; the settings are the miner, as it remembers nothing.
pub trait Miner: Default + Clone + Serialize {
    /// One line on what is chosen.
    const SUMMARY: &'static str;
    /// First author, title and venue of the paper.
    const PAPER: &'static str;
    /// Year of the paper.
    const YEAR: u16;
    /// Whether the choice depends on the seed.
    const RANDOM: bool = false;

    /// Checks the settings.
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    fn validate(&self) -> Result<(), String>;

    /// What is chosen of the input.
    ///
    /// # Errors
    /// If the miner cannot work on such an input; a set without pairs is no error.
    fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError>;
}

/// Why nothing could be mined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MiningError {
    /// Rows, width and labels do not belong together.
    #[error("{0}")]
    Mismatch(String),
    /// An embedding is not a number.
    #[error("row {row} of the {set} holds {value}, which is not a finite number; rows are counted from 0")]
    NotFinite {
        /// Which set: embeddings, or reference embeddings.
        set: &'static str,
        /// Which row.
        row: usize,
        /// What it holds.
        value: String,
    },
    /// The settings make no sense.
    #[error("{0}")]
    Settings(String),
    /// The miner does not work on such an input.
    #[error("{0}")]
    Unsupported(String),
}

/// What `gradus list miners` shows of a miner.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MinerInfo {
    /// Name in configuration files.
    pub name: &'static str,
    /// One line on what is chosen.
    pub summary: &'static str,
    /// First author, title and venue.
    pub paper: &'static str,
    /// Year of the paper.
    pub year: u16,
    /// Whether the choice depends on the seed.
    pub random: bool,
    /// Its settings with their default values.
    pub defaults: serde_json::Value,
}

impl MinerInfo {
    fn of<M: Miner>(name: &'static str) -> Self {
        Self {
            name,
            summary: M::SUMMARY,
            paper: M::PAPER,
            year: M::YEAR,
            random: M::RANDOM,
            defaults: serde_json::to_value(M::default()).unwrap_or_default(),
        }
    }
}

macro_rules! register_miners {
    ($($variant:ident $name:literal => $module:ident::$miner:ident,)+) => {
        $(
            pub mod $module;
            pub use $module::$miner;
        )+

        /// The choice of a miner with its settings: the section `[miner.NAME]` of a configuration.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(remote = "Self")]
        pub enum MinerConfig {
            $(
                #[doc = concat!("`[miner.", $name, "]`")]
                #[serde(rename = $name)]
                $variant($miner),
            )+
        }

        impl MinerConfig {
            /// Every miner with default settings, sorted by name.
            #[must_use]
            pub fn all() -> Vec<Self> {
                vec![$(Self::$variant($miner::default())),+]
            }

            /// The name in configuration files.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            /// Whether the choice depends on the seed.
            #[must_use]
            pub fn is_random(&self) -> bool {
                match self {
                    $(Self::$variant(_) => <$miner as Miner>::RANDOM,)+
                }
            }

            /// Checks the settings.
            ///
            /// # Errors
            /// A message that names the setting, what it is and what it must be.
            pub fn validate(&self) -> Result<(), String> {
                match self {
                    $(Self::$variant(miner) => miner.validate(),)+
                }
            }

            /// What is chosen of the input.
            ///
            /// # Errors
            /// Settings that make no sense, or an input the miner cannot work on; a set without pairs is no error.
            pub fn mine(&self, input: &MiningInput<'_>) -> Result<Mined, MiningError> {
                self.validate().map_err(MiningError::Settings)?;
                match self {
                    $(Self::$variant(miner) => miner.mine(input),)+
                }
            }
        }

        /// Names of all miners, sorted.
        #[must_use]
        pub fn names() -> &'static [&'static str] {
            &[$($name),+]
        }

        /// What there is to show of all miners, sorted by name.
        #[must_use]
        pub fn info() -> Vec<MinerInfo> {
            vec![$(MinerInfo::of::<$miner>($name)),+]
        }
    };
}

// Sorted; the only place that lists miners.
register_miners! {
    Angular "angular" => angular::AngularMiner,
    BatchEasyHard "batch-easy-hard" => batch_easy_hard::BatchEasyHardMiner,
    BatchHard "batch-hard" => batch_hard::BatchHardMiner,
    DistanceWeighted "distance-weighted" => distance_weighted::DistanceWeightedMiner,
    EmbeddingsAlreadyPackagedAsTriplets "embeddings-already-packaged-as-triplets" => packaged::PackagedMiner,
    Hdc "hdc" => hdc::HdcMiner,
    MultiSimilarity "multi-similarity" => multi_similarity::MultiSimilarityMiner,
    PairMargin "pair-margin" => pair_margin::PairMarginMiner,
    RhoRegularization "rho-regularization" => rho_regularization::RhoRegularizationMiner,
    TripletMargin "triplet-margin" => triplet_margin::TripletMarginMiner,
    UniformHistogram "uniform-histogram" => uniform_histogram::UniformHistogramMiner,
}

crate::name_or_table!(
    MinerConfig,
    "the name of a miner (see `gradus list miners`), or a table with one of them"
);

impl Default for MinerConfig {
    fn default() -> Self {
        Self::MultiSimilarity(MultiSimilarityMiner::default())
    }
}

impl MinerConfig {
    /// The miner of a name, with default settings.
    ///
    /// # Errors
    /// If there is none, with the name most like it and all names.
    pub fn by_name(name: &str) -> Result<Self, String> {
        if let Some(found) = Self::all().into_iter().find(|miner| miner.name() == name) {
            return Ok(found);
        }
        let closest = names()
            .iter()
            .map(|known| (strsim::jaro_winkler(name, known), known))
            .filter(|(likeness, _)| *likeness > 0.75)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, known)| format!("; did you mean `{known}`?"));
        Err(format!(
            "there is no miner `{name}`{} Miners: {}",
            closest.unwrap_or_else(|| ".".to_owned()),
            names().join(", ")
        ))
    }
}

/// Refuses a setting by name.
fn refuse(miner: &str, setting: &str, value: impl std::fmt::Display, wanted: &str) -> Result<(), String> {
    Err(format!("miner.{miner}.{setting} is {value}, but it must be {wanted}"))
}

/// Checks a number that may be anything but infinite or not a number.
fn finite(miner: &str, setting: &str, value: f64) -> Result<(), String> {
    if value.is_finite() {
        return Ok(());
    }
    refuse(miner, setting, value, "a finite number")
}

/// Refuses a distance other than the Euclidean distance of normalised rows, which the formula of the miner is made for.
fn only_euclidean(miner: &str, distance: &DistanceConfig) -> Result<(), String> {
    if *distance == DistanceConfig::EUCLIDEAN {
        return Ok(());
    }
    let found = serde_json::to_string(distance).unwrap_or_default();
    refuse(
        miner,
        "distance",
        found,
        "lp with p = 2, power = 1 and normalize = true: its rule holds for no other",
    )
}

/// Distances of all queries from all references, turned so that larger is always farther apart.
struct Distances {
    values: Vec<f64>,
    columns: usize,
    similarity: bool,
}

impl Distances {
    fn of(distance: &DistanceConfig, input: &MiningInput<'_>) -> Self {
        let mut values = distance.matrix_of_doubles(input.query(), input.reference(), input.dim());
        let similarity = distance.is_similarity();
        if similarity {
            values.iter_mut().for_each(|value| *value = -*value);
        }
        Self {
            values,
            columns: input.references(),
            similarity,
        }
    }

    fn row(&self, query: usize) -> &[f64] {
        &self.values[query * self.columns..][..self.columns]
    }

    fn at(&self, [query, reference]: [u32; 2]) -> f64 {
        self.values[query as usize * self.columns + reference as usize]
    }

    /// A bound in the distance's own unit, turned as the values are; also the way back.
    fn turned(&self, bound: f64) -> f64 {
        if self.similarity { -bound } else { bound }
    }
}
