//! Supervised metric losses: one file each, listed once, here.
//!
//! A new loss is one file (settings with documented defaults, `validate`, the struct, `init`, `forward`, tests) and one
//! line in the registry below; configuration, `gradus list losses` and the contract tests follow from that line.
//!
//! All losses compare directions: embeddings and proxies are normalised inside. They start from `0 * sum(embeddings)`,
//! so that a batch without pairs still has a gradient, read nothing back to the host, and never hold more than a few
//! matrices of `batch x batch` or `batch x classes`. They divide by `mul_scalar` of the reciprocal, because Burn 0.22
//! rounds the slope of `div_scalar` to single precision.
//!
//! ```
//! use gradus::batch::EmbeddingBatch;
//! use gradus::losses::{LossConfig, MetricLoss};
//! use gradus::tensor::{Device, Tensor};
//!
//! let device = Device::flex();
//! let loss = LossConfig::default().init(2, 2, 7, &device);
//! let embeddings = Tensor::<2>::from_data([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], &device);
//! let value = loss.forward(&EmbeddingBatch::new(embeddings, vec![0, 0, 1]));
//! assert_eq!(value.dims(), [1]);
//! ```

mod check;
mod pairs;
#[cfg(test)]
mod testing;

use serde::{Deserialize, Serialize};

use crate::batch::EmbeddingBatch;
use crate::tensor::{Device, Module, Tensor};

/// A loss on embeddings and labels; it holds its own parameters (proxies, boundaries), so it is a module.
pub trait MetricLoss: Module {
    /// The loss, `[1]`: starts from `0 * sum(embeddings)` so that backward always has a graph.
    ///
    /// # Panics
    /// If a label has no proxy in a loss that has one per class.
    fn forward(&self, batch: &EmbeddingBatch) -> Tensor<1>;

    /// Proxies `[classes, dim]` (not normalised, tracked) of losses that have one proxy per class.
    fn proxies(&self) -> Option<Tensor<2>> {
        None
    }

    /// Replaces the proxies by the given rows `[classes, dim]`, such as class means; a loss without proxies stays as it is.
    ///
    /// # Panics
    /// If the shapes differ.
    #[must_use]
    fn with_proxies(self, proxies: Tensor<2>) -> Self {
        let _ = proxies;
        self
    }
}

/// Settings of one loss: what they mean, whether they make sense, and how the loss is made from them.
pub trait MetricLossConfig: Default + Clone + Serialize {
    /// The loss these settings describe.
    type Loss: MetricLoss;
    /// One line on what the loss does.
    const SUMMARY: &'static str;
    /// First author, title and venue of the paper.
    const PAPER: &'static str;
    /// Year of the paper.
    const YEAR: u16;

    /// Checks the settings.
    ///
    /// # Errors
    /// A message that names the setting, what it is and what it must be.
    fn validate(&self) -> Result<(), String>;

    /// The loss for embeddings of width `dim` and `classes` training classes, with parameters drawn from `seed`.
    fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> Self::Loss;
}

/// What `gradus list losses` shows of a loss.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossInfo {
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

impl LossInfo {
    fn of<C: MetricLossConfig>(name: &'static str) -> Self {
        let defaults = serde_json::to_value(C::default()).unwrap_or_default();
        Self {
            name,
            summary: C::SUMMARY,
            paper: C::PAPER,
            year: C::YEAR,
            defaults,
        }
    }
}

macro_rules! register_losses {
    ($($variant:ident $name:literal => $module:ident::{$config:ident, $loss:ident},)+) => {
        $(
            pub mod $module;
            pub use $module::{$config, $loss};
        )+

        /// The choice of a loss with its settings: the section `[loss.NAME]` of a configuration.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub enum LossConfig {
            $(
                #[doc = concat!("`[loss.", $name, "]`")]
                #[serde(rename = $name)]
                $variant($config),
            )+
        }

        /// A loss of the registry, as a module.
        #[derive(Module, Debug)]
        #[allow(clippy::large_enum_variant)]
        pub enum Loss {
            $(
                #[doc = concat!("`", $name, "`")]
                $variant($loss),
            )+
        }

        impl LossConfig {
            /// Every loss with default settings, sorted by name.
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

            /// Checks the settings.
            ///
            /// # Errors
            /// A message that names the setting, what it is and what it must be.
            pub fn validate(&self) -> Result<(), String> {
                match self {
                    $(Self::$variant(config) => config.validate(),)+
                }
            }

            /// The loss for embeddings of width `dim` and `classes` training classes, with parameters drawn from `seed`.
            #[must_use]
            pub fn init(&self, dim: usize, classes: usize, seed: u64, device: &Device) -> Loss {
                match self {
                    $(Self::$variant(config) => Loss::$variant(config.init(dim, classes, seed, device)),)+
                }
            }
        }

        impl MetricLoss for Loss {
            fn forward(&self, batch: &EmbeddingBatch) -> Tensor<1> {
                match self {
                    $(Self::$variant(loss) => loss.forward(batch),)+
                }
            }

            fn proxies(&self) -> Option<Tensor<2>> {
                match self {
                    $(Self::$variant(loss) => loss.proxies(),)+
                }
            }

            fn with_proxies(self, proxies: Tensor<2>) -> Self {
                match self {
                    $(Self::$variant(loss) => Self::$variant(loss.with_proxies(proxies)),)+
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
    Arcface "arcface" => arcface::{ArcfaceConfig, ArcfaceLoss},
    Contrastive "contrastive" => contrastive::{ContrastiveConfig, ContrastiveLoss},
    Margin "margin" => margin::{MarginConfig, MarginLoss},
    MultiSimilarity "multi-similarity" => multi_similarity::{MultiSimilarityConfig, MultiSimilarityLoss},
    NtXent "nt-xent" => nt_xent::{NtXentConfig, NtXentLoss},
    ProxyAnchor "proxy-anchor" => proxy_anchor::{ProxyAnchorConfig, ProxyAnchorLoss},
    TripletMargin "triplet-margin" => triplet_margin::{TripletMarginConfig, TripletMarginLoss},
}

impl Default for LossConfig {
    fn default() -> Self {
        Self::ProxyAnchor(ProxyAnchorConfig::default())
    }
}

#[cfg(test)]
mod contract {
    //! What every loss of the registry promises.

    use super::testing::{near, scalar};
    use super::*;
    use crate::tensor::TensorData;
    use gradus_core::random::{self, Rng};

    const DIM: usize = 5;
    const CLASSES: usize = 4;

    /// All losses with default settings, and the switches that take other paths.
    fn variants() -> Vec<LossConfig> {
        let mut all = LossConfig::all();
        for (swap, smooth) in [(true, false), (false, true)] {
            all.push(LossConfig::TripletMargin(TripletMarginConfig {
                swap,
                smooth,
                ..Default::default()
            }));
        }
        for beta_per_class in [false, true] {
            let learned = MarginConfig {
                learn_beta: true,
                beta_per_class,
                nu: 0.1,
                ..Default::default()
            };
            all.push(LossConfig::Margin(learned));
        }
        all
    }

    fn noise(count: usize, seed: u64) -> Vec<f32> {
        let mut stream = random::stream(seed, &[99]);
        (0..count).map(|_| stream.random::<f32>() * 2.0 - 1.0).collect()
    }

    fn embeddings(values: Vec<f32>) -> Tensor<2> {
        let rows = values.len() / DIM;
        Tensor::from_data(TensorData::new(values, [rows, DIM]), &Device::flex().autodiff()).require_grad()
    }

    fn loss(config: &LossConfig) -> Loss {
        config.init(DIM, CLASSES, 11, &Device::flex().autodiff())
    }

    /// Value and gradient of a loss, both checked to be finite.
    fn evaluate(config: &LossConfig, loss: &Loss, values: Vec<f32>, labels: &[u32], case: &str) -> (f64, Vec<f32>) {
        let embeddings = embeddings(values);
        let value = loss.forward(&EmbeddingBatch::new(embeddings.clone(), labels.to_vec()));
        assert_eq!(value.dims(), [1]);
        assert!(value.is_tracked(), "{config:?} on {case}: not tracked");
        let number = scalar(&value);
        assert!(number.is_finite(), "{config:?} on {case}: {number}");
        let gradients = value.backward();
        let gradient = embeddings
            .grad(&gradients)
            .expect("a gradient")
            .try_to_vec_as::<f32>()
            .expect("floats");
        assert!(
            gradient.iter().all(|slope| slope.is_finite()),
            "{config:?} on {case}: {gradient:?}"
        );
        if let Some(proxies) = loss.proxies().filter(|_| !labels.is_empty()) {
            let slopes = proxies
                .grad(&gradients)
                .expect("proxies are tracked")
                .try_to_vec_as::<f32>()
                .expect("floats");
            assert!(
                slopes.iter().all(|slope| slope.is_finite()),
                "{config:?} on {case}: proxies {slopes:?}"
            );
        }
        (number, gradient)
    }

    #[test]
    fn degenerate_batches_are_finite_and_tracked() {
        let pair_losses_cost_nothing = ["contrastive", "margin", "nt-xent", "triplet-margin"];
        for config in variants() {
            let loss = loss(&config);
            let name = config.name();
            let (all_apart, _) = evaluate(&config, &loss, noise(4 * DIM, 1), &[0, 1, 2, 3], "all labels distinct");
            let (one_class, _) = evaluate(&config, &loss, noise(4 * DIM, 2), &[2; 4], "one class");
            let (single, slopes) = evaluate(&config, &loss, noise(DIM, 3), &[0], "one row");
            if pair_losses_cost_nothing.contains(&name) {
                assert_eq!(single, 0.0, "{name}");
                assert!(slopes.iter().all(|&slope| slope == 0.0));
                if name != "contrastive" {
                    assert_eq!((all_apart, one_class), (0.0, 0.0), "{name}");
                }
            }
            let mut with_zero = noise(4 * DIM, 4);
            with_zero[..DIM].fill(0.0);
            evaluate(&config, &loss, with_zero, &[0, 0, 1, 1], "a zero vector");
            evaluate(&config, &loss, vec![0.0; 4 * DIM], &[0, 0, 1, 1], "zero vectors only");
            let row = noise(DIM, 5);
            evaluate(&config, &loss, row.repeat(4), &[0, 0, 1, 1], "duplicate rows");
            let opposite: Vec<f32> = [row.clone(), row.iter().map(|value| -value).collect()].concat();
            evaluate(&config, &loss, opposite.repeat(2), &[0, 0, 1, 1], "opposite rows");
            let huge: Vec<f32> = noise(4 * DIM, 6).iter().map(|value| value * 1e4).collect();
            evaluate(&config, &loss, huge, &[0, 0, 1, 1], "scale 1e4");
            let tiny: Vec<f32> = noise(4 * DIM, 6).iter().map(|value| value * 1e-6).collect();
            evaluate(&config, &loss, tiny, &[0, 0, 1, 1], "scale 1e-6");
            evaluate(&config, &loss, vec![], &[], "no row");
        }
    }

    #[test]
    fn embeddings_equal_to_their_proxies_are_finite() {
        for config in LossConfig::all() {
            let values = noise(CLASSES * DIM, 8);
            let proxies = Tensor::from_data(TensorData::new(values.clone(), [CLASSES, DIM]), &Device::flex());
            let loss = loss(&config).with_proxies(proxies);
            evaluate(&config, &loss, values.clone(), &[0, 1, 2, 3], "cosine 1");
            evaluate(
                &config,
                &loss,
                values.iter().map(|value| -value).collect(),
                &[0, 1, 2, 3],
                "cosine -1",
            );
        }
    }

    #[test]
    fn order_of_rows_changes_nothing() {
        let labels = [0, 1, 1, 2, 0, 2, 2, 3];
        let order = [3, 0, 7, 5, 1, 6, 2, 4];
        for config in variants() {
            let loss = loss(&config);
            let values = noise(8 * DIM, 9);
            let shuffled: Vec<f32> = order
                .iter()
                .flat_map(|&row| values[row * DIM..][..DIM].to_vec())
                .collect();
            let (value, gradient) = evaluate(&config, &loss, values, &labels, "in order");
            let (moved, moved_gradient) = evaluate(
                &config,
                &loss,
                shuffled,
                &order.map(|row| labels[row]),
                "in another order",
            );
            near(moved, value);
            assert!(value > 0.0, "{}: nothing to compare", config.name());
            for (position, &row) in order.iter().enumerate() {
                for axis in 0..DIM {
                    near(
                        f64::from(moved_gradient[position * DIM + axis]),
                        f64::from(gradient[row * DIM + axis]),
                    );
                }
            }
        }
    }

    #[test]
    fn lengths_of_embeddings_change_nothing() {
        let labels = [0, 1, 1, 2, 0, 2];
        for config in variants() {
            let loss = loss(&config);
            let values = noise(6 * DIM, 10);
            let longer = values
                .iter()
                .enumerate()
                .map(|(i, value)| value * (1 + i / DIM) as f32)
                .collect();
            let (value, _) = evaluate(&config, &loss, values, &labels, "some length");
            near(evaluate(&config, &loss, longer, &labels, "another length").0, value);
        }
    }

    #[test]
    fn a_step_against_the_gradient_lowers_the_loss() {
        let labels = [0, 1, 1, 2, 0, 2, 3, 3];
        for config in variants() {
            let loss = loss(&config);
            let values = noise(8 * DIM, 12);
            let (value, gradient) = evaluate(&config, &loss, values.clone(), &labels, "before");
            let length: f32 = gradient.iter().map(|slope| slope * slope).sum::<f32>().sqrt();
            let after = values
                .iter()
                .zip(&gradient)
                .map(|(value, slope)| value - 1e-3 * slope / length)
                .collect();
            let (after, _) = evaluate(&config, &loss, after, &labels, "after");
            assert!(after < value, "{}: {value} became {after}", config.name());
        }
    }

    #[test]
    fn initial_parameters_follow_from_the_seed() {
        let device = Device::flex().autodiff();
        for config in LossConfig::all() {
            let proxies = |seed| {
                let loss = config.init(DIM, CLASSES, seed, &device);
                loss.proxies()
                    .map(|proxies| proxies.try_to_vec_as::<f32>().expect("floats"))
            };
            assert_eq!(proxies(1), proxies(1));
            assert!(proxies(1).is_none() || proxies(1) != proxies(2), "{}", config.name());
        }
    }

    #[test]
    fn configuration_round_trips_and_refuses_what_it_does_not_know() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct File {
            loss: LossConfig,
        }
        for config in variants() {
            config.validate().expect("valid");
            let file = File { loss: config.clone() };
            let text = toml::to_string(&file).expect("writes");
            assert!(text.contains(&format!("[loss.{}]", config.name())), "{text}");
            assert_eq!(toml::from_str::<File>(&text).expect("reads"), file);
            let name = config.name();
            let error = toml::from_str::<File>(&format!("[loss.{name}]\nno-such-key = 1\n")).expect_err("unknown key");
            assert!(error.to_string().contains("no-such-key"), "{error}");
            toml::from_str::<File>(&format!("[loss.{name}]\n")).expect("all settings have defaults");
        }
        let error = toml::from_str::<File>("[loss.proxi-anchor]\n")
            .expect_err("unknown loss")
            .to_string();
        names().iter().for_each(|name| assert!(error.contains(name), "{error}"));
        let read: File = toml::from_str("[loss.proxy-anchor]\nalpha = 16.0\n").expect("reads");
        assert_eq!(
            read.loss,
            LossConfig::ProxyAnchor(ProxyAnchorConfig {
                alpha: 16.0,
                margin: 0.1
            })
        );
    }

    #[test]
    fn the_registry_is_sorted_and_described() {
        assert!(names().is_sorted());
        assert_eq!(LossConfig::default().name(), "proxy-anchor");
        let listed: Vec<&str> = info().iter().map(|info| info.name).collect();
        assert_eq!(listed, names());
        for info in info() {
            assert!(info.year > 1990 && !info.paper.is_empty() && !info.summary.contains('\n'));
            assert!(
                info.defaults.as_object().is_some_and(|settings| !settings.is_empty()),
                "{}",
                info.name
            );
        }
    }

    #[test]
    fn settings_that_are_not_numbers_are_refused() {
        for config in LossConfig::all() {
            let defaults = serde_json::to_value(&config).expect("writes");
            let settings = defaults[config.name()].as_object().expect("settings").clone();
            let (key, _) = settings.iter().find(|(_, value)| value.is_f64()).expect("a number");
            let text = format!("[loss.{}]\n{key} = nan\n", config.name());
            let table: toml::Table = toml::from_str(&text).expect("toml");
            let broken: LossConfig = table["loss"].clone().try_into().expect("reads");
            let message = broken.validate().expect_err("not a number");
            assert!(message.contains(&format!("loss.{}.{key}", config.name())), "{message}");
        }
    }
}
