//! Random words, and what keys them.

use mergeplan_core::number::philox::{self, Stream};
use mergeplan_core::statistics::fingerprint::of_bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

#[pyfunction]
pub(crate) fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    philox::philox4x32_10(counter, key)
}

#[pyfunction]
pub(crate) fn stream_id(tensor: &str, fingerprint: u64) -> u64 {
    Stream::new(0, tensor, fingerprint).id()
}

#[pyfunction]
pub(crate) fn fingerprint(data: &Bound<'_, PyBytes>) -> u64 {
    of_bytes(data.as_bytes())
}
