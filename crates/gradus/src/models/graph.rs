//! Networks as ONNX operators: every layer writes itself into a [`Graph`], as it computes in evaluation.
//!
//! ```
//! use gradus::models::ModelConfig;
//! use gradus::tensor::Device;
//! use gradus_onnx::{Batch, Graph};
//!
//! let network = ModelConfig { width: 64, ..ModelConfig::default() }.init(1, &Device::default())?;
//! let mut graph = Graph::new(17);
//! let images = graph.input("images", &[3, 32, 32]);
//! let embeddings = network.graph(&mut graph, images);
//! assert_eq!(embeddings.shape(), [64]);
//! graph.output("embeddings", &embeddings);
//! let file = graph.encode(Batch::Dynamic, &[])?;
//! # assert!(!file.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use gradus_kernels::Activation;
use gradus_onnx::{Graph, Value};

use crate::tensor::Tensor;

/// The numbers of a parameter, row-major.
///
/// # Panics
/// If the device that holds them does not hand them out: a network is exported from host memory.
pub(crate) fn numbers<const D: usize>(parameter: Tensor<D>) -> Vec<f32> {
    parameter
        .try_into_vec_as::<f32>()
        .expect("a device hands out the parameters it holds")
}

/// An activation as an ONNX operator.
pub(crate) fn activate(graph: &mut Graph, x: Value, activation: Activation) -> Value {
    match activation {
        Activation::None => x,
        Activation::Relu => graph.relu(x),
        Activation::Relu6 => graph.relu6(x),
    }
}
