//! What is done to embeddings or to ranked lists after the model, without labels: rows → rows, or lists → lists.
//!
//! | | what | source |
//! |---|---|---|
//! | [`Whitening`] | directions of equal variance, fitted on training embeddings | Jégou and Chum 2012 |
//! | [`query_expansion`] | a query joins its nearest rows, weighted by similarity | Radenović et al. 2018 |
//! | [`database_augmentation`] | every row of the gallery does | Turcot and Lowe 2009; Arandjelović and Zisserman 2012 |
//! | [`k_reciprocal`] | lists ordered by shared reciprocal neighbours | Zhong et al. 2017 |
//!
//! [`effect`] measures what each does to the retrieval metrics. To add one: one file, one row here, one [`Step`].

mod effects;
mod expansion;
mod k_reciprocal;
mod whitening;

pub use effects::{Step, effect};
pub use expansion::{ExpansionOptions, database_augmentation, query_expansion};
pub use k_reciprocal::{KReciprocalOptions, Reranked, k_reciprocal};
pub use whitening::{Whitening, WhiteningOptions};

use crate::EmbeddingSet;
use crate::evaluation::{EvaluationError, UnitRows};
use crate::projection::ProjectionError;

/// Why embeddings could not be post-processed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostProcessingError {
    /// Sets that are empty, inconsistent, of different widths or not finite.
    #[error(transparent)]
    Rows(#[from] EvaluationError),
    /// Principal components that could not be fitted or applied.
    #[error(transparent)]
    Projection(#[from] ProjectionError),
    /// A setting that cannot be honoured.
    #[error("{0}")]
    Options(String),
}

/// Rows at unit length, in the order of the set.
fn unit_rows(set: &EmbeddingSet, what: &'static str) -> Result<Vec<f32>, PostProcessingError> {
    let rows = UnitRows::new(set, what)?;
    let mut values = vec![0.0; set.values.len()];
    for (position, &index) in rows.order().iter().enumerate() {
        let at = index as usize * set.dim;
        values[at..at + set.dim].copy_from_slice(rows.row(position));
    }
    Ok(values)
}
