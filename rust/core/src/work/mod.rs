//! How work is cut up, spread over threads, counted and stopped. Uses `error` alone.

mod control;
mod memory;
mod parallel;
mod segments;

pub use control::Control;
pub(crate) use control::JobControl;
pub(crate) use memory::{check_memory, memory_within};
pub(crate) use parallel::{over_runs, pool, Parallel};
pub use segments::DEFAULT_CHUNK;
pub(crate) use segments::{is_large, pieces, segments, Segment, BLOCK};
