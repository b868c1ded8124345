//! What the deltas of a pool have in common.

use std::path::PathBuf;

use mergeplan_core::checkpoint::Checkpoint;
use mergeplan_core::similarity;
use mergeplan_core::Result;
use pyo3::prelude::*;

use crate::run::watched;

#[pyclass(frozen, get_all)]
pub struct TensorSimilarity {
    elements: u64,
    gram: Vec<f64>,
    agreeing: Vec<u64>,
    nonzero: Vec<u64>,
    kept: Vec<f64>,
}

impl From<similarity::Similarity> for TensorSimilarity {
    fn from(found: similarity::Similarity) -> Self {
        let similarity::Similarity { elements, gram, agreeing, nonzero, kept } = found;
        Self { elements, gram, agreeing, nonzero, kept }
    }
}

#[pyfunction]
#[pyo3(signature = (base, experts, tensors, *, densities, threads, progress = None))]
pub fn tensor_similarities(
    py: Python<'_>,
    base: PathBuf,
    experts: Vec<PathBuf>,
    tensors: Vec<String>,
    densities: Vec<f64>,
    threads: usize,
    progress: Option<Py<PyAny>>,
) -> PyResult<Vec<TensorSimilarity>> {
    let found = watched(py, progress.as_ref(), |control| {
        let base = Checkpoint::open(&base)?;
        let experts = experts.iter().map(|e| Checkpoint::open(e)).collect::<Result<Vec<_>>>()?;
        similarity::similarities(&base, &experts, &tensors, &densities, threads, control)
    })?;
    Ok(found.into_iter().map(TensorSimilarity::from).collect())
}
