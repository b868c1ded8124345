//! Run plans: open the inputs, check every job against their headers, then stream.

mod apply;
mod bundle;
mod control;
mod delta;
mod elsewhere;
mod group;
mod linear;
mod memory;
mod output;
mod prepared;
mod read_ahead;

use crate::error::{Error, Result};
use crate::parallel::Parallel;

pub use control::{Control, JobControl};
pub use elsewhere::{run_some, Inputs, Outputs};
pub use memory::Forecast;
pub use prepared::{Prepared, Target};

/// How to run, none of which changes a byte of the output.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Elements that a kernel works on at a time: a power of two from 64 to 65,536.
    pub chunk: usize,
    /// Bytes of anonymous memory that the run may use.
    pub memory_bytes: u64,
}

/// Chunks of this many elements keep a kernel's buffers in the second-level cache.
pub const DEFAULT_CHUNK: usize = 4096;

impl Options {
    /// Check the values.
    ///
    /// # Errors
    /// [`Error::Plan`]
    pub fn new(threads: usize, chunk: usize, memory_bytes: u64) -> Result<Self> {
        if threads == 0
            || !chunk.is_power_of_two()
            || !(crate::kernels::drop::LANES..=crate::segments::BLOCK).contains(&chunk)
        {
            let reason = format!("no such way to run: {threads} threads, chunks of {chunk}");
            return Err(Error::Plan { reason });
        }
        Ok(Self { threads, chunk, memory_bytes })
    }
}

/// What a job runs with.
#[derive(Clone, Copy)]
pub(crate) struct Resources<'a> {
    /// Elements of a chunk.
    pub chunk: usize,
    /// Bytes that may be held between passes.
    pub cache_bytes: usize,
    /// Where work is counted, and stopped.
    pub control: &'a JobControl<'a>,
    /// Where a large tensor's segments run.
    pub parallel: &'a Parallel<'a>,
    /// Merges of one tensor that are computed at a time.
    pub members: usize,
    /// What earlier runs have found, where there will be later ones.
    pub known: Option<&'a delta::Known>,
}
