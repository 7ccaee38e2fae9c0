//! ONNX files of gradus: writing graphs, storing them in half precision or eight bits, describing and doing the
//! preprocessing, and running them in pure Rust (feature `rten`) or by onnxruntime (feature `onnxruntime`).

mod error;
mod graph;
mod preprocessing;
mod protobuf;
#[cfg(any(feature = "rten", feature = "onnxruntime"))]
mod runtime;

pub use error::OnnxError;
pub use graph::{Batch, Calibration, Graph, Pads, Seen, Value};
pub use preprocessing::{Colour, Layout, Preprocessing, Resize};
#[cfg(feature = "rten")]
pub use runtime::calibrate;
#[cfg(any(feature = "rten", feature = "onnxruntime"))]
pub use runtime::{InputKind, OnnxModel, Runtime};
