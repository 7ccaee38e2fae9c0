//! Defaults that what the network starts from decides.

use toml::Value;

use super::{Config, ConfigError, Overlay, TeacherKind};
use crate::models;

/// Resolves the layers. What the network starts from decides three defaults, unless the layers say otherwise: pretrained
/// weights bring the normalisation that their file or their backbone asks for, and frozen batch-norm statistics (small batches of few classes
/// would spoil them); random weights know no order of members that could be kept, so that thumbnails teach instead, and a pretrained trunk that is trained on
/// is held to its own middle; and a head that trains alone, on features that stay, takes higher rates.
///
/// # Errors
/// If a key or value is not accepted, or the file of weights cannot be read.
pub fn resolve_from_start(mut layers: Overlay) -> Result<Config, ConfigError> {
    let config = layers.resolve()?;
    if config.model.trains_head_alone() {
        for (key, value) in [("optimizer.rate", 3e-4), ("optimizer.criterion-factor", 333.0)] {
            if !layers.mentions(key) {
                layers.insert(key, value);
            }
        }
    }
    let trains_trunk = !config.model.trains_head_alone();
    if trains_trunk && config.intra_class.needs_teacher() && !layers.mentions("teacher.space") {
        match (&config.model.weights, config.teacher.kind) {
            (None, TeacherKind::Frozen | TeacherKind::MovingAverage) => layers.insert("teacher.space", "thumbnail"),
            (Some(_), TeacherKind::Frozen) => layers.insert("teacher.space", "middle"),
            (Some(_), TeacherKind::MovingAverage) | (_, TeacherKind::Network) => {}
        }
    }
    let Some(weights) = &config.model.weights else {
        return layers.resolve();
    };
    if !layers.mentions("model.freeze-batch-norm") {
        layers.insert("model.freeze-batch-norm", true);
    }
    if layers.mentions("transform.mean") || layers.mentions("transform.std") {
        return layers.resolve();
    }
    let info = models::weights::read_info(weights).map_err(|error| ConfigError::Refused {
        origin: "model.weights".to_owned(),
        problem: error.to_string(),
    })?;
    let (mean, deviation) = info.normalisation.unwrap_or(config.model.backbone.info().normalisation);
    for (key, values) in [("transform.mean", mean), ("transform.std", deviation)] {
        layers.insert(
            key,
            Value::Array(values.iter().map(|&value| Value::Float(f64::from(value))).collect()),
        );
    }
    layers.resolve()
}
