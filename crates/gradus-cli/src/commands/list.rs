//! `gradus list`

use gradus::config::presets;
use gradus::{auxiliary_losses, embedding_augmentation, intra_class, losses, models};
use gradus_core::data::Layout;
use gradus_core::distances::DistanceConfig;
use gradus_core::{evaluation, miners, samplers};
use serde_json::{Value, json};

use crate::arguments::{List, Listed};
use crate::failure::Outcome;
use crate::output;

struct Entry {
    name: String,
    about: String,
    paper: String,
    defaults: Value,
    /// What only this kind of part has, under its own keys.
    more: serde_json::Map<String, Value>,
}

pub(crate) fn run(arguments: &List) -> Outcome {
    let (what, entries) = match arguments.what {
        Listed::Losses => ("losses", losses()),
        Listed::Backbones => ("backbones", backbones()),
        Listed::Datasets => ("datasets", datasets()),
        Listed::Presets => ("presets", presets()),
        Listed::Samplers => ("samplers", samplers()),
        Listed::Miners => ("miners", miners()),
        Listed::Distances => ("distances", distances()),
        Listed::Reducers => ("reducers", reducers()),
        Listed::Regularizers => ("regularizers", regularizers()),
        Listed::Generators => ("generators", generators()),
        Listed::EmbeddingAugmentations => ("embedding-augmentations", embedding_augmentations()),
        Listed::AuxiliaryLosses => ("auxiliary-losses", auxiliary_losses()),
        Listed::Metrics => ("metrics", metrics()),
    };
    if arguments.json {
        let entries: Vec<Value> = entries
            .into_iter()
            .map(|entry| {
                let mut value =
                    json!({"name": entry.name, "about": entry.about, "paper": entry.paper, "defaults": entry.defaults});
                if let Value::Object(fields) = &mut value {
                    fields.extend(entry.more);
                }
                value
            })
            .collect();
        return output::json(&json!({ what: entries }));
    }
    let mut lines = Vec::new();
    for entry in entries {
        let paper = if entry.paper.is_empty() {
            String::new()
        } else {
            format!(" ({})", entry.paper)
        };
        lines.push(format!("{}\n    {}{paper}", entry.name, entry.about));
        if let Value::Object(defaults) = &entry.defaults
            && !defaults.is_empty()
        {
            let pairs: Vec<String> = defaults.iter().map(|(key, value)| format!("{key} = {value}")).collect();
            lines.push(format!("    {}", pairs.join(", ")));
        }
        for weights in entry
            .more
            .get("weights")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let text = |key: &str| weights.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            lines.push(format!(
                "    weights: {} ({}; names: {}; {})",
                text("address"),
                text("about"),
                text("family"),
                text("licence")
            ));
        }
    }
    output::text(&lines.join("\n"))
}

fn entry(name: &str, about: &str, paper: String, defaults: Value) -> Entry {
    Entry {
        name: name.to_owned(),
        about: about.to_owned(),
        paper,
        defaults,
        more: serde_json::Map::new(),
    }
}

fn losses() -> Vec<Entry> {
    let info = losses::info().into_iter();
    info.map(|loss| {
        entry(
            loss.name,
            loss.summary,
            format!("{}, {}", loss.paper, loss.year),
            loss.defaults,
        )
    })
    .collect()
}

fn backbones() -> Vec<Entry> {
    models::BACKBONES
        .iter()
        .map(|backbone| {
            let about = format!(
                "{} features; images of {} px usual, {} px at least{}",
                backbone.feature_width,
                backbone.default_size,
                backbone.minimum_size,
                match backbone.size_step {
                    1 => String::new(),
                    step => format!(", a multiple of {step}"),
                }
            );
            let options = models::BackboneConfig::by_name(backbone.name)
                .ok()
                .and_then(|config| serde_json::to_value(config).ok());
            // The configuration is tagged by the name: its inside are the options.
            let defaults = options
                .and_then(|value| value.get(backbone.name).cloned())
                .unwrap_or(Value::Null);
            let (mean, deviation) = backbone.normalisation;
            let more = [
                ("default_size", json!(backbone.default_size)),
                ("minimum_size", json!(backbone.minimum_size)),
                ("size_step", json!(backbone.size_step)),
                ("features", json!(backbone.feature_width)),
                ("normalisation", json!({ "mean": mean, "std": deviation })),
                ("families", json!(backbone.families)),
                ("weights", json!(backbone.weights)),
            ];
            Entry {
                more: more.map(|(key, value)| (key.to_owned(), value)).into_iter().collect(),
                ..entry(backbone.name, &about, backbone.paper.to_owned(), defaults)
            }
        })
        .collect()
}

fn datasets() -> Vec<Entry> {
    Layout::all()
        .into_iter()
        .map(|(layout, about)| entry(layout.name(), about, String::new(), Value::Null))
        .collect()
}

fn presets() -> Vec<Entry> {
    presets::ALL
        .iter()
        .map(|preset| {
            let defaults = serde_json::to_value(preset.table()).unwrap_or(Value::Null);
            entry(preset.name, preset.about, String::new(), defaults)
        })
        .collect()
}

fn samplers() -> Vec<Entry> {
    samplers::registry()
        .into_iter()
        .map(|sampler| {
            let options = serde_json::to_value(&sampler.defaults).ok();
            let defaults = options
                .and_then(|value| value.get(sampler.name).cloned())
                .unwrap_or(Value::Null);
            entry(sampler.name, sampler.summary, String::new(), defaults)
        })
        .collect()
}

fn miners() -> Vec<Entry> {
    let info = miners::info().into_iter();
    info.map(|miner| {
        entry(
            miner.name,
            miner.summary,
            format!("{}, {}", miner.paper, miner.year),
            miner.defaults,
        )
    })
    .collect()
}

fn distances() -> Vec<Entry> {
    let info = DistanceConfig::registry().into_iter();
    info.map(|distance| {
        let defaults = serde_json::to_value(distance.defaults).unwrap_or_default();
        let defaults = defaults.get(distance.name).cloned().unwrap_or(Value::Null);
        entry(distance.name, distance.summary, distance.paper.to_owned(), defaults)
    })
    .collect()
}

fn reducers() -> Vec<Entry> {
    let info = losses::ReducerConfig::registry().into_iter();
    info.map(|reducer| entry(reducer.name, reducer.summary, String::new(), reducer.defaults))
        .collect()
}

fn regularizers() -> Vec<Entry> {
    let info = losses::RegularizerConfig::registry().into_iter();
    info.map(|regularizer| {
        let defaults = serde_json::to_value(regularizer.defaults).unwrap_or_default();
        let defaults = defaults.get(regularizer.name).cloned().unwrap_or(Value::Null);
        entry(
            regularizer.name,
            regularizer.summary,
            regularizer.paper.to_owned(),
            defaults,
        )
    })
    .collect()
}

fn embedding_augmentations() -> Vec<Entry> {
    let info = embedding_augmentation::info().into_iter();
    info.map(|augmentation| {
        let paper = format!("{}, {}", augmentation.paper, augmentation.year);
        entry(augmentation.name, augmentation.summary, paper, augmentation.defaults)
    })
    .collect()
}

fn auxiliary_losses() -> Vec<Entry> {
    let info = auxiliary_losses::info().into_iter();
    info.map(|loss| {
        let paper = format!("{}, {}", loss.paper, loss.year);
        entry(loss.name, loss.summary, paper, loss.defaults)
    })
    .collect()
}

fn metrics() -> Vec<Entry> {
    evaluation::MEASURES
        .iter()
        .map(|measure| entry(measure.name, measure.summary, measure.source.to_owned(), Value::Null))
        .collect()
}

fn generators() -> Vec<Entry> {
    intra_class::synthesis::GENERATORS
        .iter()
        .map(|generator| {
            entry(
                generator.name,
                generator.summary,
                generator.paper.to_owned(),
                Value::Null,
            )
        })
        .collect()
}
