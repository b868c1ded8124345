//! What two checkpoints differ by, and what the deltas of a pool have in common.

use mergeplan_core::checkpoint::Checkpoint;
use mergeplan_core::compare::{self, distances, similarities, Distance, Pool, Similarity};
use mergeplan_core::plan::{Model, Plan};
use mergeplan_core::Error;
use pyo3::prelude::*;

use crate::errors::raise;
use crate::run::watched;

#[pyclass(frozen, get_all)]
pub(crate) struct TensorDistance {
    elements: u64,
    differing: u64,
    ulp_dtype: Option<String>,
    unmatched: u64,
    finite: Option<u64>,
    nan_a: u64,
    nan_b: u64,
    max_difference: Option<f64>,
    mean_difference: Option<f64>,
    max_ulp: Option<u32>,
    mean_ulp: Option<f64>,
    sums: Option<[f64; 4]>,
}

impl From<Distance> for TensorDistance {
    fn from(found: Distance) -> Self {
        let values = found.values.as_ref();
        Self {
            elements: found.elements,
            differing: found.differing,
            ulp_dtype: values.map(|v| v.ulp_dtype.name().to_owned()),
            unmatched: values.map_or(0, |v| v.unmatched),
            finite: values.map(|v| v.finite),
            nan_a: values.map_or(0, |v| v.nan_a),
            nan_b: values.map_or(0, |v| v.nan_b),
            max_difference: values.map(|v| v.max_difference),
            mean_difference: values.map(|v| v.mean_difference),
            max_ulp: values.map(|v| v.max_ulp),
            mean_ulp: values.map(|v| v.mean_ulp),
            sums: values.map(|v| v.sums),
        }
    }
}

#[pyfunction]
#[pyo3(signature = (a, b, tensors, *, threads, progress = None))]
pub(crate) fn tensor_distances(
    py: Python<'_>,
    a: &str,
    b: &str,
    tensors: Vec<String>,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<TensorDistance>> {
    let found = watched(py, progress.as_ref(), |control| {
        let open = |json: &str| {
            let parsed = serde_json::from_str::<Model>(json);
            Checkpoint::of(&parsed.map_err(|error| Error::Plan { reason: error.to_string() })?)
        };
        let (a, b) = (open(a)?, open(b)?);
        distances(&a, &b, &tensors, threads, control)
    })?;
    Ok(found.into_iter().map(TensorDistance::from).collect())
}

#[pyfunction]
pub(crate) fn differing_copies(py: Python<'_>, plan_json: &str) -> PyResult<Vec<(usize, usize)>> {
    let plan = Plan::from_json(plan_json).map_err(|error| raise(py, error))?;
    watched(py, None, |control| compare::differing_copies(plan.clone(), control))
}

#[pyclass(frozen, get_all)]
pub(crate) struct TensorSimilarity {
    elements: u64,
    gram: Vec<f64>,
    agreeing: Vec<u64>,
    nonzero: Vec<u64>,
    kept: Vec<f64>,
}

impl From<Similarity> for TensorSimilarity {
    fn from(found: Similarity) -> Self {
        let Similarity { elements, gram, agreeing, nonzero, kept } = found;
        Self { elements, gram, agreeing, nonzero, kept }
    }
}

#[pyfunction]
#[pyo3(signature = (models_json, experts, tensors, *, densities, threads, progress = None))]
pub(crate) fn tensor_similarities(
    py: Python<'_>,
    models_json: &str,
    experts: usize,
    tensors: Vec<String>,
    densities: Vec<f64>,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<TensorSimilarity>> {
    let found = watched(py, progress.as_ref(), |control| {
        let parsed = serde_json::from_str::<Vec<Model>>(models_json);
        let models = parsed.map_err(|e| Error::Plan { reason: e.to_string() })?;
        let pool = Pool::open(models, experts)?;
        similarities(&pool, &tensors, &densities, threads, control)
    })?;
    Ok(found.into_iter().map(TensorSimilarity::from).collect())
}
