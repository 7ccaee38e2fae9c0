//! From what was typed to a configuration: preset, file, overrides, flags.

use std::path::Path;

use gradus::config::{Config, Overlay};
use gradus_core::data::Layout;
use toml::Value;

use crate::arguments::{DataFlags, Source};
use crate::failure::Failure;

/// The preset when none is named.
pub(crate) const DEFAULT_PRESET: &str = "gradus";

/// Preset, then file, then `--set`.
pub(crate) fn of_source(source: &Source) -> Result<Overlay, Failure> {
    let named = match (&source.preset, &source.config) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(path)) => Overlay::preset_of_file(path)?,
        (None, None) => None,
    };
    let name = named.unwrap_or_else(|| DEFAULT_PRESET.to_owned());
    let mut layers = Overlay::preset(&name)?;
    if let Some(path) = &source.config {
        layers.file(path)?;
        layers.insert("preset", name);
    }
    Ok(layers)
}

/// `--set`, after the dedicated flags' defaults but before the flags themselves.
pub(crate) fn put_overrides(layers: &mut Overlay, source: &Source) -> Result<(), Failure> {
    for assignment in &source.overrides {
        layers.set(assignment)?;
    }
    Ok(())
}

/// The flags that name data.
pub(crate) fn put_data(layers: &mut Overlay, flags: &DataFlags) -> Result<(), Failure> {
    if let Some((first, with)) = flags.data.split_first() {
        layers.insert("data.path", path_value(first)?);
        let with = with
            .iter()
            .map(|path| path_value(path))
            .collect::<Result<Vec<_>, _>>()?;
        layers.insert("data.with", Value::Array(with));
    }
    if let Some(layout) = &flags.layout {
        let layout: Layout = layout
            .parse()
            .map_err(|problem| Failure::new(format!("--layout: {problem}")))?;
        layers.insert("data.layout", layout.name());
    }
    if let Some(classes) = &flags.train_classes {
        layers.insert("data.train-classes", classes.as_str());
    }
    if let Some(classes) = &flags.test_classes {
        layers.insert("data.test-classes", classes.as_str());
    }
    if let Some(share) = flags.max_bad_images {
        layers.insert("data.max-bad-images", share);
    }
    Ok(())
}

/// A path as a value of the configuration.
pub(crate) fn path_value(path: &Path) -> Result<Value, Failure> {
    let text = path.to_str().ok_or_else(|| {
        Failure::new(format!(
            "the path {} is not valid UTF-8, which the configuration needs",
            path.display()
        ))
    })?;
    Ok(Value::String(text.to_owned()))
}

/// Resolves the layers, with the defaults that what the network starts from decides.
pub(crate) fn resolve(layers: Overlay) -> Result<Config, Failure> {
    Ok(gradus::config::resolve_from_start(layers)?)
}
