//! Jobs whose arithmetic runs elsewhere, as on a GPU: their inputs as bytes, their output as blocks.
//!
//! Whoever computes reads through [`DeviceInputs`] and writes through [`DeviceOutputs`], in any order
//! and from any thread; files, journal and hashes are then those of a run of
//! [`Prepared`](crate::execute::Prepared).

mod inputs;
mod outputs;

pub use inputs::{DeviceInputs, JobInput};
pub use outputs::{run_some, DeviceOutputs, Writers};
