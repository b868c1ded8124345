//! What the deltas of a pool have in common.

use mergeplan_core::compare::{similarities, Pool, Similarity};
use mergeplan_core::plan::Model;
use mergeplan_core::Error;
use pyo3::prelude::*;

use crate::run::watched;

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
