//! What is read of one checkpoint: its headers, and the content hashes of its tensors.

use std::ffi::OsString;
use std::path::PathBuf;

use mergeplan_core::checkpoint::{Checkpoint, TensorEntry};
use mergeplan_core::compare;
use mergeplan_core::statistics::content;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::raise;
use crate::run::watched;

/// Name, dtype, shape, file and bytes.
type TensorRow = (String, String, Vec<usize>, OsString, u64);

#[pyfunction]
pub(crate) fn read_checkpoint(
    py: Python<'_>,
    path: PathBuf,
) -> PyResult<(Vec<TensorRow>, Vec<String>)> {
    let checkpoint = py.detach(|| Checkpoint::open(&path)).map_err(|error| raise(py, error))?;
    let row = |(name, entry): (&String, &TensorEntry)| {
        let file = checkpoint.shards()[entry.shard].path().file_name().unwrap_or_default();
        (name.clone(), entry.dtype.to_string(), entry.shape.clone(), file.into(), entry.bytes)
    };
    Ok((checkpoint.tensors().iter().map(row).collect(), checkpoint.unlisted().to_vec()))
}

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

#[pyfunction]
pub(crate) fn content_hash(data: &Bound<'_, PyBytes>, element_bytes: usize) -> u64 {
    content::hash(data.as_bytes(), element_bytes)
}
