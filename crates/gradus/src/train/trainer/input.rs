//! What a step is given: the views that network and teacher see, and the statistics of the classes.

use gradus_core::EmbeddingSet;
use gradus_core::data::loader::HostBatch;
use gradus_core::random::{derive, purpose};

use super::super::embed::{self, Output};
use super::super::error::TrainError;
use super::super::events::Observer;
use super::super::frozen::FrozenFeatures;
use super::super::objective::{NetworkInput, Seen};
use super::super::teacher::Teacher;
use super::Trainer;
use crate::losses::Support;
use crate::tensor::Tensor;

impl Trainer<'_> {
    /// How many views of every image the base loss compares.
    pub(super) fn views(&self) -> usize {
        if self.config.loss.accepts().references == Support::Required {
            2
        } else {
            1
        }
    }

    /// What orders the members of a batch: vectors of the items, or what the teacher says when it sees them.
    pub(super) fn judged(&self, items: &[usize], see: impl FnOnce(&Teacher) -> Tensor<2>) -> Option<Tensor<2>> {
        match &self.teacher_vectors {
            Some(vectors) => Some(vectors.rows(items, &self.device)),
            None => self.teacher.as_ref().map(see),
        }
    }

    /// What the network and the teacher see of the images of `items`, all first views before all second ones.
    pub(super) fn input_of_images(&self, batch: HostBatch, items: &[usize]) -> (Seen, Option<Tensor<2>>) {
        let device = self.device.clone().autodiff();
        let (images, graded) = embed::to_device(batch, &device);
        let first = || images.clone().narrow(0, 0, items.len());
        let teacher = self.judged(items, |teacher| teacher.see(first()));
        let graded = graded.map(NetworkInput::Images);
        let rows = NetworkInput::Images(images);
        (Seen { rows, graded }, teacher)
    }

    /// The same from stored features.
    pub(super) fn input_of_features(
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
    pub(super) fn refresh_statistics(&mut self, epoch: usize, observer: &mut dyn Observer) -> Result<(), TrainError> {
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
    pub(super) fn training_embeddings(
        &self,
        what: &str,
        observer: &mut dyn Observer,
    ) -> Result<Option<EmbeddingSet>, TrainError> {
        let Some(model) = &self.model else { return Ok(None) };
        let embeddings = self.embed_training(&model.embedder, Output::Embedding, what, observer)?;
        Ok(Some(embeddings))
    }
}
