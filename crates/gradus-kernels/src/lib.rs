//! Convolution, pooling, normalisation and optimiser steps for Burn's Flex backend, forward and backward.
//!
//! Flex as published has no weight-gradient kernel for convolutions and normalises in several passes over memory. The
//! functions here are drop-in operations on [`burn::tensor::Tensor`] that take their place on that backend:
//!
//! - [`conv2d`]: Winograd's minimal filtering for three by three kernels of stride 1; products that read the taps where
//!   they lie for other dense kernels; pointwise convolutions as matrix products; a direct vectorised kernel for depthwise
//!   convolutions; im2col for the rest; any stride, asymmetric padding, dilation and groups;
//! - [`scale_shift`]: frozen batch normalisation and activation in one pass;
//! - [`batch_norm`]: training batch normalisation and activation, two passes forward and two backward;
//! - [`scale_shift_add`], [`add`]: the end of a residual block, with its activation, in one pass each way;
//! - [`linear`]: a linear layer, the gradient of its weight in the order of the weight;
//! - [`max_pool2d`]: maximum over windows, of which the backward pass keeps one byte per output;
//! - [`adamw_update`], [`moving_average`], [`squared_sum`]: the optimiser's step, the average of parameters and the norm of
//!   gradients in one pass;
//! - [`power_sums`]: sums of powers of differences between rows;
//! - [`unit_rows`], [`gram`], [`log_sum_exp_rows`], [`bounded_sum`], [`safe_root`] and [`softplus`]: what losses do with matrices of
//!   distances, one pass forward and one backward each;
//! - [`gelu`] and [`silu`]: smooth activations, likewise.
//!
//! They apply to `f32` tensors on a Flex device, with or without autodiff. Every other data type and device takes plain
//! Burn operations, as does everything after [`set_implementation`]`(`[`Implementation::Stock`]`)`. Gradients are first
//! order and are computed only for the inputs that autodiff tracks.
//!
//! Results do not depend on the number of threads: work is cut by the shapes alone and partial sums are added in a
//! fixed order. The one exception is a pointwise or small convolution of a single image, whose matrix product may be split over
//! threads.
//!
//! This is the one crate of the workspace that uses `unsafe`: for vector instructions, the matrix product, and tasks
//! that write disjoint parts of one output.

mod convolution;
mod dense;
mod depthwise;
mod direct;
mod extension;
mod geometry;
mod linear;
mod memory;
mod normalization;
mod options;
mod partition;
mod phases;
mod pooling;
mod power_sums;
mod product;
mod residual;
mod rows;
mod simd;
mod stock;
mod strips;
#[cfg(test)]
mod tests;
mod update;
mod winograd;
mod winograd_transforms;

pub use convolution::conv2d;
pub use linear::linear;
pub use memory::keep_large_buffers;
pub use normalization::{batch_norm, scale_shift};
pub use options::{Activation, Conv2dOptions, Implementation, MaxPool2dOptions, implementation, set_implementation};
pub use pooling::max_pool2d;
pub use power_sums::power_sums;
pub use residual::{add, scale_shift_add};
pub use rows::{bounded_sum, gelu, gram, log_sum_exp_rows, safe_root, silu, softplus, unit_rows};
pub use update::{AdamWStep, adamw_update, moving_average, squared_sum};
