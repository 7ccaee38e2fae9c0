//! `gradus config`

use gradus::config::Overlay;

use super::layers;
use crate::arguments::{ConfigAction, ConfigCommand};
use crate::failure::Outcome;
use crate::output;

pub(crate) fn run(arguments: &ConfigCommand) -> Outcome {
    match &arguments.command {
        ConfigAction::Show { source, json } => {
            let mut layers = layers::of_source(source)?;
            layers::put_overrides(&mut layers, source)?;
            let config = layers::resolve(layers)?;
            if *json {
                output::json(&serde_json::to_value(&config)?)
            } else {
                output::text(&toml::to_string(&config)?)
            }
        }
        ConfigAction::Check { file } => {
            let name = Overlay::preset_of_file(file)?.unwrap_or_else(|| layers::DEFAULT_PRESET.to_owned());
            let mut layers = Overlay::preset(&name)?;
            layers.file(file)?;
            layers.resolve()?;
            output::text(&format!("{}: every key and value is accepted", file.display()))
        }
    }
}
