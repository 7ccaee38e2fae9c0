//! What runs a model: the same few questions to every runtime.

use std::path::Path;

use super::InputKind;
use crate::OnnxError;

/// Which program computes a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Runtime {
    /// rten: pure Rust, part of gradus (feature `rten`).
    #[default]
    Rten,
    /// Microsoft's onnxruntime: a library of this machine, found when it is asked for (feature `onnxruntime`).
    Onnxruntime,
}

impl Runtime {
    /// Opens a file.
    pub(super) fn open(self, path: &Path) -> Result<Box<dyn Engine>, OnnxError> {
        match self {
            #[cfg(feature = "rten")]
            Self::Rten => Ok(Box::new(super::pure_rust::PureRust::open(path)?)),
            #[cfg(feature = "onnxruntime")]
            Self::Onnxruntime => Ok(Box::new(super::onnxruntime::Onnxruntime::open(path)?)),
            #[allow(unreachable_patterns, reason = "with both features every runtime is there")]
            missing => Err(OnnxError::Model {
                path: path.to_owned(),
                problem: format!(
                    "this gradus was built without the feature `{}`, so it cannot run it",
                    match missing {
                        Self::Rten => "rten",
                        Self::Onnxruntime => "onnxruntime",
                    }
                ),
            }),
        }
    }
}

/// Numbers that go into a model.
#[derive(Clone, Copy)]
pub(super) enum Values<'a> {
    Floats(&'a [f32]),
    Pixels(&'a [u8]),
}

/// The size of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Axis {
    Fixed(usize),
    /// Any, with the name the file has for it.
    Free(String),
}

/// An input or output.
#[derive(Debug, Clone)]
pub(super) struct Port {
    pub(super) name: String,
    /// None for numbers that no embedding model takes.
    pub(super) kind: Option<InputKind>,
    /// None where the file states no shape.
    pub(super) shape: Option<Vec<Axis>>,
}

impl std::fmt::Display for Port {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "`{}`", self.name)?;
        let Some(shape) = &self.shape else { return Ok(()) };
        let sizes: Vec<String> = shape
            .iter()
            .map(|axis| match axis {
                Axis::Fixed(size) => size.to_string(),
                Axis::Free(name) => name.clone(),
            })
            .collect();
        write!(formatter, " [{}]", sizes.join(", "))
    }
}

/// An open model.
pub(super) trait Engine: std::fmt::Debug + Send + Sync {
    /// What it takes.
    fn inputs(&self) -> Vec<Port>;

    /// What it gives.
    fn outputs(&self) -> Vec<Port>;

    /// Feeds the only input; shape and numbers of one output.
    ///
    /// # Errors
    /// What the runtime says, and if the output is no floating-point numbers.
    fn run(&self, shape: &[usize], values: Values<'_>, output: usize) -> Result<(Vec<usize>, Vec<f32>), String>;
}
