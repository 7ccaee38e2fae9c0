//! A network that no arm saw, whose order inside classes the arms are compared with.

use std::path::{Path, PathBuf};

use gradus_core::EmbeddingSet;
use gradus_core::data::fingerprint::Fingerprint;
use gradus_core::data::split::TestSet;
use gradus_core::embeddings;
use serde::{Deserialize, Serialize};
use toml::Value;

use crate::config::Config;
use crate::models::{BackboneConfig, ModelConfig, Pooling, weights};
use crate::train::embed::{self, Images, Output};
use crate::train::{Observer, PreparedData, TrainError};

/// Section `[reference]` of a study: pooled features of a pretrained network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ReferenceConfig {
    /// Its backbone: a name, or a section as in `[model.backbone]`.
    backbone: Value,
    /// Its weights; none: seeded random ones, which know little.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<PathBuf>,
    /// Side of the square it sees, in pixels; default that of the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<usize>,
}

impl ReferenceConfig {
    /// The backbone.
    ///
    /// # Errors
    /// If there is none of that name or with such options.
    pub fn backbone(&self) -> Result<BackboneConfig, String> {
        match &self.backbone {
            Value::String(name) => BackboneConfig::by_name(name).map_err(|error| error.to_string()),
            other => BackboneConfig::deserialize(other.clone()).map_err(|error| error.to_string()),
        }
    }

    /// The same with weights that start at `root`.
    pub(super) fn at_root(self, root: &Path) -> Self {
        let weights = self.weights.map(|path| root.join(path));
        Self { weights, ..self }
    }

    /// How it sees images: the run's configuration with this network and the normalisation of its weights in place of the run's.
    pub(super) fn config(&self, run: &Config) -> Result<Config, TrainError> {
        let mut config = run.clone();
        config.model = ModelConfig {
            backbone: self.backbone().map_err(TrainError::Config)?,
            weights: self.weights.clone(),
            pooling: Pooling::Average,
            freeze_batch_norm: true,
            ..ModelConfig::default()
        };
        let stated = match &self.weights {
            Some(path) => weights::read_info(path)?.normalisation,
            None => None,
        };
        let (mean, deviation) = stated.unwrap_or(config.model.backbone.info().normalisation);
        config.transform.mean = mean;
        config.transform.std = deviation;
        if let Some(size) = self.size {
            config.transform.size = size;
        }
        Ok(config)
    }

    /// What tells whether stored embeddings are still those of this network and these queries.
    fn fingerprint(&self, config: &Config, data: &PreparedData, queries: &[usize]) -> Result<String, TrainError> {
        let text =
            |value: Result<String, toml::ser::Error>| value.map_err(|error| TrainError::Config(error.to_string()));
        let unread = |error: std::io::Error| TrainError::Data(format!("cannot look at the images again: {error}"));
        let mut all = Fingerprint::default();
        all.text(&text(toml::to_string(&config.model))?);
        all.text(&text(toml::to_string(&config.transform))?);
        all.text(&config.data.jpeg_short_side.to_string());
        if let Some(path) = &self.weights {
            let bytes = std::fs::read(path)
                .map_err(|error| TrainError::Config(format!("cannot read the weights {}: {error}", path.display())))?;
            all.bytes(&bytes);
        }
        for &query in queries {
            all.source(&data.items[query].source).map_err(unread)?;
        }
        Ok(all.to_string())
    }

    /// Embeddings of the queries of the test classes, made once and kept in `folder`.
    ///
    /// # Errors
    /// If the weights do not fit, an image cannot be read or the place cannot be written to.
    pub fn embeddings(
        &self,
        run: &Config,
        data: &PreparedData,
        folder: &Path,
        observer: &mut dyn Observer,
    ) -> Result<EmbeddingSet, TrainError> {
        let config = self.config(run)?;
        let queries = match &data.test {
            TestSet::Single(items) => items,
            TestSet::QueryGallery { query, .. } => query,
        };
        let path = folder.join(format!("{}.safetensors", self.fingerprint(&config, data, queries)?));
        if let Ok(stored) = embeddings::read(&path)
            && stored.len() == queries.len()
        {
            return Ok(stored);
        }
        let device = config.device.resolve().map_err(TrainError::Config)?;
        let network = config.model.init(config.seed, &device)?;
        let images = Images::new(&config, &data.items, &data.cache)?;
        let labels = queries.iter().map(|&item| data.dataset.items[item].class).collect();
        let what = "reference network";
        let set = embed::embed(&network, &images, queries, labels, Output::Features, what, observer)?;
        let unwritable =
            |problem: String| TrainError::Folder(format!("cannot write to {}: {problem}", folder.display()));
        std::fs::create_dir_all(folder).map_err(|error| unwritable(error.to_string()))?;
        embeddings::write(&set, &path).map_err(|error| unwritable(error.to_string()))?;
        Ok(set)
    }

    /// Whether a run's own network or teacher is this one.
    pub(super) fn is_seen_by(&self, run: &Config) -> bool {
        let same = |model: &ModelConfig| {
            self.backbone().is_ok_and(|backbone| backbone == model.backbone) && model.weights == self.weights
        };
        same(&run.model) || run.teacher.network.as_ref().is_some_and(same)
    }
}
