//! One file per layout on disk, recognised from the files.
//!
//! A layout is one file with a `LayoutReader` and one line in `READERS`; nothing else lists layouts.
//! Reading looks at lists and folders only: no image is decoded, and lists are read although the images are absent.

mod archive;
mod assemble;
mod cars196;
mod coil;
mod csv;
mod cub;
mod embeddings;
mod image_folder;
mod in_shop;
mod mat;
mod omniglot;
mod published;
mod scan;
mod sop;
mod unlabelled;

pub use embeddings::{list_vectors, read_vectors};
pub use unlabelled::list_images;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::dataset::{DataError, Dataset};

pub(super) use published::thousands;

/// How a data set lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// One folder per class.
    ImageFolder,
    /// A CSV manifest.
    Csv,
    /// CUB-200-2011.
    Cub,
    /// Cars196.
    Cars196,
    /// Stanford Online Products.
    Sop,
    /// In-Shop Clothes Retrieval.
    InShop,
    /// Omniglot.
    Omniglot,
    /// COIL-20 and COIL-100.
    Coil,
    /// Vectors that another model made, in an array file.
    Embeddings,
    /// The embedded procedural plants.
    Flora,
}

/// Reads one layout.
trait LayoutReader: Sync {
    /// Which layout this is.
    fn layout(&self) -> Layout;
    /// One line for lists: what the files look like.
    fn describe(&self) -> &'static str;
    /// Whether the files at `path` look like this layout; must be quick and must not fail.
    fn recognise(&self, path: &Path) -> bool;
    /// How little `recognise` asks for: of several layouts that recognise a path the least general one is taken.
    fn generality(&self) -> u8 {
        0
    }
    /// Reads the lists and folders.
    fn read(&self, path: &Path) -> Result<Dataset, DataError>;
}

/// Every reader, sorted by name.
static READERS: &[&dyn LayoutReader] = &[
    &cars196::Cars196,
    &coil::Coil,
    &csv::Csv,
    &cub::Cub,
    &embeddings::Embeddings,
    &image_folder::ImageFolder,
    &in_shop::InShop,
    &omniglot::Omniglot,
    &sop::Sop,
];

const FLORA: &str = "the embedded procedural plants: drawn, not read (a generated folder is read by its factors.csv)";

impl Layout {
    /// The name used on the command line and in files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ImageFolder => "image-folder",
            Self::Csv => "csv",
            Self::Cub => "cub",
            Self::Cars196 => "cars196",
            Self::Sop => "sop",
            Self::InShop => "in-shop",
            Self::Omniglot => "omniglot",
            Self::Coil => "coil",
            Self::Embeddings => "embeddings",
            Self::Flora => "flora",
        }
    }

    /// Every layout with a one-line description of its files, sorted by name.
    #[must_use]
    pub fn all() -> Vec<(Self, &'static str)> {
        let mut all: Vec<_> = READERS
            .iter()
            .map(|reader| (reader.layout(), reader.describe()))
            .collect();
        all.push((Self::Flora, FLORA));
        all.sort_by_key(|(layout, _)| layout.name());
        all
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Parses a layout's name; also the names people use for the benchmarks (`cub-200-2011`, `inshop`, `folder` …).
///
/// ```
/// use gradus_core::data::Layout;
/// assert_eq!("in-shop".parse::<Layout>().ok(), Some(Layout::InShop));
/// assert!("cubb".parse::<Layout>().unwrap_err().to_string().contains("did you mean `cub`"));
/// ```
impl FromStr for Layout {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self, DataError> {
        let wanted = text.trim().to_ascii_lowercase().replace('_', "-");
        let all = Self::all();
        if let Some((layout, _)) = all.iter().find(|(layout, _)| layout.name() == wanted) {
            return Ok(*layout);
        }
        match wanted.as_str() {
            "folder" | "imagefolder" | "folders" => return Ok(Self::ImageFolder),
            "manifest" | "oml" => return Ok(Self::Csv),
            "cub200" | "cub-200" | "cub-200-2011" | "cub200-2011" => return Ok(Self::Cub),
            "cars" | "cars-196" | "stanford-cars" => return Ok(Self::Cars196),
            "stanford-online-products" | "online-products" => return Ok(Self::Sop),
            "inshop" | "deepfashion" => return Ok(Self::InShop),
            "coil-20" | "coil20" | "coil-100" | "coil100" => return Ok(Self::Coil),
            _ => {}
        }
        let names: Vec<&str> = all.iter().map(|(layout, _)| layout.name()).collect();
        let nearest = names
            .iter()
            .map(|name| (strsim::damerau_levenshtein(name, &wanted), *name))
            .min()
            .filter(|(distance, name)| *distance <= 1 + name.len() / 3);
        let hint = nearest.map_or_else(|| ".".to_owned(), |(_, name)| format!("; did you mean `{name}`?"));
        Err(DataError::Unusable(format!(
            "unknown layout `{text}`{hint} Known layouts: {}.",
            names.join(", ")
        )))
    }
}

/// Reads a data set; the layout is recognised from the files unless it is given.
///
/// # Errors
/// A missing path, an unknown or ambiguous layout, an empty folder, and lists that are damaged (with the line).
pub fn read(path: &Path, layout: Option<Layout>) -> Result<Dataset, DataError> {
    if std::fs::metadata(path).is_err() {
        return Err(DataError::Missing {
            what: "the data set (a folder, a .csv manifest or an archive of Omniglot; check the spelling)".to_owned(),
            path: path.to_owned(),
        });
    }
    if let Some(layout) = layout {
        // A generated flora is a manifest like any other.
        let wanted = if layout == Layout::Flora { Layout::Csv } else { layout };
        let reader = READERS.iter().find(|reader| reader.layout() == wanted);
        return reader.map_or_else(|| Err(unrecognised(path)), |reader| reader.read(path));
    }
    let candidates: Vec<_> = READERS.iter().filter(|reader| reader.recognise(path)).collect();
    let Some(least) = candidates.iter().map(|reader| reader.generality()).min() else {
        return Err(unrecognised(path));
    };
    let best: Vec<_> = candidates
        .into_iter()
        .filter(|reader| reader.generality() == least)
        .collect();
    match best.as_slice() {
        [reader] => reader.read(path),
        several => {
            let names: Vec<&str> = several.iter().map(|reader| reader.layout().name()).collect();
            Err(DataError::Malformed {
                path: path.to_owned(),
                problem: format!(
                    "the files look like more than one layout ({}); say which with --layout, or give the folder of one \
                     data set",
                    names.join(", ")
                ),
            })
        }
    }
}

/// Reads a data set given as one or more paths: several are the archives or folders of Omniglot's two parts.
///
/// # Errors
/// As [`read`]; and several paths of any other layout.
pub fn read_several(paths: &[PathBuf], layout: Option<Layout>) -> Result<Dataset, DataError> {
    match paths {
        [] => Err(DataError::Unusable(
            "no data set was given: name a folder, a .csv manifest or an archive".to_owned(),
        )),
        [path] => read(path, layout),
        several => {
            let other = layout.is_some_and(|layout| layout != Layout::Omniglot);
            let reader: &dyn LayoutReader = &omniglot::Omniglot;
            if let Some(path) = several.iter().find(|path| other || !reader.recognise(path)) {
                return Err(DataError::Unusable(format!(
                    "{} paths were given, among them {}: only the two parts of Omniglot can be read from several paths; \
                     give one folder, or list the images of both in one CSV manifest",
                    several.len(),
                    path.display()
                )));
            }
            omniglot::read_parts(several)
        }
    }
}

/// The error for files no reader knows: what is there, what would be known, what to do.
fn unrecognised(path: &Path) -> DataError {
    let hint = "Expected one sub-folder per class with images in it, a .csv manifest with the columns path and label, or \
                one of the benchmarks (see `gradus list datasets`); name the layout with --layout if it is one of them";
    let problem = if path.is_dir() {
        match scan::entries(path) {
            Err(error) => return error,
            Ok(entries) if entries.is_empty() => format!("the folder is empty. {hint}"),
            Ok(entries) => {
                let loose = entries
                    .iter()
                    .filter(|entry| !entry.is_folder && scan::is_image(&entry.path))
                    .count();
                if loose > 0 {
                    format!(
                        "{} images lie directly in this folder, so they have no class. {hint}",
                        thousands(loose)
                    )
                } else {
                    let found: Vec<String> = entries
                        .iter()
                        .take(6)
                        .map(|entry| entry.name.to_string_lossy().into_owned())
                        .collect();
                    let more = if entries.len() > 6 { " …" } else { "" };
                    format!(
                        "no known layout was recognised; found {}{more}. {hint}",
                        found.join(", ")
                    )
                }
            }
        }
    } else {
        format!(
            "this file is neither a .csv manifest nor an archive of Omniglot; give the folder of the data set. {hint}"
        )
    };
    DataError::Malformed {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
pub(super) mod tests;
