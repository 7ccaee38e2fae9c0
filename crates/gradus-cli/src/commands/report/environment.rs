//! Where a report was made.

use gradus::device::compiled_backends;
use gradus::kernels;

/// Names and values.
pub(super) fn rows() -> Vec<Vec<String>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let features = kernels::processor_features();
    let features = if features.is_empty() {
        "none".to_owned()
    } else {
        features.join(", ")
    };
    [
        ("gradus", env!("CARGO_PKG_VERSION").to_owned()),
        ("built with", compiled_backends().join(", ")),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("cores", cores.to_string()),
        ("processor features used", features),
    ]
    .into_iter()
    .map(|(name, value)| vec![name.to_owned(), value])
    .collect()
}
