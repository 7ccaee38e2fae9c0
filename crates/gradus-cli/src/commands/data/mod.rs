//! `gradus data`

mod catalogue;
mod download;
mod get;
mod unpack;

use gradus::config::DataConfig;
use gradus::train::prepare;
use gradus_core::data::flora::{self, FloraConfig};
use gradus_core::data::inspect::inspect_split;
use gradus_core::data::{Layout, SplitOptions, image};
use serde_json::json;

use crate::arguments::{Data, DataCommand};
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &Data) -> Outcome {
    match &arguments.command {
        DataCommand::Inspect {
            paths,
            layout,
            train_classes,
            test_classes,
            quick,
            json,
        } => {
            let layout = layout.as_deref().map(str::parse::<Layout>).transpose();
            let layout = layout.map_err(|problem| Failure::new(format!("--layout: {problem}")))?;
            let (first, with) = paths
                .split_first()
                .ok_or_else(|| Failure::new("expected a path to inspect"))?;
            let config = DataConfig {
                path: first.clone(),
                with: with.to_vec(),
                layout,
                ..DataConfig::default()
            };
            let dataset = prepare::read(&config)?;
            let selection = |text: &Option<String>, flag: &str| {
                text.as_deref()
                    .map(|text| {
                        text.parse()
                            .map_err(|problem| Failure::new(format!("{flag}: {problem}")))
                    })
                    .transpose()
            };
            let options = SplitOptions {
                train_classes: selection(train_classes, "--train-classes")?,
                test_classes: selection(test_classes, "--test-classes")?,
            };
            let check = |source: &gradus_core::data::Source| {
                image::decode(source)
                    .map(|pixels| pixels.dimensions())
                    .map_err(|error| error.to_string())
            };
            let report = inspect_split(&dataset, &options, if *quick { None } else { Some(&check) });
            if *json {
                output::json(&serde_json::to_value(&report)?)
            } else {
                output::text(&report.to_string())
            }
        }
        DataCommand::Get {
            name,
            to,
            catalogue,
            mirror,
            timeout_s,
            keep_archives,
            json,
        } => get::run(&get::Get {
            name,
            to,
            catalogue: catalogue.as_deref(),
            mirror: mirror.as_deref(),
            timeout_s: *timeout_s,
            keep_archives: *keep_archives,
            json: *json,
        }),
        DataCommand::Generate {
            name,
            out,
            species,
            images,
            size,
            seed,
            json,
        } => {
            if name != "flora" {
                return Err(Failure::new(format!(
                    "unknown embedded data set `{name}`: expected flora"
                )));
            }
            let standard = FloraConfig::default();
            let config = FloraConfig {
                species: species.unwrap_or(standard.species),
                images: images.unwrap_or(standard.images),
                size: size.unwrap_or(standard.size),
                seed: seed.unwrap_or(standard.seed),
            };
            let dataset = flora::generate(&config)?;
            flora::write(&dataset, out)?;
            let (images, classes) = (dataset.items.len(), dataset.classes.len());
            if *json {
                output::json(&json!({"images": images, "classes": classes, "folder": out.display().to_string()}))
            } else {
                output::text(&format!(
                    "{images} images of {classes} species written to {}, their factors to {}",
                    out.display(),
                    out.join("factors.csv").display()
                ))
            }
        }
    }
}
