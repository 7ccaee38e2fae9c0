//! What a run tells, as a file that TensorBoard reads.
//!
//! The format is a sequence of records (TFRecord): length, its checksum, bytes, their checksum. The bytes are a protocol buffer of
//! three fields: when, at which step, and named numbers.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use super::error::TrainError;
use super::events::{Event, Observer};

/// Writes every number of the events of a run to `events.out.tfevents.*` in its folder, and hands the events on.
///
/// Steps appear under `step/`, means of epochs under `epoch/`, measures under `validation/` and `test/`; all are counted in optimiser
/// steps. A run that is resumed begins another file in the same folder, which TensorBoard shows as one curve.
#[allow(missing_debug_implementations, reason = "the observer behind it has no text")]
pub struct TensorBoard<'a> {
    file: File,
    path: PathBuf,
    behind: &'a mut dyn Observer,
    step: i64,
    steps_per_epoch: i64,
    failed: bool,
}

impl<'a> TensorBoard<'a> {
    /// Begins a file in the folder of a run, which must exist.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(folder: &Path, behind: &'a mut dyn Observer) -> Result<Self, TrainError> {
        let now = now();
        let seconds = now as u64;
        let mut number = 0;
        let (file, path) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.gradus.{number}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => break (file, path),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
                Err(error) => return Err(unwritable(&path, &error)),
            }
        };
        let mut writer = Self {
            file,
            path,
            behind,
            step: 0,
            steps_per_epoch: 0,
            failed: false,
        };
        let mut first = Vec::new();
        put_double(&mut first, 1, now);
        put_bytes(&mut first, 3, b"brain.Event:2");
        writer
            .file
            .write_all(&record(&first))
            .map_err(|error| unwritable(&writer.path, &error))?;
        Ok(writer)
    }

    fn write(&mut self, step: i64, group: &str, numbers: &[(&str, f64)]) {
        if numbers.is_empty() || self.failed {
            return;
        }
        let bytes = record(&event(now(), step, group, numbers));
        if let Err(error) = self.file.write_all(&bytes) {
            // A curve less is no reason to lose the run.
            self.failed = true;
            let message = format!("{}; the run goes on without it", unwritable(&self.path, &error));
            self.behind.on(&Event::Warning { message });
        }
    }
}

impl Observer for TensorBoard<'_> {
    fn on(&mut self, event: &Event) {
        match event {
            Event::Step {
                epoch,
                step,
                steps,
                loss,
                base,
                values,
                ..
            } => {
                self.steps_per_epoch = *steps as i64;
                self.step = ((epoch - 1) * steps + step) as i64;
                let mut numbers = vec![("loss", *loss), ("base", *base)];
                numbers.extend(values.iter().map(|(name, value)| (name.as_str(), *value)));
                self.write(self.step, "step", &numbers);
            }
            Event::Epoch {
                loss,
                base,
                rate,
                values,
                ..
            } => {
                let mut numbers = vec![("loss", *loss), ("base", *base), ("rate", *rate)];
                numbers.extend(values.iter().map(|(name, value)| (name.as_str(), *value)));
                self.write(self.step, "epoch", &numbers);
            }
            Event::Validation { epoch, measures, .. } => {
                let step = if self.steps_per_epoch > 0 {
                    *epoch as i64 * self.steps_per_epoch
                } else {
                    self.step
                };
                self.write(step, "validation", &numbers_of(measures));
            }
            Event::Test { measures } => self.write(self.step, "test", &numbers_of(measures)),
            Event::Data { .. } | Event::Progress { .. } | Event::Warning { .. } | Event::Stopped { .. } => {}
        }
        self.behind.on(event);
    }
}

fn numbers_of(measures: &Map<String, Value>) -> Vec<(&str, f64)> {
    measures
        .iter()
        .filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
        .collect()
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

fn unwritable(path: &Path, error: &std::io::Error) -> TrainError {
    TrainError::Folder(format!(
        "cannot write {}: {error}; free space, or train without --log tensorboard",
        path.display()
    ))
}

/// `Event { wall_time = 1, step = 2, summary = 5 { value = 1 { tag = 1, simple_value = 2 } } }`.
fn event(time: f64, step: i64, group: &str, numbers: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (name, number) in numbers {
        let mut value = Vec::new();
        put_bytes(&mut value, 1, format!("{group}/{name}").as_bytes());
        put_key(&mut value, 2, 5);
        value.extend((*number as f32).to_le_bytes());
        put_bytes(&mut summary, 1, &value);
    }
    let mut event = Vec::new();
    put_double(&mut event, 1, time);
    put_key(&mut event, 2, 0);
    put_number(&mut event, step as u64);
    put_bytes(&mut event, 5, &summary);
    event
}

fn put_key(bytes: &mut Vec<u8>, field: u64, kind: u64) {
    put_number(bytes, field << 3 | kind);
}

fn put_double(bytes: &mut Vec<u8>, field: u64, value: f64) {
    put_key(bytes, field, 1);
    bytes.extend(value.to_le_bytes());
}

fn put_bytes(bytes: &mut Vec<u8>, field: u64, value: &[u8]) {
    put_key(bytes, field, 2);
    put_number(bytes, value.len() as u64);
    bytes.extend(value);
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Length, its checksum, bytes, their checksum.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = length.to_vec();
    record.extend(masked_checksum(&length).to_le_bytes());
    record.extend(bytes);
    record.extend(masked_checksum(bytes).to_le_bytes());
    record
}

/// CRC-32C (Castagnoli), turned and moved as TFRecord has it, so that a checksum of data with checksums is not special.
fn masked_checksum(bytes: &[u8]) -> u32 {
    checksum(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut remainder = u32::MAX;
    for &byte in bytes {
        remainder ^= u32::from(byte);
        for _ in 0..8 {
            let polynomial = if remainder & 1 == 1 { 0x82f6_3b78 } else { 0 };
            remainder = (remainder >> 1) ^ polynomial;
        }
    }
    !remainder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Silent;

    #[test]
    fn checksums_are_those_of_rfc_3720() {
        assert_eq!(checksum(b"123456789"), 0xe306_9283);
        assert_eq!(checksum(&[0; 32]), 0x8a91_36aa);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(checksum(&rising), 0x46dd_794e);
    }

    /// Bytes that `RecordWriter` of tensorboard 2.20 (Python) wrote of the same event.
    #[test]
    fn records_are_those_of_the_reference() {
        let expected = [
            0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x29, 0xed, 0xa9, 0x50, 0x09, 0x00, 0x00, 0x00, 0x00, 0x00,
            0x00, 0xf8, 0x3f, 0x10, 0xac, 0x02, 0x2a, 0x12, 0x0a, 0x10, 0x0a, 0x09, 0x73, 0x74, 0x65, 0x70, 0x2f, 0x6c,
            0x6f, 0x73, 0x73, 0x15, 0x00, 0x00, 0x80, 0x3e, 0x82, 0xcb, 0x0d, 0x16,
        ];
        let found = record(&event(1.5, 300, "step", &[("loss", 0.25)]));
        assert_eq!(found, expected);
    }

    #[test]
    fn every_number_of_a_run_is_written_and_handed_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut behind = Silent;
        let mut board = TensorBoard::begin(folder.path(), &mut behind).unwrap();
        let step = |step| Event::Step {
            epoch: 2,
            step,
            steps: 10,
            total_steps: 20,
            loss: 0.5,
            base: 0.25,
            images: 8,
            values: vec![("misordered".into(), 0.125)],
        };
        board.on(&step(3));
        board.on(&Event::Test {
            measures: [
                ("recall@1".to_owned(), Value::from(0.75)),
                ("density".to_owned(), Value::Null),
            ]
            .into_iter()
            .collect(),
        });
        let path = board.path.clone();
        let mut other = Silent;
        let again = TensorBoard::begin(folder.path(), &mut other).unwrap();
        assert_ne!(again.path, path);
        let bytes = std::fs::read(path).unwrap();
        let mut at = 0;
        let mut records = Vec::new();
        while at < bytes.len() {
            let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            records.push(&bytes[at + 12..at + 12 + length]);
            at += length + 16;
        }
        assert_eq!((at, records.len()), (bytes.len(), 3));
        let holds = |record: &[u8], text: &str| record.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(holds(records[0], "brain.Event:2"));
        assert!(
            ["step/loss", "step/base", "step/misordered"]
                .iter()
                .all(|name| holds(records[1], name))
        );
        // Step 13 follows the time.
        assert_eq!(records[1][9..11], [0x10, 13]);
        assert!(holds(records[2], "test/recall@1") && !holds(records[2], "density"));
        assert!(holds(records[2], std::str::from_utf8(&0.75_f32.to_le_bytes()).unwrap()));
    }
}
