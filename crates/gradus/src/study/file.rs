//! The file that describes a study.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::{Range, ReferenceConfig, StudyError, TuneConfig};
use crate::config::{Overlay, closest, with_suggestion};

/// A study as its TOML file describes it. Paths in it (data, weights) are relative to the root that the caller names.
///
/// ```toml
/// seeds = [0, 1, 2, 3, 4]
/// baseline = "proxy-anchor"
///
/// [base]                          # keys of the configuration, for all arms
/// train.epochs = 20
///
/// [data.cub50]                    # a name for the tables
/// path = "cub50"
/// train-classes = "1-25"
/// set = ["transform.size=96"]     # keys for this data set alone
///
/// [arm.proxy-anchor]              # named like a preset: that preset
///
/// [arm.ranking-only]
/// like = "stronger"               # everything another arm says, then
/// set = ["intra-class.anchor-weight=0"]
///
/// [arm.stronger]
/// preset = "gradus"
/// [arm.stronger.set]              # or as a table
/// intra-class.weight = 5.0
///
/// [reference]                     # a network that no arm saw
/// backbone = "squeezenet1.1"
/// weights = "squeezenet1_1.safetensors"
/// ```
#[derive(Debug, Clone)]
pub struct StudyFile {
    /// Seeds; every arm is trained with each.
    pub seeds: Vec<u64>,
    /// The arm that differences are taken to; default `proxy-anchor` if there is such an arm, else the first.
    pub baseline: Option<String>,
    /// Whether the network before training stands among the arms; default yes.
    pub untrained: bool,
    /// Keys of the configuration for all arms.
    pub base: Table,
    /// The data sets by name, in the order of the file.
    pub data: Vec<(String, DataEntry)>,
    /// The arms by name, in the order of the file.
    pub arms: Vec<(String, ArmEntry)>,
    /// The network whose order inside classes is compared with.
    pub reference: Option<ReferenceConfig>,
    /// How settings are searched for, if they are.
    pub tune: TuneConfig,
}

/// Section `[data.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataEntry {
    /// Folder, list or archive, or several read as one; `flora` is the embedded data set.
    pub path: Paths,
    /// Layout, when recognition from the files is not wanted.
    pub layout: Option<String>,
    /// Official numbers of the training classes.
    pub train_classes: Option<String>,
    /// Official numbers of the test classes.
    pub test_classes: Option<String>,
    /// Keys of the configuration for this data set: `KEY=VALUE` strings or a table.
    pub set: Option<Value>,
}

/// One path or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// One path.
    One(PathBuf),
    /// Several, read as one data set.
    Several(Vec<PathBuf>),
}

impl Default for Paths {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Paths {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[PathBuf] {
        match self {
            Self::One(path) => std::slice::from_ref(path),
            Self::Several(paths) => paths,
        }
    }
}

/// Section `[arm.NAME]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ArmEntry {
    /// Preset to start from; default that of `like`, else `preset` of `[base]`, else the preset that is called like the arm.
    pub preset: Option<String>,
    /// Another arm, whose settings are taken first.
    pub like: Option<String>,
    /// Keys of the configuration for this arm: `KEY=VALUE` strings or a table.
    pub set: Option<Value>,
    /// What is searched for this arm beside the ranges of `[tune.range]`.
    pub range: BTreeMap<String, Range>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    baseline: Option<String>,
    #[serde(default = "yes")]
    untrained: bool,
    #[serde(default)]
    base: Table,
    #[serde(default)]
    data: Table,
    #[serde(default)]
    arm: Table,
    reference: Option<ReferenceConfig>,
    #[serde(default)]
    tune: TuneConfig,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

fn yes() -> bool {
    true
}

impl StudyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read or holds something that is not known, with a suggestion.
    pub fn read(path: &Path) -> Result<Self, StudyError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| StudyError::Plan(format!("cannot read the study {}: {error}", path.display())))?;
        Self::parse(&text).map_err(|problem| StudyError::Plan(format!("{}: {problem}", path.display())))
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// One paragraph about what is wrong, with a suggestion where there is one.
    pub fn parse(text: &str) -> Result<Self, String> {
        let raw: Raw = toml::from_str(text).map_err(|error| with_suggestion(&error.to_string()))?;
        if let Some(reference) = &raw.reference {
            reference
                .backbone()
                .map_err(|problem| format!("[reference]: {problem}"))?;
        }
        raw.tune.check()?;
        Ok(Self {
            seeds: raw.seeds,
            baseline: raw.baseline,
            untrained: raw.untrained,
            base: raw.base,
            data: entries("data", raw.data)?,
            arms: entries("arm", raw.arm)?,
            reference: raw.reference,
            tune: raw.tune,
        })
    }

    /// The arm of a name.
    ///
    /// # Errors
    /// If there is none, with a suggestion.
    pub fn arm(&self, name: &str) -> Result<&ArmEntry, String> {
        self.arms
            .iter()
            .find(|(arm, _)| arm == name)
            .map(|(_, entry)| entry)
            .ok_or_else(|| no_such("arm", name, self.arms.iter().map(|(arm, _)| arm.as_str())))
    }
}

/// The message about a name that is not there.
pub(super) fn no_such<'a>(what: &str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let hint = closest(name, known.clone())
        .map(|right| format!("; did you mean `{right}`?"))
        .unwrap_or_default();
    let known: Vec<&str> = known.collect();
    format!(
        "there is no {what} called `{name}`: expected one of {}{hint}",
        known.join(", ")
    )
}

fn entries<T: DeserializeOwned>(section: &str, table: Table) -> Result<Vec<(String, T)>, String> {
    let entry = |(name, value): (String, Value)| {
        // Names are names of folders, too.
        let plain = |letter: char| letter.is_alphanumeric() || "-_.+@".contains(letter);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(format!(
                "[{section}.{name}]: the name becomes the name of a folder: use letters, digits, `-`, `_`, `.`, `+` and `@`"
            ));
        }
        match T::deserialize(value) {
            Ok(entry) => Ok((name, entry)),
            Err(error) => Err(format!("[{section}.{name}]: {}", with_suggestion(&error.to_string()))),
        }
    };
    table.into_iter().map(entry).collect()
}

/// Keys given as `KEY=VALUE` strings or as a table, as a layer.
///
/// # Errors
/// If it is something else.
pub(super) fn layer(set: Option<&Value>) -> Result<Overlay, String> {
    let mut layers = Overlay::default();
    match set {
        None => {}
        Some(Value::Table(table)) => {
            for (key, value) in table {
                layers.insert(key, value.clone());
            }
        }
        Some(Value::Array(all)) => {
            for one in all {
                let Value::String(assignment) = one else {
                    return Err(format!(
                        "set holds {one}: expected strings such as \"train.epochs=30\", or a table"
                    ));
                };
                layers.set(assignment).map_err(|error| error.to_string())?;
            }
        }
        Some(other) => {
            return Err(format!(
                "set = {other}: expected a list of strings such as [\"train.epochs=30\"], or a table of keys"
            ));
        }
    }
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_the_file_is_kept_and_mistakes_are_named() {
        let file =
            StudyFile::parse("[data.z]\npath = \"flora\"\n[data.a]\npath = [\"x\", \"y\"]\n[arm.sgar]\n[arm.gradus]\n")
                .unwrap();
        let names: Vec<&str> = file.data.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, file.seeds.len(), file.untrained), (vec!["z", "a"], 1, true));
        assert_eq!(file.data[1].1.path.all().len(), 2);
        assert!(file.arm("gradu").unwrap_err().contains("did you mean `gradus`"));
        for (text, expected) in [
            ("seed = [1]", "did you mean `seeds`"),
            ("[arm.a]\npresets = \"x\"", "did you mean `preset`"),
            ("[data.a]\npaht = \"x\"", "[data.a]"),
            ("[arm.\"a/b\"]", "name of a folder"),
            ("[reference]\nbackbone = \"squeezenet1.0\"", "squeezenet1.1"),
        ] {
            let message = StudyFile::parse(text).unwrap_err();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn lists_and_tables_of_keys_say_the_same() {
        let of = |text: &str| {
            let table: Table = toml::from_str(text).unwrap();
            layer(table.get("set")).map(|layer| layer.get("intra-class.weight").cloned())
        };
        for text in [
            "set = [\"intra-class.weight=5\"]",
            "[set]\nintra-class.weight = 5",
            "[set]\n\"intra-class.weight\" = 5",
        ] {
            assert_eq!(of(text).unwrap(), Some(Value::Integer(5)), "{text}");
        }
        assert!(of("set = 3").unwrap_err().contains("expected a list"));
        assert!(of("set = [3]").unwrap_err().contains("expected strings"));
    }
}
