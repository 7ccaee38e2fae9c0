//! What a run tells the world while it goes: the command line draws it, the run folder records it.

use serde::Serialize;

/// Something that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The data were read: how many images and classes train and are tested.
    Data {
        /// What the split is.
        split: String,
        /// Training images.
        train_images: usize,
        /// Training classes.
        train_classes: usize,
        /// Validation images, of classes that are not trained on.
        validation_images: usize,
        /// Test images (queries and gallery together).
        test_images: usize,
    },
    /// A slow part of the preparation or evaluation moved on.
    Progress {
        /// What is being done.
        what: String,
        /// How much is done.
        done: usize,
        /// Of how much.
        total: usize,
    },
    /// Something the user should know.
    Warning {
        /// In plain words.
        message: String,
    },
    /// An optimiser step was made.
    Step {
        /// Epoch from 1.
        epoch: usize,
        /// Step of the epoch from 1.
        step: usize,
        /// Steps of the epoch.
        steps: usize,
        /// Steps of the whole run.
        total_steps: usize,
        /// Total loss.
        loss: f64,
        /// Base loss.
        base: f64,
        /// Images in the batch.
        images: usize,
        /// Further values by name (shares of the ranking, for example).
        values: Vec<(String, f64)>,
    },
    /// An epoch ended.
    Epoch {
        /// Epoch from 1.
        epoch: usize,
        /// Mean total loss.
        loss: f64,
        /// Mean base loss.
        base: f64,
        /// Learning rate of the trunk.
        rate: f64,
        /// Mean of the further values by name.
        values: Vec<(String, f64)>,
    },
    /// The validation classes were measured.
    Validation {
        /// Epoch from 1.
        epoch: usize,
        /// Measures by name.
        measures: serde_json::Map<String, serde_json::Value>,
        /// Whether it is the best so far.
        best: bool,
    },
    /// Training ended early.
    Stopped {
        /// Epoch from 1.
        epoch: usize,
        /// Why.
        reason: String,
    },
    /// The test classes were measured.
    Test {
        /// Measures by name.
        measures: serde_json::Map<String, serde_json::Value>,
    },
}

/// Receives events.
pub trait Observer {
    /// Called once for each event, in order.
    fn on(&mut self, event: &Event);
}

/// An observer that looks away.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn on(&mut self, _event: &Event) {}
}
