//! What every layout is read into: items with a source, a class, a part and known factors.

use std::path::PathBuf;
use std::sync::Arc;

use super::layouts::Layout;

/// A data set as read from its files (or drawn): nothing is decoded yet.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// How its files are laid out.
    pub layout: Layout,
    /// Where it was read from.
    pub root: PathBuf,
    /// All items, in the order of the official list, or sorted by path.
    pub items: Vec<Item>,
    /// All classes, in official order; [`Item::class`] indexes this list.
    pub classes: Vec<Class>,
    /// Known continuous factors; [`Item::factors`] has one value for each.
    pub factors: Vec<Factor>,
    /// Sentences for the user: how counts differ from the published ones and why.
    pub notes: Vec<String>,
}

/// One image of a data set.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where its pixels come from.
    pub source: Source,
    /// Index into [`Dataset::classes`].
    pub class: u32,
    /// Which part of the official protocol it belongs to.
    pub part: Part,
    /// Value of each of [`Dataset::factors`]; empty when the data set has none.
    pub factors: Vec<f32>,
}

/// Where the pixels of an item come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// An image file.
    File(PathBuf),
    /// An encoded image held in memory (a member of an archive).
    Encoded {
        /// Path inside the archive.
        name: String,
        /// The encoded bytes.
        bytes: Arc<[u8]>,
    },
    /// Pixels drawn by gradus itself.
    Drawn {
        /// Name the image would have as a file.
        name: String,
        /// The pixels.
        pixels: Arc<image::RgbImage>,
    },
    /// Another source turned clockwise.
    Turned {
        /// What is turned.
        source: Arc<Source>,
        /// By how many quarter turns, 1 to 3.
        quarters: u8,
    },
    /// No image at all, but a vector that another model made of one.
    Vector {
        /// Name of the row, usually the path of the image.
        name: String,
        /// All vectors.
        vectors: Arc<Vectors>,
        /// Which of them.
        row: usize,
    },
}

/// Vectors that another model made.
///
/// # Shapes
/// `values` is row-major `[rows, dim]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Vectors {
    /// Width of one vector.
    pub dim: usize,
    /// All of them, one after the other.
    pub values: Vec<f32>,
}

impl Source {
    /// The name shown to users and stored with embeddings.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Encoded { name, .. } | Self::Drawn { name, .. } | Self::Vector { name, .. } => name.clone(),
            Self::Turned { source, quarters } => {
                format!("{} turned by {} degrees", source.name(), u32::from(*quarters) * 90)
            }
        }
    }

    /// The vector that stands for the image, where another model made one.
    #[must_use]
    pub fn vector(&self) -> Option<&[f32]> {
        match self {
            Self::Vector { vectors, row, .. } => Some(&vectors.values[row * vectors.dim..(row + 1) * vectors.dim]),
            _ => None,
        }
    }
}

impl Dataset {
    /// The width of its vectors, if its items are vectors that another model made.
    #[must_use]
    pub fn vector_width(&self) -> Option<usize> {
        self.items.first()?.source.vector().map(<[f32]>::len)
    }
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its name.
    pub name: String,
    /// Its official number (usually from 1), what `--train-classes 1-98` selects by.
    pub number: u32,
    /// Its coarse class (super class, alphabet, genus), if the data set has one.
    pub coarse: Option<String>,
}

/// Which part of the official protocol an item belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// Not assigned by an official list: the split is made by classes.
    Unassigned,
    /// Official training image.
    Train,
    /// Official test image that is query and gallery at once.
    Test,
    /// Official test query.
    Query,
    /// Official test gallery image.
    Gallery,
}

/// A known continuous factor of variation inside classes.
#[derive(Clone, Debug, PartialEq)]
pub struct Factor {
    /// Its name, for example `rotation`.
    pub name: String,
    /// The period of a circular factor in its own unit (360 for degrees); `None` for a plain one.
    pub period: Option<f32>,
}

/// Why a data set could not be read or split.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file or folder that must be there is not.
    #[error("{what} not found: expected it at {path}")]
    Missing {
        /// What was looked for.
        what: String,
        /// Where.
        path: PathBuf,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// What was expected and what was found, with the line if there is one.
        problem: String,
    },
    /// The data cannot be used as asked (empty, one class, unknown class numbers, too many broken images …).
    #[error("{0}")]
    Unusable(String),
}
