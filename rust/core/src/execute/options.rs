//! How to run.

use crate::error::{Error, Result};

/// How to run, none of which changes a byte of the output.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Elements that a kernel works on at a time: a power of two from 64 to 65,536.
    pub chunk: usize,
    /// Bytes of anonymous memory that the run may use.
    pub memory_bytes: u64,
    /// Whether what a run of a family finds out about its inputs is kept for later ones.
    pub keeps: bool,
}

impl Options {
    /// Check the values.
    ///
    /// # Errors
    /// [`Error::Plan`]
    pub fn new(threads: usize, chunk: usize, memory_bytes: u64) -> Result<Self> {
        if threads == 0
            || !chunk.is_power_of_two()
            || !(crate::kernels::drop::LANES..=crate::work::BLOCK).contains(&chunk)
        {
            let reason = format!("no such way to run: {threads} threads, chunks of {chunk}");
            return Err(Error::Plan { reason });
        }
        Ok(Self { threads, chunk, memory_bytes, keeps: true })
    }
}
