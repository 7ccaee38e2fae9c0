//! What `gradus --version` says.

use std::sync::LazyLock;

/// The features of the program, and whether they were compiled in.
const FEATURES: [(&str, bool); 5] = [
    ("onnx", cfg!(feature = "onnx")),
    ("onnxruntime", cfg!(feature = "onnxruntime")),
    ("qdrant-edge", cfg!(feature = "qdrant-edge")),
    ("cuda", cfg!(feature = "cuda")),
    ("wgpu", cfg!(feature = "wgpu")),
];

/// The version with the features that were compiled in (+) or left out (-).
pub(crate) fn long() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let features: Vec<String> = FEATURES
            .iter()
            .map(|(name, present)| format!("{}{name}", if *present { '+' } else { '-' }))
            .collect();
        format!("{}\nfeatures: {}", env!("CARGO_PKG_VERSION"), features.join(" "))
    });
    &TEXT
}
