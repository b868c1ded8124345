//! Module `mergeplan._native`: converts between Python and mergeplan-core, and nothing else.

#![warn(unreachable_pub)]

mod checks;
mod elsewhere;
mod errors;
mod merges;
mod run;
mod similarity;
mod tensors;

use std::path::{Path, PathBuf};

use mergeplan_core::checkpoint::Checkpoint;
use mergeplan_core::number::philox::{self, Stream};
use mergeplan_core::output::exchange as swap;
use mergeplan_core::statistics::content;
use mergeplan_core::statistics::fingerprint::of_bytes;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::errors::raise;

type TensorRow = (String, String, Vec<usize>, String, u64);

#[pyfunction]
fn read_checkpoint(py: Python<'_>, path: PathBuf) -> PyResult<Vec<TensorRow>> {
    let checkpoint = py.detach(|| Checkpoint::open(&path)).map_err(|error| raise(py, error))?;
    let row = |(name, entry): (&String, &mergeplan_core::checkpoint::TensorEntry)| {
        let file = checkpoint.shards()[entry.shard].path().file_name().unwrap_or_default();
        let file = Path::new(file).display().to_string();
        (name.clone(), entry.dtype.to_string(), entry.shape.clone(), file, entry.bytes)
    };
    Ok(checkpoint.tensors().iter().map(row).collect())
}

#[pyfunction]
fn fault(point: &str) -> PyResult<()> {
    Ok(mergeplan_core::fault::hit(point)?)
}

#[pyfunction]
fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox::philox4x32_10(counter, key)
}

#[pyfunction]
fn stream_id(tensor: &str, fingerprint: u64) -> u64 {
    Stream::new(0, tensor, fingerprint).id()
}

#[pyfunction]
fn fingerprint(data: &Bound<'_, PyBytes>) -> u64 {
    of_bytes(data.as_bytes())
}

#[pyfunction]
fn content_hash(data: &Bound<'_, PyBytes>, element_bytes: usize) -> u64 {
    content::hash(data.as_bytes(), element_bytes)
}

#[pyfunction]
fn exchange(py: Python<'_>, a: PathBuf, b: PathBuf) -> PyResult<()> {
    swap(&a, &b).map_err(|error| raise(py, error))
}

#[pyfunction]
fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let info = PyDict::new(py);
    info.set_item("debug", cfg!(debug_assertions))?;
    info.set_item("target", std::env::consts::ARCH)?;
    Ok(info)
}

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<merges::PreparedMerge>()?;
    module.add_class::<merges::PreparedFamily>()?;
    module.add_class::<elsewhere::InputReader>()?;
    module.add_class::<elsewhere::OutputFiles>()?;
    module.add_class::<checks::TensorDistance>()?;
    module.add_class::<similarity::TensorSimilarity>()?;
    module.add_function(wrap_pyfunction!(similarity::tensor_similarities, module)?)?;
    module.add_function(wrap_pyfunction!(checks::content_hashes, module)?)?;
    module.add_function(wrap_pyfunction!(checks::tensor_distances, module)?)?;
    module.add_function(wrap_pyfunction!(tensors::merge_tensors, module)?)?;
    module.add_function(wrap_pyfunction!(exchange, module)?)?;
    module.add_function(wrap_pyfunction!(fault, module)?)?;
    module.add_function(wrap_pyfunction!(read_checkpoint, module)?)?;
    module.add_function(wrap_pyfunction!(philox4x32_10, module)?)?;
    module.add_function(wrap_pyfunction!(stream_id, module)?)?;
    module.add_function(wrap_pyfunction!(fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(content_hash, module)?)?;
    module.add_function(wrap_pyfunction!(build_info, module)?)
}
