//! A run on disk: configuration, events, metrics, checkpoints, the final model.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use gradus_core::files::write_atomically;

use super::error::TrainError;
use super::events::Event;
use crate::config::Config;

/// The folder of a run.
///
/// | file | what |
/// |---|---|
/// | `config.toml` | the resolved configuration |
/// | `events.jsonl` | every event, one JSON object per line |
/// | `checkpoints/` | complete states to resume from, one folder each |
/// | `teacher.safetensors` | the network that orders members, where there is one |
/// | `trunk.safetensors` | a frozen trunk whose features are stored: checkpoints leave it out |
/// | `model.safetensors` | the final embedder |
/// | `metrics.json` | what was measured on the test classes |
#[derive(Debug)]
pub struct RunFolder {
    root: PathBuf,
    events: Option<File>,
}

impl RunFolder {
    /// Makes the folder of a new run.
    ///
    /// # Errors
    /// If a run is already there, something else is in the way, or the place cannot be written to.
    pub fn create(root: &Path) -> Result<Self, TrainError> {
        if root.join("config.toml").exists() {
            return Err(TrainError::Folder(format!(
                "{} already holds a run: continue it with --resume, or choose another folder with --out",
                root.display()
            )));
        }
        let occupied = root.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        if occupied {
            return Err(TrainError::Folder(format!(
                "{} is not empty and holds no run: choose a new folder with --out",
                root.display()
            )));
        }
        let folder = Self {
            root: root.to_owned(),
            events: None,
        };
        std::fs::create_dir_all(folder.checkpoints()).map_err(|error| folder.unwritable(&error))?;
        Ok(folder)
    }

    /// Makes the folder of a new run with its resolved configuration in it.
    ///
    /// # Errors
    /// Those of [`create`](Self::create), or if the configuration cannot be written.
    pub fn begin(root: &Path, config: &Config) -> Result<Self, TrainError> {
        let folder = Self::create(root)?;
        let text = toml::to_string(config).map_err(|error| TrainError::Config(error.to_string()))?;
        folder.write_text(&folder.config(), &text)?;
        Ok(folder)
    }

    /// A folder under `runs/` that does not exist yet: `runs/<name>-001`, `runs/<name>-002`, …
    #[must_use]
    pub fn unused(name: &str) -> PathBuf {
        let mut number = 1;
        loop {
            let candidate = Path::new("runs").join(format!("{name}-{number:03}"));
            if !candidate.exists() {
                return candidate;
            }
            number += 1;
        }
    }

    /// Opens the folder of an existing run.
    ///
    /// # Errors
    /// If no run is there.
    pub fn open(root: &Path) -> Result<Self, TrainError> {
        let config = root.join("config.toml");
        if !config.exists() {
            return Err(TrainError::Folder(format!(
                "{} holds no run: expected {} from an earlier `gradus train --out {}`",
                root.display(),
                config.display(),
                root.display()
            )));
        }
        Ok(Self {
            root: root.to_owned(),
            events: None,
        })
    }

    /// The folder itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The resolved configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.root.join("config.toml")
    }

    /// The checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    /// The weights of the teacher.
    #[must_use]
    pub fn teacher(&self) -> PathBuf {
        self.root.join("teacher.safetensors")
    }

    /// The frozen trunk that checkpoints leave out.
    #[must_use]
    pub fn trunk(&self) -> PathBuf {
        self.root.join("trunk.safetensors")
    }

    /// The final embedder.
    #[must_use]
    pub fn model(&self) -> PathBuf {
        self.root.join("model.safetensors")
    }

    /// The measures of the test classes.
    #[must_use]
    pub fn metrics(&self) -> PathBuf {
        self.root.join("metrics.json")
    }

    /// Writes a text file atomically.
    ///
    /// # Errors
    /// If the place cannot be written to (full disk, no permission).
    pub fn write_text(&self, path: &Path, text: &str) -> Result<(), TrainError> {
        write_atomically(path, |file| file.write_all(text.as_bytes())).map_err(|error| self.unwritable(&error))
    }

    /// Continues `events.jsonl` after its first `length` bytes: what a killed run wrote beyond its checkpoint is dropped.
    ///
    /// # Errors
    /// If the file cannot be opened or cut.
    pub fn continue_events(&mut self, length: u64) -> Result<(), TrainError> {
        let path = self.root.join("events.jsonl");
        let open = || -> std::io::Result<File> {
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            if file.metadata()?.len() > length {
                file.set_len(length)?;
            }
            Ok(file)
        };
        self.events = Some(open().map_err(|error| self.unwritable(&error))?);
        Ok(())
    }

    /// Bytes of events written so far.
    #[must_use]
    pub fn events_length(&self) -> u64 {
        self.events
            .as_ref()
            .and_then(|file| file.metadata().ok())
            .map_or(0, |data| data.len())
    }

    /// Appends an event.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn record(&mut self, event: &Event) -> Result<(), TrainError> {
        let Some(file) = &mut self.events else { return Ok(()) };
        let mut line = serde_json::to_vec(event).map_err(|error| TrainError::Folder(error.to_string()))?;
        line.push(b'\n');
        let written = file.write_all(&line);
        written.map_err(|error| self.unwritable(&error))
    }

    /// The error for a place that cannot be written to.
    #[must_use]
    pub fn unwritable(&self, error: &std::io::Error) -> TrainError {
        TrainError::Folder(format!(
            "cannot write to the run folder {}: {error}; free space or choose another folder with --out, then continue with \
             --resume (the last complete checkpoint is kept)",
            self.root.display()
        ))
    }
}
