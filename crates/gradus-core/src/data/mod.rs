//! Data sets: layouts on disk → a [`Dataset`] of records → a class-disjoint [`Split`] → decoded, augmented host batches.

pub mod cache;
pub mod dataset;
pub mod fingerprint;
pub mod flora;
pub mod image;
pub mod inspect;
pub mod layouts;
pub mod loader;
pub mod split;
mod thumbnail;
pub mod transform;
pub mod turns;

pub use dataset::{Class, DataError, Dataset, Factor, Item, Part, Source, Vectors};
pub use layouts::Layout;
pub use split::{ClassSelection, Split, SplitOptions};
pub use thumbnail::thumbnail;
