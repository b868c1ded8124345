//! Run plans: open the inputs, check every job against their headers, then stream. Uses everything
//! but `compare`.

mod blocks;
mod budget;
mod bundle;
mod delta;
mod device;
mod group;
mod input_hashes;
mod linear;
mod options;
mod pass;
mod prepared;
mod read_ahead;
mod target;
mod wide;

pub use budget::Forecast;
pub use device::{run_some, DeviceInputs, DeviceOutputs, JobInput, Writers};
pub use options::Options;
pub use prepared::Prepared;
pub use target::Target;
