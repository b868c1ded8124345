//! What is read of one checkpoint: its headers, and the content hashes of its tensors.

use std::collections::btree_map::{BTreeMap, Entry};
use std::ffi::OsString;
use std::path::PathBuf;

use mergeplan_core::checkpoint::Checkpoint;
use mergeplan_core::compare;
use mergeplan_core::statistics::content;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::errors::raise;
use crate::run::watched;

/// Dtype, shape, file and bytes, which many tensors of a model have in common.
type Kind<'py> = (String, Bound<'py, PyTuple>, OsString, u64);

/// Names in order, the number of each one's kind, the kinds, and what an index does not list.
type Headers<'py> = (Vec<String>, Vec<usize>, Vec<Kind<'py>>, Vec<String>);

#[pyfunction]
pub(crate) fn read_checkpoint<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Headers<'py>> {
    let checkpoint = py.detach(|| Checkpoint::open(&path)).map_err(|error| raise(py, error))?;
    let mut numbers = BTreeMap::new();
    let mut kinds = Vec::new();
    let mut of_each = Vec::with_capacity(checkpoint.tensors().len());
    for entry in checkpoint.tensors().values() {
        let kind = (entry.dtype, entry.shape.as_slice(), entry.shard, entry.bytes);
        let number = match numbers.entry(kind) {
            Entry::Occupied(found) => *found.get(),
            Entry::Vacant(place) => {
                let file = checkpoint.shards()[entry.shard].path().file_name().unwrap_or_default();
                let shape = PyTuple::new(py, &entry.shape)?;
                kinds.push((entry.dtype.to_string(), shape, file.into(), entry.bytes));
                *place.insert(kinds.len() - 1)
            }
        };
        of_each.push(number);
    }
    let names = checkpoint.tensors().keys().cloned().collect();
    Ok((names, of_each, kinds, checkpoint.unlisted().to_vec()))
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
