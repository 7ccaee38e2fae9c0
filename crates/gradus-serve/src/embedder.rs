//! What makes vectors of images.

use gradus_core::data::Source;

/// A model, as the server sees it.
pub trait Embedder: Send + Sync {
    /// Numbers of a vector.
    fn dimension(&self) -> usize;

    /// The vector of an image that was decoded already.
    ///
    /// # Errors
    /// A sentence for the operator; whoever asked is told that the search failed.
    fn embed(&self, image: &Source) -> Result<Vec<f32>, String>;
}
