//! What is put into an index: images that a run embeds, or embeddings.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gradus::config::Config;
use gradus::models::Embedder;
use gradus::train::embed::{Images, embed_batches};
use gradus::train::prepare;
use gradus_core::data::{Item as Image, Source, layouts};
use gradus_core::embeddings::{NpyRows, parts, read_companion, read_labels, read_rows, read_table};
use gradus_index::{Item, Model};

use super::payload::Payload;
use crate::arguments::IndexInput;
use crate::commands::trained::{load_embedder, model_of, stored_layers};
use crate::failure::Failure;
use crate::output;
use crate::progress::ProgressInParts;

/// Images that are looked at together for broken ones.
const IMAGES_AT_A_TIME: usize = 4096;
/// Names that belong to the arrangement of a data set, not to a class.
const ARRANGEMENT: [&str; 6] = ["images", "train", "test", "val", "query", "gallery"];

/// Where items and their vectors come from.
pub(super) enum Input {
    /// A folder of images and the run that embeds them.
    Images(Box<ImageInput>),
    /// Embeddings from a file.
    Embeddings(EmbeddingInput),
}

pub(super) struct ImageInput {
    config: Config,
    run: PathBuf,
    pub(super) model: Model,
    pub(super) root: PathBuf,
    images: Arc<[Image]>,
    items: Vec<Item>,
    embedder: Embedder,
}

pub(super) struct EmbeddingInput {
    rows: Stored,
    pub(super) dimension: usize,
    items: Vec<Item>,
    pub(super) root: Option<PathBuf>,
    /// Rows without a name are called by their number.
    nameless: bool,
    path: PathBuf,
}

enum Stored {
    Memory(Vec<f32>),
    File(NpyRows),
    /// A folder of Parquet parts, of which one at a time is in memory.
    Parts,
}

/// What putting it in came to.
#[derive(Debug, Default)]
pub(super) struct Entered {
    pub(super) added: usize,
    pub(super) skipped: usize,
    pub(super) bad: usize,
    /// Items that the payload table knows.
    pub(super) described: usize,
}

impl Input {
    pub(super) fn open(arguments: &IndexInput, run: Option<&Path>) -> Result<Self, Failure> {
        match (&arguments.embeddings, run, &arguments.images) {
            (Some(path), _, root) => {
                EmbeddingInput::open(path, arguments.labels.as_deref(), root.as_deref()).map(Self::Embeddings)
            }
            (None, Some(run), Some(folder)) => {
                ImageInput::open(run, folder, arguments.device.as_deref()).map(|input| Self::Images(Box::new(input)))
            }
            (None, ..) => Err(Failure::new("either --images with --run, or --embeddings, are needed")),
        }
    }

    pub(super) fn dimension(&self) -> usize {
        match self {
            Self::Images(input) => input.embedder.dim(),
            Self::Embeddings(input) => input.dimension,
        }
    }

    pub(super) fn model(&self) -> Option<&Model> {
        match self {
            Self::Images(input) => Some(&input.model),
            Self::Embeddings(_) => None,
        }
    }

    pub(super) fn root(&self) -> Option<&PathBuf> {
        match self {
            Self::Images(input) => Some(&input.root),
            Self::Embeddings(input) => input.root.as_ref(),
        }
    }

    /// What is indexed, so that only a build of the same goes on.
    pub(super) fn source(&self, payload: Option<&Path>) -> String {
        let (path, items) = match self {
            Self::Images(input) => (&input.root, &input.items),
            Self::Embeddings(input) => (&input.path, &input.items),
        };
        let names: Vec<u8> = items
            .iter()
            .flat_map(|item| [item.id.as_bytes(), b"\n"].concat())
            .collect();
        let table = payload.and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let digest = Model::of("", &[&names, &table]).fingerprint;
        format!("{} ({} items, {digest})", path.display(), items.len())
    }

    /// Names of the items.
    pub(super) fn names(&self) -> Vec<String> {
        let items = match self {
            Self::Images(input) => &input.items,
            Self::Embeddings(input) => &input.items,
        };
        items.iter().map(|item| item.id.clone()).collect()
    }

    /// Names rows without a name from `first` on, so that added ones do not meet those that are there.
    pub(super) fn number_from(&mut self, first: u32) {
        if let Self::Embeddings(input) = self
            && input.nameless
        {
            for (row, item) in input.items.iter_mut().enumerate() {
                item.id = (first as usize + row).to_string();
            }
        }
    }

    /// Hands items with their vectors to `store`, `batch` at a time, but those that `contains` knows.
    pub(super) fn enter(
        &mut self,
        arguments: &IndexInput,
        payload: &Payload,
        contains: &dyn Fn(&str) -> bool,
        store: Store<'_>,
    ) -> Result<Entered, Failure> {
        let mut entered = Entered::default();
        let items = match self {
            Self::Images(input) => &mut input.items,
            Self::Embeddings(input) => &mut input.items,
        };
        for item in items.iter_mut() {
            entered.described += usize::from(payload.apply(item));
        }
        let new: Vec<usize> = (0..items.len()).filter(|&place| !contains(&items[place].id)).collect();
        entered.skipped = items.len() - new.len();
        let mut batch = Batch {
            size: arguments.batch as usize,
            items: Vec::new(),
            vectors: Vec::new(),
            stored: 0,
            store,
        };
        match self {
            Self::Images(input) => entered.bad = input.embed(&new, arguments, &mut batch)?,
            Self::Embeddings(input) => input.read(&new, &mut batch)?,
        }
        batch.flush()?;
        entered.added = batch.stored;
        Ok(entered)
    }
}

/// Takes items with their vectors, one after the other.
type Store<'a> = &'a mut dyn FnMut(&[Item], &[f32]) -> Result<(), Failure>;

/// Collects what is stored together.
struct Batch<'a> {
    size: usize,
    items: Vec<Item>,
    vectors: Vec<f32>,
    stored: usize,
    store: Store<'a>,
}

impl Batch<'_> {
    fn push(&mut self, item: Item, vector: &[f32]) -> Result<(), Failure> {
        self.items.push(item);
        self.vectors.extend_from_slice(vector);
        if self.items.len() >= self.size {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), Failure> {
        if !self.items.is_empty() {
            (self.store)(&self.items, &self.vectors)?;
            self.stored += self.items.len();
            self.items.clear();
            self.vectors.clear();
        }
        Ok(())
    }
}

impl ImageInput {
    fn open(run: &Path, folder: &Path, device: Option<&str>) -> Result<Self, Failure> {
        let mut layers = stored_layers(run)?;
        if let Some(device) = device {
            layers.insert("device", device);
        }
        let config = layers.resolve()?;
        let model = model_of(run, &config)?;
        let (images, _) = layouts::list_images(folder)?;
        let root = std::fs::canonicalize(folder)?;
        let classes = class_names(folder);
        let items = images
            .iter()
            .map(|image| {
                let Source::File(path) = &image.source else {
                    return Item::new(image.source.name());
                };
                let relative = relative(path, folder);
                Item {
                    class: classes.get(path).cloned().or_else(|| class_of(&relative)),
                    image: Some(relative.clone()),
                    ..Item::new(relative)
                }
            })
            .collect();
        let (embedder, _) = load_embedder(run, &config)?;
        Ok(Self {
            config,
            run: run.to_owned(),
            model,
            root,
            images: images.into(),
            items,
            embedder,
        })
    }

    /// Embeds the images at `places`; returns how many were broken.
    fn embed(&mut self, places: &[usize], arguments: &IndexInput, batch: &mut Batch<'_>) -> Result<usize, Failure> {
        let images = Images::new(&self.config, &self.images, &prepare::no_cache())?;
        let dimension = self.embedder.dim();
        let mut progress = ProgressInParts::new(places.len());
        let mut bad_images = 0;
        for some in places.chunks(IMAGES_AT_A_TIME) {
            let bad = prepare::bad_images(&self.images, some, 1.0)?;
            for (_, message) in bad.iter().take(10_usize.saturating_sub(bad_images)) {
                output::note(&format!("left out: {message}"));
            }
            bad_images += bad.len();
            let good: Vec<usize> = some
                .iter()
                .copied()
                .filter(|place| bad.iter().all(|(item, _)| item != place))
                .collect();
            let items = &self.items;
            embed_batches(
                &self.embedder,
                &images,
                &good,
                "embedding",
                &mut progress,
                |shown, rows| {
                    for (&place, row) in shown.iter().zip(rows.chunks_exact(dimension)) {
                        batch.push(items[place].clone(), row)?;
                    }
                    Ok::<(), Failure>(())
                },
            )?;
            progress.done(some.len());
        }
        let share = bad_images as f64 / places.len().max(1) as f64;
        if share > arguments.max_bad_images {
            return Err(Failure::new(format!(
                "{bad_images} of {} images are broken, more than --max-bad-images {} tolerates: repair or remove them, or tolerate more; what \
                 was embedded is kept, and the same command goes on (run {})",
                places.len(),
                arguments.max_bad_images,
                self.run.display()
            )));
        }
        Ok(bad_images)
    }
}

impl EmbeddingInput {
    fn open(path: &Path, labels: Option<&Path>, root: Option<&Path>) -> Result<Self, Failure> {
        let is_npy = path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("npy"));
        let given = labels.map(read_labels).transpose()?;
        let (rows, dimension, len, mut names, labels) = if path.is_dir() {
            let (mut dimension, mut names, mut own) = (0, Vec::new(), Vec::new());
            parts::each(path, |part| {
                dimension = part.dim;
                names.extend(part.ids);
                own.extend(part.labels);
                Ok::<(), Failure>(())
            })?;
            (Stored::Parts, dimension, own.len(), Some(names), given.or(Some(own)))
        } else if is_npy {
            let rows = NpyRows::open(path)?;
            let (names, own) = read_companion(path)?.unzip();
            (
                Stored::File(NpyRows::open(path)?),
                rows.dim(),
                rows.len(),
                names,
                given.or(own),
            )
        } else {
            let table = if given.is_some() {
                read_rows(path)?
            } else {
                read_table(path, None)?
            };
            let own = table
                .labels
                .as_ref()
                .and_then(|labels| Some(labels.classes()?.to_vec()));
            let len = table.values.len() / table.dim.max(1);
            (Stored::Memory(table.values), table.dim, len, table.ids, given.or(own))
        };
        for (what, found) in [
            ("labels", labels.as_ref().map(Vec::len)),
            ("names", names.as_ref().map(Vec::len)),
        ] {
            if let Some(found) = found.filter(|found| *found != len) {
                return Err(Failure::new(format!(
                    "{} holds {len} embeddings, but there are {found} {what}: one for each embedding is needed, in the same order",
                    path.display()
                )));
            }
        }
        let nameless = names.is_none();
        let items = (0..len)
            .map(|row| {
                let name = names
                    .as_mut()
                    .map_or_else(|| row.to_string(), |names| std::mem::take(&mut names[row]));
                let inside = root.and_then(|root| {
                    let path = Path::new(&name);
                    let canonical = || {
                        Some(
                            path.canonicalize()
                                .ok()?
                                .strip_prefix(root.canonicalize().ok()?)
                                .ok()?
                                .to_owned(),
                        )
                    };
                    let inside = path.strip_prefix(root).ok().map(Path::to_owned).or_else(canonical);
                    let inside = inside.or_else(|| root.join(path).is_file().then(|| path.to_owned()))?;
                    Some(with_slashes(&inside))
                });
                let folder = inside.as_deref().and_then(class_of);
                Item {
                    class: folder.or_else(|| Some(labels.as_ref()?[row].to_string())),
                    image: inside.clone(),
                    ..Item::new(inside.unwrap_or(name))
                }
            })
            .collect();
        Ok(Self {
            rows,
            dimension,
            items,
            root: root.map(std::fs::canonicalize).transpose()?,
            nameless,
            path: std::fs::canonicalize(path)?,
        })
    }

    fn read(&self, places: &[usize], batch: &mut Batch<'_>) -> Result<(), Failure> {
        let mut values = Vec::new();
        if matches!(self.rows, Stored::Parts) {
            let (mut first, mut places) = (0, places.iter().copied().peekable());
            return parts::each(&self.path, |part| {
                while let Some(place) = places.next_if(|&place| place < first + part.len()) {
                    let row = part.row(place - first);
                    batch.push(self.items[place].clone(), row)?;
                }
                first += part.len();
                Ok::<(), Failure>(())
            });
        }
        for &place in places {
            let row = match &self.rows {
                Stored::Parts => continue,
                Stored::Memory(values) => &values[place * self.dimension..(place + 1) * self.dimension],
                Stored::File(rows) => {
                    rows.read(place..place + 1, &mut values)?;
                    &values
                }
            };
            batch.push(self.items[place].clone(), row)?;
        }
        Ok(())
    }
}

/// The class of every image by its path, where the folder is a data set whose layout is known.
fn class_names(folder: &Path) -> HashMap<PathBuf, String> {
    let Ok(dataset) = layouts::read(folder, None) else {
        return HashMap::new();
    };
    let classes = &dataset.classes;
    let named = dataset.items.iter().filter_map(|item| match &item.source {
        Source::File(path) => Some((path.clone(), classes.get(item.class as usize)?.name.clone())),
        _ => None,
    });
    named.collect()
}

/// The class a path says: the first folder that is not part of the arrangement.
fn class_of(relative: &str) -> Option<String> {
    let (folders, _) = relative.rsplit_once('/')?;
    let class = folders.split('/').find(|folder| !ARRANGEMENT.contains(folder))?;
    Some(class.to_owned())
}

fn relative(path: &Path, root: &Path) -> String {
    with_slashes(path.strip_prefix(root).unwrap_or(path))
}

fn with_slashes(path: &Path) -> String {
    let parts: Vec<String> = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_the_first_folder_that_means_something() {
        assert_eq!(class_of("cat/a.jpg").as_deref(), Some("cat"));
        assert_eq!(class_of("images/cat/poses/a.jpg").as_deref(), Some("cat"));
        assert_eq!(class_of("train/cat/a.jpg").as_deref(), Some("cat"));
        assert_eq!(class_of("images/a.jpg"), None);
        assert_eq!(class_of("a.jpg"), None);
    }
}
