//! What all requests share.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use gradus_index::Index;

use crate::embedder::Embedder;
use crate::explorer::Explorer;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::pictures::Thumbnails;
use crate::queue::Queue;

/// An index with its name and its pictures.
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) index: Index,
    /// Folder of the pictures, resolved; nothing outside it is ever read.
    pub(crate) root: Option<PathBuf>,
}

/// What all requests share.
pub(crate) struct Inside {
    pub(crate) options: Options,
    /// The index that is searched, and perhaps one to compare with.
    pub(crate) indexes: Vec<Served>,
    pub(crate) embedder: Option<Box<dyn Embedder>>,
    pub(crate) queue: Queue,
    pub(crate) pictures: Queue,
    pub(crate) thumbnails: Thumbnails,
    pub(crate) metrics: Metrics,
    pub(crate) explorer: Explorer,
    /// Whether the address is one of this machine only.
    pub(crate) only_this_machine: bool,
    /// Raised when the server is about to end.
    pub(crate) ending: AtomicBool,
}

pub(crate) type Shared = Arc<Inside>;
