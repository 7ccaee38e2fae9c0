//! From what was typed to a study.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gradus::config::{Config, Overlay};
use gradus::losses::{self, LossConfig};
use gradus::study::{Parts, Search, Settings, Study, StudyFile, StudySource};

use crate::arguments::Compare;
use crate::commands::{layers, quickstart};
use crate::failure::Failure;

/// What was typed, read and put in order, but not resolved.
pub(super) struct Plan<'a> {
    arguments: &'a Compare,
    file: Option<StudyFile>,
    root: PathBuf,
}

impl<'a> Plan<'a> {
    pub(super) fn new(arguments: &'a Compare) -> Result<Self, Failure> {
        let Some(path) = &arguments.config else {
            return Ok(Self {
                arguments,
                file: None,
                root: PathBuf::new(),
            });
        };
        let mut file = StudyFile::read(path)?;
        if !arguments.seeds.is_empty() {
            file.seeds.clone_from(&arguments.seeds);
        }
        if arguments.baseline.is_some() {
            file.baseline.clone_from(&arguments.baseline);
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let root = arguments.data_root.as_deref().or(folder).unwrap_or(Path::new("."));
        Ok(Self {
            arguments,
            root: root.to_owned(),
            file: Some(file),
        })
    }

    fn source<'b>(&'b self, file: &'b StudyFile) -> Result<StudySource<'b>, Failure> {
        let mut last = Overlay::default();
        if let Some(share) = self.arguments.data.max_bad_images {
            last.insert("data.max-bad-images", share);
        }
        put_common(&mut last, self.arguments)?;
        Ok(StudySource {
            file,
            root: &self.root,
            last,
        })
    }

    /// The study, its arms with the settings that a search chose.
    pub(super) fn study(&self, chosen: &BTreeMap<String, Settings>) -> Result<Study, Failure> {
        let study = match &self.file {
            Some(file) => Study::of_file(&self.source(file)?, chosen)?,
            None => of_flags(self.arguments)?,
        };
        match self.arguments.folds {
            Some(folds) => Ok(study.with_folds(folds)?),
            None => Ok(study),
        }
    }

    /// The search that was asked for.
    pub(super) fn search(&self) -> Result<Option<Search>, Failure> {
        match (self.arguments.tune, &self.file) {
            (Some(trials), Some(file)) => Ok(Some(Search::of_file(&self.source(file)?, trials)?)),
            _ => Ok(None),
        }
    }
}

/// Presets, then losses over the preset `proxy-anchor`, on one data set.
fn of_flags(arguments: &Compare) -> Result<Study, Failure> {
    let names = match &arguments.losses[..] {
        [all] if all == "all" => losses::names().iter().map(|&name| name.to_owned()).collect(),
        names => names.to_vec(),
    };
    let mut arms: Vec<(String, Overlay)> = Vec::new();
    for preset in &arguments.presets {
        arms.push((preset.clone(), Overlay::preset(preset)?));
    }
    for name in names {
        LossConfig::by_name(&name).map_err(|problem| Failure::new(format!("--losses: {problem}")))?;
        let mut layers = Overlay::preset("proxy-anchor")?;
        layers.insert(&format!("loss.{name}"), toml::Table::new());
        arms.push((name, layers));
    }
    if arms.is_empty() {
        return Err(Failure::new(
            "nothing to compare: give --losses (all, or names such as contrastive,proxy-anchor), --presets, or a study with --config",
        ));
    }
    let parts = Parts {
        seeds: if arguments.seeds.is_empty() {
            vec![0]
        } else {
            arguments.seeds.clone()
        },
        baseline: arguments.baseline.clone(),
        untrained: true,
        data: vec![String::new()],
        arms: arms.iter().map(|(name, _)| name.clone()).collect(),
        reference: None,
    };
    let mut configure = |_: &str, arm: &str, seed: u64| {
        let layers = arms
            .iter()
            .find(|(name, _)| name == arm)
            .map(|(_, layers)| layers.clone());
        configure(arguments, layers.unwrap_or_default(), seed).map_err(|failure| failure.to_string())
    };
    Ok(Study::new(parts, &mut configure)?)
}

/// The embedded data bring the settings of the quick start; then what was typed.
fn configure(arguments: &Compare, mut layers: Overlay, seed: u64) -> Result<Config, Failure> {
    let seed = i64::try_from(seed).map_err(|_| Failure::new(format!("--seeds {seed}: expected numbers below 2^63")))?;
    if arguments.data.data.is_empty() {
        layers.put(quickstart::settings()?);
        layers.insert("data.flora.seed", seed);
    }
    layers::put_data(&mut layers, &arguments.data)?;
    layers.insert("seed", seed);
    layers.insert("device", "auto");
    put_common(&mut layers, arguments)?;
    layers::resolve(layers)
}

/// The flags that go over every arm.
fn put_common(layers: &mut Overlay, arguments: &Compare) -> Result<(), Failure> {
    if let Some(device) = &arguments.device {
        layers.insert("device", device.as_str());
    }
    if let Some(epochs) = arguments.epochs {
        layers.insert("train.epochs", i64::try_from(epochs).unwrap_or(i64::MAX));
    }
    for assignment in &arguments.overrides {
        layers.set(assignment)?;
    }
    Ok(())
}
