//! Writing protocol buffers: the three of its wire types that ONNX files are made of.
//!
//! Only writing is needed (a runtime reads), of a dozen kinds of message: less than a library's message definitions would be.

/// A message under construction.
#[derive(Debug, Default)]
pub(crate) struct Message(Vec<u8>);

const VARINT: u64 = 0;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    /// An integer; negative ones take ten bytes.
    pub(crate) fn integer(&mut self, field: u64, value: i64) {
        self.key(field, VARINT);
        self.varint(value as u64);
    }

    pub(crate) fn float(&mut self, field: u64, value: f32) {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, field: u64, value: &[u8]) {
        self.key(field, BYTES);
        self.varint(value.len() as u64);
        self.0.extend(value);
    }

    pub(crate) fn string(&mut self, field: u64, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    pub(crate) fn message(&mut self, field: u64, value: &Message) {
        self.bytes(field, &value.0);
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Walks over the fields of a message without looking into them; returns their numbers, or why the bytes are no message.
///
/// Asked before a runtime reads a file: one that stops in the middle, or is none, has kept a reader busy without end.
#[cfg(any(feature = "rten", feature = "onnxruntime"))]
pub(crate) fn fields(bytes: &[u8]) -> Result<Vec<u64>, &'static str> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let key = read_varint(&mut rest)?;
        let skipped = match key & 7 {
            VARINT => {
                read_varint(&mut rest)?;
                0
            }
            1 => 8,
            BYTES => read_varint(&mut rest)?,
            FIXED32 => 4,
            _ => return Err("its first bytes are not those of an ONNX file"),
        };
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        rest = rest
            .get(skipped..)
            .ok_or("it ends in the middle of a field: the file was cut")?;
        found.push(key >> 3);
    }
    Ok(found)
}

#[cfg(any(feature = "rten", feature = "onnxruntime"))]
fn read_varint(rest: &mut &[u8]) -> Result<u64, &'static str> {
    let mut value = 0;
    for place in 0..10 {
        let (&byte, after) = rest
            .split_first()
            .ok_or("it ends in the middle of a number: the file was cut")?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("it holds a number that has no end")
}

#[cfg(test)]
mod tests {
    use super::*;

    // The examples of the encoding's own documentation (protobuf.dev, "Encoding").
    #[test]
    fn the_documented_examples_come_out() {
        let mut message = Message::default();
        message.integer(1, 150);
        assert_eq!(message.0, [0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.string(2, "testing");
        assert_eq!(message.0, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        let mut inner = Message::default();
        inner.integer(1, 150);
        let mut outer = Message::default();
        outer.message(3, &inner);
        assert_eq!(outer.0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let mut negative = Message::default();
        negative.integer(1, -2);
        assert_eq!(
            negative.0,
            [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]
        );
    }
}
