//! Microsoft's onnxruntime, a library of this machine.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::session::{Session, SessionInputValue};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};

use super::InputKind;
use super::engine::{Axis, Engine, Port, Values};
use crate::OnnxError;

/// Names the library; the name that `ort` and its other users look at, too.
const PLACE: &str = "ORT_DYLIB_PATH";

/// What the loader of this system finds by itself.
const USUAL: &str = if cfg!(target_os = "windows") {
    "onnxruntime.dll"
} else if cfg!(target_os = "macos") {
    "libonnxruntime.dylib"
} else {
    "libonnxruntime.so"
};

#[derive(Debug)]
pub(super) struct Onnxruntime {
    session: Mutex<Session>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// The library, loaded once in the life of the program.
fn environment() -> Result<&'static Environment, String> {
    static LOADED: OnceLock<Result<Environment, String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        let place = std::env::var_os(PLACE).unwrap_or_else(|| USUAL.into());
        ort::init_from(&place)
            .map_err(|error| error.to_string())
            .and_then(|builder| builder.build().map_err(|error| error.to_string()))
            .map_err(|problem| {
                format!(
                    "onnxruntime could not be loaded: {problem}. Install it (`pip install onnxruntime` has it as \
                     onnxruntime/capi/libonnxruntime.so.VERSION) and name the file in {PLACE}"
                )
            })
    });
    loaded.as_ref().map_err(Clone::clone)
}

impl Onnxruntime {
    pub(super) fn open(path: &Path) -> Result<Self, OnnxError> {
        let refuse = |problem: String| OnnxError::Model {
            path: path.to_owned(),
            problem,
        };
        let environment = environment().map_err(refuse)?;
        let session = Session::builder(environment)
            .and_then(|mut builder| builder.commit_from_file(path))
            .map_err(|error| refuse(format!("it is not an ONNX model that onnxruntime can run ({error})")))?;
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect();
        Ok(Self {
            inputs: ports(session.inputs()),
            outputs: ports(session.outputs()),
            session: Mutex::new(session),
        })
    }
}

fn port(outlet: &Outlet) -> Port {
    let (kind, shape) = match outlet.dtype() {
        ValueType::Tensor {
            ty,
            shape,
            dimension_symbols,
        } => {
            let kind = match ty {
                TensorElementType::Float32 => Some(InputKind::Float),
                TensorElementType::Uint8 => Some(InputKind::Pixels),
                _ => None,
            };
            let axes = shape.iter().enumerate().map(|(at, size)| match usize::try_from(*size) {
                Ok(size) => Axis::Fixed(size),
                Err(_) => Axis::Free(dimension_symbols.get(at).cloned().unwrap_or_default()),
            });
            (kind, Some(axes.collect()))
        }
        _ => (None, None),
    };
    Port {
        name: outlet.name().to_owned(),
        kind,
        shape,
    }
}

impl Engine for Onnxruntime {
    fn inputs(&self) -> Vec<Port> {
        self.inputs.clone()
    }

    fn outputs(&self) -> Vec<Port> {
        self.outputs.clone()
    }

    fn run(&self, shape: &[usize], values: Values<'_>, output: usize) -> Result<(Vec<usize>, Vec<f32>), String> {
        let words = |error: ort::Error| error.to_string();
        let input: SessionInputValue<'_> = match values {
            Values::Floats(values) => TensorRef::from_array_view((shape.to_vec(), values))
                .map_err(words)?
                .into(),
            Values::Pixels(values) => TensorRef::from_array_view((shape.to_vec(), values))
                .map_err(words)?
                .into(),
        };
        // A session that failed is still a session.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let results = session.run([input]).map_err(words)?;
        let (shape, numbers) = results[output]
            .try_extract_tensor::<f32>()
            .map_err(|_| "its output is not floating-point numbers".to_owned())?;
        let shape = shape.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect();
        Ok((shape, numbers.to_vec()))
    }
}
