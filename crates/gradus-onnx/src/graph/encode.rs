//! From a graph to the bytes of an ONNX file.

use super::{Attribute, Constant, Graph, Kind, Node, Numbers, Value};
use crate::OnnxError;
use crate::protobuf::Message;

/// How many images a file takes at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Batch {
    /// Any number.
    #[default]
    Dynamic,
    /// This number.
    Fixed(usize),
}

/// Types of tensors, as ONNX numbers them.
mod data_type {
    pub(super) const FLOAT: i64 = 1;
    pub(super) const UNSIGNED: i64 = 2;
    pub(super) const SIGNED: i64 = 3;
    pub(super) const INTEGER: i64 = 6;
    pub(super) const INDEX: i64 = 7;
    pub(super) const HALF: i64 = 10;
}

/// The most bytes a message may have: its length is a signed 32-bit number in most readers.
const MOST_BYTES: usize = (1 << 31) - 1;

impl Graph {
    /// The bytes of an ONNX file, with notes about the model (key and value).
    ///
    /// # Errors
    /// If it had more bytes than the format allows (2 GiB).
    ///
    /// # Panics
    /// If the graph has no output.
    pub fn encode(&self, batch: Batch, notes: &[(&str, &str)]) -> Result<Vec<u8>, OnnxError> {
        let bytes: usize = self.constants.iter().map(|constant| constant.numbers.bytes()).sum();
        if bytes > MOST_BYTES - (1 << 20) {
            return Err(OnnxError::TooLarge { bytes });
        }
        let mut model = Message::default();
        model.integer(1, self.format_version());
        model.string(2, "gradus");
        model.string(3, env!("CARGO_PKG_VERSION"));
        model.message(7, &self.graph_message(batch));
        let mut operators = Message::default();
        operators.string(1, "");
        operators.integer(2, self.opset);
        model.message(8, &operators);
        for (key, value) in notes {
            let mut note = Message::default();
            note.string(1, key);
            note.string(2, value);
            model.message(14, &note);
        }
        Ok(model.finish())
    }

    /// The version of the file format that came with the operators.
    fn format_version(&self) -> i64 {
        match self.opset {
            ..=18 => 8,
            19..=20 => 9,
            _ => 10,
        }
    }

    fn graph_message(&self, batch: Batch) -> Message {
        let mut graph = Message::default();
        for node in &self.nodes {
            graph.message(1, &node_message(node));
        }
        graph.string(2, "embedder");
        for constant in &self.constants {
            graph.message(5, &constant_message(constant));
        }
        for (input, kind) in &self.inputs {
            graph.message(11, &value_message(input, *kind, batch));
        }
        let output = self.output.as_ref().expect("the graph has an output");
        graph.message(12, &value_message(output, Kind::Float, batch));
        graph
    }
}

fn node_message(node: &Node) -> Message {
    let mut message = Message::default();
    for input in &node.inputs {
        message.string(1, input);
    }
    message.string(2, &node.output);
    message.string(3, &node.output);
    message.string(4, node.operator);
    for (name, attribute) in &node.attributes {
        let mut attribute_message = Message::default();
        attribute_message.string(1, name);
        let kind = match attribute {
            Attribute::Float(value) => {
                attribute_message.float(2, *value);
                1
            }
            Attribute::Integer(value) => {
                attribute_message.integer(3, *value);
                2
            }
            Attribute::Integers(values) => {
                for &value in values {
                    attribute_message.integer(8, value);
                }
                7
            }
        };
        attribute_message.integer(20, kind);
        message.message(5, &attribute_message);
    }
    message
}

fn constant_message(constant: &Constant) -> Message {
    let mut message = Message::default();
    for &size in &constant.shape {
        message.integer(1, size as i64);
    }
    message.integer(2, constant.numbers.data_type());
    message.string(8, &constant.name);
    message.bytes(9, &constant.numbers.little_endian());
    message
}

fn value_message(value: &Value, kind: Kind, batch: Batch) -> Message {
    let free = |name: &str| {
        let mut dimension = Message::default();
        dimension.string(2, name);
        dimension
    };
    let fixed = |size: usize| {
        let mut dimension = Message::default();
        dimension.integer(1, size as i64);
        dimension
    };
    let mut shape = Message::default();
    shape.message(
        1,
        &match batch {
            Batch::Dynamic => free("batch"),
            Batch::Fixed(size) => fixed(size),
        },
    );
    if kind == Kind::Pixels {
        shape.message(1, &free("height"));
        shape.message(1, &free("width"));
        shape.message(1, &fixed(3));
    }
    for &size in &value.shape {
        shape.message(1, &fixed(size));
    }
    let mut tensor = Message::default();
    tensor.integer(
        1,
        match kind {
            Kind::Float => data_type::FLOAT,
            Kind::Pixels => data_type::UNSIGNED,
        },
    );
    tensor.message(2, &shape);
    let mut of_type = Message::default();
    of_type.message(1, &tensor);
    let mut message = Message::default();
    message.string(1, &value.name);
    message.message(2, &of_type);
    message
}

impl Numbers {
    fn data_type(&self) -> i64 {
        match self {
            Self::Float(_) => data_type::FLOAT,
            Self::Half(_) => data_type::HALF,
            Self::Signed(_) => data_type::SIGNED,
            Self::Unsigned(_) => data_type::UNSIGNED,
            Self::Integer(_) => data_type::INTEGER,
            Self::Index(_) => data_type::INDEX,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Float(numbers) => 4 * numbers.len(),
            Self::Half(numbers) => 2 * numbers.len(),
            Self::Signed(numbers) => numbers.len(),
            Self::Unsigned(numbers) => numbers.len(),
            Self::Integer(numbers) => 4 * numbers.len(),
            Self::Index(numbers) => 8 * numbers.len(),
        }
    }

    fn little_endian(&self) -> Vec<u8> {
        match self {
            Self::Float(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::Half(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::Signed(numbers) => numbers.iter().map(|&number| number as u8).collect(),
            Self::Unsigned(numbers) => numbers.clone(),
            Self::Integer(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Self::Index(numbers) => numbers.iter().flat_map(|number| number.to_le_bytes()).collect(),
        }
    }
}
