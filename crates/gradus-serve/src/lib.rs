//! Image search over HTTP, and a page to look at an embedding space.
//!
//! [`Server::bind`] takes one index, perhaps a second one to compare with, and perhaps an [`Embedder`], which makes vectors of
//! images; [`Server::run`] answers until it is told to stop. No model is known here.
//!
//! | module | what |
//! |---|---|
//! | [`options`] | limits, timeouts, the token |
//! | [`embedder`] | what makes vectors of images |
//! | [`server`] | connections: limits, timeouts, the end |
//! | `routes` | which path is answered where |
//! | `access` | who may ask |
//! | `queue` | how many requests wait, and how long |
//! | `search`, `items`, `pictures`, `status` | the interface |
//! | `explorer` | the page and its data |

mod access;
mod answer;
pub mod embedder;
mod explorer;
mod items;
mod metrics;
pub mod options;
mod pictures;
mod queue;
mod routes;
mod search;
pub mod server;
mod shared;
mod status;

pub use embedder::Embedder;
pub use options::Options;
pub use server::{ServeError, Server};
