//! The only file that names a backend: which device computes.

pub use crate::tensor::Device;

/// Where to compute, as written by the user: `auto`, `cpu`, `cuda`, `cuda:1`, `wgpu`, `wgpu:0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first GPU a backend was compiled in for, else the processor.
    #[default]
    Auto,
    /// The processor, with Burn's Flex backend and gradus' kernels.
    Cpu,
    /// An NVIDIA GPU, by number (cargo feature `cuda`).
    Cuda(usize),
    /// A GPU through wgpu, by number (cargo feature `wgpu`).
    Wgpu(usize),
}
