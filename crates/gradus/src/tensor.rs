//! Every name of Burn that gradus uses: an upgrade of Burn starts in this file.

pub use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId, RunningState};
pub use burn::tensor::module::{adaptive_avg_pool2d, layer_norm};
pub use burn::tensor::{
    Bool, DType, Device, Distribution, Element, Gradients, IndexingUpdateOp, Int, Shape, Tensor, TensorData, activation,
};
