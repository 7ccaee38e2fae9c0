//! One file per layout on disk, recognised from the files.

/// How a data set lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One folder per class.
    ImageFolder,
    /// A CSV manifest.
    Csv,
    /// CUB-200-2011.
    Cub,
    /// Cars196.
    Cars196,
    /// Stanford Online Products.
    Sop,
    /// In-Shop Clothes Retrieval.
    InShop,
    /// Omniglot.
    Omniglot,
    /// COIL-20 and COIL-100.
    Coil,
    /// The embedded procedural plants.
    Flora,
}
