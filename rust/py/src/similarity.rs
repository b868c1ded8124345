//! What the deltas of a pool have in common.

use std::collections::HashMap;

use mergeplan_core::plan::Model;
use mergeplan_core::source::Models;
use mergeplan_core::{compare, Error};
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

impl From<compare::Similarity> for TensorSimilarity {
    fn from(found: compare::Similarity) -> Self {
        let compare::Similarity { elements, gram, agreeing, nonzero, kept } = found;
        Self { elements, gram, agreeing, nonzero, kept }
    }
}

#[pyfunction]
#[pyo3(signature = (models_json, experts, tensors, *, densities, threads, progress = None))]
pub fn tensor_similarities(
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
        let mut given = parsed.map_err(|e| Error::Plan { reason: e.to_string() })?;
        let mut models = Models::default();
        let numbers = models.open_all(&mut given, &mut HashMap::new())?;
        let (Some(&base), Some(experts)) = (numbers.first(), numbers.get(1..=experts)) else {
            return Err(Error::Plan { reason: "there are fewer models than experts".into() });
        };
        compare::similarities(&models, base, experts, &tensors, &densities, threads, control)
    })?;
    Ok(found.into_iter().map(TensorSimilarity::from).collect())
}
