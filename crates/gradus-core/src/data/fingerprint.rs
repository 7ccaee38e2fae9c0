//! Whether something is still what it was when a result of it was stored.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::time::UNIX_EPOCH;

use super::dataset::Source;

/// A running hash of 128 bits: for noticing changes, not for security.
#[derive(Clone, Debug)]
pub struct Fingerprint {
    halves: [DefaultHasher; 2],
}

impl Default for Fingerprint {
    fn default() -> Self {
        let mut halves = [DefaultHasher::new(), DefaultHasher::new()];
        halves[1].write_u8(1);
        Self { halves }
    }
}

impl Fingerprint {
    /// Takes bytes in, with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for half in &mut self.halves {
            half.write_usize(bytes.len());
            half.write(bytes);
        }
    }

    /// Takes text in.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Takes in what tells whether the pixels of a source are still the same, without decoding them: of a file its path, length
    /// and time of modification, of what is in memory all bytes.
    ///
    /// # Errors
    /// If a file cannot be looked at.
    pub fn source(&mut self, source: &Source) -> std::io::Result<()> {
        match source {
            Source::File(path) => {
                let metadata = std::fs::metadata(path)?;
                let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
                let times = [u128::from(metadata.len()), modified.as_nanos()];
                self.bytes(path.as_os_str().as_encoded_bytes());
                self.bytes(times.map(u128::to_le_bytes).as_flattened());
            }
            Source::Encoded { name, bytes } => {
                self.text(name);
                self.bytes(bytes);
            }
            Source::Drawn { name, pixels } => {
                self.text(name);
                self.bytes(&pixels.width().to_le_bytes());
                self.bytes(pixels.as_raw());
            }
            Source::Turned { source, quarters } => {
                self.bytes(&[*quarters]);
                self.source(source)?;
            }
            Source::Vector { name, .. } => {
                self.text(name);
                let values = source.vector().unwrap_or_default();
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.bytes(&bytes);
            }
        }
        Ok(())
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b] = [self.halves[0].finish(), self.halves[1].finish()];
        write!(formatter, "{a:016x}{b:016x}")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn of(source: &Source) -> String {
        let mut fingerprint = Fingerprint::default();
        fingerprint.source(source).unwrap();
        fingerprint.to_string()
    }

    #[test]
    fn changes_of_content_name_and_turn_show() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"one").unwrap();
        let file = Source::File(path.clone());
        let before = of(&file);
        assert_eq!(before.len(), 32);
        assert_eq!(of(&file), before);
        std::fs::write(&path, b"three").unwrap();
        assert_ne!(of(&file), before);
        std::fs::remove_file(&path).unwrap();
        assert!(Fingerprint::default().source(&file).is_err());

        let encoded = |name: &str, bytes: &[u8]| Source::Encoded {
            name: name.into(),
            bytes: Arc::from(bytes),
        };
        let turned = |quarters| Source::Turned {
            source: Arc::new(encoded("a", b"xy")),
            quarters,
        };
        let all = [
            of(&encoded("a", b"xy")),
            of(&encoded("a", b"xz")),
            of(&encoded("ax", b"y")),
            of(&turned(1)),
            of(&turned(2)),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one), "{at}");
        }
        assert_eq!(of(&turned(2)), all[4]);
    }
}
