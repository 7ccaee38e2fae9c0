//! Says everything once: runs of one data set would repeat the remarks about it.

use std::collections::BTreeSet;

use gradus::train::{Event, Observer};

use crate::progress::Progress;

/// The remarks that were made.
#[derive(Default)]
pub(super) struct Told(BTreeSet<String>);

impl Told {
    /// An observer that draws the progress of a run and leaves out what was said before.
    pub(super) fn observer(&mut self, label: &str) -> Once<'_> {
        Once {
            told: self,
            progress: Progress::new(label),
        }
    }
}

/// Draws the progress of a run.
pub(super) struct Once<'a> {
    told: &'a mut Told,
    progress: Progress,
}

impl Observer for Once<'_> {
    fn on(&mut self, event: &Event) {
        let fresh = match event {
            Event::Warning { message } => self.told.0.insert(message.clone()),
            _ => true,
        };
        if fresh {
            self.progress.on(event);
        }
    }
}
