//! Defaults that what the network starts from decides.

use toml::Value;

use super::overlay::names_a_variant;
use super::{Config, ConfigError, Overlay, TeacherKind, presets};
use crate::models;

/// Resolves the layers. What the network starts from decides three defaults, unless the layers say otherwise: pretrained
/// weights bring the normalisation that their file or their backbone asks for, and frozen batch-norm statistics (small batches of few classes
/// would spoil them); random weights know no order of members that could be kept, so that thumbnails teach instead, and a
/// pretrained trunk that is trained on is held to its own middle (a preset may set more in [one](presets::Preset::from_random_weights)
/// case or the [other](presets::Preset::with_trained_trunk), where it fits the rest); and a head that trains alone, on features
/// that stay, takes higher rates.
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
            (Some(_), TeacherKind::Frozen) => layers.insert("teacher.space", "middle-map"),
            (Some(_), TeacherKind::MovingAverage) | (_, TeacherKind::Network | TeacherKind::Vectors) => {}
        }
    }
    if trains_trunk && let Ok(preset) = presets::find(&config.preset) {
        let more = match &config.model.weights {
            None => preset.from_random_weights(),
            Some(_) => preset.with_trained_trunk(),
        };
        layers = besides(layers, more);
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

/// What the preset sets besides: all that nobody said otherwise. Nothing where somebody chose another variant of a section, or
/// where it does not fit what they said (an auxiliary loss does not go with every base loss, nor with batches in parts): its
/// settings were chosen together.
fn besides(layers: Overlay, assignments: &[&str]) -> Overlay {
    let mut more = layers.clone();
    for assignment in assignments {
        let (key, value) = assignment.split_once('=').unwrap_or_default();
        let mut keys = key.split('.');
        // A section without more names its variant by the value.
        let (section, variant) = (keys.next().unwrap_or_default(), keys.next().unwrap_or(value));
        let same = layers.asks_for(&format!("{section}.{variant}"))
            || layers.get(section).and_then(Value::as_str) == Some(variant);
        let taken = names_a_variant(section) && layers.asks_for(section) && !same;
        let put = layers.asks_for(key) || more.set(assignment).is_ok();
        if taken || !put {
            return layers;
        }
    }
    if more.resolve().is_ok() { more } else { layers }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::TeacherSpace;

    fn resolved(preset: &str, assignments: &[&str]) -> Config {
        let mut layers = Overlay::preset(preset).unwrap();
        for assignment in assignments {
            layers.set(assignment).unwrap();
        }
        resolve_from_start(layers).unwrap()
    }

    /// The weight of ranking, and the auxiliary loss with its widths where it has some.
    fn method(preset: &str, assignments: &[&str]) -> (f64, String) {
        let config = resolved(preset, assignments);
        let auxiliary = serde_json::to_value(&config.auxiliary_loss).unwrap();
        let text = match &config.auxiliary_loss {
            None => "none".to_owned(),
            Some(loss) => format!("{} {}", loss.name(), auxiliary[loss.name()]["widths"]),
        };
        (config.intra_class.weight, text)
    }

    #[test]
    fn from_random_weights_the_method_gets_a_wide_head_and_more_weight() {
        let with_head = |weight: f64| (weight, "s2sd [512]".to_owned());
        assert_eq!(method("gradus", &[]), with_head(1.5));
        assert_eq!(method("gradus", &["intra-class.weight=2.5"]), with_head(2.5));
        let wider = method("gradus", &["auxiliary-loss.s2sd.widths=[64, 96]"]);
        assert_eq!(wider, (1.5, "s2sd [64,96]".to_owned()));
        // Their settings were chosen together: without the head, the weight that needs none.
        let without = |name: &str| (0.7, name.to_owned());
        assert_eq!(method("gradus", &["auxiliary-loss=none"]), without("none"));
        assert_eq!(method("gradus", &["auxiliary-loss=metrix"]), without("metrix null"));
        // Batches in parts keep no features for the head to see.
        assert_eq!(method("gradus", &["train.gradient-cache=8"]), without("none"));
        assert_eq!(method("gradus", &["model.freeze-trunk=true"]), without("none"));
        for other in ["proxy-anchor", "sgar", "sgar-released"] {
            assert_eq!(method(other, &[]).1, "none", "{other}");
        }
    }

    #[test]
    fn what_a_trained_trunk_is_held_to_and_what_is_generated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("weights.safetensors");
        crate::state::write_safetensors(&file, &[], &std::collections::BTreeMap::new()).unwrap();
        let weights = format!("model.weights={}", file.display());
        let teaches = |preset: &str, more: &[&str]| {
            let config = resolved(preset, &[&[weights.as_str()], more].concat());
            let generates = config.embedding_augmentation.is_some();
            (config.teacher.space, generates, config.intra_class.weight)
        };
        assert_eq!(teaches("gradus", &[]), (TeacherSpace::MiddleMap, false, 0.5));
        assert_eq!(
            teaches("gradus", &["embedding-augmentation=none"]),
            teaches("gradus", &[])
        );
        // Asked for, or the trunk stays as it is: generated samples come back, and the weight that goes with them.
        let asked = "embedding-augmentation=class-covariance";
        assert_eq!(teaches("gradus", &[asked]), (TeacherSpace::MiddleMap, true, 0.7));
        let otherwise = teaches("gradus", &["teacher.space=features", "intra-class.weight=2"]);
        assert_eq!(otherwise, (TeacherSpace::Features, false, 2.0));
        let frozen = teaches("gradus", &["model.freeze-trunk=true"]);
        assert_eq!(frozen, (TeacherSpace::Embedding, true, 0.7));
        assert!(teaches("proxy-anchor", &[asked]).1);
        let from_scratch = resolved("gradus", &[]);
        assert_eq!(from_scratch.teacher.space, TeacherSpace::Thumbnail);
        assert!(from_scratch.embedding_augmentation.is_some());
    }

    #[test]
    fn a_stored_configuration_stays_what_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        for assignments in [
            &[][..],
            &["auxiliary-loss=none"],
            &["intra-class.weight=1.5", "model.width=64"],
        ] {
            let stored = resolved("gradus", assignments);
            std::fs::write(&path, toml::to_string(&stored).unwrap()).unwrap();
            let mut layers = Overlay::preset("gradus").unwrap();
            layers.file(&path).unwrap();
            assert_eq!(resolve_from_start(layers).unwrap(), stored, "{assignments:?}");
        }
    }
}
