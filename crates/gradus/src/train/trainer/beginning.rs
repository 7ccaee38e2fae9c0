//! How a run begins: head, proxies and teacher from the data, or everything from a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::slice;
use std::sync::Arc;

use gradus_core::EmbeddingSet;

use super::super::checkpoint::{Arrays, Position};
use super::super::embed::{self, Output};
use super::super::error::TrainError;
use super::super::events::{Event, Observer};
use super::super::frozen::{FrozenFeatures, Wanted};
use super::super::objective::MetricModel;
use super::super::start;
use super::super::teacher::{PLAIN, Renormalise, Teacher};
use super::super::teacher_vectors::TeacherVectors;
use super::Trainer;
use crate::auxiliary_losses::AuxiliaryModule;
use crate::config::{Config, ProxyStart, TeacherKind, TeacherSpace};
use crate::intra_class::ClassStatistics;
use crate::models::{Embedder, HeadConfig, HeadStart};
use crate::state::{NamedArray, load_named_arrays, named_arrays, read_safetensors, write_safetensors};
use crate::tensor::{Module, Tensor, TensorData};

impl<'a> Trainer<'a> {
    /// The start of a new run: head and proxies from the data, the teacher, the first checkpoint.
    pub(super) fn begin(&mut self, model: MetricModel, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.run.record(&Event::Data {
            split: self.data.description.clone(),
            train_images: self.data.train.len(),
            train_classes: self.data.train_classes,
            validation_images: self.data.validation.len(),
            test_images: self.data.test.len(),
        })?;
        let mut model = model;
        self.prepare_frozen(&model.embedder, observer)?;
        let principal =
            self.config.model.initial == HeadStart::Pca && !matches!(self.config.model.head, HeadConfig::Mlp { .. });
        let class_means = self.config.train.proxies == ProxyStart::ClassMeans && model.loss.has_proxies();
        if principal || class_means {
            let what = "features of the training images";
            let features = self.embed_training(&model.embedder, Output::Features, what, observer)?;
            let width = model.embedder.dim();
            if principal && width > features.dim {
                // The default width is that of photographs; a small trunk has fewer features, and no fewer wishes.
                let message = format!(
                    "model.width = {width} is more than the {} features of the trunk have principal components: the head starts at random",
                    features.dim
                );
                observer.on(&Event::Warning { message });
            } else if principal {
                model = start::principal_head(model, &features)?;
            }
            if class_means {
                let embeddings = self.head_of(&model.embedder, &features)?;
                let device = self.device.clone().autodiff();
                model = start::class_mean_proxies(model, &embeddings, self.data.train_classes, &device);
                if let Some(auxiliary) = model.auxiliary_loss.take() {
                    let started = auxiliary.started(&features, self.data.train_classes);
                    model.auxiliary_loss = Some(started.map_err(TrainError::Device)?);
                }
            }
        }
        if let Some(path) = self.vectors_that_teach() {
            let vectors = TeacherVectors::read(path, self.data)?;
            write_safetensors(&self.run.teacher(), slice::from_ref(vectors.array()), &BTreeMap::new())
                .map_err(|error| self.run.unwritable(&std::io::Error::other(error)))?;
            self.teacher_vectors = Some(vectors);
        } else if self.config.intra_class.needs_teacher() {
            let network = match (self.config.teacher.kind, &self.config.teacher.network) {
                (TeacherKind::Network, Some(other)) => other.init(self.config.seed, &self.device)?,
                _ => model.embedder.clone(),
            };
            write_safetensors(&self.run.teacher(), &named_arrays(&network), &BTreeMap::new())
                .map_err(|error| self.run.unwritable(&std::io::Error::other(error)))?;
            self.teacher = Some(self.new_teacher(&network));
        }
        let model = self.without_frozen_trunk(model)?;
        self.average = self.averages().then(|| model.embedder.valid());
        self.model = Some(model);
        self.save_checkpoint()
    }

    /// Takes out the trunk where training sees its stored features, and writes it down once instead of in every checkpoint.
    pub(super) fn without_frozen_trunk(&mut self, model: MetricModel) -> Result<MetricModel, TrainError> {
        if self.images.frozen.is_none() || self.config.model.vectors.is_some() {
            return Ok(model);
        }
        if !(self.resumed && self.run.trunk().exists()) {
            let arrays: Vec<NamedArray> = named_arrays(&model.embedder).into_iter().filter(is_of_trunk).collect();
            write_safetensors(&self.run.trunk(), &arrays, &BTreeMap::new())
                .map_err(|error| self.run.unwritable(&std::io::Error::other(error)))?;
        }
        let (embedder, trunk) = model.embedder.take_trunk();
        self.trunk = trunk.map(|trunk| trunk.valid());
        Ok(MetricModel { embedder, ..model })
    }

    /// The file whose vectors order members in this run, if one does.
    pub(super) fn vectors_that_teach(&self) -> Option<&'a Path> {
        let config: &'a Config = self.config;
        let teaches = config.intra_class.needs_teacher();
        config.teacher.vectors_that_teach().filter(|_| teaches)
    }

    pub(super) fn new_teacher(&self, network: &Embedder) -> Teacher {
        let transform = &self.config.transform;
        let wanted = match (self.config.teacher.space, self.config.teacher.kind) {
            (TeacherSpace::Thumbnail, _) => Some(PLAIN),
            (_, TeacherKind::Network) => Some(network.expected_normalisation()),
            (_, TeacherKind::Frozen | TeacherKind::MovingAverage | TeacherKind::Vectors) => None,
        };
        let renormalise = wanted.and_then(|wanted| Renormalise::between((transform.mean, transform.std), wanted));
        Teacher::new(network, &self.config.teacher, renormalise)
    }

    pub(super) fn restore(
        &mut self,
        model: MetricModel,
        position: Position,
        mut arrays: Arrays,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let fits = |what: &str, result: Result<(), String>| {
            result.map_err(|problem| {
                TrainError::Folder(format!(
                    "the checkpoint in {} does not fit its configuration: {what}: {problem}",
                    self.run.checkpoints().display()
                ))
            })
        };
        let initial = model.embedder.clone();
        let trunk = match self.run.trunk() {
            path if path.exists() => read_safetensors(&path).map_err(TrainError::Folder)?.0,
            _ => Vec::new(),
        };
        let with_trunk = |mut arrays: Vec<NamedArray>, prefix: &str| {
            arrays.extend(trunk.iter().map(|array| NamedArray {
                name: format!("{prefix}{}", array.name),
                ..array.clone()
            }));
            arrays
        };
        let mut restored = None;
        let values = with_trunk(arrays.remove("model").unwrap_or_default(), "embedder.");
        fits(
            "model",
            load_named_arrays(model, &values).map(|model| restored = Some(model)),
        )?;
        let values = arrays.remove("optimizer").unwrap_or_default();
        let device = self.device.clone();
        let loaded = self.optimizer.load_arrays(&values, &device);
        fits("optimizer", loaded)?;
        let load_embedder = |values: &[NamedArray]| load_named_arrays(initial.valid(), values);
        if self.averages() {
            let values = with_trunk(arrays.remove("average").unwrap_or_default(), "");
            let mut average = None;
            fits("average", load_embedder(&values).map(|module| average = Some(module)))?;
            self.average = average;
        }
        if let Some(values) = arrays.remove("statistics") {
            let mut statistics = None;
            fits(
                "statistics",
                ClassStatistics::from_arrays(&values).map(|read| statistics = Some(read)),
            )?;
            self.statistics = statistics;
        }
        if let Some(memory) = &mut self.memory {
            let values = arrays.remove("memory").unwrap_or_default();
            let loaded = memory.load_arrays(&values);
            fits("memory", loaded)?;
        }
        if self.vectors_that_teach().is_some() {
            let (values, _) = read_safetensors(&self.run.teacher()).map_err(TrainError::Folder)?;
            let mut vectors = None;
            fits(
                "teacher",
                TeacherVectors::from_arrays(values, self.data).map(|read| vectors = Some(read)),
            )?;
            self.teacher_vectors = vectors;
        } else if self.config.intra_class.needs_teacher() {
            let values = match arrays.remove("teacher") {
                Some(values) => values,
                None => read_safetensors(&self.run.teacher()).map_err(TrainError::Folder)?.0,
            };
            let network = match (self.config.teacher.kind, &self.config.teacher.network) {
                (TeacherKind::Network, Some(other)) => other.init(self.config.seed, &self.device)?,
                _ => initial,
            };
            let mut loaded = None;
            fits(
                "teacher",
                load_named_arrays(network, &values).map(|network| loaded = Some(network)),
            )?;
            self.teacher = loaded.map(|network| self.new_teacher(&network));
        }
        if let Some(model) = restored {
            self.prepare_frozen(&model.embedder, observer)?;
            let model = self.without_frozen_trunk(model)?;
            if self.trunk.is_some() {
                self.average = self.average.take().map(|average| average.take_trunk().0);
            }
            self.model = Some(model);
        }
        self.position = position;
        Ok(())
    }

    /// Embeds the training images as evaluation sees them.
    pub(super) fn embed_training(
        &self,
        embedder: &Embedder,
        output: Output,
        what: &str,
        observer: &mut dyn Observer,
    ) -> Result<EmbeddingSet, TrainError> {
        embed::embed(
            embedder,
            &self.images,
            &self.data.train,
            self.data.train_labels.clone(),
            output,
            what,
            observer,
        )
    }

    /// The embeddings of pooled features.
    pub(super) fn head_of(&self, embedder: &Embedder, features: &EmbeddingSet) -> Result<EmbeddingSet, TrainError> {
        let embedder = embedder.valid();
        let mut values = Vec::with_capacity(features.len() * embedder.dim());
        for rows in features.values.chunks(features.dim * 4096) {
            let data = TensorData::new(rows.to_vec(), [rows.len() / features.dim, features.dim]);
            values.extend(embed::to_host(embedder.head(Tensor::from_data(data, &self.device)))?);
        }
        Ok(EmbeddingSet {
            dim: embedder.dim(),
            values,
            labels: features.labels.clone(),
            ids: features.ids.clone(),
        })
    }

    /// With a frozen trunk, its features of all images of the run, computed once.
    pub(super) fn prepare_frozen(
        &mut self,
        embedder: &Embedder,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        if !self.config.model.freeze_trunk {
            return Ok(());
        }
        let data = self.data;
        let (train, validation) = (data.train.iter(), data.validation.iter());
        let all: BTreeSet<usize> = train.chain(validation).copied().chain(data.test.items()).collect();
        let all: Vec<usize> = all.into_iter().collect();
        let (images, config) = (&self.images, self.config);
        // A run that only measures the start needs no features of training images, but takes those that are there.
        self.images.frozen = if config.train.epochs == 0 {
            FrozenFeatures::stored(embedder, images, &all, config)?
        } else {
            let wanted = Wanted {
                train: &data.train,
                all: &all,
            };
            Some(FrozenFeatures::compute(embedder, images, wanted, config, observer)?)
        }
        .map(Arc::new);
        Ok(())
    }
}

/// Whether an array of an embedder belongs to its trunk.
fn is_of_trunk(array: &NamedArray) -> bool {
    array.name.starts_with("trunk.")
}
