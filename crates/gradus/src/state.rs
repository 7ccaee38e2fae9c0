//! Named host copies of parameters: what checkpoints and weight files hold.

/// A named array on the host.
///
/// # Shapes
/// `values` is row-major with as many entries as the product of `shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedArray {
    /// Dotted path, for example `trunk.layer1.0.conv1.weight`.
    pub name: String,
    /// Extent of each axis.
    pub shape: Vec<usize>,
    /// All values.
    pub values: Vec<f32>,
}
