//! Parameters of losses.

use crate::tensor::{Param, Tensor};

/// A parameter with new values that keeps its identity, device, precision and training state.
///
/// # Panics
/// If the shapes differ.
pub(super) fn replaced(parameter: Param<Tensor<2>>, values: &Tensor<2>) -> Param<Tensor<2>> {
    parameter.map(|old| {
        assert_eq!(
            old.dims(),
            values.dims(),
            "the new parameters must have the shape of the old ones"
        );
        Tensor::from_data(values.to_data(), (&old.device(), old.dtype())).set_require_grad(old.is_require_grad())
    })
}
