//! Image search over embeddings: what a trained model is used for.
//!
//! An [`Index`] is a folder. Vectors, items and deletions are append-only files whose committed lengths stand in `index.toml`; an
//! engine ([`VectorIndex`]) answers searches and can be made anew from them at any time. `index.toml` is replaced by renaming, so
//! a process killed at any moment leaves the index before or after its last batch.
//!
//! | module | what |
//! |---|---|
//! | [`index`] | the index folder: create, open, add, delete, search |
//! | [`engine`] | what answers searches: exact (`flat`) or approximate (`qdrant-edge`) |
//! | [`item`] | what is found: an image with its class and payload |
//! | [`filter`] | which items may be found |
//! | `remote` | the same on a Qdrant server (feature `remote`) |
//! | [`calibration`] | thresholds that tell a match from an unknown |
//!
//! ```
//! use gradus_index::{EngineKind, Filter, Index, Item, Settings};
//!
//! let folder = tempfile::tempdir()?;
//! let builder = Index::create(&folder.path().join("index"), Settings::new(EngineKind::Flat, 2))?;
//! builder.add(&[Item::new("a"), Item::new("b")], &[1.0, 0.0, 0.0, 1.0])?;
//! let index = builder.finish()?;
//! let hits = index.search(&[0.9, 0.1], 1, &Filter::default(), None)?;
//! assert_eq!(hits[0].id, "a");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod calibration;
pub mod engine;
mod error;
pub mod filter;
pub mod index;
pub mod item;
mod log;
mod manifest;
#[cfg(feature = "remote")]
pub mod remote;
mod vectors;

pub use calibration::{Calibration, HeldOut, Rule, Thresholds, Trial, calibrate};
pub use engine::{EngineKind, EngineStatistics, Neighbor, VectorIndex};
pub use error::IndexError;
pub use filter::{Filter, Scalar};
pub use index::{Answer, Hit, Index, IndexBuilder, Settings, Statistics};
pub use item::{FieldKind, Fields, Item};
pub use manifest::Model;
#[cfg(feature = "remote")]
pub use remote::{Address, Remote, RemoteStatistics};
