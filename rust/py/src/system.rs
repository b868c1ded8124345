//! The file system, faults on demand, and what was compiled.

use std::path::PathBuf;

use mergeplan_core::output;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::raise;

#[pyfunction]
pub(crate) fn exchange(py: Python<'_>, a: PathBuf, b: PathBuf) -> PyResult<()> {
    output::exchange(&a, &b).map_err(|error| raise(py, error))
}

#[pyfunction]
pub(crate) fn rename_new(py: Python<'_>, source: PathBuf, target: PathBuf) -> PyResult<bool> {
    output::rename_new(&source, &target).map_err(|error| raise(py, error))
}

#[pyfunction]
pub(crate) fn fault(point: &str) -> PyResult<()> {
    Ok(mergeplan_core::fault::hit(point)?)
}

#[pyfunction]
pub(crate) fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("debug", cfg!(debug_assertions))?;
    info.set_item("target", std::env::consts::ARCH)?;
    Ok(info)
}
