//! A graph of ONNX operators under construction.
//!
//! ```
//! use gradus_onnx::{Batch, Graph};
//! let mut graph = Graph::new(17);
//! let x = graph.input("vectors", &[3]);
//! let y = graph.linear(x, &[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], Some(&[0.5, -0.5]));
//! let y = graph.unit_length(y);
//! graph.output("embeddings", &y);
//! let file = graph.encode(Batch::Dynamic, &[])?;
//! assert!(file.len() > 100);
//! # Ok::<(), gradus_onnx::OnnxError>(())
//! ```

mod encode;
mod half_precision;
mod layers;
mod pixels;
mod quantise;
mod tokens;

pub use encode::Batch;
pub use layers::Pads;
pub use quantise::{Calibration, Seen};

use std::collections::HashMap;
use std::ops::Range;

/// A tensor of the graph.
///
/// # Shapes
/// Every axis but the first, which is the batch: `[channels, height, width]` of a map, `[features]` of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

impl Value {
    /// Every axis but the batch.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
}

/// What an operator is told beside its inputs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attribute {
    Integer(i64),
    Integers(Vec<i64>),
    Float(f32),
}

/// One operator.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) operator: &'static str,
    pub(crate) inputs: Vec<String>,
    pub(crate) output: String,
    pub(crate) attributes: Vec<(&'static str, Attribute)>,
}

/// The numbers of a constant tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Numbers {
    Float(Vec<f32>),
    Half(Vec<half::f16>),
    Signed(Vec<i8>),
    Unsigned(Vec<u8>),
    Integer(Vec<i32>),
    Index(Vec<i64>),
}

/// A constant tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Constant {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) numbers: Numbers,
}

/// What an input holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    /// Eight-bit pixels, channels last, of any height and width.
    Pixels,
}

/// A graph of ONNX operators under construction; operators are in the order in which they can run.
#[derive(Debug, Clone)]
pub struct Graph {
    pub(crate) opset: i64,
    pub(crate) nodes: Vec<Node>,
    pub(crate) constants: Vec<Constant>,
    pub(crate) inputs: Vec<(Value, Kind)>,
    pub(crate) output: Option<Value>,
    /// The operators of the trunk, which may be computed in eight bits.
    pub(crate) trunk: Range<usize>,
    names: HashMap<String, usize>,
}

impl Graph {
    /// The oldest set of operators that is written: the first with layer normalisation.
    pub const OLDEST_OPSET: i64 = 17;
    /// The newest set of operators whose files were checked.
    pub const NEWEST_OPSET: i64 = 22;

    /// An empty graph of operators of a version, [`Graph::OLDEST_OPSET`] to [`Graph::NEWEST_OPSET`].
    ///
    /// # Panics
    /// If the version is not among those.
    #[must_use]
    pub fn new(opset: i64) -> Self {
        assert!(
            (Self::OLDEST_OPSET..=Self::NEWEST_OPSET).contains(&opset),
            "operators of version {opset} are not written"
        );
        Self {
            opset,
            nodes: Vec::new(),
            constants: Vec::new(),
            inputs: Vec::new(),
            output: None,
            trunk: 0..0,
            names: HashMap::new(),
        }
    }

    /// An input of the graph, single precision; `shape` without the batch. An embedding model has one.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Value {
        let value = Value {
            name: name.to_owned(),
            shape: shape.to_vec(),
        };
        self.inputs.push((value.clone(), Kind::Float));
        value
    }

    /// The input of the graph as pixels `[batch, height, width, 3]` of eight bits and any size.
    pub(crate) fn pixels(&mut self, name: &str) -> Value {
        let value = Value {
            name: name.to_owned(),
            shape: vec![],
        };
        self.inputs.push((value.clone(), Kind::Pixels));
        value
    }

    /// Makes a value the output of the graph, under a name.
    pub fn output(&mut self, name: &str, value: &Value) {
        self.nodes.push(Node {
            operator: "Identity",
            inputs: vec![value.name.clone()],
            output: name.to_owned(),
            attributes: Vec::new(),
        });
        self.output = Some(Value {
            name: name.to_owned(),
            shape: value.shape.clone(),
        });
    }

    /// Says that what comes now is the trunk of a network: what [`Graph::quantised`] computes in eight bits.
    pub fn begin_trunk(&mut self) {
        self.trunk = self.nodes.len()..self.nodes.len();
    }

    /// Says that the trunk has ended.
    pub fn end_trunk(&mut self) {
        self.trunk.end = self.nodes.len();
    }

    /// Whether there is a trunk.
    #[must_use]
    pub fn has_trunk(&self) -> bool {
        !self.trunk.is_empty()
    }

    /// A name that no tensor has yet.
    pub(crate) fn name(&mut self, stem: &str) -> String {
        let number = self.names.entry(stem.to_owned()).or_default();
        *number += 1;
        format!("{stem}_{number}")
    }

    /// Applies an operator to tensors of given names.
    pub(crate) fn apply(
        &mut self,
        operator: &'static str,
        inputs: &[&str],
        attributes: &[(&'static str, Attribute)],
        shape: &[usize],
    ) -> Value {
        let output = self.name(&operator.to_lowercase());
        self.nodes.push(Node {
            operator,
            inputs: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: output.clone(),
            attributes: attributes.to_vec(),
        });
        Value {
            name: output,
            shape: shape.to_vec(),
        }
    }

    pub(crate) fn constant(&mut self, stem: &str, shape: &[usize], numbers: Numbers) -> String {
        let name = self.name(stem);
        self.constants.push(Constant {
            name: name.clone(),
            shape: shape.to_vec(),
            numbers,
        });
        name
    }

    /// A constant of single precision.
    ///
    /// # Panics
    /// If the numbers do not fill the shape.
    pub(crate) fn floats(&mut self, stem: &str, shape: &[usize], numbers: &[f32]) -> String {
        assert_eq!(
            numbers.len(),
            shape.iter().product::<usize>(),
            "the numbers of a constant fill its shape"
        );
        self.constant(stem, shape, Numbers::Float(numbers.to_vec()))
    }

    pub(crate) fn scalar(&mut self, number: f32) -> String {
        self.floats("number", &[], &[number])
    }

    /// A constant vector of indices or sizes.
    pub(crate) fn indices(&mut self, numbers: &[i64]) -> String {
        self.constant("sizes", &[numbers.len()], Numbers::Index(numbers.to_vec()))
    }

    pub(crate) fn constant_of(&self, name: &str) -> Option<&Constant> {
        self.constants.iter().find(|constant| constant.name == name)
    }

    pub(crate) fn constant_mut(&mut self, name: &str) -> Option<&mut Constant> {
        self.constants.iter_mut().find(|constant| constant.name == name)
    }
}
