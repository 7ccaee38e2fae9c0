//! rten: a runtime in pure Rust.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rten::{DataType, Dimension, Model, ModelOptions, NodeId, ValueOrView, ValueType, ValueView};
use rten_tensor::Layout as _;

use super::InputKind;
use super::engine::{Axis, Engine, Port, Values};
use crate::OnnxError;

#[derive(Debug)]
pub(super) struct PureRust {
    model: Model,
}

impl PureRust {
    pub(super) fn open(path: &Path) -> Result<Self, OnnxError> {
        // By path, not by content: weights in a file of their own are looked for beside the model.
        let loaded = guarded(|| ModelOptions::with_all_ops().load_file(path));
        let model = loaded
            .and_then(|loaded| loaded.map_err(|error| error.to_string()))
            .map_err(|problem| OnnxError::Model {
                path: path.to_owned(),
                problem: format!(
                    "it is not an ONNX model that can be run here ({problem}). If it is one, onnxruntime may run it (--runtime onnxruntime)"
                ),
            })?;
        Ok(Self { model })
    }

    fn ports(&self, ids: &[NodeId]) -> Vec<Port> {
        ids.iter().map(|id| self.port(*id)).collect()
    }

    fn port(&self, id: NodeId) -> Port {
        let info = self.model.node_info(id);
        Port {
            name: info.as_ref().and_then(|info| info.name()).unwrap_or("?").to_owned(),
            kind: match info.as_ref().and_then(|info| info.dtype()) {
                Some(ValueType::Tensor(DataType::UInt8)) => Some(InputKind::Pixels),
                Some(ValueType::Tensor(DataType::Float)) | None => Some(InputKind::Float),
                Some(_) => None,
            },
            shape: info.and_then(|info| info.shape()).map(|shape| {
                shape
                    .into_iter()
                    .map(|dimension| match dimension {
                        Dimension::Fixed(size) => Axis::Fixed(size),
                        Dimension::Symbolic(name) => Axis::Free(name),
                    })
                    .collect()
            }),
        }
    }
}

impl Engine for PureRust {
    fn inputs(&self) -> Vec<Port> {
        self.ports(self.model.input_ids())
    }

    fn outputs(&self) -> Vec<Port> {
        self.ports(self.model.output_ids())
    }

    fn run(&self, shape: &[usize], values: Values<'_>, output: usize) -> Result<(Vec<usize>, Vec<f32>), String> {
        let view = match values {
            Values::Floats(values) => ValueView::from_shape(shape, values).map_err(|error| error.to_string())?,
            Values::Pixels(values) => ValueView::from_shape(shape, values).map_err(|error| error.to_string())?,
        };
        let (input, output) = (self.model.input_ids()[0], self.model.output_ids()[output]);
        let results = guarded(|| self.model.run(vec![(input, ValueOrView::from(view))], &[output], None))
            .and_then(|result| result.map_err(|error| error.to_string()))?;
        let tensor = results.into_iter().next().and_then(rten::Value::into_tensor::<f32>);
        let tensor = tensor.ok_or("its output is not floating-point numbers")?;
        let shape = tensor.shape().to_vec();
        Ok((shape, tensor.into_data()))
    }
}

/// The runtime must not bring the program down on a hostile file.
fn guarded<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_else(|| "the runtime failed".to_owned())
    })
}
