//! The configuration: one typed tree, read from TOML, presets and overrides, checked once, stored with every run.
//!
//! Precedence: defaults < preset < file < `--set` and flags, in the order given. Unknown keys are refused with a suggestion.

mod from_start;
mod overlay;
pub mod presets;
mod sections;

pub use from_start::resolve_from_start;
pub use overlay::{ConfigError, Overlay, settings, settings_of};
pub(crate) use overlay::{closest, with_suggestion};
pub use sections::{
    CacheKind, Config, DataConfig, EarlyStopping, EvaluationConfig, FeatureCache, OptimizerConfig, ProxyStart,
    TeacherConfig, TeacherKind, TeacherSpace, TrainConfig,
};
