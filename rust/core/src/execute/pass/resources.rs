//! What a job runs with.

use crate::execute::pass::Known;
use crate::work::{JobControl, Parallel};

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
    pub known: Option<&'a Known>,
}
