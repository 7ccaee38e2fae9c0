//! Arrays borrowed from NumPy, arrays handed to NumPy, and labels.
//!
//! A matrix of single precision in row order is borrowed where it lies; while a function runs it must not be changed. Other
//! floating-point types and layouts are converted with one copy, everything else is refused by name. Whatever NumPy takes for
//! an array will do: tensors of PyTorch on the processor share their memory with one.

use gradus_core::relations::Labels;
use numpy::{Element, IntoPyArray, PyArray, PyArray1, PyArray2, PyArrayDyn, PyArrayMethods, PyReadonlyArray};
use numpy::{Ix1, Ix2, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::failures::refused;
use crate::values::type_name;

/// A matrix borrowed from NumPy, `[rows, dim]`.
pub(crate) struct Matrix<'py, T: Element> {
    array: PyReadonlyArray2<'py, T>,
    pub(crate) rows: usize,
    pub(crate) dim: usize,
}

impl<'py, T: Element> Matrix<'py, T> {
    /// The rows of `object`, called `what` in messages.
    pub(crate) fn new(object: &Bound<'py, PyAny>, what: &str) -> PyResult<Self> {
        let array = floats(object, what, 2)?;
        Self::of_array(&array, what)
    }

    fn of_array(array: &Bound<'py, PyAny>, what: &str) -> PyResult<Self> {
        let array: PyReadonlyArray<'py, T, Ix2> = required::<T>(array)?
            .cast_into::<PyArray2<T>>()?
            .try_readonly()
            .map_err(|_| refused(format!("{what}: the array is being written to by another call")))?;
        let [rows, dim] = [array.shape()[0], array.shape()[1]];
        Ok(Self { array, rows, dim })
    }

    pub(crate) fn values(&self) -> PyResult<&[T]> {
        self.array.as_slice().map_err(refused)
    }
}

/// A vector `[dim]` or a matrix `[rows, dim]` of single precision: its values, number of rows (none for a vector) and width.
pub(crate) fn vectors(object: &Bound<'_, PyAny>, what: &str) -> PyResult<(Vec<f32>, Option<usize>, usize)> {
    let array = asarray(object)?;
    if array.getattr("ndim")?.extract::<usize>()? == 1 {
        let vector = required::<f32>(&floats(&array, what, 1)?)?.cast_into::<PyArray1<f32>>()?;
        let values = vector.readonly().as_slice().map_err(refused)?.to_vec();
        let dim = values.len();
        return Ok((values, None, dim));
    }
    let matrix = Matrix::<f32>::new(&array, what)?;
    Ok((matrix.values()?.to_vec(), Some(matrix.rows), matrix.dim))
}

/// Whether an array of floating-point numbers holds double precision.
pub(crate) fn is_double(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let dtype = asarray(object)?.getattr("dtype")?;
    Ok(dtype.getattr("kind")?.extract::<String>()? == "f" && dtype.getattr("itemsize")?.extract::<usize>()? >= 8)
}

/// Hands rows to NumPy, without a copy.
pub(crate) fn matrix<T: Element>(py: Python<'_>, values: Vec<T>, dim: usize) -> PyResult<Py<PyAny>> {
    let rows = values.len() / dim.max(1);
    let array = values.into_pyarray(py).reshape([rows, dim])?;
    Ok(array.into_any().unbind())
}

/// Hands numbers to NumPy, without a copy.
pub(crate) fn vector<T: Element>(py: Python<'_>, values: Vec<T>) -> Py<PyAny> {
    values.into_pyarray(py).into_any().unbind()
}

/// The array NumPy makes of an object.
pub(crate) fn asarray<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    object.py().import("numpy")?.call_method1("asarray", (object,))
}

/// The array if it holds floating-point numbers in so many dimensions.
fn floats<'py>(object: &Bound<'py, PyAny>, what: &str, dimensions: usize) -> PyResult<Bound<'py, PyAny>> {
    let array = asarray(object)?;
    let kind: String = array.getattr("dtype")?.getattr("kind")?.extract()?;
    let shape = array.getattr("shape")?;
    if array.getattr("ndim")?.extract::<usize>()? != dimensions {
        let wanted = if dimensions == 2 { "[rows, width]" } else { "[width]" };
        return Err(refused(format!(
            "{what}: expected an array {wanted}, found the shape {shape}"
        )));
    }
    if kind != "f" {
        return Err(refused(format!(
            "{what}: expected floating-point numbers (float32, float64 or float16), found {}",
            array.getattr("dtype")?
        )));
    }
    Ok(array)
}

/// The array as it is, if it lies in memory as `T` in row order; else a copy that does.
fn required<'py, T: Element>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    let numpy = py.import("numpy")?;
    numpy.call_method1("require", (array, numpy::dtype::<T>(py), ["C", "A"]))
}

/// Numbers of any integer type as `u32`, `[rows]`.
pub(crate) fn numbers(object: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<u32>> {
    let array = asarray(object)?;
    whole_numbers(&array, what, 1)?;
    to_u32(&array, what)
}

/// What is done with labels that are no class numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Strings and any integers: every different one is a class, in rising order.
    Any,
    /// They are refused: the number says which proxy belongs to a class.
    Refused,
}

/// What is known of the items of sets that are compared with each other, and the name of each class number where it is not
/// itself.
pub(crate) fn labels(
    sets: &[(&Bound<'_, PyAny>, &str)],
    kind: Option<&str>,
    names: Names,
) -> PyResult<(Vec<Labels>, Option<Py<PyAny>>)> {
    let arrays = sets
        .iter()
        .map(|(object, what)| Ok((asarray(object)?, *what)))
        .collect::<PyResult<Vec<_>>>()?;
    let Some((first, what)) = arrays.first() else {
        return Ok((Vec::new(), None));
    };
    match kind {
        None | Some("classes") => {}
        Some(kind @ ("multi-label" | "hierarchy")) => {
            let all = arrays
                .iter()
                .map(|(array, what)| several(array, what, kind == "hierarchy"));
            return Ok((all.collect::<PyResult<_>>()?, None));
        }
        Some(other) => {
            return Err(refused(format!(
                "label_kind is {other:?}: expected \"classes\", \"multi-label\" or \"hierarchy\""
            )));
        }
    }
    let kind_of = |array: &Bound<'_, PyAny>| array.getattr("dtype")?.getattr("kind")?.extract::<String>();
    let is_text = |kind: &str| matches!(kind, "U" | "S" | "O" | "T");
    let first_is_text = is_text(&kind_of(first)?);
    for (array, what) in &arrays {
        if array.getattr("ndim")?.extract::<usize>()? != 1 {
            return Err(refused(format!(
                "{what}: expected labels [rows], found the shape {}; several labels per row are a matrix of 0 and 1 with \
                 label_kind=\"multi-label\", levels one with label_kind=\"hierarchy\"",
                array.getattr("shape")?
            )));
        }
        if is_text(&kind_of(array)?) != first_is_text {
            return Err(refused(format!(
                "{what}: labels of one set are numbers and of the other strings: give both in one form"
            )));
        }
        if !first_is_text {
            whole_numbers(array, what, 1)?;
        }
    }
    if first_is_text && names == Names::Refused {
        return Err(refused(format!(
            "{what}: this loss has proxies by class, so it needs class numbers from 0, not strings: \
             numpy.unique(labels, return_inverse=True)[1]"
        )));
    }
    if !first_is_text {
        let plain: PyResult<Vec<Labels>> = arrays
            .iter()
            .map(|(array, what)| Ok(Labels::from(to_u32(array, what)?)))
            .collect();
        if names == Names::Refused || plain.is_ok() {
            return Ok((plain?, None));
        }
    }
    // Strings, negative or huge numbers.
    let numpy = first.py().import("numpy")?;
    let all = numpy.call_method1(
        "concatenate",
        (arrays.iter().map(|(array, _)| array).collect::<Vec<_>>(),),
    )?;
    let options = PyDict::new(first.py());
    options.set_item("return_inverse", true)?;
    let (classes, positions): (Bound<'_, PyAny>, Bound<'_, PyAny>) =
        numpy.call_method("unique", (all,), Some(&options))?.extract()?;
    let positions = to_u32(&positions, what)?;
    let mut rest = positions.as_slice();
    let mut found = Vec::with_capacity(arrays.len());
    for (array, _) in &arrays {
        let (own, others) = rest.split_at(array.len()?);
        found.push(Labels::from(own.to_vec()));
        rest = others;
    }
    Ok((found, Some(classes.call_method0("tolist")?.unbind())))
}

fn several(array: &Bound<'_, PyAny>, what: &str, is_hierarchy: bool) -> PyResult<Labels> {
    let is_bool = array.getattr("dtype")?.getattr("kind")?.extract::<String>()? == "b";
    if is_hierarchy || !is_bool {
        whole_numbers(array, what, 2)?;
    }
    let columns: usize = array.getattr("shape")?.get_item(1)?.extract()?;
    if columns == 0 {
        return Err(refused(format!(
            "{what}: there are 0 labels in a row: expected at least one column"
        )));
    }
    let values = to_u32(&array.call_method1("reshape", (-1,))?, what)?;
    let rows = values.chunks_exact(columns);
    if is_hierarchy {
        return Ok(Labels::Hierarchy(rows.map(<[u32]>::to_vec).collect()));
    }
    if let Some(at) = values.iter().position(|&value| value > 1) {
        return Err(refused(format!(
            "{what}: row {} holds {}, but several labels per row are written as 0 and 1 (rows are counted from 0)",
            at / columns,
            values[at]
        )));
    }
    let present = |row: &[u32]| (0..columns as u32).filter(|&label| row[label as usize] == 1).collect();
    Ok(Labels::MultiLabel(rows.map(present).collect()))
}

fn whole_numbers(array: &Bound<'_, PyAny>, what: &str, dimensions: usize) -> PyResult<()> {
    let dtype = array.getattr("dtype")?;
    if !matches!(dtype.getattr("kind")?.extract::<String>()?.as_str(), "i" | "u") {
        return Err(refused(format!(
            "{what}: expected integers or strings, found {dtype} ({}); numbers that are whole: labels.astype(numpy.int64)",
            type_name(array)
        )));
    }
    if array.getattr("ndim")?.extract::<usize>()? == dimensions {
        return Ok(());
    }
    Err(refused(format!(
        "{what}: expected {dimensions} dimensions, found the shape {}",
        array.getattr("shape")?
    )))
}

/// Integers of any type in one dimension.
fn to_u32(array: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<u32>> {
    let numpy = array.py().import("numpy")?;
    if array.len()? > 0 {
        for end in ["min", "max"] {
            let value = array.call_method0(end)?;
            if value.call_method0("item")?.extract::<u32>().is_err() {
                return Err(refused(format!(
                    "{what}: {value} is no class number: expected numbers from 0 to {}",
                    u32::MAX
                )));
            }
        }
    }
    let options = PyDict::new(array.py());
    options.set_item("dtype", numpy::dtype::<u32>(array.py()))?;
    let numbers = numpy.call_method("ascontiguousarray", (array,), Some(&options))?;
    let numbers = numbers.cast_into::<PyArray<u32, Ix1>>()?;
    Ok(numbers.readonly().as_slice().map_err(refused)?.to_vec())
}

/// Pictures `[height, width, 3]`, or several of one size `[pictures, height, width, 3]`, as pixels.
pub(crate) fn pictures(array: &Bound<'_, PyAny>, what: &str) -> PyResult<Vec<image::RgbImage>> {
    let (dtype, shape) = (array.getattr("dtype")?, array.getattr("shape")?);
    let wrong = || {
        refused(format!(
            "{what}: expected pictures of uint8 in the shape [height, width, 3], or several [pictures, height, width, 3], found \
             {dtype} {shape}"
        ))
    };
    if dtype.getattr("kind")?.extract::<String>()? != "u" || dtype.getattr("itemsize")?.extract::<usize>()? != 1 {
        return Err(wrong());
    }
    let pixels = required::<u8>(array)?.cast_into::<PyArrayDyn<u8>>()?;
    let (height, width) = match pixels.shape() {
        [height, width, 3] | [_, height, width, 3] if *height > 0 && *width > 0 => (*height, *width),
        _ => return Err(wrong()),
    };
    let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok());
    let (width_u32, height_u32) = sides.ok_or_else(wrong)?;
    let borrowed = pixels.readonly();
    let all = borrowed.as_slice().map_err(refused)?.chunks_exact(height * width * 3);
    all.map(|pixels| image::RgbImage::from_raw(width_u32, height_u32, pixels.to_vec()).ok_or_else(wrong))
        .collect()
}
