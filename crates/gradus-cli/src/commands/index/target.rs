//! An index in a folder, or a collection on a Qdrant server.

use std::collections::HashSet;
use std::path::PathBuf;

use gradus_index::{Address, Answer, Fields, Filter, Index, IndexError, Item, Model, Remote};

use super::open;
use crate::arguments::{Place, Server};
use crate::failure::Failure;

/// Names that are asked for together.
const NAMES_AT_A_TIME: usize = 1000;

/// Where items are stored and searched.
pub(crate) enum Target {
    /// A folder.
    Local(Box<Index>),
    /// A collection on a server.
    Remote(Box<Remote>, String),
}

/// The server that flags name, if they do.
pub(super) fn address(server: &Server) -> Result<Option<Address>, Failure> {
    let Some(url) = &server.url else { return Ok(None) };
    let api_key = match &server.api_key_env {
        None => None,
        Some(variable) => Some(std::env::var(variable).map_err(|_| {
            Failure::new(format!(
                "--api-key-env {variable}: there is no such environment variable, or it is no text"
            ))
        })?),
    };
    Ok(Some(Address {
        url: url.clone(),
        collection: server.collection.clone(),
        api_key,
    }))
}

impl Target {
    pub(crate) fn open(place: &Place) -> Result<Self, Failure> {
        match (address(&place.server)?, &place.index) {
            (Some(address), _) => Ok(Self::Remote(
                Box::new(Remote::open(&address)?),
                format!("{} ({})", address.collection, address.url),
            )),
            (None, Some(path)) => Ok(Self::Local(Box::new(open(path)?))),
            (None, None) => Err(Failure::new("either --index or --url is needed")),
        }
    }

    /// What it is called in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Local(index) => format!("the index {}", index.folder().display()),
            Self::Remote(_, name) => format!("the collection {name}"),
        }
    }

    /// What answers searches.
    pub(crate) fn engine(&self) -> Result<String, IndexError> {
        match self {
            Self::Local(index) => Ok(index.statistics()?.engine.to_string()),
            Self::Remote(..) => Ok("qdrant".to_owned()),
        }
    }

    pub(crate) fn model(&self) -> Option<Model> {
        match self {
            Self::Local(index) => index.model(),
            Self::Remote(remote, _) => remote.model().cloned(),
        }
    }

    pub(crate) fn check_model(&self, found: &Model) -> Result<(), IndexError> {
        match self {
            Self::Local(index) => index.check_model(found),
            Self::Remote(remote, _) => remote.check_model(found),
        }
    }

    pub(crate) fn image_root(&self) -> Option<PathBuf> {
        match self {
            Self::Local(index) => index.image_root(),
            Self::Remote(remote, _) => remote.image_root().map(PathBuf::from),
        }
    }

    pub(crate) fn dimension(&self) -> usize {
        match self {
            Self::Local(index) => index.dimension(),
            Self::Remote(remote, _) => remote.dimension(),
        }
    }

    pub(crate) fn fields(&self) -> Fields {
        match self {
            Self::Local(index) => index.fields(),
            Self::Remote(remote, _) => remote.fields().clone(),
        }
    }

    /// Number that rows without a name start from.
    pub(super) fn first_number(&self) -> Result<u32, IndexError> {
        match self {
            Self::Local(index) => Ok(index.rows()),
            Self::Remote(..) => Ok(self.count()? as u32),
        }
    }

    pub(crate) fn count(&self) -> Result<usize, IndexError> {
        match self {
            Self::Local(index) => Ok(index.len()),
            Self::Remote(remote, _) => Ok(remote.statistics()?.count),
        }
    }

    /// Which of these items are there.
    pub(super) fn present(&self, ids: &[&str]) -> Result<HashSet<String>, IndexError> {
        match self {
            Self::Local(index) => Ok(ids
                .iter()
                .filter(|id| index.contains(id))
                .map(|id| (*id).to_owned())
                .collect()),
            Self::Remote(remote, _) => {
                let mut present = HashSet::new();
                for some in ids.chunks(NAMES_AT_A_TIME) {
                    present.extend(remote.present(some)?);
                }
                Ok(present)
            }
        }
    }

    pub(super) fn declare(&mut self, fields: &Fields) -> Result<(), IndexError> {
        match self {
            Self::Local(index) => index.declare(fields),
            Self::Remote(remote, _) => remote.declare(fields),
        }
    }

    pub(super) fn add(&mut self, items: &[Item], vectors: &[f32]) -> Result<(), IndexError> {
        match self {
            Self::Local(index) => index.add(items, vectors),
            Self::Remote(remote, _) => remote.add(items, vectors),
        }
    }

    pub(super) fn delete(&self, ids: &[&str]) -> Result<usize, IndexError> {
        match self {
            Self::Local(index) => index.delete(ids),
            Self::Remote(remote, _) => remote.delete(ids),
        }
    }

    pub(super) fn delete_matching(&self, filter: &Filter) -> Result<usize, IndexError> {
        match self {
            Self::Local(index) => index.delete_matching(filter),
            Self::Remote(remote, _) => remote.delete_matching(filter),
        }
    }

    /// Brings what changed into the form that is searched fastest; a server does so by itself.
    pub(super) fn optimize(&self) -> Result<(), IndexError> {
        match self {
            Self::Local(index) => index.optimize(),
            Self::Remote(..) => Ok(()),
        }
    }

    pub(crate) fn identify(
        &self,
        query: &[f32],
        k: usize,
        filter: &Filter,
        threshold: Option<f32>,
    ) -> Result<Answer, IndexError> {
        match self {
            Self::Local(index) => index.identify(query, k, filter, threshold),
            Self::Remote(remote, _) => remote.identify(query, k, filter, threshold),
        }
    }
}
