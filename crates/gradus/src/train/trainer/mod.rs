//! A whole run, from the configuration to the measured result.

mod beginning;
mod ending;
mod input;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use gradus_core::data::loader::Mode;
use gradus_core::evaluation::Evaluation;
use gradus_core::random::{derive, purpose};
use gradus_core::samplers::BatchSampler;

use super::average;
use super::checkpoint::{self, Position};
use super::embed::Images;
use super::error::TrainError;
use super::events::{Event, Observer};
use super::measure::{TestEmbeddings, measures};
use super::memory::{self, Memory};
use super::objective::{MetricModel, StepInput, Way};
use super::optimizer::Optimizer;
use super::prepare::PreparedData;
use super::run_folder::RunFolder;
use super::step::{self, Pending, Rates};
use super::teacher::Teacher;
use super::teacher_vectors::TeacherVectors;
use crate::auxiliary_losses::AuxiliaryShape;
use crate::config::Config;
use crate::intra_class::{ClassStatistics, MembersSpace};
use crate::models::Embedder;
use crate::models::backbones::Trunk;
use crate::tensor::{Device, Module};

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
}
