//! `gradus weights`

use std::path::Path;

use gradus::config::Overlay;
use gradus::models::weights::{Differences, blank_trunk, compare, nearest, read_file, write_trunk};
use gradus::models::{BackboneConfig, Family};
use gradus::state::NamedArray;
use serde_json::json;

use super::trained::{load_embedder, stored_layers};
use crate::arguments::{WeightsAction, WeightsCommand};
use crate::failure::{Failure, Outcome};
use crate::output;

pub(crate) fn run(arguments: &WeightsCommand) -> Outcome {
    match &arguments.command {
        WeightsAction::Check {
            file,
            backbone,
            overrides,
            json,
        } => check(file, backbone.as_deref(), overrides, *json),
        WeightsAction::Export { run, names, out, json } => export(run, names.map(Family::from), out, *json),
    }
}

/// The backbone of a name with options set.
fn configured(name: &str, overrides: &[String]) -> Result<BackboneConfig, Failure> {
    let backbone =
        BackboneConfig::by_name(name).map_err(|problem| Failure::new(format!("--backbone {name}: {problem}")))?;
    let mut layers = Overlay::preset("proxy-anchor")?;
    layers.insert("model.backbone", toml::Value::try_from(backbone)?);
    for assignment in overrides {
        layers.set(&format!("model.backbone.{name}.{assignment}"))?;
    }
    Ok(layers.resolve()?.model.backbone)
}

fn check(file: &Path, backbone: Option<&str>, overrides: &[String], as_json: bool) -> Outcome {
    let (arrays, info) = read_file(file)?;
    let count = arrays.len();
    let backbone = match backbone {
        Some(name) => configured(name, overrides)?,
        None => {
            // Names and shapes tell; the values need not be copied for every backbone.
            let shapes = arrays.iter().map(|array| NamedArray {
                name: array.name.clone(),
                shape: array.shape.clone(),
                values: Vec::new(),
            });
            BackboneConfig::by_name(nearest(&shapes.collect::<Vec<_>>())?.0)?
        }
    };
    let name = backbone.info().name;
    let (differences, _) = compare(&blank_trunk(&backbone), arrays);
    let fits = differences.fits() && differences.not_finite.is_empty();
    if as_json {
        let normalisation = info
            .normalisation
            .map(|(mean, deviation)| json!({ "mean": mean, "std": deviation }));
        output::json(&json!({
            "file": file.display().to_string(),
            "arrays": count,
            "backbone": name,
            "fits": fits,
            "normalisation": normalisation,
            "differences": differences,
        }))?;
    } else {
        output::text(&report(file, name, count, &differences, fits))?;
    }
    if fits {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{} does not fit the backbone `{name}`: {} of its {} tensors do, and there are {} differences",
        file.display(),
        differences.matched,
        differences.matched + differences.missing.len() + differences.other_shape.len(),
        differences.lines().len()
    )))
}

fn report(file: &Path, name: &str, count: usize, differences: &Differences, fits: bool) -> String {
    let verdict = if fits { "fits" } else { "does not fit" };
    let mut lines = vec![format!(
        "{}: {count} tensors, {} of them of a classifier or another part that is left out; {verdict} the backbone `{name}`",
        file.display(),
        differences.ignored.len()
    )];
    lines.extend(differences.lines().into_iter().map(|line| format!("  {line}")));
    lines.join("\n")
}

fn export(folder: &Path, family: Option<Family>, out: &Path, as_json: bool) -> Outcome {
    if out.extension().is_none_or(|extension| extension != "safetensors") {
        return Err(Failure::new(format!(
            "--out {}: weights are written as .safetensors",
            out.display()
        )));
    }
    let config = stored_layers(folder)?.resolve()?;
    if config.model.vectors.is_some() {
        return Err(Failure::new(format!(
            "{} trained a head on vectors of another model: it has no trunk to export",
            folder.display()
        )));
    }
    let backbone = &config.model.backbone;
    let Some(family) = family.or_else(|| backbone.info().families.first().copied()) else {
        return Err(Failure::new(format!(
            "the backbone `{}` is gradus' own: no other library has names for it",
            backbone.info().name
        )));
    };
    let (embedder, _) = load_embedder(folder, &config)?;
    let trunk = embedder
        .trunk()
        .ok_or_else(|| Failure::new(format!("{} has no trunk", folder.display())))?;
    let normalisation = (config.transform.mean, config.transform.std);
    let count = write_trunk(trunk, backbone, family, normalisation, out)?;
    if as_json {
        return output::json(&json!({
            "file": out.display().to_string(), "backbone": backbone.info().name, "names": family.name(), "tensors": count,
        }));
    }
    output::text(&format!(
        "{count} tensors of the backbone `{}` written under the names of {}: {}",
        backbone.info().name,
        family.name(),
        out.display()
    ))
}
