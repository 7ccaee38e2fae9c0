//! Miners of the registry on arrays.

use gradus::config::settings_of;
use gradus_core::miners::{self as registry, Mined, MinerConfig, MiningInput, Pairs};
use gradus_core::relations::Labels;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::arrays::{self, Matrix, Names};
use crate::failures::{detached, of_config, refused};
use crate::values::{serialized, table};

/// What there is to show of all miners: a list of dicts with name, summary, paper, year and defaults.
#[pyfunction]
pub(crate) fn miners(py: Python<'_>) -> PyResult<Py<PyAny>> {
    serialized(py, &registry::info())
}

/// A miner of the registry with its settings; `gradus.miners` has one class for each.
#[pyclass(frozen, subclass, module = "gradus._gradus")]
#[derive(Debug)]
pub(crate) struct Miner {
    config: MinerConfig,
    seed: u64,
}

#[pymethods]
impl Miner {
    #[new]
    #[pyo3(signature = (name, settings, seed=0))]
    fn new(name: &str, settings: &Bound<'_, PyAny>, seed: u64) -> PyResult<Self> {
        MinerConfig::by_name(name).map_err(refused)?;
        let config: MinerConfig = settings_of(name, table(settings)?).map_err(of_config)?;
        config.validate().map_err(refused)?;
        Ok(Self { config, seed })
    }

    /// The name in configuration files.
    #[getter]
    fn name(&self) -> &'static str {
        self.config.name()
    }

    /// The settings, resolved.
    #[getter]
    fn settings(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let all = serde_json::to_value(&self.config).map_err(refused)?;
        crate::values::to_python(py, &all[self.config.name()])
    }

    /// What is chosen of a batch: int64 arrays (anchors, positives, negatives) of triplets, or (anchors, positives, anchors,
    /// negatives) of pairs, as the miners of pytorch-metric-learning give them.
    ///
    /// Args:
    ///     embeddings: array [rows, width] of floating-point numbers; computed in double precision.
    ///     labels: the class of each row, integers or strings, or what `label_kind` says.
    ///     reference_embeddings, reference_labels: where positives and negatives come from, instead of the batch.
    ///     label_kind: "classes", "multi-label" or "hierarchy".
    ///     seed: of miners that choose at random; default the seed of the miner.
    #[pyo3(signature = (embeddings, labels, reference_embeddings=None, reference_labels=None, *, label_kind=None, seed=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn __call__<'py>(
        &self,
        py: Python<'py>,
        embeddings: &Bound<'py, PyAny>,
        labels: &Bound<'py, PyAny>,
        reference_embeddings: Option<&Bound<'py, PyAny>>,
        reference_labels: Option<&Bound<'py, PyAny>>,
        label_kind: Option<&str>,
        seed: Option<u64>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let rows = Matrix::<f64>::new(embeddings, "embeddings")?;
        let mut sets = vec![(labels, "labels")];
        let others = match (reference_embeddings, reference_labels) {
            (Some(others), Some(labels)) => {
                sets.push((labels, "reference_labels"));
                Some(Matrix::<f64>::new(others, "reference_embeddings")?)
            }
            (None, None) => None,
            _ => return Err(refused("give reference_embeddings and reference_labels together")),
        };
        if let Some(others) = others.as_ref().filter(|others| others.dim != rows.dim) {
            return Err(refused(format!(
                "embeddings are {} wide and reference_embeddings {}: only embeddings of one width can be compared",
                rows.dim, others.dim
            )));
        }
        let (known, _) = arrays::labels(&sets, label_kind, Names::Any)?;
        let (values, dim, seed) = (rows.values()?, rows.dim, seed.unwrap_or(self.seed));
        let references = match (&others, known.get(1)) {
            (Some(others), Some(labels)) => Some((others.values()?, labels)),
            _ => None,
        };
        let own: &Labels = &known[0];
        let mined = detached(py, || {
            let input = match references {
                None => MiningInput::batch(values, own, dim, seed),
                Some((others, labels)) => MiningInput::between(values, own, others, labels, dim, seed),
            };
            self.config.mine(&input.map_err(refused)?).map_err(refused)
        })?;
        let columns: Vec<Vec<i64>> = match &mined {
            Mined::Triplets(all) => (0..3)
                .map(|at| all.iter().map(|one| one[at].into()).collect())
                .collect(),
            Mined::Pairs(Pairs { positive, negative }) => [positive, negative]
                .into_iter()
                .flat_map(|all| [0, 1].map(|at| all.iter().map(|one| one[at].into()).collect()))
                .collect(),
        };
        PyTuple::new(py, columns.into_iter().map(|column| arrays::vector(py, column)))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Miner({:?}, {})",
            self.config.name(),
            self.settings(py)?.bind(py).repr()?
        ))
    }
}

/// What a miner chose, as it hands it out.
pub(crate) fn read_mined(given: &Bound<'_, PyAny>) -> PyResult<Mined> {
    let all = given.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let columns = all
        .iter()
        .map(|column| arrays::numbers(column, "mined"))
        .collect::<PyResult<Vec<_>>>()?;
    let pairs = |a: &[u32], b: &[u32], what: &str| {
        if a.len() == b.len() {
            return Ok(a.iter().zip(b).map(|(&a, &b)| [a, b]).collect());
        }
        Err(refused(format!(
            "mined: {} and {} positions of {what} pairs",
            a.len(),
            b.len()
        )))
    };
    match columns.as_slice() {
        [anchors, positives, negatives] => {
            if anchors.len() != positives.len() || anchors.len() != negatives.len() {
                return Err(refused("mined: anchors, positives and negatives differ in number"));
            }
            let others = positives.iter().zip(negatives);
            let triplets = anchors.iter().zip(others).map(|(&a, (&p, &n))| [a, p, n]);
            Ok(Mined::Triplets(triplets.collect()))
        }
        [anchors, positives, others, negatives] => Ok(Mined::Pairs(Pairs {
            positive: pairs(anchors, positives, "positive")?,
            negative: pairs(others, negatives, "negative")?,
        })),
        _ => Err(refused(format!(
            "mined: expected (anchors, positives, negatives) or (anchors, positives, anchors, negatives), found {} arrays",
            columns.len()
        ))),
    }
}
