//! What losses that classify share: cross entropy over `[batch, classes]`.

use crate::numerics::log_sum_exp;
use crate::tensor::{Bool, Tensor};

/// The entry of each row's own class, `[batch, 1]`.
pub(super) fn own_entries(x: &Tensor<2>, own: &Tensor<2, Bool>) -> Tensor<2> {
    x.clone().mask_fill(own.clone().bool_not(), 0.0).sum_dim(1)
}

/// `-log softmax` of the own class, `[batch, 1]`.
pub(super) fn cross_entropy(logits: Tensor<2>, own: &Tensor<2, Bool>) -> Tensor<2> {
    let target = own_entries(&logits, own);
    log_sum_exp(logits, 1) - target
}

/// The same with other logits `target` `[batch, 1]` for the own classes.
pub(super) fn cross_entropy_with(logits: Tensor<2>, own: Tensor<2, Bool>, target: Tensor<2>) -> Tensor<2> {
    let shape = logits.dims();
    log_sum_exp(logits.mask_where(own, target.clone().expand(shape)), 1) - target
}
