//! The reader against bytes written by an independent, naive writer, and against damaged files.

use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::{StructArray, Value, parse};

/// A naive writer of level 5 files; also used by the tests of Cars196.
#[derive(Clone, Copy)]
pub(in crate::data::layouts) struct Writer {
    pub(in crate::data::layouts) big: bool,
}

impl Writer {
    fn word(self, value: u32) -> Vec<u8> {
        if self.big {
            value.to_be_bytes().to_vec()
        } else {
            value.to_le_bytes().to_vec()
        }
    }

    /// An element, in the small format if it fits and `small` is asked for.
    pub(in crate::data::layouts) fn element(self, kind: u32, data: &[u8], small: bool) -> Vec<u8> {
        let mut bytes;
        if small && data.len() <= 4 {
            bytes = self.word(((data.len() as u32) << 16) | kind);
            bytes.extend(data);
            bytes.resize(8, 0);
        } else {
            bytes = self.word(kind);
            bytes.extend(self.word(data.len() as u32));
            bytes.extend(data);
            while bytes.len() % 8 != 0 {
                bytes.push(0);
            }
        }
        bytes
    }

    fn array(self, class: u32, dimensions: &[u32], name: &str, content: &[u8]) -> Vec<u8> {
        let mut flags = self.word(class);
        flags.extend(self.word(0));
        let mut body = self.element(6, &flags, false);
        let sizes: Vec<u8> = dimensions.iter().flat_map(|size| self.word(*size)).collect();
        body.extend(self.element(5, &sizes, false));
        body.extend(self.element(1, name.as_bytes(), true));
        body.extend(content);
        self.element(14, &body, false)
    }

    pub(in crate::data::layouts) fn doubles(self, name: &str, values: &[f64]) -> Vec<u8> {
        let data: Vec<u8> = values
            .iter()
            .flat_map(|value| {
                if self.big {
                    value.to_be_bytes()
                } else {
                    value.to_le_bytes()
                }
            })
            .collect();
        self.array(6, &[1, values.len() as u32], name, &self.element(9, &data, false))
    }

    /// A double array whose values are stored as bytes, as MATLAB does for small whole numbers.
    pub(in crate::data::layouts) fn bytes(self, name: &str, values: &[u8]) -> Vec<u8> {
        self.array(6, &[1, values.len() as u32], name, &self.element(2, values, true))
    }

    pub(in crate::data::layouts) fn text16(self, name: &str, text: &str) -> Vec<u8> {
        let units: Vec<u16> = text.encode_utf16().collect();
        let data: Vec<u8> = units
            .iter()
            .flat_map(|unit| {
                if self.big {
                    unit.to_be_bytes()
                } else {
                    unit.to_le_bytes()
                }
            })
            .collect();
        self.array(4, &[1, units.len() as u32], name, &self.element(4, &data, true))
    }

    pub(in crate::data::layouts) fn text8(self, name: &str, text: &str) -> Vec<u8> {
        self.array(
            4,
            &[1, text.chars().count() as u32],
            name,
            &self.element(16, text.as_bytes(), true),
        )
    }

    pub(in crate::data::layouts) fn cell(self, name: &str, children: &[Vec<u8>]) -> Vec<u8> {
        self.array(1, &[1, children.len() as u32], name, &children.concat())
    }

    pub(in crate::data::layouts) fn structure(self, name: &str, fields: &[&str], elements: &[Vec<Vec<u8>>]) -> Vec<u8> {
        let width = 32;
        let mut content = self.element(5, &self.word(width), true);
        let mut names = Vec::new();
        for field in fields {
            names.extend(field.as_bytes());
            names.resize(names.len().next_multiple_of(width as usize), 0);
        }
        content.extend(self.element(1, &names, false));
        content.extend(elements.iter().flatten().flatten());
        self.array(2, &[1, elements.len() as u32], name, &content)
    }

    /// A compressed element, which is not padded.
    pub(in crate::data::layouts) fn compressed(self, plain: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        let data = encoder.finish().unwrap();
        let mut bytes = self.word(15);
        bytes.extend(self.word(data.len() as u32));
        bytes.extend(data);
        bytes
    }

    pub(in crate::data::layouts) fn file(self, variables: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = b"MATLAB 5.0 MAT-file, a test".to_vec();
        bytes.resize(124, b' ');
        bytes.extend(if self.big { [1, 0] } else { [0, 1] });
        bytes.extend(if self.big { b"MI" } else { b"IM" });
        bytes.extend(variables.concat());
        bytes
    }
}

fn sample(writer: Writer) -> Vec<Vec<u8>> {
    let element = |name: &str, class: u8| vec![writer.text16("", name), writer.bytes("", &[class])];
    vec![
        writer.structure(
            "annotations",
            &["fname", "class"],
            &[element("a.jpg", 1), element("b.jpg", 200)],
        ),
        writer.cell(
            "class_names",
            &[writer.text16("", "Käfer"), writer.text8("", "Ford F-150 λ")],
        ),
        writer.doubles("numbers", &[1.5, -2.0, 1e300]),
        writer.doubles("none", &[]),
    ]
}

fn check(variables: &[(String, Value)]) {
    let names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["annotations", "class_names", "numbers", "none"]);
    let Value::Struct(annotations) = &variables[0].1 else {
        panic!("no struct")
    };
    assert_eq!(annotations.len(), 2);
    let (file, class) = (annotations.field("fname").unwrap(), annotations.field("class").unwrap());
    assert_eq!(annotations.get(1, file).and_then(Value::text), Some("b.jpg"));
    assert_eq!(annotations.get(1, class).and_then(Value::whole), Some(200));
    assert_eq!(annotations.get(2, class), None);
    assert_eq!(
        variables[1].1,
        Value::Cell(vec![Value::Text("Käfer".into()), Value::Text("Ford F-150 λ".into())])
    );
    assert_eq!(variables[2].1, Value::Numbers(vec![1.5, -2.0, 1e300]));
    assert_eq!(variables[3].1, Value::Numbers(vec![]));
}

#[test]
fn reads_both_byte_orders_plain_and_compressed() {
    for big in [false, true] {
        let writer = Writer { big };
        let plain = sample(writer);
        check(&parse(&writer.file(&plain)).unwrap());
        let packed: Vec<_> = plain.iter().map(|variable| writer.compressed(variable)).collect();
        check(&parse(&writer.file(&packed)).unwrap());
    }
}

#[test]
fn reads_every_number_type() {
    let writer = Writer { big: true };
    let element = |kind: u32, data: &[u8]| writer.array(6, &[1, 1], "x", &writer.element(kind, data, true));
    let cases = [
        element(1, &(-3i8).to_be_bytes()),
        element(3, &(-3i16).to_be_bytes()),
        element(5, &(-3i32).to_be_bytes()),
        element(7, &(-3f32).to_be_bytes()),
        element(9, &(-3f64).to_be_bytes()),
        element(12, &(-3i64).to_be_bytes()),
    ];
    for case in cases {
        assert_eq!(parse(&writer.file(&[case])).unwrap()[0].1, Value::Numbers(vec![-3.0]));
    }
    for (kind, data) in [
        (4, 60_000u16.to_be_bytes().to_vec()),
        (6, 60_000u32.to_be_bytes().to_vec()),
    ] {
        assert_eq!(
            parse(&writer.file(&[element(kind, &data)])).unwrap()[0].1,
            Value::Numbers(vec![60_000.0])
        );
    }
}

#[test]
fn rows_of_a_char_matrix_are_lines() {
    let writer = Writer { big: false };
    // Column by column: "ab" over "cd".
    let bytes = writer.array(4, &[2, 2], "t", &writer.element(16, b"acbd", true));
    assert_eq!(
        parse(&writer.file(&[bytes])).unwrap()[0].1,
        Value::Text("ab\ncd".into())
    );
    // A char array of no characters may claim any number of rows.
    let bytes = writer.array(4, &[i32::MAX as u32, 0], "t", &writer.element(16, b"", true));
    assert_eq!(parse(&writer.file(&[bytes])).unwrap()[0].1, Value::Text(String::new()));
}

#[test]
fn every_truncation_is_an_error_or_fewer_variables() {
    for big in [false, true] {
        let writer = Writer { big };
        let plain = sample(writer);
        for whole in [
            writer.file(&plain),
            writer.file(
                &plain
                    .iter()
                    .map(|variable| writer.compressed(variable))
                    .collect::<Vec<_>>(),
            ),
        ] {
            let ends: Vec<usize> = (0..whole.len()).filter(|end| parse(&whole[..*end]).is_ok()).collect();
            // Only ends between variables (or within zero padding) read, and then with fewer variables.
            assert!(ends.len() < 30, "{ends:?}");
            for end in ends {
                assert!(parse(&whole[..end]).unwrap().len() < 4 || whole[end..].iter().all(|byte| *byte == 0));
            }
        }
    }
}

#[test]
fn damaged_bytes_never_panic() {
    use crate::random::{RngCore, stream};
    let writer = Writer { big: false };
    let plain = writer.file(&sample(writer));
    let mut random = stream(3, &[1]);
    for _ in 0..20_000 {
        let mut bytes = plain.clone();
        for _ in 0..1 + random.next_u32() % 4 {
            let place = 128 + random.next_u32() as usize % (bytes.len() - 128);
            bytes[place] = [0, 1, 0xff, 0x7f, random.next_u32() as u8][random.next_u32() as usize % 5];
        }
        let _ = parse(&bytes);
    }
}

#[test]
fn lying_sizes_are_errors_without_large_allocations() {
    let writer = Writer { big: false };
    let told = |bytes: Vec<u8>, what: &str| {
        let error = parse(&writer.file(&[bytes])).unwrap_err();
        assert!(error.contains(what), "{error}");
    };
    told([14u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat(), "truncated");
    told(
        writer.array(1, &[i32::MAX as u32, 1], "c", &[]),
        "nested arrays are declared",
    );
    told(writer.array(1, &[i32::MAX as u32; 3], "c", &[]), "impossibly large");
    told(
        writer.array(6, &[1, 1_000_000], "n", &writer.element(9, &[0; 8], false)),
        "declares 1000000 numbers",
    );
    told(
        writer.array(6, &[1, 1], "n", &writer.element(9, &[0; 7], false)),
        "cannot hold",
    );
    told(writer.array(99, &[1, 1], "n", &[]), "unknown class");
    told(
        writer.array(2, &[1, 1], "s", &writer.element(5, &0u32.to_le_bytes(), true)),
        "width",
    );
    told([0x0009_0002u32.to_le_bytes(), [0; 4]].concat(), "more than its four");
    // A struct array without fields has no elements, however many it declares.
    let mut content = writer.element(5, &32u32.to_le_bytes(), true);
    content.extend(writer.element(1, &[], false));
    let bytes = writer.array(2, &[i32::MAX as u32, 1], "s", &content);
    let Value::Struct(empty) = parse(&writer.file(&[bytes])).unwrap().remove(0).1 else {
        panic!("no struct")
    };
    assert_eq!(
        empty,
        StructArray {
            fields: vec![],
            values: vec![]
        }
    );
    assert_eq!(empty.len(), 0);
}

#[test]
fn bad_zlib_and_nesting_are_errors() {
    let writer = Writer { big: false };
    let mut packed = writer.compressed(&sample(writer)[0]);
    packed[12] ^= 0xff;
    let error = parse(&writer.file(&[packed])).unwrap_err();
    assert!(error.contains("compressed variable is damaged"), "{error}");

    let mut nested = writer.doubles("", &[1.0]);
    for _ in 0..100 {
        nested = writer.cell("", &[nested]);
    }
    assert!(parse(&writer.file(&[nested])).unwrap_err().contains("nested"));
}

#[test]
fn other_formats_are_named() {
    assert!(parse(b"short").unwrap_err().contains("128-byte header"));
    assert!(parse(&[b' '; 200]).unwrap_err().contains("byte-order mark"));
    let mut newer = b"MATLAB 7.3 MAT-file".to_vec();
    newer.resize(600, 0);
    assert!(parse(&newer).unwrap_err().contains("-v7"));
}
