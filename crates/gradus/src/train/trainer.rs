//! A whole run, from the configuration to the measured result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gradus_core::EmbeddingSet;
use gradus_core::data::loader::{HostBatch, Mode};
use gradus_core::data::split::{TestSet, whole_classes};
use gradus_core::evaluation::Evaluation;
use gradus_core::random::{derive, purpose};
use gradus_core::samplers::BatchSampler;

use super::checkpoint::{self, Arrays, Position};
use super::embed::{self, Images, Output};
use super::error::TrainError;
use super::events::{Event, Observer};
use super::frozen::{FrozenFeatures, Wanted};
use super::measure::{TestEmbeddings, embed_test, evaluate, measure, measures};
use super::memory::{self, Memory};
use super::objective::{MetricModel, NetworkInput, Seen, StepInput, Way};
use super::optimizer::Optimizer;
use super::prepare::PreparedData;
use super::run_folder::RunFolder;
use super::step::{self, Pending, Rates};
use super::teacher::{PLAIN, Renormalise, Teacher};
use super::teacher_vectors::TeacherVectors;
use super::{average, collapse, start};
use crate::auxiliary_losses::{AuxiliaryModule, AuxiliaryShape};
use crate::config::{Config, ProxyStart, TeacherKind, TeacherSpace};
use crate::intra_class::{ClassStatistics, MembersSpace};
use crate::losses::Support;
use crate::models::backbones::Trunk;
use crate::models::{Embedder, HeadConfig, HeadStart};
use crate::state::{NamedArray, load_named_arrays, named_arrays, read_safetensors, write_safetensors};
use crate::tensor::{Device, Module, Tensor, TensorData};

/// What a run comes to.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The measures of the test classes.
    pub evaluation: Evaluation,
    /// The embeddings that were measured.
    pub embedded: TestEmbeddings,
    /// Epochs trained.
    pub epochs: usize,
    /// Seconds of training and evaluation, over all sessions of the run.
    pub seconds: f64,
}

impl RunReport {
    /// The report as one flat JSON object.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut map = measures(&self.evaluation);
        map.insert("epochs".to_owned(), self.epochs.into());
        map.insert("seconds".to_owned(), ((self.seconds * 10.0).round() / 10.0).into());
        map
    }
}

/// A run in progress.
#[derive(Debug)]
pub struct Trainer<'a> {
    config: &'a Config,
    data: &'a PreparedData,
    run: RunFolder,
    device: Device,
    images: Images,
    sampler: Box<dyn BatchSampler>,
    optimizer: Optimizer,
    model: Option<MetricModel>,
    average: Option<Embedder>,
    /// The frozen trunk, out of the model while its stored features are trained on.
    trunk: Option<Trunk>,
    teacher: Option<Teacher>,
    /// What orders members in the place of a teacher.
    teacher_vectors: Option<TeacherVectors>,
    statistics: Option<ClassStatistics>,
    memory: Option<Memory>,
    way: Way,
    /// Gradients that wait for those of further batches.
    pending: Option<Pending>,
    position: Position,
    resumed: bool,
    clock: Instant,
}

impl<'a> Trainer<'a> {
    /// Builds the model and everything around it; from the newest checkpoint of the run folder if `resume` is set.
    ///
    /// # Errors
    /// If model, data and configuration do not fit together, or the checkpoint belongs to another configuration.
    pub fn new(
        config: &'a Config,
        data: &'a PreparedData,
        mut run: RunFolder,
        resume: bool,
        observer: &mut dyn Observer,
    ) -> Result<Self, TrainError> {
        let clock = Instant::now();
        let device = config.device.resolve().map_err(TrainError::Config)?;
        let sampler = config.sampler.init(config.seed);
        // A sampler that needs embeddings is asked once there are some, before the first step.
        if config.train.epochs > 0 && !sampler.needs_embeddings() {
            sampler.validate(data.sampler_input())?;
        }
        if config.memory.is_some() && data.items.len() > memory::MOST_ITEMS {
            return Err(TrainError::Config(format!(
                "[memory] tells at most {} images apart, but the data set has {}: leave [memory] out",
                memory::MOST_ITEMS,
                data.items.len()
            )));
        }
        for message in sampler.warnings(data.sampler_input()) {
            observer.on(&Event::Warning { message });
        }
        let way = match &config.train {
            train if train.gradient_cache > 0 => Way::Parts(train.gradient_cache),
            train if train.gradient_checkpointing => Way::Blocks,
            train if train.workers > 1 => {
                Way::Workers(config.device.workers(train.workers).map_err(TrainError::Config)?)
            }
            _ => Way::Whole,
        };
        let images = Images::new(config, &data.items, &data.cache)?;
        let autodiff = device.clone().autodiff();
        let embedder = config.model.init(config.seed, &autodiff)?;
        if config.intra_class.ranked_space() == MembersSpace::Middle && !embedder.trains_middle() {
            return Err(TrainError::Config(format!(
                "intra-class.members.space = \"middle\" ranks what the trunk has after {} of its {} blocks, but model.trainable-blocks \
                 trains only the last {}: train more blocks, or set it to \"features\"",
                embedder.middle_block(),
                embedder.blocks(),
                embedder.trainable_blocks()
            )));
        }
        let dim = embedder.dim();
        let loss = config.loss.init(dim, data.train_classes, config.seed, &autodiff);
        let intra_class = config.intra_class.init(dim, config.seed, &autodiff);
        let auxiliary_loss = config.auxiliary_loss.as_ref().map(|auxiliary| {
            auxiliary.init(&AuxiliaryShape {
                dim,
                features: embedder.feature_width(),
                classes: data.train_classes,
                loss: &config.loss,
                seed: config.seed,
                device: &autodiff,
            })
        });
        let model = MetricModel {
            embedder,
            loss,
            intra_class,
            auxiliary_loss,
        };
        let checkpoint = if resume { checkpoint::load_latest(&run)? } else { None };
        run.continue_events(checkpoint.as_ref().map_or(0, |(position, _)| position.events))?;
        let mut trainer = Self {
            config,
            data,
            run,
            device,
            images,
            sampler,
            optimizer: Optimizer::new(config.optimizer.rule.clone(), config.optimizer.clipping),
            model: None,
            average: None,
            trunk: None,
            teacher: None,
            teacher_vectors: None,
            statistics: config.class_statistics().map(ClassStatistics::new),
            memory: config.memory.clone().map(Memory::new),
            way,
            pending: None,
            position: Position::default(),
            resumed: checkpoint.is_some(),
            clock,
        };
        match checkpoint {
            Some((position, arrays)) => trainer.restore(model, position, arrays, observer)?,
            None => trainer.begin(model, observer)?,
        }
        Ok(trainer)
    }

    /// The run folder.
    #[must_use]
    pub fn run_folder(&self) -> &RunFolder {
        &self.run
    }

    /// The start of a new run: head and proxies from the data, the teacher, the first checkpoint.
    fn begin(&mut self, model: MetricModel, observer: &mut dyn Observer) -> Result<(), TrainError> {
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
    fn without_frozen_trunk(&mut self, model: MetricModel) -> Result<MetricModel, TrainError> {
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
    fn vectors_that_teach(&self) -> Option<&'a Path> {
        let config: &'a Config = self.config;
        let teaches = config.intra_class.needs_teacher();
        config.teacher.vectors_that_teach().filter(|_| teaches)
    }

    fn new_teacher(&self, network: &Embedder) -> Teacher {
        let transform = &self.config.transform;
        let wanted = match (self.config.teacher.space, self.config.teacher.kind) {
            (TeacherSpace::Thumbnail, _) => Some(PLAIN),
            (_, TeacherKind::Network) => Some(network.expected_normalisation()),
            (_, TeacherKind::Frozen | TeacherKind::MovingAverage | TeacherKind::Vectors) => None,
        };
        let renormalise = wanted.and_then(|wanted| Renormalise::between((transform.mean, transform.std), wanted));
        Teacher::new(network, &self.config.teacher, renormalise)
    }

    fn restore(
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
    fn embed_training(
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
    fn head_of(&self, embedder: &Embedder, features: &EmbeddingSet) -> Result<EmbeddingSet, TrainError> {
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
    fn prepare_frozen(&mut self, embedder: &Embedder, observer: &mut dyn Observer) -> Result<(), TrainError> {
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

    /// Trains to the end and measures the test classes.
    ///
    /// # Errors
    /// See [`TrainError`]; on an interruption everything is saved.
    pub fn train(mut self, observer: &mut dyn Observer, interrupted: &AtomicBool) -> Result<RunReport, TrainError> {
        let epochs = self.config.train.epochs;
        if self.resumed {
            let message = format!(
                "continuing after epoch {}, step {}",
                self.position.epoch, self.position.step
            );
            observer.on(&Event::Warning { message });
        }
        while self.position.epoch < epochs {
            if self.stops_early() || self.is_out_of_time() {
                break;
            }
            self.epoch(observer, interrupted)?;
        }
        self.finish(observer)
    }

    /// Seconds of training and evaluation so far, over all sessions of the run.
    fn seconds(&self) -> f64 {
        self.position.seconds + self.clock.elapsed().as_secs_f64()
    }

    fn is_out_of_time(&self) -> bool {
        let minutes = self.config.train.max_minutes;
        minutes > 0.0 && self.seconds() >= minutes * 60.0
    }

    fn stops_early(&self) -> bool {
        self.config
            .train
            .early_stopping
            .as_ref()
            .is_some_and(|stopping| self.position.since_best >= stopping.patience)
    }

    /// The batches of an epoch, as positions in the training items.
    fn batches(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<Vec<Vec<usize>>, TrainError> {
        if let Some(batches) = self.position.batches.clone() {
            return Ok(batches);
        }
        let needs_embeddings = self.sampler.needs_embeddings();
        let embeddings = if needs_embeddings {
            self.training_embeddings("embeddings to sample by", observer)?
        } else {
            None
        };
        let input = self.data.sampler_input().with_embeddings(embeddings.as_ref());
        if needs_embeddings {
            self.sampler.validate(input)?;
        }
        let mut batches = self.sampler.batches(input, epoch as u64);
        if self.config.train.max_batches > 0 {
            batches.truncate(self.config.train.max_batches);
        }
        // In the middle of the epoch the network is another one, which would not deal the same batches again.
        self.position.batches = needs_embeddings.then(|| batches.clone());
        Ok(batches)
    }

    fn epoch(&mut self, observer: &mut dyn Observer, interrupted: &AtomicBool) -> Result<(), TrainError> {
        let epoch = self.position.epoch;
        self.refresh_statistics(epoch, observer)?;
        let batches = self.batches(epoch, observer)?;
        let steps = batches.len();
        let items = |batch: &[usize]| batch.iter().map(|&row| self.data.train[row]).collect::<Vec<_>>();
        let done = self.position.step.min(steps);
        let rest: Vec<Vec<usize>> = batches[done..].iter().map(|batch| items(batch)).collect();
        let labels: Vec<Arc<[u32]>> = batches[done..]
            .iter()
            .map(|batch| batch.iter().map(|&row| self.data.train_labels[row]).collect())
            .collect();
        let frozen = self.images.frozen.clone();
        let mut loader = frozen.is_none().then(|| {
            let graded_levels = self.config.intra_class.graded_levels();
            let views = batches.iter().map(|batch| items(batch).repeat(self.views()));
            self.images.load_after(
                done,
                views.collect(),
                Mode::Train {
                    epoch: epoch as u64,
                    graded_levels,
                },
                self.config.seed,
            )
        });
        let mut last = None;
        for (items, labels) in rest.iter().zip(labels) {
            let input = match &mut loader {
                Some(loader) => match loader.next() {
                    Some(batch) => self.input_of_images(batch?, items),
                    None => return Err(TrainError::Data("the loader ended before the epoch did".to_owned())),
                },
                None => match &frozen {
                    Some(frozen) => self.input_of_features(frozen, items, epoch)?,
                    None => return Err(TrainError::Data("there is neither a loader nor features".to_owned())),
                },
            };
            let (seen, teacher) = input;
            let progress =
                (epoch * steps + self.position.step) as f64 / (self.config.train.epochs * steps).max(1) as f64;
            let input = StepInput {
                seen,
                labels: Arc::clone(&labels),
                items: items.iter().map(|&item| item as u64).collect(),
                teacher,
                statistics: self.statistics.as_ref(),
                miner: self.config.miner.as_ref(),
                augmentation: self.config.embedding_augmentation.as_ref(),
                memory: self.memory.as_mut(),
                way: self.way.clone(),
                progress,
                seed: derive(
                    self.config.seed,
                    &[purpose::SYNTHESIS, epoch as u64, self.position.step as u64],
                ),
            };
            let model = self
                .model
                .take()
                .ok_or_else(|| TrainError::Device("the model is gone".to_owned()))?;
            let rates = Rates::at(&self.config.optimizer, epoch, progress);
            let (gradients, report) = step::gradients(&model, input).map_err(|error| self.with_place(error, items))?;
            let pending = self.pending.take().unwrap_or_default().with(gradients);
            let together = self.config.train.accumulation;
            self.position.step += 1;
            if self.position.step.is_multiple_of(together) || self.position.step == steps {
                let model = step::update(model, &mut self.optimizer, pending, rates);
                let made = (self.position.step - 1) / together;
                self.follow(&model.embedder, epoch * steps.div_ceil(together) + made);
                self.model = Some(model);
            } else {
                self.pending = Some(pending);
                self.model = Some(model);
            }
            self.add("loss", report.loss);
            self.add("base", report.base);
            for (name, value) in &report.values {
                self.add(name, *value);
            }
            observer.on(&Event::Step {
                epoch: epoch + 1,
                step: self.position.step,
                steps,
                total_steps: steps * self.config.train.epochs,
                loss: report.loss,
                base: report.base,
                images: labels.len(),
                values: report.values,
            });
            last = Some((report.embeddings, labels));
            if self.is_out_of_time() {
                break;
            }
            // Gradients that wait for their update are not saved: a moment later there are none.
            if interrupted.load(Ordering::Relaxed) && self.position.step < steps && self.pending.is_none() {
                self.save_checkpoint()?;
                return Err(self.interrupted());
            }
        }
        self.pending = None;
        self.end_epoch(last, observer)?;
        if interrupted.load(Ordering::Relaxed) && self.position.epoch < self.config.train.epochs {
            return Err(self.interrupted());
        }
        Ok(())
    }

    fn interrupted(&self) -> TrainError {
        TrainError::Interrupted {
            epoch: self.position.epoch,
            step: self.position.step,
            folder: self.run.root().display().to_string(),
        }
    }

    fn with_place(&self, error: TrainError, items: &[usize]) -> TrainError {
        let TrainError::NotFinite { loss, base } = error else {
            return error;
        };
        let names: Vec<String> = items
            .iter()
            .take(3)
            .map(|&item| self.data.items[item].source.name())
            .collect();
        TrainError::Diverged {
            loss,
            base,
            epoch: self.position.epoch + 1,
            step: self.position.step + 1,
            items: format!("{} and {} more", names.join(", "), items.len().saturating_sub(3)),
            checkpoints: self.run.checkpoints().display().to_string(),
        }
    }

    fn add(&mut self, name: &str, value: f64) {
        *self.position.sums.entry(name.to_owned()).or_default() += value;
    }

    /// Whether a moving average of the weights is what is evaluated and saved.
    fn averages(&self) -> bool {
        self.config.train.weight_average > 0.0
    }

    /// Lets averages follow the student, which was updated `updates` times before this one.
    fn follow(&mut self, student: &Embedder, updates: usize) {
        if let Some(average) = self.average.take() {
            let decay = average::warmed_up(self.config.train.weight_average, updates);
            let stays = |path: &str| student.is_frozen(path);
            self.average = Some(average::update(average, student, decay, stays));
        }
        self.teacher = self.teacher.take().map(|teacher| teacher.follow(student));
    }

    /// How many views of every image the base loss compares.
    fn views(&self) -> usize {
        if self.config.loss.accepts().references == Support::Required {
            2
        } else {
            1
        }
    }

    /// What orders the members of a batch: vectors of the items, or what the teacher says when it sees them.
    fn judged(&self, items: &[usize], see: impl FnOnce(&Teacher) -> Tensor<2>) -> Option<Tensor<2>> {
        match &self.teacher_vectors {
            Some(vectors) => Some(vectors.rows(items, &self.device)),
            None => self.teacher.as_ref().map(see),
        }
    }

    /// What the network and the teacher see of the images of `items`, all first views before all second ones.
    fn input_of_images(&self, batch: HostBatch, items: &[usize]) -> (Seen, Option<Tensor<2>>) {
        let device = self.device.clone().autodiff();
        let (images, graded) = embed::to_device(batch, &device);
        let first = || images.clone().narrow(0, 0, items.len());
        let teacher = self.judged(items, |teacher| teacher.see(first()));
        let graded = graded.map(NetworkInput::Images);
        let rows = NetworkInput::Images(images);
        (Seen { rows, graded }, teacher)
    }

    /// The same from stored features.
    fn input_of_features(
        &self,
        frozen: &FrozenFeatures,
        items: &[usize],
        epoch: usize,
    ) -> Result<(Seen, Option<Tensor<2>>), TrainError> {
        let device = self.device.clone().autodiff();
        let draw = derive(
            self.config.seed,
            &[purpose::AUGMENT, epoch as u64, self.position.step as u64],
        );
        let (features, graded) = frozen.training(items, self.views(), draw, &device)?;
        let first = || features.clone().narrow(0, 0, items.len());
        let teacher = self.judged(items, |teacher| teacher.judge(first()));
        let rows = NetworkInput::Features(features.clone());
        let graded = graded.map(NetworkInput::Features);
        Ok((Seen { rows, graded }, teacher))
    }

    /// Class means and variances for the generators that need them, every few epochs.
    fn refresh_statistics(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let every = self
            .config
            .class_statistics()
            .map_or(1, |statistics| statistics.refresh_epochs);
        if self.statistics.is_none() || self.position.step > 0 || !epoch.is_multiple_of(every) {
            return Ok(());
        }
        let Some(embeddings) = self.training_embeddings("class statistics", observer)? else {
            return Ok(());
        };
        if let Some(statistics) = &mut self.statistics {
            statistics.observe(&embeddings);
        }
        Ok(())
    }

    /// The embeddings of the training images as the network gives them now.
    fn training_embeddings(&self, what: &str, observer: &mut dyn Observer) -> Result<Option<EmbeddingSet>, TrainError> {
        let Some(model) = &self.model else { return Ok(None) };
        let embeddings = self.embed_training(&model.embedder, Output::Embedding, what, observer)?;
        Ok(Some(embeddings))
    }

    fn end_epoch(
        &mut self,
        last: Option<(Tensor<2>, Arc<[u32]>)>,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let rates = Rates::at(&self.config.optimizer, self.position.epoch, 0.0);
        let sums = std::mem::take(&mut self.position.sums);
        let steps = self.position.step.max(1) as f64;
        let mean = |name: &str| sums.get(name).copied().unwrap_or_default() / steps;
        self.position.epoch += 1;
        self.position.step = 0;
        self.position.batches = None;
        let mut values: Vec<(String, f64)> = sums
            .keys()
            .filter(|name| !matches!(name.as_str(), "loss" | "base"))
            .map(|name| (name.clone(), mean(name)))
            .collect();
        let shape = match last {
            Some((embeddings, labels)) => collapse::measure(&embed::to_host(embeddings)?, &labels),
            None => None,
        };
        if let Some(shape) = shape {
            values.push(("cosine_within".to_owned(), shape.within));
            values.push(("cosine_between".to_owned(), shape.between));
            values.push(("spread".to_owned(), shape.spread));
        }
        let epoch = self.position.epoch;
        self.tell(
            &Event::Epoch {
                epoch,
                loss: mean("loss"),
                base: mean("base"),
                rate: rates.trunk,
                values,
            },
            observer,
        )?;
        if let Some(message) = shape.and_then(|shape| shape.warning()) {
            self.tell(
                &Event::Warning {
                    message: format!("epoch {epoch}: {message}"),
                },
                observer,
            )?;
        }
        if self.is_out_of_time() && epoch < self.config.train.epochs {
            let reason = format!("train.max-minutes = {} are over", self.config.train.max_minutes);
            self.tell(&Event::Stopped { epoch, reason }, observer)?;
        }
        let due = epoch.is_multiple_of(self.config.train.validate_every) || epoch == self.config.train.epochs;
        if due && !self.data.validation.is_empty() {
            self.validate(observer)?;
        }
        self.save_checkpoint()
    }

    fn tell(&mut self, event: &Event, observer: &mut dyn Observer) -> Result<(), TrainError> {
        self.run.record(event)?;
        observer.on(event);
        Ok(())
    }

    /// The embedder that would be kept now.
    fn current(&self) -> Result<Embedder, TrainError> {
        match (&self.average, &self.model) {
            (Some(average), _) => Ok(average.clone()),
            (None, Some(model)) => Ok(model.embedder.valid()),
            (None, None) => Err(TrainError::Device("the model is gone".to_owned())),
        }
    }

    fn validate(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let embedder = self.current()?;
        let (count, seed) = (self.config.train.validation_images, self.config.seed);
        let items = TestSet::Single(whole_classes(&self.data.validation, &self.data.dataset, count, seed));
        let result = measure(
            &embedder,
            &self.images,
            &self.data.dataset,
            &items,
            self.config,
            "validation",
            observer,
        )?;
        let measures = measures(&result);
        let name = self
            .config
            .train
            .early_stopping
            .as_ref()
            .map_or("map@r", |stopping| stopping.measure.as_str());
        let value = measures.get(name).and_then(serde_json::Value::as_f64).ok_or_else(|| {
            let known: Vec<&str> = measures.keys().map(String::as_str).collect();
            TrainError::Config(format!(
                "train.early-stopping.measure = \"{name}\" is not measured: expected one of {}",
                known.join(", ")
            ))
        })?;
        let best = self.position.best.is_none_or(|(_, old)| value > old);
        if best {
            self.position.best = Some((self.position.epoch, value));
            self.position.since_best = 0;
        } else {
            self.position.since_best += 1;
        }
        let epoch = self.position.epoch;
        self.tell(&Event::Validation { epoch, measures, best }, observer)?;
        if self.stops_early() && epoch < self.config.train.epochs {
            let reason = format!(
                "no better validation {name} for {} validations",
                self.position.since_best
            );
            self.tell(&Event::Stopped { epoch, reason }, observer)?;
        }
        Ok(())
    }

    fn save_checkpoint(&mut self) -> Result<(), TrainError> {
        let Some(model) = &self.model else { return Ok(()) };
        self.position.events = self.run.events_length();
        self.position.seconds += self.clock.elapsed().as_secs_f64();
        self.clock = Instant::now();
        let mut arrays = Arrays::new();
        arrays.insert("model".to_owned(), named_arrays(model));
        arrays.insert("optimizer".to_owned(), self.optimizer.to_arrays());
        if let Some(average) = &self.average {
            arrays.insert("average".to_owned(), named_arrays(average));
        }
        if let Some(statistics) = &self.statistics {
            arrays.insert("statistics".to_owned(), statistics.to_arrays());
        }
        if let Some(memory) = &self.memory {
            arrays.insert("memory".to_owned(), memory.to_arrays());
        }
        if let Some(teacher) = self.teacher.as_ref().filter(|teacher| teacher.moves()) {
            arrays.insert("teacher".to_owned(), named_arrays(teacher.network()));
        }
        checkpoint::save(&self.run, &self.position, &arrays, self.config.train.keep_checkpoints)
    }

    /// Chooses the embedder (the best validated one, else the last), saves it, measures the test classes.
    fn finish(mut self, observer: &mut dyn Observer) -> Result<RunReport, TrainError> {
        let mut embedder = self.current()?;
        if let Some((best, _)) = self.position.best.filter(|(best, _)| *best != self.position.epoch) {
            let (_, mut arrays) = checkpoint::load_epoch(&self.run, best)?;
            let values = match arrays.remove("average") {
                Some(values) => values,
                None => embedder_arrays(arrays.remove("model").unwrap_or_default()),
            };
            embedder = load_named_arrays(embedder, &values).map_err(TrainError::Folder)?;
        }
        if let Some(trunk) = self.trunk.take() {
            embedder = embedder.with_trunk(trunk);
        }
        let metadata = BTreeMap::from([("gradus".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]);
        write_safetensors(&self.run.model(), &named_arrays(&embedder), &metadata)
            .map_err(|error| self.run.unwritable(&std::io::Error::other(error)))?;
        let data = self.data;
        let (dataset, what) = (&data.dataset, "test classes");
        let embedded = embed_test(&embedder, &self.images, dataset, &data.test, what, observer)?;
        let evaluation = evaluate(&embedded, dataset, self.config)?;
        let report = RunReport {
            evaluation,
            embedded,
            epochs: self.position.epoch,
            seconds: self.seconds(),
        };
        let measures = report.to_json();
        let text = serde_json::to_string_pretty(&measures).map_err(|error| TrainError::Folder(error.to_string()))?;
        self.run.write_text(&self.run.metrics(), &text)?;
        self.tell(&Event::Test { measures }, observer)?;
        Ok(report)
    }
}

/// Whether an array of an embedder belongs to its trunk.
fn is_of_trunk(array: &NamedArray) -> bool {
    array.name.starts_with("trunk.")
}

/// The arrays of the embedder among those of the whole model.
fn embedder_arrays(arrays: Vec<NamedArray>) -> Vec<NamedArray> {
    arrays
        .into_iter()
        .filter_map(|array| {
            let name = array.name.strip_prefix("embedder.")?.to_owned();
            Some(NamedArray { name, ..array })
        })
        .collect()
}
