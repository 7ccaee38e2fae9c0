//! Image search.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use gradus_index::{EngineKind, Filter, Index as IndexFolder, Item, Settings};
use pyo3::prelude::*;
use pyo3::types::PyList;
use serde_json::Value;

use crate::arrays;
use crate::failures::{absolute, detached, of_index, refused};
use crate::options::Words;
use crate::values::serialized;

/// An index of embeddings that can be searched: `gradus.Index.open(folder)`.
#[pyclass(frozen, module = "gradus._gradus")]
#[derive(Debug)]
pub(crate) struct Index {
    index: Option<IndexFolder>,
}

impl Drop for Index {
    fn drop(&mut self) {
        // The engine writes once more when it is closed and panics where its folder is gone: by then nobody can be told.
        let closed = catch_unwind(AssertUnwindSafe(|| drop(self.index.take())));
        drop(closed);
    }
}

#[pymethods]
impl Index {
    /// Opens what `gradus index build` or `create` wrote.
    ///
    /// Raises:
    ///     FileNotFoundError: no index there.
    #[staticmethod]
    fn open(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        let folder = absolute(&folder)?;
        let index = detached(py, || IndexFolder::open(&folder).map_err(of_index))?;
        Ok(Self { index: Some(index) })
    }

    /// Builds an index of vectors; one that is there is replaced when the new one is whole.
    ///
    /// Args:
    ///     folder: where.
    ///     vectors: array [rows, width].
    ///     ids: a different name for each row; default its number.
    ///     classes: the class of each row, strings; None for rows without one.
    ///     payload: a dict of what else is known, for each row: text, numbers, truth values or lists of them.
    ///     engine: "flat" (exact) or "qdrant-edge" (approximate); default the latter.
    #[staticmethod]
    #[pyo3(signature = (folder, vectors, *, ids=None, classes=None, payload=None, engine=None))]
    fn create(
        py: Python<'_>,
        folder: PathBuf,
        vectors: &Bound<'_, PyAny>,
        ids: Option<Vec<String>>,
        classes: Option<Vec<Option<String>>>,
        payload: Option<Vec<Bound<'_, PyAny>>>,
        engine: Option<&str>,
    ) -> PyResult<Self> {
        let folder = absolute(&folder)?;
        let rows = arrays::Matrix::<f32>::new(vectors, "vectors")?;
        let engine = match engine {
            None => EngineKind::default(),
            Some(name) => EngineKind::ALL
                .into_iter()
                .find(|kind| kind.name() == name)
                .ok_or_else(|| {
                    refused(format!(
                        "engine is {name:?}: expected {}",
                        EngineKind::ALL.map(EngineKind::name).join(" or ")
                    ))
                })?,
        };
        let lengths = [
            ("ids", ids.as_ref().map(Vec::len)),
            ("classes", classes.as_ref().map(Vec::len)),
            ("payload", payload.as_ref().map(Vec::len)),
        ];
        if let Some((what, length)) = lengths
            .iter()
            .find_map(|(what, length)| Some((what, (*length)?)))
            .filter(|(_, length)| *length != rows.rows)
        {
            return Err(refused(format!(
                "{what} has {length} entries for {} vectors",
                rows.rows
            )));
        }
        let mut items = Vec::with_capacity(rows.rows);
        for row in 0..rows.rows {
            let mut item = Item::new(ids.as_ref().map_or_else(|| row.to_string(), |ids| ids[row].clone()));
            item.class = classes.as_ref().and_then(|classes| classes[row].clone());
            if let Some(payload) = &payload {
                item.payload = fields(&payload[row])?;
            }
            items.push(item);
        }
        let (values, dim) = (rows.values()?, rows.dim);
        let index = detached(py, || {
            let builder = IndexFolder::create(&folder, Settings::new(engine, dim)).map_err(of_index)?;
            builder.add(&items, values).map_err(of_index)?;
            builder.finish().map_err(of_index)
        })?;
        Ok(Self { index: Some(index) })
    }

    /// The folder of the index.
    #[getter]
    fn folder(&self) -> &Path {
        self.index().folder()
    }

    /// Width of its vectors.
    #[getter]
    fn dim(&self) -> usize {
        self.index().dimension()
    }

    /// What answers searches: "flat" (exact) or "qdrant-edge" (approximate).
    #[getter]
    fn engine(&self) -> &'static str {
        self.index().engine().name()
    }

    /// Why searches are exact although the engine is not, if they are.
    #[getter]
    fn notice(&self) -> Option<String> {
        self.index().notice().map(str::to_owned)
    }

    fn __len__(&self) -> usize {
        self.index().len()
    }

    fn __contains__(&self, id: &str) -> bool {
        self.index().contains(id)
    }

    /// The `k` items nearest to a vector, nearest first: dicts with "id", "score" (cosine similarity), "class", "image",
    /// "payload". For a matrix of vectors, a list of such lists.
    ///
    /// Args:
    ///     vector: array [width] or [queries, width].
    ///     k: how many.
    ///     filter: conditions such as "class=heron", "price<=3", "colour!=red", one or several.
    ///     threshold: leaves out what scores less.
    #[pyo3(signature = (vector, k=10, *, filter=None, threshold=None))]
    fn search(
        &self,
        py: Python<'_>,
        vector: &Bound<'_, PyAny>,
        k: usize,
        filter: Option<Words>,
        threshold: Option<f32>,
    ) -> PyResult<Py<PyAny>> {
        self.each(py, vector, filter, |query, filter| {
            self.index().search(query, k, filter, threshold)
        })
    }

    /// What a vector is: a dict with "unknown", "class", "threshold" and "hits". Without a `threshold` the calibrated one
    /// applies, where the index has one. For a matrix of vectors, a list of such dicts.
    #[pyo3(signature = (vector, k=10, *, filter=None, threshold=None))]
    fn identify(
        &self,
        py: Python<'_>,
        vector: &Bound<'_, PyAny>,
        k: usize,
        filter: Option<Words>,
        threshold: Option<f32>,
    ) -> PyResult<Py<PyAny>> {
        self.each(py, vector, filter, |query, filter| {
            self.index().identify(query, k, filter, threshold)
        })
    }

    fn __repr__(&self) -> String {
        format!(
            "Index({:?}, {} items, dim={}, engine={:?})",
            self.index().folder().display().to_string(),
            self.index().len(),
            self.dim(),
            self.engine()
        )
    }
}

impl Index {
    fn index(&self) -> &IndexFolder {
        self.index.as_ref().expect("it is held until it is dropped")
    }

    fn each<T: serde::Serialize + Send>(
        &self,
        py: Python<'_>,
        vector: &Bound<'_, PyAny>,
        filter: Option<Words>,
        ask: impl Fn(&[f32], &Filter) -> Result<T, gradus_index::IndexError> + Send + Sync,
    ) -> PyResult<Py<PyAny>> {
        let (values, rows, dim) = arrays::vectors(vector, "vector")?;
        let texts = filter.map_or_else(Vec::new, Words::into_vec);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let filter = Filter::parse(&texts, &self.index().fields()).map_err(of_index)?;
        let answers = detached(py, || {
            let queries = values.chunks_exact(dim.max(1));
            queries
                .map(|query| ask(query, &filter).map_err(of_index))
                .collect::<PyResult<Vec<T>>>()
        })?;
        let answers = answers
            .iter()
            .map(|answer| serialized(py, answer))
            .collect::<PyResult<Vec<_>>>()?;
        match (rows, answers.into_iter()) {
            (None, mut answers) => answers.next().ok_or_else(|| refused("vector: it is empty")),
            (Some(_), answers) => Ok(PyList::new(py, answers)?.into_any().unbind()),
        }
    }
}

/// What is known of an item, with the names of its fields as they are.
fn fields(given: &Bound<'_, PyAny>) -> PyResult<serde_json::Map<String, Value>> {
    let mut all = serde_json::Map::new();
    for item in given.call_method0("items")?.try_iter()? {
        let (name, value): (String, Bound<'_, PyAny>) = item?.extract()?;
        if !value.is_none() {
            let value = serde_json::to_value(crate::values::setting(&value, &name)?).map_err(refused)?;
            all.insert(name, value);
        }
    }
    Ok(all)
}
