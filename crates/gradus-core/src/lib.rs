//! The part of gradus without tensors: data sets, transforms, samplers, embeddings on the host and their evaluation.
//!
//! Data flows one way: [`data`] (files → images → host batches) is ordered by [`samplers`]; whatever embeds the
//! batches hands back an [`EmbeddingSet`], which [`evaluation`] measures.
//!
//! | module | what |
//! |---|---|
//! | [`data`] | layouts of the benchmarks, class-disjoint splits, decoding, augmentation, the parallel loader, `flora` |
//! | [`samplers`] | which items meet in a batch |
//! | [`embeddings`] | embeddings with labels on the host, read and written |
//! | [`evaluation`] | Recall@K, MAP@R, R-precision and the structure inside classes |
//! | [`post_processing`] | query expansion, database augmentation, whitening, re-ranking |
//! | [`projection`] | principal components |
//! | [`embedding_map`] | embeddings as points of the plane |
//! | [`distances`] | distances and similarities of embeddings |
//! | [`miners`] | which pairs or triplets of a batch a loss looks at |
//! | [`relations`] | what two items are to each other: same, different, ignore, weighted |
//! | [`random`] | seeded random streams, a pure function of (seed, purpose, epoch, item) |
//! | [`statistics`] | means and paired differences with intervals over seeds and test classes |
//! | [`files`] | atomic writing |

pub mod data;
pub mod distances;
pub mod embedding_map;
pub mod embeddings;
pub mod evaluation;
pub mod files;
pub mod miners;
pub mod post_processing;
pub mod projection;
pub mod random;
pub mod relations;
pub mod samplers;
pub mod settings;
pub mod statistics;
mod vectorized;

pub use embeddings::EmbeddingSet;
