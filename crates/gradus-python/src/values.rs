//! Settings that come from Python, and results that go there.

use std::path::PathBuf;

use gradus_core::evaluation::{Evaluation, Value as Measured};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple};
use serde_json::Value as Json;
use toml::{Table, Value};

use crate::failures::refused;

/// A result as Python objects.
pub(crate) fn to_python(py: Python<'_>, value: &Json) -> PyResult<Py<PyAny>> {
    Ok(match value {
        Json::Null => py.None(),
        Json::Bool(flag) => PyBool::new(py, *flag).to_owned().into_any().unbind(),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => whole.into_pyobject(py)?.into_any().unbind(),
            (None, Some(whole)) => whole.into_pyobject(py)?.into_any().unbind(),
            (None, None) => PyFloat::new(py, number.as_f64().unwrap_or(f64::NAN))
                .into_any()
                .unbind(),
        },
        Json::String(text) => PyString::new(py, text).into_any().unbind(),
        Json::Array(all) => {
            let all = all
                .iter()
                .map(|value| to_python(py, value))
                .collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, all)?.into_any().unbind()
        }
        Json::Object(all) => {
            let dict = PyDict::new(py);
            for (key, value) in all {
                dict.set_item(key, to_python(py, value)?)?;
            }
            dict.into_any().unbind()
        }
    })
}

/// What serialises, as Python objects.
pub(crate) fn serialized(py: Python<'_>, value: &impl serde::Serialize) -> PyResult<Py<PyAny>> {
    to_python(py, &serde_json::to_value(value).map_err(refused)?)
}

/// The numbers of an evaluation; undefined ones are `None`.
pub(crate) fn numbers<'py>(py: Python<'py>, evaluation: &Evaluation) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in evaluation.entries() {
        match value {
            Measured::Measure(measure) => dict.set_item(name, measure)?,
            Measured::Count(count) => dict.set_item(name, count)?,
        }
    }
    Ok(dict)
}

/// A table of settings. Names may be written with `_` for `-`, as keywords must; `None` means the default.
pub(crate) fn table(settings: &Bound<'_, PyAny>) -> PyResult<Table> {
    let mapping = settings
        .cast::<PyMapping>()
        .map_err(|_| refused(format!("expected a dict of settings, found {}", type_name(settings))))?;
    let mut table = Table::new();
    for item in mapping.items()?.iter() {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
        let name: String = key
            .extract()
            .map_err(|_| refused(format!("the name of a setting is {key}, but it must be a string")))?;
        if !value.is_none() {
            table.insert(name.replace('_', "-"), setting(&value, &name)?);
        }
    }
    Ok(table)
}

/// A setting called `name` in messages.
pub(crate) fn setting(value: &Bound<'_, PyAny>, name: &str) -> PyResult<Value> {
    // True is an int, too.
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Boolean(flag.is_true()));
    }
    if value.is_instance_of::<PyInt>() {
        return value.extract().map(Value::Integer).map_err(|_| {
            refused(format!(
                "{name} is {value}, which is too large: expected a number below 2^63"
            ))
        });
    }
    if value.is_instance_of::<PyFloat>() {
        return Ok(Value::Float(value.extract()?));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::String(text.to_str()?.to_owned()));
    }
    if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        let all = value.try_iter()?.map(|one| setting(&one?, name));
        return Ok(Value::Array(all.collect::<PyResult<_>>()?));
    }
    if value.cast::<PyMapping>().is_ok() {
        return Ok(Value::Table(table(value)?));
    }
    if let Ok(path) = value.extract::<PathBuf>() {
        return Ok(Value::String(text_of(&path)?));
    }
    // Numbers of NumPy and arrays of them.
    if let Ok(plain) = value.call_method0("tolist")
        && !plain.is(value)
    {
        return setting(&plain, name);
    }
    Err(refused(format!(
        "{name} is of the type {}: expected a number, a string, a path, true or false, a list or a dict",
        type_name(value)
    )))
}

/// A path as a value of the configuration.
pub(crate) fn text_of(path: &std::path::Path) -> PyResult<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| {
        refused(format!(
            "the path {} is not valid UTF-8, which the configuration needs",
            path.display()
        ))
    })
}

/// What an object is called in messages.
pub(crate) fn type_name(object: &Bound<'_, PyAny>) -> String {
    object
        .get_type()
        .fully_qualified_name()
        .map_or_else(|_| "unknown".to_owned(), |name| name.to_string())
}
