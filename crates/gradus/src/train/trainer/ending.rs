//! What is due after an epoch and after the last one: validation, checkpoints, the measured result.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use gradus_core::data::split::{TestSet, whole_classes};

use super::super::checkpoint::{self, Arrays};
use super::super::error::TrainError;
use super::super::events::{Event, Observer};
use super::super::measure::{embed_test, evaluate, measure, measures};
use super::super::step::Rates;
use super::super::{collapse, embed};
use super::{RunReport, Trainer};
use crate::state::{NamedArray, load_named_arrays, named_arrays, write_safetensors};
use crate::tensor::Tensor;

impl Trainer<'_> {
    pub(super) fn end_epoch(
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

    pub(super) fn validate(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
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

    pub(super) fn save_checkpoint(&mut self) -> Result<(), TrainError> {
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
    pub(super) fn finish(mut self, observer: &mut dyn Observer) -> Result<RunReport, TrainError> {
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
