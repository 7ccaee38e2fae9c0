//! Why an evaluation could not be made.

/// Why embeddings could not be evaluated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// A set without rows, or without columns.
    #[error(
        "the {what} set is empty ({rows} rows of width {dim}): there is nothing to evaluate; embed at least two images"
    )]
    Empty {
        /// `query` or `gallery`.
        what: &'static str,
        /// Its number of rows.
        rows: usize,
        /// Its width.
        dim: usize,
    },
    /// The parts of a set disagree about the number of rows.
    #[error(
        "the {what} set is inconsistent: {values} values of width {dim}, {labels} labels and {ids} names; expected as many labels \
         and names as rows, and rows x width values"
    )]
    Inconsistent {
        /// `query` or `gallery`.
        what: &'static str,
        /// Number of values.
        values: usize,
        /// Width of a row.
        dim: usize,
        /// Number of labels.
        labels: usize,
        /// Number of names.
        ids: usize,
    },
    /// More rows than a 32-bit index can name.
    #[error("the {what} set has {rows} rows; at most {} are supported", u32::MAX)]
    TooLarge {
        /// `query` or `gallery`.
        what: &'static str,
        /// Its number of rows.
        rows: usize,
    },
    /// A row without a direction.
    #[error(
        "row {row} ({id}) of the {what} set {problem}, so it cannot be compared; an embedding must be finite and, for the cosine, \
         not zero: look at the image and at the model that embedded it"
    )]
    Row {
        /// `query` or `gallery`.
        what: &'static str,
        /// Index of the row.
        row: usize,
        /// Its name.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Queries and gallery come from different models.
    #[error("queries are {queries} wide and the gallery is {gallery} wide: both must come from the same model")]
    Width {
        /// Width of the queries.
        queries: usize,
        /// Width of the gallery.
        gallery: usize,
    },
    /// Rows that could not be read.
    #[error("{0}")]
    Read(#[from] crate::embeddings::EmbeddingFileError),
    /// A setting that cannot be honoured.
    #[error("{0}")]
    Options(String),
    /// A factor table that does not fit the embeddings.
    #[error("{0}")]
    Factors(String),
    /// Every query belongs to a class without another member and `lone-queries = "drop"` dropped them all.
    #[error(
        "none of the {0} queries has another member of its class to find, and lone-queries = \"drop\" leaves no query: evaluate classes \
         with at least two images, or count lone queries as misses"
    )]
    NoQueryLeft(usize),
    /// An eigenvalue decomposition did not converge.
    #[error("the singular values of {0} could not be computed: the decomposition did not converge")]
    Decomposition(String),
}
