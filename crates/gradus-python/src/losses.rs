//! Losses of the registry on arrays: value and gradient.

use std::sync::{Mutex, PoisonError};

use gradus::batch::{Comparison, ItemSet, Mined};
use gradus::config::settings_of;
use gradus::device::DeviceChoice;
use gradus::losses::{self as registry, LabelNeed, Loss as LossModule, LossConfig, not_finite};
use gradus::tensor::{DType, Device, Module, ModuleMapper, Param, Tensor, TensorData};
use gradus_core::relations::Labels;
use numpy::Element;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::arrays::{self, Matrix, Names};
use crate::failures::{detached, failed, of_config, refused};
use crate::miners::read_mined;
use crate::values::{serialized, table};

/// What there is to show of all losses: a list of dicts with name, summary, paper, year, defaults and what each accepts.
#[pyfunction]
pub(crate) fn losses(py: Python<'_>) -> PyResult<Py<PyAny>> {
    serialized(py, &registry::info())
}

/// A loss of the registry with its settings; `gradus.losses` has one class for each.
#[pyclass(frozen, subclass, module = "gradus._gradus")]
#[derive(Debug)]
pub(crate) struct Loss {
    config: LossConfig,
    classes: Option<usize>,
    seed: u64,
    /// Its parameters, made when the first embeddings say how wide they are.
    held: Mutex<Option<LossModule>>,
}

/// What a loss is worth, of what it is made, and its slopes.
#[pyclass(frozen, get_all, module = "gradus._gradus")]
#[derive(Debug)]
pub(crate) struct LossResult {
    /// The loss.
    value: f64,
    /// Its slope at every embedding, [rows, width], in the precision of the embeddings.
    gradient: Py<PyAny>,
    /// The same at the references, where there are any.
    reference_gradient: Py<PyAny>,
    /// The same at the parameters of the loss, where it has any.
    parameters_gradient: Py<PyAny>,
    /// Its reduced terms by name.
    terms: Py<PyDict>,
}

#[pymethods]
impl LossResult {
    fn __repr__(&self) -> String {
        format!("LossResult(value={})", self.value)
    }
}

/// Arguments of a call, as they came.
struct Call<'a, 'py> {
    embeddings: &'a Bound<'py, PyAny>,
    labels: Option<&'a Bound<'py, PyAny>>,
    reference_embeddings: Option<&'a Bound<'py, PyAny>>,
    reference_labels: Option<&'a Bound<'py, PyAny>>,
    mined: Option<&'a Bound<'py, PyAny>>,
    label_kind: Option<&'a str>,
    seed: Option<u64>,
}

/// What a loss looks at, on the host.
struct Compared<'py, T: Element> {
    anchors: Matrix<'py, T>,
    labels: Labels,
    references: Option<(Matrix<'py, T>, Labels)>,
    mined: Option<Mined>,
    seed: u64,
}

#[pymethods]
impl Loss {
    #[new]
    #[pyo3(signature = (name, settings, classes=None, seed=0))]
    fn new(name: &str, settings: &Bound<'_, PyAny>, classes: Option<usize>, seed: u64) -> PyResult<Self> {
        LossConfig::by_name(name).map_err(refused)?;
        let config: LossConfig = settings_of(name, table(settings)?).map_err(of_config)?;
        config.validate().map_err(refused)?;
        Ok(Self {
            config,
            classes,
            seed,
            held: Mutex::new(None),
        })
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

    /// The parameters (one row per proxy, those of a class together; a learned vector as a column), a copy; None where there
    /// are none, or before the first call. Assign an array to replace them.
    #[getter]
    fn parameters(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(rows) = held.as_ref().and_then(LossModule::parameters) else {
            return Ok(None);
        };
        let dim = rows.dims()[1];
        Ok(Some(if rows.dtype() == DType::F64 {
            arrays::matrix(py, to_host::<f64>(rows)?, dim)?
        } else {
            arrays::matrix(py, to_host::<f32>(rows)?, dim)?
        }))
    }

    #[setter]
    fn set_parameters(&self, py: Python<'_>, parameters: &Bound<'_, PyAny>) -> PyResult<()> {
        let rows = Matrix::<f64>::new(parameters, "parameters")?;
        let [count, dim] = [rows.rows, rows.dim];
        let values = rows.values()?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(refused(format!("parameters: row {} holds {}", at / dim, values[at])));
        }
        let is_double = arrays::is_double(parameters)?;
        let classes = match (self.classes, self.config.proxies_per_class()) {
            (Some(classes), _) => classes,
            (None, Some(per_class)) if count.is_multiple_of(per_class) => count / per_class,
            (None, Some(per_class)) => {
                return Err(refused(format!(
                    "parameters: {count} rows, which {per_class} proxies per class do not divide"
                )));
            }
            (None, None) => 0,
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let loss = match held.take() {
            Some(loss) => loss,
            None => {
                let device = processor()?;
                detached(py, || Ok(self.config.init(dim, classes, self.seed, &device)))?
            }
        };
        let shape = loss.parameters().map(|own| own.dims());
        if shape != Some([count, dim]) {
            *held = Some(loss);
            return Err(refused(match shape {
                None => format!(
                    "the loss {} holds no parameters with these settings",
                    self.config.name()
                ),
                Some([rows, width]) => format!(
                    "parameters: the loss {} holds rows [{rows}, {width}], but [{count}, {dim}] were given",
                    self.config.name()
                ),
            }));
        }
        let loss = in_precision(loss, if is_double { DType::F64 } else { DType::F32 });
        // In the precision of those they replace.
        let new = tensor(values, [count, dim], DType::F64, &processor()?);
        *held = Some(loss.with_parameters(new));
        Ok(())
    }

    /// The loss and its gradient at the embeddings: `(value, gradient)`.
    ///
    /// Args:
    ///     embeddings: array [rows, width]; in float64 everything is computed in double precision, else in single.
    ///     labels: the class of each row; for losses with proxies numbers from 0.
    ///     reference_embeddings, reference_labels: what the rows are compared with, instead of each other.
    ///     mined: what a miner chose: (anchors, positives, negatives), or (anchors, positives, anchors, negatives).
    ///     label_kind: "classes", "multi-label" or "hierarchy".
    ///     seed: of what a loss draws at random; default the seed of the loss.
    #[pyo3(signature = (embeddings, labels=None, *, reference_embeddings=None, reference_labels=None, mined=None, label_kind=None, seed=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn __call__(
        &self,
        py: Python<'_>,
        embeddings: &Bound<'_, PyAny>,
        labels: Option<&Bound<'_, PyAny>>,
        reference_embeddings: Option<&Bound<'_, PyAny>>,
        reference_labels: Option<&Bound<'_, PyAny>>,
        mined: Option<&Bound<'_, PyAny>>,
        label_kind: Option<&str>,
        seed: Option<u64>,
    ) -> PyResult<(f64, Py<PyAny>)> {
        let call = Call {
            embeddings,
            labels,
            reference_embeddings,
            reference_labels,
            mined,
            label_kind,
            seed,
        };
        let result = self.result(py, &call)?;
        Ok((result.value, result.gradient))
    }

    /// The loss with its terms and all its gradients; arguments as of a call.
    #[pyo3(signature = (embeddings, labels=None, *, reference_embeddings=None, reference_labels=None, mined=None, label_kind=None, seed=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn evaluate(
        &self,
        py: Python<'_>,
        embeddings: &Bound<'_, PyAny>,
        labels: Option<&Bound<'_, PyAny>>,
        reference_embeddings: Option<&Bound<'_, PyAny>>,
        reference_labels: Option<&Bound<'_, PyAny>>,
        mined: Option<&Bound<'_, PyAny>>,
        label_kind: Option<&str>,
        seed: Option<u64>,
    ) -> PyResult<LossResult> {
        let call = Call {
            embeddings,
            labels,
            reference_embeddings,
            reference_labels,
            mined,
            label_kind,
            seed,
        };
        self.result(py, &call)
    }

    /// Every value of the loss before a reducer makes one number of them: dict of term to "unit", "positions" ([row],
    /// [anchor, reference] or [anchor, positive, negative]), "values" and "weights". Arguments as of a call.
    #[pyo3(signature = (embeddings, labels=None, *, reference_embeddings=None, reference_labels=None, mined=None, label_kind=None, seed=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords in Python")]
    fn unreduced<'py>(
        &self,
        py: Python<'py>,
        embeddings: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        reference_embeddings: Option<&Bound<'py, PyAny>>,
        reference_labels: Option<&Bound<'py, PyAny>>,
        mined: Option<&Bound<'py, PyAny>>,
        label_kind: Option<&str>,
        seed: Option<u64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let call = Call {
            embeddings,
            labels,
            reference_embeddings,
            reference_labels,
            mined,
            label_kind,
            seed,
        };
        if arrays::is_double(embeddings)? {
            self.values::<f64>(py, &call)
        } else {
            self.values::<f32>(py, &call)
        }
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Loss({:?}, {})",
            self.config.name(),
            self.settings(py)?.bind(py).repr()?
        ))
    }
}

impl Loss {
    fn result(&self, py: Python<'_>, call: &Call<'_, '_>) -> PyResult<LossResult> {
        self.config.validate_reduces().map_err(|problem| {
            refused(problem.replace(
                "look at the values with `gradus loss`",
                "look at the values with `unreduced`",
            ))
        })?;
        if arrays::is_double(call.embeddings)? {
            self.differentiated::<f64>(py, call)
        } else {
            self.differentiated::<f32>(py, call)
        }
    }

    fn differentiated<T: Number>(&self, py: Python<'_>, call: &Call<'_, '_>) -> PyResult<LossResult> {
        let compared = self.compared::<T>(call)?;
        let width = compared.anchors.dim;
        let inputs = compared.inputs()?;
        let (differentiated, gradients) = detached(py, || {
            let loss = self.loss::<T>(width, inputs.labels)?;
            let (comparison, anchors, references) = inputs.comparison()?;
            let differentiated = loss.differentiate(&comparison).map_err(refused)?;
            let slopes = |leaf: Option<Tensor<2>>| {
                leaf.map(|leaf| {
                    let [rows, dim] = leaf.dims();
                    match differentiated.gradient(&leaf) {
                        Some(slopes) => to_host::<T>(slopes).map(|slopes| (slopes, dim)),
                        None => Ok((vec![T::default(); rows * dim], dim)),
                    }
                })
                .transpose()
            };
            let all = [slopes(Some(anchors))?, slopes(references)?, slopes(loss.parameters())?];
            Ok(((differentiated.value, differentiated.terms), all))
        })?;
        let (value, named) = differentiated;
        let terms = PyDict::new(py);
        for (name, term) in named {
            terms.set_item(name, term)?;
        }
        let hand_out = |slopes: Option<(Vec<T>, usize)>| match slopes {
            Some((slopes, dim)) => arrays::matrix(py, slopes, dim),
            None => Ok(py.None()),
        };
        let [gradient, reference_gradient, parameters_gradient] = gradients;
        Ok(LossResult {
            value,
            gradient: hand_out(gradient)?,
            reference_gradient: hand_out(reference_gradient)?,
            parameters_gradient: hand_out(parameters_gradient)?,
            terms: terms.unbind(),
        })
    }

    fn values<'py, T: Number>(&self, py: Python<'py>, call: &Call<'_, 'py>) -> PyResult<Bound<'py, PyDict>> {
        let compared = self.compared::<T>(call)?;
        let width = compared.anchors.dim;
        let inputs = compared.inputs()?;
        let terms = detached(py, || {
            let loss = self.loss::<T>(width, inputs.labels)?;
            let (comparison, _, _) = inputs.comparison()?;
            loss.check(&comparison).map_err(refused)?;
            loss.unreduced(&comparison).map_err(failed)
        })?;
        let all = PyDict::new(py);
        for term in terms {
            if let Some(wrong) = term.values.iter().find(|value| !value.is_finite()) {
                return Err(refused(not_finite(&format!("a value of {}", term.name), *wrong)));
            }
            let one = PyDict::new(py);
            one.set_item("unit", serialized(py, &term.unit)?)?;
            one.set_item("positions", term.positions)?;
            one.set_item("values", arrays::vector(py, term.values))?;
            one.set_item("weights", arrays::vector(py, term.weights))?;
            all.set_item(term.name, one)?;
        }
        Ok(all)
    }

    fn compared<'py, T: Number>(&self, call: &Call<'_, 'py>) -> PyResult<Compared<'py, T>> {
        let anchors = Matrix::<T>::new(call.embeddings, "embeddings")?;
        let references = call
            .reference_embeddings
            .map(|rows| Matrix::<T>::new(rows, "reference_embeddings"))
            .transpose()?;
        if references.is_none() && call.reference_labels.is_some() {
            return Err(refused("reference_labels is given without reference_embeddings"));
        }
        for (matrix, what) in std::iter::once((&anchors, "embeddings"))
            .chain(references.iter().map(|rows| (rows, "reference_embeddings")))
        {
            let wrong = matrix.values()?.iter().position(|value| !value.is_finite());
            if let Some(at) = wrong {
                return Err(refused(format!(
                    "{what}: row {} holds a value that is not finite (rows are counted from 0)",
                    at / matrix.dim
                )));
            }
        }
        let needs_labels = self.config.accepts().labels != LabelNeed::Nothing;
        let names = if self.config.proxies_per_class().is_some() {
            Names::Refused
        } else {
            Names::Any
        };
        let sets: Vec<_> = [(call.labels, "labels"), (call.reference_labels, "reference_labels")]
            .into_iter()
            .filter_map(|(labels, what)| Some((labels?, what)))
            .collect();
        let mut known = arrays::labels(&sets, call.label_kind, names)?.0.into_iter();
        let mut next = |given: bool, rows: usize, what: &str| match (given, needs_labels) {
            (true, _) => {
                let labels = known.next().unwrap_or_else(|| Labels::from(Vec::new()));
                if labels.len() == rows {
                    return Ok(labels);
                }
                Err(refused(format!(
                    "{what} holds {} labels for {rows} embeddings: one label for each embedding is needed",
                    labels.len()
                )))
            }
            (false, true) => Err(refused(format!(
                "the loss {} looks at labels: give {what}",
                self.config.name()
            ))),
            (false, false) => Ok(Labels::from((0..rows as u32).collect::<Vec<u32>>())),
        };
        let labels = next(call.labels.is_some(), anchors.rows, "labels")?;
        let references = match references {
            Some(rows) => {
                let labels = next(call.reference_labels.is_some(), rows.rows, "reference_labels")?;
                Some((rows, labels))
            }
            None => None,
        };
        Ok(Compared {
            anchors,
            labels,
            references,
            mined: call.mined.map(read_mined).transpose()?,
            seed: call.seed.unwrap_or(self.seed),
        })
    }

    /// The loss with its parameters in the precision asked for; made when it is called first.
    fn loss<T: Number>(&self, dim: usize, labels: &Labels) -> PyResult<LossModule> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let loss = match &*held {
            Some(loss) => loss.clone(),
            None => {
                let classes = match self.classes {
                    Some(classes) => classes,
                    None => self.config.class_count(labels).map_err(refused)?,
                };
                let loss = self.config.init(dim, classes, self.seed, &processor()?);
                let loss = if T::DTYPE == DType::F64 {
                    in_precision(loss, DType::F64)
                } else {
                    loss
                };
                *held = Some(loss.clone());
                loss
            }
        };
        let parameters = loss.parameters();
        if let (Some(own), Some(_)) = (&parameters, self.config.proxies_per_class())
            && own.dims()[1] != dim
        {
            return Err(refused(format!(
                "the loss {} holds parameters of width {}, but the embeddings have width {dim}: one loss serves embeddings of one \
                 width",
                self.config.name(),
                own.dims()[1]
            )));
        }
        let is_other = parameters.is_some_and(|own| own.dtype() != T::DTYPE);
        Ok(if is_other { in_precision(loss, T::DTYPE) } else { loss })
    }
}

/// What a comparison is made of, without anything of Python.
struct Inputs<'a, T> {
    anchors: (&'a [T], [usize; 2]),
    labels: &'a Labels,
    references: Option<(&'a [T], [usize; 2], &'a Labels)>,
    mined: Option<&'a Mined>,
    seed: u64,
}

impl<T: Number> Compared<'_, T> {
    fn inputs(&self) -> PyResult<Inputs<'_, T>> {
        let references = match &self.references {
            Some((rows, labels)) => Some((rows.values()?, [rows.rows, rows.dim], labels)),
            None => None,
        };
        Ok(Inputs {
            anchors: (self.anchors.values()?, [self.anchors.rows, self.anchors.dim]),
            labels: &self.labels,
            references,
            mined: self.mined.as_ref(),
            seed: self.seed,
        })
    }
}

impl<T: Number> Inputs<'_, T> {
    /// The comparison, with the leaves whose slopes are wanted.
    fn comparison(&self) -> PyResult<(Comparison, Tensor<2>, Option<Tensor<2>>)> {
        let device = processor()?;
        let leaf = |values: &[T], shape| tensor(values, shape, T::DTYPE, &device).require_grad();
        let (values, shape) = self.anchors;
        let anchors = leaf(values, shape);
        let mut comparison =
            Comparison::within(ItemSet::new(anchors.clone(), self.labels.clone())).with_seed(self.seed);
        let mut references = None;
        if let Some((values, shape, labels)) = self.references {
            let rows = leaf(values, shape);
            comparison.references = Some(ItemSet::new(rows.clone(), labels.clone()));
            references = Some(rows);
        }
        comparison.mined = self.mined.cloned();
        Ok((comparison, anchors, references))
    }
}

/// A precision losses are computed in.
trait Number: Element + gradus::tensor::Element + Default + Clone + Send + Sync {
    const DTYPE: DType;
    fn is_finite(&self) -> bool;
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;
    fn is_finite(&self) -> bool {
        f32::is_finite(*self)
    }
}

impl Number for f64 {
    const DTYPE: DType = DType::F64;
    fn is_finite(&self) -> bool {
        f64::is_finite(*self)
    }
}

fn processor() -> PyResult<Device> {
    Ok(DeviceChoice::Cpu.resolve().map_err(failed)?.autodiff())
}

fn tensor<T: Number>(values: &[T], shape: [usize; 2], dtype: DType, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype))
}

fn to_host<T: Number>(tensor: Tensor<2>) -> PyResult<Vec<T>> {
    tensor.try_into_vec_as::<T>().map_err(failed)
}

/// Parameters and running statistics in another precision.
struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let old = param.val();
        let new = Tensor::from_data(old.to_data(), (&old.device(), self.0));
        Param::initialized(param.id, new.set_require_grad(old.is_require_grad()))
    }
}

fn in_precision(loss: LossModule, dtype: DType) -> LossModule {
    loss.map(&mut Cast(dtype))
}
