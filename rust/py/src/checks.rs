//! What checks finished checkpoints: content hashes, and the distances between two.

use std::path::PathBuf;

use mergeplan_core::checkpoint::Checkpoint;
use mergeplan_core::compare;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::run::watched;

#[pyfunction]
#[pyo3(signature = (path, *, threads, progress = None))]
pub(crate) fn content_hashes<'py>(
    py: Python<'py>,
    path: PathBuf,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyDict>> {
    let hashes = watched(py, progress.as_ref(), |control| {
        compare::content_hashes(&Checkpoint::open(&path)?, threads, control)
    })?;
    let result = PyDict::new(py);
    for (tensor, hash) in hashes {
        result.set_item(tensor, format!("{hash:016x}"))?;
    }
    Ok(result)
}

#[pyclass(frozen, get_all)]
pub(crate) struct TensorDistance {
    elements: u64,
    differing: u64,
    ulp_dtype: Option<String>,
    unmatched: u64,
    nan_a: u64,
    nan_b: u64,
    max_difference: Option<f64>,
    mean_difference: Option<f64>,
    max_ulp: Option<u32>,
    mean_ulp: Option<f64>,
}

impl From<compare::Distance> for TensorDistance {
    fn from(found: compare::Distance) -> Self {
        let values = found.values.as_ref();
        Self {
            elements: found.elements,
            differing: found.differing,
            ulp_dtype: values.map(|v| v.ulp_dtype.name().to_owned()),
            unmatched: values.map_or(0, |v| v.unmatched),
            nan_a: values.map_or(0, |v| v.nan_a),
            nan_b: values.map_or(0, |v| v.nan_b),
            max_difference: values.map(|v| v.max_difference),
            mean_difference: values.map(|v| v.mean_difference),
            max_ulp: values.map(|v| v.max_ulp),
            mean_ulp: values.map(|v| v.mean_ulp),
        }
    }
}

#[pyfunction]
#[pyo3(signature = (a, b, tensors, *, threads, progress = None))]
pub(crate) fn tensor_distances(
    py: Python<'_>,
    a: PathBuf,
    b: PathBuf,
    tensors: Vec<String>,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<TensorDistance>> {
    let found = watched(py, progress.as_ref(), |control| {
        let (a, b) = (Checkpoint::open(&a)?, Checkpoint::open(&b)?);
        compare::distances(&a, &b, &tensors, threads, control)
    })?;
    Ok(found.into_iter().map(TensorDistance::from).collect())
}
