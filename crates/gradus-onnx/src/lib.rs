//! ONNX files of gradus: writing graphs, storing them in half precision or eight bits, describing and doing the
//! preprocessing, and running them in pure Rust (feature `rten`).

mod error;
mod graph;
mod protobuf;

pub use error::OnnxError;
pub use graph::{Batch, Graph, Pads, Value};
