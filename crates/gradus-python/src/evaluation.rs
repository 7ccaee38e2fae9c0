//! Measures, exact search and k-means on arrays.

use std::collections::BTreeMap;

use gradus_core::EmbeddingSet;
use gradus_core::data::Factor;
use gradus_core::evaluation::{
    self, EvaluationOptions, FactorTable, Group, KMeansOptions, MEASURES, ReportOptions, RowSlice, Rows, Subject,
    k_means, nearest_rows, report,
};
use gradus_core::relations::Labels;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};

use crate::arrays::{self, Matrix, Names};
use crate::failures::{detached, refused};
use crate::options::{self, Levels, Words};
use crate::values::{numbers, serialized};

/// What `evaluate` reports unless it is told otherwise: the numbers of the papers.
const USUAL: [&str; 3] = ["recall", "map@r", "r_precision"];

/// Measures embeddings: every query searches the gallery or, without one, the other queries.
///
/// Exact to double precision; the names are those of `gradus evaluate --json`, `gradus.measures()` explains them. Undefined
/// numbers are None.
///
/// Args:
///     embeddings: array [rows, width] of floating-point numbers; float32 in row order is not copied.
///     labels: the class of each row, integers of any type or strings. With `label_kind="multi-label"` a matrix
///         [rows, labels] of 0 and 1, with "hierarchy" one of classes from the coarsest level to the finest.
///     gallery, gallery_labels: what is searched instead of the other rows.
///     measures: a name, several, a family such as "recall" (at every K of `at`), or "all" that the arguments allow; default
///         "recall", "map@r", "r_precision".
///     at: the levels K; default 1, 2, 4, 8.
///     factors: dict of name to array [rows], or array [rows, factors]: what is known of each query, for measures of order.
///     circular: dict of factor name to its period (360 for degrees).
///     reference: embeddings of the same queries in another space, for "knn_overlap", "reference_spearman", "linear_cka".
///     categories: a coarser group of each query.
///     cameras, gallery_cameras: the relevant rows that a query's own camera saw are left out (re-identification).
///     distance: "cosine", "inner-product" or "euclidean".
///     lone_queries: what a query with nothing to find counts: a "miss", as in the papers, or it is left out: "drop", as
///         pytorch-metric-learning does.
///     per_class: also "macro", the means over classes, and "per_class".
///     bootstrap: resamples of the queries for 95 % intervals ("intervals"); 0: none.
///     seed: of the resamples.
///     memory: bytes the search may take; rows that do not fit are taken in blocks.
///     threads: 0 takes all; the numbers do not depend on it.
///
/// Returns:
///     dict of name to number.
///
/// Raises:
///     ValueError: what does not fit together, named; a row that is not finite or, for the cosine, zero.
#[pyfunction]
#[pyo3(signature = (
    embeddings, labels, *, gallery=None, gallery_labels=None, measures=None, at=None, factors=None, circular=None, reference=None,
    categories=None, cameras=None, gallery_cameras=None, label_kind=None, distance="cosine", lone_queries="miss",
    per_class=false, bootstrap=0, seed=0, memory=None, threads=0,
))]
#[expect(clippy::too_many_arguments, reason = "keywords in Python")]
pub(crate) fn evaluate<'py>(
    py: Python<'py>,
    embeddings: &Bound<'py, PyAny>,
    labels: &Bound<'py, PyAny>,
    gallery: Option<&Bound<'py, PyAny>>,
    gallery_labels: Option<&Bound<'py, PyAny>>,
    measures: Option<Words>,
    at: Option<Levels>,
    factors: Option<&Bound<'py, PyAny>>,
    circular: Option<BTreeMap<String, f32>>,
    reference: Option<&Bound<'py, PyAny>>,
    categories: Option<&Bound<'py, PyAny>>,
    cameras: Option<&Bound<'py, PyAny>>,
    gallery_cameras: Option<&Bound<'py, PyAny>>,
    label_kind: Option<&str>,
    distance: &str,
    lone_queries: &str,
    per_class: bool,
    bootstrap: usize,
    seed: u64,
    memory: Option<usize>,
    threads: usize,
) -> PyResult<Bound<'py, PyDict>> {
    let queries = Matrix::<f32>::new(embeddings, "embeddings")?;
    let searched = gallery.map(|rows| Matrix::<f32>::new(rows, "gallery")).transpose()?;
    let mut sets = vec![(labels, "labels")];
    match (&searched, gallery_labels) {
        (Some(_), Some(labels)) => sets.push((labels, "gallery_labels")),
        (None, None) => {}
        (Some(_), None) => return Err(refused("gallery is given without gallery_labels: give both, or none")),
        (None, Some(_)) => return Err(refused("gallery_labels is given without gallery: give both, or none")),
    }
    let (known, names) = arrays::labels(&sets, label_kind, Names::Any)?;
    let query_labels = known[0].clone();
    one_each(&query_labels, queries.rows, "labels")?;
    if let (Some(rows), Some(labels)) = (&searched, known.get(1)) {
        one_each(labels, rows.rows, "gallery_labels")?;
    }
    let factors = factors
        .map(|factors| factor_table(factors, &circular.unwrap_or_default()))
        .transpose()?;
    let reference = reference.map(reference_set).transpose()?;
    let cameras = match (cameras, gallery_cameras, &searched) {
        (None, None, _) => None,
        (Some(own), None, None) => {
            let own = arrays::numbers(own, "cameras")?;
            Some([own.clone(), own])
        }
        (Some(own), Some(others), Some(_)) => Some([
            arrays::numbers(own, "cameras")?,
            arrays::numbers(others, "gallery_cameras")?,
        ]),
        (None, Some(_), _) => return Err(refused("gallery_cameras is given without cameras")),
        (Some(_), Some(_), None) => return Err(refused("gallery_cameras is given without gallery")),
        (Some(_), None, Some(_)) => return Err(refused("cameras is given without gallery_cameras")),
    };
    let categories = categories.map(|all| arrays::numbers(all, "categories")).transpose()?;
    let mut options = EvaluationOptions {
        distance: options::distance(distance)?,
        lone_queries: options::lone_queries(lone_queries)?,
        threads,
        ..EvaluationOptions::default()
    };
    options.memory = memory.unwrap_or(options.memory);
    options.recall_levels = at.map_or(options.recall_levels, Levels::into_vec);
    let wanted = measures.map_or_else(|| USUAL.map(str::to_owned).to_vec(), Words::into_vec);
    let wanted = (wanted != ["all"]).then_some(wanted);
    let more = ReportOptions {
        breakdown: per_class || categories.is_some(),
        bootstrap,
        seed,
    };

    let rows = slice(&queries, &query_labels)?;
    let gallery_rows = match (&searched, known.get(1)) {
        (Some(rows), Some(labels)) => Some((slice(rows, labels)?, labels.clone())),
        _ => None,
    };
    let report = detached(py, || {
        let subject = Subject {
            queries: &rows,
            query_labels: query_labels.clone(),
            gallery: gallery_rows
                .as_ref()
                .map(|(rows, labels)| (rows as &dyn Rows, labels.clone())),
            cameras,
            categories,
            factors: factors.as_ref(),
            reference: reference.as_ref(),
        };
        report(&subject, &options, wanted.as_deref(), &more).map_err(refused)
    })?;

    let result = numbers(py, &report.evaluation)?;
    if per_class {
        if let Some(means) = &report.by_class {
            result.set_item("macro", numbers(py, means)?)?;
        }
        result.set_item("per_class", groups(py, &report.classes, names.as_ref())?)?;
    }
    if let Some(means) = &report.by_category {
        result.set_item("macro_category", numbers(py, means)?)?;
        result.set_item("per_category", groups(py, &report.categories, None)?)?;
    }
    if bootstrap > 0 {
        let intervals = PyDict::new(py);
        for (name, [low, high]) in &report.intervals {
            intervals.set_item(name, (low, high))?;
        }
        result.set_item("intervals", intervals)?;
    }
    Ok(result)
}

/// The measures that `evaluate` knows: dict of name to what it says and where it comes from.
#[pyfunction]
pub(crate) fn measures(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let all = PyDict::new(py);
    for measure in MEASURES {
        all.set_item(measure.name, format!("{} ({})", measure.summary, measure.source))?;
    }
    Ok(all)
}

/// Finds the `k` nearest rows of the gallery for every query, nearest first, exactly, by cosine similarity.
///
/// Equal similarities are ordered by index. Memory: both sets at unit length and a block per thread.
///
/// Args:
///     queries: array [queries, width].
///     gallery: array [rows, width]; None: the queries search each other, and none finds itself.
///     k: how many; all there are, where there are fewer.
///     threads: 0 takes all.
///
/// Returns:
///     (scores, indices): float32 and int64 arrays [queries, k].
///
/// Raises:
///     ValueError: sets of different widths; a row that is zero or not finite.
#[pyfunction]
#[pyo3(signature = (queries, gallery=None, k=10, *, threads=0))]
pub(crate) fn search(
    py: Python<'_>,
    queries: &Bound<'_, PyAny>,
    gallery: Option<&Bound<'_, PyAny>>,
    k: usize,
    threads: usize,
) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
    if k == 0 {
        return Err(refused("k is 0: expected at least 1"));
    }
    let queries = Matrix::<f32>::new(queries, "queries")?;
    let gallery = gallery.map(|rows| Matrix::<f32>::new(rows, "gallery")).transpose()?;
    let own = RowSlice::new(queries.dim, queries.values()?);
    let other = match &gallery {
        Some(rows) => Some(RowSlice::new(rows.dim, rows.values()?)),
        None => None,
    };
    let options = EvaluationOptions {
        threads,
        ..EvaluationOptions::default()
    };
    let found = detached(py, || {
        let other = other.as_ref().map(|rows| rows as &dyn Rows);
        nearest_rows(&own, other, k, &options).map_err(refused)
    })?;
    if found.count == 0 {
        return Err(refused("there is one row only, so that it has nothing to find"));
    }
    let indices: Vec<i64> = found.indices.into_iter().map(i64::from).collect();
    Ok((
        arrays::matrix(py, found.similarities, found.count)?,
        arrays::matrix(py, indices, found.count)?,
    ))
}

/// K-means from k-means++ starts, the best of several (Lloyd 1982; Arthur and Vassilvitskii 2007).
///
/// Rows are taken as they are: bring them to unit length for cosine distances. The result depends on the seed, not on the
/// number of threads.
///
/// Args:
///     embeddings: array [rows, width].
///     clusters: how many.
///     restarts: independent starts, of which the one with the least inertia is kept.
///     iterations: most of each start.
///     tolerance: share of the variance that the centroids may still move by.
///     seed: of the starts.
///
/// Returns:
///     dict: "assignments" int64 [rows], "centroids" float32 [clusters, width], "sizes", "inertia", "iterations", "converged".
///
/// Raises:
///     ValueError: more clusters than rows, a value that is not finite, a setting of 0.
#[pyfunction]
#[pyo3(signature = (embeddings, clusters, *, restarts=10, iterations=300, tolerance=1e-4, seed=0))]
pub(crate) fn kmeans<'py>(
    py: Python<'py>,
    embeddings: &Bound<'py, PyAny>,
    clusters: usize,
    restarts: usize,
    iterations: usize,
    tolerance: f64,
    seed: u64,
) -> PyResult<Bound<'py, PyDict>> {
    let rows = Matrix::<f32>::new(embeddings, "embeddings")?;
    let (values, dim) = (rows.values()?, rows.dim);
    let options = KMeansOptions {
        clusters,
        restarts,
        iterations,
        tolerance,
        seed,
    };
    let found = detached(py, || k_means(values, dim, &options).map_err(refused))?;
    let result = PyDict::new(py);
    let assignments: Vec<i64> = found.assignments.into_iter().map(i64::from).collect();
    result.set_item("assignments", arrays::vector(py, assignments))?;
    result.set_item("centroids", arrays::matrix(py, found.centroids, dim)?)?;
    result.set_item("sizes", found.sizes)?;
    result.set_item("inertia", found.inertia)?;
    result.set_item("iterations", found.iterations)?;
    result.set_item("converged", found.converged)?;
    Ok(result)
}

/// How clusters agree with classes: "nmi", "nmi_geometric", "ami", "f1", "purity" and what they are made of.
///
/// Args:
///     labels: the class of each item, integers or strings.
///     clusters: the cluster of each item, integers.
#[pyfunction]
pub(crate) fn cluster_scores(
    py: Python<'_>,
    labels: &Bound<'_, PyAny>,
    clusters: &Bound<'_, PyAny>,
) -> PyResult<Py<PyAny>> {
    let (classes, _) = arrays::labels(&[(labels, "labels")], None, Names::Any)?;
    let classes = classes[0].classes().map_or(&[][..], |classes| classes);
    let clusters = arrays::numbers(clusters, "clusters")?;
    serialized(py, &evaluation::cluster_scores(classes, &clusters).map_err(refused)?)
}

/// Rows that are read where NumPy keeps them.
fn slice<'a>(rows: &'a Matrix<'_, f32>, labels: &'a Labels) -> PyResult<RowSlice<'a>> {
    let slice = RowSlice::new(rows.dim, rows.values()?);
    Ok(match labels.classes() {
        Some(classes) => slice.with_labels(classes),
        None => slice,
    })
}

fn one_each(labels: &Labels, rows: usize, what: &str) -> PyResult<()> {
    if labels.len() == rows {
        return Ok(());
    }
    Err(refused(format!(
        "{what} holds {} labels for {rows} embeddings: one label for each embedding is needed",
        labels.len()
    )))
}

fn factor_table(given: &Bound<'_, PyAny>, circular: &BTreeMap<String, f32>) -> PyResult<FactorTable> {
    let mut columns: Vec<(String, Vec<f32>)> = Vec::new();
    if given.cast::<PyMapping>().is_ok() {
        for item in given.call_method0("items")?.try_iter()? {
            let (name, values): (String, Bound<'_, PyAny>) = item?.extract()?;
            let values = arrays::asarray(&values)?.call_method1("astype", ("float32",))?;
            let what = format!("the factor {name}");
            let (values, rows, _) = arrays::vectors(&values, &what)?;
            if rows.is_some() {
                return Err(refused(format!("{what}: expected one number for each row")));
            }
            columns.push((name, values));
        }
    } else {
        let values = arrays::asarray(given)?.call_method1("astype", ("float32",))?;
        let (values, rows, dim) = arrays::vectors(&values, "factors")?;
        let dim = rows.map_or(1, |_| dim);
        columns.extend((0..dim).map(|column| {
            let own = values.iter().skip(column).step_by(dim).copied();
            (format!("factor{column}"), own.collect())
        }));
    }
    let rows = columns.first().map_or(0, |(_, values)| values.len());
    if let Some((name, values)) = columns.iter().find(|(_, values)| values.len() != rows) {
        return Err(refused(format!(
            "the factor {name} has {} values and another one {rows}: one number of each factor for each row is needed",
            values.len()
        )));
    }
    if let Some(unknown) = circular
        .keys()
        .find(|name| columns.iter().all(|(known, _)| known != *name))
    {
        let known: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        return Err(refused(format!(
            "the circular factor {unknown} is not there; the factors are {}",
            known.join(", ")
        )));
    }
    let factors = columns.iter().map(|(name, _)| Factor {
        name: name.clone(),
        period: circular.get(name).copied(),
    });
    Ok(FactorTable {
        factors: factors.collect(),
        values: (0..rows)
            .flat_map(|row| columns.iter().map(move |(_, values)| values[row]))
            .collect(),
    })
}

fn reference_set(given: &Bound<'_, PyAny>) -> PyResult<EmbeddingSet> {
    let rows = Matrix::<f32>::new(given, "reference")?;
    Ok(EmbeddingSet {
        dim: rows.dim,
        values: rows.values()?.to_vec(),
        labels: vec![0; rows.rows],
        ids: vec!["counted from 0".to_owned(); rows.rows],
    })
}

/// Means by class; keys are the labels as they were given.
fn groups<'py>(
    py: Python<'py>,
    groups: &BTreeMap<u32, Group>,
    names: Option<&Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let all = PyDict::new(py);
    for (label, group) in groups {
        let one = numbers(py, &group.means)?;
        one.set_item("queries", group.queries)?;
        one.set_item("lone_queries", group.lone_queries)?;
        match names {
            Some(names) => all.set_item(names.bind(py).get_item(*label)?, one)?,
            None => all.set_item(label, one)?,
        }
    }
    Ok(all)
}
