//! The compiled half of the Python package `gradus`: NumPy arrays in and out, every function a call of the libraries.
//!
//! | module | what |
//! |---|---|
//! | `arrays` | arrays borrowed from NumPy, arrays handed to NumPy, labels |
//! | `values` | settings and results as Python objects |
//! | `failures` | which error of the libraries becomes which exception |
//! | `evaluation` | measures, exact search, k-means |
//! | `losses`, `miners` | the registries, on arrays |
//! | `training`, `run` | a run as it trains, and as it embeds |
//! | `index` | image search |
//!
//! Work is done without the interpreter's lock (`failures::detached`). The Python half (`python/gradus`) names the losses and
//! miners and holds the types.

mod arrays;
mod evaluation;
mod failures;
mod index;
mod losses;
mod miners;
mod options;
mod run;
mod training;
mod values;

use pyo3::prelude::*;

/// The compiled half of gradus; use the package `gradus`.
#[pymodule]
fn _gradus(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(evaluation::evaluate, module)?)?;
    module.add_function(wrap_pyfunction!(evaluation::measures, module)?)?;
    module.add_function(wrap_pyfunction!(evaluation::search, module)?)?;
    module.add_function(wrap_pyfunction!(evaluation::kmeans, module)?)?;
    module.add_function(wrap_pyfunction!(evaluation::cluster_scores, module)?)?;
    module.add_function(wrap_pyfunction!(losses::losses, module)?)?;
    module.add_function(wrap_pyfunction!(miners::miners, module)?)?;
    module.add_function(wrap_pyfunction!(run::list_images, module)?)?;
    module.add_class::<losses::Loss>()?;
    module.add_class::<losses::LossResult>()?;
    module.add_class::<miners::Miner>()?;
    module.add_class::<training::Training>()?;
    module.add_class::<run::Run>()?;
    module.add_class::<index::Index>()
}
