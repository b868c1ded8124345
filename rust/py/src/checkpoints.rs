//! What is read of one checkpoint: its headers, and the content hashes of its tensors.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use mergeplan_core::checkpoint::{self, Checkpoint, KnownHeaders};
use mergeplan_core::compare;
use mergeplan_core::statistics::content;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::errors::raise;
use crate::run::watched;

/// Dtype, shape, file and bytes, which many tensors of a model have in common.
type Kind<'py> = (String, Bound<'py, PyTuple>, OsString, u64);

/// Names in order, the number of each one's kind, the kinds, what an index does not list, and all of it
/// for the core.
type Found<'py> = (Vec<String>, Vec<usize>, Vec<Kind<'py>>, Vec<String>, Headers);

/// Headers of a checkpoint, which plans over it need not read again.
#[pyclass(frozen)]
pub(crate) struct Headers(Arc<checkpoint::Headers>);

impl Headers {
    /// By the place that a plan has for their model.
    pub(crate) fn by_place(headers: &[Bound<'_, Self>]) -> KnownHeaders {
        let one = |one: &Bound<'_, Self>| {
            let headers = &one.get().0;
            (headers.place().to_owned(), headers.clone())
        };
        headers.iter().map(one).collect()
    }
}

#[pyfunction]
pub(crate) fn read_checkpoint<'py>(py: Python<'py>, path: PathBuf) -> PyResult<Found<'py>> {
    let checkpoint = py.detach(|| Checkpoint::open(&path)).map_err(|error| raise(py, error))?;
    let (kinds, numbers) = checkpoint.tensors().kinds();
    let kind = |kind: &checkpoint::Kind| -> PyResult<Kind<'py>> {
        let file = checkpoint.shards()[kind.shard].path().file_name().unwrap_or_default();
        Ok((kind.dtype.to_string(), PyTuple::new(py, &kind.shape)?, file.into(), kind.bytes))
    };
    let kinds = kinds.iter().map(kind).collect::<PyResult<_>>()?;
    let names = checkpoint.tensors().iter().map(|entry| entry.name.to_owned()).collect();
    let unlisted = checkpoint.unlisted().to_vec();
    Ok((names, numbers.collect(), kinds, unlisted, Headers(checkpoint.headers().clone())))
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
