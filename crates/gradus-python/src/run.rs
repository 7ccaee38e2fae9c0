//! A trained run that embeds.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gradus::config::Config;
use gradus::models::Embedder;
use gradus::train::embed::{Images, Output, embed, embed_batches};
use gradus::train::trained::{load_embedder, stored_layers};
use gradus::train::{RunFolder, Silent, TrainError, prepare};
use gradus_core::data::{Item, Part, Source, Vectors, layouts};
use pyo3::exceptions::PyFileNotFoundError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

use crate::arrays::{self, Matrix};
use crate::failures::{absolute, detached, failed, of_config, of_training, refused};
use crate::values::{serialized, to_python};

/// A trained run: `gradus.load(folder)`.
#[pyclass(frozen, module = "gradus._gradus")]
#[derive(Debug)]
pub(crate) struct Run {
    folder: PathBuf,
    config: Config,
    embedder: Mutex<Embedder>,
    dim: usize,
}

#[pymethods]
impl Run {
    /// Loads the final embedder of a run.
    ///
    /// Args:
    ///     folder: what `gradus train --out` or `gradus.train` wrote.
    ///     device: "auto", "cpu", "cuda[:n]", "wgpu[:n]"; default that of the run.
    #[staticmethod]
    #[pyo3(signature = (folder, *, device=None))]
    pub(crate) fn load(py: Python<'_>, folder: PathBuf, device: Option<&str>) -> PyResult<Self> {
        let folder = absolute(&folder)?;
        let missing = |error: TrainError| PyFileNotFoundError::new_err(error.to_string());
        let run = RunFolder::open(&folder).map_err(missing)?;
        let has_model = run.model().exists();
        let mut layers = stored_layers(&folder).map_err(of_training)?;
        if let Some(device) = device {
            layers.insert("device", device);
        }
        let config = layers.resolve().map_err(of_config)?;
        let (config, embedder) = detached(py, || {
            let loaded = load_embedder(&folder, &config);
            let (embedder, _) = loaded.map_err(|error| if has_model { of_training(error) } else { missing(error) })?;
            Ok((config, embedder))
        })?;
        Ok(Self {
            folder,
            config,
            dim: embedder.dim(),
            embedder: Mutex::new(embedder),
        })
    }

    /// The folder of the run.
    #[getter]
    fn folder(&self) -> &Path {
        &self.folder
    }

    /// Width of an embedding.
    #[getter]
    fn dim(&self) -> usize {
        self.dim
    }

    /// The configuration the run was trained with.
    #[getter]
    fn config(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        serialized(py, &self.config)
    }

    /// The measures of the test classes; None where the run has none.
    #[getter]
    fn metrics(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let path = RunFolder::open(&self.folder).map_err(of_training)?.metrics();
        match std::fs::read_to_string(&path) {
            Ok(text) => to_python(py, &serde_json::from_str(&text).map_err(failed)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(py.None()),
            Err(error) => Err(failed(format!("cannot read {}: {error}", path.display()))),
        }
    }

    /// Embeds images: unit-norm rows, float32 [images, dim], in the order given.
    ///
    /// Ctrl-C is heard after each batch.
    ///
    /// Args:
    ///     images: a folder (all images below it, in the order of `gradus.list_images`), the path of one image, a list of
    ///         paths, an array of uint8 [height, width, 3] or [images, height, width, 3], or a list of such arrays (of
    ///         different sizes) or of pictures of PIL in RGB. For a run on vectors of another model: an array [rows, width].
    ///     batch_size: images per forward pass; default that of the run.
    ///
    /// Raises:
    ///     ValueError: an image that cannot be decoded, by its name; what the run does not embed.
    ///     FileNotFoundError: a path that is not there.
    #[pyo3(signature = (images, *, batch_size=None))]
    fn embed(&self, py: Python<'_>, images: &Bound<'_, PyAny>, batch_size: Option<usize>) -> PyResult<Py<PyAny>> {
        if batch_size == Some(0) {
            return Err(refused("batch_size is 0: expected at least 1"));
        }
        let items: Arc<[Item]> = match self.config.model.vectors {
            Some(_) => of_vectors(images)?,
            None => sources(images)?,
        }
        .into_iter()
        .map(|source| Item {
            source,
            class: 0,
            part: Part::Unassigned,
            factors: Vec::new(),
        })
        .collect();
        if items.is_empty() {
            return arrays::matrix(py, Vec::<f32>::new(), self.dim);
        }
        let embedder = self.embedder.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let values = detached(py, || {
            let mut images = Images::new(&self.config, &items, &prepare::no_cache()).map_err(of_training)?;
            images.batch_size = batch_size.unwrap_or(images.batch_size);
            let all: Vec<usize> = (0..items.len()).collect();
            if self.config.model.vectors.is_some() {
                let labels = vec![0; items.len()];
                let set = embed(
                    &embedder,
                    &images,
                    &all,
                    labels,
                    Output::Embedding,
                    "embedding",
                    &mut Silent,
                );
                return Ok(set.map_err(of_training)?.values);
            }
            let mut values = Vec::with_capacity(items.len() * self.dim);
            let take = |_: &[usize], rows: &[f32]| {
                values.extend_from_slice(rows);
                Python::attach(|py| py.check_signals()).map_err(Ended)
            };
            embed_batches(&embedder, &images, &all, "embedding", &mut Silent, take).map_err(|ended: Ended| ended.0)?;
            Ok(values)
        })?;
        arrays::matrix(py, values, self.dim)
    }

    fn __repr__(&self) -> String {
        format!("Run({:?}, dim={})", self.folder.display().to_string(), self.dim)
    }
}

/// Why embedding ended early.
struct Ended(PyErr);

impl From<TrainError> for Ended {
    fn from(error: TrainError) -> Self {
        Self(of_training(error))
    }
}

/// The images below a folder, in the order in which `Run.embed` takes them.
///
/// Raises:
///     FileNotFoundError: no such folder.
///     ValueError: no image in it.
#[pyfunction]
pub(crate) fn list_images(folder: PathBuf) -> PyResult<Vec<String>> {
    let (items, _) = layouts::list_images(&folder).map_err(|error| of_training(error.into()))?;
    Ok(items.iter().map(|item| item.source.name()).collect())
}

fn of_vectors(given: &Bound<'_, PyAny>) -> PyResult<Vec<Source>> {
    if given.extract::<PathBuf>().is_ok() {
        return Err(refused(
            "images: this run is a head on vectors of another model: give their vectors, an array [rows, width]",
        ));
    }
    let rows = Matrix::<f32>::new(given, "images")?;
    let vectors = Arc::new(Vectors {
        dim: rows.dim,
        values: rows.values()?.to_vec(),
    });
    if let Some(at) = vectors.values.iter().position(|value| !value.is_finite()) {
        return Err(refused(format!(
            "images: row {} holds a value that is not finite (rows are counted from 0)",
            at / vectors.dim
        )));
    }
    let row = |row| Source::Vector {
        name: format!("row {row}"),
        vectors: Arc::clone(&vectors),
        row,
    };
    Ok((0..rows.rows).map(row).collect())
}

fn sources(given: &Bound<'_, PyAny>) -> PyResult<Vec<Source>> {
    if let Some(path) = path_of(given)? {
        if path.is_dir() {
            let (items, _) = layouts::list_images(&path).map_err(|error| of_training(error.into()))?;
            return Ok(items.into_iter().map(|item| item.source).collect());
        }
        return Ok(vec![file(path)?]);
    }
    if given.is_instance_of::<PyList>() || given.is_instance_of::<PyTuple>() {
        let mut all = Vec::new();
        for (number, one) in given.try_iter()?.enumerate() {
            let one = one?;
            match path_of(&one)? {
                Some(path) => all.push(file(path)?),
                None => all.extend(drawn(&one, &format!("image {number}"), true)?),
            }
        }
        return Ok(all);
    }
    drawn(given, "image", false)
}

fn path_of(object: &Bound<'_, PyAny>) -> PyResult<Option<PathBuf>> {
    if object.is_instance_of::<PyString>() || object.hasattr("__fspath__")? {
        return object.extract().map(Some);
    }
    Ok(None)
}

fn file(path: PathBuf) -> PyResult<Source> {
    if path.is_file() {
        return Ok(Source::File(path));
    }
    Err(PyFileNotFoundError::new_err(format!(
        "{} is no file: give image files (check the spelling)",
        path.display()
    )))
}

fn drawn(object: &Bound<'_, PyAny>, name: &str, only_one: bool) -> PyResult<Vec<Source>> {
    let pictures = arrays::pictures(&arrays::asarray(object)?, name)?;
    if only_one && pictures.len() != 1 {
        return Err(refused(format!(
            "{name}: expected one picture [height, width, 3] in a list"
        )));
    }
    let source = |(number, pixels)| Source::Drawn {
        name: if only_one {
            name.to_owned()
        } else {
            format!("{name} {number}")
        },
        pixels: Arc::new(pixels),
    };
    Ok(pictures.into_iter().enumerate().map(source).collect())
}
