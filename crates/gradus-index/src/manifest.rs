//! `index.toml`: what an index is, and how much of its files belongs to it.

use std::path::{Path, PathBuf};

use gradus_core::files::write_atomically;
use serde::{Deserialize, Serialize};

use crate::IndexError;
use crate::calibration::Thresholds;
use crate::engine::EngineKind;
use crate::item::Fields;
use crate::log::Extent;

/// The format this version writes, and the only one it reads.
const FORMAT: u32 = 1;

/// The model whose embeddings an index holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Model {
    /// Path of the run.
    pub run: String,
    /// What its weights and its evaluation transform are, in a few digits.
    pub fingerprint: String,
}

impl Model {
    /// A model with the fingerprint of its parts (weights, transform, ...): the same on every machine and for every version of gradus.
    ///
    /// ```
    /// use gradus_index::Model;
    ///
    /// let model = Model::of("runs/a", &[b"weights", b"transform"]);
    /// assert_eq!(model.fingerprint.len(), 32);
    /// assert_ne!(model.fingerprint, Model::of("runs/a", &[b"weightst", b"ransform"]).fingerprint);
    /// ```
    #[must_use]
    pub fn of(run: impl Into<String>, parts: &[&[u8]]) -> Self {
        // For noticing differences, not for security: multiply and rotate, in two lanes.
        const FACTORS: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F];
        let mut lanes = FACTORS;
        let mut take = |word: u64| {
            for (lane, factor) in lanes.iter_mut().zip(FACTORS) {
                *lane = (*lane ^ word).wrapping_mul(factor).rotate_left(29);
            }
        };
        for part in parts {
            let (words, rest) = part.as_chunks::<8>();
            words.iter().for_each(|word| take(u64::from_le_bytes(*word)));
            let mut last = [0; 8];
            last[..rest.len()].copy_from_slice(rest);
            take(u64::from_le_bytes(last));
            take(part.len() as u64);
        }
        let [high, low] = lanes.map(|lane| (lane ^ (lane >> 32)).wrapping_mul(FACTORS[0]));
        Self {
            run: run.into(),
            fingerprint: format!("{high:016x}{low:016x}"),
        }
    }
}

/// How embeddings are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Distance {
    Cosine,
}

/// The content of `index.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    pub(crate) engine: EngineKind,
    pub(crate) dimension: usize,
    pub(crate) distance: Distance,
    /// Items that can be found.
    pub(crate) count: usize,
    /// Counts the changes, so that a process notices those of another.
    pub(crate) revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) image_root: Option<PathBuf>,
    /// What a build reads: only a build of the same goes on where one stopped.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) source: String,
    pub(crate) log: Extent,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<Model>,
    #[serde(default, skip_serializing_if = "Fields::is_empty")]
    pub(crate) fields: Fields,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) calibration: Option<Thresholds>,
}

impl Manifest {
    pub(crate) fn new(engine: EngineKind, dimension: usize, generation: u64) -> Self {
        Self {
            format: FORMAT,
            engine,
            dimension,
            distance: Distance::Cosine,
            count: 0,
            revision: 0,
            image_root: None,
            source: String::new(),
            log: Extent::new(generation),
            model: None,
            fields: Fields::new(),
            calibration: None,
        }
    }

    /// Reads a manifest; none if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Self>, IndexError> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(IndexError::file(path)(error)),
        };
        let table: toml::Table = text
            .parse()
            .map_err(|error: toml::de::Error| IndexError::damaged(path, error.message()))?;
        let format = table.get("format").and_then(toml::Value::as_integer);
        if format != Some(i64::from(FORMAT)) {
            let found = format.map_or_else(|| "none".to_owned(), |format| format.to_string());
            return Err(IndexError::damaged(
                path,
                format!(
                    "expected the format {FORMAT} of an index, found {found}: it was written by another version of gradus; build the index \
                     again, or use that version"
                ),
            ));
        }
        let manifest: Self = table
            .try_into()
            .map_err(|error: toml::de::Error| IndexError::damaged(path, error.message()))?;
        if manifest.dimension == 0 {
            return Err(IndexError::damaged(path, "the dimension is 0"));
        }
        Ok(Some(manifest))
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), IndexError> {
        let text = toml::to_string(self).map_err(|error| IndexError::damaged(path, error.to_string()))?;
        write_atomically(path, |file| file.write_all(text.as_bytes())).map_err(IndexError::file(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::FieldKind;

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.toml");
        assert_eq!(Manifest::read(&path).unwrap(), None);
        let mut manifest = Manifest::new(EngineKind::QdrantEdge, 8, 3);
        manifest.image_root = Some("/images".into());
        manifest.model = Some(Model {
            run: "runs/a".into(),
            fingerprint: "0a".into(),
        });
        manifest.fields = Fields::from([("a price".to_owned(), FieldKind::Number)]);
        manifest.calibration = Some(Thresholds {
            global: 0.5,
            rule: "best-f1".into(),
            classes: [("a.b c".to_owned(), 0.25)].into(),
        });
        manifest.write(&path).unwrap();
        assert_eq!(Manifest::read(&path).unwrap(), Some(manifest));
    }

    #[test]
    fn other_formats_and_damage_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("index.toml");
        for (text, expected) in [
            ("format = 2", "another version"),
            ("format = 1", "missing field"),
            ("format = ", "index.toml"),
            ("", "another version"),
        ] {
            std::fs::write(&path, text).unwrap();
            let message = Manifest::read(&path).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
