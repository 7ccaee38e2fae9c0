//! Draws events as progress bars on stderr; silent when stderr is not a terminal.

use std::time::{Duration, Instant};

use gradus::train::{Event, Observer};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output;

/// Draws the events of one run.
pub(crate) struct Progress {
    label: String,
    bar: ProgressBar,
    what: String,
    images: usize,
    since: Instant,
    last_note: Option<String>,
}

impl Progress {
    pub(crate) fn new(label: impl Into<String>) -> Self {
        Self {
            label: label.into(),
            bar: ProgressBar::hidden(),
            what: String::new(),
            images: 0,
            since: Instant::now(),
            last_note: None,
        }
    }

    fn show(&mut self, what: &str, total: usize) {
        if self.what != what {
            self.bar.finish_and_clear();
            let template = "{prefix} {bar:28} {pos}/{len} {msg} {eta} left";
            let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar =
                ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr()).with_style(style);
            let prefix = if self.label.is_empty() {
                what.to_owned()
            } else {
                format!("{}: {what}", self.label)
            };
            self.bar.set_prefix(prefix);
            self.bar.enable_steady_tick(Duration::from_millis(500));
            self.what = what.to_owned();
            self.images = 0;
            self.since = Instant::now();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn on(&mut self, event: &Event) {
        match event {
            Event::Progress { what, done, total } => {
                self.show(what, *total);
                self.bar.set_position(*done as u64);
                if done == total {
                    self.bar.finish_and_clear();
                    self.what.clear();
                }
            }
            Event::Step {
                epoch,
                step,
                steps,
                total_steps,
                loss,
                images,
                ..
            } => {
                self.show("training", *total_steps);
                self.images += images;
                let speed = self.images as f64 / self.since.elapsed().as_secs_f64().max(1e-6);
                self.bar.set_position(((epoch - 1) * steps + step) as u64);
                self.bar
                    .set_message(format!("epoch {epoch} loss {loss:.4} {speed:.0} images/s,"));
            }
            Event::Warning { message } => {
                // The same note for each of several runs on one data set helps nobody.
                if self.last_note.as_ref() != Some(message) {
                    self.bar.suspend(|| output::note(message));
                    self.last_note = Some(message.clone());
                }
            }
            Event::Stopped { epoch, reason } => {
                self.bar
                    .suspend(|| output::note(&format!("stopped after epoch {epoch}: {reason}")));
            }
            Event::Data { .. } | Event::Epoch { .. } | Event::Validation { .. } | Event::Test { .. } => {}
        }
    }
}

/// One bar over images that are embedded part by part: counts on from the parts before.
pub(crate) struct ProgressInParts {
    progress: Progress,
    before: usize,
    total: usize,
}

impl ProgressInParts {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            progress: Progress::new(""),
            before: 0,
            total,
        }
    }

    /// A part of `images` is done.
    pub(crate) fn done(&mut self, images: usize) {
        self.before += images;
    }
}

impl Observer for ProgressInParts {
    fn on(&mut self, event: &Event) {
        match event {
            Event::Progress { what, done, .. } => self.progress.on(&Event::Progress {
                what: what.clone(),
                done: self.before + done,
                total: self.total,
            }),
            other => self.progress.on(other),
        }
    }
}
