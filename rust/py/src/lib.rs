//! Module `mergeplan._native`: converts between Python and mergeplan-core, and nothing else.
//!
//! The stubs are laid out in the same files: `python/mergeplan/_native`.

#![warn(unreachable_pub)]

mod bus_errors;
mod checkpoints;
mod comparing;
mod custom;
mod devices;
mod errors;
mod memory;
mod merging;
mod randomness;
mod run;
mod system;
mod tensors;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<checkpoints::Headers>()?;
    module.add_function(wrap_pyfunction!(checkpoints::read_checkpoint, module)?)?;
    module.add_function(wrap_pyfunction!(checkpoints::content_hashes, module)?)?;
    module.add_function(wrap_pyfunction!(checkpoints::content_hash, module)?)?;
    module.add_class::<merging::PreparedMerge>()?;
    module.add_class::<merging::PreparedFamily>()?;
    module.add_function(wrap_pyfunction!(tensors::merge_tensors, module)?)?;
    module.add_class::<devices::InputReader>()?;
    module.add_class::<devices::OutputFiles>()?;
    module.add_class::<comparing::TensorDistance>()?;
    module.add_function(wrap_pyfunction!(comparing::tensor_distances, module)?)?;
    module.add_function(wrap_pyfunction!(comparing::differing_copies, module)?)?;
    module.add_class::<comparing::TensorSimilarity>()?;
    module.add_function(wrap_pyfunction!(comparing::tensor_similarities, module)?)?;
    module.add_function(wrap_pyfunction!(randomness::philox4x32_10, module)?)?;
    module.add_function(wrap_pyfunction!(randomness::stream_id, module)?)?;
    module.add_function(wrap_pyfunction!(randomness::fingerprint, module)?)?;
    module.add_function(wrap_pyfunction!(system::exchange, module)?)?;
    module.add_function(wrap_pyfunction!(system::rename_new, module)?)?;
    module.add_function(wrap_pyfunction!(system::fault, module)?)?;
    module.add_function(wrap_pyfunction!(bus_errors::tell_bus_errors, module)?)?;
    module.add_function(wrap_pyfunction!(system::build_info, module)?)
}
