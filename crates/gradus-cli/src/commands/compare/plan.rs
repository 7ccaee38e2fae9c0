//! From what was typed to a study.

use std::path::Path;

use gradus::config::{Config, Overlay};
use gradus::losses::{self, LossConfig};
use gradus::study::{Parts, Study, StudyFile};

use crate::arguments::Compare;
use crate::commands::{layers, quickstart};
use crate::failure::Failure;

/// The study of a file or of flags.
pub(super) fn study(arguments: &Compare) -> Result<Study, Failure> {
    match &arguments.config {
        Some(path) => of_file(path, arguments),
        None => of_flags(arguments),
    }
}

fn of_file(path: &Path, arguments: &Compare) -> Result<Study, Failure> {
    let mut file = StudyFile::read(path)?;
    if !arguments.seeds.is_empty() {
        file.seeds.clone_from(&arguments.seeds);
    }
    if arguments.baseline.is_some() {
        file.baseline.clone_from(&arguments.baseline);
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let root = arguments.data_root.as_deref().or(folder).unwrap_or(Path::new("."));
    let mut last = Overlay::default();
    if let Some(share) = arguments.data.max_bad_images {
        last.insert("data.max-bad-images", share);
    }
    put_common(&mut last, arguments)?;
    Ok(Study::of_file(&file, root, &last)?)
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
