//! Layers of configuration put over each other before anything is typed.

use std::path::{Path, PathBuf};

use gradus_core::data::Layout;
use gradus_core::embeddings;
use toml::{Table, Value};

use super::{Config, presets};

/// Sections that name one variant of several: a layer that names another variant replaces the section.
const VARIANTS: &[&str] = &[
    "loss",
    "miner",
    "miner.rho-regularization.miner",
    "embedding-augmentation",
    "auxiliary-loss",
    "sampler",
    "sampler.tuples-to-weights.miner",
    "model.backbone",
    "model.head",
    "teacher.network.backbone",
    "teacher.network.head",
    "intra-class.generator",
    "optimizer.rule",
    "optimizer.decay",
    "optimizer.clipping",
];

/// Those of them whose variants are sections: a bare name, as in `--set loss=contrastive`, means the defaults of that one.
const SECTIONS: &[&str] = &[
    "loss",
    "miner",
    "miner.rho-regularization.miner",
    "embedding-augmentation",
    "auxiliary-loss",
    "sampler",
    "sampler.tuples-to-weights.miner",
    "model.backbone",
    "teacher.network.backbone",
    "intra-class.generator",
    "optimizer.rule",
];

/// Those of them that may be missing: `none` takes away what a lower layer, such as a preset, has put there.
const OPTIONAL: &[&str] = &["miner", "embedding-augmentation", "auxiliary-loss"];

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text is not a configuration.
    #[error("{origin}: {problem}")]
    Refused {
        /// Which file, flag or preset.
        origin: String,
        /// What is wrong, with a suggestion where there is one.
        problem: String,
    },
}

/// Layers put over the defaults; later ones win.
///
/// ```
/// use gradus::config::Overlay;
/// let mut layers = Overlay::preset("proxy-anchor").unwrap();
/// layers.set("loss.proxy-anchor.alpha=16").unwrap();
/// assert!(layers.resolve().is_ok());
/// layers.set("train.epoch=3").unwrap();
/// assert!(layers.resolve().unwrap_err().to_string().contains("did you mean `epochs`"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    table: Table,
    /// What was put over the preset: what somebody asked for.
    asked: Table,
}

impl Overlay {
    /// Starts from a preset.
    ///
    /// # Errors
    /// If there is no preset of that name, with a suggestion.
    pub fn preset(name: &str) -> Result<Self, ConfigError> {
        let preset = presets::find(name).map_err(|problem| ConfigError::Refused {
            origin: "--preset".to_owned(),
            problem,
        })?;
        let mut overlay = Self::default();
        merge(&mut overlay.table, preset.table(), "");
        overlay
            .table
            .insert("preset".to_owned(), Value::String(name.to_owned()));
        Ok(overlay)
    }

    /// The name of the preset a configuration file asks for, if it names one.
    ///
    /// # Errors
    /// If the file cannot be read or is not TOML.
    pub fn preset_of_file(path: &Path) -> Result<Option<String>, ConfigError> {
        Ok(read_table(path)?
            .0
            .get("preset")
            .and_then(Value::as_str)
            .map(str::to_owned))
    }

    /// Puts a file over what is there.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or holds a key or value that is not accepted; with line and suggestion.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let (table, text) = read_table(path)?;
        // Typed on its own first: only the file's own text can show the line of a mistake.
        toml::from_str::<Config>(&text).map_err(|error| ConfigError::Refused {
            origin: path.display().to_string(),
            problem: with_suggestion(&error.to_string()),
        })?;
        self.put(table);
        Ok(())
    }

    /// Puts `a.b=c` over what is there; the value is TOML, or a plain string where it is not.
    ///
    /// # Errors
    /// If there is no `=` or the path leads through a value.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let refused = |problem: String| ConfigError::Refused {
            origin: format!("--set {assignment}"),
            problem,
        };
        let (path, value) = assignment
            .split_once('=')
            .ok_or_else(|| refused("expected KEY=VALUE, for example train.epochs=30".to_owned()))?;
        let path = path.trim();
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(refused(
                "expected a dotted key before `=`, for example train.epochs=30".to_owned(),
            ));
        }
        let value = value.trim();
        let value = toml::from_str::<Table>(&format!("value = {value}"))
            .ok()
            .and_then(|mut table| table.remove("value"))
            .unwrap_or_else(|| Value::String(value.to_owned()));
        self.insert(path, value);
        Ok(())
    }

    /// Puts one value at a dotted path.
    pub fn insert(&mut self, path: &str, value: impl Into<Value>) {
        let mut value = value.into();
        for key in path.rsplit('.') {
            let mut table = Table::new();
            table.insert(key.to_owned(), value);
            value = Value::Table(table);
        }
        if let Value::Table(table) = value {
            self.put(table);
        }
    }

    /// Puts a table over what is there.
    pub fn put(&mut self, table: Table) {
        merge(&mut self.asked, table.clone(), "");
        merge(&mut self.table, table, "");
    }

    /// Puts vectors of another model in the place of images: a head is trained on them alone. Classes come from `labels`, or
    /// from the file itself.
    ///
    /// # Errors
    /// If the file cannot be read, or a path is not valid UTF-8.
    pub fn put_vectors(&mut self, path: &Path, labels: Option<&Path>) -> Result<(), ConfigError> {
        let text = |path: &Path| {
            path.to_str().map(str::to_owned).ok_or_else(|| ConfigError::Refused {
                origin: path.display().to_string(),
                problem: "the path is not valid UTF-8, which the configuration needs".to_owned(),
            })
        };
        let width = embeddings::read_width(path).map_err(|error| ConfigError::Refused {
            origin: "embeddings".to_owned(),
            problem: error.to_string(),
        })?;
        self.insert("data.path", text(path)?);
        self.insert("data.layout", Layout::Embeddings.name());
        if let Some(labels) = labels {
            self.insert("data.labels", text(labels)?);
        }
        self.insert("model.vectors", i64::try_from(width).unwrap_or(i64::MAX));
        Ok(())
    }

    /// Whether some layer says something about a dotted path.
    #[must_use]
    pub fn mentions(&self, path: &str) -> bool {
        self.get(path).is_some()
    }

    /// Whether some layer over the preset says something about a dotted path.
    ///
    /// ```
    /// use gradus::config::Overlay;
    /// let mut layers = Overlay::preset("gradus").unwrap();
    /// assert!(layers.mentions("intra-class.weight") && !layers.asks_for("intra-class.weight"));
    /// layers.set("intra-class.weight=1").unwrap();
    /// assert!(layers.asks_for("intra-class.weight"));
    /// ```
    #[must_use]
    pub fn asks_for(&self, path: &str) -> bool {
        at(&self.asked, path).is_some()
    }

    /// What the layers say at a dotted path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Value> {
        at(&self.table, path)
    }

    /// Puts other layers over these.
    pub fn put_layers(&mut self, other: Self) {
        merge(&mut self.asked, other.asked, "");
        merge(&mut self.table, other.table, "");
    }

    /// The typed, checked configuration.
    ///
    /// # Errors
    /// If a key or value is not accepted; with a suggestion.
    pub fn resolve(&self) -> Result<Config, ConfigError> {
        let refused = |problem: String| ConfigError::Refused {
            origin: "configuration".to_owned(),
            problem,
        };
        let mut table = self.table.clone();
        for &section in OPTIONAL {
            // As a file says it, and as a bare name is understood.
            let off = match table.get(section) {
                Some(Value::String(name)) => name == "none",
                Some(Value::Table(variants)) => variants.len() == 1 && variants.contains_key("none"),
                _ => false,
            };
            if off {
                table.remove(section);
            }
        }
        let text = toml::to_string(&table).map_err(|error| refused(error.to_string()))?;
        let config: Config = toml::from_str(&text).map_err(|error| refused(with_suggestion(&error.to_string())))?;
        config.validate().map_err(refused)?;
        Ok(config)
    }
}

/// The settings of one named thing, such as a miner: its defaults with `KEY=VALUE` assignments over them, in order.
///
/// ```
/// use gradus::config::settings;
/// use gradus_core::miners::MinerConfig;
/// let miner: MinerConfig = settings("pair-margin", &["pos-margin=0.3".to_owned()]).unwrap();
/// assert_eq!(miner.name(), "pair-margin");
/// assert!(settings::<MinerConfig>("pair-margin", &["pos-margim=0.3".to_owned()]).is_err());
/// ```
///
/// # Errors
/// An assignment that is none, a key or a value that is not accepted; with a suggestion. An unknown name.
pub fn settings<T: serde::de::DeserializeOwned>(name: &str, assignments: &[String]) -> Result<T, ConfigError> {
    let mut table = Table::new();
    for assignment in assignments {
        let mut one = Overlay::default();
        one.set(assignment)?;
        merge(&mut table, one.table, "");
    }
    settings_of(name, table)
}

/// The same from a table of settings.
///
/// ```
/// use gradus::config::settings_of;
/// use gradus_core::miners::MinerConfig;
/// let miner: MinerConfig = settings_of("pair-margin", toml::from_str("pos-margin = 0.3").unwrap()).unwrap();
/// assert_eq!(miner.name(), "pair-margin");
/// ```
///
/// # Errors
/// A key or a value that is not accepted; with a suggestion. An unknown name.
pub fn settings_of<T: serde::de::DeserializeOwned>(name: &str, given: Table) -> Result<T, ConfigError> {
    let mut table = Table::new();
    merge(&mut table, given, "");
    let mut named = Table::new();
    named.insert(name.to_owned(), Value::Table(table));
    Value::Table(named).try_into().map_err(|error| ConfigError::Refused {
        origin: format!("settings of {name}"),
        problem: with_suggestion(&error.to_string()).replace('\n', " "),
    })
}

fn read_table(path: &Path) -> Result<(Table, String), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    let table = toml::from_str::<Table>(&text).map_err(|error| ConfigError::Refused {
        origin: path.display().to_string(),
        problem: error.to_string(),
    })?;
    Ok((table, text))
}

/// Whether a section names one variant of several.
pub(super) fn names_a_variant(path: &str) -> bool {
    let option = |key: &str| key == "distance" || key == "reducer" || key.ends_with("-regularizer");
    let keys: Vec<&str> = path.split('.').collect();
    // The options of a loss, in a configuration or on their own in `settings`.
    VARIANTS.contains(&path) || matches!(keys[..], ["loss", _, key] | [key] if option(key))
}

fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let mut keys = path.split('.');
    let first = table.get(keys.next()?);
    keys.try_fold(first?, |value, key| value.get(key))
}

fn merge(base: &mut Table, layer: Table, path: &str) {
    for (key, value) in layer {
        let here = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        let value = match value {
            Value::String(name) if SECTIONS.contains(&here.as_str()) => {
                Value::Table(Table::from_iter([(name, Value::Table(Table::new()))]))
            }
            // `device = "cpu"` says where; the kernels are another key.
            Value::String(name) if here == "device" => Value::Table(Table::from_iter([("on".to_owned(), name.into())])),
            other => other,
        };
        match (base.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                let other_variant = names_a_variant(&here) && new.keys().any(|name| !old.contains_key(name));
                if other_variant {
                    old.clear();
                }
                merge(old, new, &here);
            }
            (_, Value::Table(new)) => {
                let mut table = Table::new();
                merge(&mut table, new, &here);
                base.insert(key, Value::Table(table));
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Adds "did you mean" to serde's message about an unknown field or variant.
pub(crate) fn with_suggestion(message: &str) -> String {
    let message = message.trim_end();
    let mut names = message.split('`').skip(1).step_by(2);
    let (Some(wrong), known) = (names.next(), names.collect::<Vec<_>>()) else {
        return message.to_owned();
    };
    if !(message.contains("unknown field") || message.contains("unknown variant")) {
        return message.to_owned();
    }
    match closest(wrong, known.iter().copied()) {
        Some(right) => format!("{message}\ndid you mean `{right}`?"),
        None => message.to_owned(),
    }
}

/// The known name most like a wrong one, if any is alike at all.
pub(crate) fn closest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), name))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win_and_another_variant_replaces_the_section() {
        let mut layers = Overlay::preset("proxy-anchor").unwrap();
        layers.set("loss.proxy-anchor.alpha=16").unwrap();
        layers.set("loss.proxy-anchor.margin=0.2").unwrap();
        let text = toml::to_string(&layers.resolve().unwrap().loss).unwrap();
        assert!(text.contains("alpha = 16") && text.contains("margin = 0.2"), "{text}");
        layers.set("loss.triplet-margin.margin=0.3").unwrap();
        let text = toml::to_string(&layers.resolve().unwrap().loss).unwrap();
        assert!(
            text.contains("triplet-margin") && !text.contains("proxy-anchor"),
            "{text}"
        );
    }

    #[test]
    fn none_takes_away_what_a_preset_has_put_there() {
        let mut layers = Overlay::preset("gradus").unwrap();
        assert!(layers.resolve().unwrap().embedding_augmentation.is_some());
        layers.set("embedding-augmentation=none").unwrap();
        assert!(layers.resolve().unwrap().embedding_augmentation.is_none());
        layers.set("embedding-augmentation=proxy-synthesis").unwrap();
        assert!(layers.resolve().unwrap().embedding_augmentation.is_some());
        let mut layers = Overlay::preset("gradus").unwrap();
        layers.put(toml::from_str("embedding-augmentation = 'none'\nminer = 'none'").unwrap());
        let config = layers.resolve().unwrap();
        assert!(config.embedding_augmentation.is_none() && config.miner.is_none());
        layers.set("loss=none").unwrap();
        assert!(layers.resolve().is_err());
        // A stored run over its preset, as `--config` reads it, and a file that a person writes.
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        for text in [
            toml::to_string(&config).unwrap(),
            "embedding-augmentation = 'none'".to_owned(),
        ] {
            std::fs::write(&path, text).unwrap();
            let mut layers = Overlay::preset("gradus").unwrap();
            layers.file(&path).unwrap();
            assert!(layers.resolve().unwrap().embedding_augmentation.is_none());
        }
        for assignment in ["loss=self-supervised", "loss=n-pairs", "memory.size=64"] {
            let mut layers = Overlay::preset("gradus").unwrap();
            layers.set(assignment).unwrap();
            let message = layers.resolve().unwrap_err().to_string();
            assert!(
                message.contains("embedding-augmentation = \"none\""),
                "{assignment}: {message}"
            );
            layers.set("embedding-augmentation=none").unwrap();
            let after = layers
                .resolve()
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default();
            assert!(!after.contains("augmentation"), "{assignment}: {after}");
        }
    }

    #[test]
    fn a_bare_name_of_a_section_means_its_defaults() {
        for (assignment, part) in [
            ("loss=contrastive", "[loss.contrastive"),
            ("miner=multi-similarity", "[miner.multi-similarity"),
            ("sampler=shuffle", "[sampler.shuffle"),
            ("model.backbone=mobilenet-v2", "[model.backbone.mobilenet-v2"),
            ("intra-class.generator=gaussian", "[intra-class.generator.gaussian"),
            ("optimizer.rule=sgd", "[optimizer.rule.sgd"),
        ] {
            let mut layers = Overlay::preset("proxy-anchor").unwrap();
            layers.set(assignment).unwrap();
            let text = toml::to_string(&layers.resolve().expect(assignment)).unwrap();
            assert!(text.contains(part), "{assignment}: {text}");
        }
        let mut layers = Overlay::default();
        layers.set("model.backbone=mobilenet-v3").unwrap();
        let message = layers.resolve().unwrap_err().to_string();
        assert!(message.contains("did you mean `mobilenet-v2`?"), "{message}");
        let mut layers = Overlay::default();
        layers.set("device.kernels=stock").unwrap();
        layers.set("device=cpu").unwrap();
        let text = toml::to_string(&layers.resolve().unwrap().device).unwrap();
        assert!(
            text.contains("on = \"cpu\"") && text.contains("kernels = \"stock\""),
            "{text}"
        );
        // The settings that a layer below gave stay.
        let mut layers = Overlay::default();
        layers.set("loss.proxy-anchor.alpha=16").unwrap();
        layers.set("loss=proxy-anchor").unwrap();
        assert!(
            toml::to_string(&layers.resolve().unwrap().loss)
                .unwrap()
                .contains("alpha = 16")
        );
    }

    #[test]
    fn a_file_may_say_only_where_to_compute() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("short.toml");
        std::fs::write(&path, "device = \"cpu\"\n").unwrap();
        let mut layers = Overlay::default();
        layers.file(&path).unwrap();
        layers.set("device.kernels=stock").unwrap();
        let text = toml::to_string(&layers.resolve().unwrap().device).unwrap();
        assert!(
            text.contains("on = \"cpu\"") && text.contains("kernels = \"stock\""),
            "{text}"
        );
    }

    #[test]
    fn options_of_a_loss_are_replaced_whole() {
        let mut layers = Overlay::preset("proxy-anchor").unwrap();
        layers.set("loss.contrastive.distance.lp.p=1").unwrap();
        layers.set("loss.contrastive.distance.cosine={}").unwrap();
        layers.set("loss.contrastive.reducer=sum").unwrap();
        layers.set("loss.contrastive.neg-margin=0.5").unwrap();
        let text = toml::to_string(&layers.resolve().unwrap().loss).unwrap();
        for part in ["cosine", "sum", "neg-margin = 0.5"] {
            assert!(text.contains(part) && !text.contains("lp"), "{text}");
        }
    }

    #[test]
    fn every_preset_resolves_and_reads_back_what_it_stores() {
        for preset in presets::ALL {
            let config = Overlay::preset(preset.name).unwrap().resolve().unwrap();
            let text = toml::to_string(&config).unwrap();
            assert_eq!(toml::from_str::<Config>(&text).unwrap(), config, "{}", preset.name);
        }
    }

    #[test]
    fn typos_are_refused_with_a_suggestion() {
        let mut layers = Overlay::default();
        layers.set("train.epoch=3").unwrap();
        let message = layers.resolve().unwrap_err().to_string();
        assert!(message.contains("did you mean `epochs`?"), "{message}");
        let message = Overlay::preset("gradu").unwrap_err().to_string();
        assert!(message.contains("did you mean `gradus`?"), "{message}");
    }

    #[test]
    fn a_mistake_in_a_file_shows_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wrong.toml");
        std::fs::write(&path, "seed = 1\n[train]\nepocs = 3\n").unwrap();
        let message = Overlay::default().file(&path).unwrap_err().to_string();
        assert!(message.contains("line 3") && message.contains("epochs"), "{message}");
    }

    #[test]
    fn a_measure_nobody_takes_is_refused_before_training() {
        let message = |measure: &str| {
            let mut layers = Overlay::default();
            layers.set("data.validation=0.2").unwrap();
            layers
                .set(&format!("train.early-stopping.measure=\"{measure}\""))
                .unwrap();
            layers.resolve().err().map(|error| error.to_string())
        };
        assert!(message("recal@1").unwrap().contains("recal@1"));
        assert_eq!(message("recall@1"), None);
        assert!(message("density").unwrap().contains("more is better"));
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for assignment in [
            "optimizer.rate=0",
            "data.validation=1.5",
            "train.keep-checkpoints=0",
            "train.early-stopping.patience=2",
        ] {
            let mut layers = Overlay::default();
            layers.set(assignment).unwrap();
            let message = layers.resolve().unwrap_err().to_string();
            assert!(
                message.contains(assignment.split('=').next().unwrap().rsplit('.').next().unwrap())
                    || message.contains("early-stopping"),
                "{message}"
            );
        }
    }
}
